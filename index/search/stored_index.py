"""Approximate indexes of a lake: built on request, extended after clips are added, searched in place of a scan.

Two implementations share the functions here.  On a local disk, an index is a FAISS index in files (`faiss_files`); on an
object store, and with `kind="lance"` anywhere, it is a part of the space's table (`lance_index`).  Both are described by a
small JSON file (`described_index`).  Each search compares the index with the table's version: removed rows are never
returned, and newer rows are scanned beside the index.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.index.search.approximate import KINDS
from tonelake.index.search.described_index import LANCE, StoredIndex, describe_index, find_index, read_indexes
from tonelake.index.search.faiss_files import (
    build_files,
    delete_files,
    rows_behind,
    search_files,
    search_files_batch,
    vectors_of_files,
)
from tonelake.index.search.lance_index import (
    build_lance,
    delete_lance,
    rows_behind_lance,
    search_lance,
    vectors_of_lance,
)
from tonelake.index.vectors import check_metric
from tonelake.store import InputError, Lake, LakeError, Snapshot, Space, is_local


def build_indexes(
    lake: Lake, layers: Sequence[int | str] = (), *, space: str | None = None, metric: str = "cosine", kind: str = "auto",
    recall: float = 0.95,
) -> list[str]:
    """Index layers for search among very many clips, or bring their indexes up to date; return one summary line per layer.

    `layers`: by default the space's default layer; "all" for every layer.  `recall`: share of the true ten nearest clips
    that a search must find.  Raises InputError as `build_index`.
    """
    chosen = lake.spaces.get(space)
    names = chosen.layers if list(layers) == ["all"] else layers
    numbers = [chosen.layer_index(layer) for layer in names] or [chosen.default_layer]
    lines = []
    for number in lake.progress(numbers, len(numbers), f"indexing {chosen.name}"):
        stored, done = build_index(lake, chosen, number, metric=metric, kind=kind, recall=recall)
        lines.append(describe_index(stored, done, chosen.layers))
    return lines


def build_index(
    lake: Lake, space: Space, layer: int, *, metric: str = "cosine", kind: str = "auto", recall: float = 0.95
) -> tuple[StoredIndex, str]:
    """Index one layer, or bring its index up to date; return its description and what was done: built, extended, or nothing.

    `kind`: "lance" for an index inside the table, or one of FAISS's in files beside it; "auto" extends an index of any kind,
    and chooses the kind of a new one by the lake's place and size ("lance" is kept).
    Raises InputError if the lake's place does not allow the kind, if there are too few vectors, or as the kind's own function.
    """
    check_metric(metric)
    if not 0 < recall <= 1:
        raise InputError(f"recall {recall:g}: must be above 0 and at most 1, for example 0.95")
    if kind not in ("auto", *KINDS, LANCE):
        raise InputError(f"no kind of index {kind!r}: choose auto, {', '.join(KINDS)}, {LANCE}")
    old = find_index(lake, space, layer, metric=metric)
    kept = old.kind if old is not None else None
    if kind == LANCE or (kind == "auto" and (not is_local(lake.uri) or kept == LANCE)):
        stored, done = build_lance(lake, space, layer, metric, recall, old)
    else:
        stored, done = build_files(lake, space, layer, metric, kind, recall, old)
    if old is not None and old.kind != stored.kind:
        delete_index(lake, space, old)
    return stored, done


def list_indexes(lake: Lake) -> pl.DataFrame:
    """Return one row per index: space, layer, metric, kind, rows, recall, missing clips (behind) and removed ones (gone)."""
    rows = []
    for space in lake.spaces.all():
        for stored in read_indexes(lake, space):
            snapshot = lake.vectors(space).table.snapshot()
            compare = rows_behind_lance if stored.kind == LANCE else rows_behind
            try:
                behind, gone = compare(lake, space, stored, snapshot)
                # Lance leaves removed rows out of an index by itself.
                state = "up to date" if not behind and (not gone or stored.kind == LANCE) else "behind"
            except LakeError:
                behind, gone, state = len(snapshot.keys), 0, "damaged"
            rows.append((
                space.name, space.layers[stored.layer], stored.stat, stored.metric, stored.kind, stored.rows, stored.recall,
                behind, gone, state, stored.bytes / 1e6,
            ))
    schema = {
        "space": pl.String, "layer": pl.String, "stat": pl.String, "metric": pl.String, "kind": pl.String, "rows": pl.Int64,
        "recall": pl.Float64, "behind": pl.Int64, "gone": pl.Int64, "state": pl.String, "mb": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def drop_indexes(lake: Lake, *, space: str | None = None, layer: int | str | None = None) -> int:
    """Delete the indexes of a space, or of one of its layers; return their number."""
    chosen = lake.spaces.get(space)
    number = None if layer is None else chosen.layer_index(layer)
    found = [stored for stored in read_indexes(lake, chosen) if number is None or stored.layer == number]
    for stored in found:
        delete_index(lake, chosen, stored)
    return len(found)


def delete_index(lake: Lake, space: Space, stored: StoredIndex) -> None:
    """Delete an index, its description first."""
    (delete_lance if stored.kind == LANCE else delete_files)(lake, space, stored)


def search_stored(
    lake: Lake, space: Space, stored: StoredIndex, query: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot
) -> tuple[np.ndarray, np.ndarray] | None:
    """Search an index; return (rows of the snapshot, exact scores) of the nearest k, nearest first.

    `allowed`: a (row,) bool mask.  Returns None, and the caller scans, if the mask is so narrow that a scan is exact and
    fast, or if the index finds fewer than k allowed clips.  Raises LakeError if the index is damaged.
    """
    search = search_lance if stored.kind == LANCE else search_files
    return search(lake, space, stored, query, k, allowed, snapshot)


def search_stored_batch(
    lake: Lake, space: Space, stored: StoredIndex, queries: np.ndarray, k: int
) -> tuple[pl.Series, np.ndarray, np.ndarray] | None:
    """Search an index with many queries; return (ids of all embedded clips, (query, k) rows, scores), nearest first.

    Returns None, and the caller scans, if the index is not up to date, if vectors of removed clips are stored, if it
    finds fewer than k, or if it is inside the table: Lance answers one query at a time, and a scan is faster.
    """
    return None if stored.kind == LANCE else search_files_batch(lake, space, stored, queries, k)


def stored_vectors(lake: Lake, space: Space, stored: StoredIndex, rows: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    """Return (row, dim) float32 prepared vectors of some rows of a snapshot."""
    return (vectors_of_lance if stored.kind == LANCE else vectors_of_files)(lake, space, stored, rows, snapshot)
