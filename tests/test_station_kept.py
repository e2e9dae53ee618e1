"""Kept pictures: which are kept, what goes first, never over the budget, and what a killed process leaves behind."""

import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.databases import BEGIN, inspection
from totalrecall.errors import DataError
from totalrecall.station.store.database import Database
from totalrecall.station.store.history import History
from totalrecall.station.store.kept import KeptPictures
from totalrecall.station.store.records import Actor

BLOCK = 4096
HEAT = np.arange(64, dtype=np.uint8).reshape(8, 8)
ANNA = Actor("Anna", "operator")


@pytest.fixture
def database(tmp_path):
    with Database(f"sqlite:///{tmp_path / 'history.db'}") as database:
        yield database


@pytest.fixture
def opened(database, tmp_path):
    """A function that opens the folder with room for so many pictures, each of one block beside one of its heat map."""

    def open_it(pictures=100, **options):
        return KeptPictures(tmp_path / "pictures", database, budget=pictures * 2 * BLOCK, **options)

    return open_it


def good(number, **changes):
    return inspection(number, **{"score": 1.0, **changes})


def reject(number, **changes):
    return inspection(number, **{"score": 3.0, "verdict": "defect", "is_anomalous": True, **changes})


def keep(kept, database, added, picture=b"picture"):
    """Keep a picture and add its inspection, as the station does."""
    there = kept.put(added, picture, HEAT)
    History(database).add(replace(added, kept=there)).result()
    return there


def numbers(kept, most=100):
    return [number for number in range(most) if kept.picture(f"{number:032x}") is not None]


def promised(database):
    """Return the numbers of the inspections that say that their picture is kept."""
    database.write(lambda _: None).result()  # whatever was queued before is written by then
    return sorted(int(found.key, 16) for found in History(database).find(limit=1000) if found.kept)


def on_disk(folder):
    """Return the bytes of all files, in whole blocks."""
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in folder.rglob("*") if path.is_file())


def test_a_picture_and_its_heat_map_come_back(opened, database):
    kept = opened()
    assert keep(kept, database, reject(1), b"\x00bytes of a picture")
    assert kept.picture(reject(1).key) == b"\x00bytes of a picture"
    assert np.array_equal(kept.heat(reject(1).key), HEAT)
    assert promised(database) == [1]
    assert kept.put(reject(2), b"no heat map", None)
    assert (kept.picture(reject(2).key), kept.heat(reject(2).key)) == (b"no heat map", None)
    assert kept.size == 3 * BLOCK


def test_rejects_and_near_misses_are_wanted_and_a_share_of_the_good_ones(opened):
    kept = opened(good_share=0.25, near_miss=0.9)
    assert all(kept.wanted(reject(0, verdict=verdict)) for verdict in ("defect", "no verdict", "wrong product"))
    assert not kept.wanted(reject(0, verdict="unreadable"))
    assert kept.wanted(good(0, score=1.8))
    wanted = [number for number in range(4000) if kept.wanted(good(number))]
    assert 800 < len(wanted) < 1200
    again, none, all_of_them = opened(good_share=0.25), opened(good_share=0.0), opened(good_share=1.0)
    assert wanted == [number for number in range(4000) if again.wanted(good(number))]
    assert not any(none.wanted(good(number)) for number in range(100))
    assert all(all_of_them.wanted(good(number)) for number in range(100))
    assert not any(kept.wanted(reject(0, source=source)) for source in ("golden", "study"))


def test_good_ones_go_first_then_near_misses_then_judged_rejects_then_the_oldest(opened, database):
    kept, history = opened(6), History(database)
    for added in (reject(1), reject(2), good(3), good(4, score=1.9), reject(5), good(6)):
        assert keep(kept, database, added)
    kept.judged(history.judge(reject(2).key, "fine", ANNA))
    order = []
    for number in range(10, 16):
        before = numbers(kept, 10)
        assert keep(kept, database, reject(number))
        order += sorted(set(before) - set(numbers(kept, 10)))
    assert order == [3, 6, 4, 2, 1, 5]
    assert promised(database) == [10, 11, 12, 13, 14, 15]


def test_a_clock_that_jumps_changes_nothing_in_the_order(opened, database):
    kept, day = opened(3), timedelta(days=1)
    keep(kept, database, reject(1))
    keep(kept, database, reject(2, at=BEGIN + day))  # the clock is a day ahead
    keep(kept, database, reject(3))  # and right again
    keep(kept, database, reject(4))
    keep(kept, database, reject(5))
    assert numbers(kept) == [3, 4, 5]


def test_a_good_one_that_a_person_calls_a_defect_counts_as_a_reject(opened, database):
    kept, history = opened(2), History(database)
    keep(kept, database, good(1))
    keep(kept, database, good(2))
    kept.judged(history.judge(good(1).key, "defect", ANNA))
    keep(kept, database, good(3))
    assert numbers(kept) == [1, 3]


def test_no_reject_goes_for_a_good_one(opened, database):
    kept = opened(2)
    keep(kept, database, reject(1))
    keep(kept, database, reject(2))
    assert not keep(kept, database, good(3))
    assert (numbers(kept), promised(database)) == ([1, 2], [1, 2])


def test_a_picture_larger_than_the_budget_is_not_kept_and_costs_no_other(opened, database):
    kept = opened(2)
    keep(kept, database, reject(1))
    assert not keep(kept, database, reject(2), b"x" * (4 * BLOCK))
    assert numbers(kept) == [1]
    assert not opened(0).put(reject(3), b"picture", HEAT)


def random_parts(first, count):
    """Yield inspections with pictures of random sizes."""
    draw = random.Random(first)
    for number in range(first, first + count):
        yield (good if draw.random() < 0.5 else reject)(number), os.urandom(draw.randrange(1, 5 * BLOCK))


def test_the_budget_is_never_passed_not_even_while_a_file_is_written(opened, database, tmp_path, monkeypatch):
    kept, sizes, replace_file = opened(40), [], Path.replace

    def measured(path, target):
        sizes.append(on_disk(tmp_path / "pictures"))
        replace_file(path, target)
        sizes.append(on_disk(tmp_path / "pictures"))

    monkeypatch.setattr(Path, "replace", measured)
    for added, picture in random_parts(0, 120):
        keep(kept, database, added, picture)
        assert kept.size == on_disk(tmp_path / "pictures")
    assert 38 * 2 * BLOCK < max(sizes) <= 40 * 2 * BLOCK


def test_many_threads_put_within_the_budget(opened, database, tmp_path):
    kept, sizes = opened(40), []

    def work(first):
        for added, picture in random_parts(first, 60):
            keep(kept, database, added, picture)
            sizes.append(kept.size)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 240, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 240
    assert max(sizes) <= 40 * 2 * BLOCK
    assert kept.size == on_disk(tmp_path / "pictures")
    # what an eviction overtook is said again with the next one, and for certain at the next start
    again = opened(40)
    assert promised(database) == numbers(again, 240)
    assert again.size == kept.size


def test_a_smaller_budget_removes_the_good_ones_at_the_start(opened, database):
    kept = opened(4)
    for added in (reject(1), good(2), reject(3), good(4)):
        keep(kept, database, added)
    assert numbers(opened(3)) == [1, 3, 4]
    assert (numbers(opened(1)), promised(database)) == ([3], [3])
    assert (numbers(opened(0)), promised(database)) == ([], [])


def test_what_a_killed_process_left_is_put_right_at_the_start(opened, database, tmp_path):
    kept = opened()
    for number in range(5):
        keep(kept, database, reject(number))
    folder = tmp_path / "pictures" / "00"
    kept.put(reject(7), b"its inspection was never added", HEAT)
    (folder / f"{1:032x}.picture").unlink()  # killed while it was removed
    (folder / f"{2:032x}.picture").write_bytes(b"")  # the power went before the bytes were on the disk
    (folder / f"{8:032x}.heat.png").write_bytes(b"killed before the picture")
    (folder / f"{9:032x}.picture.part").write_bytes(b"killed while it was written")
    (folder / "notes.txt").write_bytes(b"not ours")
    History(database).mark_kept([reject(3).key], False).result()
    kept = opened()
    assert numbers(kept) == [0, 3, 4]
    assert promised(database) == [0, 3, 4]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{number:032x}{end}" for number in (0, 3, 4) for end in (".heat.png", ".picture")] + ["notes.txt"]
    )
    assert kept.size == 6 * BLOCK


def test_half_a_heat_map_of_a_killed_process_goes_at_the_start(opened, database, tmp_path):
    keep(opened(), database, reject(0))
    half = tmp_path / "pictures" / "00" / f"{5:032x}.heat.png"
    half.write_bytes(b"half")
    History(database).add(replace(reject(5), kept=True)).result()
    kept = opened()
    assert not half.exists()
    assert (numbers(kept), promised(database), kept.size) == ([0], [0], 2 * BLOCK)


def test_a_folder_that_somebody_removed_is_made_again(opened, database, tmp_path):
    kept = opened()
    keep(kept, database, reject(0))
    shutil.rmtree(tmp_path / "pictures" / "00")
    assert keep(kept, database, reject(1), b"another")
    assert (kept.picture(f"{1:032x}"), kept.problem) == (b"another", None)


def test_forgotten_pictures_are_gone(opened, database):
    kept = opened()
    for number in range(3):
        keep(kept, database, reject(number))
    assert kept.forget([reject(0).key, reject(2).key, "f" * 32]) == 2
    assert (numbers(kept), promised(database), kept.size) == ([1], [1], 2 * BLOCK)


@pytest.mark.parametrize("key", ["", "..", "../../history", "/etc/passwd", "0" * 31 + "g", "A" * 32, "0" * 33, "\x00"])
def test_what_is_no_key_names_no_file(opened, key):
    assert opened().picture(key) is None
    assert opened().heat(key) is None


def test_only_this_user_sees_the_folder(opened, tmp_path):
    opened()
    assert stat.S_IMODE((tmp_path / "pictures").stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_said_in_one_line(opened, tmp_path):
    (tmp_path / "pictures").write_text("a file")
    with pytest.raises(DataError, match=r"Cannot keep pictures in .*pictures: "):
        opened()


FULL = """
import resource, sys
from tests.databases import inspection
from totalrecall.station.store.database import Database
from totalrecall.station.store.kept import KeptPictures
from pathlib import Path
folder = Path(sys.argv[1])
with Database(f"sqlite:///{folder / 'history.db'}") as database:
    kept = KeptPictures(folder / "pictures", database, budget=1 << 30)
    assert kept.put(inspection(1), b"x" * 1000, None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    assert not kept.put(inspection(2), b"x" * 100_000, None)
    print(kept.problem)
    assert kept.put(inspection(3), b"x" * 1000, None)
    assert kept.problem is None
    assert kept.size == 8192, kept.size
    print(sorted(path.name[30:] for path in (folder / "pictures" / "00").iterdir()))
"""


def test_a_full_disk_keeps_no_picture_and_leaves_no_half(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        f"A picture could not be kept in {tmp_path / 'pictures'}: File too large.",
        "['01.picture', '03.picture']",
    ], done.stderr
