"""Choose which embedded clips may be hits of a search: filters, the query's own clips and songs, and `not_same` columns."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.search.exact import cache_version
from tonelake.index.search.query import Query
from tonelake.index.search.songs import SongRows
from tonelake.store import KeyRows, Lake, Snapshot, Space, is_list, look_once, read_songs

CACHED_ORDERS = 4                        # entries of `_embedded`

_embedded: dict[tuple, Embedded] = {}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """The embedded clips in the order of a layer or table, with lookups that every search needs."""

    lake: Lake
    ids: pl.Series
    rows: KeyRows                        # clip id -> row
    removed: np.ndarray                  # rows of clips that are no longer in the lake

    @classmethod
    def of(cls, lake: Lake, ids: pl.Series) -> Embedded:
        """Clips by id, all of them in the lake."""
        return cls(lake, ids, KeyRows(ids), np.empty(0, np.int64))

    @cached_property
    def songs(self) -> SongRows:
        """The song of each row."""
        return SongRows(read_songs(self.lake.clips).of(self.ids))

    @cached_property
    def each_clip(self) -> SongRows:
        """Every row as a song of its own, to search for clips."""
        return SongRows(np.arange(len(self.ids)))

    def ids_of(self, rows: np.ndarray) -> list[str]:
        """The clip ids of some rows."""
        return self.ids.gather(rows).to_list()


def embedded_in_layer(lake: Lake, space: Space, ids: pl.Series) -> Embedded:
    """Return the clips of a loaded layer, cached until clips or vectors change."""
    return cached_embedded((*cache_version(lake, space), "layer"), lake, lambda: ids)


def embedded_in_snapshot(lake: Lake, space: Space, snapshot: Snapshot) -> Embedded:
    """Return the clips of one version of a space's table, in its order, cached."""
    version = 0 if snapshot.dataset is None else snapshot.dataset.version
    key = (lake.identity, space.fingerprint, version, lake.clips.table.version, "table")
    return cached_embedded(key, lake, lambda: pl.Series("clip_id", snapshot.keys, dtype=pl.String))


def cached_embedded(key: tuple, lake: Lake, read: Callable[[], pl.Series]) -> Embedded:
    """Return clips from the cache, or read and cache them."""
    found = _embedded.get(key)
    # A concurrent writer can make a layer older than the versions in the key, so compare its ids as well.
    if found is None or (key[-1] == "layer" and found.ids is not (ids := read()) and not found.ids.equals(ids)):
        ids, clips = read(), lake.clips.ids()
        removed = np.empty(0, np.int64) if ids.equals(clips) else (~ids.is_in(clips.implode())).arg_true().to_numpy()
        found = _embedded[key] = Embedded(lake, ids, KeyRows(ids), removed)
        while len(_embedded) > CACHED_ORDERS:
            _embedded.pop(next(iter(_embedded)), None)
    return found


def allowed_rows(
    lake: Lake, known: Embedded, query: Query, where: str | None, not_same: str | None, *, own_songs: bool = False
) -> np.ndarray | None:
    """Return a (clip,) bool mask of the embedded clips that may be hits; None if all may.

    Clips of the query itself may not, nor, with `own_songs`, any clip of a song that one of them belongs to.
    """
    forbidden = [known.removed, known.rows.of(list(query.own))]
    if own_songs and query.own:
        forbidden.append(known.songs.members(np.unique(read_songs(lake.clips).of(list(query.own)))))
    if not_same is not None:
        forbidden.append(rows_sharing(lake, known, query, not_same))
    if where is None and not any(len(rows) for rows in forbidden):
        return None
    keep = np.ones(len(known.ids), bool)
    if where is not None:
        wanted = known.rows.of(look_once(("ids", lake.uri, where), lambda: lake.clips.ids(where)))
        keep[:] = False
        keep[wanted[wanted >= 0]] = True
    for rows in forbidden:
        keep[rows[rows >= 0]] = False
    return keep


def rows_sharing(lake: Lake, known: Embedded, query: Query, column: str) -> np.ndarray:
    """Return the rows of clips that share the query's value of a column; of `track`, its song.

    Logs a sentence if that excludes nothing because the query's value is unknown or no other clip has it.
    """
    if column == "track":
        own = [labels["clip_id"] for labels in query.labels if labels.get("clip_id")]
        if not own:
            log.info("--not-same track: the query is not a song of this lake, so every song differs from it")
        return known.songs.members(np.unique(read_songs(lake.clips).of(own)))
    # `artist` holds several artists as one text; the list has each.
    columns = ["artist", "artists"] if column == "artist" and "artists" in lake.clips.columns() else [column]
    values = [(name, labels[name]) for labels in query.labels for name in columns if labels.get(name) not in (None, [], "")]
    if not values:
        log.info("--not-same %s: no %s of the query is known, so nothing is excluded by it", column, column)
        return np.empty(0, np.int64)
    stored = lake.clips.read(["clip_id", *columns])
    sharing = pl.concat([stored.filter(_shares(stored[name], value))["clip_id"] for name, value in values]).unique()
    if sharing.is_in(list(query.own)).all():
        shown = ", ".join(dict.fromkeys(repr(value) for _, value in values))
        log.info("--not-same %s: no other clip has %s, the query's own, so nothing is excluded by it", column, shown)
    return known.rows.of(sharing)


def _shares(column: pl.Series, value: Any) -> pl.Series:
    """Return a mask of the rows that have the value or, in a list column, any of its values."""
    several = is_list(column.dtype)
    kind = column.head(0).explode().dtype if several else column.dtype
    try:                                 # a tag of a file can be text where the column holds numbers
        values = pl.Series(list(value) if isinstance(value, list | tuple) else [value]).cast(kind)
    except pl.exceptions.PolarsError:
        return pl.Series([False]).new_from_index(0, len(column))
    if several:
        return column.list.set_intersection(values.implode()).list.len().fill_null(0) > 0
    return column.is_in(values.implode()).fill_null(False)
