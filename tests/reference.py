"""An independent PatchCore in plain NumPy: the oracle of every fast path. Slow, whole matrices, float64, plain."""

import numpy as np


def describe(maps, patch_size=3):
    """Eq. 1-3: average p x p with zeros outside, bring to the first map's grid, join channels: (n, h, w, d)."""
    size, out = maps[0].shape[1:3], []
    for one in maps:
        n, h, w, c = one.shape
        half = patch_size // 2
        padded = np.zeros((n, h + 2 * half, w + 2 * half, c))
        padded[:, half : half + h, half : half + w] = one
        average = np.zeros((n, h, w, c))
        for i in range(patch_size):
            for j in range(patch_size):
                average += padded[:, i : i + h, j : j + w] / patch_size**2
        y, x = ((np.arange(t) + 0.5) * s / t - 0.5 for t, s in zip(size, (h, w), strict=True))
        y, x = np.clip(y, 0, h - 1), np.clip(x, 0, w - 1)
        y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
        y1, x1 = np.minimum(y0 + 1, h - 1), np.minimum(x0 + 1, w - 1)
        fy, fx = (y - y0)[:, None, None], (x - x0)[:, None]
        top = average[:, y0][:, :, x0] * (1 - fx) + average[:, y0][:, :, x1] * fx
        bottom = average[:, y1][:, :, x0] * (1 - fx) + average[:, y1][:, :, x1] * fx
        out.append(top * (1 - fy) + bottom * fy)
    return np.concatenate(out, axis=3)


def greedy(points, count, first):
    """Algorithm 1, the plain loop: indices in order of selection, and the covering radius."""
    chosen, nearest = [first], np.linalg.norm(points - points[first], axis=1)
    while len(chosen) < count:
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen), nearest.max()


def distances(queries, bank):
    """All Euclidean distances, by their differences."""
    return np.array([np.sqrt(((bank - query) ** 2).sum(axis=1)) for query in queries.astype(np.float64)])


def score(patches, bank, scoring="max", neighbours=9):
    """Eq. 6 and 7, and the mean of the top hundredth."""
    nearest = distances(patches, bank)
    worst = nearest.min(axis=1).argmax()
    best = nearest.min(axis=1)[worst]
    if scoring == "max":
        return best
    if scoring == "top1pct":
        return np.sort(nearest.min(axis=1))[-max(len(patches) // 100, 1) :].mean()
    m_star = nearest[worst].argmin()
    around = distances(bank[m_star : m_star + 1], bank)[0].argsort(kind="stable")[:neighbours]
    return (1 - np.exp(best) / np.exp(nearest[worst][around]).sum()) * best
