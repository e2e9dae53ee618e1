"""Total Recall: PatchCore anomaly detection that a factory can rely on and a researcher can reproduce.

    from totalrecall import PatchCore
    detector = PatchCore().fit("parts/good")
    result = detector.predict("part.png")

One picture's way:   pictures -> engines -> features -> patchcore (search) -> scoring -> calibration -> Result
A model's life:      patchcore.fitting, patchcore.update, detectors.history, drift, outliers
Measuring it:        datasets, evaluation, benchmark, planting, capability, tuning
Showing it:          reports, audit, demo, station, cli
Under all of them:   types, errors, system, backbones

Each folder's own docstring names its files in reading order. What this module lists is public; so are
`totalrecall.errors`, `totalrecall.datasets` and what a folder's `__init__` lists. Everything else may move.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from totalrecall._version import __version__

# first of all: it sets how NumPy's BLAS waits, before that is loaded
from totalrecall.system import threads as _threads  # noqa: F401

if TYPE_CHECKING:
    from totalrecall.detectors.padim import PaDiM
    from totalrecall.detectors.spade import SPADE
    from totalrecall.drift.monitor import Monitor
    from totalrecall.errors import SkippedPictureWarning
    from totalrecall.patchcore.detector import PatchCore
    from totalrecall.patchcore.joined import JoinedPatchCore
    from totalrecall.pictures.formats.header import set_max_pixels
    from totalrecall.registry import load_detector
    from totalrecall.scoring import Result

__all__ = [
    "SPADE",
    "JoinedPatchCore",
    "Monitor",
    "PaDiM",
    "PatchCore",
    "Result",
    "SkippedPictureWarning",
    "__version__",
    "load_detector",
    "set_max_pixels",
]

_HOME = {
    "JoinedPatchCore": "totalrecall.patchcore.joined",
    "Monitor": "totalrecall.drift.monitor",
    "PaDiM": "totalrecall.detectors.padim",
    "PatchCore": "totalrecall.patchcore.detector",
    "Result": "totalrecall.scoring",
    "SPADE": "totalrecall.detectors.spade",
    "SkippedPictureWarning": "totalrecall.errors",
    "load_detector": "totalrecall.registry",
    "set_max_pixels": "totalrecall.pictures.formats.header",
}


def __getattr__(name: str) -> Any:
    """Import public names at first use: `import totalrecall` itself stays under 10 ms."""
    if name not in _HOME:
        raise AttributeError(f"module 'totalrecall' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
