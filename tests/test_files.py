"""files: written whole or not at all, links and pipes respected."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from totalrecall.errors import DataError
from totalrecall.system.files import (
    atomic_write,
    check_writable,
    home,
    is_special,
    read_regular,
    sha256,
    write_atomically,
)


def refusal(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bytes_are_written_and_the_folders_are_made(tmp_path):
    path = tmp_path / "new" / "deeper" / "ü 漢.bin"
    assert atomic_write(path, b"abc") == path
    assert path.read_bytes() == b"abc"
    assert [p.name for p in path.parent.iterdir()] == ["ü 漢.bin"]


def test_a_file_has_the_usual_permissions_not_those_of_a_temporary_one(tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE(atomic_write(tmp_path / "ours", b"").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = atomic_write(tmp_path / "model", b"old")

    def write(file):
        file.write(b"half of the ne")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told_and_leaves_the_old_file(tmp_path):
    path = atomic_write(tmp_path / "model", b"old")

    def write(_):
        raise OSError(28, "No space left on device")

    assert refusal(write_atomically, path, write) == (
        f"Cannot write {path}: No space left on device. Free some space or name another place."
    )
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_files_place_is_named(tmp_path):
    (tmp_path / "there").mkdir()
    message = refusal(atomic_write, tmp_path / "there", b"x")
    assert message.startswith(f"Cannot write {tmp_path / 'there'}: Is a directory.")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    path = tmp_path / "file" / "model"
    assert refusal(atomic_write, path, b"x") == (
        f"Cannot write {path}: {path.parent} is a file. Name a folder that can be written."
    )


def test_names_that_no_system_takes_are_named_and_the_longest_that_it_takes_is_written(tmp_path):
    assert refusal(atomic_write, tmp_path / "a\0b", b"").endswith(
        "embedded null byte. Name a folder that can be written."
    )
    assert "File name too long" in refusal(atomic_write, tmp_path / ("a" * 256), b"")
    assert atomic_write(tmp_path / ("a" * 255), b"x").read_bytes() == b"x"
    assert atomic_write(tmp_path / ("漢" * 85), b"x").read_bytes() == b"x"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    link = tmp_path / "link"
    link.symlink_to("real")
    assert atomic_write(link, b"new") == link
    assert link.is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_a_link_to_nowhere_makes_the_file_that_it_names(tmp_path):
    (tmp_path / "link").symlink_to("later")
    atomic_write(tmp_path / "link", b"new")
    assert (tmp_path / "later").read_bytes() == b"new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    atomic_write(pipe, b"through")
    reader.join(10)
    assert read == [b"through"]
    assert is_special(pipe)  # as root, a rename over /dev/null would take it from the whole machine


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")  # noqa: PTH110
def test_a_link_to_a_pipe_that_has_no_name_is_written_to(tmp_path):
    reading, writing = os.pipe()
    link = tmp_path / "stdout"  # as /dev/stdout is one
    link.symlink_to(f"/proc/self/fd/{writing}")
    atomic_write(link, b"through")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == b"through"
    assert link.is_symlink()


def test_what_is_neither_file_nor_folder_is_special(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    assert is_special(tmp_path / "..") is False
    assert is_special(tmp_path / "file") is False
    assert is_special(tmp_path / "none") is False
    assert is_special(tmp_path / "a\0b") is False


def test_that_a_place_cannot_be_written_is_known_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "model")
    assert list((tmp_path / "new").iterdir()) == []
    assert refusal(check_writable, tmp_path) == f"Cannot write {tmp_path}: it is a folder. Name a file in it."
    (tmp_path / "file").write_bytes(b"x")
    assert f"{tmp_path / 'file'} is a file." in refusal(check_writable, tmp_path / "file" / "model")
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    try:
        assert "Permission denied" in refusal(check_writable, tmp_path / "model")
        assert "Permission denied" in refusal(atomic_write, tmp_path / "model", b"")
    finally:
        tmp_path.chmod(0o700)


def test_the_persons_folder_is_where_totalrecall_home_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TOTALRECALL_HOME", "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / "mine"
    monkeypatch.setenv("TOTALRECALL_HOME", "")  # as good as not set
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert home() == tmp_path / "data" / "totalrecall"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert home() == tmp_path / ".local" / "share" / "totalrecall"


def test_sha256_is_the_published_one():
    # FIPS 180-2, appendix B.1
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def why_not_read(path, **options):
    with pytest.raises(OSError) as caught:
        read_regular(path, **options)
    return caught.value.strerror


def test_a_file_and_a_link_to_one_are_read_whole(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 1000)
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file") == read_regular(str(tmp_path / "link"), limit=3000) == b"abc" * 1000
    (tmp_path / "empty").touch()
    assert read_regular(tmp_path / "empty", limit=0) == b""


def test_what_is_no_file_is_named_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    assert why_not_read(tmp_path / "pipe") == "it is a pipe, not a file"
    assert why_not_read("/dev/zero") == "it is a device, not a file"
    assert why_not_read(tmp_path) == "it is a folder"
    monkeypatch.chdir(tmp_path)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert why_not_read("socket") == "it is a socket, not a file"
    (tmp_path / "link").symlink_to("pipe")
    assert why_not_read(tmp_path / "link") == "it is a pipe, not a file"
    assert why_not_read("a\0b") == "its name holds a NUL byte"
    with pytest.raises(FileNotFoundError):
        read_regular("none")


def test_a_pipe_that_takes_the_place_of_a_file_is_seen_too(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"abc")
    a_moment_ago = (tmp_path / "file").stat()
    monkeypatch.setattr("os.stat", lambda *_: a_moment_ago)
    assert why_not_read(tmp_path / "pipe") == "it is a pipe, not a file"


def test_a_file_over_the_limit_is_not_read(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte that takes no room
    assert why_not_read(tmp_path / "large", limit=1000) == "it holds 1,099,511,627,776 bytes, allowed are 1,000"


def test_a_file_whose_size_the_system_does_not_tell_is_read_to_its_end_or_the_limit():
    pytest.importorskip("fcntl")
    if not Path("/proc/self/maps").exists():
        pytest.skip("no /proc")
    assert Path("/proc/self/maps").stat().st_size == 0
    assert read_regular("/proc/self/maps").endswith(b"\n")
    assert "allowed are 10" in why_not_read("/proc/self/maps", limit=10)
