"""One address -> one audio file that decodes, once: by yt-dlp, with retries, checks and a ledger around it.

yt-dlp resumes what was cut off, but takes up a damaged part file as if it were sound, gives up at once where a server asks
for patience, and keeps its own books by file name.  So a part that an earlier run left is thrown away (an mp3 whose first
third is zeros still decodes, to fewer seconds), a file counts only when it was decoded from end to end, files are named
by their address, and `ledger.jsonl` beside them says of every address what became of it.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tonelake.ingest.errors import AudioError
from tonelake.store import InputError, TonelakeError

TRIES = 4
PATIENCE_S = 20.0                        # before the second try; twice as long before each further one
MOST_BYTES = 1 << 30
TEMPORARY = re.compile(
    r"HTTP Error (408|429|5\d\d)|timed out|timeout|reset by peer|IncompleteRead|more expected|closed connection"
    r"|Connection aborted|Temporary failure",
    re.IGNORECASE,
)


class FetchError(TonelakeError):
    """An address could not be fetched, or what came is no music."""


@dataclass(frozen=True)
class Fetched:
    """What an address gave."""

    url: str
    file: str                            # name in the folder
    size: int                            # bytes
    duration_s: float
    id: str = ""                         # as the site says: what was found may be another recording than was looked for
    title: str = ""
    uploader: str = ""


class DownloadLog:
    """What became of each address, in a file of JSON lines; the last line of an address counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "ledger.jsonl"
        self._entries: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._entries[entry["url"]] = entry
                except (ValueError, KeyError, TypeError):            # a line that a full disk or a power cut tore
                    continue

    def find(self, url: str) -> Fetched | None:
        """What was fetched from an address and is still there; None where it is to be fetched (again)."""
        entry = self._entries.get(url)
        if entry is None or entry.get("status") != "done":
            return None
        found = Fetched(**{name: entry[name] for name in Fetched.__dataclass_fields__})
        path = self.folder / found.file
        return found if path.is_file() and path.stat().st_size == found.size else None

    def record(self, url: str, **facts: Any) -> None:
        entry = {"url": url, "at": round(time.time(), 1), **facts}
        self._entries[url] = entry
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())


Download = Callable[[str, Path, str], tuple[Path, dict[str, Any]]]               # url, folder, name without suffix
Measure = Callable[[Path], float]


def fetch(
    url: str, ledger: DownloadLog, *, download: Download, measure: Measure, sleep: Callable[[float], None] = time.sleep
) -> tuple[Fetched, bool]:
    """The file of an address, and whether it was fetched just now.  Raises FetchError, which is in the ledger then.

    `measure` decodes a file from end to end and gives its seconds, or raises AudioError.
    """
    known = ledger.find(url)
    if known is not None:
        return known, False
    name, problem = file_name(url), ""
    remove(ledger.folder, name)
    for attempt in range(TRIES):
        if attempt:
            sleep(PATIENCE_S * 2 ** (attempt - 1) if TEMPORARY.search(problem) else 0.0)
        try:
            path, info = download(url, ledger.folder, name)
            duration_s = measure(path)
        except FetchError as error:
            problem = str(error)
            if not TEMPORARY.search(problem):
                break
        except AudioError as error:      # once more, from the beginning
            again = not problem.startswith("what came")
            problem = f"what came is no audio that can be read: {error}"
            remove(ledger.folder, name)
            if not again:
                break
        else:
            about = {key: str(info.get(key) or "") for key in ("id", "title", "uploader")}
            found = Fetched(url, path.name, path.stat().st_size, duration_s, **about)
            ledger.record(status="done", **asdict(found))
            return found, True
    ledger.record(url, status="failed", error=problem)
    raise FetchError(f"{url}: {problem}")


def file_name(url: str) -> str:
    """The file of an address, without suffix: two addresses whose last parts are alike stay two, and no title names a file."""
    return hashlib.blake2b(url.encode(), digest_size=10).hexdigest()


def remove(folder: Path, name: str) -> None:
    """Files of that name with any suffix, parts included."""
    for path in folder.glob(f"{name}.*"):
        path.unlink(missing_ok=True)


def check_public(url: str) -> None:
    """Raise FetchError for an address on this machine or a local network: a catalogue of somebody else's must not have us ask
    there.  Where a name resolves to several addresses, all of them have to be public."""
    host = urlsplit(url).hostname or ""
    try:
        found = {ipaddress.ip_address(str(place[4][0]).split("%")[0]) for place in socket.getaddrinfo(host, None)}
    except (OSError, ValueError) as error:
        raise FetchError(f"{host or url!r} has no address: {error}") from error
    if not all(place.is_global for place in found):
        raise FetchError(f"{host} lies on this machine or a local network, where nothing is fetched from")


def ytdlp(*, bytes_a_second: int | None = 2_000_000) -> Download:
    """Downloads by yt-dlp from public addresses: no cookies, no playlists, no configuration of the user's.

    Raises InputError where yt-dlp is missing.
    """
    try:
        import yt_dlp
    except ImportError as error:
        raise InputError("fetching needs yt-dlp: pip install 'tonelake[youtube]'") from error
    runtimes: dict[str, dict] = {name: {} for name in ("deno", "node") if shutil.which(name)}

    def download(url: str, folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
        check_public(url)
        options = {
            "format": "bestaudio/best", "outtmpl": {"default": f"{str(folder).replace('%', '%%')}/{name}.%(ext)s"},
            "noplaylist": True, "quiet": True, "no_warnings": True, "noprogress": True, "logger": Silent(), "cachedir": False,
            "retries": 10, "fragment_retries": 10, "socket_timeout": 30, "max_filesize": MOST_BYTES, "continuedl": True,
            "ratelimit": bytes_a_second, "js_runtimes": runtimes,
        }
        try:
            with yt_dlp.YoutubeDL(options) as loader:
                info = loader.sanitize_info(loader.extract_info(url, download=True)) or {}
        except yt_dlp.utils.YoutubeDLError as error:
            raise FetchError(reason(error)) from error
        paths = [Path(found["filepath"]) for found in info.get("requested_downloads") or [] if found.get("filepath")]
        there = [path for path in paths if path.is_file()]
        if not there:                    # yt-dlp returns as if all were well where a limit kept it from downloading
            raise FetchError(f"nothing was downloaded: it may be larger than {MOST_BYTES >> 30} GB")
        return there[0], info

    return download


def reason(error: Exception) -> str:
    """yt-dlp's message without colours, prefix and advice on reporting bugs."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).removeprefix("ERROR: ")
    return text.split("; please report")[0].split(" (caused by")[0].strip()


class Silent:
    """yt-dlp's log, unread: its errors are raised as well."""

    def debug(self, text: str) -> None: ...
    def info(self, text: str) -> None: ...
    def warning(self, text: str) -> None: ...
    def error(self, text: str) -> None: ...
