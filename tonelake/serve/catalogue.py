"""The songs of a lake as the service shows them: one row a song, their ids and artists.  Made for each version of the clips.

The id of a song is that of the music server where the lake knows one, else the id of its first clip, which stays the same
whichever of its clips answers.  Ids of servers and of any of its clips find a song.  The id of an artist is that of the music
server where it knows an artist of this name, whatever case and accents, else one made from the name; both find it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

import numpy as np
import polars as pl

from tonelake.index import file_titles
from tonelake.serve.rows import ArtistRow, SongRow
from tonelake.shelf import folded_name
from tonelake.store import ClipNotFound, InputError, Lake, Songs, can_group, is_list, joined_lists, look_once, read_songs

TEXTS = ("title", "artist", "album", "album_artist", "genre")
NUMBERS = ("year", "track_number")
LONGEST_ID = 512                         # characters; a longer one is not looked up


class Catalogue:
    """All songs of one version of a lake."""

    def __init__(self, lake: Lake, server: str | None) -> None:
        """`server`: the music server whose ids songs have; None for none."""
        present = lake.clips.columns()
        wanted = [name for name in (*TEXTS, *NUMBERS, "artists") if name in present]
        clips = lake.clips.read(["clip_id", "recording", "source", "start_s", "duration_s", "state", *wanted])
        self.numbers: Songs = read_songs(lake.clips)
        self.starts_s = clips["start_s"].to_numpy()      # of each clip, in the order of `numbers.rows`
        clips = clips.with_columns(
            song=pl.Series(self.numbers.of(clips["clip_id"]), dtype=pl.Int64), row=pl.int_range(pl.len()),
            **{name: plain_text(clips[name]) for name in TEXTS if name in wanted},
            **{name: whole_numbers(clips[name]) for name in NUMBERS if name in wanted},
        ).filter(pl.col("song") >= 0)
        clips = clips.sort("start_s", "clip_id")
        self.clips = clips.select("song", "clip_id", "recording", "source", "start_s", "duration_s", "state")
        songs = clips.group_by("song", maintain_order=True).agg(
            pl.first("clip_id", "source"), pl.col("row").min(), *(pl.col(name).drop_nulls().first() for name in wanted),
        ).sort("row")
        ends = clips.group_by("song", "source").agg((pl.col("start_s") + pl.col("duration_s")).max().alias("ends_s"))
        songs = songs.join(ends, on=["song", "source"], how="left", maintain_order="left")
        absent = [name for name in (*TEXTS, *NUMBERS) if name not in wanted]
        songs = songs.with_columns(pl.lit(None).alias(name) for name in absent)
        several = songs["artists"] if "artists" in wanted and songs["artists"].dtype == pl.List(pl.String) else None
        alone = pl.when(pl.col("artist").is_null()).then(pl.lit([], pl.List(pl.String))).otherwise(pl.concat_list("artist"))
        listed = alone if several is None else pl.when(several.list.len() > 0).then(several).otherwise(alone)
        self.songs = songs.with_columns(
            artists=listed, title=pl.coalesce("title", pl.Series(file_titles(songs["source"])), pl.lit("Untitled")),
        )
        self.row_of_number = np.full(int(self.numbers.numbers.max(initial=-1)) + 1, -1, np.int64)
        self.row_of_number[self.songs["song"].to_numpy()] = np.arange(len(self.songs))
        self.server_artists = {} if server is None else lake.servers.artists(server)
        self.served, self.server_ids = served_ids(lake, server, self.clips, self.row_of_number, len(self.songs))

    def __len__(self) -> int:
        return len(self.songs)

    def row_of(self, song_id: str) -> int:
        """Return the row of a song by its id of the server or the id of one of its clips.  Raises ClipNotFound."""
        row = self.served.get(song_id, -1)
        if row < 0 and len(song_id) <= LONGEST_ID and song_id.isascii():
            row = int(self.rows_of([song_id])[0])
        if row < 0:
            raise ClipNotFound(f"song {song_id[:80]!r}: not in this lake. Find its id by its name")
        return row

    def rows_of(self, clip_ids: Sequence[str] | pl.Series) -> np.ndarray:
        """Return (clip,) rows of the songs of clips; -1 for clips that are not in the lake."""
        numbers = self.numbers.of(clip_ids)
        inside = (numbers >= 0) & (numbers < len(self.row_of_number))
        return np.where(inside, self.row_of_number[np.where(inside, numbers, 0)] if len(self.row_of_number) else -1, -1)

    def rows_and_starts_of(self, clip_ids: pl.Series) -> tuple[list[int], list[float | None]]:
        """Return the row of the song of each clip, -1 for a clip that is not in the lake, and where the clip begins."""
        at = self.numbers.rows.of(clip_ids)
        known = at >= 0
        rows = np.full(len(at), -1, np.int64)
        rows[known] = self.row_of_number[self.numbers.numbers[at[known]]]
        return rows.tolist(), [float(self.starts_s[place]) if place >= 0 else None for place in at.tolist()]

    def clips_of(self, row: int) -> pl.DataFrame:
        """Return the clips of a song from its beginning: clip_id, recording, source, start_s, duration_s and state."""
        starts, by_song = self._by_song
        return self.clips[by_song[starts[row] : starts[row + 1]]]

    @cached_property
    def _by_song(self) -> tuple[np.ndarray, np.ndarray]:
        rows = self.row_of_number[self.clips["song"].to_numpy()]
        counts = np.bincount(rows, minlength=len(self))
        return np.concatenate([[0], np.cumsum(counts)]), np.argsort(rows, kind="stable")

    def song(
        self, row: int, *, clip_id: str | None = None, start_s: float | None = None, score: float | None = None
    ) -> SongRow:
        """Return a song as a row; `clip_id`, `start_s` and `score` are those of its clip that answers."""
        found = self.songs.row(row, named=True)
        return SongRow(
            id=self.id_of(row), clip_id=clip_id or found["clip_id"], title=found["title"], artist=found["artist"],
            artists=found["artists"], album=found["album"], album_artist=found["album_artist"], year=found["year"],
            genre=found["genre"], track_number=found["track_number"], duration_s=found["ends_s"], start_s=start_s, score=score,
        )

    def id_of(self, row: int) -> str:
        return self.server_ids.get(row) or str(self.songs["clip_id"][row])

    # -- names

    @cached_property
    def artists(self) -> dict[str, np.ndarray]:
        """Rows of the songs of each artist, those with most songs first."""
        each = self.songs.select("artists").with_row_index("song_row").explode("artists").drop_nulls("artists")
        each = each.filter(pl.col("artists") != "").unique(maintain_order=True)
        found = each.group_by("artists", maintain_order=True).agg("song_row")
        ordered = sorted(found.iter_rows(), key=lambda row: (-len(row[1]), row[0]))
        return {name: np.array(rows, np.int64) for name, rows in ordered}

    @cached_property
    def artist_ids(self) -> dict[str, str]:
        """Names of artists and of album artists by their ids: those made from names, and all that the music server has."""
        return self._artist_ids[0]

    def id_of_artist(self, name: str) -> str:
        """Return the id of an artist: the music server's if it knows the name, else one made from the name."""
        return self._artist_ids[1].get(name) or artist_id(name)

    @cached_property
    def _artist_ids(self) -> tuple[dict[str, str], dict[str, str]]:
        """Names by ids, and the music server's id by name: the first where it has several.

        A name of the server that the lake lacks is the first of those that differ from it by case, accents and signs alone.
        """
        names = dict.fromkeys([*self.artists, *self.songs["album_artist"].drop_nulls().unique(maintain_order=True)])
        names_of = {artist_id(name): name for name in names}
        own: dict[str, str] = {}
        if self.server_artists:
            folded: dict[str, str] = {}
            for name in names:
                folded.setdefault(folded_name(name) or name, name)
            exact = [(server_id, name) for server_id, name in self.server_artists.items() if name in names]
            near = [
                (server_id, folded[key]) for server_id, name in self.server_artists.items()
                if name not in names and (key := folded_name(name) or name) in folded
            ]
            for server_id, name in (*exact, *near):
                names_of[server_id] = name
                own.setdefault(name, server_id)
        return names_of, own

    @cached_property
    def folded_artists(self) -> list[str]:
        return [folded_name(name) for name in self.artists]

    @cached_property
    def folded_titles(self) -> dict[str, list[int]]:
        """Rows of songs by their folded titles."""
        rows: dict[str, list[int]] = defaultdict(list)
        for row, title in enumerate(self.songs["title"]):
            rows[folded_name(title)].append(row)
        return dict(rows)

    def artist(self, name: str) -> ArtistRow:
        return ArtistRow(id=self.id_of_artist(name), name=name, songs=len(self.artists[name]))

    def artist_named(self, wanted: str) -> str:
        """Return the name of an artist by id or name, whatever its case and accents.  Raises ClipNotFound."""
        if wanted in self.artists:
            return wanted
        if self.artist_ids.get(wanted) in self.artists:
            return self.artist_ids[wanted]
        folded = folded_name(wanted[:LONGEST_ID])
        found = next((name for name, one in zip(self.artists, self.folded_artists, strict=True) if one == folded != ""), None)
        if found is None:
            raise ClipNotFound(f"artist {wanted[:80]!r}: not in this lake. Find its name in the list of artists")
        return found


def artist_id(name: str) -> str:
    """Return the id of an artist, which depends on the name alone.

    >>> artist_id("Ada")
    'ar-3f4afb45d1631e50'
    """
    return f"ar-{blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()}"


def plain_text(values: pl.Series) -> pl.Series:
    """Return a column as text, lists joined; null where it is empty."""
    joined = joined_lists(values).cast(pl.String).str.strip_chars()
    return pl.select(pl.when(joined != "").then(joined)).to_series()


def whole_numbers(values: pl.Series) -> pl.Series:
    """Return a column as whole numbers; null for what is none, such as a list."""
    return pl.Series([None], dtype=pl.Int64).new_from_index(0, len(values)) if is_list(values.dtype) else values.cast(
        pl.Int64, strict=False
    )


def served_ids(
    lake: Lake, server: str | None, clips: pl.DataFrame, row_of_number: np.ndarray, count: int
) -> tuple[dict[str, int], dict[int, str]]:
    """Return rows of songs by ids of a server, and the server's id of each such song: of its first clip's file, else any."""
    if server is None:
        return {}, {}
    served = lake.paths.served(server).select("source", "id")
    known = lake.paths.read(["source", "recording"]).drop_nulls()
    by_source = clips.select("source", "song").unique()
    by_recording = known.join(clips.select("recording", "song").drop_nulls().unique(), on="recording").select("source", "song")
    found = served.join(pl.concat([by_source, by_recording]).unique(), on="source")
    rows = row_of_number[found["song"].to_numpy()]
    shown = set(clips.group_by("song", maintain_order=True).agg(pl.first("source")).select("source").to_series())
    ids: dict[str, int] = {}
    first: dict[int, str] = {}
    matches = zip(rows.tolist(), found["source"], found["id"], strict=True)
    for row, _, server_id in sorted(matches, key=lambda match: (match[1] not in shown, match[2])):
        ids[server_id] = row
        first.setdefault(row, server_id)
    return ids, first


def choose_server(lake: Lake, wanted: str | None) -> tuple[str | None, list[str]]:
    """Return the music server whose ids are used, and all servers that the lake knows: by default the first by address.

    `wanted`: its address or a part of it.  Raises InputError if no server or several match.
    """
    servers = sorted(set(lake.paths.served()["server"]))
    if wanted is None:
        return (servers[0] if servers else None), servers
    found = [one for one in servers if one == wanted.rstrip("/")] or [one for one in servers if wanted in one]
    if len(found) != 1:
        known = f"Choose one of {', '.join(servers)}" if servers else "Run `tonelake ingest subsonic URL`, or `ingest jellyfin`"
        raise InputError(f"server {wanted!r}: {'several match' if found else 'not known to this lake'}. {known}")
    return found[0], servers


def narrowing_kinds(lake: Lake) -> dict[str, Any]:
    """Return the types of the columns by whose values answers can be narrowed."""
    types = look_once(("types of clips", lake.uri), lambda: lake.clips.read(where="false").schema)
    return {name: kind for name, kind in types.items() if can_group(kind)}
