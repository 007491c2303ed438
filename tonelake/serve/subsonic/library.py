"""The library behind the calls of the OpenSubsonic interface: the answers of the service, and the shelves of its songs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tonelake import Lake
from tonelake.serve.answers import Answers
from tonelake.serve.catalogue import Catalogue
from tonelake.serve.once import Once
from tonelake.serve.rows import SongRow
from tonelake.serve.subsonic.entries import song_entry
from tonelake.serve.subsonic.shelves import Shelves
from tonelake.store import ClipNotFound

MOST_SEEDS = 50                          # songs of an artist or album that similar songs are found by


class Library:
    """A lake as a music server's library.  Thread-safe."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self._shelves = Once(1)

    def shelves(self) -> Shelves:
        """Return artists, albums and genres, made once for each version of the lake's songs."""

        def look(lake: Lake, catalogue: Catalogue) -> Shelves:
            return self._shelves.get(catalogue, lambda: Shelves(catalogue, lake.paths.read(["source", "seen"])))

        return self.answers.read(look)

    def entries(self, songs: Sequence[SongRow]) -> list[dict[str, Any]]:
        """Return songs as `Child` dicts."""

        return self.answers.read(lambda lake, catalogue: [
            song_entry(catalogue, song, source_of(catalogue, song.id)) for song in songs
        ])

    def seeds(self, any_id: str) -> list[str]:
        """Return the ids of the songs that an id names: a song's own, or some of the songs of an artist or album.

        Raises ClipNotFound for an unknown id, or where no song of an artist or album is embedded.
        """
        shelves = self.shelves()
        if any_id in shelves.catalogue.served:           # some servers number songs and artists alike
            return [any_id]
        if any_id in shelves.artist_by_id:
            rows = shelves.rows_of_artist(shelves.artist_by_id[any_id])
        elif any_id in shelves.album_by_id:
            rows = shelves.album_by_id[any_id].rows
        else:
            return [self.answers.song(any_id).id]

        def embedded(lake: Lake, catalogue: Catalogue) -> list[int]:
            known = set(lake.vectors(self.answers.default_layer(lake)[0]).ids())
            return [row for row in rows if not known.isdisjoint(shelves.catalogue.clips_of(row)["clip_id"])]

        found = self.answers.read(embedded)
        if not found:
            raise ClipNotFound("artist or album: none of its songs is embedded yet. Run `tonelake embed`")
        step = -(-len(found) // MOST_SEEDS)
        return [shelves.catalogue.id_of(row) for row in found[::step]]


def entries_of(shelves: Shelves, rows: Iterable[int]) -> list[dict[str, Any]]:
    """Return the songs in these rows of the shelves' catalogue as `Child` dicts."""
    catalogue = shelves.catalogue
    return [song_entry(catalogue, catalogue.song(row), catalogue.songs["source"][row]) for row in rows]


def source_of(catalogue: Catalogue, song_id: str) -> str | None:
    """Return the source of a song's first clip; None for a song that was removed meanwhile."""
    try:
        return str(catalogue.songs["source"][catalogue.row_of(song_id)])
    except ClipNotFound:
        return None
