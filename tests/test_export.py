"""Export: a graph says what its model says, whatever the settings and whatever the size of the picture."""

import json

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from tests.parts import SIZE, damaged, stripes
from totalrecall import SPADE, PaDiM, PatchCore
from totalrecall.engines.runtime import core
from totalrecall.errors import PictureError, SettingError
from totalrecall.export.build import build_graph
from totalrecall.export.graph import GraphWriter, Value
from totalrecall.export.metadata import METADATA_KEY, packed_mask, unpacked_mask
from totalrecall.export.parity import MAP_TOLERANCE, TOLERANCE, CheckPicture, compare
from totalrecall.export.preparation import prepare
from totalrecall.export.runtime import OUTPUTS, open_onnxruntime, open_openvino
from totalrecall.pictures.geometry import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

ROI = np.zeros((70, 90), bool)
ROI[10:50, 20:70] = True


def random_picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


PICTURES = [stripes(40), damaged(41), stripes(42, 33, 45), stripes(43, 200, 301), random_picture(128, 128)]
OF_ONE_SHAPE = [stripes(40), damaged(41), stripes(42, 140, 180), stripes(43, 35, 45), random_picture(105, 135)]


def fitted(backbone, kind=PatchCore, **options):
    settings = {"backbone": backbone, "size": SIZE, "precision": "f32", "false_alarm_rate": 0.1, **options}
    if kind is PatchCore:
        settings = {"coreset": 0.2, "at_least": 1, **settings}
    return kind(**settings).fit([stripes(seed) for seed in range(12)])


@pytest.fixture(scope="module")
def detector(tiny_backbone):
    return fitted(tiny_backbone)


def session(graph):
    return onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def run(opened, picture):
    return dict(zip(OUTPUTS, opened.run(list(OUTPUTS), {"picture": picture[None]}), strict=True))


def assert_same(detector, graph, pictures):
    """Assert that ONNX Runtime gives the score, verdict, p-value, patch and map that the model gives."""
    opened = session(graph)
    for picture in pictures:
        said, result = run(opened, picture), detector.predict(picture)
        assert abs(said["score"][0] - result.score) <= TOLERANCE * result.score
        assert [True, False, None][1 - int(said["is_anomalous"][0])] is result.is_anomalous
        assert said["p_value"][0] == pytest.approx(result.p_value, rel=1e-6)
        assert said["map"].shape == picture.shape[:2]
        assert np.abs(said["map"] - result.anomaly_map).max() <= MAP_TOLERANCE * result.anomaly_map.max()
        if result.nearest is not None:
            assert detector.pictures_[said["nearest"][1]].path == result.nearest.path


@pytest.mark.parametrize("scoring", ["extent", "max", "paper", "top1pct", "map1pct"])
@pytest.mark.parametrize("roi", [None, ROI], ids=["whole", "region"])
def test_each_scoring_gives_the_same_score(tiny_backbone, scoring, roi):
    detector = fitted(tiny_backbone, scoring=scoring, roi=roi)
    assert_same(detector, build_graph(detector, model=""), PICTURES if roi is None else OF_ONE_SHAPE)


@pytest.mark.parametrize(
    "options",
    [
        {"resize": "letterbox"},
        {"resize": "crop"},
        {"resize": "crop", "crop": 48},
        {"tile": 2},
        {"stride": 2},
        {"patch_size": 5},
        {"layers": (3,)},
        {"descriptor": "paper-code"},
        {"roi": ROI, "resize": "crop", "crop": 48},
        {"roi": ROI, "resize": "letterbox"},
    ],
    ids=str,
)
def test_each_setting_gives_the_same_score(tiny_backbone, options):
    detector = fitted(tiny_backbone, **options)
    assert_same(detector, build_graph(detector, model=""), OF_ONE_SHAPE if "roi" in options else PICTURES)


@pytest.mark.parametrize("roi", [None, ROI], ids=["whole", "region"])
def test_padim_gives_the_same_score_and_names_no_picture(tiny_backbone, roi):
    detector = fitted(tiny_backbone, PaDiM, dimensions=30, roi=roi)
    graph = build_graph(detector, model="")
    assert_same(detector, graph, PICTURES if roi is None else OF_ONE_SHAPE)
    assert run(session(graph), stripes(1))["nearest"].tolist() == [-1, -1, -1, -1]


@pytest.mark.parametrize("roi", [None, ROI], ids=["whole", "region"])
def test_padim_scored_by_extent_gives_the_same_score(tiny_backbone, roi):
    detector = fitted(tiny_backbone, PaDiM, dimensions=30, roi=roi, scoring="extent", holdout=0.9)
    assert detector.extents_ is not None
    assert_same(detector, build_graph(detector, model=""), PICTURES if roi is None else OF_ONE_SHAPE)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(PatchCore, {}), (PatchCore, {"tile": 2}), (PatchCore, {"roi": ROI, "scoring": "paper"}), (PaDiM, {})],
    ids=str,
)
def test_a_graph_of_several_pictures_says_of_each_what_the_model_says(tiny_backbone, kind, options):
    detector = fitted(tiny_backbone, kind, **options)
    graph = build_graph(detector, model="", batch=3)
    pictures = [stripes(40), damaged(41), stripes(44)]
    outputs = session(graph).run(list(OUTPUTS), {"picture": np.stack(pictures)})
    said = dict(zip(OUTPUTS, outputs, strict=True))
    assert [said[name].shape for name in OUTPUTS[:3]] == [(3,)] * 3
    assert said["nearest"].shape == (3, 4)
    assert said["worst"].shape == (3, 2)
    for at, picture in enumerate(pictures):
        result = detector.predict(picture)
        assert said["score"][at] == pytest.approx(result.score, rel=TOLERANCE)
        assert bool(said["is_anomalous"][at]) is result.is_anomalous
        assert np.abs(said["map"][at] - result.anomaly_map).max() <= MAP_TOLERANCE * result.anomaly_map.max()
    single = build_graph(detector, model="")
    assert len(graph.SerializeToString()) < 1.5 * len(single.SerializeToString())  # the bank is in it once
    compared = compare(
        detector,
        {
            "onnxruntime": open_onnxruntime(graph.SerializeToString(), "graph", batch=3),
            "openvino": open_openvino(graph.SerializeToString(), "graph", batch=3),
        },
        [CheckPicture(str(at), picture) for at, picture in enumerate([*pictures, stripes(50)])],
    )
    assert compared.holds
    assert len(compared.comparisons) == 8


def test_a_graph_that_mixes_up_the_pictures_of_a_batch_does_not_hold(detector):
    graph = build_graph(detector, model="", batch=2)
    (node,) = [node for node in graph.graph.node if node.output[0] == "score"]
    node.input[:] = list(node.input)[::-1]
    run = open_onnxruntime(graph.SerializeToString(), "graph", batch=2)
    assert not compare(detector, {"onnxruntime": run}, [CheckPicture("part", stripes(40))]).holds


@pytest.mark.parametrize("batch", [0, -1, 65])
def test_a_batch_outside_what_is_allowed_is_refused(detector, batch):
    with pytest.raises(SettingError, match=f"batch must be from 1 to 64 pictures, got {batch}"):
        build_graph(detector, model="", batch=batch)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5000, 40), (33, 47), (2, 3), (2160, 3840)])
def test_sizes_that_no_fit_has_seen_give_the_same_score(detector, height, width):
    assert_same(detector, build_graph(detector, model=""), [random_picture(height, width)])


def test_a_grey_picture_and_extremes_give_the_same_score(detector):
    grey = np.repeat(random_picture(70, 90)[..., :1], 3, axis=2)
    flat = [np.full((70, 90, 3), value, np.uint8) for value in (0, 255)]
    assert_same(detector, build_graph(detector, model=""), [grey, *flat])


def test_openvino_gives_the_same_score(detector):
    compiled = core().compile_model(
        core().read_model(build_graph(detector, model="").SerializeToString()),
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )
    for picture in PICTURES:
        assert compiled([picture[None]])["score"][0] == pytest.approx(detector.predict(picture).score, rel=TOLERANCE)


def test_a_picture_of_the_bank_scores_zero_under_max(tiny_backbone):
    detector = fitted(tiny_backbone, scoring="max", coreset=1.0)
    said = run(session(build_graph(detector, model="")), stripes(3))
    assert said["score"][0] < 1e-3 * detector.threshold_
    assert said["is_anomalous"].tolist() == [0]


def test_a_graph_of_one_picture_size_gives_the_same_score_and_takes_no_other(detector):
    graph = build_graph(detector, model="", picture_size=(70, 90))
    assert_same(detector, graph, [stripes(40), damaged(41)])
    assert len(graph.graph.node) < len(build_graph(detector, model="").graph.node)  # no interpolation: both axes shrink
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(session(graph), stripes(40, 71, 90))


@pytest.mark.parametrize(("bank", "factor"), [("float16", 2), ("int8", 4)])
def test_a_smaller_bank_gives_nearly_the_same_score(tiny_backbone, bank, factor):
    detector = fitted(tiny_backbone, coreset=0.5)
    small, whole = (build_graph(detector, model="", bank=kind) for kind in (bank, "float32"))
    assert whole.ByteSize() - small.ByteSize() > 0.9 * (1 - 1 / factor) * detector.bank_.vectors.nbytes
    opened = session(small)
    for picture in PICTURES:
        assert run(opened, picture)["score"][0] == pytest.approx(detector.predict(picture).score, rel=5e-3)


@pytest.mark.parametrize("scoring", ["max", "map1pct", "extent", "paper"])
def test_a_graph_holds_nothing_that_nobody_takes(tiny_backbone, scoring):
    detector = fitted(tiny_backbone, scoring=scoring)
    graph = build_graph(detector, model="").graph
    taken = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert [constant.name for constant in graph.initializer if constant.name not in taken] == []
    assert all(taken.intersection(node.output) for node in graph.node)


def test_without_a_threshold_there_is_no_verdict(tiny_backbone):
    detector = fitted(tiny_backbone, holdout=0)
    said = run(session(build_graph(detector, model="")), damaged(41))
    assert said["is_anomalous"].tolist() == [-1]
    assert np.isnan(said["p_value"][0])
    assert said["score"][0] > 0


@pytest.mark.parametrize(
    ("options", "picture"),
    [({"roi": ROI}, stripes(40, 90, 70)), ({"resize": "crop"}, random_picture(500, 9))],
    ids=["another shape than the region", "too long to crop"],
)
def test_a_picture_that_the_model_refuses_gets_no_verdict(tiny_backbone, options, picture):
    detector = fitted(tiny_backbone, **options)
    with pytest.raises(PictureError):
        detector.predict(picture)
    said = run(session(build_graph(detector, model="")), picture)
    assert np.isnan(said["score"][0])
    assert said["is_anomalous"].tolist() == [-1]


def test_a_model_that_was_taught_keeps_its_threshold(detector):
    other = detector.judging(threshold=0.5)
    said = run(session(build_graph(other, model="")), stripes(40))
    assert said["is_anomalous"].tolist() == [1]


def test_spade_says_why_it_cannot_be_exported(tiny_backbone):
    detector = fitted(tiny_backbone, SPADE)
    with pytest.raises(SettingError, match="A SPADE model cannot be exported: it compares"):
        build_graph(detector, model="")


def test_the_file_says_of_what_it_was_made(detector):
    graph = build_graph(detector, model="0123")
    onnx.checker.check_model(graph)
    facts = json.loads({entry.key: entry.value for entry in graph.metadata_props}[METADATA_KEY])
    assert facts["model"] == "0123"
    assert facts["threshold"] == detector.threshold_
    assert facts["false_alarm_rate"] == 0.1
    assert facts["backbone"]["sha256"] == detector.backbone.sha256
    assert facts["backbone"]["licence"] == detector.backbone.licence
    assert facts["recipe"]["size"] == SIZE
    assert len(facts["pictures"]) == 12


# ---------------------------------------------------------------------- preparation


def prepared_by_graph(recipe, picture):
    graph = GraphWriter()
    graph.node("Identity", prepare(graph, Value(graph, "picture", "uint8"), recipe).image, name="prepared")
    shape = [1, "height", "width", 3]
    side = recipe.piece * recipe.tile
    model = graph.model({"picture": ("uint8", shape)}, {"prepared": ("uint8", [1, side, side, 3])}, {})
    return session(model).run(None, {"picture": picture[None]})[0][0]


@pytest.mark.parametrize("size", [64, 96, 75])
@pytest.mark.parametrize("resize", ["squash", "letterbox", "crop"])
def test_pictures_are_prepared_as_opencv_does_to_the_grey_level(size, resize):
    recipe = Recipe(size=size, resize=resize)
    rng = np.random.default_rng(size)
    sides = [(1, 1), (64, 64), (128, 128), (192, 96), (2, 61), *rng.integers(2, 300, (12, 2)).tolist()]
    for height, width in sides:
        picture = random_picture(height, width)
        if resize == "crop" and max(height, width) > 32 * min(height, width):
            continue
        apart = np.abs(prepared_by_graph(recipe, picture).astype(int) - recipe.prepare(picture)[0])
        assert apart.max() <= 1
        assert np.count_nonzero(apart) <= 0.01 * apart.size  # where the mean is just between two grey levels


def test_a_mask_survives_being_packed():
    assert np.array_equal(unpacked_mask(packed_mask(ROI)), ROI)
    for broken in ({"height": 70, "width": 91}, {"bits": "eA=="}, {"height": 1 << 20, "width": 1 << 20}):
        with pytest.raises(ValueError, match="region_of_interest"):
            unpacked_mask({**packed_mask(ROI), **broken})


def test_opencv_still_shrinks_and_grows_as_the_graph_does():
    """Were OpenCV to change, exported graphs and the program would differ: this fails first."""
    picture = random_picture(48, 48)
    assert np.array_equal(
        prepared_by_graph(Recipe(size=96), picture), cv2.resize(picture, (96, 96), interpolation=cv2.INTER_LINEAR)
    )
    assert np.array_equal(
        prepared_by_graph(Recipe(size=32), picture), cv2.resize(picture, (32, 32), interpolation=cv2.INTER_AREA)
    )
