"""hops: how many files one must read to follow a picture through `predict`; see benchmarks/hops.py."""

from pathlib import Path

from benchmarks.hops import Meter

import totalrecall
from tests.parts import stripes


def test_a_warm_predict_enters_at_most_twenty_files_of_ours(tiny_backbone, good, tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "new.png"), stripes(50))
    detector = totalrecall.PatchCore(backbone=tiny_backbone, size=64, precision="f32").fit(good)
    detector.predict(tmp_path / "new.png")
    meter = Meter(Path(totalrecall.__file__).parent, from_run=False)
    counts = meter.count(lambda: detector.predict(tmp_path / "new.png"))
    files = sorted({file for file, _ in meter.functions})
    assert 10 < counts["files"] <= 20, files
    assert counts["switches"] <= 60
