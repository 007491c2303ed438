"""Clustered vectors, like those of music, in two layers of a lake."""

from __future__ import annotations

import numpy as np

DIM, CLUSTERS = 24, 60


def vectors_of(count, seed):
    """Return (count, DIM) float32 vectors around the same 60 centres for every seed."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((CLUSTERS, DIM))
    return (centres[rng.integers(CLUSTERS, size=count)] + 0.5 * rng.standard_normal((count, DIM))).astype(np.float32)


def add(lake, space, ids, seed, values=None):
    """Add vectors of clips, by default clustered ones; the second layer has them backwards."""
    values = vectors_of(len(ids), seed) if values is None else values
    lake.vectors(space).add(ids, [values, values[:, ::-1].copy()], [values, values], [1] * len(ids))
