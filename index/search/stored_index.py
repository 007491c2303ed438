"""Approximate indexes on disk, beside the lake's tables: built on request, extended after clips are added.

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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.index.search.approximate import KINDS, RECALL_AT, ApproximateIndex, build
from tonelake.index.search.faiss import require_faiss
from tonelake.index.vectors import check_metric, prepare, prepare_one
from tonelake.store import InputError, Lake, LakeError, Snapshot, Space, check_types, is_local

NARROW = 0.1                             # share of rows; a filter that keeps less is answered by a scan, exact and faster
EXTEND_SHARE = 0.5                       # a larger share of new clips leads to a rebuild, with the width tuned again

STAT = "mean"                            # vectors pooled by the mean are indexed; descriptions and file names say so

_loaded: dict[tuple[str, tuple[str, str]], LoadedIndex] = {}         # by lake and files, which are never rewritten


@dataclass(frozen=True, kw_only=True)
class StoredIndex:
    """Description of an index; its fields are the keys of the JSON file."""

    space: str
    fingerprint: str
    layer: int
    stat: str
    metric: str
    kind: str
    factory: str
    rows: int
    dim: int
    width: int
    recall: float                        # recall@10 of the queries held out at build time
    asked: float                         # requested recall
    table_version: int
    faiss: str
    built_at: float                      # seconds since 1970
    build_seconds: float
    files: tuple[str, str]               # FAISS index, row ids
    bytes: int


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

    Raises InputError if FAISS is missing, the lake is not on a local disk, or there are too few vectors.
    """
    faiss = require_faiss()
    check_metric(metric)
    if not 0 < recall <= 1:
        raise InputError(f"recall {recall:g}: must be above 0 and at most 1, for example 0.95")
    folder = index_folder(lake, space)
    started = time.perf_counter()
    table = lake.vectors(space)
    snapshot = table.table.snapshot()
    row_ids = snapshot.row_ids
    old = find_index(lake, space, layer, metric=metric)
    if old is not None and kind in ("auto", old.kind) and old.asked == recall:
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
    vectors = table.read(snapshot, layer, dtype=space.dtype)
    index, order = build(vectors, metric, kind=kind, recall=recall)
    description = StoredIndex(
        space=space.name, fingerprint=space.fingerprint, layer=layer, stat=STAT, metric=metric, kind=index.kind,
        factory=KINDS[index.kind].factory(*vectors.shape), rows=len(vectors), dim=vectors.shape[1], width=index.width,
        recall=index.recall, asked=recall, table_version=snapshot.dataset.version, faiss=faiss.__version__,
        built_at=time.time(), build_seconds=time.perf_counter() - started, files=("", ""), bytes=0,
    )
    if old is not None and old.kind != index.kind:
        delete_index(lake, folder, old)
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


def index_name(stored: StoredIndex) -> str:
    """Return the common stem of an index's file names."""
    return f"{stored.stat}_{stored.layer:02d}-{stored.metric}-{stored.kind}"


def index_folder(lake: Lake, space: Space) -> Path:
    """Return the folder of a space's indexes.  Raises InputError for a lake on an object store."""
    if not is_local(lake.uri):
        raise InputError(f"{lake.uri}: indexes need a lake on a local disk. Without one, search is exact")
    return Path(lake.uri) / "indexes" / space.name


def read_indexes(lake: Lake, space: Space) -> list[StoredIndex]:
    """Return the readable indexes of a space.  Unreadable ones are skipped, and replaced when the index is built again."""
    if not is_local(lake.uri):
        return []
    found = []
    for path in sorted(index_folder(lake, space).glob("*.json")):
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            values["files"] = tuple(values["files"])
            check_types(StoredIndex, values)
            found.append(StoredIndex(**values))
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return found


@dataclass(kw_only=True)
class IndexView:
    """An index compared with one version of its table."""

    snapshot: Snapshot
    row_of: np.ndarray                   # (position,) row of the table, -1 for a removed row
    removed: int                         # positions whose row was removed
    new_rows: np.ndarray                 # rows that are missing from the index
    up_to_date: bool                     # no removed and no new rows
    new_vectors: np.ndarray | None = None            # of `new_rows`, once they have been read
    clips_version: int = -1              # of the table of clips, when every vector was last checked to have its clip
    _positions: np.ndarray | None = None

    def positions(self, rows: int) -> np.ndarray:
        """(row,) position of each row of the table in the index, -1 for a row that is missing from it."""
        if self._positions is None:
            self._positions = np.full(rows, -1, np.int64)
            present = np.flatnonzero(self.row_of >= 0)
            self._positions[self.row_of[present]] = present
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
    known = _loaded.get((lake.identity, stored.files))
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
        raise LakeError(
            f"the index {index_name(stored)}.json is damaged ({error}). Drop and build it again with `tonelake index drop "
            f"--space {stored.space}` and `tonelake index build`"
        ) from error
    for key, older in list(_loaded.items()):
        if key[0] == lake.identity and (older.stored.space, index_name(older.stored)) == (stored.space, index_name(stored)):
            del _loaded[key]
    index = ApproximateIndex(
        kind=stored.kind, metric=stored.metric, faiss_index=found, width=stored.width, recall=stored.recall
    )
    loaded = LoadedIndex(stored, index, row_ids)
    _loaded[lake.identity, stored.files] = loaded
    return loaded


def list_indexes(lake: Lake) -> pl.DataFrame:
    """Return one row per index: space, layer, metric, kind, rows, recall, missing clips (behind) and removed ones (gone)."""
    rows = []
    for space in lake.spaces.all():
        for stored in read_indexes(lake, space):
            snapshot = lake.vectors(space).table.snapshot()
            try:
                view = load_index(lake, space, stored).view_of(snapshot)
                behind, gone = len(view.new_rows), view.removed
                state = "up to date" if not behind and not gone else "behind"
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
    folder = index_folder(lake, chosen)
    found = [stored for stored in read_indexes(lake, chosen) if number is None or stored.layer == number]
    for stored in found:
        delete_index(lake, folder, stored)
    return len(found)


def delete_index(lake: Lake, folder: Path, stored: StoredIndex) -> None:
    """Delete an index's files, the description first."""
    (folder / f"{index_name(stored)}.json").unlink(missing_ok=True)
    for file in stored.files:
        (folder / file).unlink(missing_ok=True)
    _loaded.pop((lake.identity, stored.files), None)


def find_index(lake: Lake, space: Space, layer: int, *, metric: str) -> StoredIndex | None:
    """Return the index of a layer, None unless one was built for this space's fingerprint."""
    wanted = (space.fingerprint, layer, STAT, metric)
    return next((s for s in read_indexes(lake, space) if (s.fingerprint, s.layer, s.stat, s.metric) == wanted), None)


def search_stored(
    lake: Lake, space: Space, stored: StoredIndex, query: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot
) -> tuple[np.ndarray, np.ndarray] | None:
    """Search an index; return (rows of the snapshot, exact scores) of the nearest k, nearest first.

    `allowed`: a (row,) bool mask.  Returns None, and the caller scans, if the mask is so narrow that a scan is exact and
    fast, or if the index finds fewer than k allowed clips.
    """
    loaded = load_index(lake, space, stored)
    view = loaded.view_of(snapshot)
    if allowed is None and view.up_to_date and k <= stored.rows:
        found, scores = loaded.index.search_one(np.asarray(query, np.float32), k)
        if found[-1] >= 0:
            return view.row_of[found], scores
    prepared = prepare_one(query, stored.metric)
    share = 1.0 if allowed is None else float(allowed.mean())
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
    if len(rows) < min(k, len(snapshot.row_ids) if allowed is None else int(allowed.sum())):
        return None
    order = np.lexsort((rows, scores if stored.metric == "l2" else -scores))[:k]
    return rows[order], scores[order]


def search_stored_batch(
    lake: Lake, space: Space, stored: StoredIndex, queries: np.ndarray, k: int
) -> tuple[pl.Series, np.ndarray, np.ndarray] | None:
    """Search an index with many queries; return (ids of all embedded clips, (query, k) rows, scores), nearest first.

    Returns None, and the caller scans, if the index is not up to date, if vectors of removed clips are stored, or if it
    finds fewer than k.
    """
    snapshot = lake.vectors(space).table.snapshot()
    loaded = load_index(lake, space, stored)
    ids = pl.Series("clip_id", snapshot.keys, dtype=pl.String)
    view = loaded.view_of(snapshot)
    if not view.up_to_date:
        return None
    if view.clips_version != lake.clips.table.version:               # checked once for each version of the clips
        clips = lake.clips.ids()
        if not ids.equals(clips) and not ids.is_in(clips.implode()).all():
            return None
        view.clips_version = lake.clips.table.version
    found, scores = loaded.index.search(prepare(queries, stored.metric), min(k, stored.rows))
    return None if (found < 0).any() else (ids, view.row_of[found], scores)


def rows_of_ids(known: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Return for each row id of an index the current row of the table with that id, or -1."""
    if len(known) == len(now) and np.array_equal(known, now):
        return np.arange(len(now))
    order = np.argsort(now, kind="stable")
    at = np.searchsorted(now, known, sorter=order)
    at = np.where(at < len(now), at, 0)
    rows = order[at] if len(now) else np.zeros(len(known), np.int64)
    return np.where(now[rows] == known, rows, -1) if len(now) else np.full(len(known), -1)


def describe_index(stored: StoredIndex, done: str, layers: Sequence[str]) -> str:
    """Return a one-line summary of an index for people."""
    reached = "" if stored.recall >= stored.asked else f", below the requested {stored.asked:g} even with the widest search"
    return (
        f"layer {layers[stored.layer]}, {stored.metric}: {done}; {stored.kind} of {stored.rows:,} clips, "
        f"recall@{RECALL_AT} {stored.recall:.3f}{reached}; {stored.bytes / 1e6:,.0f} MB in {stored.build_seconds:.1f} s"
    )
