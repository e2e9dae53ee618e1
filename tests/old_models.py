"""Write the model files of tests/data, which the code of commit 3942f1e made: format 1 without a hash of its header.

    git worktree add /tmp/old 3942f1e
    cd /tmp/old && PYTHONPATH=src python THIS_REPOSITORY/tests/old_models.py THIS_REPOSITORY/tests/data

Each is tiny: a random network of two layers, pictures of 48 x 40 pixels that it makes itself. `old_models.json` holds
what they said then: scores, thresholds, and the same once the last step was undone.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

SIZE = 32
FACTS = {
    "name": "tiny",
    "layers": [{"name": "layer1", "channels": 4, "stride": 4}, {"name": "layer2", "channels": 6, "stride": 8}],
    "source": "random numbers",
    "licence": "none needed",
    "preprocessing": "x / 64",
    "architecture": "two convolutions",
}


def tiny_graph(seed=0):
    """Return an ONNX graph of two convolutions with random weights, a few hundred bytes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    shapes = {"k1": (4, 3, 4, 4), "k2": (6, 4, 2, 2)}
    constants = [numpy_helper.from_array(np.array([1 / 64], np.float32), "scale")]
    constants += [
        numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name) for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "k1"], ["c1"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Transpose", ["r1"], ["layer1"], perm=[0, 2, 3, 1]),
        helper.make_node("Conv", ["r1", "k2"], ["c2"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Transpose", ["r2"], ["layer2"], perm=[0, 2, 3, 1]),
    ]
    outputs = [
        helper.make_tensor_value_info(f"layer{at}", TensorProto.FLOAT, ["n", f"h{at}", f"w{at}", channels])
        for at, channels in ((1, 4), (2, 6))
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", "height", "width", 3])
    graph = helper.make_graph(nodes, "tiny", [images], outputs, constants)
    model = onnx.ModelProto(ir_version=8, graph=graph, opset_import=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, {"totalrecall": json.dumps(FACTS)})
    return model.SerializeToString()


def picture(seed, *, stain=False):
    """Return a picture, uint8 (48, 40, 3), with a stain if it is one to find."""
    rng = np.random.default_rng(seed)
    columns = 128 + 60 * np.sin(np.arange(40) / 4 + rng.uniform(0, 0.3))
    made = np.clip(columns[None, :, None] + rng.normal(0, 6, (48, 40, 3)), 0, 255).astype(np.uint8)
    if stain:
        made[20:34, 10:24] = (20, 20, 230)
    return made


def detectors():
    """Return name and detector, not fitted yet, of each kind."""
    from totalrecall import SPADE, PaDiM, PatchCore
    from totalrecall.backbones import Backbone

    backbone = Backbone.from_onnx(tiny_graph())
    same = {"backbone": backbone, "layers": (1, 2), "size": SIZE, "precision": "f32", "false_alarm_rate": 0.1}
    yield "patchcore", PatchCore(**same, coreset=0.2, at_least=1)
    yield "padim", PaDiM(**same)
    yield "spade", SPADE(**same, neighbours=3)


def told(detector):
    """Return what a detector says of a good picture and one with a stain."""
    scores = detector.score([picture(100), picture(100, stain=True)]).tolist()
    return {"scores": scores, "threshold": detector.threshold_, "pixel_threshold": detector.pixel_threshold_}


def main(folder):
    """Write the files."""
    import cv2

    said = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(14):
            cv2.imwrite(f"{scratch}/{seed:02}.png", picture(seed)[..., ::-1])
        files = sorted(map(str, Path(scratch).glob("*.png")))
        for name, detector in detectors():
            detector.fit(files[:12])
            detector.save(folder / f"old_{name}.trecall")
            said[name] = {"fitted": told(detector)}
            detector.update(add=files[12:14])
            detector.update(remove=files[13] if name == "padim" else files[2])
            said[name]["before"] = told(detector)
            detector.teach(files[:1], apply=True)  # as if it were a defect: it scores under the threshold
            detector.save(folder / f"old_{name}_changed.trecall")
            said[name] |= {"changed": told(detector), "steps": [step.what for step in detector.history_]}
    (folder / "old_models.json").write_text(json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
