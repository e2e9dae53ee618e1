"""Pictures of a striped part, good and damaged, and small detectors that learn from them."""

import hashlib

import cv2
import numpy as np
import pytest

from totalrecall import PatchCore
from totalrecall.patchcore import plan as planning
from totalrecall.patchcore.plan import make_plan

SIZE = 64


def stripes(seed, height=70, width=90):
    rng = np.random.default_rng(seed)
    columns = 128 + 60 * np.sin(np.arange(width) / 4 + rng.uniform(0, 0.3))
    noise = rng.normal(0, 6, (height, width, 3))
    return np.clip(columns[None, :, None] + noise, 0, 255).astype(np.uint8)


def damaged(seed):
    picture = stripes(seed)
    picture[30:45, 40:60] = (20, 20, 230)
    return picture


def make(backbone, **options):
    return PatchCore(
        **{"backbone": backbone, "size": SIZE, "coreset": 0.2, "at_least": 1, "precision": "f32", **options}
    )


def enough_for(detector, sources, pictures):
    """Return a limit under which a chunk holds up to so many pictures."""
    whole = make_plan(detector.extractor, detector.settings, sources, 10**12)
    numbers = whole.coreset_dimensions if whole.projected else whole.dimensions
    a_picture = whole.per_picture * (planning._PER_POINT + 4 * numbers)
    patches = len(sources) * whole.per_picture
    refilled = planning.refilling(patches, whole.coreset_dimensions, whole.folds) if pictures < len(sources) else 0
    return whole.exact - refilled - (len(sources) - pictures) * a_picture + 24 * whole.vectors


def odd(seed):
    """A picture with a stain: good, but unlike those that were fitted on."""
    picture = stripes(seed)
    cv2.circle(picture, (20 + 5 * (seed % 8), 35), 12, (200, 200, 40), -1)
    return picture


def made_to_grow(backbone, **options):
    standard = {
        "backbone": backbone,
        "size": SIZE,
        "coreset": 0.2,
        "precision": "f32",
        "false_alarm_rate": 0.1,
        "at_least": 1,
    }
    return PatchCore(**{**standard, **options})


def written(detector, folder):
    path = detector.save(folder / "now.trecall")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def link(path, target):
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this system makes no symbolic links")
    return path
