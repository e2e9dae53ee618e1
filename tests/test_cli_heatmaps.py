"""cli: the folder of heat maps holds those of the last run; what anybody else put there is left."""

import json
import shutil

import pytest

from tests.commands import complaint, run
from totalrecall.cli.heatmaps import HeatmapFolder


@pytest.fixture
def pictures(parts, tmp_path):
    folder = tmp_path / "in"
    shutil.copytree(parts / "test", folder)
    return folder


def made(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))


def test_heat_maps_of_an_earlier_run_go_and_what_is_not_ours_stays(capsys, model, pictures, tmp_path):
    maps = tmp_path / "maps"
    assert run(capsys, "predict", model, pictures, "--heatmaps", maps)[0] == 0
    assert len(made(maps)) == 6
    (maps / "good" / "002.png").write_bytes(b"changed by a person")
    shutil.copy(maps / "good" / "001.png", maps / "good" / "kept.png")
    (maps / "notes.txt").write_text("a stranger's")
    code, out, err = run(capsys, "predict", model, pictures / "good" / "000.png", "--heatmaps", maps)
    assert (code, err) == (0, [])
    assert f"Removed 5 heat maps of an earlier run from {maps}" in out
    assert made(maps) == ["000.png", "good/002.png", "good/kept.png"]
    assert (maps / "good" / "002.png").read_bytes() == b"changed by a person"
    assert (maps / "notes.txt").read_text() == "a stranger's"


def test_the_same_run_twice_gives_the_same_heat_maps(capsys, model, pictures, tmp_path):
    for _ in range(2):
        assert run(capsys, "predict", model, pictures, "--heatmaps", tmp_path / "maps")[0] == 0
        assert len(made(tmp_path / "maps")) == 6


def test_a_picture_of_somebody_else_is_not_written_over(capsys, model, pictures, tmp_path):
    maps = tmp_path / "maps"
    maps.mkdir()
    shutil.copy(pictures / "good" / "000.png", maps / "001.png")
    before = (maps / "001.png").read_bytes()
    code, message = complaint(capsys, "predict", model, pictures / "good", "--heatmaps", maps)
    assert code == 2
    assert message.startswith(f"--heatmaps {maps} would write over {maps / '001.png'}, which no earlier run")
    assert (maps / "001.png").read_bytes() == before
    assert made(maps) == ["001.png"]


def test_heat_maps_in_the_folder_of_the_pictures_are_not_scored(capsys, model, pictures):
    for _ in range(2):
        line = ["predict", model, pictures, "--heatmaps", pictures / "maps", "--json", pictures / "r.jsonl"]
        assert run(capsys, *line)[0] == 0
        assert len((pictures / "r.jsonl").read_text().splitlines()) == 6
        assert len(made(pictures / "maps")) == 6


def test_a_model_with_a_pictures_name_is_not_written_over(capsys, model, pictures, tmp_path):
    own = shutil.copy(model, tmp_path / "000.png")
    before = own.read_bytes()
    code, message = complaint(capsys, "predict", own, pictures / "good", "--heatmaps", tmp_path)
    assert (code, message) == (2, f"--heatmaps {tmp_path} would write over {own}, given as MODEL. Name another folder.")
    assert own.read_bytes() == before


def test_a_list_of_a_stranger_names_nothing_outside_its_folder(tmp_path):
    from totalrecall.system.files import sha256

    outside, maps = tmp_path / "outside.png", tmp_path / "maps"
    outside.write_bytes(b"kept")
    maps.mkdir()
    (maps / "link.png").symlink_to(outside)
    (maps / "x.txt").write_bytes(b"kept")
    names = ["../outside.png", str(outside), "link.png", "x.txt", "none.png", 7, None]
    lines = [json.dumps({"file": name, "sha256": sha256(b"kept")}) for name in names]
    (maps / ".totalrecall-heatmaps").write_text("\n".join([*lines, "no json", "[]", '{"file": "x"}', "[" * 100000]))
    folder = HeatmapFolder(str(maps))
    assert folder.earlier == []
    folder.clear()
    assert outside.read_bytes() == b"kept"
