"""Files that a visitor dropped: embedded once, then deleted, and known by a token while the server runs."""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from tonelake import Lake
from tonelake.index import Query
from tonelake.ingest import AudioError
from tonelake.store import InputError, TonelakeError, printable
from tonelake.ui.answers import HEADERS
from tonelake.ui.opened import opened_lake

LARGEST_MB = 200
DRAINED_MB = 2 * LARGEST_MB              # of a refused upload; after more, the connection is closed
KEPT = 200                               # uploads whose vectors are known at once
LONGEST_NAME = 120                       # characters

_heard: OrderedDict[str, Heard] = OrderedDict()
_embedding = threading.Lock()            # one upload is embedded at a time: an encoder takes all cores


@dataclass(frozen=True, kw_only=True)
class Heard:
    """An embedded upload."""

    name: str                            # of the file
    queries: dict[str, Query]            # by fingerprint of a space

    @property
    def notes(self) -> list[str]:
        """Sentences for the visitor: which song of the lake it is, how much of it is compared."""
        return list(dict.fromkeys(note for query in self.queries.values() for note in query.notes))


def heard_file(token: str) -> Heard:
    """Return an upload.  Raises InputError if the token is unknown, as after a restart of the server."""
    found = _heard.get(token)
    if found is None:
        raise InputError("upload: it is no longer known, because the app was restarted or has heard many others. Drop it again")
    _heard.move_to_end(token)
    return found


def hear(lake: Lake, path: Path, name: str, spaces: Sequence[str | None]) -> str:
    """Embed a file in some spaces and return its token.  Raises AudioError if it is not audio, and as `read_query`."""
    with _embedding:
        queries = [lake.read_query(path, space=space) for space in spaces]
    token = secrets.token_urlsafe(12)
    _heard[token] = Heard(name=name, queries={query.fingerprint: query for query in queries})
    while len(_heard) > KEPT:
        _heard.popitem(last=False)
    return token


async def receive_upload(request: Request) -> JSONResponse:
    """Answer a POST of a file's bytes, ?name=…&space=…&beside=…, with {"token": …} or {"error": …}."""
    if not from_own_page(request):
        await drain(request)
        return refused("upload: it was not sent by a page of this app. Drop the file on the page", 403)
    name = file_name(request.query_params.get("name", ""))
    spaces = list(dict.fromkeys(request.query_params.get(key) or None for key in ("space", "beside")))
    with tempfile.TemporaryDirectory(prefix="tonelake-upload-") as folder:
        path = Path(folder) / name
        size = 0
        with path.open("wb") as file:
            async for part in request.stream():
                size += len(part)
                if size > LARGEST_MB << 20:
                    await drain(request)
                    return refused(f"{name}: larger than {LARGEST_MB} MB. Drop a shorter or compressed file", 413)
                file.write(part)
        if not size:
            return refused(f"{name}: the file is empty. Drop one with audio", 400)
        wanted: list[str | None] = [space for space in spaces if space is not None] or [None]
        try:
            token = await run_in_threadpool(hear, opened_lake(), path, name, wanted)
        except TonelakeError as error:
            sentence = str(error).replace(f"{folder}/", "")
            if isinstance(error, AudioError):
                sentence = f"{name}: this file has no audio that can be read. Drop an audio file, such as MP3, FLAC or WAV"
            return refused(sentence, 400)
    return JSONResponse({"token": token, "name": name}, 200, HEADERS)


async def drain(request: Request) -> None:
    """Read the rest of a request, as a browser shows an answer only after it has sent everything."""
    left = DRAINED_MB << 20
    async for part in request.stream():
        left -= len(part)
        if left < 0:
            return


def refused(sentence: str, status: int) -> JSONResponse:
    return JSONResponse({"error": sentence}, status, HEADERS)


def from_own_page(request: Request) -> bool:
    """Whether a browser says that a page of this app sent the request: by Sec-Fetch-Site, and by Origin where it is given."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin is None:
        return False
    return site in (None, "same-origin") and (origin is None or urlsplit(origin).netloc == request.headers.get("host"))


def file_name(given: str) -> str:
    """Return the name of an upload that is safe as a file's name and as text.

    >>> file_name("../../etc/pass wd"), file_name("C:\\\\music\\\\a.mp3"), file_name("..")
    ('pass wd', 'a.mp3', 'upload')
    """
    last = printable(given.replace("\\", "/").rpartition("/")[2]).strip().strip(".")
    stem, dot, suffix = last.rpartition(".")
    shortened = stem[: LONGEST_NAME - len(suffix) - 1] + dot + suffix if dot and len(suffix) <= 8 else last[:LONGEST_NAME]
    return shortened.encode("utf-8", "ignore").decode()[:LONGEST_NAME] or "upload"
