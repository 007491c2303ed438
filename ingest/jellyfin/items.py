"""Songs as Jellyfin lists them: items of the type Audio -> `ServerSong`.

A server is not trusted, as in `subsonic.songs`.  Times are ticks of 100 ns.  Ids are written as Jellyfin's plugins write them:
32 hexadecimal digits.
Fields: BaseItemDto of https://api.jellyfin.org/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tonelake.ingest.subsonic.songs import (
    MOST_ARTISTS,
    ServerSong,
    count,
    ids_and_names,
    known,
    opaque,
    path_text,
    seconds,
    text,
)

TICKS_PER_S = 10**7
DASHED = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def song_of_item(item: Any) -> ServerSong | None:
    """The song of an item; None for an item of another type or without an id.

    >>> song = song_of_item({"Type": "Audio", "Id": "0F", "Name": "So What", "RunTimeTicks": 5620000000, "Path": "/m/a.flac"})
    >>> song.title, song.duration_s, song.suffix, song_of_item({"Type": "MusicAlbum", "Id": "0f"})
    ('So What', 562.0, 'flac', None)
    """
    if not isinstance(item, Mapping) or item.get("Type") != "Audio":
        return None
    identity = item_id(item.get("Id"))
    if identity is None:
        return None
    artist_items = ids_and_names(item.get("ArtistItems"), "Id", "Name")
    album_artists = ids_and_names(item.get("AlbumArtists"), "Id", "Name")
    path = path_text(item.get("Path"))
    ticks = seconds(item.get("RunTimeTicks"))
    suffix = path.rsplit("/", 1)[-1].rpartition(".")[2].lower()
    return ServerSong(
        id=identity, path=path, title=text(item.get("Name")),
        artists=texts(item.get("Artists")) or tuple(name for _, name in artist_items), album=known(item.get("Album")),
        album_artist=known(item.get("AlbumArtist")) or next((name for _, name in album_artists), None),
        year=count(item.get("ProductionYear")), genre=next(iter(texts(item.get("Genres"))), None),
        track_number=count(item.get("IndexNumber")), duration_s=None if ticks is None else ticks / TICKS_PER_S,
        suffix=suffix if suffix.isascii() and suffix.isalnum() and suffix != path.lower() else "",
        artist_ids=tuple(dict.fromkeys(
            (found, name) for one, name in (*artist_items, *album_artists) if (found := item_id(one)) is not None
        )),
    )


def item_id(value: Any) -> str | None:
    """An id as plugins write it: without dashes, in lower case.

    >>> item_id("0F5D6C2A-3B1E-4A77-9C0D-8E2F1A6B7C8D"), item_id(None)
    ('0f5d6c2a3b1e4a779c0d8e2f1a6b7c8d', None)
    """
    found = opaque(value)
    return found.replace("-", "").lower() if found is not None and DASHED.fullmatch(found) else found


def texts(value: Any) -> tuple[str, ...]:
    """The names in a list of texts, each once."""
    entries = value[:MOST_ARTISTS] if isinstance(value, list) else []
    return tuple(dict.fromkeys(name for one in entries if (name := known(one)) is not None))
