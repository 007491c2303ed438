"""Approximate indexes of a lake: built on request, extended after clips are added, searched in place of a scan.

Two implementations share the functions here.  On a local disk, an index is a FAISS index in files (`faiss_files`); on an
object store, and with `kind="lance"` anywhere, it is a part of the space's table (`lance_index`).  Both are described by a
small JSON file (`described_index`).  Each search compares the index with the table's version: removed rows are never
returned, and newer rows are scanned beside the index.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

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
)
from tonelake.index.search.lance_search import search_lance, search_lance_batch, vectors_of_lance
from tonelake.index.vectors import check_metric
from tonelake.store import InputError, Lake, LakeError, Snapshot, Space, is_local

if TYPE_CHECKING:
    from tonelake.embed import Cluster


def build_indexes(
    lake: Lake, layers: Sequence[int | str] = (), *, space: str | None = None, metric: str = "cosine", kind: str = "auto",
    recall: float = 0.95, engine: str = "local", address: str | None = None,
) -> list[str]:
    """Index layers for search among very many clips, or bring their indexes up to date; return one summary line per layer.

    `layers`: by default the space's default layer; "all" for every layer.  `recall`: share of the true ten nearest clips
    that a search must find.  `engine`: `ray` encodes new indexes on the Ray cluster at `address`, which only the kind "lance"
    allows.  Raises InputError as `build_index`, EncoderError if the cluster cannot be reached or fails.
    """
    from tonelake.embed import check_engine  # with encoders, which searches do without

    check_engine(engine, address)
    chosen = lake.spaces.get(space)
    names = chosen.layers if list(layers) == ["all"] else layers
    numbers = [chosen.layer_index(layer) for layer in names] or [chosen.default_layer]
    lines = []
    with nullcontext() if engine == "local" else open_cluster(lake, chosen, numbers, metric, kind, address) as cluster:
        for number in lake.progress(numbers, len(numbers), f"indexing {chosen.name}"):
            stored, done = build_index(lake, chosen, number, metric=metric, kind=kind, recall=recall, cluster=cluster)
            lines.append(describe_index(stored, done, chosen.layers))
    return lines


def open_cluster(
    lake: Lake, space: Space, layers: Sequence[int], metric: str, kind: str, address: str | None
) -> Cluster:
    """Connect to the cluster that indexes these layers.  Raises InputError if one of them would have an index in files."""
    from tonelake.embed import Cluster

    if not all(is_inside(lake, kind, find_index(lake, space, layer, metric=metric)) for layer in layers):
        raise InputError("engine 'ray': builds only indexes inside the lake, which other machines can write. Add --kind lance")
    return Cluster(address)


def is_inside(lake: Lake, kind: str, old: StoredIndex | None) -> bool:
    """Whether an index of this kind is built inside the table, where the layer has the index `old`."""
    return kind == LANCE or (kind == "auto" and (not is_local(lake.uri) or (old is not None and old.kind == LANCE)))


def build_index(
    lake: Lake, space: Space, layer: int, *, metric: str = "cosine", kind: str = "auto", recall: float = 0.95,
    cluster: Cluster | None = None,
) -> tuple[StoredIndex, str]:
    """Index one layer, or bring its index up to date; return its description and what was done: built, extended, or nothing.

    `kind`: "lance" for an index inside the table, or one of FAISS's in files beside it; "auto" extends an index of any kind,
    and chooses the kind of a new one by the lake's place and size ("lance" is kept).  `cluster`: encodes a new index inside
    the table.
    Raises InputError if the lake's place does not allow the kind, if there are too few vectors, or as the kind's own function.
    """
    check_metric(metric)
    if not 0 < recall <= 1:
        raise InputError(f"recall {recall:g}: must be above 0 and at most 1, for example 0.95")
    if kind not in ("auto", *KINDS, LANCE):
        raise InputError(f"no kind of index {kind!r}: choose auto, {', '.join(KINDS)}, {LANCE}")
    old = find_index(lake, space, layer, metric=metric)
    if is_inside(lake, kind, old):
        stored, done = build_lance(lake, space, layer, metric, recall, old, cluster)
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
    lake: Lake, space: Space, stored: StoredIndex, queries: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot
) -> tuple[np.ndarray, np.ndarray] | None:
    """Search an index with many queries; return (query, k) rows of the snapshot, -1 for none, and scores, nearest first.

    Returns None, and the caller scans, where that is faster or the index finds fewer than k: always with a mask of allowed
    rows for an index in files, and for one inside the table if the layer is on a local disk or in memory.
    """
    if stored.kind == LANCE:
        return search_lance_batch(lake, space, stored, queries, k, allowed, snapshot)
    return None if allowed is not None else search_files_batch(lake, space, stored, queries, k, snapshot)


def stored_vectors(lake: Lake, space: Space, stored: StoredIndex, rows: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    """Return (row, dim) float32 prepared vectors of some rows of a snapshot."""
    return (vectors_of_lance if stored.kind == LANCE else vectors_of_files)(lake, space, stored, rows, snapshot)
