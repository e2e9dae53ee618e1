"""A pattern matches files and folders as a shell's does, and ends however the links lie."""

import pytest

from tests.dataset_trees import mask, picture
from tests.parts import link
from totalrecall.cli import main
from totalrecall.pictures.files import find_pictures, passed_over_note, search_pictures
from totalrecall.pictures.path_patterns import fixed_part, matching_paths


def test_folders_that_a_pattern_matches_are_searched_as_a_shells_pattern_has_it(tmp_path):
    loose = picture(tmp_path / "set" / "a.png")
    inner = picture(tmp_path / "set" / "monday" / "deep" / "b.png")
    outer = picture(tmp_path / "store" / "c.png")
    link(tmp_path / "set" / "tuesday", tmp_path / "store")
    assert find_pictures(str(tmp_path / "set" / "*")) == [loose, inner, tmp_path / "set" / "tuesday" / outer.name]
    assert find_pictures(str(tmp_path / "s*")) == [loose, inner, tmp_path / "set" / "tuesday" / outer.name]  # once
    assert find_pictures(str(tmp_path / "*" / "*")) == [loose, inner, outer]  # by its own path


def test_two_links_to_a_folder_above_do_not_multiply_what_stars_match(tmp_path):
    folder = tmp_path / "set"
    pictures = [picture(folder / "a.png"), picture(folder / "deep" / "b.png")]
    link(folder / "up", folder)
    link(folder / "deep" / "up", folder)
    for pattern in ("**/*.png", "**", "**/**/*.png", "*"):
        assert find_pictures(str(folder / pattern)) == pictures, pattern


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("**", "a a/b a/b/x.png a/x.png x.png"),
        ("**/x.png", "a/b/x.png a/x.png x.png"),
        ("a/**/x.*", "a/b/x.png a/x.png"),
        ("**/b/*", "a/b/x.png"),
        ("?/x.png", "a/x.png"),
        ("*/**", "a/b a/b/x.png a/x.png"),
        ("**/.*", ""),
    ],
)
def test_a_pattern_matches_what_a_shells_does(tmp_path, monkeypatch, pattern, names):
    for folder in (".", "a", "a/b", "a/.hidden"):
        picture(tmp_path / folder / "x.png")
    monkeypatch.chdir(tmp_path)
    assert [path.as_posix() for path in matching_paths(pattern)] == names.split()
    found = [path.relative_to(tmp_path).as_posix() for path in matching_paths(str(tmp_path / pattern))]
    assert found == names.split()


def test_masks_that_a_pattern_reaches_are_passed_over_and_told(tmp_path):
    read = picture(tmp_path / "set" / "good" / "1.png")
    masks = [mask(tmp_path / "set" / "ground_truth" / "1.png")]
    for pattern in ("*/*.png", "**/*.png", "*"):
        found = search_pictures(str(tmp_path / "set" / pattern))
        assert found.paths == [read]
        assert "1 mask in a folder of masks" in passed_over_note(found.passed_over)
    assert find_pictures(str(tmp_path / "set" / "ground_truth" / "*.png")) == masks  # named itself, it is meant


def test_what_stands_before_the_first_star_is_the_folder_of_a_pattern():
    assert fixed_part("set/a/*/b/*.png").as_posix() == "set/a"
    assert fixed_part("*.png").as_posix() == "."
    assert fixed_part("/set/[ab].png").as_posix() == "/set"


def test_no_output_is_written_over_a_picture_in_a_folder_that_a_pattern_matches(tmp_path, capsys):
    inside = picture(tmp_path / "set" / "monday" / "a.png")
    before = inside.read_bytes()
    for pattern in ("*", "**", "**/*.png"):
        assert main(["audit", str(tmp_path / "set" / pattern), "--json", str(inside)]) == 2
        assert "would write over" in capsys.readouterr().err
    assert inside.read_bytes() == before
