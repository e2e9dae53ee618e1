"""The designs that were compared. README.md holds what each gave."""

from dataclasses import dataclass

from training.networks import Architecture, Block, Conv, Pool


@dataclass(frozen=True)
class Design:
    """A student and how it is trained.

    `start` says where the weights come from: "random"; "tail", layer2 and layer3 are the teacher's, cut to size;
    "copy", the stem as well; "thin", all is fitted to the teacher by least squares (`pruning.py`). `loss` is one of
    `train.LOSSES`. `hint` weighs the error of the stem's output against the teacher's layer1. The two rates are
    AdamW's, for random and for other weights.
    """

    architecture: Architecture
    start: str
    loss: str = "distance"
    hint: float = 0.0
    new_rate: float = 1e-3
    inherited_rate: float = 4e-4


def _architecture(
    stem: tuple[Conv | Pool | Block, ...], middle2: tuple[int, int], middle3: tuple[int, int]
) -> Architecture:
    """ResNet-18's layer2 and layer3 with the given channels inside their blocks, behind another stem."""
    return Architecture(
        stem,
        (Block(middle2[0], 128, 2), Block(middle2[1], 128)),
        (Block(middle3[0], 256, 2), Block(middle3[1], 256)),
    )


# A cheap new stem, and half of the channels inside the second blocks.
SLIM = _architecture((Conv(3, 32, 2), Conv(3, 64, 2), Block(32, 64)), (128, 64), (256, 128))
# ResNet's own way to stride 4 and one block of its layer1, all thinned: nothing is new, all can come from the teacher.
PRUNED = _architecture((Conv(5, 64, 2), Pool(), Block(32, 64)), (128, 64), (256, 128))
# Both blocks of layer1, half of the first filters, and the rest spread more evenly.
THIN = _architecture((Conv(5, 32, 2), Pool(), Block(32, 64), Block(32, 64)), (96, 96), (192, 128))

DESIGNS = {
    "random": Design(SLIM, "random"),
    "tail": Design(SLIM, "tail"),
    "tail-hint": Design(SLIM, "tail", hint=0.5),
    "copy": Design(PRUNED, "copy"),
    "thin": Design(THIN, "thin"),
    "thin-relative": Design(THIN, "thin", loss="relative"),
    "thin-relative-fast": Design(THIN, "thin", loss="relative", inherited_rate=7e-4),
}
