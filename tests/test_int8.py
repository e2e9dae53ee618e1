"""A backbone of 8 bits: what its graph may hold, a fit with it that is kept or refused, and a model of it."""

import importlib.util
import math
import sys

import numpy as np
import pytest

from tests.engine_ready import HERE
from tests.parts import stripes
from totalrecall import JoinedPatchCore, PaDiM, PatchCore, load_detector
from totalrecall.backbones import Backbone, load
from totalrecall.backbones.graph_check import check_graph
from totalrecall.backbones.quantize import is_quantized, quantize
from totalrecall.calibration import Calibration
from totalrecall.cli import main
from totalrecall.engines import open_engine
from totalrecall.errors import BackboneError, MissingExtraError, SettingError
from totalrecall.export.build import check_exportable
from totalrecall.tuning import EightBits, fit_int8, int8

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

LAYERS = ("layer2", "layer3")
PARTS = [stripes(seed) for seed in range(16)]
SETTINGS = {"size": 64, "coreset": 0.2, "at_least": 1, "false_alarm_rate": 0.1, "precision": "f32"}
has_nncf = importlib.util.find_spec("nncf") is not None
needs_nncf = pytest.mark.skipif(not has_nncf, reason="nncf is not installed")


def by_hand(backbone, *, levels=127):
    """Return a backbone of 8 bits, made without NNCF: the input and the kernel of each convolution are rounded."""
    model = onnx.load_from_string(backbone.graph)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    seen = list(dict.fromkeys(node.input[0] for node in convolutions))
    probe.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in seen)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(seen, {"images": PARTS[0][None, :64, :64]})
    reach = {name: float(np.abs(value).max()) for name, value in zip(seen, values, strict=True)}
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    nodes = []

    def constant(name, value):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    for node in model.graph.node:
        if node.op_type == "Conv":
            name, kernel = node.output[0], weights[node.input[1]]
            scale = np.float32(reach[node.input[0]] / levels)
            rounded = [constant(f"{name}_s", scale), constant(f"{name}_z", np.int8(0))]
            nodes.append(onnx.helper.make_node("QuantizeLinear", [node.input[0], *rounded], [f"{name}_q"]))
            nodes.append(onnx.helper.make_node("DequantizeLinear", [f"{name}_q", *rounded], [f"{name}_x"]))
            scales = (np.abs(kernel).max(axis=(1, 2, 3)) / levels).astype(np.float32)
            whole = np.round(kernel / scales[:, None, None, None]).astype(np.int8)
            inputs = [constant(f"{name}_k", whole), constant(f"{name}_ks", scales)]
            inputs.append(constant(f"{name}_kz", np.zeros(len(scales), np.int8)))
            nodes.append(onnx.helper.make_node("DequantizeLinear", inputs, [f"{name}_w"], axis=0))
            node.input[0], node.input[1] = f"{name}_x", f"{name}_w"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return Backbone.from_onnx(model.SerializeToString(), "The rounded backbone")


@pytest.fixture(scope="module")
def rounded(tiny_backbone):
    return by_hand(tiny_backbone)


def pictures(n=2):
    return np.stack([part[:64, :64] for part in PARTS[:n]])


def near(got, expected, relative):
    return all(np.abs(got[one] - expected[one]).max() <= relative * np.abs(expected[one]).max() for one in expected)


# ---------------------------------------------------------------------- the graph


def test_a_graph_of_8_bits_is_taken_and_told_from_others(rounded, tiny_backbone):
    check_graph(rounded.graph, "It")
    assert is_quantized(rounded)
    assert not is_quantized(tiny_backbone)
    assert not any(map(is_quantized, (load("compact"), load("lite2"))))


def test_a_scale_that_is_computed_is_refused(rounded):
    model = onnx.load_from_string(rounded.graph)
    node = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    node.input[1] = node.input[0]
    with pytest.raises(BackboneError, match=r"QuantizeLinear takes a shape or a scale that is computed, not kept"):
        check_graph(model.SerializeToString(), "It")


@pytest.mark.parametrize("name", [pytest.param("openvino"), *HERE])
def test_every_engine_runs_it_near_the_graph_of_more_bits(name, rounded, tiny_backbone):
    expected = open_engine(tiny_backbone, LAYERS, precision="f32").run(pictures())
    got = open_engine(rounded, LAYERS, engine=name, precision="f32").run(pictures())
    assert near(got, expected, 0.1)
    assert not near(got, expected, 1e-4)


# ---------------------------------------------------------------------- the fit


@pytest.fixture
def without_nncf(monkeypatch, rounded):
    """Have the backbone rounded by hand: what is tested is all the rest."""
    monkeypatch.setattr(int8, "check_quantizable", lambda _: None)
    monkeypatch.setattr(int8, "quantize", lambda *_: rounded)


def test_a_fit_with_8_bits_is_kept_with_its_graph_in_the_model(without_nncf, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 0.3)  # sixteen parts that differ by next to nothing
    monkeypatch.setattr(int8, "MOST_RISEN", math.inf)
    detector, compared = fit_int8(PatchCore(backbone=tiny_backbone, **SETTINGS), PARTS)
    assert compared.kept
    assert compared.planted > 20
    assert detector.settings.precision == "int8"
    assert is_quantized(detector.backbone)
    loaded = load_detector(detector.save(tmp_path / "part.trecall"))
    assert loaded.settings.precision == "int8"
    assert loaded.backbone.graph == detector.backbone.graph
    judged = [stripes(40), 255 - stripes(3)]
    assert list(loaded.score(judged)) == list(detector.score(judged))
    other = load_detector(tmp_path / "part.trecall", precision="f32")  # of what in the graph has not 8 bits
    assert list(other.score(judged)) == pytest.approx(list(detector.score(judged)), rel=0.05)
    loaded.update(add=[stripes(50)])
    assert len(loaded.pictures_) == 17


def test_the_other_methods_can_have_8_bits_too(without_nncf, tiny_backbone, monkeypatch):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", -1.0)
    monkeypatch.setattr(int8, "MOST_LOST", 1.0)
    monkeypatch.setattr(int8, "MOST_RISEN", math.inf)
    detector, compared = fit_int8(PaDiM(backbone=tiny_backbone, size=64, precision="f32"), PARTS)
    assert isinstance(detector, PaDiM)
    assert -1 <= compared.agreement <= 1
    assert detector.settings.precision == "int8"


def test_a_fit_that_loses_too_much_is_refused_with_the_figures(without_nncf, tiny_backbone, monkeypatch):
    coarse = by_hand(tiny_backbone, levels=1)
    monkeypatch.setattr(int8, "quantize", lambda *_: coarse)
    with pytest.raises(SettingError) as caught:
        fit_int8(PatchCore(backbone=tiny_backbone, **SETTINGS), PARTS)
    message = str(caught.value)
    assert message.startswith("precision int8 loses too much on these parts: ")
    assert " planted defects are found, " in message
    assert (
        "Allowed are 5% of the planted defects, an agreement of at least 0.8, and a threshold at most 20% farther"
        in message
    )


@pytest.mark.parametrize(
    ("compared", "kept"),
    [
        (EightBits(0.8, 64, 30, 33, 0.0), True),
        (EightBits(0.8, 64, 29, 33, 0.0), False),
        (EightBits(0.79, 64, 33, 33, 0.0), False),
        (EightBits(1.0, 64, 40, 33, 0.0), True),
        (EightBits(float("nan"), 64, 33, 33, 0.0), False),
        (EightBits(0.8, 64, 33, 33, 0.2), True),
        (EightBits(0.89, 64, 33, 33, 0.21), False),
        (EightBits(0.89, 64, 33, 33, -0.5), True),
        (EightBits(0.89, 64, 33, 33, math.inf), False),
    ],
)
def test_the_order_and_the_planted_defects_and_the_threshold_decide(compared, kept):
    assert compared.kept == kept


def test_the_order_is_compared_on_the_pictures_that_both_have():
    def given(pictures, scores):
        scores = np.array(scores)
        return Calibration(scores, scores, 0.1, 2, np.array(pictures, np.int32))

    one = given([0, 1, 2, 5], [1.0, 2.0, 3.0, 9.0])
    assert int8._agreement(one, given([2, 1, 0, 7], [30.0, 20.0, 10.0, 0.0])) == pytest.approx(1)
    assert int8._agreement(one, given([0, 1, 2], [30.0, 20.0, 10.0])) == pytest.approx(-1)
    assert np.isnan(int8._agreement(one, given([0, 1], [1.0, 2.0])))


def test_how_far_the_threshold_has_risen_is_counted_from_the_median_in_multiples_of_it():
    def given(*scores):
        scores = np.array(scores)
        return Calibration(scores, scores, 1 / (len(scores) + 1))  # the highest is the threshold

    one = given(1.0, 2.0, 2.0, 3.0)
    assert int8._risen(one, one) == 0
    assert int8._risen(one, given(10.0, 20.0, 20.0, 35.0)) == pytest.approx(0.5)
    assert int8._risen(one, given(1.0, 2.0, 2.0, 2.5)) == pytest.approx(-0.5)
    assert int8._risen(one, given(2.0, 2.0, 2.0, 2.0)) == -1
    assert int8._risen(given(2.0, 2.0, 2.0, 2.0), one) == math.inf
    assert int8._risen(given(2.0, 2.0, 2.0, 2.0), given(3.0, 3.0, 3.0, 3.0)) == 0
    assert math.isfinite(int8._risen(given(0.0, 0.0, 0.0, 1.0), one))


def test_the_words_say_whether_the_threshold_is_farther_or_nearer():
    words = [EightBits(0.9, 64, 15, 15, risen).in_words() for risen in (0.42, -0.27)]
    assert words[0].endswith("; the threshold is 42% farther above the median of these")
    assert words[1].endswith("; the threshold is 27% nearer to the median of these")


def test_pictures_that_give_no_threshold_cannot_be_compared(without_nncf, tiny_backbone):
    with pytest.raises(SettingError, match=r"^precision int8 is compared with more bits at their thresholds, and"):
        fit_int8(PatchCore(backbone=tiny_backbone, **SETTINGS), PARTS[:1])


# ---------------------------------------------------------------------- what cannot be had


def test_a_detector_of_8_bits_is_not_made_without_the_comparison(tiny_backbone):
    with pytest.raises(SettingError) as caught:
        PatchCore(backbone=tiny_backbone, precision="int8")
    assert str(caught.value) == (
        "precision int8 needs a graph of 8 bits, which backbone tiny has not. Make one by "
        "`totalrecall fit --precision int8`, or in Python by `totalrecall.tuning.fit_int8`."
    )


def test_without_onnx_the_extra_is_named_that_brings_nncf_as_well(tiny_backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError) as caught:
        fit_int8(PatchCore(backbone=tiny_backbone, **SETTINGS), ["not looked at.png"])
    assert str(caught.value) == (
        'A backbone of 8 bits needs onnx, which is not installed. Run: pip install "totalrecall[int8]"'
    )


def test_what_to_install_is_said_before_the_work(tiny_backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtraError) as caught:
        fit_int8(PatchCore(backbone=tiny_backbone, **SETTINGS), ["not looked at.png"])
    assert str(caught.value).startswith("Precision int8 needs the package nncf, which cannot be imported (")
    assert str(caught.value).endswith('Run: pip install "totalrecall[int8]"')


def test_a_vision_transformer_and_a_graph_of_8_bits_are_refused(rounded):
    with pytest.raises(SettingError, match=r"^precision int8 is for .* and tiny has 8 bits already\. Use precision"):
        quantize(rounded, LAYERS, [pictures()[0]])
    transformer = Backbone(**{**vars(load("compact")), "advice": type(rounded.advice)(multiple=14)})
    with pytest.raises(SettingError, match=r" and compact is a vision transformer\."):
        quantize(transformer, LAYERS, [pictures()[0]])


def test_several_banks_and_exports_have_no_8_bits(without_nncf, tiny_backbone, rounded):
    joined = JoinedPatchCore(backbone=tiny_backbone, sizes=(64, 96))
    with pytest.raises(SettingError, match=r"^precision int8 is for one backbone at one size\. Give one --backbone"):
        fit_int8(joined, PARTS)
    with pytest.raises(SettingError, match=r"^A model of 8 bits cannot be exported: each runtime rounds it in its own"):
        check_exportable(PatchCore(backbone=rounded, precision="int8", size=64).fit(PARTS))


# ---------------------------------------------------------------------- the command line


@pytest.fixture
def folder(tmp_path):
    import cv2

    (tmp_path / "good").mkdir()
    for number, part in enumerate(PARTS):
        cv2.imwrite(str(tmp_path / "good" / f"{number:02}.png"), part[:, :, ::-1])
    return tmp_path


def fit(folder, *options):
    settings = ["--size", "64", "--coreset", "0.2", "--at-least", "1", "--false-alarm-rate", "0.1"]
    return main(["fit", str(folder / "good"), "-o", str(folder / "part.trecall"), *settings, *options])


def test_fit_says_what_8_bits_lose_and_info_says_that_the_model_has_them(without_nncf, folder, monkeypatch, capsys):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", -1.0)
    monkeypatch.setattr(int8, "MOST_LOST", 1.0)
    monkeypatch.setattr(int8, "MOST_RISEN", math.inf)
    assert fit(folder, "--precision", "int8") == 0
    told = capsys.readouterr().out
    assert "8 bits: " in told
    assert " planted defects are found, " in told
    assert told.count("Plan: ") == 1
    assert main(["info", str(folder / "part.trecall")]) == 0
    assert "precision int8" in " ".join(capsys.readouterr().out.split())
    assert main(["predict", str(folder / "part.trecall"), str(folder / "good" / "00.png")]) == 0


def test_a_model_of_8_bits_is_not_written_without_its_backbone(without_nncf, folder, capsys):
    assert fit(folder, "--precision", "int8", "--no-embed") == 2
    assert "--no-embed leaves the backbone out, and with --precision int8 no other" in capsys.readouterr().err


def test_a_loss_that_is_too_large_is_one_line_and_code_2_and_nothing_is_written(
    without_nncf, folder, monkeypatch, capsys
):
    monkeypatch.setattr(int8, "LEAST_AGREEMENT", 1.1)
    assert fit(folder, "--precision", "int8", "--quiet") == 2
    error = capsys.readouterr().err
    assert error.startswith("totalrecall: --precision int8 loses too much on these parts: ")
    assert len(error.splitlines()) == 1
    assert not (folder / "part.trecall").exists()


# ---------------------------------------------------------------------- NNCF itself


@needs_nncf
def test_nncf_rounds_a_backbone_that_stays_near_and_prints_nothing(tiny_backbone, capfd):
    before = set(sys.modules)
    made = quantize(tiny_backbone, LAYERS, list(pictures(8)))
    assert (made.name, [layer.name for layer in made.layers]) == ("tiny_int8", list(LAYERS))
    assert is_quantized(made)
    assert made.architecture.endswith("; in 8 bits, its scales from 8 good pictures")
    assert len(made.graph) < 0.4 * len(tiny_backbone.graph)
    assert not {name for name in set(sys.modules) - before if name.startswith("openvino_telemetry")}
    expected = open_engine(tiny_backbone, LAYERS, precision="f32").run(pictures())
    assert near(open_engine(made, LAYERS, precision="f32").run(pictures()), expected, 0.1)
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")


@needs_nncf
@pytest.mark.parametrize("name", ["compact", "lite2"])
def test_the_built_in_backbones_can_have_8_bits(name):
    backbone = load(name)
    layers = tuple(f"layer{number}" for number in backbone.advice.layers)
    made = quantize(backbone, layers, list(pictures(8)))
    expected = open_engine(backbone, layers, precision="f32").run(pictures())
    got = open_engine(made, layers, precision="f32").run(pictures())
    for layer in layers:
        assert np.corrcoef(got[layer].ravel(), expected[layer].ravel())[0, 1] > 0.97
