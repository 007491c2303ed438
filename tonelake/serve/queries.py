"""Requests of programs -> queries, filters and checks of `tonelake.index`, and its hits -> rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from tonelake import Lake
from tonelake.index import Query, Song
from tonelake.narrowing import condition_on
from tonelake.serve.catalogue import Catalogue, narrowing_kinds
from tonelake.serve.rows import SongRow
from tonelake.store import ClipNotFound, InputError, Space

MOST = 500                               # rows of one answer
MOST_IDS = 100                           # songs that a query combines
MOST_VALUES = 100                        # values of a filter, and columns
LONGEST_TEXT = 500                       # characters of a name or a prompt
HIDDEN = ("source", "recording", "digest", "clip_id", "added_at", "labelled", "cut")         # columns that are never shown

Where = Mapping[str, Sequence[str]]
FrozenWhere = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class SimilarRequest:
    """A request for similar songs, see `Answers.similar`; equal ones have one answer.  Raises InputError for a wrong one."""

    ids: tuple[str, ...]
    minus: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    count: int = 10
    where: FrozenWhere = ()
    not_same: str | None = None
    per: tuple[str, int] | None = None
    order: str = "nearest"
    space: str | None = None
    layer: int | str | None = None
    like: str | None = None
    unlike: str | None = None
    moments: bool = False

    def __post_init__(self) -> None:
        check_count(self.count)
        if not self.ids and not self.text:
            raise InputError("query: names no song and no words. Give the id of a song, or words")
        if len(self.ids) + len(self.minus) > MOST_IDS or len(self.text) > MOST_IDS:
            raise InputError(f"query: has more than {MOST_IDS} songs or prompts. Leave some out")
        if any(len(prompt) > LONGEST_TEXT for prompt in self.text):
            raise InputError(f"words: longer than {LONGEST_TEXT} characters. Shorten them")
        if not all(prompt.strip(" -") for prompt in self.text):
            raise InputError("words: a prompt is empty. Leave it out")


# -- queries


def query_of(lake: Lake, space: Space, layer: int, clips: Sequence[str], not_same: str | None) -> Query:
    """Return the mean of a song's embedded clips as a query.  Raises ClipNotFound if none is embedded."""
    vectors = lake.vectors(space)
    try:
        found = vectors.take(clips, layer).vectors
    except InputError:
        known = pl.Series(list(clips)).is_in(vectors.ids().implode())
        embedded = [clip for clip, there in zip(clips, known, strict=True) if there]
        if not embedded:
            raise ClipNotFound(f"song: not embedded in space {space.name!r} yet. Run `tonelake embed`") from None
        found = vectors.take(embedded, layer).vectors
    labels = lake.clips.take(list(clips)).unique("track", keep="first", maintain_order=True).to_dicts() if not_same else ()
    return Query({layer: found.mean(axis=0)}, own=frozenset(clips), labels=tuple(labels), fingerprint=space.fingerprint)


def named_song(lake: Lake, catalogue: Catalogue, row: int, clips: Sequence[str]) -> str | Song:
    """Return a song, or its one clip, as a part of a query that is resolved in a space which is not known yet."""
    song = catalogue.song(row)
    tracks = lake.clips.take(list(clips), ["track"])["track"].unique().to_list()
    return Song(clip_id=song.clip_id, tracks=tuple(tracks), title=song.title, artist=song.artist, album=song.album, file="")


def compared_clips(catalogue: Catalogue, song_id: str, *, moment: bool) -> tuple[int, list[str]]:
    """Return the row of a song and the clips that are compared: all of it, or with `moment` the one that has the id."""
    row = catalogue.row_of(song_id)
    clips = catalogue.clips_of(row)["clip_id"].to_list()
    return row, [song_id] if moment and song_id in clips else clips


def hit_rows(catalogue: Catalogue, found: pl.DataFrame) -> list[SongRow]:
    """Return hits as rows; those that another process has just removed are left out."""
    rows, starts_s = catalogue.rows_and_starts_of(found["clip_id"])
    return [
        catalogue.song(row, clip_id=clip_id, start_s=start_s, score=None if score is None else round(score, 6))
        for row, start_s, clip_id, score in zip(rows, starts_s, found["clip_id"], found["score"], strict=True) if row >= 0
    ]


# -- filters and checks


def frozen(where: Where | None) -> FrozenWhere:
    return tuple((column, tuple(values)) for column, values in (where or {}).items())


def filter_of(lake: Lake, where: FrozenWhere) -> str | None:
    """Return a filter as SQL made of literals; None without one.  Raises InputError for an unknown column or value."""
    if not where:
        return None
    if len(where) > MOST_VALUES or sum(len(values) for _, values in where) > MOST_VALUES:
        raise InputError(f"where: has more than {MOST_VALUES} values. Leave some out")
    check_columns(lake, [column for column, _ in where])
    parts = []
    for column, values in where:
        part = condition_on(lake, column, values)
        if part is None:
            shown = ", ".join(repr(value[:40]) for value in values[:3])
            raise InputError(f"where.{column}={shown}: not a value of this column. Ask for the values of the column")
        parts.append(part)
    return " AND ".join(parts)


def check_columns(lake: Lake, columns: Sequence[str]) -> None:
    """Raise InputError for a column by which clips cannot be grouped; paths and digests are never shown."""
    known = [name for name in narrowing_kinds(lake) if name not in HIDDEN]
    for column in columns:
        if column not in known:
            raise InputError(f"column {column[:40]!r}: unknown. Choose one of {', '.join(sorted(known))}")


def check_count(count: int, name: str = "count", most: int = MOST) -> None:
    """Raise InputError unless a number of rows is allowed."""
    if not 1 <= count <= most:
        raise InputError(f"{name}={count}: must be 1 to {most:,}")


def check_page(first: int, count: int, most: int = MOST) -> None:
    """Raise InputError unless a page is allowed."""
    check_count(count, most=most)
    if first < 0:
        raise InputError(f"first={first}: must be 0 or more")
