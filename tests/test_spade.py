"""SPADE: fit, judge, keep, against the oracle."""

import numpy as np
import pytest

from tests import reference
from tests.parts import damaged, stripes
from totalrecall import SPADE
from totalrecall.errors import SettingError
from totalrecall.pictures.loading import read_image
from totalrecall.scoring import anomaly_map


def pyramids(detector, pictures):
    """The feature maps of pictures, one array a layer, (n, h, w, c)."""
    maps = []
    for picture in pictures:
        prepared, geometry = detector.recipe.prepare(picture)
        found = detector.extractor.engine.run(prepared[None])
        maps.append([found[f"layer{layer}"] for layer in detector.settings.layers])
    return [np.concatenate(level) for level in zip(*maps, strict=True)], geometry


@pytest.mark.parametrize(
    "options", [{}, {"layers": (2, 3)}, {"layers": (2,)}, {"size": 100}, {"neighbours": 3}, {"neighbours": 1}]
)
def test_score_and_map_equal_the_oracle(tiny_backbone, options):
    detector = SPADE(**{"backbone": tiny_backbone, "size": 64, "precision": "f32", "holdout": 0, **options})
    pictures, picture = [stripes(i) for i in range(7)], damaged(20)
    result = detector.fit(pictures).predict(picture)
    good, _ = pyramids(detector, pictures)
    own, geometry = pyramids(detector, [picture])
    score, distances = reference.spade(good, own, detector.settings.neighbours)
    assert result.score == pytest.approx(score, rel=1e-4)
    assert result.anomaly_map == pytest.approx(anomaly_map(distances, geometry), rel=1e-4)


def test_on_real_tiles_scores_and_maps_equal_the_oracle(shared, resnet18):
    from totalrecall.datasets import open_dataset

    data = open_dataset("mtd", shared / "data" / "mtd")
    detector = SPADE(backbone=resnet18, precision="f32", holdout=0, size=64, neighbours=5).fit(data.train[:15])
    good, _ = pyramids(detector, [read_image(path) for path in data.train[:15]])
    for sample in data.test[::60][:8]:
        own, geometry = pyramids(detector, [read_image(sample.path)])
        score, distances = reference.spade(good, own, 5)
        result = detector.predict(sample.path)
        assert result.score == pytest.approx(score, rel=1e-4)
        assert result.anomaly_map == pytest.approx(anomaly_map(distances, geometry), rel=1e-3)


def test_a_good_picture_is_at_distance_zero_from_itself(tiny_backbone):
    detector = SPADE(backbone=tiny_backbone, size=64, precision="f32", neighbours=1, holdout=0)
    result = detector.fit([stripes(i) for i in range(5)]).predict(stripes(3))
    assert result.score == pytest.approx(0, abs=1e-6)
    assert result.anomaly_map.max() == pytest.approx(0, abs=1e-4)
    assert result.nearest.path == "array[3]"


def test_with_fewer_good_pictures_than_neighbours_all_are_looked_at_and_it_is_said(tiny_backbone):
    detector = SPADE(backbone=tiny_backbone, size=64, holdout=0).fit([stripes(i) for i in range(5)])
    assert detector.neighbours_ == 5
    assert detector.summary().endswith("compared with the 5 most like it, all that there are")
    assert detector.facts()["neighbours"] == 5


def test_nearest_names_a_good_picture_and_a_place_inside_it(tiny_backbone):
    detector = SPADE(backbone=tiny_backbone, size=64).fit([stripes(i) for i in range(8)])
    nearest = detector.predict(damaged(9)).nearest
    assert nearest.path in {f"array[{i}]" for i in range(8)}
    assert 0 <= nearest.x < 90
    assert 0 <= nearest.y < 70


def test_the_image_level_takes_the_deepest_layer_whatever_the_order(tiny_backbone):
    pictures = [stripes(i) for i in range(6)]
    options = {"backbone": tiny_backbone, "size": 64, "precision": "f32", "holdout": 0}
    one = SPADE(**options, layers=(1, 3)).fit(pictures).predict(damaged(9))
    other = SPADE(**options, layers=(3, 1)).fit(pictures).predict(damaged(9))
    assert other.score == pytest.approx(one.score, rel=1e-6)
    assert other.anomaly_map == pytest.approx(one.anomaly_map, rel=1e-4)


def test_no_neighbour_is_too_few(tiny_backbone):
    with pytest.raises(SettingError, match=r"^neighbours must be at least 1, got 0\. The paper uses 50\.$"):
        SPADE(backbone=tiny_backbone, neighbours=0)


def test_a_backbone_whose_maps_end_with_the_last_whole_cell_takes_a_region_of_interest():
    from tests.old_models import picture, tiny_graph
    from totalrecall.backbones import Backbone

    roi = np.zeros((48, 40), bool)
    roi[4:40, 6:36] = True
    detector = SPADE(backbone=Backbone.from_onnx(tiny_graph()), layers=(1, 2), size=34, roi=roi, precision="f32")
    detector.fit([picture(seed) for seed in range(6)])  # of 34 pixels, 8 cells of 4, where the plan counts 9
    assert detector.gallery_.shape == (8, 8)
    assert detector.score([picture(9, stain=True)])[0] > detector.score([picture(9)])[0]
