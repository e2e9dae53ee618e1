"""What the tests of clusters share: whether Ray is here, commands on it, and what they wrote."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

NEEDS_RAY = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ray", "pyarrow", "fsspec")),
    reason="needs Ray (pip install 'totalrecall[cluster]')",
)

_PATH = [str(Path(__file__).parent / "killing"), *filter(None, [os.environ.get("PYTHONPATH")])]
KILLING = {"PYTHONPATH": os.pathsep.join(_PATH)}  # of a command: a worker that opens a file `*killer*` dies of it


def command(*words, cwd, environment=()):
    """Start `totalrecall` with some words; its folder is where relative paths begin."""
    return subprocess.Popen(
        [sys.executable, "-m", "totalrecall", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **dict(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ran(*words, cwd, environment=()):
    """Return exit code, stdout and stderr of a command."""
    process = command(*words, cwd=cwd, environment=environment)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


@contextlib.contextmanager
def bucket(monkeypatch, files):
    """Let commands find some files, their bytes by key, at s3://line on this machine."""
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    try:
        store = boto3.client("s3")
        store.create_bucket(Bucket="line")
        for key, data in files.items():
            store.put_object(Bucket="line", Key=key, Body=data)
        store.close()
        yield
    finally:
        server.stop()


def rows(path):
    """Return what a Parquet file holds, a dictionary for each picture."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


def copies(pictures, folder, count):
    """Fill a folder with so many copies of pictures; return their names in the order in which they are listed."""
    folder.mkdir()
    for at in range(count):
        shutil.copy(pictures[at % len(pictures)], folder / f"{at:04}.png")
    return [f"{folder.name}/{at:04}.png" for at in range(count)]


def wait_for(condition, process, seconds=300):
    """Wait until something is true while a command works; fail if the command ends before."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


def part_names(target):
    """Return the names of the parts that a run has written so far."""
    return sorted(path.name for path in Path(f"{target}.parts").glob("part-*.parquet"))
