"""Which good pictures set the threshold, and which of them are left out of the bank together that scores them."""

from collections.abc import Sequence

import numpy as np

__all__ = ["CROSSED_AT_MOST", "fold_count", "held_out", "make_folds"]

CROSSED_AT_MOST = 1000  # pictures: a part of so many is a calibration set of its own, and few of them need a search
_LEAST = 3  # different pictures, or parts, of which one can be scored by the others
_HELD_AT_MOST = 500  # pictures: a quantile at a rate of 1 percent is settled by then, and each costs a search


def held_out(count: int, share: float, seed: int) -> np.ndarray:
    """Return indices, ascending, of the pictures that set the threshold where they are held out together.

    The share is rounded down, but at least one picture is taken where there are three or more, none where there are
    fewer, and at most 500: with those a rate of 1 percent is known to within half a percent, and more would only cost
    time.
    """
    held = min(int(count * share), _HELD_AT_MOST, count - 1)
    if share <= 0 or count < _LEAST:
        return np.empty(0, np.int64)
    held = max(held, 1)
    return np.sort(np.random.default_rng(seed).permutation(count)[:held])


def fold_count(count: int, share: float, folds: int | None) -> int:
    """Return into how many folds so many pictures are cut; 1 where some are held out together, 0 where none is.

    A bank without a fold lacks the fold's kinds of good parts, so more folds err less; and the banks of 20 take, all
    together, less time than the coreset took (see `refill`).
    """
    if share <= 0 or count < _LEAST:
        return 0
    if folds is None:
        folds = 20 if count <= CROSSED_AT_MOST else 1
    return min(folds, count)


def make_folds(
    count: int, share: float, folds: int | None, seed: int, parts: np.ndarray | None = None
) -> list[np.ndarray]:
    """Return the pictures of each fold, ascending: each is scored by a bank without its whole fold.

    Args:
        count: of good pictures.
        share: of them held out, where there is one fold; 0 for no folds.
        folds: how many; chosen by the number of pictures if None.
        seed: of which pictures.
        parts: (count,) the part that each shows; photographs of one part are in one fold. Each its own if None.
    """
    if parts is not None:
        return _folds_of_parts(parts, share, folds, seed)
    number = fold_count(count, share, folds)
    if number <= 1:
        held = held_out(count, share, seed)
        return [held] if len(held) else []
    order: Sequence[np.ndarray] = np.array_split(np.random.default_rng(seed).permutation(count), number)
    return [np.sort(fold) for fold in order]


def _folds_of_parts(parts: np.ndarray, share: float, folds: int | None, seed: int) -> list[np.ndarray]:
    """Return folds of whole parts, none larger than it must be: the parts in random order, each to the smallest fold.

    Where there is one fold, parts are taken until the share is reached. Of fewer than three parts there is none.
    """
    sizes = np.bincount(parts)
    number = min(fold_count(len(parts), share, folds), len(sizes))
    if number == 0 or len(sizes) < _LEAST:
        return []
    order = np.random.default_rng(seed).permutation(len(sizes))
    fold = np.full(len(sizes), -1)
    if number == 1:
        wanted = max(min(int(len(parts) * share), _HELD_AT_MOST), 1)
        before = np.cumsum(sizes[order]) - sizes[order]
        fold[order[before < wanted][: len(sizes) - 1]] = 0
    else:
        held = np.zeros(number, np.int64)
        for part in order:
            smallest = int(held.argmin())
            fold[part] = smallest
            held[smallest] += sizes[part]
    return [np.flatnonzero(fold[parts] == at) for at in range(number)]
