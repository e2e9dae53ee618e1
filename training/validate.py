"""How well a student agrees with its teacher on pictures that neither trained it nor test the product.

Two questions. Do patch distances agree (aside sources, bank and query pictures of one source)? And does a
nearest-neighbour detector on the student's patches find procedural damage as well as one on the teacher's (textures and
aside pictures)?
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator, default_rng
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from training.data import load_pictures
from training.networks import Network, load_resnet18, normalise
from training.textures import KINDS, damage, texture

SIZE = 256
BANK = 2000  # patches kept of a bank, drawn by seed and so the same ones for teacher and student


@dataclass(frozen=True)
class Trial:
    """Pictures of one kind: `bank` is remembered, `query` is scored; `damaged` marks the queries, or is None."""

    name: str
    bank: np.ndarray
    query: np.ndarray
    damaged: np.ndarray | None


def patches(network: Network, pictures: np.ndarray) -> Tensor:
    """Locally aware patch vectors, layer2 and layer3 joined, (n, h, w, 3) -> (n, h/8 * w/8, 384)."""
    maps = []
    with torch.inference_mode():
        for part in np.array_split(pictures, max(1, len(pictures) // 8)):
            _, layer2, layer3 = network(normalise(torch.from_numpy(part)))
            layer2, layer3 = (F.avg_pool2d(m, 3, 1, 1, count_include_pad=False) for m in (layer2, layer3))
            layer3 = F.interpolate(layer3, layer2.shape[2:], mode="bilinear", align_corners=False)
            maps.append(torch.cat([layer2, layer3], 1).flatten(2).transpose(1, 2))  # (n, c, h, w) -> (n, h*w, c)
    return torch.cat(maps)


def distances(network: Network, trial: Trial) -> np.ndarray:
    """The distance of each query patch to the nearest of the bank's, (queries, patches)."""
    bank = patches(network, trial.bank).flatten(0, 1)
    chosen = default_rng(0).permutation(len(bank))[:BANK]
    bank = bank[chosen]
    nearest = []
    for query in patches(network, trial.query):
        # |q - b|^2 = |q|^2 - 2 q.b + |b|^2; distances here are far from 0, so float32 bears the subtraction.
        squared = torch.addmm(bank.square().sum(1), query, bank.T, alpha=-2).amin(1) + query.square().sum(1)
        nearest.append(squared.clamp(min=0).sqrt())
    return torch.stack(nearest).numpy()


class Examination:
    """The trials, with the teacher's answers worked out once."""

    def __init__(self, aside: dict[str, list[np.ndarray]], teacher: nn.Module, seed: int = 0):
        rng = default_rng(seed)
        self.trials = _source_trials(rng, aside) + _damage_trials(rng, aside)
        self.expected = [distances(teacher, trial) for trial in self.trials]

    def examine(self, student: nn.Module) -> dict[str, float]:
        """The figures of a student; `auroc_gap` is its mean image AUROC less the teacher's."""
        pearson, spearman, ranks, gaps, own, teachers = [], [], [], [], [], []
        scale = []
        for trial, expected in zip(self.trials, self.expected, strict=True):
            found = distances(student, trial)
            if trial.damaged is None:
                pearson.append(np.corrcoef(found.ravel(), expected.ravel())[0, 1])
                spearman.append(spearmanr(found.ravel(), expected.ravel()).statistic)
                scale.append(found.mean() / expected.mean())
                continue
            ranks.append(spearmanr(found.max(1), expected.max(1)).statistic)
            own.append(roc_auc_score(trial.damaged, found.max(1)))
            teachers.append(roc_auc_score(trial.damaged, expected.max(1)))
            gaps.append(own[-1] - teachers[-1])
        figures = {"pearson": pearson, "spearman": spearman, "worst_group": min(spearman), "distance_scale": scale,
                   "score_spearman": ranks, "auroc": own, "teacher_auroc": teachers, "auroc_gap": gaps,
                   "worst_gap": min(gaps), "gap_size": np.abs(gaps)}  # fmt: skip
        return {name: round(float(np.mean(values)), 4) for name, values in figures.items()}


def _source_trials(rng: Generator, aside: dict[str, list[np.ndarray]]) -> list[Trial]:
    """Per source: whole pictures squashed to 256 px, and 160 px pieces at their own resolution."""
    trials = []
    for name, pictures in aside.items():
        order = rng.permutation(len(pictures))[:36]
        whole = np.stack([cv2.resize(pictures[i], (SIZE, SIZE), interpolation=cv2.INTER_AREA) for i in order])
        pieces = np.stack([_piece(rng, pictures[i], 160) for i in order])
        for kind, stack in (("whole", whole), ("pieces", pieces)):
            trials.append(Trial(f"{name}, {kind}", stack[:20], stack[20:], None))
    return trials


def _damage_trials(rng: Generator, aside: dict[str, list[np.ndarray]]) -> list[Trial]:
    """Each procedural texture, and three pictures of each aside source, as a product with good and damaged pieces."""
    trials = []
    for kind in KINDS:
        sheet = texture(rng, SIZE * 3, kind)
        trials.append(_damage_trial(rng, kind, lambda sheet=sheet: _piece(rng, sheet, SIZE)))
    for name, pictures in aside.items():
        for index in rng.permutation(len(pictures))[:3]:
            part = cv2.resize(pictures[index], (SIZE + 12, SIZE + 12), interpolation=cv2.INTER_AREA)
            trials.append(_damage_trial(rng, f"{name} {index}", lambda part=part: _piece(rng, part, SIZE)))
    return trials


def _damage_trial(rng: Generator, name: str, piece: Callable[[], np.ndarray], count: int = 12) -> Trial:
    bank = np.stack([_jitter(rng, piece()) for _ in range(10)])
    good = [_jitter(rng, piece()) for _ in range(count)]
    # Faint enough that the teacher misses some: where it finds all, agreement shows nothing.
    bad = [_jitter(rng, damage(rng, piece(), rng.uniform(0.25, 1.0), np.rot90(piece()))) for _ in range(count)]
    return Trial(name, bank, np.stack(good + bad), np.repeat([0, 1], count))


def _piece(rng: Generator, picture: np.ndarray, size: int) -> np.ndarray:
    """A random square of at most `size` px; a smaller picture is enlarged to it first."""
    short = min(picture.shape[:2])
    if short < size:
        picture = cv2.resize(picture, None, fx=size / short + 0.01, fy=size / short + 0.01)
    y, x = (rng.integers(edge - size + 1) for edge in picture.shape[:2])
    return picture[y : y + size, x : x + size]


def _jitter(rng: Generator, picture: np.ndarray) -> np.ndarray:
    """The light and the camera's noise, which differ from shot to shot."""
    noisy = picture * rng.uniform(0.96, 1.04) + rng.normal(0, 2, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def main() -> None:
    """The command line: examine the checkpoints of several runs."""
    parser = argparse.ArgumentParser(
        description="Examine checkpoints: python -m training.validate DIR/checkpoint.pt ..."
    )
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--shared", type=Path, default=Path(__file__).resolve().parents[2] / "shared")
    arguments = parser.parse_args()
    teacher = load_resnet18(arguments.shared / "backbones/resnet18_imagenet1k_v1.safetensors")
    examination = Examination(load_pictures(arguments.shared / "data/natural").aside, teacher)
    for path in arguments.checkpoints:
        state = torch.load(path, weights_only=False)
        student = Network(state["architecture"], seed=0)
        student.load_state_dict(state["average"])
        print(json.dumps({"checkpoint": str(path), "step": state["step"], **examination.examine(student)}), flush=True)


if __name__ == "__main__":
    main()
