"""Helpers on (row, dim) vectors that every shelf of this room uses: unit length, preparation for a metric, matrix powers.

Metrics: `cosine` and `ip` (inner product) are scores, higher is nearer; `l2` is the Euclidean distance, lower is nearer.
"""

from __future__ import annotations

import math

import numpy as np

METRICS = ("cosine", "ip", "l2")

SMALLEST = 1e-6                          # share of the largest variance; smaller variances are rounding errors


def prepare(vectors: np.ndarray, metric: str) -> np.ndarray:
    """Return float32 vectors ready to be compared: of unit length for cosine (a zero vector stays zero), else unchanged."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    return unit(vectors) if metric == "cosine" else vectors


def prepare_one(query: np.ndarray, metric: str) -> np.ndarray:
    """Prepare one (dim,) query as `prepare` does, as (1, dim), in a few microseconds."""
    query = np.asarray(query, np.float32)
    if metric == "cosine":
        query = query / (math.sqrt(query @ query) or 1.0)
    return query[None]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Divide each row by its length; rows of zeros stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    """Raise a covariance matrix to a power, in the dimensions that vary."""
    variances, directions = np.linalg.eigh(covariance)
    varies = variances > SMALLEST * variances.max()
    return (directions[:, varies] * variances[varies] ** exponent) @ directions[:, varies].T
