"""Find the nearest clips of many queries at once: for evaluation, playlists of a whole library, other programs.

One layer, one metric.  A batch is compared by one matrix product, several times as fast as query by query, or searched in
the layer's stored index if there is one; on an object store only if its candidates cost less to read than the layer.  Prompts
that tags answer have no vectors: their scores are computed one by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.index.search.candidates import allowed_rows, embedded_in_layer, embedded_in_snapshot
from tonelake.index.search.described_index import StoredIndex, find_index
from tonelake.index.search.exact import highest, load_layer
from tonelake.index.search.faiss import nearest_batch
from tonelake.index.search.narrow import read_allowed
from tonelake.index.search.query import Query
from tonelake.index.search.row_cache import read_kept_rows
from tonelake.index.search.stored_index import search_stored_batch
from tonelake.index.search.words import refuse_with_words, resolve_words
from tonelake.index.vectors import check_metric, comparable, prepare
from tonelake.store import ClipNotFound, InputError, Lake, Snapshot, Space, SpaceMismatch, is_local, rows_of


def similar_many(
    lake: Lake, queries: Sequence[str] | np.ndarray = (), *, text: str | Sequence[str | Sequence[str]] = (), k: int = 10,
    space: str | None = None, layer: int | str | None = None, where: str | None = None, metric: str = "cosine",
) -> pl.DataFrame:
    """Return the k nearest clips of each query; queries are clip ids, never among their own hits, or (query, dim) vectors.

    `text`: words instead, each item one query as for `similar`: a prompt, or several such as ["piano", "-vocals"].

    Returns query (the clip id, the row of the vector, or the prompts with commas), rank, score (or distance, for l2) and
    clip_id; fewer than k rows for a query only if fewer clips are allowed.  `where` is as for `similar`, and as exact.
    Raises SpaceMismatch for vectors of the wrong width, ClipNotFound for an unknown id, InputError if k is below 1, for words
    together with other queries, or as `comparable` and `resolve_words`.
    """
    if k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    check_metric(metric)
    own: pl.Series | None = None
    if isinstance(text, str) or len(text):
        if len(queries):
            raise InputError("queries: cannot be given with text, as each prompt is one. Search for clips and words separately")
        chosen, number, names, asked = resolve_prompts(lake, [text] if isinstance(text, str) else text, space, layer, metric)
        if any(query.score is not None for query in asked):
            return hits_of_tags(lake, chosen, number, names, asked, k, where)
        vectors = np.stack([query.vectors[number] for query in asked])
    else:
        chosen = lake.spaces.get(space)
        number = chosen.layer_index(layer)
        names, vectors, own = take_queries(lake, chosen, number, queries)
    vectors = comparable(vectors, metric, chosen.layers[number])
    wanted = k + (own is not None)
    stored = find_index(lake, chosen, number, metric=metric)
    if stored is not None or (where is not None and not is_local(lake.uri)):
        snapshot = lake.vectors(chosen).table.snapshot()
        known = embedded_in_snapshot(lake, chosen, snapshot)
        allowed = allowed_rows(lake, known, Query({}), where, None)
        found = search_unloaded(lake, chosen, number, metric, stored, vectors, wanted, allowed, snapshot)
        if found is not None:
            return hits_frame(names, known.ids, *found, own, k, metric)
    index = load_layer(lake, chosen, number, metric=metric)
    allowed = allowed_rows(lake, embedded_in_layer(lake, chosen, index.ids), Query({}), where, None)
    candidates = np.arange(len(index.ids)) if allowed is None else np.flatnonzero(allowed)
    kept = index.vectors if allowed is None else index.vectors[candidates]
    rows, scores = nearest_batch(prepare(vectors, metric), kept, min(wanted, len(candidates)), metric)
    return hits_frame(names, index.ids, candidates[rows], scores, own, k, metric)


def search_unloaded(
    lake: Lake, space: Space, layer: int, metric: str, stored: StoredIndex | None, queries: np.ndarray, k: int,
    allowed: np.ndarray | None, snapshot: Snapshot,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (query, k) rows of the snapshot, -1 for none, and scores, without the whole layer; None if it has to be loaded.

    `allowed`: a (row,) bool mask.  Few allowed rows of a lake on an object store are read and compared, else the index answers.
    """
    few = None if allowed is None else read_allowed(lake, space, layer, metric, allowed, snapshot, stored)
    if few is not None and allowed is not None:
        rows, scores = nearest_batch(prepare(queries, metric), few, k, metric)
        return np.flatnonzero(allowed)[rows], scores
    return None if stored is None else search_stored_batch(lake, space, stored, queries, k, allowed, snapshot)


def take_queries(
    lake: Lake, chosen: Space, number: int, queries: Sequence[str] | np.ndarray
) -> tuple[pl.Series, np.ndarray, pl.Series | None]:
    """Return (names, (query, dim) vectors, ids that are no hits of themselves) of vectors, or of clips by their ids."""
    if isinstance(queries, np.ndarray):
        if queries.ndim != 2 or queries.shape[1] != chosen.dims[number]:
            raise SpaceMismatch(
                f"the queries have shape {queries.shape}, layer {chosen.layers[number]} of space {chosen.name!r} holds vectors "
                f"of {chosen.dims[number]}. Embed the queries with space {chosen.name!r}"
            )
        return pl.Series("query", np.arange(len(queries))), queries, None
    names = pl.Series("query", [queries] if isinstance(queries, str) else list(queries), dtype=pl.String)
    try:
        return names, read_queries(lake, chosen, number, names), names
    except InputError:
        unknown = names.filter(~names.is_in(lake.clips.take(names.to_list(), ["clip_id"])["clip_id"].implode()))
        if not len(unknown):
            raise
        raise ClipNotFound(f"clip {unknown[0]!r}: not in this lake. List ids with `tonelake clips`") from None


def read_queries(lake: Lake, space: Space, layer: int, ids: pl.Series) -> np.ndarray:
    """Return (clip, dim) stored vectors.  Raises InputError if a clip is not embedded.

    Of a lake on an object store they are kept in memory: a clip is the nearest candidate of its own query.
    """
    vectors = lake.vectors(space)
    if not is_local(lake.uri):
        snapshot = vectors.table.snapshot()
        rows = embedded_in_snapshot(lake, space, snapshot).rows.of(ids)
        if (rows >= 0).all():
            return read_kept_rows(lake, space, layer, rows, snapshot)
    return vectors.take(ids.to_list(), layer).vectors


def resolve_prompts(
    lake: Lake, text: Sequence[str | Sequence[str]], space: str | None, layer: int | str | None, metric: str
) -> tuple[Space, int, pl.Series, list[Query]]:
    """Resolve words, each item one query: the space that answers them, the number of its layer, names and queries."""
    refuse_with_words(metric=metric, layers=None, like=None, unlike=None, explain=False)
    asked: list[Query] = []
    for item in text:
        chosen, number, query = resolve_words(lake, item, (), (), space=space, layer=layer)
        space = chosen.name              # all are searched in the first one's space
        asked.append(query)
    names = [item if isinstance(item, str) else ", ".join(item) for item in text]
    return chosen, number, pl.Series("query", names, dtype=pl.String), asked


def hits_of_tags(
    lake: Lake, space: Space, number: int, names: pl.Series, asked: Sequence[Query], k: int, where: str | None
) -> pl.DataFrame:
    """Return the hits of queries that have a score for every clip instead of a vector."""
    layer = load_layer(lake, space, number)
    allowed = allowed_rows(lake, embedded_in_layer(lake, space, layer.ids), Query({}), where, None)
    scores = np.stack([query.score(layer) for query in asked if query.score is not None])
    rows = np.stack([highest(row, k, allowed) for row in scores])
    return hits_frame(names, layer.ids, rows, np.take_along_axis(scores, rows, axis=1), None, k, "cosine")


def hits_frame(
    names: pl.Series, ids: pl.Series, rows: np.ndarray, scores: np.ndarray, own: pl.Series | None, k: int, metric: str
) -> pl.DataFrame:
    """Return the hits of each query without its own clip; rows of -1 are dropped."""
    keep = rows >= 0
    if own is not None:
        keep &= rows != rows_of(ids, own)[:, None]
    rank = np.cumsum(keep, axis=1)
    keep &= rank <= k
    query, column = np.nonzero(keep)
    return pl.DataFrame({
        "query": names.gather(query), "rank": rank[query, column],
        "distance" if metric == "l2" else "score": scores[query, column].astype(np.float32),
        "clip_id": ids.gather(rows[query, column]),
    })
