"""The demo's pictures: repeatable, varied, and damaged exactly where the mask says."""

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from totalrecall.demo.pictures import DEFECTS, KINDS, defective, good, make_dataset
from totalrecall.errors import DataError, SettingError

SMALL = (96, 112)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_there_are_at_least_four_kinds_of_parts_and_seven_of_damage():
    assert len(KINDS) >= 4
    assert set(DEFECTS) == {"scratch", "dent", "stain", "missing", "crack", "fibre", "discolour"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_picture_and_another_seed_another(kind):
    one, same, other = good(kind, generator(1), SMALL), good(kind, generator(1), SMALL), good(kind, generator(2), SMALL)
    assert one.shape == (*SMALL, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert (one != other).mean() > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_good_parts_vary_less_than_kinds_differ(kind):
    mean = np.mean([good(kind, generator(i), SMALL) for i in range(6)], axis=0)
    own = np.abs(good(kind, generator(99), SMALL) - mean).mean()
    others = [np.abs(good(other, generator(99), SMALL) - mean).mean() for other in KINDS if other != kind]
    assert own < min(others)


def test_the_washer_is_grey_and_the_board_is_coloured():
    washer, board = good("washer", generator(0), SMALL), good("board", generator(0), SMALL)
    assert np.ptp(washer.astype(int), axis=2).max() == 0
    for defect in DEFECTS:
        assert np.ptp(defective("washer", defect, generator(1), SMALL)[0].astype(int), axis=2).max() == 0
    assert np.ptp(board.astype(int), axis=2).mean() > 20


@settings(max_examples=40)
@given(kind=st.sampled_from(KINDS), defect=st.sampled_from(DEFECTS), seed=st.integers(0, 2**32))
def test_damage_is_inside_its_mask_and_can_be_seen(kind, defect, seed):
    sound = good(kind, generator(seed), SMALL).astype(int)
    picture, mask = defective(kind, defect, generator(seed), SMALL)
    change = np.abs(picture - sound).max(axis=2)
    assert change[~mask].max() == 0
    assert mask.any()
    assert mask.mean() < 0.4
    assert change[mask].max() >= 8


@pytest.mark.parametrize("size", [(64, 64), (64, 300), (257, 81)])
@pytest.mark.parametrize("kind", KINDS)
def test_any_size_and_shape_can_be_drawn(kind, size):
    for defect in DEFECTS:
        picture, mask = defective(kind, defect, generator(5), size)
        assert picture.shape == (*size, 3)
        assert mask.shape == size
        assert mask.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: good("spoon", generator(0)), "Unknown kind of part 'spoon'. Use one of: washer, textile, board, wood"),
        (lambda: good("wood", generator(0), (63, 99)), "at least 64 pixels high and wide, got 63 x 99"),
        (lambda: defective("wood", "rust", generator(0)), "Unknown defect 'rust'. Use one of: scratch, dent"),
        (lambda: make_dataset("x", kind="wood", good=-1), "good must be 0 or more, got -1"),
        (lambda: make_dataset("x", kind="spoon"), "Unknown kind of part 'spoon'"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_is_allowed(call, message):
    with pytest.raises(SettingError) as caught:
        call()
    assert message in str(caught.value)


def pictures(root: Path) -> dict[str, str]:
    """The data set as relative path -> digest."""
    return {
        str(path.relative_to(root).as_posix()): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.png"))
    }


def test_the_data_set_has_the_mvtec_layout_and_a_mask_for_every_damaged_picture(tmp_path):
    root = make_dataset(tmp_path / "parts", kind="blister", good=3, test_good=2, defective=8, seed=4, size=SMALL)
    assert root == tmp_path / "parts"
    names = set(pictures(root))
    assert {"train/good/000.png", "train/good/002.png", "test/good/001.png"} <= names
    damaged = {name for name in names if name.startswith("test/") and not name.startswith("test/good/")}
    assert len(damaged) == 8
    masks = {name for name in names if name.startswith("ground_truth/")}
    assert masks == {name.replace("test/", "ground_truth/").replace(".png", "_mask.png") for name in damaged}
    mask = cv2.imread(str(root / min(masks)), cv2.IMREAD_UNCHANGED)
    assert mask.shape == SMALL
    assert set(np.unique(mask)) == {0, 255}


def test_a_larger_data_set_contains_the_smaller_one(tmp_path):
    little = pictures(make_dataset(tmp_path / "a", kind="wood", good=2, test_good=1, defective=2, seed=7, size=SMALL))
    large = pictures(make_dataset(tmp_path / "b", kind="wood", good=4, test_good=2, defective=9, seed=7, size=SMALL))
    assert little.items() <= large.items()
    assert len(set(large.values())) == len(large)


def test_another_set_in_the_same_folder_is_refused_but_the_same_set_again_is_fine(tmp_path):
    make_dataset(tmp_path, kind="wood", good=3, test_good=0, defective=0, size=SMALL)
    make_dataset(tmp_path, kind="wood", good=3, test_good=0, defective=0, size=SMALL)
    with pytest.raises(DataError, match=r"already holds 1 other pictures, such as .*002.png. Name an empty folder"):
        make_dataset(tmp_path, kind="wood", good=2, test_good=0, defective=0, size=SMALL)
