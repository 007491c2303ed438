"""Search with scores corrected for hubs: a layer for a scan, and re-ranking of what a stored index finds.

The correction is that of `index.hubness`.  A query's own neighbourhood is the same for every clip and never
changes their order, so scores here lack it; `similar` subtracts it at the end.

A scan needs the neighbourhood of every clip, computed once per process and cached with the layer (3 s for 100,000 clips of
768 dimensions on two cores).  A stored index returns RERANKED times as many clips as wanted, and only those are corrected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.index.hubness import NEIGHBOURS, References, choose_references, mean_of_highest
from tonelake.index.search.described_index import StoredIndex
from tonelake.index.search.exact import ExactLayer, cache_version, cached_layer, highest
from tonelake.index.search.narrow import scan_is_faster
from tonelake.index.search.songs import MOST_SEARCHED, WIDEN, Cap, SongRows, fold
from tonelake.index.search.stored_index import search_stored, stored_vectors
from tonelake.index.vectors import prepare_one, unit
from tonelake.store import Lake, Snapshot, Space, read_songs

RERANKED = 20                            # times k: clips of an index that are re-ranked
LEAST_RERANKED = 200
CACHED_REFERENCES = 16                   # layers whose references are cached: 6 MB each at 768 dimensions

_references: dict[tuple, References] = {}


@dataclass(frozen=True)
class CorrectedLayer(ExactLayer):
    """A layer whose scores are lowered by half the neighbourhood of each clip."""

    base: ExactLayer
    half: np.ndarray                     # (clip,) float32: half the neighbourhood of each clip
    references: References

    def prepare_query(self, query: np.ndarray) -> np.ndarray:
        return self.base.prepare_query(query)

    def scores(self, query: np.ndarray) -> np.ndarray:
        return self.base.scores(query) - self.half

    def scores_of(self, queries: Sequence[np.ndarray]) -> np.ndarray:
        return self.base.scores_of(queries) - self.half

    def search(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        scores = self.scores(query)
        rows = highest(scores, k, allowed)
        return rows, scores[rows]


def corrected_layer(
    lake: Lake, space: Space, layer: int, base: ExactLayer, like: str | None, unlike: str | None
) -> CorrectedLayer:
    """Return a loaded layer, mapped by facets or not, with the neighbourhood of every clip; cached as layers are."""
    def make() -> CorrectedLayer:
        songs, rows = read_songs(lake.clips).of(base.ids), choose_references(base.ids)
        references = References(base.vectors[rows], songs[rows])
        half = references.neighbourhood(base.vectors, songs) / 2
        return CorrectedLayer(base.metric, base.ids, base.vectors, base, half, references)

    found = cached_layer((*cache_version(lake, space), layer, "cosine", like, unlike, "corrected"), make)
    assert isinstance(found, CorrectedLayer)
    # A concurrent writer can make a layer newer than the cached correction.
    return found if found.base is base or found.ids.equals(base.ids) else make()


def layer_references(lake: Lake, space: Space, layer: int) -> References:
    """Read the references of a layer, without facets, and cache them until clips or vectors change."""
    key = (*cache_version(lake, space), layer)
    if key not in _references:
        table = lake.vectors(space)
        snapshot = table.table.snapshot()
        ids = pl.Series("clip_id", snapshot.keys, dtype=pl.String)
        rows = choose_references(ids)
        # By row number: a look-up of so many keys would read the whole layer.
        vectors = unit(table.read_rows(snapshot, rows, layer))
        _references[key] = References(vectors, read_songs(lake.clips).of(ids.gather(rows)))
        while len(_references) > CACHED_REFERENCES:
            _references.pop(next(iter(_references)), None)
    return _references[key]


def query_neighbourhood(prepared: np.ndarray, own: np.ndarray, references: References) -> float:
    """Return the neighbourhood of a prepared (dim,) query; references of the songs in `own` are left out."""
    cosines = references.vectors @ prepared
    cosines[np.isin(references.songs, own)] = -np.inf
    return float(mean_of_highest(cosines[None], NEIGHBOURS)[0])


def nearest_stored_corrected(
    lake: Lake, space: Space, stored: StoredIndex, query: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot,
    songs: SongRows, song_of: np.ndarray, cap: Cap | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Search an index and re-rank by corrected scores: (rows of the best clips, clips that near, scores), nearest first.

    `songs`: what a hit is (a song, or each clip); `song_of`: (row,) the song of each clip.
    Returns None, and the caller scans, where a scan is faster or the index finds too few.
    """
    total = len(snapshot.row_ids)
    width = max(RERANKED * k, LEAST_RERANKED)
    most = max(MOST_SEARCHED * total, width)
    if scan_is_faster(lake, space, stored, allowed):
        return None
    prepared = prepare_one(query, stored.metric)[0]
    references = layer_references(lake, space, stored.layer)
    while width <= min(most, total):
        found = search_stored(lake, space, stored, query, width, allowed, snapshot)
        if found is None:
            return None
        members = songs.members(np.unique(songs.numbers[found[0]]))
        members = members if allowed is None else members[allowed[members]]
        vectors = stored_vectors(lake, space, stored, members, snapshot)
        scores = vectors @ prepared - references.neighbourhood(vectors, song_of[members]) / 2
        order = np.lexsort((members, -scores))
        folded = fold(members[order], scores[order], songs.numbers[members[order]], k, cap, everything=True)
        if len(folded.rows) == k:
            score_of = dict(zip(members.tolist(), scores.tolist(), strict=True))
            return folded.rows, folded.clips, np.array([score_of[row] for row in folded.rows.tolist()], np.float32)
        width *= WIDEN
    return None
