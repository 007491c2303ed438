"""Choose which embedded clips may be hits of a search: filters, the query's own clips and songs, and `not_same` columns."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.index.search.exact import cache_version
from tonelake.index.search.query import Query
from tonelake.index.search.songs import SongRows
from tonelake.store import KeyRows, Lake, Snapshot, Space, is_list, look_once, quote, read_songs

CACHED_ORDERS = 4                        # entries of `_embedded`
CACHED_FILTERS = 8                       # of each entry: a byte a clip
CHANGES = re.compile(r"\b(now|today|current_\w+|random|uuid)\b", re.I)              # filters whose clips change by themselves

_embedded: dict[tuple, Embedded] = {}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """The embedded clips in the order of a layer or table, with lookups that every search needs."""

    lake: Lake
    ids: pl.Series
    rows: KeyRows                        # clip id -> row
    removed: np.ndarray                  # rows of clips that are no longer in the lake
    clip_rows: tuple[KeyRows, np.ndarray] | None = None              # of the lake's clips; the row there of each
    filtered: dict[str, np.ndarray] = field(default_factory=dict)    # by filter: a (row,) bool mask

    @classmethod
    def of(cls, lake: Lake, ids: pl.Series) -> Embedded:
        """Clips by id, all of them in the lake."""
        return cls(lake, ids=ids, rows=KeyRows(ids), removed=np.empty(0, np.int64))

    @cached_property
    def songs(self) -> SongRows:
        """The song of each row."""
        songs = read_songs(self.lake.clips)
        if self.clip_rows is not None and self.clip_rows[0] is songs.rows:           # looked up already
            return SongRows(songs.of_rows(self.clip_rows[1]))
        return SongRows(songs.of(self.ids))

    @cached_property
    def each_clip(self) -> SongRows:
        """Every row as a song of its own, to search for clips."""
        return SongRows(np.arange(len(self.ids)))

    def matching(self, where: str) -> np.ndarray:
        """Return a (row,) bool mask of the clips that match a filter; that of the last filters is kept."""
        found = self.filtered.get(where)
        if found is None:
            rows = self.rows.of(look_once(("ids", self.lake.uri, where), lambda: self.lake.clips.ids(where)))
            found = np.zeros(len(self.ids), bool)
            found[rows[rows >= 0]] = True
            if not CHANGES.search(where):
                self.filtered[where] = found
                for oldest in list(self.filtered)[:-CACHED_FILTERS]:
                    self.filtered.pop(oldest, None)
        return found

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
    table = lake.vectors(space).table
    return cached_embedded(
        key, lake, lambda: pl.Series("clip_id", snapshot.keys, dtype=pl.String), lambda ids: table.key_rows(snapshot)
    )


def cached_embedded(
    key: tuple, lake: Lake, read: Callable[[], pl.Series], hashed: Callable[[pl.Series], KeyRows] = KeyRows
) -> Embedded:
    """Return clips from the cache, or read and cache them; `hashed` gives their row numbers."""
    found = _embedded.get(key)
    # A concurrent writer can make a layer older than the versions in the key, so compare its ids as well.
    if found is None or (key[-1] == "layer" and found.ids is not (ids := read()) and not found.ids.equals(ids)):
        ids, clips = read(), lake.clips.key_rows()
        rows = clips.of(ids)
        found = _embedded[key] = Embedded(
            lake, ids=ids, rows=hashed(ids), removed=np.flatnonzero(rows < 0), clip_rows=(clips, rows)
        )
        while len(_embedded) > CACHED_ORDERS:
            _embedded.pop(next(iter(_embedded)), None)
    return found


def allowed_rows(
    lake: Lake, known: Embedded, query: Query, where: str | None, not_same: str | None, *, own_songs: bool = False
) -> np.ndarray | None:
    """Return a (clip,) bool mask of the embedded clips that may be hits; None if all may.

    Clips of the query itself may not, nor, with `own_songs`, any clip of a song that one of them belongs to.
    """
    forbidden = [known.removed]
    if query.own:
        forbidden.append(known.rows.of(list(query.own)))
    if query.own and own_songs:
        forbidden.append(known.songs.members(np.unique(read_songs(lake.clips).of(list(query.own)))))
    if not_same is not None:
        forbidden.append(rows_sharing(lake, known, query, not_same))
    if where is None and not any(len(rows) for rows in forbidden):
        return None
    if where is None:
        keep = np.ones(len(known.ids), bool)
    else:
        keep = known.matching(where).copy()
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
    sharing = pl.concat([clips_sharing(lake, name, value) for name, value in values]).unique()
    if sharing.is_in(list(query.own)).all():
        shown = ", ".join(dict.fromkeys(repr(value) for _, value in values))
        log.info("--not-same %s: no other clip has %s, the query's own, so nothing is excluded by it", column, shown)
    return known.rows.of(sharing)


def clips_sharing(lake: Lake, column: str, value: Any) -> pl.Series:
    """Return the ids of clips that have the value in a column or, in a list column, any of its values."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    schema = lake.clips.table.schema
    kind = schema.field(column).type if column in schema.names else None
    if kind in (pa.string(), pa.list_(pa.string())) and all(isinstance(one, str) for one in several):
        # A filter returns few ids, where reading the column returns that of every clip.
        name = f'"{column}"'
        if kind == pa.string():
            return lake.clips.ids(f"{name} IN ({', '.join(map(quote, several))})")
        return lake.clips.ids(" OR ".join(f"array_has({name}, {quote(one)})" for one in several))
    stored = lake.clips.read(["clip_id", column])
    return stored.filter(_shares(stored[column], value))["clip_id"]


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
