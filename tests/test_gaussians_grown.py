"""Grown Gaussians: PaDiM models that an older version updated hold what joined and left beside the sums of the fit."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests import reference
from tests.patch_vectors import gaussians_of, vectors
from totalrecall import PaDiM
from totalrecall.detectors.gaussians import Grown
from totalrecall.detectors.model_file import read_artifact, write_artifact
from totalrecall.errors import ModelFileError

CHANGED = Path(__file__).parent / "data" / "old_padim_changed.trecall"


def test_distances_equal_the_oracle_of_all_that_are_in():
    good, picture = vectors(0, 90), vectors(1, 1)[0]
    sums = gaussians_of(good[:50])
    mean, scatter = sums.mean.copy(), sums.scatter.copy()
    grown = Grown(sums, good[50:].astype(np.float32), good[3:5].astype(np.float32))  # more than one batch joins
    assert grown.count == 88
    rest = np.delete(good, [3, 4], axis=0)
    assert grown.distances(picture) == pytest.approx(reference.padim(rest, picture), rel=1e-3)
    assert np.array_equal(sums.mean, mean)  # the sums of the fit stay as they were
    assert np.array_equal(sums.scatter, scatter)


def test_a_model_that_was_updated_then_is_written_with_the_tensors_that_were_read(tmp_path):
    read = read_artifact(CHANGED)[1]
    assert len(read["gaussians.joined"])
    saved = PaDiM.load(CHANGED).save(tmp_path / "now.trecall")
    written = read_artifact(saved)[1]
    assert written.keys() == read.keys()
    assert all(np.array_equal(written[name], read[name]) for name in read)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("joined", lambda joined: joined[:, :9]),
        ("joined", lambda joined: joined.astype(np.float64)),
        ("joined", lambda joined: joined * np.nan),
        ("left", lambda joined: np.concatenate([joined] * 40)),
        ("left", lambda joined: joined + 100),
    ],
)
def test_a_damaged_part_is_named(tmp_path, part, value):
    path = shutil.copy(CHANGED, tmp_path / "m.trecall")
    header, tensors = read_artifact(path)
    tensors[f"gaussians.{part}"] = value(tensors["gaussians.joined"])
    del header["tensors"]
    with pytest.raises(ModelFileError, match=rf"is damaged: gaussians\.{part}"):
        PaDiM.load(write_artifact(path, header, tensors))
