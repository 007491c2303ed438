"""The sound of a song over HTTP: one byte range, HEAD, If-Range and If-None-Match.

A file is sent as it is; what browsers cannot play, and what is no file, as a WAV file that is decoded while it is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tonelake import Lake
from tonelake.ingest import AudioError
from tonelake.serve.etags import matches
from tonelake.serve.rows import SongSound
from tonelake.wav_file import HEADER, Sound, is_byte_range, parse_range

PIECE_BYTES = 64 * 1024


def sound_response(request: Request, lake: Lake, sound: SongSound) -> Response:
    """Answer a GET or HEAD request with the requested bytes of a sound.  Raises AudioError if it cannot be read.

    Several ranges at once are answered with the whole sound, as a server may.
    """
    headers = {
        "Accept-Ranges": "bytes", "ETag": sound.etag, "Cache-Control": "private, no-cache", "Content-Encoding": "identity",
    }
    if matches(request.headers.get("if-none-match"), sound.etag):
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range")
    if request.headers.get("if-range", sound.etag) != sound.etag:
        wanted = None                    # the client holds a part of another version
    span = parse_range(wanted, sound.size)
    if span is None and is_byte_range(wanted):
        problem = f"range: outside the sound, which has {sound.size:,} bytes. Ask for a range within it"
        return JSONResponse({"error": problem}, 416, headers | {"Content-Range": f"bytes */{sound.size}"})
    first, last = span or (0, sound.size - 1)
    headers["Content-Length"] = str(last - first + 1)
    if span is not None:
        headers["Content-Range"] = f"bytes {first}-{last}/{sound.size}"
    status = 200 if span is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=sound.media_type)
    body = file_bytes(sound, first, last) if sound.path is not None else wav_bytes(lake, sound, first, last)
    return StreamingResponse(body, status, headers, sound.media_type)


def file_bytes(sound: SongSound, first: int, last: int) -> Iterator[bytes]:
    """Return bytes `first` to `last` of a file, in pieces.  Raises AudioError if it cannot be opened."""
    assert sound.path is not None
    try:
        file = sound.path.open("rb")
        file.seek(first)
    except OSError as error:
        raise AudioError("its file is gone or cannot be read. Put it back, or ingest its folder again") from error
    return pieces(file, last + 1 - first)


def pieces(file: BinaryIO, left: int) -> Iterator[bytes]:
    """Yield the next `left` bytes of an open file, and close it."""
    with file:
        while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
            left -= len(piece)
            yield piece


def wav_bytes(lake: Lake, sound: SongSound, first: int, last: int) -> Iterator[bytes]:
    """Return bytes `first` to `last` of a recording as WAV.  Raises AudioError if the first block cannot be decoded."""
    decoded = Sound(lake, sound.clip_id, sound.duration_s, whole=True).bytes(first, last)
    begun = [next(decoded)]
    if first < HEADER <= last:           # decode the first block now, while an error status can still be sent
        begun.append(next(decoded, b""))

    def body() -> Iterator[bytes]:
        yield from begun
        yield from decoded

    return body()
