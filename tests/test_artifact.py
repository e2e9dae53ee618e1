"""artifact: a model file is what the safetensors library would write, without its copies."""

import json
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import save

from totalrecall.artifact import FORMAT, read_artifact, read_header, write_artifact
from totalrecall.errors import ModelFileError
from totalrecall.files import sha256

RNG = np.random.default_rng(0)
TENSORS = {
    "bank.vectors": RNG.standard_normal((7, 5), dtype=np.float32),
    "bank.origin": RNG.integers(0, 9, (7, 3)).astype(np.int32),
    "bank.basis": np.asfortranarray(RNG.standard_normal((5, 3), dtype=np.float32)),
    "calibration.scores": RNG.standard_normal(4),
    "calibration.peaks": np.empty(0),
    "backbone.graph": RNG.integers(0, 255, 13).astype(np.uint8),
}
HEADER = {"kind": "patchcore", "pictures": [{"path": 'a "quoted"\\ ü 漢 \x07 name.png'}]}


@pytest.mark.parametrize("names", [list(TENSORS), list(TENSORS)[::-1], ["calibration.peaks"], ["backbone.graph"]])
def test_the_file_is_to_the_byte_what_the_library_writes(tmp_path, names):
    tensors = {name: TENSORS[name] for name in names}
    written = write_artifact(tmp_path / "m.trecall", HEADER, tensors).read_bytes()
    digests = {name: sha256(tensor.tobytes()) for name, tensor in tensors.items()}
    text = json.dumps({"format": FORMAT, **HEADER, "tensors": digests}, sort_keys=True)
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
