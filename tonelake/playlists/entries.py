"""The songs of a playlist, each by the one file that a player plays it from.

A song can have several files: copies, and recordings that confirmed duplicates joined.  The file of the clip that was chosen
comes first, then copies of its recording, then the song's other recordings.  A `Player` says which of them it can play.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import polars as pl

from tonelake.store import Lake, read_songs


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One song of a playlist."""

    clip_id: str                         # of the clip that was chosen
    source: str                          # of the file that is played
    place: str                           # how the player names it: a path, a URI, or the id on a server
    title: str | None
    artist: str | None
    track: str
    seconds: float | None                # as far as the clips of the file reach


class Player(Protocol):
    """Where a playlist goes."""

    lacks: str                           # songs that it cannot play are songs "that …"

    def may_play(self, files: pl.DataFrame) -> pl.Series:
        """A mask of the rows of source and missing (bool) that it may have; it is quick, and may be wrong for some."""

    def place(self, source: str) -> str | None:
        """How the player names a file; None if it cannot play it."""


class SongFiles:
    """The files of every song of a lake."""

    def __init__(self, lake: Lake, player: Player, columns: list[str]) -> None:
        """`columns`: further columns of clips that are needed."""
        self._player = player
        names = ["clip_id", "source", "recording", "title", "artist", "album", "track", "start_s", "duration_s"]
        self.clips = lake.clips.read(list(dict.fromkeys([*names, *columns])))
        self.numbers = read_songs(lake.clips).of(self.clips["clip_id"])
        self._by_song = np.argsort(self.numbers, kind="stable")
        self._sorted = self.numbers[self._by_song]
        self._row_of = {clip: row for row, clip in enumerate(self.clips["clip_id"])}
        known = lake.paths.read(["source", "recording", "missing_since"])
        files = pl.concat([
            known.select("source", "recording", missing=pl.col("missing_since").is_not_null()),
            self.clips.select("source", "recording", missing=pl.lit(False)),               # sources without a row of their own
        ]).unique("source", keep="first", maintain_order=True)
        files = files.filter(player.may_play(files))
        self._playable = set(files["source"])
        self._copies: dict[str, list[str]] = {}
        for source, recording in files.select("source", "recording").drop_nulls().sort("source").iter_rows():
            self._copies.setdefault(recording, []).append(source)

    def __contains__(self, clip: str) -> bool:
        return clip in self._row_of

    def _members(self, clip: str) -> pl.DataFrame:
        """The rows of all clips of the song of a clip."""
        first, end = np.searchsorted(self._sorted, [self.number(clip), self.number(clip) + 1])
        return self.clips[np.sort(self._by_song[first:end])]

    def of_song(self, clip: str) -> list[str]:
        """Ids of all clips of the song of a clip."""
        return self._members(clip)["clip_id"].to_list()

    def row(self, clip: str) -> dict[str, Any]:
        """The row of a clip."""
        return self.clips.row(self._row_of[clip], named=True)

    def number(self, clip: str) -> int:
        """The number of the song of a clip."""
        return int(self.numbers[self._row_of[clip]])

    def playable_clips(self) -> pl.Series:
        """Ids of the clips of songs that the player may have."""
        sources, recordings = (self.clips[name].to_list() for name in ("source", "recording"))
        own = np.array([s in self._playable or r in self._copies for s, r in zip(sources, recordings, strict=True)], bool)
        return self.clips["clip_id"].filter(pl.Series(np.isin(self.numbers, np.unique(self.numbers[own]))))

    def entry(self, clip: str) -> Entry | None:
        """The song of a clip by its first file that the player can play; None if it can play none."""
        chosen = self.row(clip)
        members = self._members(clip)
        others = members.filter(pl.col("clip_id") != clip).sort("source", "start_s").to_dicts()
        tried: set[str] = set()
        for row in (chosen, *others):
            for source in dict.fromkeys([row["source"], *self._copies.get(row["recording"], ())]):
                if source in tried or source not in self._playable:
                    continue
                tried.add(source)
                place = self._player.place(source)
                if place is not None:
                    same = members.filter(
                        (pl.col("source") == row["source"]) if row["recording"] is None else
                        (pl.col("recording") == row["recording"])
                    )
                    return Entry(
                        clip_id=clip, source=source, place=place, title=row["title"], artist=row["artist"], track=row["track"],
                        seconds=same.select((pl.col("start_s") + pl.col("duration_s")).max()).item(),
                    )
        return None
