"""The native interface: /v1/…, JSON that is described by /openapi.json.

Answers carry an entity tag of the lake's version, so that a client which sends it back as If-None-Match gets 304 until the lake
changes.  Errors are {"error": sentence} with status 400, 401, 404 or 503.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import TypeAdapter
from starlette.responses import Response

from tonelake.serve.answers import MOST_POINTS, Answers
from tonelake.serve.audio import sound_response
from tonelake.serve.catalogue import LONGEST_ID
from tonelake.serve.etags import matches, weak_tag
from tonelake.serve.queries import LONGEST_TEXT, MOST, MOST_IDS
from tonelake.serve.rows import (
    ArtistRow,
    ColumnRow,
    FacetRow,
    LakeRow,
    MapPoint,
    NearArtist,
    Page,
    SongRow,
    ValueRow,
)
from tonelake.serve.slots import LEFT, in_slot
from tonelake.store import InputError

PER = r"^[^\W\d]\w{0,63}:\d{1,3}$"
PROBLEM = {
    "description": "A sentence that says what is wrong and what to do",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
PROBLEMS: dict[int | str, dict[str, Any]] = dict.fromkeys((400, 401, 404, 503), PROBLEM)
NOT_MODIFIED = {"description": "The lake has not changed since the answer with the tag of If-None-Match"}
WHERE_PARAMETER = {
    "name": "where", "in": "query", "style": "deepObject", "explode": True,
    "description": "Only songs with these values: `where[artist]=Ada` or `where.artist=Ada`, repeatable.  Values of one column "
    "are alternatives, columns are combined; a year can be a range such as 1990-1999.  `/v1/columns` lists the columns.",
    "schema": {"type": "object", "additionalProperties": {"type": "string"}},
}

SongId = Annotated[str, Path(max_length=LONGEST_ID, description="Id of the music server, or of any clip of the song.")]
Count = Annotated[int, Query(ge=1, le=MOST, description="Number of rows.")]
First = Annotated[int, Query(ge=0, le=1_000_000_000, description="Number of rows before the first one.")]
Typed = Annotated[str, Query(max_length=LONGEST_TEXT, description="What the name resembles or contains; empty for all.")]
Ids = Annotated[list[str], Query(max_length=MOST_IDS, description="Ids of songs, repeatable.")]
Space = Annotated[str | None, Query(max_length=200, description="Embedding space; default: the service's space.")]
Layer = Annotated[str | None, Query(max_length=200, description="Layer by number or name; default: the service's layer.")]
Artist = Annotated[str, Query(max_length=LONGEST_TEXT, description="Name or id of an artist.")]
Column = Annotated[str | None, Query(max_length=64, description="A label column.")]


async def send(request: Request, answers: Answers, kind: TypeAdapter[Any], ask: Callable[[], Any]) -> Response:
    """Return an answer as JSON, or 304 where the client has it."""
    check_names(request)

    def answer() -> tuple[str, bytes | None]:
        tag = weak_tag(answers.version())                # before the answer: a change meanwhile makes it older, never newer
        known = matches(request.headers.get("if-none-match"), tag)
        return tag, None if known else kind.dump_json(ask())

    found = await in_slot(request, answer)
    if found is None:
        return Response(status_code=LEFT)
    tag, body = found
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if body is None:
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")


def check_names(request: Request) -> None:
    """Raise InputError for a parameter that the route does not have: a misspelt one would be ignored."""
    route: Any = request.scope["route"]
    names = [field.alias for field in route.dependant.query_params]
    filtered = any(one is WHERE_PARAMETER for one in (route.openapi_extra or {}).get("parameters", ()))
    for name in request.query_params:
        if name not in names and not (filtered and where_column(name)):
            known = ", ".join([*names, *(["where.COLUMN"] if filtered else [])])
            raise InputError(f"parameter {name[:40]!r}: unknown. " + (f"Choose from {known}" if known else "Leave it out"))


def where_column(name: str) -> str:
    """Return the column of a parameter of a filter; empty for another parameter.

    >>> where_column("where.artist"), where_column("where[year]"), where_column("whereabouts")
    ('artist', 'year', '')
    """
    found = re.fullmatch(r"where(?:\.(.+)|\[(.+)\])", name, re.DOTALL)
    return "" if found is None else found[1] or found[2]


def read_where(request: Request) -> dict[str, list[str]]:
    """Return the filter of a request: values by column."""
    chosen: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if column := where_column(name):
            chosen.setdefault(column, []).append(value)
    return chosen


def native_router(answers: Answers) -> APIRouter:
    """Return the routes of the native interface."""
    router = APIRouter(prefix="/v1", tags=["lake"], responses=PROBLEMS)
    filtered = {"openapi_extra": {"parameters": [WHERE_PARAMETER]}}
    adapters: dict[Any, TypeAdapter[Any]] = {}

    def get(path: str, kind: Any, **settings: Any) -> Callable[[Any], Any]:
        adapters[kind] = TypeAdapter(kind)
        return router.get(path, response_model=kind, responses={304: NOT_MODIFIED}, **settings)

    async def say(request: Request, kind: Any, ask: Callable[[], Any]) -> Response:
        return await send(request, answers, adapters[kind], ask)

    @get("/lake", LakeRow)
    async def lake(request: Request) -> Response:
        """The lake: its version, numbers of clips and songs, spaces, and which space and layer answers are computed in."""
        return await say(request, LakeRow, answers.lake)

    @get("/songs", Page[SongRow])
    async def songs(request: Request, q: Typed = "", first: First = 0, count: Count = 20) -> Response:
        """Songs whose title, artist, album or file name resembles `q`, best first; all songs without it."""
        return await say(request, Page[SongRow], lambda: answers.find_songs(q, first=first, count=count))

    async def audio(
        request: Request, song_id: SongId,
        wav: Annotated[bool, Query(description="Decode to WAV (24 kHz, mono) what could be sent as it is.")] = False,
    ) -> Response:
        """The sound of a song, or of the recording that a clip is part of, with byte ranges.

        The file as it is where browsers can play it, else decoded to WAV.
        """
        check_names(request)

        def answer() -> Response:
            sound = answers.sound(song_id, as_wav=wav)
            return sound_response(request, answers.opened(), sound)

        return await in_slot(request, answer, sound=True) or Response(status_code=LEFT)

    sent = {"description": "The bytes of the file", "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}}
    ranged = {
        200: sent, 206: sent | {"description": "The range of bytes that was asked for"}, 304: NOT_MODIFIED,
        416: PROBLEM | {"description": "The range is outside the file"},
    }
    router.add_api_route(
        "/songs/{song_id:path}/audio", audio, methods=["GET"], responses=ranged, response_class=Response,         # type: ignore[arg-type]
    )
    router.add_api_route("/songs/{song_id:path}/audio", audio, methods=["HEAD"], include_in_schema=False)

    @get("/songs/{song_id:path}", SongRow)
    async def song(request: Request, song_id: SongId) -> Response:
        """One song."""
        return await say(request, SongRow, lambda: answers.song(song_id))

    @get("/similar", list[SongRow], **filtered)
    async def similar(
        request: Request, id: Ids = [], minus: Ids = [],         # noqa: B006  # never changed; FastAPI needs a list
        text: Annotated[
            list[str], Query(max_length=MOST_IDS, description='Words, repeatable; "-vocals" is subtracted.')
        ] = [],                                                  # noqa: B006
        count: Count = 10,
        not_same: Annotated[
            str | None, Query(max_length=64, description="Column in which hits must differ from the query: artist, album.")
        ] = None,
        per: Annotated[str | None, Query(pattern=PER, description="Most hits that share a value: artist:2.")] = None,
        order: Annotated[Literal["nearest", "walk"], Query(description="Order of the hits: nearest, or each near the last.")]
        = "nearest",
        like: Column = None, unlike: Column = None, space: Space = None, layer: Layer = None,
        moments: Annotated[bool, Query(description="Compare the clips that have these ids, not their songs.")] = False,
    ) -> Response:
        """Songs nearest to songs, less those of `minus`, or to words; `start_s` is the best moment of each.

        `like` and `unlike`: compare only by what separates the groups of a label column, or without it.
        """
        capped = None
        if per is not None:
            column, _, number = per.partition(":")
            capped = column, int(number)
        return await say(request, list[SongRow], lambda: answers.similar(
            id, minus=minus, text=text, count=count, where=read_where(request), not_same=not_same, per=capped, order=order,
            like=like, unlike=unlike, space=space, layer=layer, moments=moments,
        ))

    @get("/path", list[SongRow], **filtered)
    async def path(
        request: Request,
        start: Annotated[str, Query(max_length=LONGEST_ID, description="Id of the first song.")],
        end: Annotated[str, Query(max_length=LONGEST_ID, description="Id of the last song.")],
        steps: Annotated[int, Query(ge=1, le=MOST, description="Number of songs between them.")] = 5,
        space: Space = None, layer: Layer = None,
    ) -> Response:
        """Songs that lead from one song to another, both included."""
        return await say(request, list[SongRow], lambda: answers.path(
            start, end, steps=steps, where=read_where(request), space=space, layer=layer,
        ))

    @get("/artists", Page[ArtistRow])
    async def artists(request: Request, q: Typed = "", first: First = 0, count: Count = 50) -> Response:
        """Artists whose names contain `q`, those with most songs first."""
        return await say(request, Page[ArtistRow], lambda: answers.artists(q, first=first, count=count))

    @get("/artists/songs", Page[SongRow])
    async def artist_songs(request: Request, artist: Artist, first: First = 0, count: Count = 50) -> Response:
        """Songs of an artist."""
        return await say(request, Page[SongRow], lambda: answers.songs_of_artist(artist, first=first, count=count))

    @get("/artists/similar", list[NearArtist])
    async def similar_artists(request: Request, artist: Artist, count: Count = 10) -> Response:
        """Artists most similar to one, compared at equal size, with songs of both that are near each other."""
        return await say(request, list[NearArtist], lambda: answers.similar_artists(artist, count=count))

    @get("/map", Page[MapPoint])
    async def map_points(
        request: Request, first: First = 0,
        count: Annotated[int, Query(ge=1, le=MOST_POINTS, description="Number of points.")] = MOST_POINTS,
        space: Space = None, layer: Layer = None,
    ) -> Response:
        """Songs on the map of a layer, which `tonelake map` makes."""
        return await say(
            request, Page[MapPoint], lambda: answers.map_points(first=first, count=count, space=space, layer=layer)
        )

    @get("/facets", list[FacetRow])
    async def facets(
        request: Request, like: Column = None, unlike: Column = None, space: Space = None, layer: Layer = None
    ) -> Response:
        """How well `like` and `unlike` of /v1/similar work at a layer, on held-out tracks."""
        return await say(
            request, list[FacetRow], lambda: answers.facets(like=like, unlike=unlike, space=space, layer=layer)
        )

    @get("/columns", list[ColumnRow])
    async def columns(request: Request) -> Response:
        """Columns by whose values answers can be narrowed."""
        return await say(request, list[ColumnRow], answers.columns)

    @get("/columns/{name}/values", Page[ValueRow])
    async def values(
        request: Request, name: Annotated[str, Path(max_length=64, description="Name of a column.")], q: Typed = "",
        first: First = 0, count: Count = 50,
    ) -> Response:
        """Values of a column that contain `q`, the most frequent first."""
        return await say(request, Page[ValueRow], lambda: answers.values(name, q, first=first, count=count))

    return router
