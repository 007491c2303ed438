"""HTTP routes that the custom components fetch from: points, colours, neighbours, audio, spectrograms.

    /tonelake/map/…, /tonelake/songs/…, /tonelake/near/…         as in `map_routes`
    /tonelake/suggest, values, albums, picture, heard            as in `listen_routes`
    /tonelake/audio/{clip}                      WAV, supports byte ranges
    /tonelake/recording/{clip}                  the whole recording that a clip is part of, likewise
    /tonelake/ready                             a POST starts the process that decodes what is played
    /tonelake/playlist                          M3U of the clips in the JSON body {"clips": […]}, by POST
    /tonelake/spectrogram/{clip}                PNG
    /tonelake/roll/{clip}/{part}                (column, bin) uint8: a part of the spectrogram over pitch
    /tonelake/static/                           scripts of the components

Requests name clips of the lake, never paths, and nothing is written.  Binary bodies are sent uncompressed, because the
framework's compression would take longer than sending them over loopback.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import polars as pl
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from tonelake import Lake
from tonelake.ingest import AudioError, to_path
from tonelake.pitch_spectrogram import spectrogram_part
from tonelake.playlists import playlist
from tonelake.store import InputError, TonelakeError
from tonelake.ui.answers import HEADERS, binary, errors_as_json
from tonelake.ui.listen_routes import listen_routes
from tonelake.ui.map_routes import map_routes
from tonelake.ui.opened import opened_lake
from tonelake.wav_file import Sound, is_file_there, parse_range, recording_length

MAX_BODY_BYTES = 1 << 20
MAX_DIGITS = 6                           # of the number of a part
SPECTROGRAM_S = 30.0                     # from the start of a clip


@errors_as_json
def audio(request: Request) -> Response:
    lake = opened_lake()
    clip = lake.clips.find(request.path_params["clip"])
    return wav(request, clip, lambda: Sound(lake, clip["clip_id"], clip["duration_s"]))


@errors_as_json
def recording(request: Request) -> Response:
    lake = opened_lake()
    clip = lake.clips.find(request.path_params["clip"])
    return wav(request, clip, lambda: Sound(lake, clip["clip_id"], recording_length(lake, clip["clip_id"]), whole=True))


def ready(request: Request) -> Response:
    """Start what the first sound needs.  Errors are left to the request for that sound."""
    with contextlib.suppress(TonelakeError):
        opened_lake().prepare_playing()
    return Response(status_code=204, headers=HEADERS)


def wav(request: Request, clip: dict[str, Any], find: Callable[[], Sound]) -> Response:
    """Answer with the requested bytes of a sound.  Raises AudioError if its file is gone or cannot be decoded."""
    try:
        sound = find()
        wanted = parse_range(request.headers.get("range"), sound.size)
        if wanted is None and request.headers.get("range"):
            return Response(status_code=416, headers=HEADERS | {"Content-Range": f"bytes */{sound.size}"})
        first, last = wanted or (0, sound.size - 1)
        pieces = sound.bytes(first, last)
        begun = [next(pieces)]
        if first < 44 <= last:           # decode the first block now, while an error status can still be sent
            begun.append(next(pieces, b""))
    except AudioError as error:
        if is_file_there(clip["source"]):
            raise
        name = to_path(clip["source"]).name
        raise AudioError(f"{name}: the file is gone. Put it back, or ingest its folder again to mark it as missing") from error

    def body() -> Iterator[bytes]:
        yield from begun
        yield from pieces

    headers = HEADERS | {"Accept-Ranges": "bytes", "Content-Length": str(last - first + 1), "Content-Encoding": "identity"}
    if wanted is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{sound.size}"
    return StreamingResponse(body(), 206 if wanted else 200, headers, "audio/wav")


async def save_playlist(request: Request) -> Response:
    """M3U playlist of clips.  A JSON body cannot be sent by a page of another origin."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            break
    try:
        clips = json.loads(body)["clips"] if len(body) <= MAX_BODY_BYTES else None
    except (ValueError, KeyError, TypeError):
        clips = None
    if request.headers.get("content-type") != "application/json" or not isinstance(clips, list) or not all(
        isinstance(clip, str) for clip in clips
    ):
        return JSONResponse({"error": 'playlist: send {"clips": [ID, …]} as JSON, at most 1 MB'}, 400, HEADERS)
    listed = pl.DataFrame({"clip_id": clips}, {"clip_id": pl.String})
    try:
        text, _ = await run_in_threadpool(lambda: playlist(opened_lake(), listed))
    except TonelakeError as error:
        return JSONResponse({"error": str(error)}, 404, HEADERS)
    return Response(text, 200, HEADERS, "audio/x-mpegurl")


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
    answers: dict[str, Any] = {
        "/tonelake/audio/{clip}": audio, "/tonelake/recording/{clip}": recording, "/tonelake/spectrogram/{clip}": spectrogram,
        "/tonelake/roll/{clip}/{part}": roll,
    }
    posts = [
        Route("/tonelake/playlist", save_playlist, methods=["POST"]), Route("/tonelake/ready", ready, methods=["POST"]),
    ]
    scripts = Mount("/tonelake/static", StaticFiles(directory=Path(__file__).parent / "static"))
    return [scripts, *map_routes(), *listen_routes(), *(Route(path, answer) for path, answer in answers.items()), *posts]
