"""Download the audio file of a URL once and check that it decodes: yt-dlp with retries, checks and a log.

yt-dlp resumes a download, but also continues a damaged part file, gives up at once if a server asks it to wait, and keeps
track of downloads by file name.  So part files of earlier runs are deleted (an mp3 whose first third is zeros still decodes,
to fewer seconds), a file counts only once it has been decoded from end to end, files are named by a hash of their URL, and
`ledger.jsonl` beside them records the result for each URL.

A URL may be a search, `ytsearch1:ARTIST TITLE`: its first hit is downloaded, and the log records which recording that was.
Every address that is requested has to be public (`check_public`), also one that a search or a web page leads to.
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
from tonelake.store import TonelakeError, import_extra

TRIES = 4
FIRST_WAIT_S = 20.0                      # before the second try; twice as long before each further one
MAX_BYTES = 1 << 30
SEARCH = "ytsearch1:"                    # yt-dlp's prefix of a search whose first hit is taken
NOT_AUDIO = "the download is not readable audio"
TEMPORARY = re.compile(
    r"HTTP Error (408|429|5\d\d)|timed out|timeout|reset by peer|IncompleteRead|more expected|closed connection"
    r"|Connection aborted|Temporary failure",
    re.IGNORECASE,
)


class FetchError(TonelakeError):
    """A URL could not be downloaded, or its file is not music."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A downloaded file."""

    url: str
    file: str                            # its name in the folder
    size: int                            # bytes
    duration_s: float
    id: str = ""                         # id, title and uploader by the site: it may be another recording than expected
    title: str = ""
    uploader: str = ""
    page: str = ""                       # address of the recording that a search found; empty if `url` is not a search


class DownloadLog:
    """Log of the result for each URL, in a file of JSON lines; the last line of a URL counts.

    A recording that a search found is known by its own address as well.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "ledger.jsonl"
        self._entries: dict[str, dict[str, Any]] = {}
        self._searches: dict[str, str] = {}                          # by the address that was found
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._keep(entry["url"], entry)
                except (ValueError, KeyError, TypeError):            # a line cut off by a full disk or a power failure
                    continue

    def find(self, url: str) -> Fetched | None:
        """The file of a URL, if it has been downloaded and still exists unchanged in size; else None."""
        entry = self._entries.get(url)
        if entry is None or entry.get("status") != "done":
            entry = self._entries.get(self._searches.get(url, ""))
        if entry is None or entry.get("status") != "done":
            return None
        found = Fetched(**{name: entry[name] for name in Fetched.__dataclass_fields__ if name in entry})
        path = self.folder / found.file
        return found if path.is_file() and path.stat().st_size == found.size else None

    def record(self, url: str, **facts: Any) -> None:
        """Append the result for a URL."""
        entry = {"url": url, "at": round(time.time(), 1), **facts}
        self._keep(url, entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def files(self) -> list[Path]:
        """Paths of all files that were downloaded."""
        return [self.folder / str(entry["file"]) for entry in self._entries.values() if entry.get("file")]

    def _keep(self, url: str, entry: dict[str, Any]) -> None:
        self._entries[url] = entry
        if entry.get("page"):
            self._searches[entry["page"]] = url


Download = Callable[[str, Path, str], tuple[Path, dict[str, Any]]]               # url, folder, name without suffix
Measure = Callable[[Path], float]


def fetch(
    url: str, log: DownloadLog, *, download: Download, measure: Measure, sleep: Callable[[float], None] = time.sleep
) -> tuple[Fetched, bool]:
    """The file of a URL, and whether it was downloaded in this call.  Raises FetchError, and logs it.

    `measure` decodes a file from end to end and returns its seconds, or raises AudioError.
    """
    known = log.find(url)
    if known is not None:
        return known, False
    name, problem = file_name(url), ""
    remove(log.folder, name)
    for attempt in range(TRIES):
        if attempt:
            sleep(FIRST_WAIT_S * 2 ** (attempt - 1) if TEMPORARY.search(problem) else 0.0)
        try:
            path, info = download(url, log.folder, name)
            duration_s = measure(path)
        except FetchError as error:
            problem = str(error)
            if not TEMPORARY.search(problem):
                break
        except AudioError as error:      # retry once, from the beginning
            repeated = problem.startswith(NOT_AUDIO)
            problem = f"{NOT_AUDIO}: {error}"
            remove(log.folder, name)
            if repeated:
                break
        else:
            about = {key: as_text(info.get(key)) for key in ("id", "title", "uploader")}
            if url.startswith(SEARCH):
                about["page"] = as_text(info.get("webpage_url"))
            found = Fetched(url=url, file=path.name, size=path.stat().st_size, duration_s=duration_s, **about)
            log.record(status="done", **asdict(found))
            return found, True
    log.record(url, status="failed", error=problem)
    raise FetchError(f"{url}: {problem}")


def as_text(value: Any) -> str:
    """A value of a site as text that can be written as UTF-8."""
    return str(value or "").encode(errors="replace").decode()


def file_name(url: str) -> str:
    """File name of a URL, without suffix: a hash, so that no two URLs share a file and no title becomes a file name."""
    return hashlib.blake2b(url.encode(), digest_size=10).hexdigest()


def remove(folder: Path, name: str) -> None:
    """Delete files of that name with any suffix, including part files."""
    for path in folder.glob(f"{name}.*"):
        path.unlink(missing_ok=True)


def check_public(url: str) -> None:
    """Raise FetchError for a URL on this machine or a local network, which a foreign catalogue must not make us request.

    If a name resolves to several addresses, all of them must be public.
    """
    host = urlsplit(url).hostname or ""
    try:
        addresses = {ipaddress.ip_address(str(info[4][0]).split("%")[0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, ValueError) as error:
        raise FetchError(f"{host or url!r}: has no address: {error}") from error
    if not all(address.is_global for address in addresses):
        raise FetchError(f"{host}: is on this machine or a local network. Only public addresses are allowed")


def ytdlp(*, bytes_a_second: int | None = 2_000_000) -> Download:
    """A function that downloads by yt-dlp from public addresses, without cookies, playlists or the user's configuration.

    Raises InputError if yt-dlp is not installed.
    """
    yt_dlp = import_extra("yt_dlp", "youtube", "fetching songs")
    runtimes: dict[str, dict] = {name: {} for name in ("deno", "node") if shutil.which(name)}

    def download(url: str, folder: Path, name: str) -> tuple[Path, dict[str, Any]]:
        if not url.startswith(SEARCH):
            check_public(url)
        options = {
            "format": "bestaudio/best", "outtmpl": {"default": f"{str(folder).replace('%', '%%')}/{name}.%(ext)s"},
            "noplaylist": True, "quiet": True, "no_warnings": True, "noprogress": True, "logger": SilentLogger(),
            "cachedir": False,
            "retries": 10, "fragment_retries": 10, "socket_timeout": 30, "max_filesize": MAX_BYTES, "continuedl": True,
            "ratelimit": bytes_a_second, "js_runtimes": runtimes,
        }
        try:
            with yt_dlp.YoutubeDL(options) as loader:
                loader.urlopen = public_only(loader.urlopen)
                page = first_hit(loader, url) if url.startswith(SEARCH) else url
                info = loader.sanitize_info(loader.extract_info(page, download=True)) or {}
        except yt_dlp.utils.YoutubeDLError as error:
            raise FetchError(reason(error)) from error
        if page != url:
            info["webpage_url"] = page
        paths = [Path(entry["filepath"]) for entry in info.get("requested_downloads") or [] if entry.get("filepath")]
        present = [path for path in paths if path.is_file()]
        if not present:                  # yt-dlp reports no error if a limit prevented the download
            raise FetchError(f"nothing was downloaded: it may be larger than {MAX_BYTES >> 30} GB")
        return present[0], info

    return download


def public_only(urlopen: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """yt-dlp's `urlopen`, restricted to public addresses.

    A redirect by a public site to another address is requested, but its reply is not read.
    """

    def checked(request: Any) -> Any:
        check_request(request if isinstance(request, str) else request.url)
        reply = urlopen(request)
        check_request(reply.url)
        return reply

    return checked


def first_hit(loader: Any, search: str) -> str:
    """The address of the first recording that a search by yt-dlp finds.

    Raises FetchError if it finds nothing, or something that is not at a public http or https address.
    """
    found = loader.extract_info(search, download=False, process=False) or {}
    entry = next(iter(found.get("entries") or ()), None)
    page = str((entry or {}).get("webpage_url") or (entry or {}).get("url") or "")
    if not page:
        raise FetchError("the search found nothing. Name a recording with --override")
    if not page.startswith(("http://", "https://")):
        raise FetchError(f"the search found {page!r}, which is not an http or https address. Name a recording with --override")
    check_public(page)
    return page


def check_request(url: str) -> None:
    """Raise FetchError if a request for this URL would leave this machine for an address that is not public."""
    if not url.startswith("data:"):      # such a URL contains its content
        check_public(url)


def reason(error: Exception) -> str:
    """yt-dlp's message without colours, prefix and advice on bug reports."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).removeprefix("ERROR: ")
    return text.split("; please report")[0].split(" (caused by")[0].strip()


class SilentLogger:
    """Discards yt-dlp's log: its errors are raised as well."""

    def debug(self, text: str) -> None: ...
    def info(self, text: str) -> None: ...
    def warning(self, text: str) -> None: ...
    def error(self, text: str) -> None: ...
