"""What a backbone is: a frozen ONNX graph, and the facts about it that the other modules need.

The graph takes `images`, uint8 RGB (n, height, width, 3), prepares them itself, and gives one output per layer, float32
(n, h, w, c), named `layer1`, `layer2` and so on. The facts travel inside the ONNX file as the metadata `totalrecall`.
There a backbone also says how it is best used, its `Advice`; one that says nothing is used like a ResNet.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from totalrecall.backbones.graph_check import check_graph, fields
from totalrecall.errors import BackboneError, RoundedSizeWarning, SettingError
from totalrecall.system.files import sha256

__all__ = ["METADATA_KEY", "Advice", "Backbone", "Layer", "parse_facts", "read_metadata"]

METADATA_KEY = "totalrecall"
_FACTS = ("source", "licence", "preprocessing", "architecture")
_ADD = "totalrecall backbones add NAME --weights FILE"
_METADATA_PROPS = 14  # the field's number in ONNX's ModelProto


@dataclass(frozen=True)
class Layer:
    """One named output of a backbone; `stride` is in prepared pixels a cell of its grid."""

    name: str
    channels: int
    stride: int


@dataclass(frozen=True)
class Advice:
    """How a backbone is best used, where a person says nothing else; the defaults are those of ResNets.

    Attributes:
        layers: numbers of the layers whose features are joined.
        size: side of the prepared picture, in pixels.
        patch_size: side of the neighbourhood that is averaged.
        multiple: what the side of the prepared picture must be a multiple of: the patch of a vision transformer.
        fixed: whether no other size than `size` can be had.
    """

    layers: tuple[int, ...] = (2, 3)
    size: int = 256
    patch_size: int = 3
    multiple: int = 1
    fixed: bool = False

    @classmethod
    def parse(cls, said: object) -> "Advice":
        """Return what metadata or a header says; nothing is the default.

        Raises:
            ValueError: it is malformed.
        """
        values: dict[str, Any] = dict(said) if isinstance(said, Mapping) else {"": 0}
        if isinstance(values.get("layers"), (list, tuple)):
            values["layers"] = tuple(values["layers"])
        if not values.keys() <= asdict(cls()).keys():
            raise ValueError
        advice = cls(**values)
        numbers = (*advice.layers, advice.size, advice.patch_size, advice.multiple)
        if type(advice.fixed) is not bool or {type(one) for one in numbers} != {int}:
            raise ValueError
        sane = advice.layers and all(0 <= layer < 100 for layer in advice.layers) and 32 <= advice.size <= 4096
        if not sane or not 1 <= advice.multiple <= 64 or not 1 <= advice.patch_size < 100 or not advice.patch_size % 2:
            raise ValueError
        return advice

    def to_json(self) -> dict[str, object]:
        """Return what differs from the defaults."""
        default = asdict(Advice())
        return {name: value for name, value in asdict(self).items() if value != default[name]}


@dataclass(frozen=True)
class Backbone:
    """A serialized ONNX graph with its layers, origin, licence and SHA-256."""

    name: str
    graph: bytes = field(repr=False)
    layers: tuple[Layer, ...]
    source: str
    licence: str
    preprocessing: str
    architecture: str
    sha256: str
    advice: Advice = Advice()

    @classmethod
    def from_onnx(cls, data: bytes, origin: str = "The backbone") -> "Backbone":
        """Return the backbone described by the metadata inside a serialized ONNX graph.

        Args:
            data: the bytes of the ONNX file.
            origin: what to call it in an error, for example its path.

        Raises:
            BackboneError: the bytes are no ONNX file, or one that was not made for Total Recall.
        """
        return _build(read_metadata(data, origin), data, sha256(data), origin)

    @classmethod
    def from_header(cls, header: Mapping[str, object], graph: bytes, origin: str = "The backbone") -> "Backbone":
        """Return the backbone that `to_header` described; the graph must be the same to the bit.

        Raises:
            BackboneError: a fact is missing or malformed, or the graph has another SHA-256.
        """
        actual = sha256(graph)
        if header.get("sha256") != actual:
            raise BackboneError(
                f"{origin} is damaged: its graph has SHA-256 {actual[:12]}, expected {str(header.get('sha256'))[:12]}. "
                "Take the file again from where it came."
            )
        return _build(header, graph, actual, origin)

    def to_header(self) -> dict[str, object]:
        """Return all but the graph as a dictionary that JSON can hold."""
        layers = [{"name": layer.name, "channels": layer.channels, "stride": layer.stride} for layer in self.layers]
        facts = {fact: getattr(self, fact) for fact in _FACTS}
        advice = self.advice.to_json()
        return {"name": self.name, "layers": layers, **facts, "sha256": self.sha256} | (
            {"advice": advice} if advice else {}
        )

    def prepared_side(self, size: int | None, crop: int | None = None) -> int:
        """Return the side of the prepared picture, before a crop: the one asked for, or the backbone's own.

        Args:
            size: that was asked for, or None.
            crop: side of the middle square that is kept of it, or None.

        Raises:
            SettingError: the backbone cannot be given pictures of that size.

        Warns:
            RoundedSizeWarning: the size was rounded to a multiple of the patch.
        """
        side, multiple = self.advice.size if size is None else size, self.advice.multiple
        seen = side if crop is None else crop
        if self.advice.fixed and seen != self.advice.size:
            name = "size" if crop is None else "crop"
            raise SettingError(
                f"Backbone {self.name} was made for {self.advice.size} pixels, got {name} {seen}. Leave {name} out, or "
                "add the backbone again for another size.",
                name,
            )
        rounded = max(round(seen / multiple), 1) * multiple
        while rounded < 32:  # the smallest picture that there is
            rounded += multiple
        if rounded == seen:
            return side
        if crop is not None:
            raise SettingError(
                f"crop must be a multiple of {multiple} pixels for backbone {self.name}, got {crop}. Use {rounded}.",
                "crop",
            )
        warnings.warn(
            f"Pictures are prepared at {rounded} pixels instead of {seen}: backbone {self.name} takes multiples of "
            f"{multiple}.",
            RoundedSizeWarning,
            stacklevel=2,
        )
        return rounded


def read_metadata(data: bytes | memoryview, origin: str) -> dict[str, object]:
    """Return the metadata `totalrecall` of a serialized ONNX graph.

    It walks the outermost fields alone: parsing with the onnx package would cost 0.2 s to import at every start.

    Raises:
        BackboneError: the bytes are no ONNX file, or one that was not made for Total Recall.
    """
    found: str | None = None
    try:
        for number, _, value in fields(memoryview(data)):
            if number == _METADATA_PROPS and isinstance(value, memoryview):
                entry = {key: str(part, "utf-8") for key, _, part in fields(value) if isinstance(part, memoryview)}
                if entry.get(1) == METADATA_KEY:  # StringStringEntryProto: 1 is the key, 2 the value
                    found = entry.get(2, "")
        metadata = None if found is None else json.loads(found)
    except (ValueError, IndexError, RecursionError):
        raise BackboneError(f"{origin} is damaged or no ONNX file. Add it again: {_ADD}") from None
    if metadata is None:
        raise BackboneError(
            f"{origin} is an ONNX graph without the metadata {METADATA_KEY!r}, so its layers are unknown. "
            f"Build it from weights instead: {_ADD}"
        )
    if not isinstance(metadata, dict):
        raise BackboneError(f"{origin} has malformed metadata {METADATA_KEY!r}. Add it again: {_ADD}")
    return metadata


def parse_facts(header: Mapping[str, object], origin: str) -> tuple[tuple[Layer, ...], dict[str, str]]:
    """Return the layers, and name, source, licence, preprocessing and architecture, of metadata or a header.

    Raises:
        BackboneError: one of them is missing or malformed.
    """
    texts = {}
    for fact in ("name", *_FACTS):
        text = header.get(fact)
        if not isinstance(text, str):
            raise BackboneError(f"{origin} does not say its {fact}. Add it again: {_ADD}")
        texts[fact] = text
    listed = header.get("layers")
    layers = tuple(_layer(entry, origin) for entry in listed) if isinstance(listed, list) else ()
    if not layers or len({layer.name for layer in layers}) < len(layers):
        raise BackboneError(f"{origin} does not list its layers, each once. Add it again: {_ADD}")
    return layers, texts


def _build(header: Mapping[str, object], graph: bytes, digest: str, origin: str) -> Backbone:
    layers, texts = parse_facts(header, origin)
    try:
        advice = Advice.parse(header.get("advice", {}))
    except (TypeError, ValueError):
        raise BackboneError(f"{origin} has malformed advice on how it is used. Add it again: {_ADD}") from None
    check_graph(graph, origin)
    return Backbone(graph=graph, layers=layers, sha256=digest, advice=advice, **texts)


def _layer(entry: object, origin: str) -> Layer:
    values = entry if isinstance(entry, dict) else {}
    name, channels, stride = values.get("name"), values.get("channels"), values.get("stride")
    if not (isinstance(name, str) and type(channels) is int and type(stride) is int and min(channels, stride) > 0):
        raise BackboneError(f"{origin} describes a layer as {str(entry)[:80]}; a layer has name, channels and stride.")
    return Layer(name, channels, stride)
