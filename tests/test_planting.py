"""Planting: what changes is the mask, it lies on the part, and the same seed plants the same defect."""

import cv2
import numpy as np
import pytest

from totalrecall.demo.pictures import good
from totalrecall.errors import SettingError
from totalrecall.planting import KINDS, part_mask, plant
from totalrecall.planting.kinds import Spot
from totalrecall.planting.where import edge_width

GREY = good("washer", np.random.default_rng(1), (200, 200))
COLOUR = good("board", np.random.default_rng(1), (200, 200))


def planted(kind, size=20, seed=0, picture=COLOUR, **options):
    defect = plant(picture, kind, size, np.random.default_rng(seed), **options)
    assert defect is not None
    return defect


def change(defect, picture=COLOUR):
    return np.abs(defect.picture.astype(int) - picture).sum()


# ---------------------------------------------------------------------- one defect


@pytest.mark.parametrize("picture", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_what_changed(kind, picture):
    before = picture.copy()
    for seed in range(5):
        defect = planted(kind, seed=seed, picture=picture)
        assert defect.picture.dtype == np.uint8
        assert (defect.mask == (defect.picture != picture).any(axis=2)).all()
        rows, columns = np.nonzero(defect.mask)
        left, top = columns.min(), rows.min()
        assert defect.box == (left, top, columns.max() - left + 1, rows.max() - top + 1)
    assert (picture == before).all()  # the good picture itself stays


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_plants_the_same_defect_and_another_seed_another(kind):
    first, again, other = (planted(kind, seed=seed) for seed in (3, 3, 4))
    assert (first.picture == again.picture).all()
    assert (first.picture != other.picture).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [6, 20, 50])
def test_a_defect_is_about_as_long_as_asked_for(kind, size):
    picture = np.full((200, 200, 3), 128, np.uint8)
    picture[::4] = 60  # something to shift, to fade and to miss
    sides = []
    for seed in range(8):
        defect = planted(kind, size, seed, picture)
        mask = cv2.findContours(defect.mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        sides.append(max(cv2.minAreaRect(np.concatenate(mask))[1]) + 1)
    assert 0.55 * size <= np.median(sides) <= 1.35 * size + 2


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.has_contrast])
def test_more_contrast_changes_the_same_place_more(kind):
    for seed in range(4):
        defects = [planted(kind, 24, seed, contrast=contrast) for contrast in (0.1, 0.2, 0.4)]
        changes = [change(defect) for defect in defects]
        assert changes == sorted(changes)
        assert changes[0] < changes[-1]
        # of one place and shape: the faint one lies within the plain one, but for pixels that rounding hides
        assert (defects[0].mask & ~defects[-1].mask).sum() <= 0.05 * defects[0].mask.sum()


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.has_contrast])
def test_what_is_gone_or_moved_has_no_contrast(kind):
    first, second = (planted(kind, contrast=contrast) for contrast in (0.1, 1.0))
    assert (first.picture == second.picture).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_on_a_grey_picture_is_grey(kind):
    defect = planted(kind, picture=GREY)
    assert (np.ptp(defect.picture.astype(int), axis=2) == 0).all()


def test_a_stain_of_a_fifth_of_white_changes_its_middle_by_about_51_levels():
    flat = np.full((120, 120, 3), 128, np.uint8)
    for seed in range(6):
        defect = planted("stain", 40, seed, flat, contrast=0.2)
        differs = np.abs(defect.picture.astype(int) - 128).mean(axis=2)[defect.mask]
        assert 30 <= np.median(differs) <= 65


def test_light_and_dark_keep_the_grain():
    """On a flat picture with noise, a stain must not be flat paint."""
    noisy = np.clip(np.random.default_rng(0).normal(128, 12, (160, 160, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    defect = planted("stain", 60, 1, noisy)
    inner = cv2.erode(defect.mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    ratio = np.corrcoef(noisy[inner][:, 0], defect.picture[inner][:, 0])[0, 1]
    assert ratio > 0.8


def test_edges_are_soft():
    flat = np.full((120, 120, 3), 128, np.uint8)
    defect = planted("blob", 40, 2, flat, contrast=0.4)
    levels = np.unique(np.abs(defect.picture.astype(int) - 128).max(axis=2))
    assert len(levels) > 20


# ---------------------------------------------------------------------- where


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_lies_in_the_region(kind):
    region = np.zeros(COLOUR.shape[:2], bool)
    region[60:130, 80:170] = True
    for seed in range(6):
        defect = planted(kind, 16, seed, region=region)
        assert not (defect.mask & ~region).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_lies_on_the_part(kind):
    part = part_mask(GREY)
    edge = 2 * edge_width(*part.shape) + 1  # of which a bite takes some
    allowed = cv2.dilate(part.astype(np.uint8), np.ones((edge, edge), np.uint8)) > 0 if kind == "missing" else part
    for seed in range(6):
        assert not (planted(kind, 16, seed, GREY, part=part).mask & ~allowed).any()


def test_a_piece_breaks_off_the_edge_where_the_part_has_one():
    part = part_mask(GREY)
    depth = cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5)
    for seed in range(6):
        assert depth[planted("missing", 16, seed, GREY, part=part).mask].min() <= 2


def test_a_bite_shows_the_ground_and_leaves_no_rim_of_the_part():
    picture, inside = disc(np.array((40,) * 3), np.array((170,) * 3))
    part = part_mask(picture)
    for seed in range(6):
        defect = planted("missing", 50, seed, picture, part=part)
        inner = cv2.erode(defect.mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
        assert np.abs(defect.picture[inner].astype(int) - 40).max() <= 12  # of ground alone, with its noise
        beyond = cv2.morphologyEx(inner.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((15, 15), np.uint8)) > 0
        assert np.abs(defect.picture[beyond].astype(int) - 40).max() <= 40
        assert (inner & inside).any()


def test_no_room_and_nothing_to_change_are_no_defect():
    rng = np.random.default_rng(0)
    nowhere = np.zeros((100, 100), bool)
    flat = np.full((100, 100, 3), 90, np.uint8)
    assert plant(flat, "stain", 20, rng, region=nowhere) is None
    strip = nowhere.copy()
    strip[50:53] = True
    assert plant(flat, "stain", 40, rng, region=strip) is None
    for kind in ("faded", "shifted", "missing"):
        assert plant(flat, kind, 20, rng) is None, kind
    assert plant(flat, "stain", 20, rng) is not None


def test_tiny_pictures_and_large_defects_are_no_error():
    for side in (8, 20, 64):
        picture = np.random.default_rng(side).integers(0, 255, (side, side, 3), np.uint8)
        for kind in KINDS:
            for size in (1, 3, side, 4 * side):
                defect = plant(picture, kind, size, np.random.default_rng(size))
                assert defect is None or defect.mask.shape == (side, side)


@pytest.mark.parametrize(
    ("kind", "size", "contrast", "words"),
    [
        ("rust", 20, 0.2, "kinds must be of scratch, dent, stain, .*, got 'rust'"),
        ("stain", 0.5, 0.2, "sizes must be at least 1 pixel, got 0.5"),
        ("stain", float("nan"), 0.2, "sizes must be at least 1 pixel, got nan"),
        ("stain", 20, 20, "contrast must be over 0 and at most 1, got 20. For 20 percent of white write 0.2"),
    ],
)
def test_what_cannot_be_planted_is_refused(kind, size, contrast, words):
    with pytest.raises(SettingError, match=words):
        plant(GREY, kind, size, np.random.default_rng(0), contrast=contrast)


# ---------------------------------------------------------------------- where the part is


def disc(ground, part, noise=2.0, lean=0.0):
    """Return a disc on a ground whose light leans, and where the disc is."""
    y, x = np.mgrid[-1:1:240j, -1:1:300j]
    inside = np.hypot(x * 1.25, y) < 0.6
    levels = np.where(inside[..., None], part, ground) + lean * x[..., None]
    levels = levels + np.random.default_rng(0).normal(0, noise, levels.shape)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8), inside


@pytest.mark.parametrize("lean", [0.0, 25.0])
@pytest.mark.parametrize(
    ("ground", "part"), [((40,) * 3, (150,) * 3), ((240,) * 3, (60, 70, 90)), ((20, 25, 60), (60, 30, 25))]
)
def test_a_part_is_told_from_the_ground(ground, part, lean):
    picture, inside = disc(np.array(ground), np.array(part), lean=lean)
    found = part_mask(picture)
    assert (found & inside).sum() / (found | inside).sum() > 0.93


def test_a_hole_in_the_part_is_ground_and_a_speck_on_the_ground_is_not_part():
    picture, inside = disc(np.array((40,) * 3), np.array((170,) * 3))
    cv2.circle(picture, (150, 120), 25, (40, 40, 40), -1)
    cv2.circle(picture, (10, 10), 2, (170, 170, 170), -1)
    found = part_mask(picture)
    assert not found[115:125, 145:155].any()
    assert not found[5:15, 5:15].any()
    assert found[120, 200]
    assert inside[120, 200]


def test_where_all_is_alike_all_is_part():
    rng = np.random.default_rng(0)
    flat = np.full((100, 140, 3), 90, np.uint8)
    noise = rng.integers(60, 200, (100, 140, 3), np.uint8)
    for picture in (flat, noise, good("textile", rng), good("wood", rng)):
        assert part_mask(picture).all()


def test_direction_follows_the_room_that_is_left():
    rng = np.random.default_rng(0)
    for level, directions in ((10, {1.0}), (250, {-1.0}), (128, {1.0, -1.0})):
        pixels = np.full((20, 20, 3), level, np.float32)
        spot = Spot(pixels, np.ones((20, 20), np.float32), np.array((10.0, 10.0)), 8.0, grey=True)
        assert {spot.direction(rng) for _ in range(40)} == directions
