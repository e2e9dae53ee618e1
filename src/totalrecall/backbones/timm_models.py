"""Build any network of the package timm as an ONNX graph. It needs the extra `[torch]`; running the graph does not.

The program that `torch.export` makes of the network is written by `exported` with the operators that are allowed. Layer
N is what timm calls the feature N: a stage of a convolutional network (0 is what comes before stage 1 of a ResNet), a
block of a transformer, of which the patch tokens after the final norm are given, each of the same length.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from totalrecall.backbones.exported import Program, UnknownOperationError
from totalrecall.backbones.graph import Graph, check_onnx
from totalrecall.backbones.spec import Advice, Backbone, Layer
from totalrecall.backbones.weights import read_weights
from totalrecall.errors import BackboneError, MissingExtraError, SettingError
from totalrecall.system.settings import between

__all__ = ["PREFIX", "build_timm"]

PREFIX = "timm:"
SIZE = between(32, 4096, "pixels", "Usual: 224 to 512.")
_COUNTER = "num_batches_tracked"  # of training alone
_CONVOLUTIONAL_SIDE, _TRANSFORMER_SIDE = 256, 448


def build_timm(
    model: str,
    weights: str | Path | None = None,
    *,
    name: str,
    size: int | None = None,
    form: str | None = None,
    source: str = "",
    licence: str = "",
) -> Backbone:
    """Return the backbone of a network of timm.

    Args:
        model: its name in timm, such as "convnext_tiny.fb_in1k".
        weights: safetensors file or torch checkpoint with timm's key names; what timm fetches or has if not given.
        name: what the backbone is called.
        size: side of the prepared picture, for a network that is built for one; 256 or 448 if not given.
        form: must be None: it is for ResNets from weights.
        source: where the weights come from; timm's repository or the file's name if not given.
        licence: of the weights; what timm says if not given.

    Raises:
        SettingError: timm has no such network, or the size or form is none.
        MissingExtraError: torch, timm or onnx is not installed.
        BackboneError: the weights cannot be had or do not fit, or the network cannot be written.
    """
    if form is not None:
        raise SettingError(f"form is for ResNets, got form {form!r} for timm's {model}. Leave it out.", "form")
    if size is not None:
        SIZE.check("size", size)
    check_onnx()
    torch, timm = _packages()
    network, side = _network(torch, timm, model, weights, size)
    facts = network.pretrained_cfg
    taps = _taps(torch, network)
    graph = Graph()
    mean, deviation = (255 * np.array(facts[part]).reshape(1, 3, 1, 1) for part in ("mean", "std"))
    graph.constant("mean", mean)
    graph.constant("deviation", deviation)
    x = graph.node("Div", [graph.node("Sub", [graph.pixels(), "mean"], "centred"), "deviation"], "normalised")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = torch.zeros(1, 3, side, side)
            shapes = [tuple(one.shape) for one in taps(picture)]
            # these two stay whole: taken apart they depend on the size, and on infinity
            table = torch.export.default_decompositions()
            for whole in (torch.ops.aten.linear.default, torch.ops.aten.scaled_dot_product_attention.default):
                table.pop(whole, None)
            program = Program(torch.export.export(taps, (picture,)).run_decompositions(table), graph, x)
            outputs = program.run()
    except UnknownOperationError as error:
        raise BackboneError(
            f"timm's {model} cannot be written: it has the operation {error}. Take another network."
        ) from None
    layers = _put_out(graph, outputs, shapes, side, tokens=taps.tokens)
    told = " ".join(map(str, facts["mean"])), " ".join(map(str, facts["std"]))
    advice = _advice(layers, side, tokens=taps.tokens, fixed=not program.any_size)
    described = {
        "name": name,
        "source": source or _source(facts, model, weights),
        "licence": licence or (str(facts.get("license") or "") if weights is None else "") or "not stated",
        "preprocessing": f"RGB, x/255, mean {told[0]}, std {told[1]}",
        "architecture": f"timm {timm.__version__} {model}",
        "advice": advice.to_json(),
    }
    return graph.backbone("timm", described, f"The backbone built from timm's {model}")


def _packages() -> tuple[Any, Any]:
    try:
        import timm
        import torch
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit torch
        raise MissingExtraError(
            f"Networks of timm need torch and timm, which cannot be imported ({str(error).splitlines()[0][:100]}). "
            'Run: pip install "totalrecall[torch]"'
        ) from None
    return torch, timm


def _network(torch: Any, timm: Any, model: str, weights: str | Path | None, size: int | None) -> tuple[Any, int]:
    """Return the network with its weights, and the side of the pictures that it is exported for."""
    if not timm.is_model(model.partition(".")[0]):
        near = ", ".join(timm.list_models(f"*{model.partition('.')[0][:8]}*")[:5])
        raise SettingError(f"timm has no network {model!r}." + (f" It has for example: {near}." if near else ""))
    read = None if weights is None else read_weights(weights)
    with torch.device("meta"):
        plan = timm.create_model(model, pretrained=False)
    options: dict[str, Any] = {}
    side = size or _CONVOLUTIONAL_SIDE
    if hasattr(plan, "patch_embed") and hasattr(plan, "blocks"):
        patch = int(plan.patch_embed.patch_size[0])
        side = max(round((size or _TRANSFORMER_SIDE) / patch), 1) * patch
        options["img_size"] = side
    try:
        network = timm.create_model(model, pretrained=read is None, **options)
        if read is not None:
            kept = {key: value for key, value in network.state_dict().items() if key.endswith(_COUNTER)}
            tensors = {
                key: torch.from_numpy(read.take(key, shape)).float()
                for key, shape in read.shapes.items()
                if not key.endswith(_COUNTER)
            }
            network.load_state_dict({**kept, **_fitting(tensors, network)}, strict=True)
    except BackboneError:
        raise
    except Exception as error:  # of the hub, of timm, of torch: they have nothing in common
        reason = " ".join(str(error).split())[:200]
        what = f"Weights {weights} do not fit" if weights else "No weights can be had for"
        raise BackboneError(f"{what} timm's {model}: {reason}. Name a file: --weights FILE") from None
    return network.eval(), side


def _fitting(tensors: dict[str, Any], network: Any) -> dict[str, Any]:
    """Return tensors with position embeddings resampled to the network's grid, by timm's own function."""
    position = tensors.get("pos_embed")
    wanted = getattr(network, "pos_embed", None)
    if position is not None and wanted is not None and position.shape != wanted.shape:
        from timm.layers import resample_abs_pos_embed

        prefix = int(position.shape[1] - round((position.shape[1] - network.num_prefix_tokens) ** 0.5) ** 2)
        grid = network.patch_embed.grid_size
        tensors["pos_embed"] = resample_abs_pos_embed(position, new_size=grid, num_prefix_tokens=prefix)
    return tensors


def _taps(torch: Any, network: Any) -> Any:
    """Return a module that gives all features of a network: maps (n, c, h, w), or tokens (n, t, c)."""

    class Taps(torch.nn.Module):  # type: ignore[misc]  # torch is not there when types are checked
        tokens = hasattr(network, "patch_embed") and hasattr(network, "blocks")

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, picture: Any) -> Any:
            options = {"norm": True, "output_fmt": "NLC"} if self.tokens else {}
            return self.network.forward_intermediates(picture, intermediates_only=True, **options)

    if not hasattr(network, "forward_intermediates"):
        raise BackboneError(f"timm gives no features of {type(network).__name__}. Take another network.")
    return Taps().eval()


def _put_out(
    graph: Graph, outputs: Sequence[str], shapes: Sequence[tuple[int, ...]], side: int, *, tokens: bool
) -> list[Layer]:
    """Declare the outputs (n, h, w, c) of features, and return the layers."""
    layers = []
    for number, (x, shape) in enumerate(zip(outputs, shapes, strict=True)):
        if not tokens:
            layers.append(Layer(f"layer{number}", shape[1], side // shape[2]))
            graph.planes_out(x, layers[-1])
            continue
        rows = round(shape[1] ** 0.5)
        layer = Layer(f"layer{number}", shape[2], side // rows)
        square = graph.node(
            "ReduceMean", [graph.node("Mul", [x, x], f"square{number}")], f"mean{number}", {"axes": [-1]}
        )
        x = graph.node("Div", [x, graph.node("Sqrt", [square], f"length{number}")], f"unit{number}")
        graph.constant(f"grid{number}", [1, rows, rows, shape[2]], np.int64)
        graph.node("Reshape", [x, f"grid{number}"], layer.name)  # (1, h*w, c) -> (1, h, w, c)
        graph.output(layer)
        layers.append(layer)
    return layers


def _advice(layers: Sequence[Layer], side: int, *, tokens: bool, fixed: bool) -> Advice:
    """Advise the last block of a transformer, of other networks the last layers at strides 8 and 16."""
    if tokens:
        return Advice((len(layers) - 1,), side, patch_size=1, fixed=True)
    last = {layer.stride: number for number, layer in enumerate(layers)}
    chosen = tuple(last[stride] for stride in (8, 16) if stride in last) or (len(layers) - 1,)
    return Advice(chosen, side, fixed=fixed)


def _source(facts: Any, model: str, weights: str | Path | None) -> str:
    return f"weights file {Path(weights).name}" if weights else f"timm, {facts.get('hf_hub_id') or model}"
