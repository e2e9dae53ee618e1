"""One measurement of Total Recall's, as a JSON line; `__main__.py` starts it with our interpreter."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import seconds_of
from benchmarks.peers.measure import median_ms, peak_mb, rate, tell
from benchmarks.peers.plan import Plan, read_plan
from totalrecall import PatchCore
from totalrecall.datasets import Sample
from totalrecall.evaluation.evaluate import evaluate
from totalrecall.pictures.loading import read_image

SIZE, SEED = 256, 42


def fit(args: argparse.Namespace, plan: Plan) -> None:
    """Fit and save; a threshold is calibrated too, which anomalib's fit here does not do."""
    detector = PatchCore(
        backbone=args.backbone, coreset=args.ratio, size=SIZE, seed=SEED, projection=args.projection or None
    )
    paths = plan.train_paths()
    seconds = seconds_of(lambda: detector.fit(paths))
    report = detector.report_
    assert report is not None
    detector.save(args.model)
    tell(
        {
            "fit_s": seconds,
            "pictures": report.pictures,
            "patches": report.patches,
            "bank": report.vectors,
            "coreset_s": report.seconds["coreset"],
            "fit_peak_mb": peak_mb(),
        }
    )


def speed(args: argparse.Namespace, plan: Plan) -> None:
    """Latency from a decoded picture to score and map, then pictures a second of a folder."""
    detector = PatchCore.load(args.model)
    pictures = [read_image(path) for path in plan.spread(16)]
    latency = median_ms(detector.predict, pictures, args.count)
    peak = peak_mb()
    paths = plan.jpeg_paths()
    list(detector.predict_stream(paths[:8]))  # compile for throughput
    throughput = rate(lambda: sum(1 for _ in detector.predict_stream(paths)))
    tell({"latency_ms": latency, "predict_peak_mb": peak, "pictures_per_s": throughput})


def metrics(args: argparse.Namespace, plan: Plan) -> None:
    """AUROC of pictures and pixels: of our model, or of scores and maps that the other side wrote."""
    detector = Replay(args.scores, plan) if args.scores else PatchCore.load(args.model)
    samples = [
        Sample(Path(one.path), one.label, "good" if one.label == 0 else "defect", _path(one.mask), "test", plan.name)
        for one in plan.test
    ]
    found = evaluate(detector, samples)
    assert not found.bad, found.bad[0]
    tell({"image_auroc": found.image_auroc, "pixel_auroc": found.pixel_auroc, "test_pictures": found.images})


def features(args: argparse.Namespace, plan: Plan) -> None:
    """Write what our engine sees and gives for one picture, in float32: the other side must give the same."""
    detector = PatchCore(backbone=args.backbone, size=SIZE, precision="f32")
    prepared, _ = detector.recipe.prepare(read_image(plan.test[0].path))
    maps = detector.extractor.engine.run(prepared[None])
    np.savez(args.out, prepared=prepared, **maps)
    tell({"layers": sorted(maps)})


@dataclass(frozen=True)
class Replayed:
    """A result of the other side's."""

    score: float
    anomaly_map: np.ndarray


class Replay:
    """The other side's scores and maps as a detector, so that the same code judges both.

    Its maps are of the prepared size; they are brought to the pictures' own sizes here, bilinear, as ours are.
    """

    def __init__(self, path: str, plan: Plan) -> None:
        values = np.load(path)
        self.results = {
            one.path: (float(score), values["maps"][i])
            for i, (one, score) in enumerate(zip(plan.test, values["scores"], strict=True))
        }

    def predict_stream(self, paths: Iterable[Path]) -> Iterator[Replayed]:
        """Yield what was scored, in order."""
        for path in paths:
            score, small = self.results[str(path)]
            height, width = read_image(path).shape[:2]
            yield Replayed(score, cv2.resize(small.astype(np.float32), (width, height)))


def _path(name: str | None) -> Path | None:
    return None if name is None else Path(name)


def main() -> None:
    """Do the one thing asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("fit", "speed", "metrics", "features"))
    parser.add_argument("--plan", required=True)
    parser.add_argument("--model")
    parser.add_argument("--backbone")
    parser.add_argument("--ratio", type=float, default=0.01)
    parser.add_argument("--projection", type=int, default=0, help="0: the detector's own choice")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--scores")
    parser.add_argument("--out")
    args = parser.parse_args()
    plan = read_plan(args.plan)
    {"fit": fit, "speed": speed, "metrics": metrics, "features": features}[args.what](args, plan)


if __name__ == "__main__":
    main()
