"""Rows that every interface of the service shows: songs, artists and values, and pages of them.

Only `SongSound`, which is not shown, has a path of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class SongRow:
    """A song as every interface shows it."""

    id: str                              # of the music server where the lake knows it, else of the song's first clip
    clip_id: str                         # of the clip that answers (its best moment), else of the song's first clip
    title: str                           # the file's name where the song has no title
    artist: str | None
    artists: list[str]
    album: str | None
    album_artist: str | None
    year: int | None
    genre: str | None
    track_number: int | None
    duration_s: float | None             # of the recording, as far as its clips reach
    start_s: float | None                # of the best moment, for similar songs and paths
    score: float | None                  # cosine, or the score of the answer


@dataclass(frozen=True, kw_only=True)
class ArtistRow:
    """An artist with the number of its songs."""

    id: str
    name: str
    songs: int


@dataclass(frozen=True, kw_only=True)
class NearArtist:
    """An artist near another one, with example songs: of the other one and of this one, nearest to each other first."""

    id: str
    name: str
    score: float                         # similarity of the two at equal size
    examples: list[SongRow]              # of the artist that was asked for
    near_examples: list[SongRow]         # of this artist


@dataclass(frozen=True, kw_only=True)
class ValueRow:
    """A value of a column as text, and the number of songs that have it."""

    value: str
    songs: int


@dataclass(frozen=True, kw_only=True)
class ColumnRow:
    """A column by whose values answers can be narrowed."""

    name: str
    kind: str                            # class, integer, tags or time
    values: int


@dataclass(frozen=True, kw_only=True)
class MapPoint:
    """A song on the map of a layer."""

    id: str
    clip_id: str                         # the clip that the song is drawn at
    title: str
    artist: str | None
    x: float
    y: float
    cluster: int                         # -1: in none


@dataclass(frozen=True, kw_only=True)
class FacetRow:
    """How well a facet works at a layer, on held-out tracks."""

    layer: str
    facet: str
    column: str
    auc_before: float | None
    auc_after: float | None


@dataclass(frozen=True, kw_only=True)
class LakeRow:
    """The lake as a client sees it."""

    name: str
    version: str
    clips: int
    songs: int
    spaces: list[str]
    space: str | None                    # that answers are computed in; None while nothing is embedded
    layer: str | None
    server: str | None                   # the music server whose ids songs have


@dataclass(frozen=True, kw_only=True)
class Page(Generic[Row]):
    """A page of a list of `total` rows: `rows` begin at number `first`."""

    rows: Sequence[Row]
    total: int
    first: int


@dataclass(frozen=True, kw_only=True)
class SongSound:
    """The sound of a song: a file of this machine, or what its clip is decoded to."""

    clip_id: str
    media_type: str                      # of the bytes that are sent
    etag: str
    size: int                            # bytes
    path: Path | None                    # None: a WAV file that is decoded while it is sent (`tonelake.wav_file`)
    duration_s: float
    name: str                            # of the file, without its folder
