"""A station on a Ray cluster in a process of its own: its replicas, what it wrote, and its orderly end."""

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from sqlalchemy import func, select

from tests.served import Served
from totalrecall.station.store.database import Database
from totalrecall.station.store.tables import inspections
from totalrecall.station.store.trail import Trail

NEEDS_SERVE = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ray", "grpc")),  # Serve cannot be imported without grpc
    reason="needs Ray Serve (pip install 'totalrecall[cluster]')",
)


class ClusterServed(Served):
    """A station whose pictures are judged by replicas; it leads a group of processes of its own."""

    cluster = ("--ray", "local")

    def __init__(self, folder, database, *words):
        self.folder, self.database = folder, database
        command = [sys.executable, "-m", "totalrecall", "serve", *map(str, words), "--port", "0", *self.cluster]
        command += ["--database", database, "--folder", str(folder)]
        self.errors = folder.with_name(f"{folder.name}.err").open("w+")
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=self.errors,  # not a pipe: helpers of Ray hold it for minutes after a kill
            text=True,
            start_new_session=True,
            env={**os.environ, "RAY_worker_niceness": "0"},
        )
        self.line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.line)
        assert found, self.line + self.complaints()
        self.address = found[0]

    def complaints(self):
        """Return what it wrote to stderr."""
        self.errors.seek(0)
        return self.errors.read()

    def family(self):
        """Return all processes that it started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self):
        """Return its replicas, by their process numbers."""
        found = {}
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if "ServeReplica" in " ".join(process.cmdline()):
                    found[process.pid] = process
        return found

    def wait_for_replicas(self, condition, seconds=240):
        """Wait until its replicas are as a condition of their numbers says."""
        end = time.monotonic() + seconds
        while not condition(there := set(self.replicas())):
            assert self.process.poll() is None, self.complaints()
            assert time.monotonic() < end, there
            time.sleep(0.2)
        return there

    def rows(self):
        """Return key, score, verdict and picture's name of what is in the history."""
        columns = inspections.c
        with Database(self.database) as database, database.read() as connection:
            query = select(columns.key, columns.score, columns.verdict, columns.name)
            return [tuple(row) for row in connection.execute(query)]

    def count(self):
        """Return how many inspections the history has."""
        with Database(self.database) as database, database.read() as connection:
            return connection.execute(select(func.count()).select_from(inspections)).scalar()

    def trail(self):
        """Return what a look at every row of the audit trail says."""
        with Database(self.database) as database:
            return Trail(database).verify()

    def stop(self, number=signal.SIGTERM, *, group=False):
        """End it by a signal to it, or to its whole group as a terminal does; return its exit code and what it said."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        code = self.process.wait(240)
        said = self.process.stdout.read()
        return code, said, self.complaints()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.errors.close()
