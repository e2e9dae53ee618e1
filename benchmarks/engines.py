"""All engines on the same models: scores beside OpenVINO's in float32, image AUROC, milliseconds a picture.

    python -m benchmarks.engines [--backbones compact resnet18] [--every 1]

A model is fitted on bottle with OpenVINO in float32 and loaded once for each engine that is installed. Each test
picture goes through all of them in turn, so that whatever else the machine does meets all alike. The answer that is
asserted: in float32 every engine gives OpenVINO's scores to 1e-3 and its verdicts.
"""

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import SHARED, open_real_set, record
from totalrecall import PatchCore
from totalrecall.backbones import load
from totalrecall.backbones.resnet import build_resnet
from totalrecall.datasets.base import Sample
from totalrecall.errors import SettingError
from totalrecall.evaluation.metrics import auroc
from totalrecall.registry import load_detector

WAYS = [
    ("openvino", "f32"),
    ("openvino", "bf16"),
    ("onnxruntime", "f32"),
    ("torch", "f32"),
    ("torch", "bf16"),
]
_FILES = {"resnet18": "resnet18_imagenet1k_v1.safetensors", "resnet50": "resnet50_imagenet1k_caffe.safetensors"}


def main() -> None:
    """Print and record a row for each backbone, engine and number format that there is here."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbones", nargs="+", default=["compact", "resnet18"])
    parser.add_argument("--every", type=int, default=1, help="take one of so many test pictures")
    parser.add_argument("--device", help="of onnxruntime and torch; the processor if not given")
    args = parser.parse_args()
    data = open_real_set("bottle")
    rows = []
    for name in args.backbones:
        backbone = build_resnet(name, SHARED / "backbones" / _FILES[name]) if name in _FILES else load(name)
        detector = PatchCore(backbone=backbone, precision="f32").fit(data.train)
        with tempfile.TemporaryDirectory() as folder:
            path = detector.save(Path(folder) / "bottle.trecall")
            rows += _rows(name, path, data.test[:: args.every], args.device)
    record("engines", rows)


def _rows(name: str, path: Path, samples: Sequence[Sample], device: str | None) -> list[dict]:
    judges = {}
    for engine, precision in WAYS:
        if importlib.util.find_spec(engine) is None:
            continue
        where = None if engine == "openvino" else device
        judge = load_detector(path, engine=engine, precision=precision, device=where)
        try:
            judge.predict(samples[0].path)
        except SettingError as error:
            print(f"left out: {error}")
            continue
        judges[engine, precision] = judge
    scores = {way: [] for way in judges}
    walls = {way: [] for way in judges}
    works = {way: [] for way in judges}
    for sample in samples:
        for way, judge in judges.items():
            began, worked = time.perf_counter(), time.process_time()
            scores[way].append(judge.predict(sample.path).score)
            walls[way].append(time.perf_counter() - began)
            works[way].append(time.process_time() - worked)
    labels = [sample.label for sample in samples]
    exact = np.array(scores["openvino", "f32"])
    threshold = judges["openvino", "f32"].threshold_
    rows = []
    for (engine, precision), given in scores.items():
        got = np.array(given)
        difference = float(np.abs(got / exact - 1).max())
        if precision == "f32":
            assert difference <= 1e-3, (engine, difference)
            assert ((got > threshold) == (exact > threshold)).all(), engine
        rows.append(
            {
                "backbone": name,
                "engine": engine,
                "precision": precision,
                "device": device or "cpu",
                "pictures": len(samples),
                "largest_difference": difference,
                "image_auroc": auroc(labels, got),
                "other_verdicts": int(((got > threshold) != (exact > threshold)).sum()),
                "milliseconds": 1000 * float(np.median(walls[engine, precision])),
                "processor_milliseconds": 1000 * float(np.median(works[engine, precision])),
            }
        )
    return rows


if __name__ == "__main__":
    main()
