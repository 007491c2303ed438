"""Calls that list artists, albums, genres and their songs, in the order of tags and in that of folders."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tonelake.serve.subsonic.entries import album_entry, album_folder, artist_entry, named_artist
from tonelake.serve.subsonic.forms import Code, Refused
from tonelake.serve.subsonic.library import Library, entries_of
from tonelake.serve.subsonic.parameters import Parameters
from tonelake.serve.subsonic.shelves import IGNORED_ARTICLES, Album, Shelves
from tonelake.serve.subsonic.system import FOLDER

MOST = 500                               # entries of one answer, as the interface sets
LAST = 2**53                             # the largest offset; further ones are clamped
YEARS = (-9_999, 9_999)


def get_artists(library: Library, given: Parameters) -> dict[str, Any]:
    shelves = library.shelves()
    return {"artists": {"ignoredArticles": IGNORED_ARTICLES, "index": [
        {"name": letter, "artist": [artist_entry(shelves.catalogue, name, len(shelves.albums_of[name])) for name in names]}
        for letter, names in shelves.indexed_artists
    ]}}


def get_indexes(library: Library, given: Parameters) -> dict[str, Any]:
    shelves = library.shelves()
    changed = max((datetime.fromisoformat(album.created) for album in shelves.albums), default=None)
    return {"indexes": {
        "lastModified": 0 if changed is None else int(changed.timestamp() * 1_000), "ignoredArticles": IGNORED_ARTICLES,
        "index": [
            {"name": letter, "artist": [named_artist(shelves.catalogue, name) for name in names]}
            for letter, names in shelves.indexed_artists
        ],
    }}


def get_music_directory(library: Library, given: Parameters) -> dict[str, Any]:
    """The folder of an artist holds its albums, that of an album its songs, the music folder all artists."""
    shelves, folder = library.shelves(), given.needed("id")
    if folder == str(FOLDER["id"]):
        children = [
            {
                "id": shelves.catalogue.id_of_artist(name), "parent": folder, "isDir": True, "title": name, "artist": name,
            }
            for name in shelves.artists
        ]
        return {"directory": {**FOLDER, "id": folder, "child": children}}
    if folder in shelves.artist_by_id:
        name = shelves.artist_by_id[folder]
        return {"directory": {
            "id": folder, "parent": str(FOLDER["id"]), "name": name,
            "child": [album_folder(album) for album in shelves.albums_of[name]],
        }}
    album = shelves.album(folder)
    return {"directory": {
        "id": album.id, "parent": album.artist_id, "name": album.name, "child": entries_of(shelves, album.rows),
    }}


def get_artist(library: Library, given: Parameters) -> dict[str, Any]:
    shelves = library.shelves()
    name = shelves.artist(given.needed("id"))
    albums = shelves.albums_of[name]
    return {"artist": {**artist_entry(shelves.catalogue, name, len(albums)), "album": [album_entry(album) for album in albums]}}


def get_album(library: Library, given: Parameters) -> dict[str, Any]:
    shelves = library.shelves()
    album = shelves.album(given.needed("id"))
    return {"album": {**album_entry(album), "song": entries_of(shelves, album.rows)}}


def get_artist_info(library: Library, given: Parameters) -> dict[str, Any]:
    return {"artistInfo": {"similarArtist": near_artists(library, given)}}


def get_artist_info2(library: Library, given: Parameters) -> dict[str, Any]:
    return {"artistInfo2": {"similarArtist": near_artists(library, given)}}


def near_artists(library: Library, given: Parameters) -> list[dict[str, Any]]:
    """Return the artists nearest to one, or to that of an album; none for one that has no songs, such as Various Artists."""
    shelves, wanted = library.shelves(), given.needed("id")
    count = given.whole("count", 20, low=0, high=MOST)
    album = shelves.album_by_id.get(wanted)
    name = shelves.artist(wanted) if album is None else album.artist
    if count == 0 or name not in shelves.catalogue.artists:
        return []
    found = library.answers.similar_artists(name, count=count)
    return [artist_entry(shelves.catalogue, near.name, len(shelves.albums_of.get(near.name, ()))) for near in found]


# -- lists


def get_album_list(library: Library, given: Parameters) -> dict[str, Any]:
    return {"albumList": {"album": [album_folder(album) for album in listed_albums(library.shelves(), given)]}}


def get_album_list2(library: Library, given: Parameters) -> dict[str, Any]:
    return {"albumList2": {"album": [album_entry(album) for album in listed_albums(library.shelves(), given)]}}


def listed_albums(shelves: Shelves, given: Parameters) -> list[Album]:
    """Return the albums of a list by its type.  Raises Refused for an unknown type, or without what the type needs."""
    kind = given.needed("type")
    size, offset = given.whole("size", 10, low=0, high=MOST), given.whole("offset", 0, low=0, high=LAST)
    if kind == "random":
        return shelves.shuffled(size)
    if kind in ("highest", "frequent", "recent", "starred"):             # lakes hold no ratings, plays or stars
        return []
    if kind == "byYear":
        for name in ("fromYear", "toYear"):
            given.needed(name)
        found = shelves.by_year(*(given.whole(name, 0, low=YEARS[0], high=YEARS[1]) for name in ("fromYear", "toYear")))
    elif kind == "byGenre":
        found = shelves.of_genre(given.needed("genre"))
    elif kind in ("newest", "alphabeticalByName", "alphabeticalByArtist"):
        found = {
            "newest": shelves.newest, "alphabeticalByName": shelves.by_name, "alphabeticalByArtist": shelves.by_artist,
        }[kind]()
    else:
        raise Refused(Code.GENERIC, f"type={kind[:40]!r}: unknown. Choose a type of list that getAlbumList2 has")
    return found[offset : offset + size]


def get_genres(library: Library, given: Parameters) -> dict[str, Any]:
    shelves = library.shelves()
    return {"genres": {"genre": [
        {"value": genre, "songCount": len(rows), "albumCount": len({shelves.album_of_row[row].id for row in rows})}
        for genre, rows in shelves.genres.items()
    ]}}


def get_songs_by_genre(library: Library, given: Parameters) -> dict[str, Any]:
    shelves = library.shelves()
    count, offset = given.whole("count", 10, low=0, high=MOST), given.whole("offset", 0, low=0, high=LAST)
    rows = shelves.genres.get(given.needed("genre"), [])[offset : offset + count]
    return {"songsByGenre": {"song": entries_of(shelves, rows)}}


def get_random_songs(library: Library, given: Parameters) -> dict[str, Any]:
    shelves = library.shelves()
    size = given.whole("size", 10, low=0, high=MOST)
    first = given.whole("fromYear", YEARS[0], low=YEARS[0], high=YEARS[1])
    last = given.whole("toYear", YEARS[1], low=YEARS[0], high=YEARS[1])
    dated, genre = bool(given.get("fromYear") or given.get("toYear")), given.get("genre") or None
    rows = shelves.random_songs(size, genre=genre, years=(first, last) if dated else None)
    return {"randomSongs": {"song": entries_of(shelves, rows)}}
