"""Search the indexes inside the tables of a lake: candidates by code from the index, scored by their stored vectors.

    (query, dim) queries  ->  candidates by code  ->  their vectors, each read once  ->  (query, k) rows and exact scores

A batch is one search of Lance's, and the vectors of all of its candidates are read together.
"""

from __future__ import annotations

import math

import numpy as np

from tonelake.index.search.approximate import RECALL_AT
from tonelake.index.search.described_index import STAT, StoredIndex
from tonelake.index.search.lance_index import ERRORS, LanceView, candidates, check_current, view_of
from tonelake.index.search.narrow import is_away, requests_are_cheaper, scan_is_faster, share_of
from tonelake.index.search.row_cache import read_kept_rows
from tonelake.index.vectors import prepare
from tonelake.store import Lake, Snapshot, Space

QUERIES_AT_ONCE = 256                    # of a batch: their candidates are in memory together


def search_lance(
    lake: Lake, space: Space, stored: StoredIndex, query: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot
) -> tuple[np.ndarray, np.ndarray] | None:
    """Do the work of `search_stored`."""
    found = nearest_in_view(lake, space, stored, np.asarray(query)[None], k, allowed, snapshot)
    return None if found is None else found[0]


def search_lance_batch(
    lake: Lake, space: Space, stored: StoredIndex, queries: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot
) -> tuple[np.ndarray, np.ndarray] | None:
    """Search for (query, dim) queries; return (query, k) rows of the snapshot, -1 for none, and exact scores, nearest first.

    Returns None, and the caller scans, as `search_lance`, and if the layer is in memory or costs less than the candidates.
    """
    count = len(queries) * k * stored.refine
    if not is_away(lake, space, stored.layer, stored.metric) or not requests_are_cheaper(
        space, stored.layer, count, len(snapshot.row_ids)
    ):
        return None
    rows = np.full((len(queries), k), -1, np.int64)
    scores = np.zeros((len(queries), k), np.float32)
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        part = nearest_in_view(lake, space, stored, queries[start : start + QUERIES_AT_ONCE], k, allowed, snapshot)
        if part is None:
            return None
        for query, (own_rows, own_scores) in enumerate(part, start):
            rows[query, : len(own_rows)], scores[query, : len(own_rows)] = own_rows, own_scores
    return rows, scores


def nearest_in_view(
    lake: Lake, space: Space, stored: StoredIndex, queries: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot
) -> list[tuple[np.ndarray, np.ndarray]] | None:
    """Return rows and exact scores of the nearest k for each of a few queries; None if a scan must answer one of them."""
    view = view_of(lake, space, stored, snapshot)
    if view is None or not view.known or scan_is_faster(lake, space, stored, allowed):
        return None
    prepared = prepare(queries, stored.metric)
    try:
        near = allowed_candidates(view, stored, space.column(stored.layer, STAT), prepared, k * stored.refine, allowed)
    except ERRORS as error:
        check_current(lake, space, stored, snapshot, error)
        return None                      # the caller's scan looks rows up in the newest version
    every = np.unique(np.concatenate(near))
    vectors = vectors_of_lance(lake, space, stored, every, snapshot)
    new_rows = view.new_rows if allowed is None else view.new_rows[allowed[view.new_rows]]
    if len(new_rows):
        new = view.vectors_of_new(lake, space, stored)
        new = new if allowed is None else new[allowed[view.new_rows]]
    enough = min(k, len(snapshot.row_ids) if allowed is None else int(np.count_nonzero(allowed)))
    found = []
    for query, rows in zip(prepared, near, strict=True):
        scores = scores_with(query, vectors[np.searchsorted(every, rows)], stored.metric)
        if len(new_rows):
            rows, scores = np.concatenate([rows, new_rows]), np.concatenate([scores, scores_with(query, new, stored.metric)])
        if len(rows) < enough:
            return None
        order = np.lexsort((rows, scores if stored.metric == "l2" else -scores))[:k]
        if stored.metric == "cosine" and len(order) and scores[order[-1]] <= 0:
            return None                  # Lance never returns zero vectors, whose score of 0 would be higher
        found.append((rows[order], scores[order]))
    return found


def allowed_candidates(
    view: LanceView, stored: StoredIndex, column: str, queries: np.ndarray, wanted: int, allowed: np.ndarray | None
) -> list[np.ndarray]:
    """Return for each query the rows of up to `wanted` candidates that the (row,) bool mask `allowed` keeps, nearest first."""
    share = max(share_of(allowed), 1 / max(view.known, 1))
    count = wanted if allowed is None else min(view.known, math.ceil(wanted / share)) + wanted
    # Neighbours farther away than those that the width was tuned for are spread over more lists.
    width = round(stored.width * math.sqrt(max(1.0, count / (RECALL_AT * stored.refine))))
    near = [rows[rows >= 0] for rows in candidates(view, stored, column, queries, count, width)]
    if allowed is None:
        return near
    # Where most near clips are filtered out, the codes of all are compared.
    fewest = min(wanted, int(np.count_nonzero(allowed)))
    for query, rows in enumerate(near):
        if np.count_nonzero(allowed[rows]) < fewest:
            every = candidates(view, stored, column, queries[query : query + 1], view.known, width)[0]
            near[query] = every[every >= 0]
    return [rows[allowed[rows]][:wanted] for rows in near]


def scores_with(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    """Return (row,) scores, or distances for l2, of a prepared query with prepared vectors."""
    return np.linalg.norm(vectors - query, axis=1) if metric == "l2" else vectors @ query


def vectors_of_lance(lake: Lake, space: Space, stored: StoredIndex, rows: np.ndarray, snapshot: Snapshot) -> np.ndarray:
    """Do the work of `stored_vectors`."""
    return prepare(read_kept_rows(lake, space, stored.layer, rows, snapshot), stored.metric)
