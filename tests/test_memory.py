"""memory: sizes as a person writes them, counts of the system, and rows in memory or in a scratch file."""

import ctypes
import errno
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from totalrecall.errors import DataError, SettingError
from totalrecall.system import memory
from totalrecall.system.memory import (
    RowStore,
    available_memory,
    check_scratch,
    container_room,
    peak_memory,
    resident_memory,
)
from totalrecall.system.text import format_size, parse_size


def test_memory_is_counted_in_bytes():
    assert available_memory() > 1 << 20
    assert 1 << 20 < resident_memory() <= peak_memory()


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        (".", ("memory.max", "memory.current", "inactive_file")),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")),
    ],
    ids=["version 2", "version 1"],
)
def test_a_containers_limit_leaves_what_is_not_used_and_what_holds_files(tmp_path, folder, names):
    assert container_room(tmp_path) is None
    limit, used, files = names
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / used).write_text("700\n")
    (tmp_path / folder / "memory.stat").write_text(f"anon 500\n{files} 150\n")
    for text, room in (("1000\n", 450), ("600\n", 50), ("500\n", 0), ("max\n", None)):
        (tmp_path / folder / limit).write_text(text)
        assert container_room(tmp_path) == room


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", 500_000_000),
        ("2GB", 2_000_000_000),
        ("2 gb", 2_000_000_000),
        ("1.5GiB", 1_610_612_736),
        (".5T", 500_000_000_000),
        ("4k", 4000),
        ("4Ki", 4096),
        ("1000000", 1_000_000),
        ("12B", 12),
    ],
)
def test_sizes_as_a_person_writes_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "lots", "2 apples", "-1GB", "GB", "1e9", "2GBB", "i", "5iB", "nan"])
def test_what_is_no_size_is_named(text):
    with pytest.raises(SettingError) as caught:
        parse_size(text)
    assert str(caught.value) == f"memory must be a size such as 500MB, 2GB or 1.5GiB, got {text!r}."


@given(count=st.integers(0, 10**13))
def test_a_size_that_is_printed_can_be_typed_and_is_enough(count):
    read = parse_size(format_size(count))
    assert count <= read <= 1.101 * count + 10**6


def test_sizes_are_short():
    assert [format_size(n) for n in (3, 10**7 + 1, 511_000_000, 1_310_000_000, 33 * 10**9)] == [
        "1MB",
        "11MB",
        "520MB",
        "1.4GB",
        "33GB",
    ]


@pytest.fixture(params=[False, True], ids=["in memory", "scratch"])
def store(request):
    made = RowStore(10, 3, scratch=request.param)
    yield made
    made.close()


def numbered(first, last):
    return np.arange(3 * first, 3 * last, dtype=np.float32).reshape(-1, 3)


def test_rows_come_back_in_any_order(store):
    store.append(numbered(0, 4))
    store.append(numbered(4, 9))
    assert len(store) == 9
    assert np.array_equal(store.all(), numbered(0, 9))
    assert np.array_equal(store.span(2, 5), numbered(2, 5))
    assert np.array_equal(store.take(np.array([7, 0, 7, 3])), numbered(0, 9)[[7, 0, 7, 3]])
    assert [len(block) for block in store.blocks(4)] == [4, 4, 1]
    assert np.array_equal(np.concatenate(list(store.blocks(4))), numbered(0, 9))


def test_more_rows_than_expected_are_kept_too(store):
    for first in range(0, 40, 4):
        store.append(numbered(first, first + 4))
    assert np.array_equal(store.all(), numbered(0, 40))


def test_a_store_that_was_cleared_starts_anew(store):
    store.append(numbered(0, 9))
    store.clear()
    assert store.all().shape == (0, 3)
    store.append(numbered(5, 7))
    assert np.array_equal(store.all(), numbered(5, 7))


def test_rows_that_do_not_lie_side_by_side_are_stored_as_they_read(store):
    store.append(np.asfortranarray(numbered(0, 9))[::2])
    assert np.array_equal(store.all(), numbered(0, 9)[::2])


def test_what_was_taken_is_a_copy(store):
    store.append(numbered(0, 9))
    taken = store.take(np.array([1]))
    taken[:] = -1
    assert np.array_equal(store.all(), numbered(0, 9))


def test_no_rows_are_no_error(store):
    store.append(numbered(0, 0))
    assert store.all().shape == (0, 3)
    assert store.take(np.empty(0, np.int64)).shape == (0, 3)
    assert list(store.blocks(4)) == []


def test_nobody_finds_the_scratch_file_and_its_pages_are_not_ours(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = RowStore(1, 1000, scratch=True)
    rows = np.ones((1000, 1000), np.float32)
    before = resident_memory()
    for _ in range(20):  # 80 MB
        store.append(rows)
    assert list(tmp_path.iterdir()) == []
    assert resident_memory() - before < 20_000_000
    assert store.span(19_999, 20_000).sum() == 1000
    store.close()


def test_a_scratch_disk_that_is_too_small_is_told_before_it_is_filled(monkeypatch):
    monkeypatch.setattr(memory.tempfile, "gettempdir", lambda: "/scratch")
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**9}))
    message = (
        "The patches need 4.0 GB of scratch space, /scratch has 1.0 GB free. "
        "Set TMPDIR to a larger disk, or use fewer pictures or a smaller --size."
    )
    for refuse in (lambda: check_scratch(4 * 10**9), lambda: RowStore(10**6, 1000, scratch=True)):
        with pytest.raises(DataError) as caught:
            refuse()
        assert str(caught.value) == message


def test_a_disk_that_fills_up_meanwhile_is_named(monkeypatch):
    class Full:
        def seek(self, _):
            pass

        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

    store = RowStore(1, 3, scratch=True)
    store._file.close()
    store._file = Full()
    with pytest.raises(DataError, match=r"The scratch file in .* cannot be written: No space left on device\. Set TMP"):
        store.append(numbered(0, 1))


_HEAPS = """
import ctypes, sys, threading
from totalrecall.system.memory import limit_heaps
count = int(sys.argv[1])
assert not count or limit_heaps(count)
libc, all_here = ctypes.CDLL(None), threading.Barrier(6)
libc.malloc.restype, libc.fdopen.restype = ctypes.c_void_p, ctypes.c_void_p

def work():
    all_here.wait()
    libc.malloc(1000)  # what a thread takes first decides on its heap
    all_here.wait()

threads = [threading.Thread(target=work) for _ in range(6)]
for one in threads:
    one.start()
for one in threads:
    one.join()
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"),
    reason="the C library is not glibc",
)
def test_threads_share_a_few_heaps():
    def heaps(count):
        command = [sys.executable, "-c", _HEAPS, str(count)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("<heap nr=")

    assert heaps(0) > 3  # by itself each thread has one
    assert heaps(2) == 2
