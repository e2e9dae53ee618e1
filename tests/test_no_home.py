"""A user without a home folder, or with one that cannot be written: it works, keeps nothing, and says no more of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import pytest

from tests.parts import stripes
from totalrecall.backbones import available
from totalrecall.errors import DataError
from totalrecall.system.files import home

SOURCE = Path(__file__).resolve().parents[1] / "src"
NOBODY = 54321  # an id that the list of users does not have
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become a user that the system does not know"
)


@pytest.fixture
def place():
    """A folder that anybody can write, with pictures in it, where anybody can enter: pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="totalrecall-test-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "good").mkdir()
        for seed in range(6):
            cv2.imwrite(str(folder / "good" / f"{seed}.png"), stripes(seed))
        yield folder


# The interpreter may lie in root's own folder: all that the commands import is there before the user is changed.
SCRIPT = """
import json, os, shutil, sys
from totalrecall.cli import main
environment, user = json.loads(sys.argv[1])
FIT = ["fit", "good", "-o", "part.trecall", "--size", "64", "--quiet"]
PREDICT = ["predict", "part.trecall", "good", "--csv", "-"]
ADD = ["backbones", "add", "resnet18", "--weights", "none.safetensors"]
os.environ["TOTALRECALL_HOME"] = "before"
codes = [main(FIT), main(PREDICT)]
main(["backbones", "list"])
main(ADD)
print("---", file=sys.stderr)
shutil.rmtree("before")
os.remove("part.trecall")
os.environ.clear()
os.environ.update(environment)
os.setgroups([])
os.setgid(user)
os.setuid(user)
print("---", flush=True)
print([*codes, main(FIT), main(PREDICT), main(["backbones", "list"]), main(ADD)])
"""


@as_root
@pytest.mark.parametrize("environment", [{}, {"HOME": "/root"}, {"TOTALRECALL_HOME": "/dev/null/x"}])
def test_a_user_without_a_name_and_a_home_fits_and_judges_as_another_does(place, environment):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps([environment, NOBODY])],
        cwd=place,
        env={"PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path]), "PATH": os.defpath},
        capture_output=True,
        text=True,
        timeout=600,
    )
    before, after = done.stdout.split("---")
    said = done.stderr.partition("---")[2].strip()
    table = [line.rsplit(",", 1)[0] for line in after.splitlines() if line.startswith("good")]
    assert len(table) == 6
    assert table == [line.rsplit(",", 1)[0] for line in before.splitlines() if line.startswith("good")]
    assert "compact" in after
    assert after.splitlines()[-1] in ("[0, 0, 0, 0, 0, 1]", "[0, 0, 0, 0, 0, 3]"), said
    assert "Traceback" not in said
    assert len([line for line in said.splitlines() if line.startswith("totalrecall: ")]) == 1  # of `add` alone
    assert sorted(path.name for path in place.iterdir()) == ["good", "part.trecall"]  # nothing is kept elsewhere


def test_the_folder_of_a_user_without_any_is_an_error_of_ours(monkeypatch):
    def nowhere(*_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("TOTALRECALL_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(DataError, match=r"This user has no home folder\. Set TOTALRECALL_HOME to a folder"):
        home()
    assert [info.name for info in available()] == ["compact", "lite2"]


# ---------------------------------------------------------------------- make, where the source cannot be written


def _a_strangers(folder, _):
    folder.mkdir()


def _open_to_all(folder, user):
    folder.mkdir()
    folder.chmod(0o777)
    os.chown(folder, user, user)


def _a_link(folder, user):
    target = folder.with_name("target")
    target.mkdir()
    os.chown(target, user, user)
    folder.symlink_to(target)


def _a_file(folder, user):
    folder.touch()
    os.chown(folder, user, user)


def _make_place(folder):
    """Run what `make demo` begins with, as a user who cannot write the source, with `folder` for temporary files."""
    tree = folder / "tree"
    (tree / "src").mkdir(parents=True, exist_ok=True)
    shutil.copy(SOURCE.parent / "Makefile", tree)
    return subprocess.run(
        ["make", "-C", str(tree), "place"],
        env={"PATH": os.defpath, "TMPDIR": str(folder)},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=600,
    )


@as_root
@pytest.mark.skipif(shutil.which("make", path=os.defpath) is None, reason="there is no make")
def test_make_works_in_a_temporary_folder_that_only_its_user_can_write(place):
    for _ in range(2):  # made, and taken again
        assert _make_place(place).returncode == 0
    made = (place / f"totalrecall-{NOBODY}").stat()
    assert (made.st_uid, made.st_mode & 0o777) == (NOBODY, 0o700)


@as_root
@pytest.mark.skipif(shutil.which("make", path=os.defpath) is None, reason="there is no make")
@pytest.mark.parametrize("prepare", [_a_strangers, _open_to_all, _a_link, _a_file])
def test_make_runs_nothing_from_a_temporary_folder_that_another_user_may_have_filled(place, prepare):
    folder = place / f"totalrecall-{NOBODY}"
    prepare(folder, NOBODY)
    done = _make_place(place)
    assert done.returncode == 2
    assert f"{folder} is not a folder that this user alone can write." in done.stderr
