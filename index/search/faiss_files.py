"""FAISS indexes in files beside the tables of a lake on a local disk.

    indexes/<space>/<column>-<metric>-<kind>.json      description with the names of the two files; written last
                    ….<version>.faiss, ….<version>.rows.npy

An index identifies its vectors by Lance's row ids, which survive compaction and change when a row is rewritten.  Each
search compares them with the table's: removed rows are dropped from the hits, and newer rows are scanned beside the index.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.index.search.approximate import KINDS, ApproximateIndex, build
from tonelake.index.search.described_index import STAT, StoredIndex, damaged, index_name
from tonelake.index.search.faiss import require_faiss
from tonelake.index.search.narrow import NARROW, share_of
from tonelake.index.vectors import prepare, prepare_one
from tonelake.store import InputError, Lake, LakeError, Snapshot, Space, is_local, memory_bytes

MAPPED_SHARE = 0.1                       # of memory; a larger layer is read in parts, since its index is in memory as well
EXTEND_SHARE = 0.5                       # a larger share of new clips leads to a rebuild, with the width tuned again

loaded_indexes: dict[tuple[str, tuple[str, ...]], LoadedIndex] = {}  # by lake and files, which are never rewritten


def build_files(
    lake: Lake, space: Space, layer: int, metric: str, kind: str, recall: float, old: StoredIndex | None
) -> tuple[StoredIndex, str]:
    """Do the work of `build_index` for FAISS's kinds; `old`: the index that the layer has, of any kind.

    Raises InputError if FAISS is missing, the lake is not on a local disk, or there are too few vectors.
    """
    faiss = require_faiss()
    folder = index_folder(lake, space)
    started = time.perf_counter()
    table = lake.vectors(space)
    snapshot = table.table.snapshot()
    row_ids = snapshot.row_ids
    if old is not None and old.files and kind in ("auto", old.kind) and old.asked == recall:
        loaded = load_index(lake, space, old)
        known, view = loaded.row_ids, loaded.view_of(snapshot)
        new = view.new_rows
        if not len(new) and not view.removed:
            return old, "nothing to do"
        if not view.removed and len(new) <= EXTEND_SHARE * len(known):
            # Load a copy: a memory-mapped index cannot grow, and other threads may be searching it.
            grown = faiss.read_index(str(folder / old.files[0]))
            index = ApproximateIndex(
                kind=old.kind, metric=metric, faiss_index=grown, width=old.width, recall=old.recall
            )
            index.add(table.read_rows(snapshot, new, layer))
            return write_index(folder, replace(
                old, rows=len(row_ids), table_version=snapshot.dataset.version, built_at=time.time(),
                build_seconds=time.perf_counter() - started,
            ), index, np.concatenate([known, row_ids[new]])), f"extended by {len(new):,} clips"
    size = len(row_ids) * space.dims[layer] * np.dtype(space.dtype).itemsize
    mapped = size > MAPPED_SHARE * memory_bytes()
    vectors: Any = table.mapped(snapshot, layer) if mapped else table.read(snapshot, layer, dtype=space.dtype)
    index, order = build(vectors, metric, kind=kind, recall=recall)
    description = StoredIndex(
        space=space.name, fingerprint=space.fingerprint, layer=layer, stat=STAT, metric=metric, kind=index.kind,
        factory=KINDS[index.kind].factory(*vectors.shape), rows=len(vectors), dim=vectors.shape[1], width=index.width,
        recall=index.recall, asked=recall, table_version=snapshot.dataset.version, faiss=faiss.__version__,
        built_at=time.time(), build_seconds=time.perf_counter() - started, files=("", ""), bytes=0,
    )
    return write_index(folder, description, index, row_ids[order]), "built"


def write_index(folder: Path, stored: StoredIndex, index: ApproximateIndex, row_ids: np.ndarray) -> StoredIndex:
    """Write an index: its files under new names, then the description that names them; then delete the old files."""
    faiss = require_faiss()
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{index_name(stored)}.{time.time_ns():x}"
    files = (f"{stem}.faiss", f"{stem}.rows.npy")
    try:
        faiss.write_index(index.faiss_index, str(folder / files[0]))
        np.save(folder / files[1], row_ids)
        for file in files:
            fsync(folder / file)
        done = replace(stored, files=files, bytes=sum((folder / file).stat().st_size for file in files))
        temporary = folder / f".{stem}.json"
        temporary.write_text(json.dumps(asdict(done), indent=2))
        fsync(temporary)
        temporary.replace(folder / f"{index_name(stored)}.json")
    except (OSError, RuntimeError) as error:
        for file in files:
            (folder / file).unlink(missing_ok=True)
        raise LakeError(f"{folder}: the index cannot be written ({error}). Free some space and build it again") from error
    for other in folder.glob(f"{index_name(stored)}.*.*"):
        if other.name not in files:
            with contextlib.suppress(OSError):
                other.unlink()
    return done


def fsync(path: Path) -> None:
    """Flush a file to disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def index_folder(lake: Lake, space: Space) -> Path:
    """Return the folder of a space's indexes.  Raises InputError for a lake on an object store."""
    if not is_local(lake.uri):
        raise InputError(f"{lake.uri}: FAISS's indexes need a lake on a local disk. Leave out --kind for one inside the lake")
    return Path(lake.uri) / "indexes" / space.name


@dataclass(kw_only=True)
class IndexView:
    """An index compared with one version of its table."""

    snapshot: Snapshot
    row_of: np.ndarray                   # (position,) row of the table, -1 for a removed row
    removed: int                         # positions whose row was removed
    new_rows: np.ndarray                 # rows that are missing from the index
    up_to_date: bool                     # no removed and no new rows
    new_vectors: np.ndarray | None = None            # of `new_rows`, once they have been read
    _positions: np.ndarray | None = None

    def positions(self, rows: int) -> np.ndarray:
        """(row,) position of each row of the table in the index, -1 for a row that is missing from it."""
        if self._positions is None:
            positions = np.full(rows, -1, np.int64)
            present = np.flatnonzero(self.row_of >= 0)
            positions[self.row_of[present]] = present
            self._positions = positions  # once it is complete: other threads search as well
        return self._positions

    def vectors_of_new(self, lake: Lake, space: Space, stored: StoredIndex) -> np.ndarray:
        """The prepared vectors of `new_rows`, read once."""
        if self.new_vectors is None:
            vectors = lake.vectors(space).read_rows(self.snapshot, self.new_rows, stored.layer)
            self.new_vectors = prepare(vectors, stored.metric)
        return self.new_vectors


@dataclass
class LoadedIndex:
    """An index in memory."""

    stored: StoredIndex
    index: ApproximateIndex
    row_ids: np.ndarray                  # (position,) Lance's row ids
    view: IndexView | None = None

    def view_of(self, snapshot: Snapshot) -> IndexView:
        """Compare the index with a version of the table; the last result is cached."""
        view = self.view
        # Comparing identity first is faster than comparing versions.
        if view is None or (view.snapshot is not snapshot and view.snapshot.dataset.version != snapshot.dataset.version):
            now = snapshot.row_ids
            row_of = rows_of_ids(self.row_ids, now)
            new = np.ones(len(now), bool)
            new[row_of[row_of >= 0]] = False
            removed, new_rows = int((row_of < 0).sum()), np.flatnonzero(new)
            view = self.view = IndexView(
                snapshot=snapshot, row_of=row_of, removed=removed, new_rows=new_rows,
                up_to_date=not removed and not len(new_rows),
            )
        return view


def load_index(lake: Lake, space: Space, stored: StoredIndex) -> LoadedIndex:
    """Load an index, or return it from memory.

    Raises LakeError if a file is damaged, with the commands that rebuild it.
    """
    known = loaded_indexes.get((lake.identity, stored.files))
    if known is not None:
        return known
    folder = index_folder(lake, space)
    faiss = require_faiss()
    try:
        size = sum((folder / file).stat().st_size for file in stored.files)
        if size != stored.bytes:
            raise ValueError(f"{size:,} bytes instead of {stored.bytes:,}")
        found = faiss.read_index(str(folder / stored.files[0]), faiss.IO_FLAG_MMAP_IFC)
        row_ids = np.load(folder / stored.files[1], allow_pickle=False)
        if not found.ntotal == len(row_ids) == stored.rows or found.d != stored.dim:
            raise ValueError("its content differs from its description")
    except (OSError, ValueError, RuntimeError) as error:
        raise damaged(stored, error) from error
    for key, older in list(loaded_indexes.items()):
        if key[0] == lake.identity and (older.stored.space, index_name(older.stored)) == (stored.space, index_name(stored)):
            del loaded_indexes[key]
    index = ApproximateIndex(
        kind=stored.kind, metric=stored.metric, faiss_index=found, width=stored.width, recall=stored.recall
    )
    loaded = LoadedIndex(stored, index, row_ids)
    loaded_indexes[lake.identity, stored.files] = loaded
    return loaded


def rows_behind(lake: Lake, space: Space, stored: StoredIndex, snapshot: Snapshot) -> tuple[int, int]:
    """Return how many rows an index lacks, and how many of its rows were removed.  Raises LakeError if it is damaged."""
    view = load_index(lake, space, stored).view_of(snapshot)
    return len(view.new_rows), view.removed


def delete_files(lake: Lake, space: Space, stored: StoredIndex) -> None:
    """Delete an index's files, the description first."""
    folder = index_folder(lake, space)
    (folder / f"{index_name(stored)}.json").unlink(missing_ok=True)
    for file in stored.files:
        (folder / file).unlink(missing_ok=True)
    loaded_indexes.pop((lake.identity, stored.files), None)


def search_files(
    lake: Lake, space: Space, stored: StoredIndex, query: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot
) -> tuple[np.ndarray, np.ndarray] | None:
    """Do the work of `search_stored`."""
    loaded = load_index(lake, space, stored)
    view = loaded.view_of(snapshot)
    if allowed is None and view.up_to_date and k <= stored.rows:
        found, scores = loaded.index.search_one(np.asarray(query, np.float32), k)
        if found[-1] >= 0:
            return view.row_of[found], scores
    prepared = prepare_one(query, stored.metric)
    share = share_of(allowed)
    if share < NARROW:
        return None
    wanted = min(k if allowed is None else int(k / share) + k, len(loaded.row_ids)) + view.removed
    found, scores = (values[0] for values in loaded.index.search(prepared, min(wanted, len(loaded.row_ids))))
    rows = np.where(found >= 0, view.row_of[found], -1)
    if len(view.new_rows):
        new = view.vectors_of_new(lake, space, stored)
        new_scores = np.linalg.norm(new - prepared, axis=1) if stored.metric == "l2" else new @ prepared[0]
        rows, scores = np.concatenate([rows, view.new_rows]), np.concatenate([scores, new_scores])
    keep = rows >= 0 if allowed is None else (rows >= 0) & allowed[rows]
    rows, scores = rows[keep], scores[keep]
    if len(rows) < min(k, len(snapshot.row_ids) if allowed is None else int(np.count_nonzero(allowed))):
        return None
    order = np.lexsort((rows, scores if stored.metric == "l2" else -scores))[:k]
    return rows[order], scores[order]


def search_files_batch(
    lake: Lake, space: Space, stored: StoredIndex, queries: np.ndarray, k: int, snapshot: Snapshot
) -> tuple[np.ndarray, np.ndarray] | None:
    """Do the work of `search_stored_batch` where every row is allowed."""
    loaded = load_index(lake, space, stored)
    view = loaded.view_of(snapshot)
    if not view.up_to_date:
        return None
    found, scores = loaded.index.search(prepare(queries, stored.metric), min(k, stored.rows))
    return None if (found < 0).any() else (view.row_of[found], scores)


def vectors_of_files(lake: Lake, space: Space, stored: StoredIndex, rows: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    """Do the work of `stored_vectors`: vectors that the index keeps, newer ones as stored."""
    loaded = load_index(lake, space, stored)
    view = loaded.view_of(snapshot)
    positions = view.positions(len(snapshot.row_ids))[rows]
    vectors = np.empty((len(rows), stored.dim), np.float32)
    known = positions >= 0
    if known.any():
        vectors[known] = kept_vectors(loaded.index.faiss_index, positions[known])
    if not known.all():
        vectors[~known] = view.vectors_of_new(lake, space, stored)[np.searchsorted(view.new_rows, rows[~known])]
    return vectors


def kept_vectors(index: Any, positions: np.ndarray) -> np.ndarray:
    """Return (position, dim) float32 vectors that a FAISS index keeps."""
    try:
        return index.reconstruct_batch(positions)
    except RuntimeError:                 # inverted lists find a vector by its position only with a map, made once
        require_faiss().extract_index_ivf(index).make_direct_map(True)
        return index.reconstruct_batch(positions)


def rows_of_ids(known: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Return for each row id of an index the current row of the table with that id, or -1."""
    if len(known) == len(now) and np.array_equal(known, now):
        return np.arange(len(now))
    if not len(now):
        return np.full(len(known), -1)
    order = None if (now[1:] > now[:-1]).all() else np.argsort(now, kind="stable")       # rising unless rows were updated
    at = np.searchsorted(now, known, sorter=order)
    at = np.where(at < len(now), at, 0)
    rows = at if order is None else order[at]
    return np.where(now[rows] == known, rows, -1)
