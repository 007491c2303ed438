"""Search in several spaces at once: the weighted sum of a query's cosines in each, standardised (`index.search.space_mixture`).

A scan scores every clip.  Where every space has an index of its layer, the indexes are searched instead, and the union of what
they find is scored exactly.  The search is widened until no clip outside the union can be among the hits: a clip that no index
has returned is in no space nearer than the last clip returned there, which bounds its score (the threshold algorithm of Fagin,
Lotem and Naor 2001).  What can be missed is what an index misses, so the recall is that of the indexes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.search.candidates import Embedded, allowed_rows, cached_embedded, embedded_in_snapshot
from tonelake.index.search.described_index import find_index
from tonelake.index.search.exact import cache_version, highest, load_layer
from tonelake.index.search.query import Query, QueryPart, resolve
from tonelake.index.search.songs import (
    FIRST_WIDTH,
    MOST_SEARCHED,
    WIDEN,
    Cap,
    SongRows,
    fold,
    nearest_songs,
    read_cap,
    stored_scores,
)
from tonelake.index.search.space_mixture import (
    MixturePart,
    SharedClips,
    formula,
    parse_spaces,
    part_names,
    shared_clips,
)
from tonelake.index.search.stored_index import search_stored
from tonelake.index.search.walk import walk
from tonelake.index.vectors import prepare, unit
from tonelake.store import InputError, Lake, SpaceWeights, rows_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class MixedQuery:
    """A query in every part of a mixture, with the scale of its cosines there."""

    parts: list[MixturePart]
    shared: SharedClips
    vectors: list[np.ndarray]            # of each part: (dim,) float32 of unit length
    standards: list[tuple[float, float]] # of each part: mean and standard deviation of the query's cosines

    def score(self, cosines: Sequence[np.ndarray]) -> np.ndarray:
        """Return (clip,) float32 scores from the (clip,) cosines of each part."""
        total = np.zeros(len(cosines[0]), np.float64)
        for part, (mean, spread), found in zip(self.parts, self.standards, cosines, strict=True):
            total += part.weight * ((found - mean) / spread)
        return total.astype(np.float32)


def refuse_with_spaces(**options: object) -> None:
    """Raise InputError for an option that belongs to a search in one space."""
    for name, value in options.items():
        if value:
            raise InputError(f"--{name.replace('_', '-')}: belongs to a search in one space. Leave it out, or use --space")


def similar_in_spaces(
    lake: Lake, query: QueryPart | Sequence[QueryPart], spaces: SpaceWeights, *, minus: Sequence[QueryPart] = (), k: int = 10,
    where: str | None = None, not_same: str | None = None, clips: bool = False, per: tuple[str, int] | None = None,
    order: str = "nearest",
) -> pl.DataFrame:
    """Return rank, score, clip_id, clips (for songs) and `cosine`, a struct with the cosine in each space, of the k nearest.

    Logs how the score is made, and how many clips are left out because a space lacks them.  Raises InputError for a mixture
    that cannot be parsed and as `resolve_in_spaces`.
    """
    parts = parse_spaces(lake, spaces)
    shared = shared_clips(lake, parts)
    mixed, asked = resolve_in_spaces(lake, query, minus, parts, shared)
    for note in asked.notes:
        log.info("%s", note)
    log.info(
        "score: %s, where the cosines of each space are z-scores: less the mean, divided by the standard deviation, of the "
        "query's cosines to %s clips; cosine: that of each space", formula(parts), f"{len(shared.samples[0]):,}",
    )
    log.info("%s", shared.coverage())
    rows, scores, counts = nearest_in_spaces(lake, mixed, asked, k, where, not_same, clips=clips, per=per)
    ids = shared.ids.gather(rows)
    vectors = [unit(lake.vectors(part.space).take(ids.to_list(), part.layer).vectors) if len(ids) else None for part in parts]
    cosines = {
        name: np.empty(0, np.float32) if found is None else (found @ own).astype(np.float32)
        for name, found, own in zip(part_names(parts), vectors, mixed.vectors, strict=True)
    }
    hits = pl.DataFrame({
        "rank": np.arange(1, len(ids) + 1), "score": scores, "clip_id": ids, **({} if counts is None else {"clips": counts}),
    }).with_columns(pl.DataFrame(cosines).to_struct("cosine"))
    if order == "walk" and len(ids):
        total = np.zeros((len(ids), len(ids)), np.float64)
        for part, (_, spread), found in zip(parts, mixed.standards, vectors, strict=True):
            assert found is not None
            total += part.weight * (found @ found.T) / spread
        hits = hits[walk(total)]
    return hits


def resolve_in_spaces(
    lake: Lake, query: QueryPart | Sequence[QueryPart], minus: Sequence[QueryPart], parts: list[MixturePart],
    shared: SharedClips,
) -> tuple[MixedQuery, Query]:
    """Resolve a query in every space; a file that is in none is encoded by the encoder of each.

    A query from `read_query` is used in its space; each space needs one of every file.  Returns the query with its vectors,
    and as one query with its own clips, labels and notes.  Raises InputError for a vector, or unless the spaces have equal
    numbers of such queries.
    """
    several = [query] if isinstance(query, QueryPart) else list(query)
    if any(isinstance(one, np.ndarray) for one in several) or any(isinstance(one, np.ndarray | Query) for one in minus):
        raise InputError("query: a vector belongs to one space, and several are searched. Give clips, songs or files")
    found: dict[str, Query] = {}
    spaces = {part.space.name: part.space for part in parts}
    encoded = [one.fingerprint for one in several if isinstance(one, Query)]
    if encoded and sorted(encoded) != sorted(len(encoded) // len(spaces) * [one.fingerprint for one in spaces.values()]):
        raise InputError(
            f"query: files that were encoded before belong to one space each. Encode every file in {' and '.join(spaces)}"
        )
    for name, space in spaces.items():
        layers = [part.layer for part in parts if part.space.name == name]
        own = [one for one in several if not isinstance(one, Query) or one.fingerprint == space.fingerprint]
        found[name] = resolve(lake, own, space, layers, minus=minus)
    vectors = [prepare(found[part.space.name].vectors[part.layer][None], "cosine")[0] for part in parts]
    mixed = MixedQuery(
        parts=parts, shared=shared, vectors=vectors,
        standards=[shared.standards(number, vector) for number, vector in enumerate(vectors)],
    )
    first, *others = found.values()
    notes = tuple(dict.fromkeys(note for one in (first, *others) for note in one.notes))
    return mixed, replace(first, own=first.own.union(*(one.own for one in others)), notes=notes)


def nearest_in_spaces(
    lake: Lake, mixed: MixedQuery, asked: Query, k: int, where: str | None, not_same: str | None, *, clips: bool,
    per: tuple[str, int] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return (rows of the shared clips, float32 scores, clips at least as near as the last song or None), nearest first."""
    shared = mixed.shared
    key = (*(cache_version(lake, part.space) for part in mixed.parts), "shared")
    known = cached_embedded(key, lake, lambda: shared.ids)
    allowed = allowed_rows(lake, known, asked, where, not_same, own_songs=not clips)
    cap = read_cap(lake, per, known.ids_of, known.songs.numbers) if per else None
    songs = known.each_clip if clips else known.songs
    found = search_indexes(lake, mixed, known, allowed, songs, k, cap)
    if found is None:
        scores = scan(lake, mixed)
        if clips and cap is None:
            rows = highest(scores, k, allowed)
            return rows, scores[rows], None
        rows, counts = nearest_songs(scores, songs.numbers, k, allowed, cap)
        return rows, scores[rows], None if clips else counts
    rows, exact, counts = found
    return rows, exact, None if clips else counts


def scan(lake: Lake, mixed: MixedQuery) -> np.ndarray:
    """Return the (clip,) float32 score of every shared clip."""
    shared, cosines = mixed.shared, []
    for number, (part, vector) in enumerate(zip(mixed.parts, mixed.vectors, strict=True)):
        layer = load_layer(lake, part.space, part.layer)
        known = shared.rows.get(number)
        if known is None or known[0] is not layer.ids:
            rows = rows_of(layer.ids, shared.ids)
            if (rows < 0).any():
                raise InputError(f"space {part.space.name!r}: clips were removed from it during the search. Search again")
            known = shared.rows[number] = (layer.ids, rows)
        cosines.append((layer.vectors @ vector)[known[1]])
    return mixed.score(cosines)


def search_indexes(
    lake: Lake, mixed: MixedQuery, known: Embedded, allowed: np.ndarray | None, songs: SongRows, k: int, cap: Cap | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Search the index of every part: (rows of the shared clips, exact scores, (song,) clips that near), nearest first.

    Returns None, and the caller scans, if a part has no index or a negative weight, or where a scan is faster.
    """
    indexes = [IndexedPart.find(lake, mixed, number, known, allowed) for number in range(len(mixed.parts))]
    if any(index is None for index in indexes):
        return None
    ready = [index for index in indexes if index is not None]
    total = len(known.ids) if allowed is None else int(allowed.sum())
    width = FIRST_WIDTH * k
    while width <= min(total, max(MOST_SEARCHED * total, FIRST_WIDTH * k)):
        rows, last = [], []
        for index in ready:
            found = index.search(width)
            if found is None:
                return None
            rows.append(found[0])
            last.append(found[1])
        union = np.unique(np.concatenate(rows))
        union = union[union >= 0]
        scores = mixed.score([index.cosines(union) for index in ready])
        bound = float(mixed.score([np.array([one]) for one in last])[0])         # no clip outside the union is above it
        nearest = np.lexsort((union, -scores))
        folded = fold(union[nearest], scores[nearest], songs.numbers[union[nearest]], k, cap)
        exact = scores[np.searchsorted(union, folded.rows)]
        if len(folded.rows) == k and exact[-1] > bound:
            return folded.rows, exact, folded.clips
        width *= WIDEN
    return None


@dataclass(frozen=True, kw_only=True)
class IndexedPart:
    """The index of one part of a mixture, with the rows of the shared clips in its table."""

    lake: Lake
    part: MixturePart
    vector: np.ndarray                   # (dim,) the query
    stored: Any                          # its index
    snapshot: Any                        # of the space's table
    row_of: np.ndarray                   # (shared clip,) row of the table
    shared_row_of: np.ndarray            # (row of the table,) shared clip, -1 for none
    allowed: np.ndarray | None           # (row of the table,) bool; None if all may be hits

    @classmethod
    def find(
        cls, lake: Lake, mixed: MixedQuery, number: int, known: Embedded, allowed: np.ndarray | None
    ) -> IndexedPart | None:
        """Return the indexed part, None without an index or for a negative weight (an index does not find the farthest)."""
        part = mixed.parts[number]
        stored = find_index(lake, part.space, part.layer, metric="cosine")
        if stored is None or part.weight < 0:
            return None
        snapshot = lake.vectors(part.space).table.snapshot()
        row_of = embedded_in_snapshot(lake, part.space, snapshot).rows.of(known.ids)
        if (row_of < 0).any():           # clips were removed during the search
            return None
        back = np.full(len(snapshot.row_ids), -1, np.int64)
        back[row_of] = np.arange(len(row_of))
        mask = None
        if allowed is not None or len(row_of) < len(back):
            mask = np.zeros(len(back), bool)
            mask[row_of if allowed is None else row_of[allowed]] = True
        return cls(
            lake=lake, part=part, vector=mixed.vectors[number], stored=stored, snapshot=snapshot, row_of=row_of,
            shared_row_of=back, allowed=mask,
        )

    def search(self, width: int) -> tuple[np.ndarray, float] | None:
        """Return the rows of the nearest shared clips, and the cosine of the last; None if the index cannot find so many."""
        found = search_stored(self.lake, self.part.space, self.stored, self.vector, width, self.allowed, self.snapshot)
        if found is None or not len(found[0]):
            return None
        return self.shared_row_of[found[0]], float(found[1][-1])

    def cosines(self, shared_rows: np.ndarray) -> np.ndarray:
        """Return the (clip,) exact cosines of some shared clips to the query."""
        return stored_scores(self.lake, self.part.space, self.stored, self.vector, self.row_of[shared_rows], self.snapshot)
