"""The files of songs that only a server has, in a folder of this machine with a bound in bytes.

    <cache folder>/subsonic/files/HASH       one file a song, named by a hash of its source

`local_song` returns the file of a song, and downloads it first where it is not there: after the ingest, files that were used
least recently are deleted for newer ones, and come back when they are needed.  The time of last use is the file's time of
access; the time of its last write stays, by which digests are remembered.

Only servers that were ingested on this machine are asked (`settings`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Collection
from functools import lru_cache
from pathlib import Path

from tonelake.ingest.errors import AudioError
from tonelake.ingest.subsonic.client import SongGone, SubsonicError, SubsonicServer
from tonelake.ingest.subsonic.settings import folder, read_settings, writing
from tonelake.ingest.subsonic.sources import is_served, parse_served
from tonelake.store import InputError

TOUCH_S = 60.0                           # a use is noted at most this often
PART_HOURS = 24.0                        # after which part files of killed processes are deleted
FAILED_S = 60.0                          # a server that failed is asked again: else each clip would wait for it
_failed: dict[str, tuple[float, str]] = {}               # by address: until when, on time.monotonic's clock, and the reason


def song_path(source: str) -> Path:
    """Where the file of a song is, if it is in the cache."""
    return folder() / "files" / hashlib.blake2b(source.encode(), digest_size=16).hexdigest()


def cached_song(source: str) -> Path | None:
    """The file of a song if it is in the cache; notes that it was used."""
    path = song_path(source)
    try:
        found = path.stat()
        if time.time() - found.st_atime > TOUCH_S:
            os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))
    except FileNotFoundError:
        return None
    except OSError:
        return path if path.exists() else None               # a cache that may only be read
    return path


def local_song(source: str) -> Path:
    """The file of a song, downloaded if it is not in the cache.  Raises AudioError if it cannot be had."""
    found = cached_song(source)
    if found is not None:
        return found
    address, _ = parse_served(source)
    until, problem = _failed.get(address, (0.0, ""))
    if time.monotonic() >= until:
        try:
            return download_song(known_server(address), source)
        except (SubsonicError, InputError) as error:
            problem = str(error)
            if isinstance(error, SubsonicError) and not isinstance(error, SongGone):
                _failed[address] = (time.monotonic() + FAILED_S, problem)
    raise AudioError(f"{source}: is not in the cache and cannot be downloaded: {problem}")


@lru_cache(maxsize=8)
def known_server(address: str) -> SubsonicServer:
    """A client for a server that was ingested on this machine.  Raises InputError for any other."""
    about = read_settings().of_server(address, "subsonic")
    return SubsonicServer(address, insecure=about.get("insecure") is True)


def download_song(
    server: SubsonicServer, source: str, *, in_use: Callable[[], Collection[Path]] = tuple,
    stopped: Callable[[], bool] = lambda: False,
) -> Path:
    """Download the file of a song into the cache, in place of an older copy, and return it.

    Others are deleted until all fit into the bound, but not those that are in use when it has arrived.
    `stopped`: as for `SubsonicServer.download`.
    Raises AudioError if the file is too large, or the disk is full; SubsonicError.
    """
    _, song = parse_served(source)
    most_bytes = read_settings().most_bytes
    path = song_path(source)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with writing():
        pass                             # its folder exists
    try:
        with part.open("w+b") as file:
            size = server.download(song, file, most_bytes=most_bytes, stopped=stopped)
        if size == 0:
            raise AudioError(f"{source}: the server sends an empty file. Check it there")
        with writing():
            make_room(most_bytes - size, {*in_use(), path})
            part.replace(path)
    except OSError as error:
        raise AudioError(
            f"{source}: cannot be stored in {folder()} ({error.strerror or error}). Free some space, choose a smaller "
            "--cache-gb, or name another folder with TONELAKE_CACHE"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return path


def make_room(most_bytes: int, kept: Collection[Path] = ()) -> None:
    """Delete the files that were used least recently until the others, and those `kept`, have at most `most_bytes`."""
    found = []
    for entry in os.scandir(folder() / "files"):
        with contextlib.suppress(FileNotFoundError):
            stat, path = entry.stat(), Path(entry.path)
            if not entry.name.startswith("."):
                found.append((stat.st_atime_ns, stat.st_size, path))
            elif time.time() - stat.st_mtime > PART_HOURS * 3600:
                path.unlink(missing_ok=True)
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most_bytes:
            return
        if path not in kept:
            with contextlib.suppress(OSError):               # another process reads it, on a system that locks such files
                path.unlink(missing_ok=True)
                total -= size


def drop_song(source: str) -> None:
    """Delete the file of a song from the cache, if it is there."""
    with contextlib.suppress(OSError):
        song_path(source).unlink(missing_ok=True)


def move_song(source: str, other: str) -> None:
    """Keep the file of a song under another source: the server has given it another id."""
    with contextlib.suppress(OSError):
        song_path(source).replace(song_path(other))


def is_here(source: str) -> bool:
    """Whether a song's file is in the cache, without noting a use."""
    return is_served(source) and song_path(source).exists()
