"""Indexes on disk, beside the lake's tables: built when asked, extended when clips were added, never trusted blindly.

    indexes/<space>/<column>-<metric>-<kind>.json      what it is, and the names of the two files; written last
                    ….<version>.faiss, ….<version>.rows.npy

An index knows its vectors by Lance's row ids, which survive compaction and change when a row is written again.  At each
search they are compared with the table's: what is gone is no answer, and what came later is scanned beside the index.
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

from tonelake.index.search.approximate import KINDS, RECALL_AT, Approximate, build
from tonelake.index.search.faiss import require_faiss
from tonelake.index.vectors import METRICS, prepare, prepare_one
from tonelake.store import InputError, Lake, LakeError, Snapshot, Space, check_types, is_local

NARROW = 0.1                             # a filter that keeps less is answered by a scan: exact, and faster
EXTEND_SHARE = 0.5                       # more new clips than this share are indexed anew, with widths tuned again

_loaded: dict[tuple[str, tuple[str, str]], Loaded] = {}              # by lake, and files: these are never written again


@dataclass(frozen=True)
class StoredIndex:
    """What an index's description says."""

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
    recall: float                        # recall@10 of queries held out when it was built
    asked: float                         # recall asked for
    table_version: int
    faiss: str
    built_at: float                      # seconds since 1970
    build_seconds: float
    files: tuple[str, str]               # index, row ids
    bytes: int


def build_index(
    lake: Lake, space: Space, layer: int, *, metric: str = "cosine", stat: str = "mean", kind: str = "auto",
    recall: float = 0.95,
) -> tuple[StoredIndex, str]:
    """Index one layer, or bring its index up to date; its description, and what was done: built, extended, or nothing.

    Raises InputError where FAISS is missing, the lake is not on a local disk, or there is too little to index.
    """
    faiss = require_faiss()
    if metric not in METRICS:
        raise InputError(f"no metric {metric!r}: choose one of {', '.join(METRICS)}")
    if not 0 < recall <= 1:
        raise InputError(f"a recall of {recall:g}: choose from 0 to 1, for example 0.95")
    folder = index_folder(lake, space)
    started = time.perf_counter()
    table = lake.vectors(space)
    snapshot = table.table.snapshot()
    row_ids = snapshot.row_ids
    old = find_saved(lake, space, layer, metric=metric, stat=stat)
    if old is not None and kind in ("auto", old.kind) and old.asked == recall:
        loaded = load(lake, space, old)
        known, view = loaded.row_ids, loaded.at(snapshot)
        new = view.later
        if not len(new) and not view.gone:
            return old, "nothing to do"
        if not view.gone and len(new) <= EXTEND_SHARE * len(known):
            # Read anew, not mapped: what is mapped cannot grow, and others may be searching it.
            grown = faiss.read_index(str(folder / old.files[0]))
            index = Approximate(old.kind, metric, grown, old.width, old.recall)
            index.add(table.read_rows(snapshot, new, layer, stat=stat))
            return save(folder, replace(
                old, rows=len(row_ids), table_version=snapshot.dataset.version, built_at=time.time(),
                build_seconds=time.perf_counter() - started,
            ), index, np.concatenate([known, row_ids[new]])), f"extended by {len(new):,} clips"
    vectors = table.read(snapshot, layer, stat=stat, dtype=space.dtype)
    index, order = build(vectors, metric, kind=kind, recall=recall)
    description = StoredIndex(
        space.name, space.fingerprint, layer, stat, metric, index.kind, KINDS[index.kind].factory(*vectors.shape), len(vectors),
        vectors.shape[1], index.width, index.recall, recall, snapshot.dataset.version, faiss.__version__, time.time(),
        time.perf_counter() - started, ("", ""), 0,
    )
    if old is not None and old.kind != index.kind:
        drop(lake, folder, old)
    return save(folder, description, index, row_ids[order]), "built"


def save(folder: Path, saved: StoredIndex, index: Approximate, row_ids: np.ndarray) -> StoredIndex:
    """Write an index: its files under new names, then the description that names them, then the old files go."""
    faiss = require_faiss()
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name_of(saved)}.{time.time_ns():x}"
    files = (f"{stem}.faiss", f"{stem}.rows.npy")
    try:
        faiss.write_index(index.faiss_index, str(folder / files[0]))
        np.save(folder / files[1], row_ids)
        for file in files:
            sync(folder / file)
        done = replace(saved, files=files, bytes=sum((folder / file).stat().st_size for file in files))
        beside = folder / f".{stem}.json"
        beside.write_text(json.dumps(asdict(done), indent=2))
        sync(beside)
        beside.replace(folder / f"{name_of(saved)}.json")
    except (OSError, RuntimeError) as error:
        for file in files:
            (folder / file).unlink(missing_ok=True)
        raise LakeError(f"the index cannot be written to {folder} ({error}): free some space and build it again") from error
    for other in folder.glob(f"{name_of(saved)}.*.*"):
        if other.name not in files:
            with contextlib.suppress(OSError):
                other.unlink()
    return done


def sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def name_of(saved: StoredIndex) -> str:
    return f"{saved.stat}_{saved.layer:02d}-{saved.metric}-{saved.kind}"


def index_folder(lake: Lake, space: Space) -> Path:
    """Where the indexes of a space are.  Raises InputError for a lake on an object store."""
    if not is_local(lake.uri):
        raise InputError(f"{lake.uri} is searched exactly: indexes are kept for lakes on a local disk only")
    return Path(lake.uri) / "indexes" / space.name


def read_all(lake: Lake, space: Space) -> list[StoredIndex]:
    """The indexes of a space.  What cannot be read is left out, and stands in nobody's way when it is built again."""
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


@dataclass
class View:
    """An index as it stands to one version of its table."""

    snapshot: Snapshot
    place: np.ndarray                    # (position,) row of the table, -1 where it is gone
    gone: int
    later: np.ndarray                    # rows that the index does not have
    whole: bool                          # nothing is gone, and nothing came later
    vectors: np.ndarray | None = None    # theirs, once they were read
    clips_version: int = -1              # of the table of clips, when all vectors were last found to be of clips of the lake


@dataclass
class Loaded:
    """An index in memory."""

    saved: StoredIndex
    index: Approximate
    row_ids: np.ndarray                  # (position,) of Lance
    view: View | None = None

    def at(self, snapshot: Snapshot) -> View:
        """How it stands to a version of the table; compared once for each."""
        view = self.view
        # Being the same object says so faster than the version does.
        if view is None or (view.snapshot is not snapshot and view.snapshot.dataset.version != snapshot.dataset.version):
            now = snapshot.row_ids
            place = positions(self.row_ids, now)
            new = np.ones(len(now), bool)
            new[place[place >= 0]] = False
            gone, later = int((place < 0).sum()), np.flatnonzero(new)
            view = self.view = View(snapshot, place, gone, later, not gone and not len(later))
        return view


def load(lake: Lake, space: Space, saved: StoredIndex) -> Loaded:
    """An index, from memory where it was loaded before.

    Raises LakeError where a file is damaged, saying how to make it again.
    """
    known = _loaded.get((lake.uri, saved.files))
    if known is not None:
        return known
    folder = index_folder(lake, space)
    faiss = require_faiss()
    try:
        size = sum((folder / file).stat().st_size for file in saved.files)
        if size != saved.bytes:
            raise ValueError(f"{size:,} bytes instead of {saved.bytes:,}")
        found = faiss.read_index(str(folder / saved.files[0]), faiss.IO_FLAG_MMAP_IFC)
        row_ids = np.load(folder / saved.files[1], allow_pickle=False)
        if not found.ntotal == len(row_ids) == saved.rows or found.d != saved.dim:
            raise ValueError("it does not hold what its description says")
    except (OSError, ValueError, RuntimeError) as error:
        raise LakeError(
            f"the index {name_of(saved)}.json is damaged ({error}): drop and build it again with `tonelake index drop --space "
            f"{saved.space}` and `tonelake index build`"
        ) from error
    for key, older in list(_loaded.items()):
        if key[0] == lake.uri and (older.saved.space, name_of(older.saved)) == (saved.space, name_of(saved)):
            del _loaded[key]
    loaded = Loaded(saved, Approximate(saved.kind, saved.metric, found, saved.width, saved.recall), row_ids)
    _loaded[lake.uri, saved.files] = loaded
    return loaded


def list_indexes(lake: Lake) -> pl.DataFrame:
    """One row an index: space, layer, metric, kind, rows, recall, how many clips it lacks and how many of its are gone."""
    rows = []
    for space in lake.spaces.all():
        for saved in read_all(lake, space):
            snapshot = lake.vectors(space).table.snapshot()
            try:
                view = load(lake, space, saved).at(snapshot)
                behind, gone = len(view.later), view.gone
                state = "up to date" if not behind and not gone else "behind"
            except LakeError:
                behind, gone, state = len(snapshot.keys), 0, "damaged"
            rows.append((
                space.name, space.layers[saved.layer], saved.stat, saved.metric, saved.kind, saved.rows, saved.recall, behind,
                gone, state, saved.bytes / 1e6,
            ))
    schema = {
        "space": pl.String, "layer": pl.String, "stat": pl.String, "metric": pl.String, "kind": pl.String, "rows": pl.Int64,
        "recall": pl.Float64, "behind": pl.Int64, "gone": pl.Int64, "state": pl.String, "mb": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def drop_indexes(lake: Lake, space: Space, layer: int | None = None) -> int:
    """Delete a space's indexes, or one layer's; how many."""
    folder = index_folder(lake, space)
    found = [saved for saved in read_all(lake, space) if layer is None or saved.layer == layer]
    for saved in found:
        drop(lake, folder, saved)
    return len(found)


def drop(lake: Lake, folder: Path, saved: StoredIndex) -> None:
    (folder / f"{name_of(saved)}.json").unlink(missing_ok=True)
    for file in saved.files:
        (folder / file).unlink(missing_ok=True)
    _loaded.pop((lake.uri, saved.files), None)


def find_saved(lake: Lake, space: Space, layer: int, *, metric: str, stat: str) -> StoredIndex | None:
    """The index of a layer, where one was built for this very space."""
    asked = (space.fingerprint, layer, stat, metric)
    return next((s for s in read_all(lake, space) if (s.fingerprint, s.layer, s.stat, s.metric) == asked), None)


def search_saved(
    lake: Lake, space: Space, saved: StoredIndex, query: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot
) -> tuple[np.ndarray, np.ndarray] | None:
    """(rows of the snapshot, exact scores) of the nearest k, nearest first, by an index.

    `allowed`: (row,) bool.  None where a filter is so narrow that a scan is exact and fast, or where the index did not
    find k clips that are allowed: then the caller scans.
    """
    loaded = load(lake, space, saved)
    view = loaded.at(snapshot)
    if allowed is None and view.whole and k <= saved.rows:
        found, scores = loaded.index.search_one(np.asarray(query, np.float32), k)
        if found[-1] >= 0:
            return view.place[found], scores
    prepared = prepare_one(query, saved.metric)
    share = 1.0 if allowed is None else float(allowed.mean())
    if share < NARROW:
        return None
    wanted = min(k if allowed is None else int(k / share) + k, len(loaded.row_ids)) + view.gone
    found, scores = (values[0] for values in loaded.index.search(prepared, min(wanted, len(loaded.row_ids))))
    rows = np.where(found >= 0, view.place[found], -1)
    if len(view.later):
        if view.vectors is None:
            vectors = lake.vectors(space).read_rows(snapshot, view.later, saved.layer, stat=saved.stat)
            view.vectors = prepare(vectors, saved.metric)
        beside = np.linalg.norm(view.vectors - prepared, axis=1) if saved.metric == "l2" else view.vectors @ prepared[0]
        rows, scores = np.concatenate([rows, view.later]), np.concatenate([scores, beside])
    keep = rows >= 0 if allowed is None else (rows >= 0) & allowed[rows]
    rows, scores = rows[keep], scores[keep]
    if len(rows) < min(k, len(snapshot.row_ids) if allowed is None else int(allowed.sum())):
        return None
    order = np.lexsort((rows, scores if saved.metric == "l2" else -scores))[:k]
    return rows[order], scores[order]


def search_saved_batch(
    lake: Lake, space: Space, saved: StoredIndex, queries: np.ndarray, k: int
) -> tuple[pl.Series, np.ndarray, np.ndarray] | None:
    """(ids of all embedded clips, (query, k) rows of them, scores), nearest first, by an index that is up to date.

    None where it is not, where vectors of clips are stored that are no longer in the lake, or where it did not find k.
    """
    snapshot = lake.vectors(space).table.snapshot()
    loaded = load(lake, space, saved)
    ids = pl.Series("clip_id", snapshot.keys, dtype=pl.String)
    view = loaded.at(snapshot)
    if not view.whole:
        return None
    if view.clips_version != lake.clips.table.version:               # looked at once for each version of the clips
        clips = lake.clips.ids()
        if not ids.equals(clips) and not ids.is_in(clips.implode()).all():
            return None
        view.clips_version = lake.clips.table.version
    found, scores = loaded.index.search(prepare(queries, saved.metric), min(k, saved.rows))
    return None if (found < 0).any() else (ids, view.place[found], scores)


def positions(known: np.ndarray, now: np.ndarray) -> np.ndarray:
    """For each row id of an index the row of the table that has it now, or -1."""
    if len(known) == len(now) and np.array_equal(known, now):
        return np.arange(len(now))
    order = np.argsort(now, kind="stable")
    at = np.searchsorted(now, known, sorter=order)
    at = np.where(at < len(now), at, 0)
    rows = order[at] if len(now) else np.zeros(len(known), np.int64)
    return np.where(now[rows] == known, rows, -1) if len(now) else np.full(len(known), -1)


def describe(saved: StoredIndex, done: str, layers: Sequence[str]) -> str:
    """One line for a person."""
    reached = "" if saved.recall >= saved.asked else f", below the {saved.asked:g} that was asked for: its widest search"
    return (
        f"layer {layers[saved.layer]}, {saved.metric}: {done}; {saved.kind} of {saved.rows:,} clips, "
        f"recall@{RECALL_AT} {saved.recall:.3f}{reached}; {saved.bytes / 1e6:,.0f} MB in {saved.build_seconds:.1f} s"
    )
