"""Vectors of single rows that were read from a lake, kept in memory: on an object store each row is a request.

A stored vector never changes, and a row id is never given to another row, so nothing here becomes stale.  The rows that were
used least recently are evicted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import numpy as np

from tonelake.store import Lake, Snapshot, Space

CACHED_BYTES = 64 << 20                  # of each layer: 44,000 rows of 768 dimensions in float16
CACHED_LAYERS = 8

_kept: OrderedDict[tuple, OrderedDict[int, np.ndarray]] = OrderedDict()        # by lake, space and layer: row id -> vector
_lock = threading.Lock()


def read_kept_rows(lake: Lake, space: Space, layer: int, rows: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    """Return (row, dim) float32 vectors as stored of some rows of a snapshot; those not in memory are read at once."""
    vectors = np.empty((len(rows), space.dims[layer]), np.float32)
    missing = []
    with _lock:
        kept = _kept.setdefault((lake.identity, space.fingerprint, layer), OrderedDict())
        _kept.move_to_end((lake.identity, space.fingerprint, layer))
        while len(_kept) > CACHED_LAYERS:
            _kept.popitem(last=False)
        row_ids = snapshot.row_ids[rows].tolist()
        for place, row_id in enumerate(row_ids):
            found = kept.get(row_id)
            if found is None:
                missing.append(place)
            else:
                vectors[place] = found
                kept.move_to_end(row_id)
    if missing:
        read = lake.vectors(space).read_rows(snapshot, rows[missing], layer)
        vectors[missing] = read
        with _lock:
            for place, vector in zip(missing, read.astype(space.dtype), strict=True):
                kept[row_ids[place]] = vector
            while len(kept) * vectors.shape[1] * np.dtype(space.dtype).itemsize > CACHED_BYTES:
                kept.popitem(last=False)
    return vectors
