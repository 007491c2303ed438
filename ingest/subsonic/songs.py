"""Songs and playlists as a Subsonic server lists them.

A server is not trusted: a value of another type than expected is left out, text is printable Unicode of bounded length, and a
song without an id is not a song.  `path` is what the server reports; it may be invented, and is never opened as it is.
Fields: https://opensubsonic.netlify.app/docs/responses/child/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tonelake.store import to_nfc

MOST_LETTERS = 4_096                     # kept of a text
PLACEHOLDER = re.compile(r"<?\[?(unknown( (artist|album|genre))?|non-album tracks)\]?>?", re.IGNORECASE)  # of untagged files
MOST_ARTISTS = 100


@dataclass(frozen=True, kw_only=True)
class ServerSong:
    """One song of a server."""

    id: str                              # the server's own, opaque
    path: str = ""                       # with `/` between folders
    title: str | None = None
    artists: tuple[str, ...] = ()
    album: str | None = None
    album_artist: str | None = None
    year: int | None = None
    genre: str | None = None
    track_number: int | None = None
    duration_s: float | None = None      # most servers round it to whole seconds, up or down
    size: int | None = None              # bytes of the file
    suffix: str = ""                     # of the file's name, without a dot, in lower case
    artist_ids: tuple[tuple[str, str], ...] = ()         # (id, name) of its artists and its album's

    @property
    def name(self) -> str:
        """The song as people name it, for messages."""
        title = self.title or self.path.rsplit("/", 1)[-1] or self.id
        return f"{self.artists[0]} - {title}" if self.artists else title

    def tags(self) -> dict[str, Any]:
        """The server's tags, in the form in which those of a file are read.  A file's name as title is without its suffix."""
        title, name = self.title, self.path.rsplit("/", 1)[-1]
        if title is not None and self.suffix and to_nfc(name) == title:
            title = title.removesuffix(f".{self.suffix}") or title
        return {
            "title": title, "artist": next(iter(self.artists), None), "artists": list(self.artists) or None,
            "album": self.album, "album_artist": self.album_artist, "track_number": self.track_number, "year": self.year,
            "genre": self.genre,
        }


@dataclass(frozen=True, kw_only=True)
class ServerPlaylist:
    """One playlist of a server, without its songs."""

    id: str
    name: str
    owner: str | None = None
    songs: int | None = None


def song_from(entry: Any) -> ServerSong | None:
    """The song in an entry of an answer; None for a folder, a video or an entry without an id.

    >>> song_from({"id": 7, "title": "So What", "artist": "Miles Davis", "year": "1959", "size": -1})
    ServerSong(id='7', path='', title='So What', artists=('Miles Davis',), album=None, album_artist=None, year=1959, \
genre=None, track_number=None, duration_s=None, size=None, suffix='', artist_ids=())
    """
    if not isinstance(entry, Mapping) or entry.get("isDir") is True or entry.get("isVideo") is True:
        return None
    identity = opaque(entry.get("id"))
    if identity is None:
        return None
    artists = _names(entry.get("artists")) or ((artist,) if (artist := known(entry.get("artist"))) is not None else ())
    album_artists = _names(entry.get("albumArtists"))
    suffix = text(entry.get("suffix")) or ""
    return ServerSong(
        id=identity, path=path_text(entry.get("path")), title=text(entry.get("title")), artists=artists,
        album=known(entry.get("album")),
        album_artist=known(entry.get("displayAlbumArtist")) or next(iter(album_artists), None),
        year=count(entry.get("year")), genre=known(entry.get("genre")), track_number=count(entry.get("track")),
        duration_s=seconds(entry.get("duration")), size=count(entry.get("size")),
        suffix=suffix.lower().lstrip(".") if suffix.isascii() and suffix.lstrip(".").isalnum() else "",
        artist_ids=artists_with_ids(entry),
    )


def artists_with_ids(entry: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """(id, name) of the artists of an entry, then of its album's.  `artistId` is that of `artist` where there is no list.

    >>> artists_with_ids({"artist": "Ada & Béla", "artistId": 7})
    (('7', 'Ada & Béla'),)
    >>> artists_with_ids({"artist": "Ada & Béla", "artistId": "a", "artists": [{"id": "a", "name": "Ada"}]})
    (('a', 'Ada'),)
    """
    listed = ids_and_names(entry.get("artists"), "id", "name")
    alone = () if listed else ids_and_names([entry], "artistId", "artist")
    return tuple(dict.fromkeys((*listed, *alone, *ids_and_names(entry.get("albumArtists"), "id", "name"))))


def ids_and_names(entries: Any, id_field: str, name_field: str) -> tuple[tuple[str, str], ...]:
    """(id, name) of those entries of a list that have both."""
    if not isinstance(entries, list):
        return ()
    found = [
        (opaque(one.get(id_field)), known(one.get(name_field))) for one in entries[:MOST_ARTISTS] if isinstance(one, Mapping)
    ]
    return tuple((identity, name) for identity, name in found if identity is not None and name is not None)


def playlist_from(entry: Any) -> ServerPlaylist | None:
    """The playlist in an entry of an answer; None for an entry without an id."""
    identity = opaque(entry.get("id")) if isinstance(entry, Mapping) else None
    if identity is None:
        return None
    return ServerPlaylist(
        id=identity, name=text(entry.get("name")) or "", owner=text(entry.get("owner")), songs=count(entry.get("songCount")),
    )


def opaque(value: Any) -> str | None:
    """An id: text that is stored and sent back unchanged; None if it cannot be.

    >>> opaque("a b"), opaque(12), opaque(""), opaque(None), opaque("\\ud800")
    ('a b', '12', None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    found = str(value)
    try:
        found.encode("utf-8")
    except UnicodeEncodeError:
        return None
    return found if 0 < len(found) <= MOST_LETTERS else None


def text(value: Any) -> str | None:
    r"""Printable text in NFC, without spaces at its ends; None for anything else.

    >>> text(" Be\u0301la\x00\x1b[31m "), text(""), text(["a"])
    ('Béla[31m', None, None)
    """
    if not isinstance(value, str):
        return None
    found = "".join(c if c.isprintable() else " " if c.isspace() else "" for c in to_nfc(value[:MOST_LETTERS]))
    return found.strip() or None


def known(value: Any) -> str | None:
    """A name as `text`; None for one that servers give to files without tags.

    >>> known("[Unknown Artist]"), known("[non-album tracks]"), known("The Unknown")
    (None, None, 'The Unknown')
    """
    found = text(value)
    return None if found is None or PLACEHOLDER.fullmatch(found) else found


def path_text(value: Any) -> str:
    r"""A path with `/` between its folders; empty if it holds what no file name holds.

    >>> path_text("Miles\\Kind of Blue\\01.flac"), path_text("a\x00b.mp3"), path_text(None)
    ('Miles/Kind of Blue/01.flac', '', '')
    """
    if not isinstance(value, str) or not 0 < len(value) <= MOST_LETTERS or "\x00" in value:
        return ""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return ""
    return value if "/" in value else value.replace("\\", "/")


def count(value: Any) -> int | None:
    """A positive number; None for anything else.

    >>> count(3), count("1959"), count(-1), count(0), count("x"), count(True)
    (3, 1959, None, None, None, None)
    """
    found = seconds(value)
    return int(found) if found is not None and found < 2**62 and int(found) > 0 else None


def seconds(value: Any) -> float | None:
    """A finite number above 0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if 0 < found < float("inf") else None


def _names(value: Any) -> tuple[str, ...]:
    """The names in a list of artists."""
    if not isinstance(value, list):
        return ()
    found = (known(one.get("name")) for one in value[:MOST_ARTISTS] if isinstance(one, Mapping))
    return tuple(dict.fromkeys(name for name in found if name is not None))
