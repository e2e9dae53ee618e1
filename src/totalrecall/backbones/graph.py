"""What the builders of ONNX graphs share: nodes, constants, outputs, and the file in the end."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.spec import METADATA_KEY, Backbone, Layer
from totalrecall.errors import MissingExtraError

__all__ = ["Graph", "check_onnx"]


def check_onnx(work: str = "Building a backbone", package: str = "onnx>=1.16") -> None:
    """Find out that no graph can be built before any work is done for it.

    Args:
        work: that needs onnx, as the subject of a sentence.
        package: what to install.

    Raises:
        MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise MissingExtraError(f'{work} needs onnx, which is not installed. Run: pip install "{package}"') from None


class Graph:
    """Nodes and constants of a graph in the making; each method returns the name of what it computes.

    Args:
        half: store matrices and kernels in float16, with a Cast behind each; half the size, about 3 digits.
    """

    def __init__(self, *, half: bool = False) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._outputs: list[Layer] = []
        self._half = half

    def node(self, kind: str, inputs: Sequence[str], output: str, attributes: Mapping[str, Any] | None = None) -> str:
        """Add a node with ONNX's own attributes."""
        from onnx import helper

        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **(attributes or {})))
        return output

    def constant(self, name: str, values: npt.ArrayLike, dtype: type = np.float32) -> str:
        """Add an array, by default in float32."""
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype), name))
        return name

    def weights(self, name: str, values: npt.NDArray[np.float64]) -> str:
        """Add an array of many numbers, in float16 if the graph was made for it."""
        if not self._half:
            return self.constant(name, values)
        return self.node("Cast", [self.constant(f"{name}_half", values, np.float16)], name, {"to": 1})  # 1 is FLOAT

    def pixels(self) -> str:
        """Add the conversion of the bytes to numbers, with channels first."""
        x = self.node("Transpose", ["images"], "planes", {"perm": [0, 3, 1, 2]})  # (n, h, w, 3) -> (n, 3, h, w)
        return self.node("Cast", [x], "numbers", {"to": 1})  # 1 is FLOAT

    def output(self, layer: Layer) -> None:
        """Declare a node of the layer's name as an output, (n, h, w, channels)."""
        self._outputs.append(layer)

    def planes_out(self, x: str, layer: Layer) -> None:
        """Put out a map whose channels stand first."""
        self.node("Transpose", [x], layer.name, {"perm": [0, 2, 3, 1]})  # (n, c, h, w) -> (n, h, w, c)
        self.output(layer)

    def backbone(self, title: str, facts: Mapping[str, object], origin: str) -> Backbone:
        """Return the finished backbone.

        Args:
            title: of the graph.
            facts: name, source, licence, preprocessing, architecture, and what else the metadata says.
            origin: what to call it in an error.
        """
        from onnx import TensorProto, helper

        outputs = []
        for layer in self._outputs:
            number = layer.name.removeprefix("layer")
            axes = ["n", f"height{number}", f"width{number}", layer.channels]
            outputs.append(helper.make_tensor_value_info(layer.name, TensorProto.FLOAT, axes))
        images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])
        body = helper.make_graph(self.nodes, title, [images], outputs, self.constants)
        # version 8 of the file format and opset 17 are of 2022: everything since reads them
        model = helper.make_model(
            body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="totalrecall"
        )
        layers = [{"name": one.name, "channels": one.channels, "stride": one.stride} for one in self._outputs]
        described = {"name": facts["name"], "layers": layers, **facts}
        model.metadata_props.add(key=METADATA_KEY, value=json.dumps(described))
        return Backbone.from_onnx(model.SerializeToString(), origin)
