"""Approximate indexes inside the tables of a lake: Lance's inverted lists of 5-bit RaBitQ codes (IVF_RQ), for object stores.

FAISS needs files that it can map into memory; Lance's index is a part of the table, and a search reads only the lists that
it visits, which Lance caches.  Candidates by code are scored again by their stored vectors, so scores and filters are exact.
Each of these vectors is a small request, all of them sent at once; they are cached as well (`row_cache`).

- Built: centroids are learned in float32 here, since Lance's own training on float16 takes many times as long; then
  Lance encodes every row.  Each build has a new name, which the description gives; the previous index is dropped last.
- Tuned: queries are indexed vectors without themselves, since nothing can be held out of a table.  This is as good as vectors
  held out, because a list is found by its centroid, not by links that were made for the query.
- Extended: clips added later are compared exactly until `index build` adds them, as a further segment or, from SEGMENTS on,
  merged into one.  Deleted rows are masked by Lance, and row ids survive compaction.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tonelake.index.search.approximate import FEWEST_ROWS, RECALL_AT, scores_of, true_neighbours
from tonelake.index.search.described_index import (
    LANCE,
    STAT,
    StoredIndex,
    damaged,
    forget_descriptions,
    index_name,
    is_described,
)
from tonelake.index.search.distributed_index import create_on_cluster
from tonelake.index.search.faiss import faiss_module, require_faiss
from tonelake.index.search.faiss_files import EXTEND_SHARE
from tonelake.index.vectors import prepare
from tonelake.store import Blobs, InputError, Lake, LakeError, Snapshot, Space, Table

if TYPE_CHECKING:
    from tonelake.embed import Cluster

METRICS = {"cosine": "cosine", "ip": "dot", "l2": "l2"}              # names of ours -> Lance's
BITS = 5                                 # a code of 5 bits a dimension ranks so well that few candidates have to be read
WIDTH_UNIT = 8                           # Lance packs codes of as many dimensions
LIST_ROWS = 4_096                        # the size that Lance splits and joins lists towards when an index is extended
LIST_SAMPLE = 256                        # rows for each centroid that it is learned from
LIST_PASSES = 10                         # of k-means over the sample
QUERIES = 400                            # for tuning; each is a search of a few milliseconds
WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
REFINES = (1, 2, 3, 5, 8)
LEAST_GAIN = 0.002                       # of recall; widening that brings less is over, and more candidates are scored
SEGMENTS = 4                             # more would be visited one by one in every search
PREFIX = "tonelake"                      # of the names of our indexes
CACHED_VIEWS = 16
ERRORS = (OSError, ValueError, RuntimeError)                         # of Lance, where a file is missing or damaged

_views: dict[tuple[str, str], LanceView] = {}                        # by lake and name of the index


@dataclass(kw_only=True)
class LanceView:
    """An index compared with one version of its table."""

    snapshot: Snapshot
    segments: list[str]                  # Lance's ids
    new_rows: np.ndarray                 # rows that are missing from the index
    sorted_ids: np.ndarray               # (row,) row ids, rising
    sorted_rows: np.ndarray              # (row,) the row of each
    bytes: int
    new_vectors: np.ndarray | None = None            # of `new_rows`, prepared, once they have been read

    @property
    def known(self) -> int:
        """Number of rows that are in the index."""
        return len(self.sorted_ids) - len(self.new_rows)

    def rows_of(self, row_ids: np.ndarray) -> np.ndarray:
        """Return the row of each row id, -1 for one that this version does not have."""
        at = np.minimum(np.searchsorted(self.sorted_ids, row_ids), len(self.sorted_ids) - 1)
        return np.where(self.sorted_ids[at] == row_ids, self.sorted_rows[at], -1)

    def vectors_of_new(self, lake: Lake, space: Space, stored: StoredIndex) -> np.ndarray:
        """The prepared vectors of `new_rows`, read once."""
        if self.new_vectors is None:
            vectors = lake.vectors(space).read_rows(self.snapshot, self.new_rows, stored.layer)
            self.new_vectors = prepare(vectors, stored.metric)
        return self.new_vectors


def build_lance(
    lake: Lake, space: Space, layer: int, metric: str, recall: float, old: StoredIndex | None, cluster: Cluster | None = None
) -> tuple[StoredIndex, str]:
    """Do the work of `build_index` for the kind `lance`; `old`: the index that the layer has, of any kind.

    A new index is encoded on the cluster, if there is one (`distributed_index`); an existing one is extended by this process.
    Raises InputError if there are too few vectors, if their width cannot be encoded, or while another process builds an index.
    """
    files = lake.files("indexes")
    with files.locked(f"{lake.uri}: an index is being built by another process. Wait for it, or stop it"):
        started = time.perf_counter()
        vectors = lake.vectors(space)
        if old is not None and old.kind == LANCE and old.asked == recall:
            view = view_of(lake, space, old, vectors.table.snapshot())
            count = 0 if view is None else len(view.new_rows)
            if view is not None and not count:
                return old, "nothing to do"
            if view is not None and count <= EXTEND_SHARE * view.known:
                segments = 0 if len(view.segments) < SEGMENTS else len(view.segments)
                vectors.table.commit(lambda: vectors.table.dataset().optimize.optimize_indices(
                    index_names=[old.lance_name], num_indices_to_merge=segments
                ))
                return describe(lake, space, files, old, started), f"extended by {count:,} clips"
        stored = new_index(lake, space, layer, metric, recall, cluster)
        stored = describe(lake, space, files, stored, started)
        drop_lance_indexes(vectors.table, prefix_of(space, layer, metric), keep=stored.lance_name)
        return stored, "built"


def new_index(
    lake: Lake, space: Space, layer: int, metric: str, recall: float, cluster: Cluster | None = None
) -> StoredIndex:
    """Make a new index in the table, and tune it; its description is not written yet."""
    vectors = lake.vectors(space)
    snapshot, column = vectors.table.snapshot(), space.column(layer, STAT)
    rows, dim = len(snapshot.row_ids), space.dims[layer]
    if rows < FEWEST_ROWS:
        raise InputError(f"{rows} vectors are too few for an index. They are searched exactly, which is faster")
    if dim % WIDTH_UNIT:
        raise InputError(
            f"layer {space.layers[layer]}: its vectors have {dim} dimensions, and an index inside a lake needs a multiple of "
            f"{WIDTH_UNIT}. Without one, search is exact"
        )
    matrix = vectors.read(snapshot, layer, dtype=space.dtype)
    if not matrix.any():
        raise InputError(f"layer {space.layers[layer]}: all of its vectors are zero, so no clip is nearer than another")
    lists = max(1, round(rows / LIST_ROWS))
    name = f"{prefix_of(space, layer, metric)}-{time.time_ns():x}"
    # Without FAISS Lance learns centroids by itself; workers need common ones.
    centroids = None if faiss_module() is None and cluster is None else centroids_of(matrix, lists, metric)
    options = {"metric": METRICS[metric], "num_partitions": lists, "num_bits": BITS, "ivf_centroids": centroids, "name": name}

    def create() -> None:
        if cluster is None:
            vectors.table.dataset().create_index(column, "IVF_RQ", **options)
        else:
            create_on_cluster(cluster, lake, space, column, options)

    vectors.table.commit(create)
    newest = vectors.table.snapshot()
    stored = StoredIndex(
        space=space.name, fingerprint=space.fingerprint, layer=layer, stat=STAT, metric=metric, kind=LANCE,
        factory=f"IVF{lists},RQ{BITS}", rows=rows, dim=dim, width=lists, recall=0.0, asked=recall,
        table_version=newest.dataset.version, faiss="", built_at=time.time(), build_seconds=0.0, files=(), bytes=0,
        lance_name=name,
    )
    view = view_of(lake, space, stored, newest)
    if view is None:
        raise LakeError(f"the index {index_name(stored)}.json was dropped while it was being built. Build it again")
    if newest.dataset.version != snapshot.dataset.version + 1:       # others wrote meanwhile: their rows are indexed as well
        matrix = vectors.read(newest, layer, dtype=space.dtype)
    return tune(view, stored, column, matrix, lists)


def centroids_of(vectors: np.ndarray, lists: int, metric: str, seed: int = 0) -> np.ndarray:
    """Return (list, dim) float32 centroids of vectors as stored, prepared for the metric."""
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(len(vectors), min(len(vectors), LIST_SAMPLE * lists), replace=False))
    means = require_faiss().Kmeans(
        vectors.shape[1], lists, niter=LIST_PASSES, seed=seed + 1, spherical=metric == "cosine", min_points_per_centroid=1
    )
    means.train(prepare(vectors[sample], metric))
    return means.centroids


def tune(view: LanceView, stored: StoredIndex, column: str, vectors: np.ndarray, lists: int) -> StoredIndex:
    """Return the description with the fewest candidates for a hit, and then the smallest width, that reach `asked`.

    A candidate costs a request, while lists are in memory after their first visit, so the search is widened first, for as long
    as that helps.  `vectors`: (row, dim) of the view's snapshot, as stored.  If nothing reaches `asked`, the widest is kept and
    its recall recorded.
    """
    rng = np.random.default_rng(0)
    indexed = np.delete(np.arange(len(vectors)), view.new_rows)
    sounding = np.setdiff1d(np.flatnonzero(vectors.any(axis=1)), view.new_rows)  # silence has no neighbours by cosine
    drawn = np.sort(rng.choice(sounding, min(QUERIES, len(sounding)), replace=False))
    queries = prepare(vectors[drawn], stored.metric)
    true = indexed[true_neighbours(queries, vectors, RECALL_AT + 1, stored.metric, indexed)]
    true = without_self(true, drawn)[:, :RECALL_AT]
    sign = -1 if stored.metric == "l2" else 1
    last = (sign * scores_of(queries, vectors, true, stored.metric)).min(axis=1, keepdims=True)
    last -= 1e-6 * np.abs(last)          # by score, as copies of a recording may stand for each other
    most = RECALL_AT * REFINES[-1]
    shares: dict[tuple[int, int], float] = {}                        # recall by (candidates for a hit, width)
    before = 0.0
    for width in [*(width for width in WIDTHS if width < lists), lists]:
        found = without_self(candidates(view, stored, column, queries, most + 1, width), drawn)
        near = sign * scores_of(queries, vectors, np.maximum(found, 0), stored.metric)
        good = (near >= last) & (found >= 0)
        for refine in REFINES:
            hits = np.minimum(good[:, : RECALL_AT * refine].sum(axis=1), RECALL_AT)
            shares[refine, width] = float(hits.mean()) / RECALL_AT
        plain = shares[REFINES[0], width]
        if plain >= stored.asked or (plain - before < LEAST_GAIN and shares[REFINES[-1], width] >= stored.asked):
            break
        before = plain
    reached = [setting for setting, share in shares.items() if share >= stored.asked]
    refine, width = min(reached) if reached else (REFINES[-1], lists)
    return replace(stored, width=width, refine=refine, recall=shares[refine, width])


def without_self(found: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return (query, k - 1) rows without each query's own row, or else without the last.

    >>> without_self(np.array([[7, 3, 9], [5, 6, 8]]), np.array([3, 4])).tolist()
    [[7, 9], [5, 6]]
    """
    keep = found != own[:, None]
    keep[keep.all(axis=1), -1] = False
    return found[keep].reshape(len(found), -1)


def describe(lake: Lake, space: Space, files: Blobs, stored: StoredIndex, started: float) -> StoredIndex:
    """Write the description of an index as it is in the newest version of its table."""
    snapshot = lake.vectors(space).table.snapshot()
    view = view_of(lake, space, stored, snapshot)
    if view is None:
        raise LakeError(f"the index {index_name(stored)}.json was dropped while it was being built. Build it again")
    done = replace(
        stored, rows=view.known, table_version=snapshot.dataset.version, bytes=view.bytes, built_at=time.time(),
        build_seconds=time.perf_counter() - started,
    )
    files.put_text(f"{space.name}/{index_name(done)}.json", json.dumps(asdict(done), indent=2))
    forget_descriptions(lake, space)
    return done


def view_of(lake: Lake, space: Space, stored: StoredIndex, snapshot: Snapshot) -> LanceView | None:
    """Compare an index with a version of its table; None for a version from before it was built or after it was replaced.

    The last result is cached.  Raises LakeError if the table does not have the index that is described now.
    """
    dataset = snapshot.dataset
    if dataset is None or dataset.version < stored.table_version:
        return None
    key = (lake.identity, stored.lance_name)
    view = _views.get(key)
    if view is None or (view.snapshot is not snapshot and view.snapshot.dataset.version != dataset.version):
        try:
            found = next((index for index in dataset.describe_indices() if index.name == stored.lance_name), None)
        except ERRORS as error:
            check_current(lake, space, stored, snapshot, error)
            return None
        if found is None:
            if not is_described(lake, space, stored):
                return None              # rebuilt or dropped by another process since the description was read
            raise damaged(stored, f"table {space.table_name!r} does not have it")
        covered = {fragment for segment in found.segments for fragment in segment.fragment_ids}
        parts = [fragment.metadata for fragment in dataset.get_fragments()]
        new = np.repeat([part.id not in covered for part in parts], [part.num_rows for part in parts])
        order = np.argsort(snapshot.row_ids, kind="stable")
        view = _views[key] = LanceView(
            snapshot=snapshot, segments=[segment.uuid for segment in found.segments], new_rows=np.flatnonzero(new),
            sorted_ids=snapshot.row_ids[order], sorted_rows=order, bytes=found.total_size_bytes or 0,
        )
        while len(_views) > CACHED_VIEWS:
            _views.pop(next(iter(_views)), None)
    return view


def check_current(lake: Lake, space: Space, stored: StoredIndex, snapshot: Snapshot, error: Exception) -> None:
    """Raise LakeError for an error of reading an index, unless the snapshot is old: its files may have been removed."""
    if lake.vectors(space).table.version == snapshot.dataset.version:
        raise damaged(stored, str(error).split(", /")[0].removeprefix("External error: ")) from error


def candidates(
    view: LanceView, stored: StoredIndex, column: str, queries: np.ndarray, count: int, width: int
) -> np.ndarray:
    """Return (query, count) indexed rows of the view's snapshot that are nearest by code, nearest first, -1 for none.

    `queries`: (query, dim) float32, prepared; a batch takes Lance a quarter of the processor time of single queries.
    Lists beyond `width` are visited only if these hold fewer than `count` rows.
    """
    count = min(count, view.known)
    found = np.full((len(queries), count), -1, np.int64)
    lacking = np.arange(len(queries))
    for probes in ({"nprobes": width}, {"minimum_nprobes": width}):
        asked = {"column": column, "q": queries[lacking], "k": count, "metric": METRICS[stored.metric], **probes}
        hits = view.snapshot.dataset.scanner(
            columns=["_distance"], with_row_id=True, nearest=asked, fast_search=True, index_segments=view.segments
        ).to_table()
        query = hits.column("query_index").to_numpy()
        rows = view.rows_of(hits.column("_rowid").to_numpy().astype(np.int64))
        query, rows = query[rows >= 0], rows[rows >= 0]
        place = np.arange(len(rows)) - np.searchsorted(query, query)             # hits are in the order of queries
        found[lacking] = -1
        found[lacking[query], place] = rows
        lacking = np.flatnonzero(found[:, -1] < 0)
        if not len(lacking):
            break
    return found


def rows_behind_lance(lake: Lake, space: Space, stored: StoredIndex, snapshot: Snapshot) -> tuple[int, int]:
    """Return how many rows an index lacks, and how many of its rows were removed.  Raises LakeError if it is damaged."""
    view = view_of(lake, space, stored, snapshot)
    return (len(snapshot.row_ids), 0) if view is None else (len(view.new_rows), max(0, stored.rows - view.known))


def delete_lance(lake: Lake, space: Space, stored: StoredIndex) -> None:
    """Delete an index, its description first."""
    lake.files("indexes").remove(f"{space.name}/{index_name(stored)}.json")
    forget_descriptions(lake, space)
    drop_lance_indexes(lake.vectors(space).table, prefix_of(space, stored.layer, stored.metric))
    _views.pop((lake.identity, stored.lance_name), None)


def prefix_of(space: Space, layer: int, metric: str) -> str:
    """Return the beginning of the names of a layer's indexes in the table."""
    return f"{PREFIX}-{space.column(layer, STAT)}-{metric}"


def drop_lance_indexes(table: Table, prefix: str, keep: str | None = None) -> None:
    """Drop the indexes of a table whose names begin so, those of interrupted builds included."""
    if not table.version:
        return
    names = [index.name for index in table.dataset().describe_indices()]
    for name in names:
        if name.startswith(f"{prefix}-") and name != keep:
            with contextlib.suppress(LakeError):                     # dropped by another process
                table.commit(partial(table.dataset().drop_index, name))
