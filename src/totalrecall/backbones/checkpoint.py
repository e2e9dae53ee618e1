"""Read the tensors of a torch checkpoint (`.pth`) without torch, and nothing else of it.

A `.pth` holds a pickle, a program that can call anything. This one is never run: `pickletools` splits it into its
instructions, and the small machine below knows only those that describe dictionaries of tensors. Any other instruction
or name is refused. Two formats are read: the zip of torch 1.6 and later, and the bare pickles before it.

Sizes are checked before memory is taken: the pickle has at most 32 MB, and a tensor's values are a view of the file,
or a copy where they lie in another order; all copies together are no larger than the file.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["is_checkpoint", "read_checkpoint"]

Raw: TypeAlias = tuple[str, bytes | bytearray | memoryview]

_ZIP, _LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"  # with torch's magic number
_PROTOCOL = 1001  # of the legacy format
_LONGEST_PICKLE = 32 << 20
_MOST_TENSORS = 100_000
_HOLDERS = ("state_dict", "model_state_dict", "model")  # keys under which training programs keep the tensors

# names of number formats as safetensors has them, and bytes of a number
_FORMATS = {
    "DoubleStorage": ("F64", 8),
    "FloatStorage": ("F32", 4),
    "HalfStorage": ("F16", 2),
    "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ShortStorage": ("I16", 2),
    "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}
_DICTIONARY = ("collections", "OrderedDict")
_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = ("torch._utils", "_rebuild_parameter")
_NAMES = {_DICTIONARY, _TENSOR, _PARAMETER, *(("torch", name) for name in _FORMATS)}


@dataclass(frozen=True)
class _Name:
    """What a pickle would import."""

    path: tuple[str, str]


@dataclass(frozen=True)
class _Storage:
    """Numbers in a file, of which tensors are views."""

    format: str
    width: int
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A tensor whose values lie in a storage from `first` on, `strides` numbers apart along each axis."""

    storage: _Storage
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def lies_in_order(self) -> bool:
        """Whether the values lie one after another, in the order of the axes."""
        expected = 1
        for side, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if side > 1 and stride != expected:
                return False
            expected *= side
        return True


def is_checkpoint(data: bytes) -> bool:
    """Return whether a file begins as torch's do."""
    return data.startswith((_ZIP, _LEGACY))


def read_checkpoint(data: bytes) -> tuple[dict[str, tuple[int, ...]], dict[str, Raw]]:
    """Return shapes, and number formats (named as in safetensors) with raw values, of the tensors of a checkpoint.

    Raises:
        ValueError: it is damaged, or holds anything but tensors; says what.
    """
    try:
        read = _read_zip if data.startswith(_ZIP) else _read_legacy
        top, storages = read(data)
        tensors = _tensors(top)
        if sum(one.storage.width * math.prod(one.shape) for one in tensors.values() if not one.lies_in_order) > len(
            data
        ):
            raise ValueError("its tensors are larger than the file")
        return {key: one.shape for key, one in tensors.items()}, {
            key: (one.storage.format, _values(one, storages)) for key, one in tensors.items()
        }
    except (zipfile.BadZipFile, EOFError, LookupError, TypeError, RuntimeError, OSError, OverflowError) as error:
        # RuntimeError: an encrypted zip, or a compression that Python lacks
        raise ValueError(" ".join(str(error).split())[:200] or "it is damaged") from None


def _read_zip(data: bytes) -> tuple[object, dict[str, memoryview]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(entries) != len(archive.infolist()):
            raise ValueError("it is a zip, but not of torch")
        folder = pickles[0].removesuffix("data.pkl")
        wanted = {name: entry for name, entry in entries.items() if name.startswith((pickles[0], f"{folder}data/"))}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in wanted.values()):
            raise ValueError("it is compressed, which torch does not do")
        if sum(entry.file_size for entry in wanted.values()) > len(data):
            raise ValueError("its parts are larger than the file")
        if entries[pickles[0]].file_size > _LONGEST_PICKLE:
            raise ValueError(f"its pickle is over {_LONGEST_PICKLE >> 20} MB")
        order = entries.get(f"{folder}byteorder")
        if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
            raise ValueError("its numbers are not stored with the lowest byte first")
        top = _Machine().run(io.BytesIO(archive.read(pickles[0])))
        storages = {
            name.removeprefix(f"{folder}data/"): memoryview(archive.read(entry))
            for name, entry in wanted.items()
            if name != pickles[0]
        }
    return top, storages


def _read_legacy(data: bytes) -> tuple[object, dict[str, memoryview]]:
    file = io.BytesIO(data[:_LONGEST_PICKLE])
    _, protocol, system, top, keys = (_Machine().run(file) for _ in range(5))
    if protocol != _PROTOCOL or not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("its numbers are not stored with the lowest byte first")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) < len(keys):
        raise ValueError("it does not list its parts")
    known = {one.storage.key: one.storage for one in _tensors(top).values()}
    storages: dict[str, memoryview] = {}
    position = file.tell()
    for key in keys:
        if key not in known:
            raise ValueError(f"it has a part {key[:40]!r} that no tensor is in")
        count, position = int.from_bytes(data[position : position + 8], "little"), position + 8
        end = position + count * known[key].width
        if count != known[key].count or end > len(data):
            raise ValueError("it ends early, or a part is not as long as said")
        storages[key], position = memoryview(data)[position:end], end
    return top, storages


def _tensors(top: object) -> dict[str, _Tensor]:
    """Return the tensors by name, of a dictionary of them or of one that holds such a dictionary."""
    held = top
    if isinstance(top, dict):
        held = next((top[name] for name in _HOLDERS if isinstance(top.get(name), dict)), top)
    if not isinstance(held, dict) or not held:
        raise ValueError("it holds no dictionary of tensors")
    for key, value in held.items():
        if not isinstance(key, str) or not isinstance(value, _Tensor):
            raise ValueError(f"its entry {str(key)[:80]!r} is no tensor")
    if len(held) > _MOST_TENSORS:
        raise ValueError(f"it has {len(held)} tensors, allowed are {_MOST_TENSORS}")
    return held


def _values(tensor: _Tensor, storages: Mapping[str, memoryview]) -> memoryview:
    """Return the bytes of a tensor's values in the order of its axes, once they lie inside its storage."""
    storage, width = tensor.storage, tensor.storage.width
    held = storages.get(storage.key)
    if held is None or len(held) != storage.count * width:
        raise ValueError(f"its part {storage.key[:40]!r} is missing, or not as long as said")
    count = math.prod(tensor.shape)
    last = tensor.first + sum((side - 1) * stride for side, stride in zip(tensor.shape, tensor.strides, strict=True))
    if count and (last >= storage.count or count > storage.count):
        raise ValueError("a tensor is larger than the part that it lies in")
    if not count or tensor.lies_in_order:
        return held[tensor.first * width : (tensor.first + count) * width]
    numbers = np.frombuffer(held, f"V{width}")[tensor.first :]
    strides = [stride * width for stride in tensor.strides]
    return memoryview(np.lib.stride_tricks.as_strided(numbers, tensor.shape, strides, writeable=False).tobytes())


# ---------------------------------------------------------------------- the pickle


class _Machine:
    """Reads one pickle that describes tensors; it imports and calls nothing."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._steps: dict[str, Callable[[Any], None]] = {
            "PROTO": lambda _: None,
            "FRAME": lambda _: None,
            "MARK": self._push_mark,
            "BINPUT": self._put,
            "LONG_BINPUT": self._put,
            "MEMOIZE": self._memoize,
            "BINGET": self._get,
            "LONG_BINGET": self._get,
            "TUPLE": self._tuple,
            "TUPLE1": lambda _: self._short_tuple(1),
            "TUPLE2": lambda _: self._short_tuple(2),
            "TUPLE3": lambda _: self._short_tuple(3),
            "APPEND": self._append,
            "APPENDS": self._appends,
            "SETITEM": self._set_item,
            "SETITEMS": self._set_items,
            "BUILD": self._build,
            "GLOBAL": self._global,
            "STACK_GLOBAL": self._stack_global,
            "BINPERSID": self._persistent,
            "REDUCE": self._reduce,
        }

    def run(self, file: io.BytesIO) -> object:
        """Return what the pickle at the file's position describes, and leave the position behind it.

        Raises:
            ValueError: it is damaged, or does anything else.
        """
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name in _CONSTANTS:
                self._stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _LITERALS:
                self._stack.append(argument)
            elif opcode.name in self._steps:
                self._steps[opcode.name](argument)
            else:
                raise ValueError(f"its pickle has the instruction {opcode.name}, which no tensor needs")
        raise ValueError("it ends early")

    def _push_mark(self, _: object) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Any]:
        mark = self._marks.pop()
        values = self._stack[mark:]
        del self._stack[mark:]
        return values

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: object) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _tuple(self, _: object) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _short_tuple(self, count: int) -> None:
        values = tuple(self._stack[-count:])
        if len(values) < count:
            raise ValueError("it is damaged")
        del self._stack[-count:]
        self._stack.append(values)

    def _append(self, _: object) -> None:
        value = self._stack.pop()
        self._list().append(value)

    def _appends(self, _: object) -> None:
        values = self._since_mark()
        self._list().extend(values)

    def _list(self) -> list[Any]:
        if not isinstance(self._stack[-1], list):
            raise ValueError("it appends to something that is no list")
        return self._stack[-1]

    def _set_item(self, _: object) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._dict()[key] = value

    def _set_items(self, _: object) -> None:
        values = self._since_mark()
        self._dict().update(zip(values[::2], values[1::2], strict=True))

    def _dict(self) -> dict[Any, Any]:
        if not isinstance(self._stack[-1], dict):
            raise ValueError("it puts entries into something that is no dictionary")
        return self._stack[-1]

    def _build(self, _: object) -> None:
        # a state_dict carries versions of the modules as an attribute; nothing of it is needed
        if not isinstance(self._stack.pop(), dict) or not isinstance(self._stack[-1], dict):
            raise ValueError("it sets the state of an object")

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._stack.append(_named(module, name))

    def _stack_global(self, _: object) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._stack.append(_named(module, name))

    def _persistent(self, _: object) -> None:
        self._stack.append(_storage(self._stack.pop()))

    def _reduce(self, _: object) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls something that is no function")
        if function.path == _DICTIONARY and not arguments:
            self._stack.append({})
        elif function.path == _TENSOR:
            self._stack.append(_tensor(arguments))
        elif function.path == _PARAMETER and arguments and isinstance(arguments[0], _Tensor):
            self._stack.append(arguments[0])
        else:
            raise ValueError(f"it calls {'.'.join(function.path)} in a way that no tensor needs")


_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
_LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}


def _named(module: object, name: object) -> _Name:
    if (module, name) not in _NAMES:
        raise ValueError(f"its pickle would call {str(module)[:60]}.{str(name)[:60]}, which is no tensor")
    return _Name((str(module), str(name)))


def _storage(value: object) -> _Storage:
    """Return the storage of a persistent id: ("storage", its class, key, device, numbers); None may follow."""
    if (
        not isinstance(value, tuple)
        or len(value) not in (5, 6)
        or value[0] != "storage"
        or value[5:] not in ((), (None,))
    ):
        raise ValueError("it refers to something outside that is no storage")
    kind, key, count = value[1], value[2], value[4]
    if not isinstance(kind, _Name) or kind.path[1] not in _FORMATS or not isinstance(key, str):
        raise ValueError("it has a storage of an unknown kind")
    if type(count) is not int or count < 0:
        raise ValueError("it has a storage without a size")
    return _Storage(*_FORMATS[kind.path[1]], key, count)


def _tensor(arguments: Sequence[object]) -> _Tensor:
    """Return the tensor of the arguments storage, first number, shape, strides, and what only training needs."""
    if len(arguments) not in (6, 7) or not isinstance(arguments[0], _Storage):
        raise ValueError("it has a tensor without values")
    storage = arguments[0]
    first, shape, strides = arguments[1:4]
    if type(first) is not int or first < 0 or not _are_sides(shape) or not _are_sides(strides):
        raise ValueError("it has a tensor of no shape")
    assert isinstance(shape, tuple)
    assert isinstance(strides, tuple)
    if len(shape) != len(strides):
        raise ValueError("it has a tensor of no shape")
    return _Tensor(storage, first, shape, strides)


def _are_sides(values: object) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) <= 8
        and all(type(one) is int and 0 <= one < 1 << 40 for one in values)
    )
