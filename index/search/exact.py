"""Exact nearest neighbours among the vectors of one layer, by FAISS or, if it is not installed, by NumPy.

Cosine and inner product give scores, higher is nearer; l2 gives Euclidean distances, lower is nearer.  A layer is read
and normalised once and cached for later queries, until clips or vectors change.  Mixtures, facets and narrow filters are
searched this way, since an approximate index cannot answer them; of a lake on an object store see `narrow`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.index.search.faiss import nearest
from tonelake.index.vectors import check_metric, prepare, unit_in_place
from tonelake.store import InputError, Lake, Space, memory_bytes

ROWS_AT_ONCE = 512
CACHE_SHARE = 0.25                       # of the machine's memory; a layer of 100,000 clips × 768 × float32 is 307 MB

_cache: OrderedDict[tuple, ExactLayer] = OrderedDict()
_cache_lock = threading.RLock()          # reentrant: learning a facet loads a layer as well


@dataclass(frozen=True)
class ExactLayer:
    """One layer of one space, ready to be searched."""

    metric: str
    ids: pl.Series                       # clip ids
    vectors: np.ndarray                  # (clip, dim) float32; of unit length for cosine

    def prepare_query(self, query: np.ndarray) -> np.ndarray:
        """Prepare a (dim,) query of the space for comparison with `vectors`."""
        return prepare(query[None], self.metric)[0]

    def scores(self, query: np.ndarray) -> np.ndarray:
        """Return (clip,) float32: the cosine or inner product of every clip with a query."""
        return self.vectors @ self.prepare_query(query)

    def scores_of(self, queries: Sequence[np.ndarray]) -> np.ndarray:
        """Return (query, clip) float32: the scores of several queries by one product, which reads the vectors once."""
        return np.stack([self.prepare_query(query) for query in queries]) @ self.vectors.T

    def nearness(self, query: np.ndarray) -> np.ndarray:
        """Return (clip,) float32, higher is nearer: scores, or negative distances for l2."""
        if self.metric != "l2":
            return self.scores(query)
        prepared, found = self.prepare_query(query), np.empty(len(self.ids), np.float32)
        for start in range(0, len(found), ROWS_AT_ONCE):             # differences of a block fit in the processor's cache
            part = slice(start, start + ROWS_AT_ONCE)
            found[part] = -np.linalg.norm(self.vectors[part] - prepared, axis=1)
        return found

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return (rows, scores) of the k nearest, nearest first, among the rows that `allowed`, a (clip,) bool mask, keeps.

        Fewer than k are returned only if fewer are allowed.
        """
        query = self.prepare_query(query)
        rows = None if allowed is None else np.flatnonzero(allowed)
        kept = len(self.ids) if rows is None else len(rows)
        if not kept:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        if rows is not None and len(self.ids) - kept > max(1024, k):
            found, scores = nearest(query, self.vectors[rows], min(k, kept), self.metric)
            return rows[found], scores
        # Few rows are excluded: k plus that many neighbours contain the k wanted, without copying the vectors.
        found, scores = nearest(query, self.vectors, min(k + len(self.ids) - kept, len(self.ids)), self.metric)
        if allowed is not None:
            keep = allowed[found]
            found, scores = found[keep], scores[keep]
        return found[:k], scores[:k]


def highest(scores: np.ndarray, k: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Return the rows of the k highest scores among those allowed, highest first, equal scores in row order."""
    rows = np.arange(len(scores)) if allowed is None else np.flatnonzero(allowed)
    if k < len(rows):
        rows = rows[np.argpartition(-scores[rows], k - 1)[:k]]
    return rows[np.lexsort((rows, -scores[rows]))]


def load_layer(lake: Lake, space: Space, layer: int, *, metric: str = "cosine") -> ExactLayer:
    """Return a layer of every embedded clip, from the cache if the lake has not changed since it was read."""
    check_metric(metric)

    def read() -> ExactLayer:
        ids, vectors = lake.vectors(space).layer(layer)
        if not len(ids):
            raise InputError(f"no clip is embedded in space {space.name!r} yet: run `tonelake embed --space {space.name}`")
        return ExactLayer(metric, ids, unit_in_place(vectors) if metric == "cosine" else vectors)

    return cached_layer((*cache_version(lake, space), layer, metric), read)


def is_loaded(lake: Lake, space: Space, layer: int, metric: str) -> bool:
    """Whether the newest state of a layer is in the cache."""
    return (*cache_version(lake, space), layer, metric) in _cache


def cache_version(lake: Lake, space: Space) -> tuple:
    """Return a key that changes whenever clips or vectors change."""
    return (lake.identity, space.fingerprint, lake.vectors(space).table.version, lake.clips.table.version)


def cached_layer(key: tuple, make: Callable[[], ExactLayer]) -> ExactLayer:
    """Return a layer from the cache, or make and cache it; layers used least recently are evicted.

    One thread makes a layer at a time: if several ask for the same layer, as viewers of the app do, the others wait.
    """
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        newest = _cache[key] = make()
        while len(_cache) > 1 and sum(layer.vectors.nbytes for layer in _cache.values()) > CACHE_SHARE * memory_bytes():
            _cache.popitem(last=False)
        return newest
