"""Calls that find songs: by name, by id, by how they sound, and on a path between two.

`similarity` is the cosine of two songs, and 0 where it is negative: 1 for songs that sound alike, 0 for those that have nothing
in common.  On a path it is that to the first song.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tonelake.ingest import AudioError
from tonelake.serve.rows import SongRow
from tonelake.serve.steps import path_with_steps
from tonelake.serve.subsonic.browsing import LAST, MOST
from tonelake.serve.subsonic.entries import album_entry, album_folder, artist_entry
from tonelake.serve.subsonic.library import Library
from tonelake.serve.subsonic.parameters import Parameters
from tonelake.serve.subsonic.shelves import Album

UNKNOWN = -1.0                           # the interface's similarity of songs that cannot be compared


def get_song(library: Library, given: Parameters) -> dict[str, Any]:
    """A song, with the size of its sound if its file is there; nothing is downloaded for this."""
    song = library.answers.song(given.needed("id"))
    entry = library.entries([song])[0]
    if entry["contentType"] is None:
        return {"song": entry}
    try:
        sound = library.answers.sound(song.id)
    except AudioError:
        return {"song": entry}
    return {"song": {**entry, "size": sound.size, "contentType": sound.media_type}}


def search2(library: Library, given: Parameters) -> dict[str, Any]:
    artists, albums, songs = search(library, given)
    return {"searchResult2": {
        "artist": [{"id": one["id"], "name": one["name"]} for one in artists],
        "album": [album_folder(album) for album in albums], "song": songs,
    }}


def search3(library: Library, given: Parameters) -> dict[str, Any]:
    artists, albums, songs = search(library, given)
    return {"searchResult3": {
        "artist": artists, "album": [album_entry(album) for album in albums], "song": songs,
    }}


def search(library: Library, given: Parameters) -> tuple[list[dict[str, Any]], list[Album], list[dict[str, Any]]]:
    """Return a page of artists as `ArtistID3` dicts, one of albums and one of songs; of all for an empty text."""
    text = given.get("query", "").strip().strip('"*').strip()            # clients write "" for all, and a star for a prefix
    pages = {
        name: (given.whole(f"{name}Offset", 0, low=0, high=LAST), given.whole(f"{name}Count", 20, low=0, high=MOST))
        for name in ("artist", "album", "song")
    }
    shelves = library.shelves()
    first, count = pages["artist"]
    artists = shelves.matching_artists(text)[first : first + count] if count else []
    first, count = pages["album"]
    albums = shelves.matching_albums(text)[first : first + count] if count else []
    first, count = pages["song"]
    songs = library.answers.find_songs(text, first=first, count=count).rows if count else []
    entries = [artist_entry(shelves.catalogue, name, len(shelves.albums_of[name])) for name in artists]
    return entries, albums, library.entries(songs)


def get_similar_songs(library: Library, given: Parameters) -> dict[str, Any]:
    return {"similarSongs": {"song": similar_songs(library, given)}}


def get_similar_songs2(library: Library, given: Parameters) -> dict[str, Any]:
    return {"similarSongs2": {"song": similar_songs(library, given)}}


def similar_songs(library: Library, given: Parameters) -> list[dict[str, Any]]:
    """Return songs like a song, an album or an artist."""
    seeds = library.seeds(given.needed("id"))
    count = given.whole("count", 50, low=0, high=MOST)
    return library.entries(library.answers.similar(seeds, count=count)) if count else []


def get_sonic_similar_tracks(library: Library, given: Parameters) -> dict[str, Any]:
    song = library.answers.song(given.needed("id"))
    count = given.whole("count", 10, low=0, high=MOST)
    found = library.answers.similar([song.id], count=count) if count else []
    return {"sonicMatch": matches(library, found, [row.score for row in found])}


def find_sonic_path(library: Library, given: Parameters) -> dict[str, Any]:
    start, end = given.needed("startSongId"), given.needed("endSongId")
    songs, steps = path_with_steps(library.answers, start, end, given.whole("count", 25, low=2, high=MOST))
    return {"sonicMatch": matches(library, songs, [step.to_first for step in steps])}


def matches(library: Library, songs: Sequence[SongRow], cosines: Sequence[float | None]) -> list[dict[str, Any]]:
    """Return songs as `sonicMatch` dicts."""
    entries = library.entries(songs)
    return [{"entry": entry, "similarity": similarity(cosine)} for entry, cosine in zip(entries, cosines, strict=True)]


def similarity(cosine: float | None) -> float:
    """Return a cosine as the similarity of the interface, from 0 to 1.

    >>> similarity(0.8714266), similarity(-0.2), similarity(1.0000001), similarity(None)
    (0.871427, 0.0, 1.0, -1.0)
    """
    return UNKNOWN if cosine is None else round(min(max(float(cosine), 0.0), 1.0), 6)
