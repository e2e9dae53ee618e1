"""Patch vectors drawn by the tests, and their nearest neighbours by brute force."""

import numpy as np

from tests import reference
from totalrecall.detectors.gaussians import Gaussians


def patch_like(m=900, q=80, d=256, seed=0, offset=0.0):
    """A bank and queries with a falling spectrum, as features have."""
    rng = np.random.default_rng(seed)
    scale = 1 / np.arange(1, d + 1) ** 0.6
    bank = (rng.standard_normal((m, d)) * scale + offset).astype(np.float32)
    queries = bank[rng.integers(m, size=q)] + (rng.standard_normal((q, d)) * scale * 0.5).astype(np.float32)
    return bank, queries


def brute_force(queries, bank, k):
    every = reference.distances(queries, bank.astype(np.float64))
    order = np.argsort(every, axis=1, kind="stable")[:, :k]  # stable: ties to the lower index
    return np.take_along_axis(every, order, axis=1), order


def vectors(seed, n, positions=7, d=20, spread=3.0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(n, positions, d)) @ rng.normal(size=(d, d)) * spread / d
    return (mixed + 5).astype(np.float32)


def gaussians_of(good, cuts=()):
    gaussians = Gaussians(*good.shape[1:])
    for part in np.split(good, cuts):
        gaussians.add(part)
    return gaussians
