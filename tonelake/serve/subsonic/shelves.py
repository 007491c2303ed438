"""Artists, albums and genres of a lake as players browse them.  Made once for each version of the lake's songs.

An album is a name with the artist that it is by: the album artist, else the song's first artist, so that two albums of one name
stay apart.  Songs without an album are on "[Unknown Album]" of their artist, so that a player that browses albums reaches every
song.  An artist has the albums that are by it and those with a song by it.  Ids depend on names alone, and stay over time; of
artists that the music server knows they are the server's.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TypeVar

import polars as pl

from tonelake.serve.answers import LONGEST_TEXT
from tonelake.serve.catalogue import Catalogue, artist_id
from tonelake.shelf import folded_name
from tonelake.store import ClipNotFound

NO_ARTIST = "[Unknown Artist]"
NO_ALBUM = "[Unknown Album]"
EPOCH = "1970-01-01T00:00:00Z"
IGNORED_ARTICLES = "The El La Los Las Le Les Der Die Das"
ARTICLES = frozenset(IGNORED_ARTICLES.casefold().split())

Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True)
class Album:
    """An album with the rows of its songs in the catalogue, in their order on the album."""

    id: str
    name: str
    artist: str
    artist_id: str
    rows: list[int]
    year: int | None                     # the latest of its songs
    genre: str | None                    # of most of its songs
    duration_s: float
    created: str                         # when the first of its files was read, ISO 8601 in UTC


class Shelves:
    """Albums, artists and genres of a catalogue."""

    def __init__(self, catalogue: Catalogue, files: pl.DataFrame) -> None:
        """`files`: source and seen (a time, or null) of the files of the lake."""
        self.catalogue = catalogue
        songs = catalogue.songs.with_row_index("number").select(
            "number", "source", "artists", "year", "genre", "track_number", "ends_s", "title",
            owner=pl.coalesce("album_artist", pl.col("artists").list.first(), "artist", pl.lit(NO_ARTIST)),
            named=pl.coalesce("album", pl.lit(NO_ALBUM)),
        )
        songs = songs.join(files.unique("source"), on="source", how="left", maintain_order="left")
        ordered = songs.sort("track_number", "number", nulls_last=True)
        grouped = ordered.group_by("owner", "named", maintain_order=True).agg(
            pl.col("number"), pl.col("year").max(), pl.col("genre").drop_nulls().mode().sort().first(),
            pl.col("ends_s").sum(), pl.col("seen").min().dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
            pl.col("number").min().alias("first"),
        ).sort("first")
        self.albums = [
            Album(
                id=album_id(owner, named), name=named, artist=owner, artist_id=catalogue.id_of_artist(owner),
                rows=list(numbers), year=year, genre=genre, duration_s=seconds or 0.0, created=seen or EPOCH,
            )
            for owner, named, numbers, year, genre, seconds, seen, _ in grouped.iter_rows()
        ]
        self.album_by_id = {album.id: album for album in self.albums}
        self.album_of_row = {row: album for album in self.albums for row in album.rows}
        found: dict[str, dict[str, Album]] = defaultdict(dict)
        for album in self.albums:
            found[album.artist][album.id] = album
        for row, names in enumerate(songs["artists"]):
            for name in filter(None, names):
                found[name].setdefault(self.album_of_row[row].id, self.album_of_row[row])
        self.albums_of = {name: list(albums.values()) for name, albums in found.items()}     # those by the artist first
        self.artist_by_id = {artist_id(name): name for name in self.albums_of} | {
            one: name for one, name in catalogue.artist_ids.items() if name in self.albums_of
        }

    @cached_property
    def artists(self) -> list[str]:
        """Names of all artists in the order of an index: without their articles, whatever case and accents."""
        return sorted(self.albums_of, key=lambda name: (sort_name(name), name))

    @cached_property
    def indexed_artists(self) -> list[tuple[str, list[str]]]:
        """Artists by the first letter of their names, `#` for other signs."""
        found: dict[str, list[str]] = defaultdict(list)
        for name in self.artists:
            first = sort_name(name)[:1].upper()
            found[first if first.isascii() and first.isalpha() else "#"].append(name)
        return sorted(found.items())

    @cached_property
    def genres(self) -> dict[str, list[int]]:
        """Rows of the songs of each genre."""
        found: dict[str, list[int]] = defaultdict(list)
        for row, genre in enumerate(self.catalogue.songs["genre"]):
            if genre:
                found[genre].append(row)
        return dict(sorted(found.items()))

    def artist(self, wanted: str) -> str:
        """Return the name of an artist by its id.  Raises ClipNotFound."""
        if wanted not in self.artist_by_id:
            raise ClipNotFound(f"artist {wanted[:80]!r}: not in this lake. Find its id by getArtists or search3")
        return self.artist_by_id[wanted]

    def album(self, wanted: str) -> Album:
        """Return an album by its id.  Raises ClipNotFound."""
        if wanted not in self.album_by_id:
            raise ClipNotFound(f"album {wanted[:80]!r}: not in this lake. Find its id by getAlbumList2 or search3")
        return self.album_by_id[wanted]

    def rows_of_artist(self, name: str) -> list[int]:
        """Return the rows of an artist's own songs; of an album artist without songs of its own, those of its albums."""
        own = self.catalogue.artists.get(name)
        if own is not None:
            return [int(row) for row in own]
        return [row for album in self.albums_of.get(name, []) for row in album.rows]

    # -- lists of albums

    def matching_albums(self, text: str) -> list[Album]:
        """Return the albums in whose name or artist every word of a text occurs; all for an empty text."""
        return matching(self.albums, self._folded_albums, text)

    def matching_artists(self, text: str) -> list[str]:
        """Return the artists in whose name every word of a text occurs; all for an empty text."""
        return matching(self.artists, self._folded_artists, text)

    @cached_property
    def _folded_albums(self) -> list[str]:
        return [folded_name(f"{album.name} {album.artist}") for album in self.albums]

    @cached_property
    def _folded_artists(self) -> list[str]:
        return [folded_name(name) for name in self.artists]

    def newest(self) -> list[Album]:
        return sorted(self.albums, key=lambda album: album.created, reverse=True)

    def by_name(self) -> list[Album]:
        return sorted(self.albums, key=lambda album: (sort_name(album.name), album.id))

    def by_artist(self) -> list[Album]:
        return sorted(self.albums, key=lambda album: (sort_name(album.artist), sort_name(album.name), album.id))

    def by_year(self, first: int, last: int) -> list[Album]:
        """Return the albums of these years in their order; the latest first if `first` is the later one."""
        low, high = min(first, last), max(first, last)
        found = [album for album in self.albums if album.year is not None and low <= album.year <= high]
        return sorted(found, key=lambda album: (album.year or 0, album.id), reverse=first > last)

    def of_genre(self, genre: str) -> list[Album]:
        numbers = self.genres.get(genre, [])
        return list({album.id: album for album in (self.album_of_row[row] for row in numbers)}.values())

    def shuffled(self, count: int) -> list[Album]:
        return random.sample(self.albums, min(count, len(self.albums)))

    def random_songs(self, count: int, *, genre: str | None, years: tuple[int, int] | None) -> list[int]:
        """Return the rows of songs drawn at random, of those with a genre and of years from a first to a last."""
        rows: Sequence[int] = range(len(self.catalogue)) if genre is None else self.genres.get(genre, [])
        if years is not None:
            known = self.catalogue.songs["year"]
            rows = [row for row in rows if known[row] is not None and years[0] <= known[row] <= years[1]]
        return random.sample(rows, min(count, len(rows)))


def album_id(artist: str, name: str) -> str:
    """Return the id of an album, which depends on its name and artist alone.

    >>> album_id("Ada", "First") == album_id("Ada", "First") != album_id("Bea", "First")
    True
    """
    return "al-" + blake2b(f"{artist}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def matching(found: Sequence[Entry], folded: Sequence[str], text: str) -> list[Entry]:
    """Return the entries in whose folded names every word of a text occurs; all for an empty text.

    >>> [matching(["A", "B"], ["blue train", "blue"], text) for text in ("Tràin blu", " ", "?!")]
    [['A'], ['A', 'B'], []]
    """
    words = folded_name(text[:LONGEST_TEXT]).split()
    if not words:
        return [] if text.strip() else list(found)
    return [entry for entry, name in zip(found, folded, strict=True) if all(word in name for word in words)]


def sort_name(name: str) -> str:
    """Return a name as it is sorted: in lower case and Latin letters, without an article.

    >>> sort_name("The Béatles"), sort_name("The The"), sort_name("[Unknown]")
    ('beatles', 'the', 'unknown')
    """
    folded = folded_name(name)
    article, _, rest = folded.partition(" ")
    return rest if rest and article in ARTICLES else folded
