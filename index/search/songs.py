"""Fold ranked clips into songs, and cap how many hits share a value.

A hit is a song by default: its row shows the clip nearest to the query, its best moment, and `clips`, the number of its clips
that are at least as near as the last song listed.  Both are exact for a scan: the scores of all clips are compared.  An
approximate index is searched wider until it has found k songs; the clips of these songs are then scored one by one, so that
best moments and counts do not depend on which of them the index happened to return.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from tonelake.index.search.described_index import StoredIndex
from tonelake.index.search.narrow import scan_is_faster
from tonelake.index.search.stored_index import search_stored, stored_vectors
from tonelake.index.vectors import prepare_one
from tonelake.store import InputError, Lake, Snapshot, Space, is_list

FIRST_WIDTH = 8                          # times k: clips of a scan that are looked at first
FIRST_SEARCHED = 4                       # times k: clips that an index returns first; more would widen its search
WIDEN = 4                                # factor by which more clips are looked at until there are k songs
MOST_SEARCHED = 0.05                     # share of the clips; an index that has to return more is slower than a scan

Values = Callable[[np.ndarray], Sequence[Sequence[Hashable]]]        # (row,) -> the values of each


@dataclass(frozen=True)
class Cap:
    """A limit: `most` hits may share a value.  Hits without a value are not capped."""

    most: int
    values: Values

    def accept(self, rows: np.ndarray, k: int) -> np.ndarray:
        """Indices of the first k of these rows that stay within the cap, in order."""
        counts: Counter[Hashable] = Counter()
        accepted: list[int] = []
        for start in range(0, len(rows), 1024):
            for place, values in enumerate(self.values(rows[start : start + 1024]), start):
                if all(counts[value] < self.most for value in values):
                    counts.update(values)
                    accepted.append(place)
                    if len(accepted) == k:
                        return np.array(accepted)
        return np.array(accepted, np.int64)


def read_cap(
    lake: Lake, per: tuple[str, int] | None, ids: Callable[[np.ndarray], Sequence[str]], songs: np.ndarray
) -> Cap | None:
    """The cap for `per`, a column and a number; `ids` gives the clip ids of rows, `songs` is the (row,) song of each.

    The column `track` counts songs, a list column counts each of its values.  Raises InputError for an unknown column or a
    number below 1.
    """
    if per is None:
        return None
    column, most = per
    lake.clips.check_column(column)
    if most < 1:
        raise InputError(f"--per {column} {most}: must be at least 1")
    if column == "track":
        return Cap(most, lambda rows: [(int(song),) for song in songs[rows]])

    def values(rows: np.ndarray) -> list[tuple[Hashable, ...]]:
        found = lake.clips.take(ids(rows), [column])[column]
        if is_list(found.dtype):
            return [tuple(dict.fromkeys(value for value in several or () if value is not None)) for several in found.to_list()]
        return [() if value is None else (value,) for value in found.to_list()]

    return Cap(most, values)


@dataclass(frozen=True)
class Folded:
    """Songs, nearest first."""

    rows: np.ndarray                     # (song,) row of its best clip
    clips: np.ndarray                    # (song,) clips at least as near as the last song
    complete: bool                       # whether no clip that was left out could change the result


def fold(
    rows: np.ndarray, nearness: np.ndarray, songs: np.ndarray, k: int, cap: Cap | None = None, *, everything: bool = False
) -> Folded:
    """Fold clips, nearest first, into their first k songs.

    `rows`, `nearness` and `songs`: (clip,) row of each clip, its score (higher is nearer) and its song.  `everything`: these
    are all clips; else others may follow that are at most as near as the last one.
    """
    first = np.sort(np.unique(songs, return_index=True)[1])
    chosen = first[:k] if cap is None else first[cap.accept(rows[first], k)]
    if not len(chosen):
        return Folded(rows[:0], np.empty(0, np.int64), everything)
    last = nearness[chosen[-1]]
    near = songs[nearness >= last]
    order = np.sort(songs[chosen])
    at = np.searchsorted(order, near)
    counted = np.bincount(at[(at < len(order)) & (order[np.minimum(at, len(order) - 1)] == near)], minlength=len(order))
    complete = everything or (len(chosen) == k and bool(last > nearness[-1]))
    return Folded(rows[chosen], counted[np.searchsorted(order, songs[chosen])], complete)


def nearest_songs(
    nearness: np.ndarray, songs: np.ndarray, k: int, allowed: np.ndarray | None = None, cap: Cap | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the best clips of the k nearest songs, nearest first, and how many clips of each are that near.

    `nearness` and `songs`: (clip,) scores, higher is nearer, and numbers of songs; `allowed`: a (clip,) bool mask.
    """
    rows = None if allowed is None else np.flatnonzero(allowed)
    values = nearness if rows is None else nearness[rows]
    width = FIRST_WIDTH * k + 64
    while True:
        width = min(width, len(values))
        top = np.argpartition(values, len(values) - width)[len(values) - width :] if width < len(values) else np.arange(width)
        top = top[np.lexsort((top, -values[top]))]
        own = top if rows is None else rows[top]
        found = fold(own, values[top], songs[own], k, cap, everything=width == len(values))
        if found.complete:
            return found.rows, found.clips
        width *= WIDEN


def nearest_songs_stored(
    lake: Lake, space: Space, stored: StoredIndex, query: np.ndarray, k: int, allowed: np.ndarray | None, snapshot: Snapshot,
    songs: SongRows, cap: Cap | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Search an index for songs: (rows of the best clips, (song,) clips that near, (song,) scores or distances), nearest first.

    The index is searched wider until it has found k songs.  Returns None, and the caller scans, where a scan is faster.
    """
    total = len(snapshot.row_ids)
    most = max(MOST_SEARCHED * total, FIRST_SEARCHED * k)
    sign = -1.0 if stored.metric == "l2" else 1.0
    width = FIRST_SEARCHED * k
    if scan_is_faster(lake, space, stored, allowed):
        return None
    while width <= min(most, total):
        found = search_stored(lake, space, stored, query, width, allowed, snapshot)
        if found is None:
            return None
        rows, scores = found
        folded = fold(rows, sign * scores, songs.numbers[rows], k, cap)
        if len(folded.rows) == k:
            members = songs.members(songs.numbers[folded.rows])
            members = members if allowed is None else members[allowed[members]]
            exact = sign * stored_scores(lake, space, stored, query, members, snapshot)
            order = np.lexsort((members, -exact))
            again = fold(members[order], exact[order], songs.numbers[members[order]], k, cap, everything=True)
            if len(again.rows) == k:     # else another best moment of a song has a value that is capped
                exact_of = dict(zip(members.tolist(), exact.tolist(), strict=True))
                return again.rows, again.clips, sign * np.array([exact_of[row] for row in again.rows.tolist()], np.float32)
        width *= WIDEN
    return None


class SongRows:
    """The song of each row of a table, and the rows of each song."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers = numbers           # (row,) int64
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None

    def members(self, songs: np.ndarray) -> np.ndarray:
        """Rows of all clips of these songs."""
        if self._sorted is None:
            order = np.argsort(self.numbers, kind="stable")
            self._sorted = (self.numbers[order], order)
        sorted_numbers, order = self._sorted
        starts, ends = (np.searchsorted(sorted_numbers, songs, side=side) for side in ("left", "right"))
        return np.concatenate([order[a:b] for a, b in zip(starts, ends, strict=True)]) if len(songs) else order[:0]


def stored_scores(
    lake: Lake, space: Space, stored: StoredIndex, query: np.ndarray, rows: np.ndarray, snapshot: Snapshot
) -> np.ndarray:
    """Return the score, or the distance for l2, of some rows of a snapshot."""
    vectors, prepared = stored_vectors(lake, space, stored, rows, snapshot), prepare_one(query, stored.metric)
    return np.linalg.norm(vectors - prepared, axis=1) if stored.metric == "l2" else vectors @ prepared[0]
