"""HTTP routes that the custom components fetch from: points, colours, neighbours, audio, spectrograms.

    /tonelake/map/{space}/{layer}/points        (point, 2) float32: x, y; header X-Order identifies the row order
    /tonelake/map/{space}/{layer}/colours       (point,) uint16, by ?column=
    /tonelake/map/{space}/{layer}/legend        meaning of the colour codes
    /tonelake/map/{space}/{layer}/clusters      names and positions of clusters
    /tonelake/map/{space}/{layer}/search        (found,) uint32 rows, by ?q=
    /tonelake/map/{space}/{layer}/point         names of one ?row= or one ?clip=
    /tonelake/near/{space}/{layer}/{clip}       result of `tonelake similar`, with map rows
    /tonelake/audio/{clip}                      WAV, supports byte ranges
    /tonelake/spectrogram/{clip}                PNG
    /tonelake/roll/{clip}/{part}                (column, bin) uint8: a part of the spectrogram over pitch
    /tonelake/static/                           scripts of the components

Requests name clips of the lake, never paths, and nothing is written.  Binary bodies are sent uncompressed, because the
framework's compression would take longer than sending them over loopback.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from tonelake import Lake
from tonelake.pitch_spectrogram import spectrogram_part
from tonelake.store import ClipNotFound, InputError, Space, SpaceNotFound, TonelakeError
from tonelake.ui.opened import opened_lake
from tonelake.ui.points import Points, load_points
from tonelake.ui.sound import Sound, parse_range

HEADERS = {"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
MAX_NEIGHBOURS = 200
MAX_DIGITS = 6                           # of the number of a part
SPECTROGRAM_S = 30.0                     # from the start of a clip
WARM_UP_AFTER_S = 0.7                    # by then the page has been drawn
Answer = Callable[[Request], Response]


def errors_as_json(answer: Answer) -> Answer:
    """Decorate a route so that a TonelakeError becomes a JSON message with status 400 or 404."""

    @wraps(answer)
    def route(request: Request) -> Response:
        try:
            return answer(request)
        except TonelakeError as error:
            wrong = isinstance(error, InputError) and not isinstance(error, ClipNotFound | SpaceNotFound)
            return JSONResponse({"error": str(error)}, 400 if wrong else 404, HEADERS)

    return route


def requested_points(request: Request) -> Points:
    lake = opened_lake()
    space, layer = space_and_layer(lake, request)
    return load_points(lake, space, layer)


def space_and_layer(lake: Lake, request: Request) -> tuple[Space, int]:
    space = lake.spaces.get(request.path_params["space"])
    return space, space.layer_index(request.path_params["layer"])


def binary(body: bytes, after: BackgroundTask | None = None, **headers: str) -> Response:
    return Response(body, 200, HEADERS | {"Content-Encoding": "identity"} | headers, "application/octet-stream", after)


@errors_as_json
def points(request: Request) -> Response:
    found = requested_points(request)
    return binary(found.xy.tobytes(), BackgroundTask(warm_up, found), **{"X-Order": found.order})


def warm_up(found: Points) -> None:
    """Prepare for the first click: load the ids and the layer or its index, and start a decoder process."""
    if found.warm or not len(found.ids):
        return
    found.warm = True
    time.sleep(WARM_UP_AFTER_S)
    with contextlib.suppress(TonelakeError):         # the first click reports the error
        lake = opened_lake()
        lake.similar(found.ids[0], space=found.space.name, layer=found.space.layers[found.layer])
        lake.audio(found.ids[0], seconds=0.1)


@errors_as_json
def colours(request: Request) -> Response:
    return binary(requested_points(request).colours(request.query_params.get("column", "cluster")).codes.tobytes())


@errors_as_json
def legend(request: Request) -> Response:
    return JSONResponse(requested_points(request).colours(request.query_params.get("column", "cluster")).legend, 200, HEADERS)


@errors_as_json
def clusters(request: Request) -> Response:
    return JSONResponse(requested_points(request).clusters, 200, HEADERS)


@errors_as_json
def search(request: Request) -> Response:
    return binary(requested_points(request).search(request.query_params.get("q", "")).tobytes())


@errors_as_json
def point(request: Request) -> Response:
    found = requested_points(request)
    clip = request.query_params.get("clip")
    row = found.rows_of([clip])[0] if clip is not None else whole_number(request, "row", 0, len(found.ids) - 1)
    if row is None:
        raise ClipNotFound(f"clip {clip!r} is not on this map")
    return JSONResponse({"row": row} | found.frame.row(row, named=True), 200, HEADERS)


@errors_as_json
def near(request: Request) -> Response:
    lake = opened_lake()
    space, layer = space_and_layer(lake, request)
    count = whole_number(request, "k", 1, MAX_NEIGHBOURS)
    hits = lake.similar(
        request.path_params["clip"], space=space.name, layer=space.layers[layer], k=count,
        not_same=request.query_params.get("not_same") or None,
    )
    rows = load_points(lake, space, layer).rows_of(hits["clip_id"].to_list())
    return JSONResponse([hit | {"row": row} for hit, row in zip(hits.to_dicts(), rows, strict=True)], 200, HEADERS)


def whole_number(request: Request, name: str, low: int, high: int) -> int:
    text = request.query_params.get(name, str(low))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise InputError(f"{name}={text!r}: not a whole number from {low} to {high}")
    return int(text)


@errors_as_json
def audio(request: Request) -> Response:
    lake = opened_lake()
    clip = lake.clips.find(request.path_params["clip"])
    sound = Sound(lake, clip["clip_id"], clip["duration_s"])
    wanted = parse_range(request.headers.get("range"), sound.size)
    if wanted is None and request.headers.get("range"):
        return Response(status_code=416, headers=HEADERS | {"Content-Range": f"bytes */{sound.size}"})
    first, last = wanted or (0, sound.size - 1)
    pieces = sound.bytes(first, last)
    begun = [next(pieces)]
    if first < 44 <= last:               # decode the first block now, while an error status can still be sent
        begun.append(next(pieces, b""))

    def body() -> Iterator[bytes]:
        yield from begun
        yield from pieces

    headers = HEADERS | {"Accept-Ranges": "bytes", "Content-Length": str(last - first + 1), "Content-Encoding": "identity"}
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{sound.size}"
    return StreamingResponse(body(), 206 if wanted else 200, headers, "audio/wav")


@errors_as_json
def spectrogram(request: Request) -> Response:
    picture = spectrogram_of(opened_lake(), request.path_params["clip"])
    return Response(picture, 200, HEADERS | {"Cache-Control": "private, max-age=3600"}, "image/png")


@errors_as_json
def roll(request: Request) -> Response:
    part = request.path_params["part"]
    if not part.isdecimal() or len(part) > MAX_DIGITS:
        raise InputError(f"part {part[:20]!r}: not a whole number. Ask for one from 0 on")
    return binary(spectrogram_part(opened_lake(), request.path_params["clip"], int(part)).tobytes())


@lru_cache(maxsize=512)                  # about 20 KB each
def spectrogram_of(lake: Lake, clip: str) -> bytes:
    return lake.spectrogram(clip, seconds=SPECTROGRAM_S)


def routes() -> list[BaseRoute]:
    """Return all routes, for the app's server."""
    one_map = "/tonelake/map/{space}/{layer}"
    answers: dict[str, Any] = {
        f"{one_map}/points": points, f"{one_map}/colours": colours, f"{one_map}/legend": legend,
        f"{one_map}/clusters": clusters, f"{one_map}/search": search, f"{one_map}/point": point,
        "/tonelake/near/{space}/{layer}/{clip}": near, "/tonelake/audio/{clip}": audio,
        "/tonelake/spectrogram/{clip}": spectrogram, "/tonelake/roll/{clip}/{part}": roll,
    }
    scripts = Mount("/tonelake/static", StaticFiles(directory=Path(__file__).parent / "static"))
    return [scripts, *(Route(path, answer) for path, answer in answers.items())]
