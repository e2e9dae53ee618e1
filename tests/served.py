"""A station in a process of its own, for tests that kill it, replace its model, or speak to it from outside."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request


class Served:
    """A station in a process of its own."""

    def __init__(self, folder, *words):
        command = [sys.executable, "-m", "totalrecall", "serve", *map(str, words), "--port", "0"]
        self.folder = folder
        self.process = subprocess.Popen(
            [*command, "--folder", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.line)
        assert found, self.line + self.process.stderr.read()
        self.address = found[0]

    def ask(self, path, data=None, **headers):
        request = urllib.request.Request(self.address + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def judge(self, picture):
        return self.ask("/v1/models/part/predict", picture, **{"Content-Type": "image/png"})

    def inspections(self):
        with sqlite3.connect(self.folder / "history.db") as history:
            return {key for (key,) in history.execute("select key from inspections")}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err
