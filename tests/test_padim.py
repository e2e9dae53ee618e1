"""PaDiM: fit, judge, keep, against the oracle."""

import numpy as np
import pytest

from tests import reference
from tests.parts import damaged, stripes
from totalrecall import PaDiM
from totalrecall.errors import SettingError
from totalrecall.pictures.loading import read_image
from totalrecall.scoring import anomaly_map


def embeddings(detector, pictures):
    """The vectors of pictures (n, positions, d), by the oracle's own way of joining layers."""
    out = []
    for picture in pictures:
        prepared, geometry = detector.recipe.prepare(picture)
        maps = detector.extractor.engine.run(prepared[None])
        joined = reference.pyramid([maps[f"layer{layer}"] for layer in detector.settings.layers])
        out.append(joined[0].reshape(-1, joined.shape[3])[:, detector.channels])
    return np.array(out), geometry


@pytest.mark.parametrize("options", [{}, {"layers": (2, 3), "dimensions": 40}, {"size": 100}, {"dimensions": 448}])
def test_score_and_map_equal_the_oracle(tiny_backbone, options):
    detector = PaDiM(**{"backbone": tiny_backbone, "size": 64, "precision": "f32", "holdout": 0, **options})
    pictures, picture = [stripes(i) for i in range(9)], damaged(20)
    result = detector.fit(pictures).predict(picture)
    good, _ = embeddings(detector, pictures)
    (own,), geometry = embeddings(detector, [picture])
    side = round(len(own) ** 0.5)
    expected = anomaly_map(reference.padim(good, own).reshape(side, side), geometry)
    assert result.anomaly_map == pytest.approx(expected, rel=1e-4)
    assert result.score == pytest.approx(expected.max(), rel=1e-4)


def test_on_real_tiles_scores_equal_the_oracle(shared, resnet18):
    from totalrecall.datasets import open_dataset

    data = open_dataset("mtd", shared / "data" / "mtd")
    detector = PaDiM(backbone=resnet18, precision="f32", holdout=0, size=64).fit(data.train[:15])
    good, _ = embeddings(detector, [read_image(path) for path in data.train[:15]])
    for sample in data.test[::60][:8]:
        (own,), geometry = embeddings(detector, [read_image(sample.path)])
        expected = anomaly_map(reference.padim(good, own).reshape(16, 16), geometry).max()
        assert detector.predict(sample.path).score == pytest.approx(expected, rel=1e-4)


def test_the_score_is_the_maps_largest_value_and_no_good_patch_is_named(tiny_backbone):
    detector = PaDiM(backbone=tiny_backbone, size=64).fit([stripes(i) for i in range(8)])
    result = detector.predict(damaged(9))
    assert result.score == result.anomaly_map.max()
    assert result.nearest is None
    assert result.to_json()["nearest"] is None


def test_channels_come_from_the_seed_and_stay_with_the_model(tiny_backbone, tmp_path):
    one, two = (PaDiM(backbone=tiny_backbone, size=64, seed=seed) for seed in (1, 2))
    assert len(one.channels) == 100
    assert not np.array_equal(one.channels, two.channels)
    one.fit([stripes(0), stripes(1)])
    loaded = PaDiM.load(one.save(tmp_path / "a.trecall"))
    assert np.array_equal(loaded.channels, one.channels)


def test_more_pictures_can_be_learnt_by_a_loaded_model(tiny_backbone, tmp_path):
    """What the file holds is enough to go on: no picture is needed again."""
    pictures, picture = [stripes(i) for i in range(10)], damaged(12)
    options = {"backbone": tiny_backbone, "size": 64, "precision": "f32", "holdout": 0}
    loaded = PaDiM.load(PaDiM(**options).fit(pictures[:6]).save(tmp_path / "a.trecall"))
    more, _ = embeddings(loaded, pictures[6:])
    loaded.gaussians_.add(more.astype(np.float32))
    assert loaded.predict(picture).score == pytest.approx(
        PaDiM(**options).fit(pictures).predict(picture).score, rel=1e-4
    )


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        (0, "dimensions must be at least 1, got 0. The paper uses 100 to 550."),
        (449, "dimensions must be at most the layers' 448 channels, got 449."),
    ],
)
def test_a_bad_number_of_dimensions_is_named(tiny_backbone, dimensions, message):
    with pytest.raises(SettingError) as caught:
        PaDiM(backbone=tiny_backbone, dimensions=dimensions)
    assert str(caught.value) == message
