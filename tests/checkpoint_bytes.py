"""Torch checkpoints written by hand, instruction by instruction: torch is not installed where the tests run."""

import io
import struct
import zipfile

import numpy as np

LEGACY_HEAD = (
    b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # the magic number
    b"\x80\x02M\xe9\x03."  # protocol 1001
    b"\x80\x02}(X\x0d\x00\x00\x00little_endian\x88u."
)
KINDS = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<f8": "DoubleStorage", "<i8": "LongStorage"}


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(array, key, *, first=0, shape=None, strides=None, count=None):
    """Return the instructions that put a tensor on the stack; its values are the storage of that key."""
    shape = array.shape if shape is None else shape
    if strides is None:
        strides = [side // array.itemsize for side in np.empty(shape, array.dtype).strides]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + b"ctorch\n"
        + KINDS[array.dtype.str].encode()
        + b"\n"
        + text(key)
        + text("cpu")
        + number(array.size if count is None else count)
        + b"tQ"
        + number(first)
        + numbers(shape)
        + numbers(strides)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def state_dict(entries):
    """Return a pickle of a dictionary of names and what puts their values on the stack."""
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + b"".join(text(name) + put for name, put in entries) + b"u."


def zipped(pickle, storages, *, compression=zipfile.ZIP_STORED, more=()):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickle)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array if isinstance(array, bytes) else array.tobytes())
        for name, data in more:
            archive.writestr(name, data)
    return file.getvalue()


def legacy(pickle, storages):
    listed = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    return LEGACY_HEAD + pickle + listed + b"".join(struct.pack("<q", a.size) + a.tobytes() for a in storages.values())


def checkpoint(tensors, write=zipped):
    """Return a checkpoint of named arrays."""
    storages = {str(at): array for at, array in enumerate(tensors.values())}
    entries = [(name, tensor(array, str(at))) for at, (name, array) in enumerate(tensors.items())]
    return write(state_dict(entries), storages)
