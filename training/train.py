"""Distil a teacher into a student: `python -m training.train --design thin --steps 5000 --out DIR --resume`.

DIR receives `log.jsonl` (loss and validation) and `checkpoint.pt`. Stop and start it at will: batches depend on the
seed and the step alone, and a checkpoint holds the rest, so `--resume` goes on as if nothing had been.
"""

import argparse
import copy
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data import Supply, batch, load_pictures
from training.designs import DESIGNS, Design
from training.networks import Network, inherit, load_resnet18, normalise
from training.pruning import thin
from training.validate import Examination

SHARED = Path(__file__).resolve().parents[2] / "shared"
EMA_DECAY = 0.998
SAVE_SECONDS = 180


@dataclass(frozen=True)
class Spread:
    """The teacher's statistics over training batches: per-channel deviation, and the summed variance, of each layer."""

    deviation: list[Tensor]
    variance: list[float]


def measure_spread(teacher: Network, pictures: list, seed: int, count: int = 12) -> Spread:
    """The spread of stem, layer2 and layer3 over the first batches of the run."""
    deviation, variance = [], []
    maps = [teacher(normalise(torch.from_numpy(batch(pictures, seed, step))).bfloat16()) for step in range(count)]
    for layer in zip(*maps, strict=True):
        values = torch.cat([m.float().transpose(0, 1).flatten(1) for m in layer], 1)  # (n, c, h, w) -> (c, n*h*w)
        deviation.append(values.std(1)[:, None, None] + 1e-3)
        variance.append(values.var(1).sum().item())
    return Spread(deviation, variance)


def channel_loss(error: Tensor, target: Tensor, deviation: Tensor, variance: float) -> Tensor:  # noqa: ARG001
    """Mean squared error with each channel brought to the same spread."""
    return (error / deviation).square().mean()


def distance_loss(error: Tensor, target: Tensor, deviation: Tensor, variance: float) -> Tensor:  # noqa: ARG001
    """Squared displacement in the teacher's own space, half of it after the product's 3x3 average."""
    pooled = F.avg_pool2d(error, 3, 1, 1)
    return (error.square().sum(1).mean() + pooled.square().sum(1).mean()) / (2 * variance)


def relative_loss(error: Tensor, target: Tensor, deviation: Tensor, variance: float) -> Tensor:  # noqa: ARG001
    """Displacement against the picture's own spread, so that the faint differences of an even surface count as well.

    An error that is the same all over a picture shifts all patches alike, which hardly changes distances: it counts a
    fifth.
    """
    spread = target.var((2, 3)).sum(1) + 0.05 * variance  # (n,)
    shift = error.mean((2, 3), keepdim=True)
    pooled = F.avg_pool2d(error, 3, 1, 1) - shift
    moved = (error - shift).square().sum(1).mean((1, 2)) + pooled.square().sum(1).mean((1, 2))
    return ((moved / 2 + 0.2 * shift.square().sum((1, 2, 3))) / spread).mean()


LOSSES = {"channel": channel_loss, "distance": distance_loss, "relative": relative_loss}


class Trainer:
    """The state of one run."""

    def __init__(self, design: Design, steps: int, decay: int, out: Path, seed: int, resumed: bool):
        self.design, self.steps, self.decay, self.out, self.seed = design, steps, decay, out, seed
        self.pictures = load_pictures(SHARED / "data/natural")
        weights = SHARED / "backbones/resnet18_imagenet1k_v1.safetensors"
        self.exact_teacher = load_resnet18(weights)
        self.teacher = copy.deepcopy(self.exact_teacher).to(memory_format=torch.channels_last).bfloat16()
        self.student = Network(design.architecture, seed)
        old = self._start(resumed)
        self.student.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self.optimiser = self._optimiser({id(parameter) for parameter in old})
        self.spread = measure_spread(self.teacher, self.pictures.train, seed)
        self.examination: Examination | None = None
        self.step = 0

    def _start(self, resumed: bool) -> list[nn.Parameter]:
        """Give the student its first weights, unless a checkpoint will; the parameters that are not random at first."""
        if self.design.start == "random":
            return []
        if self.design.start != "thin":
            return inherit(self.student, self.exact_teacher, stem=self.design.start == "copy")
        if not resumed:
            images = [normalise(torch.from_numpy(batch(self.pictures.train, self.seed, number))) for number in range(8)]
            thin(self.student, self.exact_teacher, images, self.seed)
        return list(self.student.parameters())

    def _optimiser(self, inherited: set[int]) -> torch.optim.Optimizer:
        groups = [
            {"params": [p for p in self.student.parameters() if id(p) not in inherited], "peak": self.design.new_rate},
            {
                "params": [p for p in self.student.parameters() if id(p) in inherited],
                "peak": self.design.inherited_rate,
            },
        ]
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)

    def answer(self, pictures: np.ndarray) -> tuple[Tensor, ...]:
        """The teacher's maps; the stem's only where the design looks at it."""
        with torch.no_grad():
            maps = self.teacher(normalise(torch.from_numpy(pictures)).bfloat16())
        return maps if self.design.hint else (torch.zeros(()), *maps[1:])

    def update(self, pictures: np.ndarray, targets: tuple[Tensor, ...]) -> dict[str, float]:
        """One step of gradient descent; the share of the teacher's variance that is missed, by layer."""
        warm = min(1.0, (self.step + 1) / min(300, self.steps / 10))
        fallen = max(0.0, 1 - (self.steps - self.step) / self.decay)
        rate = warm * 0.5 * (1 + math.cos(math.pi * fallen))
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        with torch.autocast("cpu", torch.bfloat16):
            outputs = self.student(normalise(torch.from_numpy(pictures)))
        loss, missed = torch.zeros(()), {}
        for index, weight in enumerate((self.design.hint, 1.0, 1.0)):
            if weight:
                target = targets[index].float()
                error = outputs[index].float() - target
                variance = self.spread.variance[index]
                loss = loss + weight * LOSSES[self.design.loss](error, target, self.spread.deviation[index], variance)
                missed[f"missed{index + 1}"] = error.detach().square().sum(1).mean().item() / variance
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.student.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self._average()
        return {"loss": loss.item(), **missed}

    def _average(self) -> None:
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.student.parameters()), 1 - decay)

    def validate(self) -> dict[str, float]:
        """Agreement of the averaged weights with the teacher on what was kept aside."""
        if self.examination is None:
            self.examination = Examination(self.pictures.aside, self.exact_teacher)
        return self.examination.examine(self.average)

    def save(self) -> None:
        """Write the checkpoint whole or not at all."""
        state = {"step": self.step, "student": self.student.state_dict(), "average": self.average.state_dict(),
                 "optimiser": self.optimiser.state_dict(), "architecture": self.design.architecture}  # fmt: skip
        torch.save(state, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.pt")

    def load(self) -> None:
        """Go on from the checkpoint of the same design."""
        state = torch.load(self.out / "checkpoint.pt", weights_only=False)
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])

    def log(self, record: dict[str, float]) -> None:
        """Append a JSON line."""
        with (self.out / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.step, "time": round(time.time(), 1), **record}) + "\n")

    def run(self, validate_every: int) -> None:
        """Train to the last step, logging means of 50 steps."""
        sums: dict[str, float] = {}
        counted = 0
        saved = time.monotonic()
        supply = Supply(self.pictures.train, self.answer, self.seed)
        for pictures, targets in supply.run(self.step, self.steps):
            for name, value in self.update(pictures, targets).items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            self.step += 1
            if self.step % 50 == 0:  # after a resume the first mean is of fewer steps
                self.log({name: round(value / counted, 5) for name, value in sums.items()})
                sums, counted = {}, 0
            if time.monotonic() - saved > SAVE_SECONDS or self.step == self.steps:
                self.save()
                saved = time.monotonic()
            if validate_every and (self.step % validate_every == 0 or self.step == self.steps):
                self.log(self.validate())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--design", choices=DESIGNS, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument(
        "--decay", type=int, help="steps at the end over which the rate falls to 0 (default: all of them)"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validate-every", type=int, default=3000, help="0 for never")
    parser.add_argument("--resume", action="store_true", help="go on from DIR/checkpoint.pt where there is one")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    cv2.setNumThreads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    resumed = arguments.resume and (arguments.out / "checkpoint.pt").exists()
    decay = arguments.decay or arguments.steps
    trainer = Trainer(DESIGNS[arguments.design], arguments.steps, decay, arguments.out, arguments.seed, resumed)
    if resumed:
        trainer.load()
    trainer.run(arguments.validate_every)


if __name__ == "__main__":
    main()
