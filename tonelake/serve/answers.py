"""Answers of a lake to programs: songs, similar songs, paths, artists, maps and values, as rows of `tonelake.serve.rows`.

Ids name songs: that of a music server, or of any clip.  A filter `where` is {column: values}, never SQL.  Answers are kept
until the lake changes, and requests for an answer that is being computed wait for it.  Nothing is written to the lake.
Every method raises InputError (ClipNotFound, SpaceNotFound) for a request that cannot be met, LakeError while the lake cannot
be read; `sound` also AudioError.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import PurePath
from typing import TypeVar

import polars as pl

from tonelake import Lake
from tonelake.index import QueryPart, Song, find_named, map_stamp, mapped_layers, match_songs
from tonelake.serve.artists import find_near_artists
from tonelake.serve.catalogue import Catalogue, choose_server, narrowing_kinds
from tonelake.serve.once import Once
from tonelake.serve.opened import OpenedLake
from tonelake.serve.queries import (
    LONGEST_TEXT,
    SimilarRequest,
    Where,
    check_columns,
    check_count,
    check_page,
    compared_clips,
    filter_of,
    frozen,
    hit_rows,
    named_song,
    query_of,
)
from tonelake.serve.rows import (
    ArtistRow,
    ColumnRow,
    FacetRow,
    LakeRow,
    MapPoint,
    NearArtist,
    Page,
    SongRow,
    SongSound,
    ValueRow,
)
from tonelake.serve.song_map import point_rows, read_song_map
from tonelake.serve.sounds import find_sound
from tonelake.shelf import folded_name, narrowing_columns, value_text, values_of
from tonelake.store import ClipNotFound, InputError, Space, SpaceNotFound, cores, kind_of, look_once

MOST_POINTS = 10_000                     # of a map, in one answer
KEPT = 200                               # answers

Result = TypeVar("Result")


class Answers:
    """The answers of one lake.  Thread-safe."""

    def __init__(
        self, lake_uri: str, *, space: str | None = None, layer: int | str | None = None, server: str | None = None
    ) -> None:
        """`space`, `layer`: used where a request names none; `server`: the music server whose ids songs have, by default the
        first one that the lake knows."""
        self._opened = OpenedLake(lake_uri)
        self._space, self._layer, self._server = space, layer, server
        self._catalogues = Once(1)
        self._kept, self._kept_version = Once(KEPT), ""
        self._computing = threading.BoundedSemaphore(max(2, cores()))        # more at once only take longer, and memory

    # -- the lake

    def version(self) -> str:
        """Return a text that changes with clips, files, labels, vectors and maps, and with the lake."""
        return self._opened.answer(self._version)

    def _version(self, lake: Lake) -> str:
        return look_once("version of answers", lambda: self._read_version(lake))

    def _read_version(self, lake: Lake) -> str:
        spaces = lake.spaces.all()
        vectors = [(space.name, space.fingerprint, lake.vectors(space).table.version) for space in spaces]
        maps = [map_stamp(lake, space, layer) for space in spaces for layer in sorted(mapped_layers(lake, space))]
        default = lake.spaces.default(spaces)[0].name if spaces else None
        parts = (
            lake.identity, lake.clips.table.version, lake.paths.table.version, vectors, maps, default, self._space, self._layer,
            self._server, self._server_state(lake),
        )
        return blake2b(repr(parts).encode(), digest_size=10).hexdigest()

    def lake(self) -> LakeRow:
        """Describe the lake."""

        def read(lake: Lake) -> LakeRow:
            catalogue = self._catalogue(lake)
            space = layer = None
            with suppress(SpaceNotFound):            # nothing is embedded yet
                chosen, number = self.default_layer(lake)
                space, layer = chosen.name, chosen.layers[number]
            return LakeRow(
                name=PurePath(lake.uri.rstrip("/")).name, version=self._version(lake), clips=len(catalogue.clips),
                songs=len(catalogue), spaces=[one.name for one in lake.spaces.all()], layer=layer,
                space=space, server=choose_server(lake, self._server)[0],
            )

        return self._opened.answer(read)

    def servers(self) -> tuple[str | None, list[str]]:
        """Return the music server whose ids are used, and all that the lake knows."""
        return self._opened.answer(lambda lake: choose_server(lake, self._server))

    def check(self) -> None:
        """Raise InputError for a space, layer or server that the lake does not have, LakeError if it cannot be read."""

        def read(lake: Lake) -> None:
            choose_server(lake, self._server)
            if self._space is not None or (self._layer is not None and lake.spaces.all()):
                self.default_layer(lake)

        self._opened.get()               # says what is wrong, with paths: read by the user who starts it alone
        self._opened.answer(read)

    def warm_up(self) -> None:
        """Load what the first answers need: the songs, the layer that is searched, and the names."""

        def load(lake: Lake) -> None:
            catalogue = self._catalogue(lake)
            with suppress(InputError):   # nothing is embedded yet
                if len(catalogue) > 1:
                    self._similar(lake, catalogue, SimilarRequest(ids=(catalogue.id_of(0),), count=1))
            match_songs(lake, "names")

        self._opened.answer(load)

    # -- songs

    def song(self, song_id: str) -> SongRow:
        """Return a song.  Raises ClipNotFound."""

        def find(lake: Lake) -> SongRow:
            catalogue = self._catalogue(lake)
            return catalogue.song(catalogue.row_of(song_id))

        return self._opened.answer(find)

    def songs(self, song_ids: Sequence[str]) -> list[SongRow]:
        """Return several songs, in the order of their ids; unknown ones are left out."""

        def find(lake: Lake) -> list[SongRow]:
            catalogue = self._catalogue(lake)
            found = []
            for song_id in song_ids:
                try:
                    found.append(catalogue.song(catalogue.row_of(song_id)))
                except ClipNotFound:
                    continue
            return found

        return self._opened.answer(find)

    def find_songs(self, text: str, *, first: int = 0, count: int = 20) -> Page[SongRow]:
        """Return songs whose title, artist, album or file resembles `text`, best first; all songs for an empty text."""
        check_page(first, count)

        def find(lake: Lake) -> Page[SongRow]:
            catalogue = self._catalogue(lake)
            if not text.strip():
                rows = range(first, min(first + count, len(catalogue)))
                return Page(rows=[catalogue.song(row) for row in rows], total=len(catalogue), first=first)
            found = match_songs(lake, text[:LONGEST_TEXT])
            scores = {row: song.score for song, row in zip(
                found, catalogue.rows_of([song.clip_id for song in found]).tolist(), strict=True,
            ) if row >= 0}
            chosen = list(scores)[first : first + count]
            return Page(
                rows=[catalogue.song(row, score=min(scores[row], 100.0)) for row in chosen], total=len(scores), first=first
            )

        return self._opened.answer(find)

    def find_by(self, *, title: str, artist: str | None = None) -> SongRow:
        """Return the song with this title, by this artist.  Raises ClipNotFound, or InputError where several match."""
        title, artist = title[:LONGEST_TEXT], None if artist is None else artist[:LONGEST_TEXT]
        if not title.strip():
            raise InputError("title: is empty. Give the title of a song")

        def find(lake: Lake) -> SongRow:
            catalogue = self._catalogue(lake)
            rows = catalogue.folded_titles.get(folded_name(title), []) if folded_name(title) else []
            if artist:
                named = folded_name(artist)
                rows = [row for row in rows if named in {
                    folded_name(name) for name in (*catalogue.songs["artists"][row], catalogue.songs["artist"][row] or "")
                }]
            if len(rows) == 1:
                return catalogue.song(rows[0])
            if len(rows) > 1:
                raise InputError(f"title {title!r}: {len(rows)} songs have it. Give the artist as well, or an id")
            song = find_named(lake, f"{title} {artist or ''}".strip())
            return catalogue.song(catalogue.row_of(song.clip_id if isinstance(song, Song) else song["clip_id"]))

        return self._opened.answer(find)

    # -- similar songs

    def similar(
        self, ids: Sequence[str] = (), *, minus: Sequence[str] = (), text: Sequence[str] = (), count: int = 10,
        where: Where | None = None, not_same: str | None = None, per: tuple[str, int] | None = None, order: str = "nearest",
        space: str | None = None, layer: int | str | None = None, like: str | None = None, unlike: str | None = None,
        moments: bool = False,
    ) -> list[SongRow]:
        """Return the songs nearest to these songs less those of `minus`, or to words, with their best moments.

        `moments`: an id of a clip is that clip alone, not its song.  The others are as of `tonelake.index.similar`.
        """
        request = SimilarRequest(
            ids=tuple(ids), minus=tuple(minus), text=tuple(text), count=count, where=frozen(where), not_same=not_same, per=per,
            order=order, space=space, layer=layer, like=like, unlike=unlike, moments=moments,
        )
        return self._kept_answer(("similar", request), lambda lake, catalogue: self._similar(lake, catalogue, request))

    def _similar(self, lake: Lake, catalogue: Catalogue, asked: SimilarRequest) -> list[SongRow]:
        wanted, minus = (
            [compared_clips(catalogue, one, moment=asked.moments) for one in some] for some in (asked.ids, asked.minus)
        )
        name, layer = asked.space or self._space, asked.layer
        parts: list[list[QueryPart]]
        if asked.text:                   # the space that answers words is known to `similar` alone
            parts = [[named_song(lake, catalogue, *part) for part in some] for some in (wanted, minus)]
        else:
            space, layer = self._chosen(lake, asked.space, asked.layer)
            name = space.name
            parts = [[query_of(lake, space, layer, clips, asked.not_same) for _, clips in some] for some in (wanted, minus)]
        found = lake.similar(
            parts[0], minus=parts[1], text=list(asked.text), space=name, layer=layer, k=asked.count,
            where=filter_of(lake, asked.where), not_same=asked.not_same, like=asked.like, unlike=asked.unlike, per=asked.per,
            order=asked.order, described=False,
        )
        return hit_rows(catalogue, found)

    def path(
        self, start: str, end: str, *, steps: int = 5, where: Where | None = None, space: str | None = None,
        layer: int | str | None = None,
    ) -> list[SongRow]:
        """Return songs that lead from one song to another, both included: `steps` between them."""
        check_count(steps, "steps")

        def find(lake: Lake, catalogue: Catalogue) -> list[SongRow]:
            chosen, number = self._chosen(lake, space, layer)
            ends = [compared_clips(catalogue, one, moment=False) for one in (start, end)]
            if ends[0][0] == ends[1][0]:
                raise InputError("path: both ends are the same song. Give two songs")
            queries = [query_of(lake, chosen, number, clips, None) for _, clips in ends]
            found = lake.path(
                queries[0], queries[1], steps=steps, space=chosen.name, layer=number, where=filter_of(lake, frozen(where))
            )
            return hit_rows(catalogue, found)

        return self._kept_answer(("path", start, end, steps, frozen(where), space, layer), find)

    # -- artists

    def artists(self, text: str = "", *, first: int = 0, count: int = 50) -> Page[ArtistRow]:
        """Return the artists whose names contain `text`, those with most songs first; all for an empty text."""
        check_page(first, count)

        def find(lake: Lake) -> Page[ArtistRow]:
            catalogue = self._catalogue(lake)
            names, wanted = list(catalogue.artists), folded_name(text[:LONGEST_TEXT])
            if wanted:
                names = [name for name, one in zip(names, catalogue.folded_artists, strict=True) if wanted in one]
            elif text.strip():           # signs alone, which folding removes
                names = [name for name in names if text.strip() in name]
            return Page(rows=[catalogue.artist(name) for name in names[first : first + count]], total=len(names), first=first)

        return self._opened.answer(find)

    def songs_of_artist(self, artist: str, *, first: int = 0, count: int = 50) -> Page[SongRow]:
        """Return the songs of an artist, by id or name.  Raises ClipNotFound."""
        check_page(first, count)

        def find(lake: Lake) -> Page[SongRow]:
            catalogue = self._catalogue(lake)
            rows = catalogue.artists[catalogue.artist_named(artist)].tolist()
            return Page(rows=[catalogue.song(row) for row in rows[first : first + count]], total=len(rows), first=first)

        return self._opened.answer(find)

    def similar_artists(self, artist: str, *, count: int = 10) -> list[NearArtist]:
        """Return the artists most similar to one, by id or name, compared at equal size.  Raises ClipNotFound."""
        check_count(count)

        def find(lake: Lake, catalogue: Catalogue) -> list[NearArtist]:
            name = catalogue.artist_named(artist)
            return find_near_artists(lake, catalogue, name, *self.default_layer(lake), count)

        return self._kept_answer(("artists", artist, count), find)

    # -- maps, facets, values

    def map_points(
        self, *, first: int = 0, count: int = MOST_POINTS, space: str | None = None, layer: int | str | None = None
    ) -> Page[MapPoint]:
        """Return the songs on the stored map of a layer.  Raises InputError if there is no map."""
        check_page(first, count, MOST_POINTS)

        def find(lake: Lake, catalogue: Catalogue) -> tuple[pl.DataFrame, Catalogue]:
            return read_song_map(lake, catalogue, *self._chosen(lake, space, layer)), catalogue

        points, catalogue = self._kept_answer(("map", space, layer), find)
        return Page(rows=point_rows(catalogue, points[first : first + count]), total=len(points), first=first)

    def facets(
        self, *, like: str | None = None, unlike: str | None = None, space: str | None = None, layer: int | str | None = None
    ) -> list[FacetRow]:
        """Evaluate the facets of `similar` at one layer, on held-out tracks."""

        def find(lake: Lake, catalogue: Catalogue) -> list[FacetRow]:
            chosen, number = self._chosen(lake, space, layer)
            found = lake.facets(like=like, unlike=unlike, space=chosen.name, layers=[number])
            return [FacetRow(**row) for row in found.iter_rows(named=True)]

        return self._kept_answer(("facets", like, unlike, space, layer), find)

    def columns(self) -> list[ColumnRow]:
        """Return the columns by whose values lists can be narrowed, artist, album and year first."""

        def find(lake: Lake, catalogue: Catalogue) -> list[ColumnRow]:
            kinds = narrowing_kinds(lake)
            return [
                ColumnRow(name=name, kind=kind_of(kinds[name]), values=len(values_of(lake, name)))
                for name in narrowing_columns(lake)
            ]

        return self._kept_answer(("columns",), find)

    def values(self, column: str, text: str = "", *, first: int = 0, count: int = 50) -> Page[ValueRow]:
        """Return the values of a column that contain `text`, the most frequent first.

        Raises InputError for an unknown column.
        """
        check_page(first, count)

        def find(lake: Lake, catalogue: Catalogue) -> Page[ValueRow]:
            check_columns(lake, [column])
            found = values_of(lake, column)
            wanted = folded_name(text[:LONGEST_TEXT])
            if wanted:
                matches = [wanted in folded_name(value_text(value)) for value in found["value"]]
                found = found.filter(pl.Series(matches, dtype=pl.Boolean))
            rows = [ValueRow(value=value_text(value), songs=songs) for value, songs in found[first : first + count].iter_rows()]
            return Page(rows=rows, total=len(found), first=first)

        return self._kept_answer(("values", column, text, first, count), find)

    # -- sound

    def sound(self, song_id: str, *, as_wav: bool = False) -> SongSound:
        """Return the sound of a song: its file, or a WAV file that is decoded while it is sent (`as_wav`, chorales).

        Raises ClipNotFound, or AudioError if there is no file.
        """

        def find(lake: Lake) -> SongSound:
            catalogue = self._catalogue(lake)
            row = catalogue.row_of(song_id)
            return find_sound(lake, catalogue.clips_of(row), song_id, as_wav=as_wav)

        return self._opened.answer(find)

    def read(self, question: Callable[[Lake, Catalogue], Result]) -> Result:
        """Return what `question` finds in the present lake and its catalogue; not kept.  See `OpenedLake.answer`."""
        return self._opened.answer(lambda lake: question(lake, self._catalogue(lake)))

    def opened(self) -> Lake:
        """Return the present lake."""
        return self._opened.get()

    # -- what a request does not name

    def default_layer(self, lake: Lake) -> tuple[Space, int]:
        """Return the space and the number of the layer of answers to requests that name neither."""
        return self._chosen(lake, None, None)

    def _chosen(self, lake: Lake, space: str | None, layer: int | str | None) -> tuple[Space, int]:
        """Return a space and the number of one of its layers; the service's layer holds for the service's space alone."""
        chosen = lake.spaces.get(space or self._space)
        default = self._layer if space in (None, self._space) else None
        return chosen, chosen.layer_index(default if layer is None else layer)

    # -- caches

    def _catalogue(self, lake: Lake) -> Catalogue:
        server, stamp = self._server_state(lake)
        key = (lake.identity, lake.clips.table.version, lake.paths.table.version, server, stamp)
        return self._catalogues.get(key, lambda: Catalogue(lake, server))

    def _server_state(self, lake: Lake) -> tuple[str | None, str | None]:
        """Return the music server whose ids are used, and a text that changes when the ids of its artists do."""

        def look() -> tuple[str | None, str | None]:
            server, _ = choose_server(lake, self._server)
            return server, None if server is None else lake.servers.stamp(server)

        return look_once("server of answers", look)

    def _kept_answer(self, key: tuple[Hashable, ...], make: Callable[[Lake, Catalogue], Result]) -> Result:
        """Return an answer, computed once until the lake changes."""

        def ask(lake: Lake) -> Result:
            def compute() -> Result:
                with self._computing:
                    return make(lake, self._catalogue(lake))

            version = self._version(lake)
            if version != self._kept_version:            # what is known of an older state is never asked for again
                self._kept, self._kept_version = Once(KEPT), version
            return self._kept.get((*key, version), compute)

        return self._opened.answer(ask)
