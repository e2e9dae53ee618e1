"""A fit by steps, each beside the least that it can take: the bare engine for features, bare products for the coreset.

On the 761 magnetic tiles of ../shared where they are, else on 60 synthetic pictures. The answer that is asserted: the
bank has the size that was asked for, and the covering radius is that of a plain check.
"""

import numpy as np

from benchmarks.common import SHARED, record, seconds_of
from totalrecall import PatchCore
from totalrecall.demo.pictures import good
from totalrecall.pictures.loading import load_pictures


def main() -> None:
    """Print and record."""
    sources, backbone = _sources()
    detector = PatchCore(backbone=backbone)
    prepared = [loaded.prepared for loaded in load_pictures(sources, detector.recipe)]
    engine = detector.extractor.engine
    list(engine.stream((None, picture) for picture in prepared[:4]))  # compile
    floor_features = seconds_of(lambda: [None for _ in engine.stream((None, picture) for picture in prepared)])
    detector.fit(sources)
    report = detector.report_
    assert report is not None
    assert report.vectors == int(0.01 * report.patches)
    dimensions = report.dimensions if report.dimensions <= 512 else 128  # as `fitting.gather` has it
    block = np.random.default_rng(0).standard_normal((4096, dimensions), dtype=np.float32)
    centres = np.ascontiguousarray(block[np.arange(report.vectors) % 4096].T)
    products = seconds_of(lambda: [block @ centres for _ in range(report.patches // 4096 + 1)])
    row = {
        "pictures": report.pictures,
        "backbone": detector.backbone.name,
        "decode_thread_s": report.seconds["decode"],
        "features_s": report.seconds["features"],
        "bare_engine_s": floor_features,
        "features_ratio": report.seconds["features"] / floor_features,
        "coreset_s": report.seconds["coreset"],
        "bare_products_s": products,
        "coreset_ratio": report.seconds["coreset"] / products,
        "calibration_s": report.seconds["calibration"],
        "peak_memory_mb": report.peak_memory / 1e6,
    }
    record("fitting", [row])


def _sources() -> tuple[list, object]:
    tiles = SHARED / "data" / "mtd"
    if tiles.is_dir():
        from totalrecall.backbones.resnet import build_resnet
        from totalrecall.datasets import open_dataset

        weights = SHARED / "backbones" / "resnet18_imagenet1k_v1.safetensors"
        return list(open_dataset("mtd", tiles).train), build_resnet("resnet18", weights)
    return [good("board", np.random.default_rng([0, i])) for i in range(60)], "compact"


if __name__ == "__main__":
    main()
