"""predict --ray: the scores of plain predict to the bit, each picture once, whatever dies meanwhile."""

import contextlib
import json
import re
import shutil
import signal
import sys

import psutil
import pytest

from tests.cluster_ready import KILLING, NEEDS_RAY, bucket, command, copies, part_names, ran, rows, wait_for
from totalrecall.cli import main

pytestmark = [NEEDS_RAY, pytest.mark.slow]


@pytest.fixture
def place(tmp_path, pictures):
    """A folder with pictures, one of which is none."""
    copies(pictures, tmp_path / "pictures", 12)
    (tmp_path / "pictures" / "0005.png").write_bytes(b"no picture")
    return tmp_path


def plain(model, place, capsys, monkeypatch):
    """Return what plain predict says of each picture."""
    monkeypatch.chdir(place)
    assert main(["predict", str(model), "pictures", "--json", "plain.json", "--quiet"]) == 1
    capsys.readouterr()
    results = map(json.loads, (place / "plain.json").read_text().splitlines())
    return {result["path"]: result for result in results}


def test_two_workers_say_what_one_command_says_to_the_bit_and_name_what_cannot_be_read(
    model, place, capsys, monkeypatch
):
    expected = plain(model, place, capsys, monkeypatch)
    code, out, err = ran("predict", model, "pictures", "--ray", "local", "--workers", 2, "-o", "r.parquet", cwd=place)
    assert code == 1, err
    assert "12 pictures" not in out
    assert "11 pictures" in out
    assert "1 could not be read" in out
    assert err.count("\n") == 1
    assert err.startswith("totalrecall: pictures/0005.png is not a picture that can be decoded")
    table = rows(place / "r.parquet")
    assert [row["path"] for row in table] == [f"pictures/{at:04}.png" for at in range(12)]
    assert [row["path"] for row in table if row["error"]] == ["pictures/0005.png"]
    for row in table:
        if row["error"] is None:
            same = {name: value for name, value in row.items() if name not in ("error", "milliseconds")}
            assert same == {name: expected[row["path"]][name] for name in same}
    assert sorted(path.name for path in place.iterdir()) == ["pictures", "plain.json", "r.parquet"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_command_goes_on_when_given_again_and_no_picture_is_twice_or_missing(model, pictures, tmp_path):
    names = copies(pictures, tmp_path / "pictures", 240)
    words = ["predict", model, "pictures", "--ray", "local", "--workers", 2, "-o", "r.parquet"]
    process = command(*words, cwd=tmp_path)
    wait_for(lambda: part_names(tmp_path / "r.parquet"), process)
    process.send_signal(signal.SIGKILL)
    process.wait()  # not until the pipes end: two helpers of Ray notice only minutes later, and hold them
    process.stdout.close()
    process.stderr.close()
    before = part_names(tmp_path / "r.parquet")
    assert 0 < len(before) < 16
    assert not (tmp_path / "r.parquet").exists()

    code, _, err = ran(*words, "--false-alarm-rate", 0.2, cwd=tmp_path)
    assert code == 1
    assert "holds what another command did so far (false_alarm_rate None, now 0.2)" in err

    code, out, err = ran(*words, cwd=tmp_path)
    assert (code, err) == (0, "")
    assert f"Went on where an earlier run ended: {15 * len(before)} of 240 pictures done" in out
    seconds, rate = map(float, re.search(r"240 pictures in ([\d.]+) s, ([\d.]+) pictures/s", out).groups())
    assert seconds * rate == pytest.approx(240 - 15 * len(before), rel=0.05)  # of those that it judged itself
    assert [row["path"] for row in rows(tmp_path / "r.parquet")] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "r.parquet"]


def workers_of(process):
    """Return the processes of a command's cluster that judge."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "_Worker" in _words(child)]


def _words(process):
    with contextlib.suppress(psutil.Error):  # it has just ended
        return " ".join(process.cmdline())
    return ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_worker_that_dies_is_replaced_and_the_result_is_the_same(model, pictures, tmp_path):
    names = copies(pictures, tmp_path / "pictures", 240)
    process = command("predict", model, "pictures", "--ray", "local", "--workers", 2, "-o", "r.parquet", cwd=tmp_path)
    wait_for(lambda: part_names(tmp_path / "r.parquet"), process)
    victim = wait_for(lambda: workers_of(process), process)[0]
    victim.kill()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    assert "totalrecall:" not in err  # Ray itself says that a worker died
    assert not victim.is_running()
    table = rows(tmp_path / "r.parquet")
    assert [row["path"] for row in table] == names
    by_picture = {}
    for at, row in enumerate(table):
        by_picture.setdefault(at % len(pictures), set()).add(row["score"])
    assert [len(scores) for scores in by_picture.values()] == [1] * len(pictures)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_pictures_that_end_every_worker_are_told_and_all_others_are_judged(model, pictures, tmp_path):
    names = copies(pictures, tmp_path / "pictures", 64)
    killers = ["pictures/0033_killer.png", "pictures/0034_killer.png"]
    for name in killers:
        shutil.copy(pictures[0], tmp_path / name)
    words = ["predict", model, "pictures", "--ray", "local", "-o", "r.parquet"]
    code, out, err = ran(*words, "--workers", 1, cwd=tmp_path, environment=KILLING)
    assert code == 1, err
    assert "2 could not be read" in out
    told = [line for line in err.splitlines() if line.startswith("totalrecall:")]
    assert told == [
        f"totalrecall: {name} was not read: it ended every worker that tried. Look at it by itself, and at the memory "
        "of the machines if it is large."
        for name in killers
    ]
    table = rows(tmp_path / "r.parquet")
    assert [row["path"] for row in table] == sorted([*names, *killers])
    assert [row["path"] for row in table if row["error"]] == killers
    judged = [row["score"] for row in table if row["error"] is None]
    assert judged == [judged[at % len(pictures)] for at in range(64)]

    (tmp_path / "r.parquet").unlink()
    assert ran(*words, "--workers", 2, cwd=tmp_path)[0] == 0  # where nothing kills, these two are pictures like others


def test_pictures_in_a_bucket_are_read_by_the_workers(model, pictures, tmp_path, capsys, monkeypatch):
    files = {f"day/{at % 2}/{at:02}.png": picture.read_bytes() for at, picture in enumerate(pictures)}
    others = {"day/1/broken.png": b"no picture", "day/1/notes.txt": b"no picture either"}
    with bucket(monkeypatch, {**files, **others}):
        code, _, err = ran("predict", model, "s3://line/day", "--ray", "local", "-o", "r.parquet", cwd=tmp_path)
    assert code == 1, err
    assert err.startswith("totalrecall: s3://line/day/1/broken.png is not a picture")
    table = {row["path"]: row for row in rows(tmp_path / "r.parquet")}
    assert len(table) == len(pictures) + 1
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(model), *map(str, pictures), "--json", "plain.json", "--quiet"]) == 0
    capsys.readouterr()
    for at, line in enumerate((tmp_path / "plain.json").read_text().splitlines()):
        assert table[f"s3://line/day/{at % 2}/{at:02}.png"]["score"] == json.loads(line)["score"]
