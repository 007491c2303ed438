"""What the app's own components fetch from where the page came from: points, colours, neighbours, sound, spectrograms.

    /tonelake/map/{space}/{layer}/points        (point, 2) float32: x, y; header X-Order names the order of the rows
    /tonelake/map/{space}/{layer}/colours       (point,) uint16, by ?column=
    /tonelake/map/{space}/{layer}/legend        what those numbers mean
    /tonelake/map/{space}/{layer}/clusters      names of places on the map
    /tonelake/map/{space}/{layer}/search        (found,) uint32 rows, by ?q=
    /tonelake/map/{space}/{layer}/point         what one row, or one ?clip=, is
    /tonelake/near/{space}/{layer}/{clip}       what `tonelake similar` answers, with rows of the map
    /tonelake/audio/{clip}                      WAV, any range of it
    /tonelake/spectrogram/{clip}                PNG
    /tonelake/static/                           the scripts of those components

Only clips of the lake are named here, never paths; nothing is written.  Binary bodies go out as they are: the framework's
compression would take longer than a loopback connection does.
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

from tonelake.api import Tonelake
from tonelake.store import ClipNotFound, InputError, Space, SpaceNotFound, TonelakeError
from tonelake.ui.opened import opened_lake
from tonelake.ui.points import Points, load_points
from tonelake.ui.sound import Sound, parse_range

HEADERS = {"Cross-Origin-Resource-Policy": "same-origin", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
MOST_NEIGHBOURS = 200
SPECTROGRAM_S = 30.0                     # of a clip's beginning
WARM_UP_AFTER_S = 0.7                    # when the page has drawn itself
Answer = Callable[[Request], Response]


def answering(answer: Answer) -> Answer:
    """Errors of ours become a sentence and a status."""

    @wraps(answer)
    def route(request: Request) -> Response:
        try:
            return answer(request)
        except TonelakeError as error:
            wrong = isinstance(error, InputError) and not isinstance(error, ClipNotFound | SpaceNotFound)
            return JSONResponse({"error": str(error)}, 400 if wrong else 404, HEADERS)

    return route


def map_of(request: Request) -> Points:
    lake = opened_lake()
    space, layer = space_and_layer(lake, request)
    return load_points(lake.lake, space, layer)


def space_and_layer(lake: Tonelake, request: Request) -> tuple[Space, int]:
    space = lake.lake.spaces.get(request.path_params["space"])
    return space, space.layer_index(request.path_params["layer"])


def binary(body: bytes, after: BackgroundTask | None = None, **headers: str) -> Response:
    return Response(body, 200, HEADERS | {"Content-Encoding": "identity"} | headers, "application/octet-stream", after)


@answering
def points(request: Request) -> Response:
    found = map_of(request)
    return binary(found.xy.tobytes(), BackgroundTask(warm_up, found), **{"X-Order": found.order})


def warm_up(found: Points) -> None:
    """Answer a first click before there is one: it reads the ids and the layer or its index, and starts a decoder."""
    if found.warm or not len(found.ids):
        return
    found.warm = True
    time.sleep(WARM_UP_AFTER_S)
    with contextlib.suppress(TonelakeError):         # whoever clicks will be told
        lake = opened_lake()
        lake.similar(found.ids[0], space=found.space.name, layer=found.space.layers[found.layer])
        lake.audio(found.ids[0], seconds=0.1)


@answering
def colours(request: Request) -> Response:
    return binary(map_of(request).colours(request.query_params.get("column", "cluster")).codes.tobytes())


@answering
def legend(request: Request) -> Response:
    return JSONResponse(map_of(request).colours(request.query_params.get("column", "cluster")).legend, 200, HEADERS)


@answering
def clusters(request: Request) -> Response:
    return JSONResponse(map_of(request).clusters, 200, HEADERS)


@answering
def search(request: Request) -> Response:
    return binary(map_of(request).search(request.query_params.get("q", "")).tobytes())


@answering
def point(request: Request) -> Response:
    found = map_of(request)
    clip = request.query_params.get("clip")
    row = found.rows_of([clip])[0] if clip is not None else whole_number(request, "row", 0, len(found.ids) - 1)
    if row is None:
        raise ClipNotFound(f"clip {clip!r} is not on this map")
    return JSONResponse({"row": row} | found.frame.row(row, named=True), 200, HEADERS)


@answering
def near(request: Request) -> Response:
    lake = opened_lake()
    space, layer = space_and_layer(lake, request)
    count = whole_number(request, "k", 1, MOST_NEIGHBOURS)
    hits = lake.similar(
        request.path_params["clip"], space=space.name, layer=space.layers[layer], k=count,
        not_same=request.query_params.get("not_same") or None,
    )
    rows = load_points(lake.lake, space, layer).rows_of(hits["clip_id"].to_list())
    return JSONResponse([hit | {"row": row} for hit, row in zip(hits.to_dicts(), rows, strict=True)], 200, HEADERS)


def whole_number(request: Request, name: str, low: int, high: int) -> int:
    text = request.query_params.get(name, str(low))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise InputError(f"{name}={text!r} is no number from {low} to {high}")
    return int(text)


@answering
def audio(request: Request) -> Response:
    lake = opened_lake()
    clip = lake.lake.clips.find(request.path_params["clip"])
    sound = Sound(lake, clip["clip_id"], clip["duration_s"])
    wanted = parse_range(request.headers.get("range"), sound.size)
    if wanted is None and request.headers.get("range"):
        return Response(status_code=416, headers=HEADERS | {"Content-Range": f"bytes */{sound.size}"})
    first, last = wanted or (0, sound.size - 1)
    pieces = sound.bytes(first, last)
    begun = [next(pieces)]
    if first < 44 <= last:               # only then is it known whether the source can be read
        begun.append(next(pieces, b""))

    def body() -> Iterator[bytes]:
        yield from begun
        yield from pieces

    headers = HEADERS | {"Accept-Ranges": "bytes", "Content-Length": str(last - first + 1), "Content-Encoding": "identity"}
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{sound.size}"
    return StreamingResponse(body(), 206 if wanted else 200, headers, "audio/wav")


@answering
def spectrogram(request: Request) -> Response:
    picture = spectrogram_of(opened_lake(), request.path_params["clip"])
    return Response(picture, 200, HEADERS | {"Cache-Control": "private, max-age=3600"}, "image/png")


@lru_cache(maxsize=512)                  # 20 KB each
def spectrogram_of(lake: Tonelake, clip: str) -> bytes:
    return lake.spectrogram(clip, seconds=SPECTROGRAM_S)


def routes() -> list[BaseRoute]:
    """All of them, for the app's server."""
    one_map = "/tonelake/map/{space}/{layer}"
    answers: dict[str, Any] = {
        f"{one_map}/points": points, f"{one_map}/colours": colours, f"{one_map}/legend": legend,
        f"{one_map}/clusters": clusters, f"{one_map}/search": search, f"{one_map}/point": point,
        "/tonelake/near/{space}/{layer}/{clip}": near, "/tonelake/audio/{clip}": audio,
        "/tonelake/spectrogram/{clip}": spectrogram,
    }
    scripts = Mount("/tonelake/static", StaticFiles(directory=Path(__file__).parent / "static"))
    return [scripts, *(Route(path, answer) for path, answer in answers.items())]
