"""Write a trained student as ONNX: `python -m training.export DIR/checkpoint.pt -o FILE.onnx`.

The graph takes bytes (n, h, w, 3) RGB and gives float32 maps, `layer2` (n, h/8, w/8, 128) and `layer3`
(n, h/16, w/16, 256). Weights are stored as float16; a Cast in front of each convolution makes them float32 again, which
OpenVINO folds when it compiles.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import openvino
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from training.networks import MEAN, STD, Architecture, ConvRelu, Network, ResidualBlock, load_resnet18, normalise

METADATA = {
    "name": "compact",
    "layers": [{"name": "layer2", "channels": 128, "stride": 8}, {"name": "layer3", "channels": 256, "stride": 16}],
    # the text of the published file, whose hash it decides; the page is docs/reference/compact.md now
    "source": "torchvision's ResNet-18 (ImageNet1k V1), thinned by least squares and distilled; see docs/backbones.md",
    "licence": "derived from torchvision's ResNet-18 V1 weights (BSD-3-Clause); see docs/backbones.md",
    "preprocessing": "in the graph: RGB bytes / 255, mean 0.485 0.456 0.406, deviation 0.229 0.224 0.225",
    "architecture": "",
}


class Graph:
    """Collects nodes and float16 weights; each method returns the name of its output."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], name: str, attributes: dict | None = None) -> str:
        """One ONNX node with ONNX's own attributes."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **(attributes or {})))
        return name

    def constant(self, name: str, values: np.ndarray) -> str:
        """A float32 value from a float16 initialiser."""
        half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"{name} does not fit float16: its largest size is {np.abs(values).max():.3g}")
        self.weights.append(numpy_helper.from_array(half, f"{name}.half"))
        return self.node("Cast", [f"{name}.half"], name, {"to": TensorProto.FLOAT})

    def convolution(self, x: str, conv: nn.Conv2d, name: str) -> str:
        """A convolution with bias, no ReLU."""
        weight = self.constant(f"{name}.weight", conv.weight.detach().numpy())
        bias = self.constant(f"{name}.bias", conv.bias.detach().numpy())
        shape = {"kernel_shape": list(conv.kernel_size), "strides": list(conv.stride), "pads": [conv.padding[0]] * 4}
        return self.node("Conv", [x, weight, bias], name, shape)

    def module(self, x: str, module: nn.Module, name: str) -> str:
        """One part of a network."""
        if isinstance(module, nn.MaxPool2d):
            shape = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
            return self.node("MaxPool", [x], name, shape)
        if isinstance(module, ConvRelu):
            return self.node("Relu", [self.convolution(x, module.conv, f"{name}.conv")], f"{name}.relu")
        return self.block(x, module, name)

    def block(self, x: str, block: ResidualBlock, name: str) -> str:
        """A residual block."""
        inner = self.node("Relu", [self.convolution(x, block.conv1, f"{name}.conv1")], f"{name}.relu1")
        inner = self.convolution(inner, block.conv2, f"{name}.conv2")
        shortcut = x if block.downsample is None else self.convolution(x, block.downsample, f"{name}.downsample")
        return self.node("Relu", [self.node("Add", [inner, shortcut], f"{name}.add")], f"{name}.relu2")


def to_onnx(network: Network, metadata: dict) -> onnx.ModelProto:
    """The whole graph with its preprocessing."""
    graph = Graph()
    # float32 on purpose: as float16 the mean would be off by up to 0.03 grey levels.
    graph.weights += [
        numpy_helper.from_array(np.float32(MEAN) * 255, "mean"),
        numpy_helper.from_array(1 / (np.float32(STD) * 255), "scale"),
    ]
    x = graph.node("Cast", ["images"], "values", {"to": TensorProto.FLOAT})
    x = graph.node("Mul", [graph.node("Sub", [x, "mean"], "centred"), "scale"], "normalised")
    x = graph.node("Transpose", [x], "planes", {"perm": [0, 3, 1, 2]})  # (n, h, w, c) -> (n, c, h, w)
    outputs = []
    for stage in ("stem", "layer2", "layer3"):
        for index, module in enumerate(getattr(network, stage)):
            x = graph.module(x, module, f"{stage}.{index}")
        if stage != "stem":
            graph.node("Transpose", [x], stage, {"perm": [0, 2, 3, 1]})  # (n, c, h, w) -> (n, h, w, c)
            channels = getattr(network, stage)[-1].conv2.out_channels
            outputs.append(
                helper.make_tensor_value_info(stage, TensorProto.FLOAT, ["n", f"h_{stage}", f"w_{stage}", channels])
            )
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])
    whole = helper.make_graph(graph.nodes, metadata["name"], [images], outputs, graph.weights)
    model = helper.make_model(
        whole, opset_imports=[helper.make_opsetid("", 17)], ir_version=9, producer_name="totalrecall"
    )
    helper.set_model_props(model, {"totalrecall": json.dumps(metadata)})
    onnx.checker.check_model(model)
    return model


def describe(architecture: Architecture) -> str:
    """The layers in words, for the metadata."""
    return "; ".join(
        f"{stage}: {', '.join(map(repr, getattr(architecture, stage)))}" for stage in ("stem", "layer2", "layer3")
    )


def largest_error(model: onnx.ModelProto, network: Network, height: int, width: int, seed: int = 0) -> float:
    """The largest difference between OpenVINO (float32) and PyTorch, as a share of the map's largest value."""
    core = openvino.Core()
    graph = core.read_model(model.SerializeToString(), b"")
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    found = compiled(images)
    with torch.inference_mode():
        _, *expected = network(normalise(torch.from_numpy(images)))
    errors = []
    for name, value in zip(("layer2", "layer3"), expected, strict=True):
        wanted = value.permute(0, 2, 3, 1).numpy()  # (n, c, h, w) -> (n, h, w, c)
        errors.append(float(np.abs(found[name] - wanted).max() / np.abs(wanted).max()))
    return max(errors)


def write(network: Network, metadata: dict, path: Path) -> None:
    """Verify, then write under a temporary name and rename, so that a reader never sees half a file."""
    model = to_onnx(network, metadata)
    for height, width in ((256, 256), (320, 192), (200, 232)):
        error = largest_error(model, network, height, width)
        if error > 3e-3:  # float16 weights alone give about 1e-3
            raise RuntimeError(
                f"OpenVINO differs from PyTorch by {error:.2g} of the largest value at {height}x{width}; not written"
            )
        print(f"{height}x{width}: differs by {error:.2g} of the largest value")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(model.SerializeToString())
    temporary.replace(path)
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {parameters / 1e6:.2f} million parameters")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("checkpoint", type=Path, nargs="?")
    source.add_argument(
        "--resnet18", type=Path, help="export the teacher from this weights file instead, to compare speed"
    )
    parser.add_argument("--random", action="store_true", help="keep the architecture but draw the weights anew")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.resnet18:
        network, name = load_resnet18(arguments.resnet18), "resnet18"
    else:
        state = torch.load(arguments.checkpoint, weights_only=False)
        network, name = Network(state["architecture"], seed=0), "random" if arguments.random else "compact"
        if not arguments.random:
            network.load_state_dict(state["average"])
    metadata = METADATA | {"name": name, "architecture": describe(network.architecture)}
    if arguments.random:
        metadata |= {"source": "random weights, for comparison only", "licence": "none needed"}
    write(network.eval(), metadata, arguments.output)


if __name__ == "__main__":
    main()
