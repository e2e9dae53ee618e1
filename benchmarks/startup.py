"""Seconds from process start to `import totalrecall` and to the first score with a saved model, and the size on disk.

The answer that is asserted: the printed score is the one that the library gives.
"""

import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import record
from totalrecall import PatchCore
from totalrecall.demo.pictures import good

BASE = [
    "numpy",
    "opencv-python-headless",
    "openvino",
    "openvino-telemetry",
    "onnx",
    "protobuf",
    "ml_dtypes",
    "safetensors",
    "rich",
    "threadpoolctl",
    "markdown-it-py",
    "mdurl",
    "Pygments",
    "packaging",
    "typing_extensions",
]


def main() -> None:
    """Print and record; the second and later starts find the compiled graph in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = [good("board", np.random.default_rng([0, i])) for i in range(12)]
        model, picture = Path(folder) / "part.trecall", Path(folder) / "part.png"
        cv2.imwrite(str(picture), pictures[0][:, :, ::-1])
        detector = PatchCore().fit(pictures)
        detector.save(model)
        expected = detector.predict(picture).score
        command = [sys.executable, "-m", "totalrecall", "predict", str(model), str(picture), "--json", "-"]
        starts = [_timed(command) for _ in range(6)]
        assert abs(json.loads(starts[-1][1])["score"] - expected) < 1e-3 * expected
        imports = [_timed([sys.executable, "-c", "import totalrecall"])[0] for _ in range(6)]
        bare = [_timed([sys.executable, "-c", "pass"])[0] for _ in range(6)]
    row = {
        "first_score_s": float(np.median([seconds for seconds, _ in starts[1:]])),
        "import_s": float(np.median(imports) - np.median(bare)),
        "base_install_mb": sum(map(_size, BASE)) / 1e6,
    }
    record("startup", [row])


def _timed(command: list[str]) -> tuple[float, str]:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done.stdout


def _size(name: str) -> int:
    files = distribution(name).files or []
    return sum(path.stat().st_size for path in (Path(str(file.locate())) for file in files) if path.is_file())


if __name__ == "__main__":
    main()
