"""Choose the songs of a playlist: those that it is like first, then the nearest, or those on a path to another song.

A song occurs once, whatever its versions ("Song (Live)", a remaster on another album) and duplicates.  Songs that the player
cannot play are passed over and counted, so that the list still gets its length; `per` counts the whole list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tonelake.index import QueryPart, Song, find_named, fold_song, is_file, is_version, path, similar
from tonelake.ingest import to_source
from tonelake.playlists.entries import Entry, Player, SongFiles
from tonelake.playlists.request import PlaylistRequest
from tonelake.store import InputError, Lake, in_list

FIRST_WIDTH, WIDEN = 3, 4                # times the length: hits that are looked at first, and how many more each time
LENGTH_OF_A_VERSION_S = 3.0              # within which songs of one title and artist are taken for one
MOST_ROUNDS = 12                         # of a path, each without songs that the last one should not have had


@dataclass(frozen=True, kw_only=True)
class SongList:
    """The songs of a playlist, in order."""

    entries: tuple[Entry, ...]
    unplayable: int = 0                  # songs that were passed over because the player cannot play them
    lacks: str = ""                      # why, of a `Player`
    outside: tuple[str, ...] = ()        # songs of `like` and `path_to` that the lake does not have now

    def frame(self) -> pl.DataFrame:
        """One row a song: position, artist, title, track, seconds, clip_id, source."""
        rows = [
            (number, one.artist, one.title, one.track, one.seconds, one.clip_id, one.source)
            for number, one in enumerate(self.entries, start=1)
        ]
        return pl.DataFrame(rows, orient="row", schema={
            "position": pl.Int64, "artist": pl.String, "title": pl.String, "track": pl.String, "seconds": pl.Float64,
            "clip_id": pl.String, "source": pl.String,
        })


def choose_songs(lake: Lake, request: PlaylistRequest, player: Player) -> SongList:
    """Choose the songs that a request asks for, among those that a player can play.

    Raises InputError as `PlaylistRequest.check` and if there is no such song; also, with ClipNotFound, as `index.similar` and
    `index.path`.
    """
    request.check()
    if request.per is not None:
        lake.clips.check_column(request.per[0])
    chooser = _Chooser(lake, request, player)
    found = chooser.on_path() if request.path_to is not None else chooser.nearest()
    if not found:
        reason = f"{chooser.unplayable:,} were found, {player.lacks}" if chooser.unplayable else "no song satisfies the filter"
        raise InputError(f"playlist: has no songs ({reason}). Ask for other songs, or see `tonelake similar`")
    return SongList(entries=tuple(found), unplayable=chooser.unplayable, lacks=player.lacks, outside=tuple(chooser.outside))


class _Chooser:
    """The songs that were accepted so far, and the rules for the next."""

    def __init__(self, lake: Lake, request: PlaylistRequest, player: Player) -> None:
        self._lake, self._request = lake, request
        self._files = SongFiles(lake, player, [request.per[0]] if request.per else [])
        self._most = request.per[1] if request.per else 0
        self.unplayable = 0
        self.outside: list[str] = []
        self._entries: dict[str, Entry | None] = {}      # by clip
        self._forget()

    def _forget(self) -> None:
        self._versions: dict[tuple[str, str], list[tuple[Any, float]]] = {}
        self._songs: set[int] = set()
        self._values: Counter[Hashable] = Counter()

    # -- rules

    def _entry(self, clip: str) -> Entry | None:
        if clip not in self._entries:
            self._entries[clip] = self._files.entry(clip)
        return self._entries[clip]

    def _values_of(self, clip: str) -> list[Hashable]:
        """The values of the column that is capped."""
        if self._request.per is None:
            return []
        if self._request.per[0] == "track":
            return [self._files.number(clip)]
        found = self._files.row(clip)[self._request.per[0]]
        return [value for value in dict.fromkeys(found if isinstance(found, list) else [found]) if value is not None]

    def _names(self, clip: str) -> tuple[Any, float]:
        """The folded names of a song, and its length in seconds."""
        row, entry = self._files.row(clip), self._entry(clip)
        file = row["source"].rsplit("/", 1)[-1]
        folded = fold_song({name: row[name] for name in ("title", "artist", "album")} | {"file": file})
        return folded, entry.seconds or 0.0 if entry else 0.0

    def _is_repeated(self, clip: str) -> bool:
        """Whether the song, or a version of it, was accepted."""
        if self._files.number(clip) in self._songs:
            return True
        names, seconds = self._names(clip)
        return any(
            is_version(names, other) or (bool(names.artist) and abs(seconds - length) <= LENGTH_OF_A_VERSION_S)
            for other, length in self._versions.get((names.plain, names.artist), ())
        )

    def _is_full(self, clip: str) -> bool:
        """Whether as many songs as allowed share a value with the song."""
        return any(self._values[value] >= self._most for value in self._values_of(clip))

    def _accept(self, clip: str, *, counted: bool = True) -> None:
        """Keep a song, and its versions, out of what follows.  `counted`: it is in the list, so that its values count."""
        names = self._names(clip)
        self._songs.add(self._files.number(clip))
        self._versions.setdefault((names[0].plain, names[0].artist), []).append(names)
        if counted:
            self._values.update(self._values_of(clip))

    # -- songs that are named

    def _clip_of(self, part: QueryPart) -> str | None:
        """The clip that a named song is shown by; None for a file that is not in the lake."""
        found: str | None = None
        if isinstance(part, Song):
            found = part.clip_id
        elif isinstance(part, str | Path) and is_file(part):
            stored = self._lake.clips.read(["clip_id"], where=in_list("source", [to_source(Path(part))]))
            found = stored["clip_id"][0] if len(stored) else None
        elif isinstance(part, str):
            song = find_named(self._lake, part)
            found = song.clip_id if isinstance(song, Song) else str(song["clip_id"])
        if found is None or found not in self._files:                    # the latter is superseded
            self.outside.append(str(part))
            return None
        return found

    def _named_entry(self, clip: str | None, *, listed: bool = True) -> list[Entry]:
        """The entry of a named song, unless it cannot be played, is not to be listed, or is in the list."""
        if clip is None or self._files.number(clip) in self._songs:
            return []
        self._accept(clip, counted=listed)
        if not listed:
            return []
        entry = self._entry(clip)
        self.unplayable += entry is None
        return [entry] if entry is not None else []

    # -- the list

    def nearest(self) -> list[Entry]:
        """The songs of `like`, and the nearest to them."""
        request = self._request
        found = [entry for part in request.like for entry in self._named_entry(self._clip_of(part), listed=request.seeds)]
        found = found[: request.length]
        chosen = self._take(request.length - len(found))
        if request.order == "walk" and len(chosen) > 2:
            chosen = self._search(k=len(chosen), where=in_list("clip_id", chosen), order="walk")
        return found + [entry for clip in chosen if (entry := self._entry(clip)) is not None]

    def _take(self, wanted: int) -> list[str]:
        """The nearest `wanted` clips that may be in the list; nearer songs that cannot be played are counted."""
        width = FIRST_WIDTH * wanted + 10
        chosen: list[str] = []
        seen: set[str] = set()
        while len(chosen) < wanted:
            hits = self._search(k=width, where=self._request.where)
            for clip in hits:
                if clip in seen or clip not in self._files:              # the latter was added meanwhile
                    continue
                seen.add(clip)
                if self._is_repeated(clip) or self._is_full(clip):
                    continue
                if self._entry(clip) is None:
                    self.unplayable += 1
                    continue
                self._accept(clip)
                chosen.append(clip)
                if len(chosen) == wanted:
                    break
            if len(hits) < width:
                break
            width *= WIDEN
        return chosen

    def _search(self, *, k: int, where: str | None, order: str = "nearest") -> list[str]:
        request = self._request
        hits = similar(
            self._lake, request.like, minus=request.unlike, text=request.text, spaces=request.spaces, k=k, order=order,
            hubs=request.hubs, **request.search() | {"where": where},
        )
        return hits["clip_id"].to_list()

    def on_path(self) -> list[Entry]:
        """The song of `like`, songs that lead to `path_to`, and that song.

        Where stations break a rule, the one with the best score is kept, and the path is sought again without the others.
        """
        request = self._request
        start, end = request.like[0], request.path_to
        assert end is not None
        first, final = self._clip_of(start), self._clip_of(end)
        allowed = self._files.playable_clips()
        refused: set[str] = set()
        for last in range(MOST_ROUNDS, 0, -1):
            self._forget()
            self.unplayable = 0
            ends = self._named_entry(first), self._named_entry(final)
            found = path(
                self._lake, start, end, steps=request.length - 2, among=allowed, **request.search()
            ).filter(pl.col("place").is_between(0, 1, closed="none") & ~pl.col("clip_id").is_in(sorted(refused)))
            kept, dropped = self._judge(found)
            if not dropped or last == 1:
                break
            refused |= dropped
            allowed = allowed.filter(~allowed.is_in(sorted(dropped)))
        self.unplayable += len({self._files.number(clip) for clip in refused if self._entries.get(clip, True) is None})
        stations = [entry for clip in kept if (entry := self._entry(clip)) is not None]
        return [*ends[0], *stations, *ends[1]]

    def _judge(self, found: pl.DataFrame) -> tuple[list[str], set[str]]:
        """Stations that may stay, in order, and clips that no station may be."""
        kept: set[str] = set()
        dropped: set[str] = set()
        for clip in found.sort("score", descending=True, maintain_order=True)["clip_id"]:
            if self._is_full(clip) and not self._is_repeated(clip):
                full = {value for value in self._values_of(clip) if self._values[value] >= self._most}
                dropped |= {one for one in self._with_values(full) if self._files.number(one) not in self._songs}
            elif self._is_repeated(clip) or self._entry(clip) is None:
                dropped |= set(self._files.of_song(clip))
            else:
                self._accept(clip)
                kept.add(clip)
        return [clip for clip in found["clip_id"] if clip in kept], dropped

    def _with_values(self, values: set[Hashable]) -> list[str]:
        """Ids of the clips that have one of these values of the column that is capped."""
        column = self._request.per[0] if self._request.per else ""
        if column == "track":
            return []                    # no song occurs twice anyway
        found = self._files.clips[column].to_list()
        has = [bool(values & {*(one if isinstance(one, list) else [one])}) for one in found]
        return self._files.clips["clip_id"].filter(pl.Series(has, dtype=pl.Boolean)).to_list()
