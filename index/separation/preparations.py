"""Prepare (clip, dim) vectors before they are compared by inner product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tonelake.index.vectors import power, unit
from tonelake.store import InputError


def raw(vectors: np.ndarray) -> np.ndarray:
    """Return vectors unchanged."""
    return vectors


def centred(vectors: np.ndarray) -> np.ndarray:
    """Subtract the mean vector, and scale to unit length."""
    return unit(vectors - vectors.mean(axis=0))


def whitened(vectors: np.ndarray) -> np.ndarray:
    """Scale all directions to equal variance, shrunk towards the original if clips are few (Ledoit and Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    deviations = (vectors - vectors.mean(axis=0)).astype(np.float64)
    covariance, _ = ledoit_wolf(deviations, assume_centered=True)
    return unit((deviations @ power(covariance, -0.5)).astype(np.float32))


# `l2` gives the cosine.
PREPARATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "l2": unit, "raw": raw, "centred": centred, "whitened": whitened,
}


def check_preparation(prepare: str) -> None:
    """Raise InputError unless `prepare` is one of PREPARATIONS."""
    if prepare not in PREPARATIONS:
        raise InputError(f"no preparation {prepare!r}: choose {', '.join(PREPARATIONS)}")
