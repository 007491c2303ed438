"""Helpers on (row, dim) vectors that every shelf of this room uses: unit length, preparation for a metric, matrix powers.

Metrics: `cosine` and `ip` (inner product) are scores, higher is nearer; `l2` is the Euclidean distance, lower is nearer.
"""

from __future__ import annotations

import math

import numpy as np

from tonelake.store import InputError, fits

METRICS = ("cosine", "ip", "l2")
# Lengths between which squares of values neither overflow nor vanish in float32.
SHORTEST, LONGEST = 1e-15, 1e15

BLOCK_ROWS = 4_096                       # fit in the processor's cache
SMALLEST = 1e-6                          # share of the largest variance; smaller variances are rounding errors


def check_metric(metric: str) -> None:
    """Raise InputError for a metric that does not exist."""
    if metric not in METRICS:
        raise InputError(f"metric {metric!r}: unknown. Choose one of {', '.join(METRICS)}")


def check_finite(vectors: np.ndarray) -> None:
    """Raise InputError if a value of (dim,) or (query, dim) vectors is not a real number, finite in float32."""
    if vectors.dtype.kind not in "fiu":
        raise InputError(f"query: its values are of type {vectors.dtype}. Give real numbers")
    bad = int((~fits(np.atleast_2d(vectors), "float32").all(axis=1)).sum())
    if bad:
        raise InputError(
            f"query: {bad} of {len(np.atleast_2d(vectors))} vectors hold NaN or infinity. Encode the audio in float32, or "
            "leave them out"
        )


def comparable(queries: np.ndarray, metric: str, layer: str) -> np.ndarray:
    """Return (query, dim) float32 queries that can be compared by a metric; `layer` is named in errors.

    Raises InputError for values that are not finite, for zero vectors, which have no direction (under l2 they are points),
    and for vectors so long that their squares overflow (under cosine they are scaled).
    """
    check_finite(queries)
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
    zero = int((lengths == 0).sum())
    if zero and metric != "l2":
        raise InputError(
            f"query: {zero} of {len(queries)} vectors are zero in layer {layer}, as of silence, so no clip is nearer than "
            "another. Leave them out, or choose another layer"
        )
    odd = (lengths > LONGEST) | ((lengths < SHORTEST) & (lengths > 0))
    if metric == "cosine" and odd.any():
        queries = np.where(odd[:, None], queries / np.where(odd, lengths, 1)[:, None], queries)
    elif (lengths > LONGEST).any():
        raise InputError(f"query: a vector of length {lengths.max():.3g} is too long to be compared by {metric}. Scale it")
    return queries.astype(np.float32, copy=False)


def prepare(vectors: np.ndarray, metric: str) -> np.ndarray:
    """Return float32 vectors ready to be compared: of unit length for cosine (a zero vector stays zero), else unchanged."""
    converted = np.ascontiguousarray(vectors, np.float32)
    if metric != "cosine":
        return converted
    return unit(converted) if np.may_share_memory(converted, vectors) else unit_in_place(converted)      # of float16: a copy


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


def unit_in_place(vectors: np.ndarray) -> np.ndarray:
    """Do as `unit` to (row, dim) float32 vectors themselves, in blocks: a layer of ten million has no room for a second one."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        part = vectors[start : start + BLOCK_ROWS]
        norms = np.linalg.norm(part, axis=1, keepdims=True)
        part /= np.where(norms > 0, norms, 1)
    return vectors


def power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    """Raise a covariance matrix to a power, in the dimensions that vary."""
    variances, directions = np.linalg.eigh(covariance)
    varies = variances > SMALLEST * variances.max()
    return (directions[:, varies] * variances[varies] ** exponent) @ directions[:, varies].T
