"""Decide what a search with a narrow filter reads: single rows, or a whole layer, which later searches find in memory.

On a local disk a layer is read, unless it is too large to be kept in memory.  On an object store it depends on the requests.

A row far from others is a request of its own.  Lance reads rows with less than REQUEST_BYTES between them by one request, so
that a request costs as much time as that many bytes; a layer is read by few requests.
"""

from __future__ import annotations

import numpy as np

from tonelake.index.search.described_index import LANCE, StoredIndex
from tonelake.index.search.exact import CACHE_SHARE, is_loaded
from tonelake.index.search.row_cache import CACHED_BYTES, read_kept_rows
from tonelake.index.vectors import prepare
from tonelake.store import Lake, Snapshot, Space, is_local, memory_bytes

NARROW = 0.1                             # share of rows; a filter that keeps less is answered by a scan, exact and faster
REQUEST_BYTES = 64 << 10


def share_of(allowed: np.ndarray | None) -> float:
    """Return the share of the rows that a (row,) bool mask keeps; 1 without a mask."""
    return 1.0 if allowed is None or not len(allowed) else np.count_nonzero(allowed) / len(allowed)


def scan_is_faster(lake: Lake, space: Space, stored: StoredIndex, allowed: np.ndarray | None) -> bool:
    """Whether a filter, a (row,) bool mask, keeps so few clips that comparing all of them is faster than searching the index.

    It is not where a scan would first read the layer from an object store.
    """
    if share_of(allowed) >= NARROW:
        return False
    return stored.kind != LANCE or not is_away(lake, space, stored.layer, stored.metric)


def is_away(lake: Lake, space: Space, layer: int, metric: str) -> bool:
    """Whether a scan of the layer would first read it from an object store."""
    return not is_local(lake.uri) and not is_loaded(lake, space, layer, metric)


def exceeds_memory(lake: Lake, space: Space, layer: int, metric: str, rows: int) -> bool:
    """Whether a scan of a layer of `rows` rows on a local disk would first read it, and memory cannot hold it."""
    too_large = 4 * space.dims[layer] * rows > CACHE_SHARE * memory_bytes()
    return too_large and is_local(lake.uri) and not is_loaded(lake, space, layer, metric)


def rows_are_cheaper(space: Space, layer: int, rows: np.ndarray, others: int) -> bool:
    """Whether reading some rows, rising, costs less than reading `others` bytes; never if they do not fit into `row_cache`."""
    row_bytes = row_size(space, layer)
    gaps = (np.diff(rows) - 1) * row_bytes
    cost = len(rows) * row_bytes + int(np.minimum(gaps, REQUEST_BYTES).sum()) + REQUEST_BYTES
    return cost < others and len(rows) * row_bytes <= CACHED_BYTES


def requests_are_cheaper(space: Space, layer: int, count: int, total: int) -> bool:
    """Whether reading `count` unknown rows, each by a request, costs less than reading the layer of `total` rows."""
    return count * (REQUEST_BYTES + row_size(space, layer)) < total * row_size(space, layer)


def row_size(space: Space, layer: int) -> int:
    """Return the bytes of one vector as stored."""
    return space.dims[layer] * np.dtype(space.dtype).itemsize


def read_allowed(
    lake: Lake, space: Space, layer: int, metric: str, allowed: np.ndarray, snapshot: Snapshot, stored: StoredIndex | None
) -> np.ndarray | None:
    """Return (allowed, dim) float32 prepared vectors of the rows that a (row,) bool mask keeps, read one by one.

    Returns None where the mask is not narrow, where the layer is in memory or, on a local disk, fits there, and where the lists
    of the index `stored` or, without one, the layer cost less to read.
    """
    if share_of(allowed) >= NARROW:
        return None
    rows = np.flatnonzero(allowed)
    if exceeds_memory(lake, space, layer, metric, len(allowed)):
        return prepare(lake.vectors(space).read_rows(snapshot, rows, layer), metric)
    if not is_away(lake, space, layer, metric):
        return None
    if not rows_are_cheaper(space, layer, rows, len(allowed) * row_size(space, layer) if stored is None else stored.bytes):
        return None
    return prepare(read_kept_rows(lake, space, layer, rows, snapshot), metric)
