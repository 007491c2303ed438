"""Songs, albums and artists in the words of OpenSubsonic: rows of the service -> dicts that `forms` writes.

Lakes have no pictures, plays, stars or ratings, and paths of this machine are not shown: those fields are left out.
Source: https://opensubsonic.netlify.app/docs/responses/child/, …/albumid3/ and …/artistid3/
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from tonelake.ingest import is_chorale, is_file_source
from tonelake.serve.catalogue import Catalogue
from tonelake.serve.rows import SongRow
from tonelake.serve.sounds import MEDIA_TYPES
from tonelake.serve.subsonic.shelves import NO_ALBUM, NO_ARTIST, Album, album_id

DECODED = ("wav", "audio/wav")           # what players cannot play, and what is not a file, is sent as this


def song_entry(catalogue: Catalogue, song: SongRow, source: str | None) -> dict[str, Any]:
    """Return a song as a `Child`.  `source`: of its first clip, from which the format follows; None if it is not known."""
    artists = [named_artist(catalogue, name) for name in song.artists]
    suffix, content_type = sound_kind(source)
    album = album_id(song_owner(song), song.album or NO_ALBUM)
    return {
        "id": song.id, "parent": album, "isDir": False, "title": song.title, "album": song.album, "artist": song.artist,
        "track": song.track_number, "year": song.year, "genre": song.genre, "suffix": suffix, "contentType": content_type,
        "duration": None if song.duration_s is None else round(song.duration_s), "albumId": album,
        "artistId": artists[0]["id"] if artists else None, "type": "music", "mediaType": "song",
        "isVideo": False, "genres": [{"name": song.genre}] if song.genre else [],
        "artists": artists, "displayArtist": song.artist or "",
        "albumArtists": [named_artist(catalogue, song.album_artist)] if song.album_artist else [],
        "displayAlbumArtist": song.album_artist or "",
    }


def song_owner(song: SongRow) -> str:
    """Return the artist whose album a song is on."""
    return song.album_artist or next(iter(song.artists), None) or song.artist or NO_ARTIST


def sound_kind(source: str | None) -> tuple[str | None, str | None]:
    """Return the suffix and the media type of the sound that is sent of a source; None for a song that only a server has.

    >>> sound_kind("/music/a.MP3"), sound_kind("/music/a.ape"), sound_kind("chorale:269")
    (('mp3', 'audio/mpeg'), ('wav', 'audio/wav'), ('wav', 'audio/wav'))
    >>> sound_kind("subsonic:http://music.example/7")
    (None, None)
    """
    if source is None or not is_file_source(source):
        return DECODED if source is not None and is_chorale(source) else (None, None)
    suffix = PurePath(source).suffix.lower()
    return (suffix[1:], MEDIA_TYPES[suffix]) if suffix in MEDIA_TYPES else DECODED


def named_artist(catalogue: Catalogue, name: str) -> dict[str, Any]:
    return {"id": catalogue.id_of_artist(name), "name": name}


def artist_entry(catalogue: Catalogue, name: str, albums: int) -> dict[str, Any]:
    """Return an artist as an `ArtistID3`."""
    return {**named_artist(catalogue, name), "albumCount": albums}


def album_entry(album: Album) -> dict[str, Any]:
    """Return an album as an `AlbumID3`."""
    return {
        "id": album.id, "name": album.name, "artist": album.artist, "artistId": album.artist_id, "songCount": len(album.rows),
        "duration": round(album.duration_s), "created": album.created, "year": album.year, "genre": album.genre,
        "genres": [{"name": album.genre}] if album.genre else [], "artists": [{"id": album.artist_id, "name": album.artist}],
        "displayArtist": album.artist,
    }


def album_folder(album: Album) -> dict[str, Any]:
    """Return an album as the folder that clients of the older calls expect."""
    return {
        "id": album.id, "parent": album.artist_id, "isDir": True, "title": album.name, "album": album.name,
        "artist": album.artist, "artistId": album.artist_id, "year": album.year, "genre": album.genre,
        "duration": round(album.duration_s), "created": album.created, "mediaType": "album",
    }
