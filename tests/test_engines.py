"""An engine gives the same feature maps however the pictures come, computes no more than asked, and caches."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.engine_ready import assert_maps_close, pictures
from tests.resnet_forward import random_weights
from totalrecall.backbones.resnet import build_resnet
from totalrecall.engines import Engine, open_engine, openvino
from totalrecall.engines.openvino import CompiledCache, OpenVinoEngine
from totalrecall.errors import DataError, SettingError

LAYERS = ("layer1", "layer2")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A ResNet-18 up to layer3 with random weights."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(random_weights("resnet18"), path)
    return build_resnet("resnet18", path)


@pytest.fixture(scope="module")
def engine(backbone):
    return OpenVinoEngine(backbone, LAYERS, precision="f32", cache=None)


assert_close = partial(assert_maps_close, relative=1e-5)


def stacked(singles):
    return {layer: np.concatenate([maps[layer] for maps in singles]) for layer in singles[0]}


def test_a_run_gives_channels_last_maps_of_the_layers_asked_for(engine):
    maps = engine.run(pictures(2))
    assert {layer: features.shape for layer, features in maps.items()} == {
        "layer1": (2, 16, 12, 64),
        "layer2": (2, 8, 6, 128),
    }
    assert isinstance(engine, Engine)


def test_more_sizes_than_are_kept_compiled_still_work(engine):
    first = pictures(1, 32, 32)
    before = engine.run(first)
    for side in range(33, 39):
        engine.run(pictures(1, side, side))
    assert len(engine._compiled) == 4
    assert_close(engine.run(first), before, relative=0)


def test_the_source_may_reuse_its_buffer(engine):
    images, buffer = pictures(8), np.empty((64, 48, 3), np.uint8)

    def reusing():
        for i, image in enumerate(images):
            buffer[:] = image
            yield i, buffer

    assert_close(stacked([maps for _, maps in engine.stream(reusing())]), engine.run(images))


def operations(engine):
    ((model, *_),) = [(compiled.model,) for compiled in engine._compiled.values()]
    names = set()
    for operation in model.get_runtime_model().get_ops():
        names |= {operation.get_friendly_name(), *operation.get_rt_info()["originalLayersNames"].astype(str).split(",")}
    return names


def test_layers_deeper_than_those_asked_for_are_not_computed(backbone):
    engine = OpenVinoEngine(backbone, ("layer2",), precision="f32", cache=None)
    maps = engine.run(pictures(1))
    assert list(maps) == ["layer2"]
    names = operations(engine)
    assert any(name.startswith("layer2.1.conv2") for name in names)
    assert not any(name.startswith("layer3") for name in names)
    whole = OpenVinoEngine(backbone, ("layer3", "layer2"), precision="f32", cache=None)
    assert_close(maps, {"layer2": whole.run(pictures(1))["layer2"]})
    assert any(name.startswith("layer3") for name in operations(whole))  # the check above can fail


def test_one_picture_alone_compiles_one_graph(backbone):
    engine = OpenVinoEngine(backbone, LAYERS, cache=None)
    engine.run(pictures(1))
    assert [hint for _, _, hint in engine._compiled] == ["LATENCY"]


def test_auto_is_bf16_where_native_and_f32_elsewhere(backbone, monkeypatch):
    monkeypatch.setattr(openvino, "capabilities", lambda: ("FP32", "BF16"))
    assert OpenVinoEngine(backbone, LAYERS).precision == "bf16"
    assert OpenVinoEngine(backbone, LAYERS, precision="f32").precision == "f32"
    monkeypatch.setattr(openvino, "capabilities", lambda: ("FP32",))
    assert OpenVinoEngine(backbone, LAYERS).precision == "f32"
    with pytest.raises(
        SettingError,
        match=r"^precision bf16 needs a processor with bf16 arithmetic, which this one has not\. Use precision",
    ):
        OpenVinoEngine(backbone, LAYERS, precision="bf16")


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_precision_stated_is_the_one_computed_in(backbone, precision):
    if precision == "bf16" and "BF16" not in openvino.capabilities():
        pytest.skip("needs a processor with native bf16")
    engine = OpenVinoEngine(backbone, LAYERS, precision=precision, cache=None)
    engine.run(pictures(1))
    (compiled,) = engine._compiled.values()
    stated = compiled.model.get_property("INFERENCE_PRECISION_HINT").to_string()
    assert (engine.precision, stated) == (precision, precision)


def test_bf16_is_near_f32_and_not_the_same(backbone, engine):
    if "BF16" not in openvino.capabilities():
        pytest.skip("needs a processor with native bf16")
    rounded = OpenVinoEngine(backbone, LAYERS, precision="bf16", cache=None).run(pictures(1))
    exact = engine.run(pictures(1))
    assert_close(rounded, exact, relative=0.05)
    assert np.abs(rounded["layer2"] - exact["layer2"]).max() > 0


def test_threads_limit_what_openvino_uses(backbone):
    engine = OpenVinoEngine(backbone, LAYERS, threads=1, cache=None)
    engine.run(pictures(1))
    (compiled,) = engine._compiled.values()
    assert compiled.model.get_property("INFERENCE_NUM_THREADS") == 1


@pytest.fixture
def compilations(monkeypatch):
    """Count how often a graph is compiled rather than taken from the cache."""
    counted = []
    checked = openvino.checked_model

    def counting(*given):
        counted.append(given)
        return checked(*given)

    monkeypatch.setattr(openvino, "checked_model", counting)
    return counted


def test_the_second_start_takes_the_compiled_graph_from_the_cache(backbone, tmp_path, compilations):
    first = OpenVinoEngine(backbone, LAYERS, precision="f32", cache=tmp_path).run(pictures(1))
    again = OpenVinoEngine(backbone, LAYERS, precision="f32", cache=tmp_path)
    assert_close(again.run(pictures(1)), first)
    assert len(compilations) == 1
    assert not any(name.startswith("layer3") for name in operations(again))


def test_what_differs_is_compiled_for_itself(backbone, tmp_path, compilations):
    for layers, threads, size in [(LAYERS, None, 64), (("layer1",), None, 64), (LAYERS, 1, 64), (LAYERS, None, 32)]:
        OpenVinoEngine(backbone, layers, precision="f32", cache=tmp_path, threads=threads).run(pictures(1, size, size))
    assert len(compilations) == 4
    assert len(list(tmp_path.glob("*.compiled"))) == 4


@pytest.mark.parametrize("damage", [lambda _: b"", lambda data: data[:-1], lambda data: data[:99] + b"X" + data[100:]])
def test_a_damaged_cache_file_is_compiled_anew(backbone, tmp_path, compilations, damage):
    first = OpenVinoEngine(backbone, LAYERS, precision="f32", cache=tmp_path).run(pictures(1))
    (path,) = tmp_path.glob("*.compiled")
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert_close(OpenVinoEngine(backbone, LAYERS, precision="f32", cache=tmp_path).run(pictures(1)), first)
    assert len(compilations) == 2
    assert path.read_bytes() == whole or len(path.read_bytes()) > 1000  # it was written again


def test_a_whole_cache_file_that_openvino_refuses_is_compiled_anew(backbone, tmp_path, monkeypatch, compilations):
    monkeypatch.setattr(CompiledCache, "read", lambda _, __: b"from a version that nobody remembers" * 9)
    assert OpenVinoEngine(backbone, LAYERS, precision="f32", cache=tmp_path).run(pictures(1))
    assert len(compilations) == 1


def test_a_cache_that_cannot_be_written_is_no_error(backbone, tmp_path):
    (tmp_path / "a file").write_text("where the folder should be")
    assert OpenVinoEngine(backbone, LAYERS, cache=tmp_path / "a file").run(pictures(1))


def test_the_cache_drops_what_was_used_longest_ago(tmp_path, monkeypatch):
    monkeypatch.setattr("totalrecall.engines.openvino._LIMIT", 500)
    cache = CompiledCache(tmp_path)
    for age, key in [(300, "old"), (200, "older use"), (100, "new")]:
        cache.write((key,), b"x" * 100)
        newest = max(tmp_path.glob("*.compiled"), key=lambda path: path.stat().st_mtime)
        os.utime(newest, (1e9 - age, 1e9 - age))
    assert cache.read(("old",)) == b"x" * 100  # a use makes it the youngest
    cache.write(("newest",), b"x" * 250)
    assert [cache.read((key,)) is not None for key in ("old", "older use", "new", "newest")] == [
        True,
        False,
        False,
        True,
    ]


def test_the_cache_lies_in_the_per_user_folder(backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("TOTALRECALL_HOME", str(tmp_path))
    open_engine(backbone, LAYERS).run(pictures(1, 32, 32))
    assert len(list((tmp_path / "cache").glob("*.compiled"))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "caffe"}, "engine must be one of openvino, onnxruntime, torch, got 'caffe'."),
        (
            {"device": "the new card"},
            "device must be a name such as cpu, GPU or cuda:1, got 'the new card'. Leave it out to use the processor.",
        ),
        ({"precision": "int4"}, "precision must be one of auto, f32, bf16, got 'int4'."),
        ({"threads": 0}, "threads must be at least 1, got 0. Leave it out to use all cores."),
    ],
)
def test_settings_outside_what_is_allowed_are_named(backbone, options, message):
    with pytest.raises(SettingError) as caught:
        open_engine(backbone, LAYERS, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("layer2", "layer4"), "Backbone resnet18 has no layer4. Choose among layer1, layer2, layer3."),
        ((), "layers must be one or more different names, got (). Choose among layer1, layer2, layer3."),
        (
            ("layer1",) * 2,
            "layers must be one or more different names, got ('layer1', 'layer1'). Choose among layer1, ",
        ),
    ],
)
def test_layers_that_the_backbone_lacks_are_named(backbone, layers, message):
    with pytest.raises(SettingError) as caught:
        open_engine(backbone, layers)
    assert str(caught.value).startswith(message)


def test_openvino_is_imported_late_and_without_its_telemetry():
    check = (
        "import sys; from totalrecall import engines; print('openvino' in sys.modules); "
        "from totalrecall.engines.runtime import openvino_package; openvino_package(); "
        "print('openvino' in sys.modules, [name for name in sys.modules if name.startswith('openvino_telemetry')])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "True []"]
    assert done.stderr == ""


# ---------------------------------------------------------------------- whose cache it is

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a person's folder for that person")


@posix
def test_the_folder_of_the_cache_is_made_for_the_user_alone(tmp_path):
    CompiledCache(tmp_path / "new" / "cache").write(("key",), b"blob")
    assert (tmp_path / "new" / "cache").stat().st_mode & 0o777 == 0o700


@posix
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_folder_that_others_may_write_to_is_not_believed_and_is_emptied_at_the_next_write(tmp_path, mode):
    cache = CompiledCache(tmp_path / "cache")
    cache.write(("key",), b"blob")
    cache.write(("other",), b"blob")
    (tmp_path / "cache").chmod(mode)
    assert cache.read(("key",)) is None
    cache.write(("key",), b"mine")
    assert cache.read(("key",)) == b"mine"
    assert cache.read(("other",)) is None


@posix
def test_a_folder_or_an_entry_of_another_user_is_not_believed(tmp_path, monkeypatch):
    cache = CompiledCache(tmp_path / "cache")
    cache.write(("key",), b"blob")
    assert cache.read(("key",)) == b"blob"
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert cache.read(("key",)) is None
    cache.write(("other",), b"blob")
    assert len(list((tmp_path / "cache").iterdir())) == 1


@posix
@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_an_entry_that_is_no_file_of_its_own_is_not_read(tmp_path, what):
    cache = CompiledCache(tmp_path / "cache")
    cache.write(("key",), b"blob")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.rename(tmp_path / "elsewhere")
    {
        "link": lambda: entry.symlink_to(tmp_path / "elsewhere"),
        "pipe": lambda: os.mkfifo(entry),
        "folder": entry.mkdir,
    }[what]()
    assert cache.read(("key",)) is None


def test_an_entry_says_what_it_is_of_and_is_not_taken_for_another(tmp_path):
    cache = CompiledCache(tmp_path)
    cache.write(("graph a", "device"), b"blob of a")
    (first,) = tmp_path.iterdir()
    assert b'["graph a", "device"]\nblob of a' in first.read_bytes()
    data = first.read_bytes()
    first.unlink()
    cache.write(("graph b", "device"), b"blob of b")
    (second,) = tmp_path.iterdir()
    second.write_bytes(data)
    assert cache.read(("graph b", "device")) is None


def test_the_engines_entry_names_graph_device_and_versions(backbone, tmp_path):
    import totalrecall

    OpenVinoEngine(backbone, LAYERS, cache=tmp_path).run(pictures(1))
    (entry,) = tmp_path.iterdir()
    said = entry.read_bytes()[:3000].partition(b'["totalrecall')[2].partition(b"]\n")[0].decode()
    for part in (backbone.sha256, f" {totalrecall.__version__}", "64x48", *openvino.machine()[:2]):
        assert part in said


def test_every_bit_of_a_small_entry_counts(tmp_path):
    cache = CompiledCache(tmp_path)
    cache.write(("key",), b"blob")
    (entry,) = tmp_path.iterdir()
    data = entry.read_bytes()
    for at in range(len(data)):
        entry.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert cache.read(("key",)) is None
        entry.write_bytes(data[:at])
        assert cache.read(("key",)) is None


def test_a_user_without_a_home_has_no_cache_and_loses_nothing_else(backbone, monkeypatch):
    def nowhere():
        raise DataError("This user has no home folder.")

    monkeypatch.setattr(openvino, "home", nowhere)
    assert open_engine(backbone, LAYERS).run(pictures(1))


# ---------------------------------------------------------------------- devices


def test_a_device_that_is_not_there_is_named_with_those_that_are(backbone):
    with pytest.raises(SettingError) as caught:
        open_engine(backbone, LAYERS, device="npu.7")
    assert str(caught.value).startswith("device must be one of CPU, ")
    assert "AUTO for engine openvino on this machine, got npu.7. Install its driver" in str(caught.value)


def test_auto_computes_in_the_numbers_of_the_graph(backbone, engine):
    auto = open_engine(backbone, LAYERS, device="auto")
    assert auto.precision == "f32"
    assert_close(auto.run(pictures(2)), engine.run(pictures(2)))
    with pytest.raises(SettingError, match=r"^precision must be one of auto, f32 on device AUTO, got bf16\."):
        open_engine(backbone, LAYERS, device="AUTO", precision="bf16")
    with pytest.raises(SettingError, match=r"^threads is for the processor, got 2 for device AUTO\. Leave it out\."):
        open_engine(backbone, LAYERS, device="AUTO", threads=2)


class OtherDevices:
    """OpenVINO's core on a machine with a graphics card and an NPU."""

    def __init__(self, core):
        self._core = core
        self.available_devices = ["CPU", "GPU", "NPU"]
        self.compiled = []

    def get_property(self, device, name):
        offered = {"GPU": ["FP32", "FP16"], "NPU": ["FP16", "INT8"]}
        return offered[device] if device in offered else self._core.get_property(device, name)

    def read_model(self, graph):
        return self._core.read_model(graph)

    def compile_model(self, model, device, settings):
        self.compiled.append((device, settings.get("INFERENCE_PRECISION_HINT")))
        if device == "NPU":
            raise RuntimeError("the plugin says\nno such operation")
        return self._core.compile_model(model, "CPU", settings)


def test_other_devices_get_the_graph_and_a_number_format_that_they_have(backbone, engine, monkeypatch):
    there = OtherDevices(openvino.core())
    monkeypatch.setattr(openvino, "core", lambda: there)
    graphics = open_engine(backbone, LAYERS, device="gpu")
    assert graphics.precision == "f32"
    assert_close(graphics.run(pictures(1)), engine.run(pictures(1)))
    assert ("GPU", "f32") in there.compiled
    npu = open_engine(backbone, LAYERS, device="NPU")
    assert npu.precision == "f16"
    with pytest.raises(SettingError, match=r"^precision must be one of auto on device NPU, got f32\. Use "):
        open_engine(backbone, LAYERS, device="NPU", precision="f32")
    with pytest.raises(SettingError) as caught:
        npu.run(pictures(1))
    assert str(caught.value) == (
        "Backbone resnet18 cannot be run on 64x48 pictures, device NPU (no such operation). "
        "Leave device out: the processor can."
    )
    assert there.compiled[-1] == ("NPU", None)
