"""detectors.model_file: a model file is what the safetensors library would write, without its copies."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from totalrecall.detectors.model_file import FORMAT, is_protected, read_artifact, read_header, write_artifact
from totalrecall.errors import ModelFileError
from totalrecall.system.files import sha256

RNG = np.random.default_rng(0)
TENSORS = {
    "bank.vectors": RNG.standard_normal((7, 5), dtype=np.float32),
    "bank.origin": RNG.integers(0, 9, (7, 3)).astype(np.int32),
    "bank.basis": np.asfortranarray(RNG.standard_normal((5, 3), dtype=np.float32)),
    "calibration.scores": RNG.standard_normal(4),
    "calibration.peaks": np.empty(0),
    "backbone.graph": RNG.integers(0, 255, 13).astype(np.uint8),
}
KINDS = {"float64": "F64", "float32": "F32", "int32": "I32", "uint8": "U8"}
HEADER = {"kind": "patchcore", "pictures": [{"path": 'a "quoted"\\ ü 漢 \x07 name.png'}]}


@pytest.mark.parametrize("names", [list(TENSORS), list(TENSORS)[::-1], ["calibration.peaks"], ["backbone.graph"]])
def test_the_file_is_to_the_byte_what_the_library_writes(tmp_path, names):
    tensors = {name: TENSORS[name] for name in names}
    written = write_artifact(tmp_path / "m.trecall", HEADER, tensors).read_bytes()
    digests = {name: sha256(tensor.tobytes()) for name, tensor in tensors.items()}
    header = {"format": FORMAT, **HEADER, "tensors": digests}
    layout = {name: [KINDS[one.dtype.name], list(one.shape)] for name, one in tensors.items()}
    parts = (json.dumps(part, sort_keys=True).encode() for part in (header, layout))
    text = json.dumps({**header, "sha256": sha256(b"".join(parts))}, sort_keys=True)
    assert written == save({name: np.ascontiguousarray(one) for name, one in tensors.items()}, {"totalrecall": text})


def test_what_was_written_is_read(tmp_path):
    header, tensors = read_artifact(write_artifact(tmp_path / "m.trecall", HEADER, TENSORS))
    assert header["pictures"] == HEADER["pictures"]
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert np.array_equal(tensor, TENSORS[name])
        assert tensor.dtype == TENSORS[name].dtype
    assert read_header(tmp_path / "m.trecall") == header


def test_writing_makes_no_copy_of_the_tensors(tmp_path):
    vectors = np.zeros((10_000, 384), np.float32)
    tracemalloc.start()
    write_artifact(tmp_path / "m.trecall", HEADER, {"bank.vectors": vectors})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < vectors.nbytes / 10


def test_a_file_that_was_changed_is_refused(tmp_path):
    path = write_artifact(tmp_path / "m.trecall", HEADER, TENSORS)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"backbone\.graph is not what was written"):
        read_artifact(path)


@pytest.mark.slow
def test_every_bit_that_flips_is_found_wherever_it_is(tmp_path):
    """In the header, a threshold, a length or a name; in the tensors, any number; padding holds nothing."""
    path = write_artifact(tmp_path / "m.trecall", {**HEADER, "taught": {"threshold": 0.98}}, TENSORS)
    data = path.read_bytes()
    whole = read_artifact(path)
    refused = 0
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            header, tensors = read_artifact(path)
        except ModelFileError:
            refused += 1
        else:  # padding between header and tensors
            assert data[position : position + 1] == b" "
            assert header == whole[0]
            assert all(tensors[name].tobytes() == one.tobytes() for name, one in whole[1].items())
    assert refused > len(data) - 8


def head_only(path, text, size=0):
    """Write a safetensors header, and room for tensors that takes no disk."""
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    return path


def claim(shape, span):
    return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": span}}).encode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000, "no safetensors header"),
        (b'{"a":' * 100_000, "no safetensors header"),
        (b"[]", "it is no JSON object"),
        (b'{"a": NaN}', "NaN in its JSON"),
        (b'{"a": {}, "a": {}}', "a key of its JSON stands twice"),
        (claim([1 << 50], [0, 1 << 52]), "bytes of tensors, its header says"),
        (claim([1 << 40, 1 << 40], [0, 0]), "another length than its shape says"),
        (claim([-1], [0, 4]), "no shape or place"),
        (claim([1.0], [0, 4]), "no shape or place"),
        (claim([1] * 9, [0, 4]), "no shape or place"),
        (claim([1], [4, 8]), "do not lie one after the other"),
        (b'{"a": {"dtype": "F8", "shape": [], "data_offsets": [0, 1]}}', "of type 'F8'"),
        (b'{"a": 3}', "of type 'None'"),
    ],
)
def test_what_a_header_claims_is_checked_before_memory_is_taken(tmp_path, text, reason):
    path = head_only(tmp_path / "m.trecall", text)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match=reason) as caught:
        read_artifact(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60_000_000
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_a_header_longer_than_any_is_not_read(tmp_path):
    path = tmp_path / "m.trecall"
    with path.open("wb") as file:
        file.write((100 << 20).to_bytes(8, "little"))
        file.truncate(200 << 20)
    tracemalloc.start()
    with pytest.raises(ModelFileError, match="its length is not that of a header"):
        read_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_model_that_memory_does_not_hold_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = write_artifact(tmp_path / "m.trecall", HEADER, TENSORS)
    monkeypatch.setattr("totalrecall.detectors.model_file.available_memory", lambda: 100)
    with pytest.raises(ModelFileError, match="of memory are free"):
        read_artifact(path)
    assert read_header(path)["kind"] == "patchcore"


def test_a_pipe_and_a_folder_are_no_model_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(ModelFileError, match="is no file"):
            read_header(path)
    for name in ("a\0b", "n" * 5000):
        with pytest.raises(ModelFileError, match="cannot be read"):
            read_header(tmp_path / name)


def test_a_header_without_a_hash_is_read_as_one_of_before_and_only_with_what_they_held(tmp_path):
    path = write_artifact(tmp_path / "m.trecall", HEADER, TENSORS)
    header = read_header(path)
    assert is_protected(header)
    del header["sha256"]
    tensors = {name: np.ascontiguousarray(one) for name, one in TENSORS.items()}
    path.write_bytes(save(tensors, {"totalrecall": json.dumps(header)}))
    assert not is_protected(read_header(path))
    assert read_artifact(path)[0] == header
    path.write_bytes(save(tensors, {"totalrecall": json.dumps({**header, "sha257": "0"})}))
    with pytest.raises(ModelFileError, match="its header is not what was written"):
        read_header(path)


def test_what_is_checked_is_checked_before_a_tensor_is_read(tmp_path):
    path = write_artifact(tmp_path / "m.trecall", HEADER, TENSORS)
    seen = {}

    def check(header, layout):
        seen.update(layout)
        raise ValueError(f"{header['kind']} of another shape")

    with pytest.raises(ModelFileError, match=r"m\.trecall is damaged: patchcore of another shape\. Copy or fit"):
        read_artifact(path, check)
    assert seen["bank.vectors"] == (np.dtype("float32"), (7, 5))
