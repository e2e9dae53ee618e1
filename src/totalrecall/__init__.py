"""Total Recall: PatchCore anomaly detection that a factory can rely on and a researcher can reproduce.

    from totalrecall import PatchCore
    detector = PatchCore().fit("parts/good")
    result = detector.predict("part.png")

The road that a picture takes, one module a step, in reading order:

    images       files and arrays -> prepared pictures, and the way back to original pixels   (decode: bytes -> pixels)
    backbones    name -> frozen ONNX graph
    engines      run a graph: pictures -> feature maps
    patches      feature maps -> locally aware patch vectors   (eq. 1-3)
    coreset      patches -> the few that cover the rest        (algorithm 1)
    search       exact nearest neighbours, pruned
    bank         the memory bank: vectors and where each came from
    scoring      distances -> picture score (eq. 6-7), anomaly map, regions
    guard        good pictures that the others explain badly   (same_part: photographed again; ranking: their order)
    calibration  scores of good pictures -> threshold, p-values               (tail: beyond the highest score)
    detector     PatchCore: fit, score, predict, save, load

Beside it: `detector_base` (what all detectors share), `settings`, `results`, `extractor` (images to features to
patches in a row), `learning` (pictures to bank: `plan` says beforehand what it takes, `estimate` how long, `fitting`
does it, `chunks` where memory is short; `folds`: which pictures set the threshold; `refill`: the banks that score
them; `outliers`: what is done about dirty ones), `search_plan` (how the search prunes), `artifact` (the model file),
`kinds` (opens a model of any kind), `picture_files` (which files are pictures, and what is passed over), `pages` and
`odd_pictures` (what sets a picture apart before its content does), `formats` (what a picture file states), `jpeg`,
`bmp`, `tiff` and `lzw` (read here, strictly), `in_memory` (arrays, PIL pictures, bytes), `read_ahead`, `files`,
`memory`, `threads`, `forks`, `sources`, `errors`, `notices`, `types`. The methods that PatchCore is compared with are
`padim` (its mathematics in `gaussians`) and `spade` (`gallery`), both fitted by `onepass`. After the fit: `update`
(`membership` says who joins and who leaves, `joining` and `leaving` how, `evidence` lets the threshold follow; of
`padim` and `spade` it is `growing`, with `gaussians_grown`), `teaching`, `changing` and `history` (every change can be
undone). `drift` watches a line (`drift_conditions`, `drift_bets`, `drift_words`, `drift_file`), `audit` the good
pictures (`audit_checks`, `audit_sheet`). Around it: `metrics`, `datasets`, `evaluation`, `benchmark` (with
`benchmark_ablate` and `reference`), `overlay`, `report` (with `report_page`, `report_style`, `report_index`,
`report_plot`, `report_calibration`, `report_patches`, `report_entry`, `report_gallery`, `report_measured`), `reporting`
(a report while pictures are scored; `report_overlays`), `synthetic` (the demo's pictures, painted by `synthetic_parts`
and `synthetic_board`, damaged by `synthetic_defects`), `cli`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from totalrecall.system import threads as _threads  # noqa: F401  first of all: it has a word for NumPy's BLAS before that is loaded

if TYPE_CHECKING:
    from totalrecall.detectors.padim import PaDiM
    from totalrecall.detectors.spade import SPADE
    from totalrecall.drift.monitor import Monitor
    from totalrecall.errors import SkippedPictureWarning
    from totalrecall.patchcore.detector import PatchCore
    from totalrecall.pictures.formats.header import set_max_pixels
    from totalrecall.registry import load_detector
    from totalrecall.scoring import Result

from totalrecall._version import __version__

__all__ = [
    "SPADE",
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
