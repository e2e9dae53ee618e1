"""All engines follow one protocol; ONNX Runtime and torch give OpenVINO's maps, scores and verdicts."""

import copy
import hashlib
import itertools
import os
import pickle
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests import vit_forward
from tests.engine_ready import ENGINES, HERE, assert_maps_close, has_cuda, pictures
from tests.parts import stripes
from totalrecall import SPADE, PaDiM, PatchCore, load_detector
from totalrecall.backbones import Backbone, load
from totalrecall.backbones.dinov2 import DINOV2, Transformer, build_dinov2
from totalrecall.backbones.graph_check import check_graph
from totalrecall.backbones.graph_reader import cut_graph, read_graph
from totalrecall.backbones.position import at_size
from totalrecall.cli import main
from totalrecall.engines import Engine, open_engine
from totalrecall.engines.openvino import OpenVinoEngine
from totalrecall.errors import BackboneError, MissingExtraError, SettingError

BACKBONES = ("compact", "lite2", "tiny", "small")
SMALL = Transformer(width=48, depth=3, heads=4, registers=4, layers=(1, 2), size=112)
LAYERS = ("layer1", "layer2")


@pytest.fixture(scope="module")
def backbones(tiny_backbone, tmp_path_factory):
    """Both built-in backbones, and a ResNet-18 and a small DINOv2 with registers of random weights."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DINOV2, "small", SMALL)
        weights = vit_forward.random_weights(SMALL.shapes())
        save_file({key: np.ascontiguousarray(value) for key, value in weights.items()}, path)
        small = build_dinov2("small", path)
    return {"compact": load("compact"), "lite2": load("lite2"), "tiny": tiny_backbone, "small": small}


assert_close = partial(assert_maps_close, relative=1e-4)


def all_layers(backbone):
    return tuple(layer.name for layer in backbone.layers)


@pytest.fixture(scope="module", params=HERE)
def name(request):
    return request.param


@pytest.fixture(scope="module", params=["openvino", *HERE])
def each(request):
    return request.param


@pytest.fixture(scope="module")
def engine(each, tiny_backbone):
    return open_engine(tiny_backbone, LAYERS, engine=each, precision="f32")


# ---------------------------------------------------------------------- the same answers


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_layer_of_every_backbone_is_as_openvino_gives_it(name, backbones, backbone):
    images = pictures(2, 112, 112)
    graph = at_size(backbones[backbone], 112)
    layers = all_layers(graph)
    expected = OpenVinoEngine(graph, layers, precision="f32", cache=None).run(images)
    other = open_engine(graph, layers, engine=name, precision="f32")
    assert isinstance(other, Engine)
    assert (other.layers, other.precision) == (layers, "f32")
    assert_close(other.run(images), expected)
    for at, maps in other.stream(enumerate(images)):
        assert_close(maps, {layer: features[at : at + 1] for layer, features in expected.items()})


@pytest.mark.parametrize("size", [(33, 31), (97, 64)])
@pytest.mark.parametrize("backbone", ["compact", "lite2", "tiny"])
def test_odd_sizes_are_cut_alike(name, backbones, backbone, size):
    images, layers = pictures(1, *size), all_layers(backbones[backbone])
    expected = OpenVinoEngine(backbones[backbone], layers, precision="f32", cache=None).run(images)
    assert_close(open_engine(backbones[backbone], layers, engine=name).run(images), expected)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, backbones):
    """Models fitted with OpenVINO in float32, by backbone."""
    folder = tmp_path_factory.mktemp("models")
    files = {}
    for backbone, graph in backbones.items():
        detector = PatchCore(backbone=graph, size=112, coreset=0.2, precision="f32", false_alarm_rate=0.2)
        files[backbone] = detector.fit([stripes(seed) for seed in range(10)]).save(folder / f"{backbone}.trecall")
    return files


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_of_one_engine_is_judged_alike_by_another(name, model_file, backbone):
    ours = PatchCore.load(model_file[backbone])
    other = load_detector(model_file[backbone], engine=name)
    judged = [*(stripes(seed) for seed in range(20, 26)), 255 - stripes(3)]
    for expected, got in zip(ours.predict_stream(judged), other.predict_stream(judged), strict=True):
        assert got.score == pytest.approx(expected.score, rel=1e-3)
        assert got.verdict == expected.verdict
        assert np.abs(got.anomaly_map - expected.anomaly_map).max() <= 1e-3 * expected.anomaly_map.max()
    assert expected.verdict == "defect"
    assert ours.predict(judged[0]).score == pytest.approx(other.predict(judged[0]).score, rel=1e-3)


def test_a_fit_by_another_engine_gives_the_same_model_and_leaves_no_trace_of_it(name, model_file, backbones, tmp_path):
    parts = [stripes(seed) for seed in range(10)]
    settings = {"size": 112, "coreset": 0.2, "precision": "f32", "false_alarm_rate": 0.2}
    detector = PatchCore(backbone=backbones["tiny"], engine=name, device="cpu", **settings).fit(parts)
    expected = PatchCore.load(model_file["tiny"])
    assert detector.threshold_ == pytest.approx(expected.threshold_, rel=1e-3)
    loaded = PatchCore.load(detector.save(tmp_path / "other.trecall"))
    assert (loaded.settings.engine, loaded.settings.device) == ("openvino", None)
    assert loaded.predict(parts[0]).score == pytest.approx(expected.predict(parts[0]).score, rel=1e-3)


@pytest.mark.parametrize("kind", [PaDiM, SPADE])
def test_the_other_methods_take_an_engine_too(name, kind, backbones, tmp_path):
    parts = [stripes(seed) for seed in range(8)]
    detector = kind(backbone=backbones["tiny"], size=64, precision="f32").fit(parts)
    other = load_detector(detector.save(tmp_path / "part.trecall"), engine=name, device="cpu")
    assert other.extractor.engine.__class__ is not detector.extractor.engine.__class__
    assert other.score(parts) == pytest.approx(detector.score(parts), rel=1e-3, abs=1e-6)


def test_bf16_of_torch_is_near_f32_and_not_the_same(backbones):
    pytest.importorskip("torch")
    try:
        rounded = open_engine(backbones["compact"], LAYERS[1:], engine="torch", precision="bf16")
    except SettingError:
        pytest.skip("needs a processor with native bf16")
    exact = open_engine(backbones["compact"], LAYERS[1:], engine="torch")
    assert (rounded.precision, exact.precision) == ("bf16", "f32")
    got, expected = rounded.run(pictures(1)), exact.run(pictures(1))
    assert_close(got, expected, relative=0.05)
    assert np.abs(got["layer2"] - expected["layer2"]).max() > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graphics_card_gives_what_the_processor_gives(engine, backbones):
    if not has_cuda(engine):
        pytest.skip("needs a graphics card with CUDA")
    for backbone in backbones.values():
        graph, images = at_size(backbone, 112), pictures(19, 112, 112)
        layers = all_layers(graph)
        expected = OpenVinoEngine(graph, layers, precision="f32", cache=None).run(images)
        assert_close(open_engine(graph, layers, engine=engine, device="cuda").run(images), expected)


# ---------------------------------------------------------------------- the protocol


def test_a_stream_keeps_order_and_tokens_whatever_the_sizes(engine):
    images = [pictures(1, *size, seed)[0] for seed, size in enumerate([(64, 48), (64, 48), (48, 64), (32, 32)] * 4)]
    streamed = list(engine.stream((f"part {at}", image) for at, image in enumerate(images)))
    assert [token for token, _ in streamed] == [f"part {at}" for at in range(len(images))]
    assert_close(engine.run(np.stack(images[:2])), joined([maps for _, maps in streamed[:2]]), relative=1e-5)
    for at, ((_, maps), image) in enumerate(zip(streamed, images, strict=True)):
        assert_close(maps, engine.run(image[np.newaxis]), relative=1e-5)
        assert (image == pictures(1, *image.shape[:2], at)[0]).all()


def joined(singles):
    return {layer: np.concatenate([maps[layer] for maps in singles]) for layer in singles[0]}


def test_results_are_not_overwritten_by_later_pictures(engine):
    images = pictures(12)
    results = [engine.run(images[:1]), engine.run(images[1:2]), *(maps for _, maps in engine.stream(enumerate(images)))]
    copied = copy.deepcopy(results)
    engine.run(images[2:3])
    list(engine.stream(enumerate(images[::-1])))
    for maps, before in zip(results, copied, strict=True):
        assert_close(maps, before, relative=0)


def test_batches_of_a_graphics_card_come_apart_in_order(name, tiny_backbone, monkeypatch):
    # what a card computes at a time, computed by the processor here
    engine = open_engine(tiny_backbone, LAYERS, engine=name)
    batched = copy.copy(engine)
    monkeypatch.setattr("totalrecall.engines.batched.BATCH", 4)
    monkeypatch.setattr(batched, "_device", "cuda")
    seen, compute = [], engine._compute
    monkeypatch.setattr(
        batched, "_compute", lambda images, alone: seen.append(len(images)) or compute(images, alone=alone)
    )
    images = [*pictures(6), *pictures(3, 48, 64)]
    for (at, maps), image in zip(batched.stream(enumerate(images)), images, strict=True):
        assert_close(maps, engine.run(image[np.newaxis]), relative=1e-5)
        assert (images[at] == image).all()
    assert sorted(seen) == [2, 3, 4]


def test_a_stream_draws_only_a_few_pictures_ahead_and_may_be_closed(engine):
    drawn = itertools.count()
    image = pictures(1)[0]
    stream = engine.stream((next(drawn), image) for _ in itertools.repeat(None))  # endless
    for _ in range(3):
        token, _ = next(stream)
    ahead = next(drawn) - token
    stream.close()
    assert ahead <= 2 * (os.cpu_count() or 1) + 4
    assert list(engine.stream([])) == []


def test_pictures_that_are_read_only_or_views_are_read_right(engine):
    wide = pictures(1, 64, 96)
    expected = engine.run(wide[:, :, ::2].copy())
    assert_close(engine.run(wide[:, :, ::2]), expected, relative=1e-6)
    wide.setflags(write=False)
    assert_close(engine.run(wide[:, :, ::2]), expected, relative=1e-6)
    for image in (wide[0], wide[0, ::-1]):
        ((_, maps),) = engine.stream([(0, image)])
        assert_close(maps, engine.run(image[np.newaxis].copy()), relative=1e-5)


def test_an_error_in_the_source_comes_out_and_the_engine_still_works(engine):
    def failing():
        yield 0, pictures(1)[0]
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera is gone"):
        list(engine.stream(failing()))
    assert len(list(engine.stream([(0, pictures(1)[0])]))) == 1


def test_threads_may_share_an_engine_and_its_results_stay(engine):
    images = pictures(8)
    expected = [engine.run(images[at : at + 1]) for at in range(8)]
    got = [None] * 8

    def work(at):
        got[at] = engine.run(images[at : at + 1])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(got, expected, strict=True):
        assert_close(one, other, relative=1e-6)


def test_one_thread_gives_the_same(each, engine, tiny_backbone):
    single = open_engine(tiny_backbone, LAYERS, engine=each, precision="f32", threads=1)
    assert_close(single.run(pictures(3)), engine.run(pictures(3)), relative=1e-5)


def test_layers_come_in_the_order_asked_for(each, tiny_backbone):
    engine = open_engine(tiny_backbone, LAYERS[::-1], engine=each)
    assert engine.layers == tuple(engine.run(pictures(1))) == LAYERS[::-1]


def test_an_engine_that_was_used_can_be_copied(engine):
    maps = engine.run(pictures(1))
    for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert_close(other.run(pictures(1)), maps, relative=1e-6)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros((1, 8, 8, 3), np.float32), r"float32 \(1, 8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.uint8), r"uint8 \(8, 8, 3\)"),
        (np.zeros((1, 3, 8, 8), np.uint8), r"uint8 \(1, 3, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"uint8 \(0, 8, 8, 3\)"),
        (np.zeros((1, 0, 8, 3), np.uint8), r"uint8 \(1, 0, 8, 3\)"),
    ],
)
def test_only_stacks_of_uint8_rgb_pictures_are_run(engine, images, got):
    said = "^An engine takes pictures as uint8 RGB"
    with pytest.raises(SettingError, match=rf"{said} \(n, height, width, 3\), got {got}\."):
        engine.run(images)
    with pytest.raises(SettingError, match=rf"{said} \(height, width, 3\), got uint8 \(8, 8\)\."):
        list(engine.stream([(0, pictures(1)[0]), (1, np.zeros((8, 8), np.uint8))]))


def test_a_damaged_graph_and_a_layer_that_is_not_in_it_are_named(each, tiny_backbone):
    facts = vars(tiny_backbone)
    half = type(tiny_backbone)(**{**facts, "graph": tiny_backbone.graph[: len(tiny_backbone.graph) // 2]})
    with pytest.raises(
        BackboneError, match=r"^Backbone tiny has a graph that Total Recall refuses to run: not a protobuf"
    ):
        open_engine(half, LAYERS, engine=each).run(pictures(1))
    grown = (*tiny_backbone.layers, type(tiny_backbone.layers[0])("layer4", 512, 32))
    with pytest.raises(BackboneError, match=r"^Backbone tiny lists layer4 but its graph has no such output\."):
        open_engine(type(tiny_backbone)(**{**facts, "layers": grown}), ("layer4",), engine=each).run(pictures(1))


def test_what_only_onnxruntime_refuses_is_told_in_one_error_and_not_by_its_own_log_too(capfd):
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node
    nodes = [
        node("Cast", ["images"], ["x"], to=1),
        node("Transpose", ["x"], ["c"], perm=[0, 3, 1, 2]),
        node("Conv", ["c", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1], kernel_shape=[5, 5]),  # it is of 3 x 3
        node("Transpose", ["y"], ["layer1"], perm=[0, 2, 3, 1]),
    ]
    kernel = onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    info = onnx.helper.make_tensor_value_info
    ends = [info("images", 2, ["n", "h", "w", 3])], [info("layer1", 1, ["n", "a", "b", 4])]
    graph = onnx.helper.make_graph(nodes, "lying", *ends, [kernel])
    data = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    data = data.SerializeToString()
    texts = dict.fromkeys(("source", "licence", "preprocessing", "architecture"), "")
    layers = [{"name": "layer1", "channels": 4, "stride": 2}]
    facts = {"name": "lying", "sha256": hashlib.sha256(data).hexdigest(), "layers": layers, **texts}
    lying = open_engine(Backbone.from_header(facts, data), ("layer1",), engine="onnxruntime")
    with pytest.raises(BackboneError, match=r"^Backbone lying cannot be run by ONNX Runtime \(.*kernel_shape"):
        lying.run(pictures(1))
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------------- the graph without what is not needed


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_cut_graph_is_smaller_sound_and_gives_the_same(backbones, backbone):
    graph = at_size(backbones[backbone], 112)
    first = graph.layers[0].name
    cut = cut_graph(graph.graph, [first])
    check_graph(cut, "The cut graph")
    assert len(cut) < len(graph.graph)
    whole, part = read_graph(graph.graph, all_layers(graph)), read_graph(graph.graph, [first])
    assert len(part.nodes) < len(whole.nodes)
    assert part.weights.keys() < whole.weights.keys()
    again = read_graph(cut, [first])
    assert again.nodes == part.nodes
    expected = OpenVinoEngine(graph, (first,), precision="f32", cache=None).run(pictures(1, 112, 112))
    facts = {**vars(graph), "graph": cut, "layers": graph.layers[:1]}
    assert_close(
        OpenVinoEngine(type(graph)(**facts), (first,), precision="f32", cache=None).run(pictures(1, 112, 112)),
        expected,
        relative=0,
    )


def test_the_reader_reads_what_the_onnx_package_reads(backbones):
    onnx = pytest.importorskip("onnx")
    for backbone in backbones.values():
        model = onnx.load_from_string(backbone.graph)
        ours = read_graph(backbone.graph, all_layers(backbone))
        needed = {node.output for node in ours.nodes}  # nothing takes what the last block makes of the class token
        nodes = [node for node in model.graph.node if node.output[0] in needed]
        assert [node.kind for node in ours.nodes] == [node.op_type for node in nodes]
        assert ours.opset == model.opset_import[0].version
        for node, theirs in zip(ours.nodes, nodes, strict=True):
            said = {one.name: onnx.helper.get_attribute_value(one) for one in theirs.attribute}
            said = {key: value.decode() if isinstance(value, bytes) else value for key, value in said.items()}
            assert {
                key: list(value) if isinstance(value, tuple) else value for key, value in node.attributes.items()
            } == said
        theirs = {one.name: one for one in model.graph.initializer}
        assert ours.weights.keys() <= theirs.keys()
        for one in (theirs[name] for name in ours.weights):
            assert np.array_equal(ours.weights[one.name], onnx.numpy_helper.to_array(one))


# ---------------------------------------------------------------------- forks

SCRIPT = """
import os, sys
import numpy as np
from totalrecall.backbones import Backbone, load
from totalrecall.engines import open_engine
from totalrecall.errors import SettingError

engine = open_engine(load("compact"), ("layer2", "layer3"), engine=sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
before = engine.run(images[:1])["layer3"]
stream = engine.stream(enumerate(images))
next(stream)
child = os.fork()
if child == 0:
    outcome = 1
    try:
        same = np.allclose(engine.run(images[:1])["layer3"], before, rtol=1e-4, atol=1e-5)
        many = len(list(engine.stream(enumerate(images))))
        try:
            list(stream)
        except SettingError as error:
            told = "cannot be continued in a forked child" in str(error)
        outcome = 0 if same and many == 4 and told else 2
    finally:
        os._exit(outcome)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert [at for at, _ in stream] == [1, 2, 3]
assert np.allclose(engine.run(images[:1])["layer3"], before)
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_computes_anew_and_the_parent_goes_on(each):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, each], capture_output=True, text=True, env=environment, timeout=300
    )
    assert (done.returncode, done.stdout.strip()) == (0, "fine"), done.stderr


# ---------------------------------------------------------------------- what cannot be had


@pytest.mark.parametrize("name", ENGINES)
def test_what_to_install_is_said(name, tiny_backbone, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError) as caught:
        open_engine(tiny_backbone, LAYERS, engine=name)
    message = str(caught.value)
    assert message.startswith(f"Engine {name} needs the package {name}, which cannot be imported (")
    assert message.endswith(f'Run: pip install "totalrecall[{name}]"')


def test_a_device_that_is_not_there_is_named_with_those_that_are(name, tiny_backbone):
    with pytest.raises(SettingError) as caught:
        open_engine(tiny_backbone, LAYERS, engine=name, device="cuda:77")
    assert str(caught.value).startswith("device must be one of ")
    assert f" for engine {name} on this machine, got cuda:77. Install " in str(caught.value)
    assert "cpu" in str(caught.value)
    assert "azure" not in str(caught.value)  # ONNX Runtime offers it, and would send pictures abroad


def test_a_number_format_that_is_not_offered_is_named(tiny_backbone):
    pytest.importorskip("onnxruntime")
    with pytest.raises(SettingError) as caught:
        open_engine(tiny_backbone, LAYERS, engine="onnxruntime", precision="bf16")
    assert str(caught.value) == (
        "precision must be one of auto, f32 for engine onnxruntime on device cpu, got bf16. Use precision auto."
    )


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_device_that_does_not_start_is_an_error_and_not_the_processor(tiny_backbone, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    if has_cuda("onnxruntime"):
        pytest.skip("here it starts")
    built = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built)
    engine = open_engine(tiny_backbone, LAYERS, engine="onnxruntime", device="cuda:1")
    with pytest.raises(SettingError) as caught:
        engine.run(pictures(1))
    assert str(caught.value) == (
        "device cuda:1 is in the package onnxruntime, but could not be started. "
        "Install its driver and libraries, or leave device out."
    )
    with pytest.raises(SettingError, match=r"^threads is for the processor, got 2 for device cuda\. Leave it out\."):
        open_engine(tiny_backbone, LAYERS, engine="onnxruntime", device="cuda", threads=2)


def test_a_wrong_name_is_a_wrong_setting_and_no_damage(model_file):
    for load_model in (PatchCore.load, load_detector):
        with pytest.raises(SettingError, match=r"^engine must be one of openvino, onnxruntime, torch, got 'caffe'\."):
            load_model(model_file["tiny"], engine="caffe")
        with pytest.raises(SettingError, match=r"^device must be a name such as"):
            load_model(model_file["tiny"], device="")
    with pytest.raises(SettingError, match=r"^engine must be one of"):
        PatchCore(engine="caffe")


# ---------------------------------------------------------------------- the command line


@pytest.fixture
def part(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "part.png"), stripes(30)[:, :, ::-1])
    return str(tmp_path / "part.png")


def score_of(capsys, *arguments):
    assert main(["predict", *arguments, "--csv", "-"]) == 0
    header, row = capsys.readouterr().out.splitlines()[:2]
    return dict(zip(header.split(","), row.split(","), strict=True))


def test_predict_and_update_take_engine_and_device(name, model_file, part, tmp_path, capsys):
    model = tmp_path / "part.trecall"
    model.write_bytes(model_file["tiny"].read_bytes())
    expected = score_of(capsys, str(model), part)
    got = score_of(capsys, str(model), part, "--engine", name, "--device", "cpu")
    assert float(got["score"]) == pytest.approx(float(expected["score"]), rel=1e-3)
    assert got["is_anomalous"] == expected["is_anomalous"]
    assert main(["update", str(model), "--add", part, "--engine", name, "--quiet"]) == 0
    assert main(["predict", str(model), part, "--engine", name, "--device", "cuda:77"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("totalrecall: --device must be one of ")
    assert len(error.splitlines()) == 1


def test_an_engine_that_is_not_installed_is_one_line_and_code_2(model_file, part, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["predict", str(model_file["tiny"]), part, "--engine", "torch"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("totalrecall: Engine torch needs the package torch, which cannot be imported (")
    assert error.endswith('Run: pip install "totalrecall[torch]"\n')
    assert main(["predict", str(model_file["tiny"]), part, "--engine", "caffe"]) == 2
    assert capsys.readouterr().err.startswith("totalrecall: --engine must be one of openvino, onnxruntime, torch, got")


def test_no_engine_is_imported_unless_it_is_asked_for(model_file):
    check = (
        "import sys; from totalrecall import load_detector; import numpy as np; "
        f"load_detector({str(model_file['tiny'])!r}).predict(np.zeros((64, 64, 3), np.uint8)); "
        "print([name for name in ('torch', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- torch on another device


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_nothing_of_a_network_stays_behind_on_the_processor(backbones, backbone, precision):
    torch = pytest.importorskip("torch")
    from totalrecall.engines.torch import Network

    graph = at_size(backbones[backbone], 112)
    layers = all_layers(graph)
    # the device "meta" works out shapes alone; like a graphics card it refuses what lies on the processor
    with torch.inference_mode():
        network = Network(torch, read_graph(graph.graph, layers), layers, "meta", precision)
        maps = network(torch.zeros((2, 112, 112, 3), dtype=torch.uint8))
    expected = OpenVinoEngine(graph, layers, precision="f32", cache=None).run(pictures(2, 112, 112))
    assert {layer: tuple(features.shape) for layer, features in maps.items()} == {
        layer: features.shape for layer, features in expected.items()
    }
    assert {features.device.type for features in maps.values()} == {"meta"}
