"""checkpoint: tensors are read from a `.pth` without torch, and nothing in it is ever called."""

import contextlib
import io
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoint_bytes import checkpoint, legacy, number, state_dict, tensor, text, zipped
from tests.resnet_forward import random_weights
from totalrecall.backbones.checkpoint import read_checkpoint
from totalrecall.backbones.resnet import build_resnet
from totalrecall.backbones.weights import read_weights
from totalrecall.cli import main
from totalrecall.errors import BackboneError

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


def values(data):
    shapes, raw = read_checkpoint(data)
    formats = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8"}
    return {key: np.frombuffer(held, formats[kind]).reshape(shapes[key]) for key, (kind, held) in raw.items()}


def refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        read_checkpoint(data)


@pytest.mark.parametrize("write", [zipped, legacy])
def test_tensors_of_both_formats_are_read(write):
    tensors = {"a": MATRIX, "b": np.float16([1, 2]), "c": np.array([7]), "d": np.float64(3).reshape(())}
    read = values(checkpoint(tensors, write))
    assert list(read) == list(tensors)
    for name, array in tensors.items():
        assert np.array_equal(read[name], array)
        assert read[name].dtype == array.dtype


@pytest.mark.parametrize("write", [zipped, legacy])
def test_views_of_a_shared_storage_and_transposed_tensors_are_read(write):
    parts = [
        ("whole", tensor(MATRIX, "0")),
        ("row", tensor(MATRIX, "0", first=4, shape=(4,))),
        ("turned", tensor(MATRIX, "0", shape=(4, 3), strides=(1, 4))),
    ]
    read = values(write(state_dict(parts), {"0": MATRIX}))
    assert np.array_equal(read["row"], MATRIX[1])
    assert np.array_equal(read["turned"], MATRIX.T)


def test_the_tensors_inside_a_training_checkpoint_are_found():
    inner = state_dict([("a", tensor(MATRIX, "0"))])[2:-1]
    outer = b"\x80\x02}(" + text("epoch") + b"K\x05" + text("state_dict") + inner + b"u."
    assert np.array_equal(values(zipped(outer, {"0": MATRIX}))["a"], MATRIX)


def test_a_backbone_is_built_from_a_checkpoint_as_from_safetensors(tmp_path):
    from safetensors.numpy import save_file

    weights = random_weights("resnet18", stages=1, dtype=np.float32)
    (tmp_path / "weights.pth").write_bytes(checkpoint(weights))
    save_file(weights, tmp_path / "weights.safetensors")
    graphs = [build_resnet("resnet18", tmp_path / f"weights.{end}", source="s").graph for end in ("pth", "safetensors")]
    assert graphs[0] == graphs[1]


class Hostile:
    def __reduce__(self):
        return os.system, ("touch /tmp/totalrecall-was-here",)


def test_a_hostile_pickle_calls_nothing_and_is_exit_3_in_one_line(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    path.write_bytes(zipped(pickle.dumps({"a": Hostile()}), {}))
    assert main(["backbones", "add", "resnet18", "--weights", str(path)]) == 3
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "no torch checkpoint of tensors alone: its pickle " in message
    assert not os.path.exists("/tmp/totalrecall-was-here")  # noqa: PTH110


@pytest.mark.parametrize(
    "code",
    [
        b"cos\nsystem\n(" + text("true") + b"tR.",  # REDUCE of os.system
        b"(ios\nsystem\n.",  # INST
        b"cbuiltins\neval\n" + text("1") + b"\x85R.",
        b"ctorch\nload\n)R.",
        b"ccollections\nOrderedDict\n" + text("x") + b"\x85R.",  # OrderedDict of something
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        text("a") + b"Q.",  # a persistent id that is no storage
        b"ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"\x82\x01.",  # EXT1
        b"P0\n.",  # PERSID
    ],
)
def test_everything_else_that_a_pickle_can_do_is_refused(code):
    for pickled in (code, b"\x80\x02}" + text("a") + code[:-1] + b"s."):
        refused(zipped(pickled, {}), r"^(its pickle|it )")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"first": 1}, "larger than the part"),
        ({"shape": (3, 5)}, "larger than the part"),
        ({"strides": (0, 0), "shape": (100, 100)}, "larger than the file"),
        ({"strides": (5, 1)}, "larger than the part"),
        ({"strides": (1,)}, "no shape"),
        ({"shape": (-3, 4), "strides": (4, 1)}, "no shape"),
        ({"count": 13}, "not as long as said"),
        ({"count": -1}, "without a size"),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(change, reason):
    refused(zipped(state_dict([("a", tensor(MATRIX, "0", **change))]), {"0": MATRIX}), reason)


def test_a_stretched_tensor_takes_no_memory():
    large = tensor(MATRIX, "0", shape=(1 << 20, 1 << 19), strides=(0, 0))
    tracemalloc.start()
    refused(zipped(state_dict([("a", large)]), {"0": MATRIX}), "larger than the file")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_zip_of_something_else_is_refused():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(file.getvalue(), "a zip, but not of torch")
    parts = state_dict([("a", tensor(MATRIX, "0"))])
    refused(zipped(parts, {"0": MATRIX}, compression=zipfile.ZIP_DEFLATED), "compressed")
    refused(zipped(parts, {}), "is missing")
    refused(zipped(parts, {"0": MATRIX}, more=[("archive/byteorder", "big")]), "lowest byte first")
    refused(zipped(b"\x80\x02K\x01.", {}), "no dictionary of tensors")
    refused(zipped(b"\x80\x02}" + text("a") + number(1) + b"s.", {}), "its entry 'a' is no tensor")


def test_a_legacy_file_that_is_not_as_it_says_is_refused():
    whole = checkpoint({"a": MATRIX}, legacy)
    refused(whole[:-1], "ends early")
    refused(whole.replace(b"little_endian\x88", b"little_endian\x89"), "lowest byte first")
    refused(legacy(state_dict([("a", tensor(MATRIX, "0"))]), {"1": MATRIX}), "no tensor is in")


@settings(max_examples=4 * settings.default.max_examples)  # 400, and fewer among the quick tests
@given(
    st.sampled_from([zipped, legacy]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4), st.data()
)
def test_a_damaged_checkpoint_is_read_or_refused_and_never_anything_else(write, changes, data):
    parts = [("a", tensor(MATRIX, "0")), ("b", tensor(MATRIX, "0", shape=(4, 3), strides=(1, 4)))]
    whole = bytearray(write(state_dict(parts), {"0": MATRIX}))
    for place, byte in changes:
        whole[int(place * (len(whole) - 1))] = byte
    damaged = bytes(whole[: data.draw(st.integers(4, len(whole)))])
    if not damaged.startswith(b"PK\x03\x04") and not damaged.startswith(b"\x80\x02"):
        return
    with contextlib.suppress(ValueError):
        shapes, raw = read_checkpoint(damaged)
        assert shapes.keys() == raw.keys()
        assert sum(len(held) for _, held in raw.values()) <= 3 * len(damaged)


def test_a_pickle_of_nested_tuples_and_shared_parts_ends():
    doubled = b"\x80\x02)" + b"q\x00h\x00\x86" * 5000  # each pair holds the one before it twice
    refused(zipped(doubled + b".", {}), "no dictionary of tensors")


def test_the_message_of_the_weights_says_what_to_do(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(zipped(b"\x80\x02K\x01.", {}))
    with pytest.raises(BackboneError) as caught:
        read_weights(path)
    assert str(caught.value) == (
        f"Weights {path} are no torch checkpoint of tensors alone: it holds no dictionary of tensors. Take a file of "
        "weights from where they were published, or save it with safetensors.torch.save_file."
    )
