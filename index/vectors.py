"""TODO(docstring)."""

from __future__ import annotations

import math

import numpy as np

METRICS = ("cosine", "ip", "l2")


SMALLEST = 1e-6                          # of the largest variance; what varies less is rounding


def prepare(vectors: np.ndarray, metric: str) -> np.ndarray:
    """Vectors as the metric compares them: of unit length for cosine (a zero vector stays zero), else as they are."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    return unit(vectors) if metric == "cosine" else vectors


def prepare_one(query: np.ndarray, metric: str) -> np.ndarray:
    """The same for one (dim,) query, as (1, dim), in a few microseconds."""
    query = np.asarray(query, np.float32)
    if metric == "cosine":
        query = query / (math.sqrt(query @ query) or 1.0)
    return query[None]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their length; rows of zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    """A power of a covariance, in the dimensions that vary."""
    variances, directions = np.linalg.eigh(covariance)
    varies = variances > SMALLEST * variances.max()
    return (directions[:, varies] * variances[varies] ** exponent) @ directions[:, varies].T
