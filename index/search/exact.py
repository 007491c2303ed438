"""Exact nearest neighbours among the vectors of one layer: by FAISS where it is installed, else by NumPy.

Cosine and inner product give scores, higher is nearer; l2 gives Euclidean distances, lower is nearer.  A layer is read
and normalised once and kept for the queries that follow, for as long as neither clips nor vectors have changed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake.index.search.faiss import nearest
from tonelake.index.vectors import METRICS, prepare
from tonelake.store import InputError, Lake, Space, memory_bytes

if TYPE_CHECKING:
    from tonelake.index.search.facets import Facets

KEPT_SHARE = 0.25                        # of the machine's memory; a layer of 100,000 clips × 768 × float32 is 307 MB

_kept: OrderedDict[tuple, FlatLayer] = OrderedDict()
_keeping = threading.RLock()             # again by the same thread: what a facet is learned from is a layer too


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
    """A layer from memory, or made and kept there, while the layers used least recently go.

    One thread makes a layer at a time: of several that ask for the same one, as viewers of the app do, the others wait.
    """
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
        newest = _kept[key] = make()
        while len(_kept) > 1 and sum(layer.vectors.nbytes for layer in _kept.values()) > KEPT_SHARE * memory_bytes():
            _kept.popitem(last=False)
        return newest

