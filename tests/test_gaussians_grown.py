"""gaussians_grown: what joined and left since a fit, beside the fit's own sums."""

import numpy as np
import pytest

from tests import reference
from tests.patch_vectors import gaussians_of, vectors
from totalrecall.detectors.gaussians import Grown


def test_distances_equal_the_oracle_of_all_that_are_in():
    good, picture = vectors(0, 90), vectors(1, 1)[0]
    sums = gaussians_of(good[:50])
    grown = Grown.begun(sums).with_joined(list(good[50:]))  # more than are taken in at a time
    assert grown.count == 90
    assert grown.distances(picture) == pytest.approx(reference.padim(good, picture), rel=1e-5)
    grown = grown.with_left([0, 39], list(good[3:5]))
    rest = np.delete(good, [3, 4, 50, 89], axis=0)
    assert grown.count == 86
    assert grown.distances(picture) == pytest.approx(reference.padim(rest, picture), rel=1e-3)


def test_the_sums_of_the_fit_stay_as_they_were():
    good = vectors(0, 20)
    sums = gaussians_of(good[:12])
    mean, scatter = sums.mean.copy(), sums.scatter.copy()
    grown = Grown.begun(sums).with_joined(list(good[12:])).with_left([1], list(good[:3]))
    assert grown.fitted is sums
    assert np.array_equal(sums.mean, mean)
    assert np.array_equal(sums.scatter, scatter)
    assert sums.count == 12


def test_what_joined_and_left_again_leaves_the_fit_to_the_bit():
    good = vectors(0, 20)
    sums = gaussians_of(good[:12])
    grown = Grown.begun(sums).with_joined(list(good[12:])).with_left(range(8), [])
    assert np.array_equal(grown.scatter, sums.scatter)
    assert Grown.begun(grown) is grown


def test_what_was_never_learnt_or_is_all_cannot_leave():
    good = vectors(0, 40)
    grown = Grown.begun(gaussians_of(good))
    with pytest.raises(ValueError, match=r"gaussians\.left \(never learnt\)"):
        grown.with_left([], list(good[:1] + 100))
    with pytest.raises(ValueError, match=r"gaussians\.left \(no picture is left\)"):
        grown.with_left([], list(good))
