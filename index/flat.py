"""Exact nearest neighbours among the vectors of one layer: by FAISS where it is installed, else by NumPy.

Cosine and inner product give scores, higher is nearer; l2 gives Euclidean distances, lower is nearer.  A layer is read
and normalised once and kept for the queries that follow, for as long as neither clips nor vectors have changed.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from store import InputError, Lake, Space

if TYPE_CHECKING:
    from index.facets import Facets

METRICS = ("cosine", "ip", "l2")
KEPT_SHARE = 0.25                        # of the machine's memory; a layer of 100,000 clips × 768 × float32 is 307 MB

_kept: OrderedDict[tuple, FlatLayer] = OrderedDict()


@dataclass(frozen=True)
class FlatLayer:
    """One layer of one space, ready to be searched."""

    metric: str
    ids: pl.Series                       # clip ids
    vectors: np.ndarray                  # (clip, dim) float32; of unit length for cosine
    facets: Facets | None = None         # through which clips and queries are seen

    def ready(self, query: np.ndarray) -> np.ndarray:
        """A (dim,) query of the space as the metric compares it."""
        seen = query[None] if self.facets is None else self.facets.apply(query[None])
        return prepare(seen, self.metric)[0]

    def scores(self, query: np.ndarray) -> np.ndarray:
        """(clip,) float32: the cosine or inner product of every clip with a query."""
        return self.vectors @ self.ready(query)

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(rows, scores) of the k nearest, nearest first; `allowed`, a (clip,) bool mask, is kept exactly.

        Fewer than k come back only where fewer are allowed.
        """
        query = self.ready(query)
        rows = None if allowed is None else np.flatnonzero(allowed)
        kept = len(self.ids) if rows is None else len(rows)
        if not kept:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if rows is not None and len(self.ids) - kept > max(1024, k):
            near, scores = nearest(query, self.vectors[rows], min(k, kept), self.metric)
            return rows[near], scores
        # Few are excluded: that many more neighbours hold all of the k wanted, and nothing is copied.
        near, scores = nearest(query, self.vectors, min(k + len(self.ids) - kept, len(self.ids)), self.metric)
        if allowed is not None:
            keep = allowed[near]
            near, scores = near[keep], scores[keep]
        return near[:k], scores[:k]


def load_layer(lake: Lake, space: Space, layer: int, *, metric: str = "cosine", stat: str = "mean") -> FlatLayer:
    """A layer of every embedded clip, from memory where the lake has not changed since it was read."""
    if metric not in METRICS:
        raise InputError(f"no metric {metric!r}: choose one of {', '.join(METRICS)}")

    def read() -> FlatLayer:
        ids, vectors = lake.vectors(space).layer(layer, stat=stat)
        if not len(ids):
            raise InputError(f"no clip is embedded in space {space.name!r} yet: run `tonelake embed --space {space.name}`")
        return FlatLayer(metric, ids, prepare(vectors, metric))

    return keep_layer((*version_of(lake, space), layer, metric, stat), read)


def version_of(lake: Lake, space: Space) -> tuple:
    """What changes whenever clips or vectors do."""
    return (lake.uri, space.fingerprint, lake.vectors(space).table.version, lake.clips.table.version)


def keep_layer(key: tuple, make: Callable[[], FlatLayer]) -> FlatLayer:
    """A layer from memory, or made and kept there, while the layers used least recently go."""
    if key in _kept:
        _kept.move_to_end(key)
        return _kept[key]
    newest = _kept[key] = make()
    while len(_kept) > 1 and sum(layer.vectors.nbytes for layer in _kept.values()) > KEPT_SHARE * memory_bytes():
        _kept.popitem(last=False)
    return newest


@lru_cache(maxsize=1)
def memory_bytes() -> int:
    """Physical memory of this machine; 8 GB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


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


def nearest(query: np.ndarray, vectors: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(rows, scores) of the k nearest rows to one (dim,) query, nearest first, rows of one score in their order."""
    faiss = faiss_module()
    if faiss is not None:
        kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
        scores, rows = (found[0] for found in faiss.knn(query[None], vectors, k, metric=kind))
        scores = np.sqrt(np.maximum(scores, 0)) if metric == "l2" else scores
    else:
        scores, rows = nearest_numpy(query, vectors, k, metric)
    order = np.lexsort((rows, scores if metric == "l2" else -scores))
    return rows[order].astype(np.int64), scores[order]


def nearest_numpy(query: np.ndarray, vectors: np.ndarray, k: int, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The same by NumPy alone: (scores, rows), in no promised order."""
    scores = np.linalg.norm(vectors - query, axis=1) if metric == "l2" else vectors @ query
    far = scores if metric == "l2" else -scores
    rows = np.argpartition(far, k - 1)[:k]
    return scores[rows], rows


@lru_cache(maxsize=1)
def faiss_module() -> Any:
    """faiss, or None where neither faiss-cpu nor faiss-gpu is installed."""
    try:
        import faiss

        return faiss
    except ImportError:
        return None
