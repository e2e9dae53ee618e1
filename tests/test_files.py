"""files: written whole or not at all, links and pipes respected."""

import os
import stat
import threading

import pytest

from totalrecall.errors import DataError
from totalrecall.files import atomic_write, check_writable, home, is_special, sha256, write_atomically


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
