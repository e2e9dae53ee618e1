"""What was acknowledged is there, whatever happens to the process: killed, out of disk, the server's power cut."""

import os
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from sqlalchemy import func, select

from tests.killed_station import BUDGET, HEAT
from totalrecall.errors import HistoryError
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.kept import KeptPictures
from totalrecall.station.store.tables import inspections, outbox
from totalrecall.station.store.trail import Trail

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and resource limits"),
]

KILLS = 6  # benchmarks.station_kills makes twenty, of a whole station


def started(address, name, *folder, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "tests.killed_station", address, name, *map(str, folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def killed_after(process, seconds):
    """Let a process work for a moment after its first acknowledged inspection, kill it, and return what it said."""
    first = process.stdout.readline()
    assert first.endswith(b"\n"), process.stderr.read().decode()
    timer = threading.Timer(seconds, process.send_signal, [signal.SIGKILL])
    timer.start()
    rest = process.stdout.read()  # also what it said last, up to the kill
    process.wait()
    timer.join()
    assert process.returncode == -signal.SIGKILL, process.stderr.read().decode()
    process.stdout.close()
    process.stderr.close()
    lines = (first + rest).decode().split("\n")[:-1]
    added = {line for line in lines if " " not in line}
    return added, {line.split()[0] for line in lines if " " in line}


def there(database):
    """Return the keys of all inspections, of the judged ones, and of those that wait in the outbox."""
    with database.read() as connection:
        rows = connection.execute(select(inspections.c.key, inspections.c.judgement)).all()
        waiting = set(connection.execute(select(outbox.c.inspection)).scalars())
    return {row.key for row in rows}, {row.key for row in rows if row.judgement == "fine"}, waiting


def test_nothing_acknowledged_is_lost_when_the_process_is_killed_again_and_again(address):
    draw = random.Random(42)
    added, judged, most = set(), set(), 0
    for number in range(KILLS):
        now_added, now_judged = killed_after(started(address, f"{number:08x}"), draw.uniform(0, 0.5))
        added |= now_added
        judged |= now_judged
        most = max(most, len(now_added))
        with Database(address) as database:
            found, found_judged, waiting = there(database)
            assert added <= found
            assert judged <= found_judged
            assert waiting == found  # neither an inspection without its delivery, nor the other way round
            verified = Trail(database).verify()
            assert verified.broken == []
            assert verified.rows == 1 + len(found_judged)
    assert most > 10  # the kills struck while it was at work


def test_kept_pictures_are_whole_and_promised_after_kills(tmp_path):
    draw, folder = random.Random(43), tmp_path / "pictures"
    address, added = f"sqlite:///{tmp_path / 'history.db'}", set()
    for number in range(KILLS):
        added |= killed_after(started(address, f"{number:08x}", folder), draw.uniform(0, 0.5))[0]
        left = [path for path in folder.rglob("*") if path.is_file()]
        assert sum(-(-path.stat().st_size // 4096) * 4096 for path in left) <= BUDGET
        with Database(address) as database:
            kept = KeptPictures(folder, database, budget=BUDGET)
            database.write(lambda _: None).result()  # the marks are written by then
            promised = {found.key for found in History(database).find(limit=100_000) if found.kept}
            assert all(kept.picture(key) == key.encode() * 200 for key in promised)
            assert all(np.array_equal(kept.heat(key), HEAT) for key in promised)
            files = sorted(path.name for path in folder.rglob("*") if path.is_file())
            assert files == sorted(f"{key}{end}" for key in promised for end in (".heat.png", ".picture"))
    most = BUDGET // 12288  # a picture takes two blocks, its heat map one
    assert min(most, len(added)) - 4 <= len(promised) <= most  # four threads were at work


def test_two_processes_at_once_lose_nothing_and_keep_one_chain(address):
    with Database(address):
        pass
    both = [started(address, name) for name in ("0000000a", "0000000b")]
    results = []
    threads = [
        threading.Thread(target=lambda process=process: results.append(killed_after(process, 2.0))) for process in both
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Database(address) as database:
        found, found_judged, _ = there(database)
        assert all(added <= found and judged <= found_judged for added, judged in results)
        assert len(results) == 2
        verified = Trail(database).verify()
        assert (verified.broken, verified.rows) == ([], 1 + len(found_judged))


def test_nothing_acknowledged_is_lost_when_the_server_loses_its_power(postgresql):
    address = postgresql.address()
    for number in range(3):
        process = started(address, f"{number:08x}")
        assert process.stdout.readline()
        time.sleep(0.3)  # at work
        postgresql.stop("immediate")
        added, _ = ended(process)
        postgresql.start()
        with Database(address) as database:
            assert added <= there(database)[0]
            assert Trail(database).verify().is_whole


def ended(process):
    """Return what a process said until its threads met the lost server."""
    said, complaint = process.communicate(timeout=120)
    assert b"does not answer: " in complaint
    lines = said.decode().split("\n")[:-1]
    return {line for line in lines if " " not in line}, complaint


def small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_a_full_disk_is_one_line_and_loses_nothing_acknowledged(tmp_path):
    """A limit on the size of files stands for the disk: the write-ahead file meets it."""
    address = f"sqlite:///{tmp_path / 'history.db'}"
    process = started(address, "0000000a", preexec_fn=small_files)
    said, complaint = process.communicate(timeout=120)
    lines = complaint.decode().splitlines()
    complaints = {line for line in lines if "HistoryError" in line}
    place, why = re.escape(str(tmp_path / "history.db")), "(disk I/O error|database or disk is full)"
    told = rf"totalrecall\.errors\.HistoryError: The database {place} cannot be written: {why}\. Free some space on .*"
    assert complaints, lines
    assert [line for line in complaints if not re.fullmatch(told, line)] == []
    added = {line for line in said.decode().split("\n")[:-1] if " " not in line}
    assert len(added) > 10
    with Database(address) as database:
        assert added <= there(database)[0]
        assert Trail(database).verify().is_whole


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB, where this user may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_writer_goes_on_once_there_is_room_on_the_disk_again(small_disk):
    from tests.databases import inspection

    address = f"sqlite:///{small_disk / 'history.db'}"
    added = []
    with Database(address) as database:
        history = History(database)
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (1 << 20))
        while (failure := history.add(inspection(len(added))).exception()) is None:
            added.append(inspection(len(added)).key)
        assert isinstance(failure, HistoryError)
        assert "cannot be written: database or disk is full. Free some space" in str(failure)
        assert len(added) > 10
        assert {found.key for found in history.find(limit=100_000)} == set(added)
        assert history.find_fault(60) == str(failure)  # another write was tried, and failed, too
        filler.unlink()
        assert history.find_fault(60) is None
        history.add(inspection(len(added))).result()
        with database.read() as connection:
            count = connection.execute(select(func.count()).select_from(inspections)).scalar()
        assert count == len(added) + 1
        assert Trail(database).verify().is_whole
    assert os.listdir(small_disk) == ["history.db"]  # noqa: PTH208  what was in the write-ahead file is in the database
