"""Each operator that a backbone's graph may hold gives by torch what ONNX Runtime gives."""

import numpy as np
import pytest

from totalrecall.backbones.graph_check import OPERATORS
from totalrecall.backbones.graph_reader import GraphNode

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 6, 11, 9)).astype(np.float32)
POSITIVE = np.abs(X) + np.float32(0.1)
TOKENS = X[0, 0]  # (11, 9)


def numbers(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


WINDOWS = [
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
    {"kernel_shape": [3, 2], "pads": [0, 1, 1, 0], "strides": [2, 1]},
    {"kernel_shape": [2, 2]},
    {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"kernel_shape": [4, 2], "auto_pad": "SAME_LOWER", "strides": [3, 2]},
    {"kernel_shape": [3, 3], "auto_pad": "VALID"},
    {"kernel_shape": [3, 3], "strides": [2, 3], "ceil_mode": 1},
]
CASES = [  # operator, inputs, attributes, version of the operators
    ("Cast", [X.astype(np.uint8)], {"to": 1}, 17),
    *(("Conv", [X, numbers(4, 6, *w["kernel_shape"]), numbers(4)], {k: v for k, v in w.items() if k != "ceil_mode"}, 17)
      for w in WINDOWS),
    ("Conv", [X, numbers(6, 1, 3, 3)], {"group": 6, "dilations": [2, 3], "pads": [2, 3, 2, 3]}, 17),
    ("Conv", [X, numbers(4, 3, 2, 2)], {"group": 2, "pads": [1, 0, 0, 1]}, 17),
    ("Conv", [X[0], numbers(4, 11, 3), numbers(4)], {"strides": [2]}, 17),
    *(("MaxPool", [X], w, 17) for w in WINDOWS),
    *(("AveragePool", [X], w, 17) for w in WINDOWS),
    *(("AveragePool", [X], {**w, "count_include_pad": 1}, 17) for w in WINDOWS[:4]),
    ("GlobalAveragePool", [X], {}, 17),
    ("BatchNormalization", [X, numbers(6), numbers(6), numbers(6), np.abs(numbers(6))], {"epsilon": 0.01}, 17),
    *((kind, [X, numbers(6, 1, 1)], {}, 17) for kind in ("Add", "Sub", "Mul")),
    ("Div", [X, POSITIVE], {}, 17),
    ("Pow", [POSITIVE, np.float32(1.5)], {}, 17),
    *((kind, [X], {}, 17)
      for kind in ("Relu", "Erf", "Exp", "Tanh", "Sigmoid", "Identity", "HardSwish", "HardSigmoid")),
    ("HardSigmoid", [X], {"alpha": 0.3, "beta": 0.4}, 17),
    ("Sqrt", [POSITIVE], {}, 17),
    *((kind, [X], said, 17) for kind in ("LeakyRelu", "Elu") for said in ({}, {"alpha": 0.3})),
    ("PRelu", [X, numbers(6, 1, 1)], {}, 17),
    *(("Gelu", [X], {"approximate": way}, 20) for way in ("none", "tanh")),
    ("Clip", [X, np.float32(-0.5), np.float32(0.7)], {}, 17),
    ("Clip", [X, None, np.float32(0.7)], {}, 17),
    ("Clip", [X, np.float32(0)], {}, 17),
    ("Clip", [X], {}, 17),
    *(("Softmax", [X], said, opset) for opset in (11, 17) for said in ({}, {"axis": 2}, {"axis": -1}, {"axis": 0})),
    ("MatMul", [X, numbers(9, 5)], {}, 17),
    ("MatMul", [X, np.ascontiguousarray(X.transpose(0, 1, 3, 2))], {}, 17),
    ("Gemm", [TOKENS, numbers(9, 4), numbers(4)], {}, 17),
    ("Gemm", [TOKENS, numbers(4, 11), numbers(9, 1)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}, 17),
    ("Gemm", [TOKENS, numbers(9, 4)], {"alpha": 0.5}, 17),
    *(("ReduceMean", [X], said, 13) for said in ({"axes": [2, 3], "keepdims": 0}, {"axes": [-1]}, {})),
    ("ReduceMean", [X, ints(1, -1)], {"keepdims": 1}, 18),
    ("LayerNormalization", [X, numbers(9), numbers(9)], {"epsilon": 0.01}, 17),
    ("LayerNormalization", [X, numbers(11, 9)], {"axis": -2}, 17),
    ("Concat", [X, POSITIVE], {"axis": 1}, 17),
    ("Concat", [X, POSITIVE, X], {"axis": -1}, 17),
    ("Reshape", [X, ints(0, -1, 33)], {}, 17),
    ("Reshape", [X, ints(-1)], {}, 17),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}, 17),
    ("Transpose", [X], {}, 17),
    *(("Flatten", [X], said, 17) for said in ({}, {"axis": 2}, {"axis": -1}, {"axis": 0})),
    ("Squeeze", [X[:1, :1]], {}, 17),
    ("Squeeze", [X[:1, :1], ints(-3)], {}, 17),
    ("Squeeze", [X[:1]], {"axes": [0]}, 11),
    ("Unsqueeze", [X, ints(0, -1)], {}, 17),
    ("Unsqueeze", [TOKENS], {"axes": [0, 2]}, 11),
    ("QuantizeLinear", [X, np.float32(0.02), np.int8(3)], {}, 17),
    ("QuantizeLinear", [X, np.abs(numbers(6)) / 20, np.arange(6, dtype=np.uint8)], {}, 17),
    ("DequantizeLinear", [(20 * X).astype(np.int8), np.float32(0.02), np.int8(-3)], {}, 17),
    ("DequantizeLinear", [(20 * X).astype(np.int8), np.abs(numbers(9)), np.arange(9, dtype=np.int8)], {"axis": 3}, 17),
]  # fmt: skip


def by_onnxruntime(kind, inputs, attributes, opset):
    names = ["" if value is None else f"input{at}" for at, value in enumerate(inputs)]
    node = onnx.helper.make_node(kind, names, ["output"], **attributes)
    given = {name: np.asarray(value) for name, value in zip(names, inputs, strict=True) if name}
    described = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
    ]
    gives = onnx.TensorProto.FLOAT
    if kind == "QuantizeLinear":
        gives = onnx.helper.np_dtype_to_tensor_dtype(inputs[2].dtype)
    output = onnx.helper.make_tensor_value_info("output", gives, None)
    graph = onnx.helper.make_graph([node], "one", described, [output])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)[0]


@pytest.mark.parametrize("case", CASES, ids=[f"{at} {case[0]}" for at, case in enumerate(CASES)])
def test_an_operator_gives_what_onnx_runtime_gives(case):
    from totalrecall.engines.torch_operators import CALLS

    kind, inputs, attributes, opset = case
    expected = by_onnxruntime(*case)
    tensors = [None if value is None else torch.from_numpy(np.asarray(value)) for value in inputs]
    said = {key: tuple(value) if isinstance(value, list) else value for key, value in attributes.items()}
    node = GraphNode(kind, (), "output", {**said, "opset": opset})
    got = CALLS[kind](tensors, node.attributes).numpy()
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def test_every_operator_that_a_graph_may_hold_is_there_and_was_tried():
    from totalrecall.engines.torch_operators import CALLS

    assert CALLS.keys() == OPERATORS.keys() == {kind for kind, *_ in CASES}
