"""Exact search of one picture's patches against banks of several sizes, and float32 brute force in turn.

Brute force is written as well as NumPy allows: one product with the -2 and the means folded in beforehand, by blocks of
2048 bank vectors, the minimum of each taken while it is in the cache; both cores work on the product. The answer that
is asserted: the same neighbour, or one that is nearer or as near in float64.

On bottle's patches where ../shared is there, else on clustered points.
"""

import sys
from collections.abc import Iterator

import numpy as np

from benchmarks.common import SHARED, paired, record
from totalrecall.patchcore.coreset import greedy_k_center, project
from totalrecall.search.exact import ExactSearch
from totalrecall.search.levels import choose_levels

PATCHES = 1024  # of a picture
ROUNDS = 9
_BLOCK = 2048
_WARM = 1 << 33  # multiplications asked for beforehand: a search makes its graph once that pays


def main() -> None:
    """Print and record milliseconds and ratios."""
    for name, ordered, unseen in _sets():
        for size in (500, 2_140, 7_800, 21_401, 100_000, 200_000):
            if size > len(ordered):
                continue
            bank = ordered[:size]
            levels = choose_levels(bank, unseen)
            ours, brute = ExactSearch(bank, levels=levels), BruteForce(bank)
            pictures = [unseen[i : i + PATCHES] for i in range(0, len(unseen) - PATCHES + 1, PATCHES)]
            turn = {"ours": 0, "brute": 0}

            def next_picture(who: str, pictures: list = pictures, turn: dict = turn) -> np.ndarray:
                turn[who] += 1
                return pictures[turn[who] % len(pictures)]

            for _ in range(-(-_WARM // (PATCHES * bank.size))):
                ours.nearest(pictures[0])
            for picture in pictures:
                _assert_same(picture, bank, ours, brute)
            rounds = max(ROUNDS * 20_000 // max(size, 20_000), 3)
            seconds, baseline, ratio = paired(
                lambda ours=ours: ours.nearest(next_picture("ours")),
                lambda brute=brute: brute.nearest(next_picture("brute")),
                rounds,
            )
            row = {
                "features": name,
                "dimensions": bank.shape[1],
                "bank": size,
                "levels": " ".join(map(str, levels)) or "whole",
                "ours_ms": seconds * 1000,
                "brute_force_ms": baseline * 1000,
                "times_faster": 1 / ratio,
            }
            record("search", [row])


class BruteForce:
    """The nearest of all vectors by float32 products, the minimum taken in the cache."""

    def __init__(self, bank: np.ndarray) -> None:
        self.mean = bank.mean(axis=0)
        centred = bank - self.mean
        self.norms = np.einsum("md,md->m", centred, centred)
        self.blocks = [np.ascontiguousarray(-2 * centred[at : at + _BLOCK].T) for at in range(0, len(bank), _BLOCK)]

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        centred = queries - self.mean
        rows = np.arange(len(queries))
        best, index = np.full(len(queries), np.inf, np.float32), np.zeros(len(queries), np.int64)
        for number, block in enumerate(self.blocks):
            product = centred @ block
            product += self.norms[number * _BLOCK : (number + 1) * _BLOCK]
            at = product.argmin(axis=1)
            value = product[rows, at]
            nearer = value < best
            best[nearer], index[nearer] = value[nearer], at[nearer] + number * _BLOCK
        return index


def _assert_same(queries: np.ndarray, bank: np.ndarray, ours: ExactSearch, brute: BruteForce) -> None:
    found, expected = ours.nearest(queries)[1][:, 0], brute.nearest(queries)
    differ = np.flatnonzero(found != expected)

    def exact(which: np.ndarray) -> np.ndarray:
        return ((queries[differ].astype(np.float64) - bank[which[differ]]) ** 2).sum(axis=1)

    assert (exact(found) <= exact(expected)).all(), "a neighbour of brute force is nearer"
    assert len(differ) < 0.01 * len(queries), f"{len(differ)} neighbours are others than brute force's"


def _sets() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, vectors in the coreset's order, and patches of other pictures."""
    bottle = SHARED / "data" / "mvtec_ad" / "bottle"
    weights = {
        "resnet18": SHARED / "backbones" / "resnet18_imagenet1k_v1.safetensors",
        "resnet50": SHARED / "backbones" / "resnet50_imagenet1k_caffe.safetensors",
    }
    if not bottle.is_dir() or not all(path.is_file() for path in weights.values()):
        rng = np.random.default_rng(0)
        scale = 1 / np.arange(1, 385) ** 0.6
        points = (rng.standard_normal((60_000, 384)) * scale).astype(np.float32)
        near = points[rng.integers(60_000, size=4 * PATCHES)] + rng.standard_normal((4 * PATCHES, 384)) * scale / 2
        yield "made", points, near.astype(np.float32)
        return
    from totalrecall import PatchCore
    from totalrecall.backbones.resnet import build_resnet
    from totalrecall.pictures.files import find_pictures

    for name in sys.argv[1:] or weights:
        extractor = PatchCore(backbone=build_resnet(name, weights[name])).extractor
        good, unseen = (
            np.concatenate([grid[0] for _, grid in extractor.stream(pictures) if grid is not None])
            for pictures in (find_pictures(bottle / "train"), find_pictures(bottle / "test")[::10])
        )
        good, unseen = (rows.reshape(-1, rows.shape[-1]) for rows in (good, unseen))
        # The order of selection: every prefix is a coreset. Beyond 10 % the rest follows in any order.
        chosen = greedy_k_center(project(good), len(good) // 10).indices
        rest = np.setdiff1d(np.random.default_rng(0).permutation(len(good)), chosen, assume_unique=True)
        yield name, good[np.concatenate([chosen, rest[: 200_000 - len(chosen)]])], unseen


if __name__ == "__main__":
    main()
