"""patches: eq. 1-3 against hand-derived values and the oracle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import reference
from totalrecall.errors import SettingError
from totalrecall.features import patches
from totalrecall.features.patches import covered_cells, describe, resize_bilinear


def random_maps(seed=0, n=2, size=6, channels=(3, 5)):
    rng = np.random.default_rng(seed)
    return [rng.random((n, size // 2**i, size // 2**i, c), dtype=np.float32) for i, c in enumerate(channels)]


def test_the_average_of_ones_counts_zeros_outside_the_map():
    average = describe([np.ones((1, 4, 4, 1), np.float32)], patch_size=3)[0, :, :, 0]
    assert average[1, 1] == pytest.approx(1)
    assert average[0, 1] == pytest.approx(6 / 9)
    assert average[0, 0] == pytest.approx(4 / 9)


def test_patch_size_one_changes_nothing():
    maps = random_maps()[0]
    assert np.array_equal(describe([maps], patch_size=1), maps)


def test_a_patch_larger_than_the_map_averages_all_of_it():
    maps = random_maps(size=3)[0]
    assert np.allclose(describe([maps], patch_size=7), maps.sum(axis=(1, 2), keepdims=True) / 49, atol=1e-6)


def test_bilinear_resizing_keeps_pixel_centres():
    row = np.array([0, 1], np.float32).reshape(1, 1, 2, 1)
    assert resize_bilinear(row, (1, 4)).ravel().tolist() == [0, 0.25, 0.75, 1]


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), patch_size=st.sampled_from([1, 3, 5]), size=st.sampled_from([4, 6, 10]))
def test_concatenated_descriptors_equal_the_oracle(seed, patch_size, size):
    maps = random_maps(seed, size=size)
    assert np.allclose(describe(maps, patch_size=patch_size), reference.describe(maps, patch_size), atol=1e-5)


def test_three_layers_align_to_the_finest_grid():
    maps = random_maps(size=8, channels=(2, 3, 4))
    grid = describe(maps)
    assert grid.shape == (2, 8, 8, 9)
    assert np.allclose(grid, reference.describe(maps), atol=1e-5)


def test_a_stride_takes_the_middle_of_each_block():
    maps = random_maps(size=9, channels=(2,))
    assert np.array_equal(describe(maps, stride=3), describe(maps)[:, 1::3, 1::3])


def test_a_batch_equals_its_pictures_one_by_one():
    maps = random_maps(n=3)
    one_by_one = [describe([layer[i : i + 1] for layer in maps]) for i in range(3)]
    assert np.array_equal(describe(maps), np.concatenate(one_by_one))


def plain_paper_code(maps, patch_size=3):
    """The authors' MeanMapper, Aggregator and unfolding, written out with loops for one picture."""

    def adaptive(vector, bins):
        length = len(vector)
        return np.array([vector[i * length // bins : -(-(i + 1) * length // bins)].mean() for i in range(bins)])

    size, layers = maps[0].shape[1:3], []
    for one in maps:
        _, h, w, c = one.shape
        half = patch_size // 2
        padded = np.pad(one[0].astype(np.float64), ((half, half), (half, half), (0, 0)))
        flat = np.zeros((1, h, w, c * patch_size**2))
        for y in range(h):
            for x in range(w):
                window = padded[y : y + patch_size, x : x + patch_size]  # (p, p, c)
                flat[0, y, x] = window.transpose(2, 0, 1).ravel()  # channel first, as torch.nn.Unfold
        layers.append(resize_bilinear(flat.astype(np.float32), size))  # interpolated before the averaging, as theirs
    out = np.zeros((1, *size, 1024))
    for y in range(size[0]):
        for x in range(size[1]):
            both = np.concatenate([adaptive(layer[0, y, x], 1024) for layer in layers])
            out[0, y, x] = adaptive(both, 1024)
    return out


@pytest.mark.parametrize("channels", [(128, 256), (100, 130)], ids=["even bins", "overlapping bins"])
def test_the_paper_code_descriptor_equals_the_authors_mapping(channels):
    maps = random_maps(n=1, size=4, channels=channels)
    grid = describe(maps, descriptor="paper-code")
    assert grid.shape == (1, 4, 4, 1024)
    assert np.allclose(grid, plain_paper_code(maps), atol=1e-5)


def test_a_cell_that_the_region_only_touches_is_covered():
    roi = np.zeros((8, 8), bool)
    roi[0, 0] = True
    assert covered_cells(roi, (4, 4)).sum() == 1
    roi[0, 3] = True
    assert covered_cells(roi, (4, 4)).tolist()[0] == [True, True, False, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 2}, "patch_size must be odd and at least 1, got 2. The paper uses 3."),
        ({"stride": 0}, "stride must be at least 1, got 0."),
        ({"descriptor": "best"}, "descriptor must be one of concat, paper-code, got 'best'."),
    ],
)
def test_a_bad_setting_is_named(options, message):
    with pytest.raises(SettingError) as caught:
        describe(random_maps(), **options)
    assert str(caught.value) == message


@pytest.mark.parametrize("patch_size", [1, 3])
def test_layers_side_by_side_and_one_after_the_other_give_the_same_bits(monkeypatch, patch_size):
    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((2, side, side, c), dtype=np.float32) for side, c in ((12, 24), (6, 40), (3, 8))]
    calls = []
    monkeypatch.setattr(patches, "side_by_side", lambda place, layers: calls.append(list(map(place, layers))))
    together = describe(maps, patch_size=patch_size)
    assert not calls
    monkeypatch.setattr(patches, "_SMALL", 0)
    assert np.array_equal(describe(maps, patch_size=patch_size), together)
    assert len(calls) == 1
