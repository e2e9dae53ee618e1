"""Exported graphs on all test pictures of real sets, run by an environment that has no Total Recall.

    python -m benchmarks.exported --python ORT/bin/python --python OV/bin/python --models bottle=bottle.trecall ...

Each of the environments has numpy, opencv-python-headless and either onnxruntime or openvino; there a program of twenty
lines reads the files, runs the graph and prints scores. Beside them stand the scores of the model in float32, by the
stepwise road. A model scores by its own scoring on all pictures, and by the others on every fourth; for these the
threshold is the 95 % quantile of the good test pictures' scores, since a fit sets one for its own scoring alone. PaDiM
is measured by its own scoring.
Asserted: no score differs by more than the stated tolerance, and no verdict.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import open_real_set, record
from totalrecall import PaDiM, PatchCore, load_detector
from totalrecall.export.build import build_graph
from totalrecall.export.parity import TOLERANCE

EVERY = 4  # of the pictures, by scorings that are not the model's own
PROGRAM = """
import json, sys, time
import cv2
try:
    import onnxruntime
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    run, runtime = (lambda picture: session.run(["score", "is_anomalous", "map"], {"picture": picture})), "onnxruntime"
except ImportError:
    import openvino
    compiled = openvino.Core().compile_model(sys.argv[1], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    request, runtime = compiled.create_infer_request(), "openvino"
    def run(picture):
        request.infer([picture])
        return [request.get_tensor(name).data for name in ("score", "is_anomalous", "map")]
said = []
for path in json.load(sys.stdin):
    picture = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)[None]
    began = time.perf_counter()
    score, verdict, _ = run(picture)
    said.append((float(score[0]), int(verdict[0]), 1000 * (time.perf_counter() - began)))
print(json.dumps([runtime, said]))
"""


def main() -> None:
    """Print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", required=True, help="interpreter of a fresh environment")
    parser.add_argument("--scorings", nargs="+", default=_scorings(), help="the model's own is among all by default")
    parser.add_argument("--models", required=True, nargs="+", help="SET=MODEL")
    args = parser.parse_args()
    for text in args.models:
        name, _, path = text.partition("=")
        detector = load_detector(path, precision="f32")
        samples = open_real_set(name).test
        own = detector.settings.scoring
        if not isinstance(detector, PatchCore):
            measure(name, detector, samples, args.python, own=True)
            continue
        for scoring in args.scorings:
            detector.settings = replace(detector.settings, scoring=scoring)
            measure(name, detector, samples[:: 1 if scoring == own else EVERY], args.python, own=scoring == own)


def _scorings() -> Sequence[str]:
    return ("extent", "max", "paper", "top1pct", "map1pct")


def measure(name: str, detector: PatchCore | PaDiM, samples: Sequence, pythons: Sequence[str], *, own: bool) -> None:
    """Score the pictures by the model and by its graph in each environment, compare, and record."""
    paths = [str(sample.path) for sample in samples]
    reference = detector.score(paths)
    judge = detector
    if not own:
        good = reference[[sample.label == 0 for sample in samples]]
        judge = detector.judging(threshold=float(np.quantile(good, 0.95)))
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.onnx"
        graph.write_bytes(build_graph(judge, model="").SerializeToString())
        for python in pythons:
            command = [python, "-I", "-c", PROGRAM, str(graph)]
            done = subprocess.run(command, input=json.dumps(paths), capture_output=True, text=True, check=True)
            runtime, said = json.loads(done.stdout)
            scores, verdicts, milliseconds = np.array(said).T
            difference = float((np.abs(scores - reference) / np.abs(reference)).max())
            changed = int(np.count_nonzero((reference > judge.threshold_) != (verdicts == 1)))
            row: dict[str, object] = {
                "set": name,
                "backbone": detector.backbone.name,
                "scoring": ("padim " if detector.kind == "padim" else "") + detector.settings.scoring,
                "runtime": runtime,
                "pictures": len(paths),
                "largest_difference": difference,
                "verdicts_changed": changed,
                "milliseconds": float(np.median(milliseconds)),
                "graph_mb": graph.stat().st_size / 1e6,
            }
            record("exported", [row])
            assert difference <= TOLERANCE, row
            assert changed == 0, row


if __name__ == "__main__":
    main()
