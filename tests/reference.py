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


def padim(good, picture, epsilon=0.01):
    """Mahalanobis distances (positions,) of a picture (positions, d), from good ones (n, positions, d): eq. 1, 2."""
    out = []
    for position in range(picture.shape[0]):
        x = good[:, position].astype(np.float64)
        apart = picture[position] - x.mean(axis=0)
        covariance = np.zeros((x.shape[1], x.shape[1]))
        for one in x - x.mean(axis=0):
            covariance += np.outer(one, one) / max(len(x) - 1, 1)
        covariance += epsilon * np.eye(x.shape[1])
        out.append(np.sqrt(apart @ np.linalg.solve(covariance, apart)))
    return np.array(out)


def pyramid(maps):
    """All layers on the finest grid, coarse cells repeated: (n, h, w, d)."""
    h, w = max((one.shape[1:3] for one in maps), key=lambda shape: shape[0] * shape[1])
    out = np.zeros((len(maps[0]), h, w, sum(one.shape[3] for one in maps)))
    for i in range(h):
        for j in range(w):
            cells = [one[:, i * one.shape[1] // h, j * one.shape[2] // w] for one in maps]
            out[:, i, j] = np.concatenate(cells, axis=1)
    return out


def spade(good, picture, k):
    """The picture's score and its distances (h, w): kNN of pooled last maps, then in all of those pictures."""
    apart = np.linalg.norm(good[-1].mean(axis=(1, 2)) - picture[-1].mean(axis=(1, 2)), axis=1)
    chosen = apart.argsort(kind="stable")[:k]
    gallery, queries = pyramid([one[chosen] for one in good]), pyramid(picture)
    d = gallery.shape[3]
    return apart[chosen].mean(), distances(queries.reshape(-1, d), gallery.reshape(-1, d)).min(axis=1).reshape(
        queries.shape[1:3]
    )
