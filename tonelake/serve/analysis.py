"""The HTTP interface of analysis services, which plugins of music servers (Navidrome, Jellyfin, Lyrion, beets) call.

    GET /api/similar_tracks?item_id=7&n=20          -> [{item_id, title, author, album, album_artist, distance}]
    GET /api/similar_artists?artist=Ada&n=10        -> [{artist, artist_id, divergence}], with component_matches if asked for
    GET /api/find_path?start_song_id=7&end_song_id=9&max_steps=25        -> {path: [{item_id, …, distance}], total_distance}
    GET /api/search_tracks?search_query=blue&start=0&end=20              -> [{item_id, title, author, album, album_artist}]
    GET /api/search_artists?query=ada               -> [{artist, artist_id, track_count}]
    GET /api/health, /api/active_tasks              -> {"status": "ok"}, {}: what plugins test their connection by

`item_id` and `artist_id` are the music server's ids where the lake knows them.  `distance` is 1 - cosine, on a path that to the
song before; `divergence` is 1 - similarity of two artists.  Errors are {"error": sentence} with status 400, 401, 404 or 503,
which the application makes of those raised here.  Numbers are clamped, and parameters that plugins send besides are ignored.
The interface is that of AudioMuse-AI, as its clients use it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from tonelake.serve.answers import Answers
from tonelake.serve.native import PROBLEMS
from tonelake.serve.queries import MOST
from tonelake.serve.rows import SongRow
from tonelake.serve.slots import LEFT, in_slot
from tonelake.serve.steps import path_with_steps
from tonelake.store import InputError

PER_ARTIST = 3                           # songs of one artist with eliminate_duplicates
LEAST_LETTERS = 3                        # of a search, where words are longer than in Chinese or Japanese
MOST_ARTISTS = 100
LAST = 2**53
WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off", "")

TRACK = {
    "item_id": {"type": "string"}, "title": {"type": "string"}, "author": {"type": "string"},
    "album": {"type": ["string", "null"]}, "album_artist": {"type": ["string", "null"]},
}
NEAR_TRACK = {**TRACK, "distance": {"type": "number"}}
NAMED_TRACK = {"item_id": {"type": "string"}, "title": {"type": "string"}}
EXAMPLE_SONGS = {"type": "array", "items": {"type": "object", "properties": NAMED_TRACK, "required": list(NAMED_TRACK)}}
ARTIST = {
    "artist": {"type": "string"}, "artist_id": {"type": "string"}, "divergence": {"type": "number"},
    "component_matches": {"type": "array", "items": {"type": "object", "properties": {
        "artist1_representative_songs": EXAMPLE_SONGS, "artist2_representative_songs": EXAMPLE_SONGS,
    }}},
}
NAMED_ARTIST = {"artist": {"type": "string"}, "artist_id": {"type": "string"}, "track_count": {"type": "integer"}}

Text = Annotated[str, Query(max_length=500)]
Number = Annotated[str, Query(max_length=20, description="A whole number; clamped to what is possible.")]
Switch = Annotated[str, Query(max_length=5, description="true or false.")]
Server = Annotated[str, Query(description="Ignored: --server of `tonelake serve` chooses the music server.")]


def analysis_router(answers: Answers) -> APIRouter:
    """Return the routes of the interface."""
    router = APIRouter(prefix="/api", tags=["analysis service"])

    async def send(request: Request, find: Callable[[], Any]) -> Response:
        found = await in_slot(request, lambda: as_json(find()))
        return Response(status_code=LEFT) if found is None else found

    @router.get("/similar_tracks", responses=described(list_of(NEAR_TRACK, list(TRACK))))
    async def similar_tracks(
        request: Request, item_id: Text = "", title: Text = "", artist: Text = "", n: Number = "10",
        eliminate_duplicates: Annotated[Switch, Query(description=f"At most {PER_ARTIST} songs of one artist.")] = "",
        radius_similarity: Annotated[Switch, Query(description="Order: each song is followed by one like it.")] = "",
        server: Server = "",
    ) -> Response:
        """Songs that sound like one, given by its id, or by its title and artist."""

        def find() -> list[dict[str, Any]]:
            count = whole("n", n, 10, low=1, high=MOST)
            few, walk = switch("eliminate_duplicates", eliminate_duplicates), switch("radius_similarity", radius_similarity)
            seed = seed_song(answers, item_id, title, artist)
            found = answers.similar(
                [seed.id], count=count, per=("artist", PER_ARTIST) if few else None, order="walk" if walk else "nearest",
            )
            return [{**track(song), "distance": distance(song.score)} for song in found]

        return await send(request, find)

    @router.get("/similar_artists", responses=described(list_of(ARTIST, ["artist", "artist_id", "divergence"])))
    async def similar_artists(
        request: Request, artist: Text = "", artist_id: Text = "", n: Number = "10",
        include_component_matches: Annotated[Switch, Query(description="Also songs of both that are near each other.")] = "",
        server: Server = "",
    ) -> Response:
        """Artists that sound like one, given by its name or its id: the music server's, or one of this service.

        Some plugins send the id as `artist`.
        """

        def find() -> list[dict[str, Any]]:
            count = whole("n", n, 10, low=1, high=MOST_ARTISTS)
            with_songs = switch("include_component_matches", include_component_matches)
            wanted = artist.strip() or artist_id.strip()
            if not wanted:
                raise InputError("artist: missing. Give artist=NAME or artist_id=ID")
            found = []
            for near in answers.similar_artists(wanted, count=count):
                row = {"artist": near.name, "artist_id": near.id, "divergence": distance(near.score)}
                if with_songs:
                    row["component_matches"] = [{
                        "artist1_representative_songs": [named(song) for song in near.examples],
                        "artist2_representative_songs": [named(song) for song in near.near_examples],
                    }]
                found.append(row)
            return found

        return await send(request, find)

    @router.get("/find_path", responses=described({
        "type": "object", "required": ["path", "total_distance"],
        "properties": {"path": list_of(NEAR_TRACK, list(NEAR_TRACK)), "total_distance": {"type": "number"}},
    }))
    async def find_path(
        request: Request, start_song_id: Text = "", end_song_id: Text = "",
        max_steps: Annotated[Number, Query(description="Number of songs on the path, both ends included.")] = "25",
        server: Server = "",
    ) -> Response:
        """Songs that lead from one song to another, both included."""

        def find() -> dict[str, Any]:
            count = whole("max_steps", max_steps, 25, low=2, high=MOST)
            for name, value in (("start_song_id", start_song_id), ("end_song_id", end_song_id)):
                if not value.strip():
                    raise InputError(f"{name}: missing. Give the ids of both songs")
            songs, steps = path_with_steps(answers, start_song_id, end_song_id, count)
            distances = [distance(step.to_previous) for step in steps]
            return {
                "path": [{**track(song), "distance": one} for song, one in zip(songs, distances, strict=True)],
                "total_distance": round(sum(distances), 6),
            }

        return await send(request, find)

    @router.get("/search_tracks", responses=described(list_of(TRACK, list(TRACK))))
    async def search_tracks(
        request: Request,
        search_query: Annotated[Text, Query(description="Part of a title, artist or album; at least 3 letters.")] = "",
        title: Text = "", artist: Text = "", start: Number = "0", end: Number = "", server: Server = "",
    ) -> Response:
        """Songs by name: rows `start` to `end`, the latter not included."""

        def find() -> list[dict[str, Any]]:
            first, count = page(start, end, MOST)
            text = search_text("search_query", search_query.strip() or f"{title} {artist}".strip())
            return [track(song) for song in answers.find_songs(text, first=first, count=count).rows] if count else []

        return await send(request, find)

    @router.get("/search_artists", responses=described(list_of(NAMED_ARTIST, list(NAMED_ARTIST))))
    async def search_artists(
        request: Request, query: Annotated[Text, Query(description="Part of a name; at least 3 letters.")] = "",
        start: Number = "0", end: Number = "", server: Server = "",
    ) -> Response:
        """Artists by name: rows `start` to `end`, the latter not included."""

        def find() -> list[dict[str, Any]]:
            first, count = page(start, end, MOST_ARTISTS)
            text = search_text("query", query.strip())
            return [
                {"artist": one.name, "artist_id": one.id, "track_count": one.songs}
                for one in (answers.artists(text, first=first, count=count).rows if count else ())
            ]

        return await send(request, find)

    @router.get("/health", responses=described({"type": "object"}))
    async def health(request: Request) -> Response:
        """Whether the lake can be read."""

        def find() -> dict[str, str]:
            answers.version()
            return {"status": "ok"}

        return await send(request, find)

    @router.get("/active_tasks", responses=described({"type": "object"}))
    async def active_tasks() -> dict[str, str]:
        """Tasks that run: none, since the service only answers."""
        return {}

    return router


# -- answers


def as_json(found: Any) -> Response:
    body = json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, 200, {"Cache-Control": "no-store"}, "application/json")


def described(schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return the responses of a route for the OpenAPI description."""
    return PROBLEMS | {200: {"description": "Found", "content": {"application/json": {"schema": schema}}}}


def list_of(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object", "properties": properties, "required": required}}


def track(song: SongRow) -> dict[str, Any]:
    """Return a song in the interface's words; a missing artist is an empty text, which plugins compare."""
    return {
        "item_id": song.id, "title": song.title, "author": song.artist or "", "album": song.album,
        "album_artist": song.album_artist or song.artist,
    }


def named(song: SongRow) -> dict[str, str]:
    return {"item_id": song.id, "title": song.title}


def distance(cosine: float | None) -> float:
    """Return 1 - cosine, from 0 to 2.

    >>> distance(0.75), distance(1.0000001), distance(None)
    (0.25, 0.0, 2.0)
    """
    return 2.0 if cosine is None else round(min(max(1.0 - cosine, 0.0), 2.0), 6)


# -- questions


def seed_song(answers: Answers, item_id: str, title: str, artist: str) -> SongRow:
    """Return the song that a request names.  Raises InputError without an id or a title with an artist, and ClipNotFound."""
    if item_id.strip():
        return answers.song(item_id.strip())
    if not (title.strip() and artist.strip()):
        raise InputError("item_id: missing. Give item_id=ID, or both title=TITLE and artist=NAME")
    return answers.find_by(title=title, artist=artist)


def whole(name: str, text: str, default: int, *, low: int, high: int) -> int:
    """Return a whole number, clamped; the default for an empty text.  Raises InputError for other text."""
    if not text.strip():
        return default
    if not WHOLE.fullmatch(text.strip()):
        raise InputError(f"{name}={text[:40]!r}: not a whole number")
    return min(max(int(text), low), high)


def switch(name: str, text: str) -> bool:
    """Return true or false, false for an empty text.  Raises InputError for other text."""
    lower = text.strip().lower()
    if lower not in (*TRUE, *FALSE):
        raise InputError(f"{name}={text[:40]!r}: neither true nor false")
    return lower in TRUE


def page(start: str, end: str, most: int) -> tuple[int, int]:
    """Return the first row and the number of rows, 20 by default.

    >>> page("20", "30", 500), page("", "", 500), page("5", "5", 500), page("-3", "99999", 500)
    ((20, 10), (0, 20), (5, 0), (0, 500))
    """
    first = whole("start", start, 0, low=0, high=LAST)
    last = whole("end", end, first + 20, low=0, high=LAST)
    return first, min(max(last - first, 0), most)


def search_text(name: str, text: str) -> str:
    """Return what is searched for.  Raises InputError if it is missing or short: names of other scripts can have one letter."""
    if not text or (text.isascii() and len(text) < LEAST_LETTERS):
        raise InputError(f"{name}={text!r}: too short. Give at least {LEAST_LETTERS} letters")
    return text
