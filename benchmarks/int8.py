"""A backbone of 8 bits beside the same in more: what planted and real defects are found, image AUROC, milliseconds.

    python -m benchmarks.int8 --set bottle --backbone compact

Needs the extra [int8]. Fits without and with 8 bits, as `fit --precision int8` does, and in float32; `kept` says if
that command keeps them. Each test picture goes through all detectors in turn. On a machine with other work `--untimed`
leaves the milliseconds empty. Asserted: the backbone takes less time (where it is timed), and 8 bits that are kept find
at least two thirds of the real defects that the fit without them finds.
"""

import argparse
import time

import numpy as np

from benchmarks.common import REAL_SETS, SHARED, open_real_set, record
from totalrecall import PatchCore
from totalrecall.backbones import Backbone, load
from totalrecall.backbones.resnet import build_resnet
from totalrecall.evaluation.metrics import auroc
from totalrecall.pictures.loading import load_picture
from totalrecall.tuning import compare_int8

_FILES = {"resnet18": "resnet18_imagenet1k_v1.safetensors", "resnet50": "resnet50_imagenet1k_caffe.safetensors"}


def main() -> None:
    """Print and record a row for each number format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--set", choices=REAL_SETS, default="bottle")
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--untimed", action="store_true", help="leave the milliseconds empty")
    args = parser.parse_args()
    data = open_real_set(args.set)
    backbone = _backbone(args.backbone)
    detectors = {one: PatchCore(backbone=backbone, precision=one).fit(data.train) for one in ("f32", "auto")}
    detectors["int8"], compared = compare_int8(PatchCore(backbone=backbone), data.train)
    labels = np.array([sample.label for sample in data.test])
    scores, works = {one: [] for one in detectors}, {one: [] for one in detectors}
    for sample in data.test:
        for one, detector in detectors.items():
            worked = time.process_time()
            scores[one].append(detector.predict(sample.path).score)
            works[one].append(time.process_time() - worked)
    rows = []
    for one, detector in detectors.items():
        got = np.array(scores[one])
        rows.append(
            {
                "set": args.set,
                "backbone": args.backbone,
                "precision": one,
                "rest": detector.extractor.engine.precision,
                "planted": compared.planted,
                "planted_found": {"auto": compared.found_before, "int8": compared.found}.get(one, ""),
                "agreement": compared.agreement if one == "int8" else "",
                "image_auroc": auroc(labels, got),
                "found": int((got[labels == 1] > detector.threshold_).sum()),
                "defects": int(labels.sum()),
                "false_alarms": int((got[labels == 0] > detector.threshold_).sum()),
                "good": int((labels == 0).sum()),
                "backbone_milliseconds": "" if args.untimed else 1000 * _alone(detector, data.train[0]),
                "predict_milliseconds": "" if args.untimed else 1000 * float(np.median(works[one])),
                "graph_megabytes": len(detector.backbone.graph) / 1e6,
                "risen": compared.risen if one == "int8" else "",
                "kept": compared.kept if one == "int8" else "",
            }
        )
    assert args.untimed or rows[2]["backbone_milliseconds"] < rows[0]["backbone_milliseconds"]
    record("int8", rows)
    assert not compared.kept or 3 * rows[2]["found"] >= 2 * rows[1]["found"], rows


def _backbone(name: str) -> Backbone:
    if name in _FILES:
        return build_resnet(name, SHARED / "backbones" / _FILES[name])
    return load(name)


def _alone(detector: PatchCore, picture: object) -> float:
    """Return the processor's seconds for one picture by the backbone alone."""
    prepared = load_picture(picture, detector.recipe).prepared[np.newaxis]
    engine, seconds = detector.extractor.engine, []
    for _ in range(30):
        began = time.process_time()
        engine.run(prepared)
        seconds.append(time.process_time() - began)
    return float(np.median(seconds))


if __name__ == "__main__":
    main()
