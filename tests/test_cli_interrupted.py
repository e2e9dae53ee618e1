"""cli: interruptions, closed pipes and the unexpected end in one line, and lose nothing."""

import os
import subprocess
import sys

import pytest

from tests.commands import complaint, interrupt_after_one_picture, run
from totalrecall import cli
from totalrecall.cli import main
from totalrecall.errors import TotalRecallError


@pytest.fixture
def command_that_raises(monkeypatch):
    """Make `totalrecall info` raise."""

    def prepare(error):
        def raise_it(*_):
            raise error

        monkeypatch.setattr("totalrecall.cli.info.run", raise_it)
        monkeypatch.setattr(cli, "COMMANDS", ("info",))

    return prepare


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted."),
        (MemoryError(), 1, "out of memory. Use a smaller --coreset or --size, or fewer pictures."),
        (TotalRecallError("Two\nlines."), 1, "Two lines."),
        (OSError(28, "No space left on device", "/line/x.json"), 1, "No space left on device: /line/x.json."),
        (OSError(5, "Input/output error"), 1, "Input/output error."),
        (
            ZeroDivisionError("division by zero"),
            1,
            "unexpected ZeroDivisionError: division by zero. Please report it; TOTALRECALL_DEBUG=1 shows where.",
        ),
        (
            RuntimeError(),
            1,
            "unexpected RuntimeError. Please report it; TOTALRECALL_DEBUG=1 shows where.",
        ),
    ],
)
def test_whatever_is_raised_gives_one_line(capsys, monkeypatch, command_that_raises, error, code, message):
    monkeypatch.delenv("TOTALRECALL_DEBUG", raising=False)
    command_that_raises(error)
    assert complaint(capsys, "info", "m") == (code, message)


def test_with_debug_set_the_unexpected_is_raised(monkeypatch, command_that_raises):
    monkeypatch.setenv("TOTALRECALL_DEBUG", "1")
    command_that_raises(ZeroDivisionError("here"))
    with pytest.raises(ZeroDivisionError, match="here"):
        main(["info", "m"])


def test_an_interrupted_predict_keeps_its_lines_and_the_old_file(capsys, monkeypatch, model, parts, tmp_path):
    target = tmp_path / "r.jsonl"
    target.write_text("old")
    interrupt_after_one_picture(monkeypatch)
    code, _, err = run(capsys, "predict", model, parts / "test", "--json", target)
    assert code == 130
    assert err == [f"totalrecall: the lines so far are in {target}.part", "totalrecall: interrupted."]
    assert target.read_text() == "old"
    assert (tmp_path / "r.jsonl.part").read_text().count("\n") == 1


def test_a_closed_pipe_is_no_error(model):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "totalrecall", "info", str(model)]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="needs /dev/stdout")  # noqa: PTH110
def test_json_may_go_to_a_pipe_by_its_name(model, parts, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert main(["predict", str(model), str(parts / "test" / "good"), "--json", str(pipe), "--quiet"]) == 0
    out, _ = reader.communicate(timeout=20)
    assert out.count(b"\n") == 3
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
