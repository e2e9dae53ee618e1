"""cli: stdout and stderr that are closed or that nobody reads, and signals: results in files are kept, no traceback."""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.commands import run
from totalrecall.cli import main
from totalrecall.cli.process import EndedBySignal, ending_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


def in_shell(text, *words, cwd=None):
    """Run `totalrecall WORDS` in a shell, as the text redirects it; return its exit code and what came out."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    script = text.replace("totalrecall", f'"{sys.executable}" -m totalrecall "$@"')
    command = ["bash", "-c", script, "bash", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)
    return done.returncode, done.stdout, done.stderr


CLOSED = ["totalrecall >&-", "totalrecall 2>&-", "totalrecall >&- 2>&-", "totalrecall <&- >&- 2>&-"]


@pytest.mark.parametrize("text", CLOSED)
def test_files_are_written_whole_whatever_is_closed(capsys, model, parts, tmp_path, text):
    line = ["predict", model, parts / "test", "--json", tmp_path / "r.jsonl", "--heatmaps", tmp_path / "maps"]
    code, out, err = in_shell(text, *line, "--monitor", tmp_path / "line.monitor")
    assert code == 0
    assert "Traceback" not in out + err
    assert len([json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]) == 6
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 6
    assert json.loads((tmp_path / "line.monitor").read_text())["pictures"] == 6


def commands(added, model, parts, own):
    return [
        ["predict", model, parts / "test"],
        ["predict", model, parts / "nothing"],
        ["evaluate", model, parts, "--layout", "mvtec"],
        ["info", model],
        ["info", parts],
        ["info"],
        ["--help"],
        ["datasets"],
        ["datasets", "mvtec"],
        ["datasets", "mvtec", parts],
        ["backbones", "list"],
        ["update", own, "--undo", "--dry-run"],
        ["teach", model, "--defect", parts / "test" / "good"],
        ["capability", model, parts / "test" / "good", "--per-size", "1", "--threshold", "1e6"],
        ["audit", parts / "train", "--backbone", added, "--size", "64"],
        ["fit", parts / "train", "--backbone", "none", "-o", own],
    ]


ALL_IN_TURN = """
import json, sys
from totalrecall.cli import main

def code_of(line):
    try:
        return main(line)
    except SystemExit as end:
        return end.code

*lines, place = json.load(open(sys.argv[1]))
with open(place, "w") as file:
    json.dump([code_of(line) for line in lines], file)
"""


def test_no_command_minds_that_both_are_closed(added, model, parts, tmp_path):
    own = shutil.copy(model, tmp_path / "m.trecall")
    lines = [list(map(str, line)) for line in commands(added, model, parts, own)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    codes = []
    for text in ("exec {} >/dev/null 2>&1", "exec {} >&- 2>&-"):
        (tmp_path / "lines").write_text(json.dumps([*lines, str(tmp_path / "codes")]))
        command = [
            "bash",
            "-c",
            text.format('"$@"'),
            "bash",
            sys.executable,
            "-c",
            ALL_IN_TURN,
            str(tmp_path / "lines"),
        ]
        done = subprocess.run(command, capture_output=True, env=environment, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        codes.append(json.loads((tmp_path / "codes").read_text()))
    assert codes[0] == codes[1]
    assert set(codes[0]) == {0, 1, 2, 3}


def test_no_command_minds_that_nobody_reads(added, model, parts, tmp_path):
    own = shutil.copy(model, tmp_path / "m.trecall")
    for line in commands(added, model, parts, own)[::3]:
        _, out, err = in_shell("totalrecall 2>&1 | head -n 1", *line)
        assert err == ""
        assert "Traceback" not in out
        assert out.count("\n") <= 1, line


def test_json_to_a_stdout_that_is_closed_is_refused(model, parts, tmp_path):
    for option, words in (
        ("--json", ["predict", model, parts]),
        ("--csv", ["predict", model, parts]),
        ("--json", ["info", model]),
    ):
        code, _, err = in_shell("totalrecall >&-", *words, option, "-")
        assert code == 2
        assert err == f"totalrecall: {option} - writes to stdout, which is closed. Name a file.\n"


def test_complaints_never_get_into_the_results_where_stderr_is_closed(model, parts, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    code, out, _ = in_shell("totalrecall 2>&-", "predict", model, tmp_path, parts / "test", "--json", "-")
    assert code == 1
    assert len([json.loads(line) for line in out.splitlines()]) == 6


def test_a_reader_who_goes_away_ends_no_command_that_writes_files(model, parts, tmp_path):
    many = tmp_path / "in"
    many.mkdir()
    for at in range(40):
        shutil.copy(parts / "test" / "good" / "000.png", many / f"{'long' * 40}{at}.png")
    for unbuffered in ("", "PYTHONUNBUFFERED=1 "):
        line = ["predict", model, many, "--csv", tmp_path / "r.csv"]
        code, _, err = in_shell(f"set -o pipefail; {unbuffered}totalrecall | head -n 1", *line)
        assert (code, err) == (0, "")
        assert (tmp_path / "r.csv").read_text().count("\n") == 41
        (tmp_path / "r.csv").unlink()


def test_a_defect_is_told_by_the_exit_code_though_nobody_reads(model, parts):
    line = ["predict", model, parts / "test", "--fail-on-anomaly"]
    told = in_shell("totalrecall >/dev/null", *line)[0]
    assert in_shell("set -o pipefail; totalrecall | true", *line)[0] in (told, 0)
    assert in_shell("set -o pipefail; totalrecall --json /dev/null | true", *line)[0] == told


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_is_told(model):
    code, _, err = in_shell("totalrecall > /dev/full", "info", model)
    assert (code, err) == (1, "totalrecall: No space left on device.\n")


# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_saves_the_monitor_and_keeps_the_lines(model, parts, tmp_path, name):
    many = tmp_path / "in"
    many.mkdir()
    for at in range(2000):
        (many / f"{at:04}.png").symlink_to(parts / "test" / "good" / f"00{at % 3}.png")
    target = tmp_path / "r.jsonl"
    target.write_text("old")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    line = ["predict", model, many, "--json", target, "--monitor", tmp_path / "line.monitor", "--quiet"]
    command = [sys.executable, "-m", "totalrecall", *map(str, line)]
    # a shell that runs the tests in the background lets them ignore SIGINT, and what they start inherits that
    heard = functools.partial(signal.signal, getattr(signal, name), signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heard)
    part = tmp_path / "r.jsonl.part"
    while not (part.exists() and part.stat().st_size) and process.poll() is None:
        time.sleep(0.01)
    number = getattr(signal, name)
    process.send_signal(number)
    _, err = process.communicate()
    last = "interrupted." if name == "SIGINT" else f"ended by {name}."
    assert process.returncode == 128 + number
    assert err.splitlines() == [f"totalrecall: the lines so far are in {part}", f"totalrecall: {last}"]
    assert target.read_text() == "old"
    lines = [json.loads(line) for line in part.read_text().splitlines()]
    seen = json.loads((tmp_path / "line.monitor").read_text())["pictures"]
    assert 0 < len(lines) < 2000
    assert len(lines) - 1 <= seen <= len(lines)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["in", "line.monitor", "r.jsonl", "r.jsonl.part"]


def test_a_signal_that_is_ignored_stays_ignored_and_ours_are_given_back():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with ending_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
            with pytest.raises(EndedBySignal):
                signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_streams_of_the_program_around_us_are_given_back(capsys, model):
    before = sys.stdout, sys.stderr
    assert main(["info", str(model)]) == 0
    assert (sys.stdout, sys.stderr) == before
    assert run(capsys, "info", "none")[0] == 3
    assert (sys.stdout, sys.stderr) == before


def test_a_signal_that_compiled_code_turns_into_an_error_of_its_own_ends_the_command(monkeypatch, capsys, tmp_path):
    """pydantic's core does so where SIGTERM strikes while `serve` starts: its SchemaError does not name the cause."""

    def interrupted(args):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            error = RuntimeError("Error building a validator")
        raise error

    monkeypatch.setattr("totalrecall.cli.info.run", interrupted)
    assert main(["info", str(tmp_path / "part.trecall")]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "totalrecall: ended by SIGTERM.\n"


def test_a_signal_that_compiled_code_turns_into_a_plain_interrupt_keeps_its_exit_code(monkeypatch, capsys, tmp_path):
    """Ray does so: whatever a handler raises while it waits, what comes out is a KeyboardInterrupt."""

    def interrupted(args):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)  # not SIGHUP, which is ignored below nohup
        raise KeyboardInterrupt

    monkeypatch.setattr("totalrecall.cli.info.run", interrupted)
    assert main(["info", str(tmp_path / "part.trecall")]) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "totalrecall: ended by SIGTERM.\n"


def test_a_signal_that_strikes_an_import_ends_the_command_as_any_other(monkeypatch, capsys, tmp_path):
    """A compiled module whose start is interrupted raises ImportError, with the interrupt as its cause."""

    def interrupted(args):
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr("totalrecall.cli.info.run", interrupted)
    assert main(["info", str(tmp_path / "part.trecall")]) == 130
    assert capsys.readouterr().err == "totalrecall: interrupted.\n"
