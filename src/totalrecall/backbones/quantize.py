"""A backbone whose convolutions compute in 8 bits: NNCF finds the scales on good pictures.

The graph stays an ONNX graph: numbers go through QuantizeLinear and DequantizeLinear, and whatever runs the graph may
compute what lies behind them in 8 bits. NNCF is needed here alone, not to run the graph.
"""

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from totalrecall.backbones.graph import check_onnx
from totalrecall.backbones.graph_reader import cut_graph
from totalrecall.backbones.spec import METADATA_KEY, Backbone
from totalrecall.errors import MissingExtraError, SettingError

__all__ = ["check_quantizable", "is_quantized", "quantize"]

_HALF = 10  # ONNX's number of float16


def is_quantized(backbone: Backbone) -> bool:
    """Tell whether a backbone's graph has 8 bits."""
    return b"DequantizeLinear" in backbone.graph


def check_quantizable(backbone: Backbone) -> None:
    """Find out that a backbone cannot have 8 bits before any work is done for it; raises as `quantize` does."""
    if backbone.advice.multiple > 1 or is_quantized(backbone):
        what = "has 8 bits already" if is_quantized(backbone) else "is a vision transformer"
        raise SettingError(
            f"precision int8 is for convolutional networks of more bits, and {backbone.name} {what}. "
            "Use precision auto, or another backbone.",
            "precision",
        )
    check_onnx("A backbone of 8 bits", "totalrecall[int8]")  # which brings nncf as well
    _nncf()


def quantize(backbone: Backbone, layers: Sequence[str], pictures: Sequence[npt.NDArray[np.uint8]]) -> Backbone:
    """Return a backbone of the same name and `_int8`, with some of its layers alone, in 8 bits.

    Args:
        backbone: of float32 or float16, convolutional.
        layers: names of the layers.
        pictures: prepared, each (height, width, 3): the scales are found on these.

    Raises:
        MissingExtraError: nncf or onnx is not installed.
        SettingError: the backbone is a vision transformer, or has 8 bits already.
    """
    check_quantizable(backbone)
    import onnx

    nncf = _nncf()
    model = _in_float32(onnx.load_from_string(cut_graph(backbone.graph, layers)))
    with _quietly():
        made = nncf.quantize(
            onnx.shape_inference.infer_shapes(model),
            nncf.Dataset([picture[np.newaxis] for picture in pictures], lambda batch: {"images": batch}),
            subset_size=len(pictures),
        )
    for weights in made.graph.initializer:  # as the check of graphs wants them
        weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights), weights.name))
    del made.graph.value_info[:]
    del made.metadata_props[:]
    described = backbone.to_header() | {
        "name": f"{backbone.name}_int8",
        "layers": [vars(layer) for layer in backbone.layers if layer.name in layers],
        "architecture": f"{backbone.architecture}; in 8 bits, its scales from {len(pictures)} good pictures",
    }
    del described["sha256"]
    made.metadata_props.add(key=METADATA_KEY, value=json.dumps(described))
    return Backbone.from_onnx(made.SerializeToString(), f"Backbone {backbone.name} in 8 bits")


def _in_float32(model: Any) -> Any:
    """Return the model with weights of float16 as float32, where NNCF finds them, without the nodes that did that."""
    from onnx import numpy_helper

    half = {one.name: one for one in model.graph.initializer if one.data_type == _HALF}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in half:
            values = numpy_helper.to_array(half[node.input[0]]).astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    kept = [one for one in model.graph.initializer if one.name not in half]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    return model


def _nncf() -> Any:
    # subtle: NNCF reports its use to a server abroad. A line PC must not phone home, so while it is imported its
    # telemetry counts as not installed, and it is told to keep quiet as in its makers' own tests
    name, told = "openvino_telemetry", "NNCF_CI"
    there, before = sys.modules.get(name), os.environ.get(told)
    sys.modules[name], os.environ[told] = None, "1"  # type: ignore[assignment]
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError(
            f"Precision int8 needs the package nncf, which cannot be imported ({error}). "
            'Run: pip install "totalrecall[int8]"'
        ) from None
    finally:
        del sys.modules[name]
        if there is not None:
            sys.modules[name] = there
        if before is None:
            del os.environ[told]
        else:
            os.environ[told] = before
    return nncf


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep NNCF's bars and notes off the terminal: they are not ours."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
