"""Playlists in the Music Player Daemon: songs at the end of its queue, or in its place, and as a stored playlist.

MPD names songs by their paths below its music folder.  On a Unix socket it reports that folder, and also plays files elsewhere
that it may read (`file://`).  On a port it does neither: the folder is then given, or found by asking for shorter and shorter
ends of a path.  Addresses: `mpd` (MPD_HOST and MPD_PORT as for other clients, else the usual sockets, else localhost:6600),
`mpd://HOST[:PORT]` and `mpd:///SOCKET`.  A password comes from MPD_HOST=PASSWORD@HOST alone: others can read a command line.
Protocol: https://mpd.readthedocs.io/en/latest/protocol.html
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import polars as pl

from tonelake.ingest import to_path
from tonelake.playlists.entries import Entry
from tonelake.playlists.files import FilePlayer
from tonelake.playlists.names import safe_name
from tonelake.store import InputError, TonelakeError, import_extra, printable

PORT = 6600
TIMEOUT_S = 15.0
SOCKETS = ("/run/mpd/socket", "/var/run/mpd/socket")


class MpdError(TonelakeError):
    """MPD cannot be reached, or refuses a command."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where MPD listens: a socket (a path, or a name that begins with @), or a host and a port."""

    host: str
    port: int = PORT
    password: str = ""

    @property
    def is_socket(self) -> bool:
        return self.host.startswith(("/", "@"))

    def __str__(self) -> str:
        return self.host if self.is_socket else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address that `--to` names.  Raises InputError for one that cannot be used.

    The password of MPD_HOST is for the host in MPD_HOST alone.

    >>> str(parse_address("mpd://music.local")), str(parse_address("mpd:///run/mpd.sock"))
    ('music.local:6600', '/run/mpd.sock')
    """
    parts = urlsplit(text if "://" in text else "mpd://")
    if "@" in parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        raise InputError(f"--to mpd://…@{host}: others can read a command line. Set MPD_HOST=PASSWORD@HOST instead")
    own = os.environ.get("MPD_HOST", "")
    at = own.find("@", 1)                # a name that begins with @ is a socket
    password, own = (own[:at], own[at + 1 :]) if at > 0 else ("", own)
    try:
        port = parts.port or int(os.environ.get("MPD_PORT") or PORT)
    except ValueError as error:
        raise InputError(f"--to {text}: has no valid port, or MPD_PORT has none ({error}). Write mpd://HOST:PORT") from error
    host = unquote(parts.path) if parts.path and not parts.netloc else parts.hostname or own
    host = host or next((path for path in usual_sockets() if Path(path).is_socket()), "localhost")
    return Address(host=host, port=port, password=password if host == own else "")


def usual_sockets() -> list[str]:
    """Sockets that MPD listens on by default, the user's own first."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    return [*([f"{own}/mpd/socket"] if own else []), *SOCKETS]


class MpdPlayer:
    """A connection to MPD.  A context manager."""

    lacks = "that MPD does not know"

    def __init__(self, address: Address, *, music: Path | None = None) -> None:
        """`music`: MPD's music folder as this machine sees it.  Raises MpdError if MPD cannot be reached."""
        self._mpd = import_extra("mpd", "players", "playlists in MPD")
        self.address = address
        self._client: Any = self._mpd.MPDClient()
        self._client.timeout = TIMEOUT_S
        try:
            with self._errors():
                self._client.connect(address.host, address.port)
                if address.password:
                    self._client.password(address.password)
            folder = str(music.expanduser().absolute()) if music is not None else self._music_folder()
        except BaseException:
            self.close()
            raise
        self._folders = [folder] if folder else []                   # music folders: the one that is known, or those found
        self._asks = not folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        with suppress(OSError, self._mpd.MPDError):
            self._client.disconnect()

    # -- songs

    def may_play(self, files: pl.DataFrame) -> pl.Series:
        return FilePlayer().may_play(files)

    def place(self, source: str) -> str | None:
        """The URI of a file: its path below the music folder, or `file://…` on a socket; None if MPD cannot play it."""
        text = str(to_path(source))
        if not text.isprintable():           # bytes that are no UTF-8, or line breaks, which end a command of the protocol
            return None
        for folder in self._folders:
            if text.startswith(folder.rstrip("/") + "/") and self._knows(uri := text[len(folder.rstrip("/")) + 1 :]):
                return uri
        parts = text.split("/")
        for first in range(1, len(parts) - 1) if self._asks else ():         # a name without a folder can be another song's
            if self._knows(uri := "/".join(parts[first:])):
                self._folders.append("/".join(parts[:first]) or "/")
                return uri
        return f"file://{text}" if self.address.is_socket and FilePlayer().place(source) else None

    def _knows(self, uri: str) -> bool:
        """Whether a song of this URI is in MPD's database."""
        with self._errors():
            try:
                return any(row.get("file") == uri for row in self._client.lsinfo(uri))
            except self._mpd.CommandError as error:
                if error.errno == self._mpd.FailureResponseCode.NO_EXIST:
                    return False
                raise

    def _music_folder(self) -> str | None:
        """The music folder as MPD says on a socket."""
        if not self.address.is_socket:
            return None
        with suppress(self._mpd.CommandError), self._errors(but=self._mpd.CommandError):
            found = self._client.config()
            return found if isinstance(found, str) and found.startswith("/") else None
        return None

    # -- lists

    def check_stored(self, name: str, *, replace: bool) -> str:
        """The name under which MPD stores a playlist.  Raises InputError if it exists, unless `replace`."""
        stored = safe_name(name)
        with self._errors():
            exists = any(row.get("playlist") == stored for row in self._client.listplaylists())
        if exists and not replace:
            raise InputError(f"{stored}: MPD has a playlist of this name. Replace it with --replace, or choose another name")
        return stored

    def store(self, name: str, entries: Sequence[Entry]) -> int:
        """Store a playlist under a name of `check_stored`, in place of an older one; returns the number of its songs."""
        beside = f"{name}.{secrets.token_hex(4)}"
        count = 0
        with self._errors():
            try:
                for one in entries:
                    count += self._added(self._client.playlistadd, beside, one.place) is not None
                if count:
                    with suppress(self._mpd.CommandError):               # there is none
                        self._client.rm(name)
                    self._client.rename(beside, name)
            finally:
                with suppress(self._mpd.MPDError):                       # it has its name, or could not be made
                    self._client.rm(beside)
        return count

    def queue(self, entries: Sequence[Entry], *, replace: bool = False, play: bool = False) -> int:
        """Add songs at the end of the queue; returns how many were added.

        `replace`: what was in the queue is removed, once songs were added.  `play`: the first of them is played.
        Raises MpdError if none can be added.
        """
        with self._errors():
            before = int(self._client.status()["playlistlength"])
            added = [number for one in entries if (number := self._added(self._client.addid, one.place)) is not None]
            if not added:
                raise MpdError(
                    f"MPD at {self.address}: may play none of the {len(entries)} songs. Run `mpc update`, or give --music"
                )
            if replace and before:
                self._client.delete((0, before))
            if play:
                self._client.playid(added[0])
        return len(added)

    def _added(self, command: Any, *words: str) -> str | None:
        """Return the answer of a command that adds a song; None if MPD cannot find the file or may not read it."""
        codes = self._mpd.FailureResponseCode
        try:
            return command(*words) or ""
        except self._mpd.CommandError as error:
            may_not = error.errno == codes.PERMISSION and "Access denied" in str(error.msg)
            if error.errno in (codes.NO_EXIST, codes.SYSTEM) or may_not:
                return None
            raise

    @contextmanager
    def _errors(self, but: type[BaseException] | tuple[()] = ()) -> Iterator[None]:
        """Turn errors of the connection into sentences, `but` those."""
        codes = self._mpd.FailureResponseCode
        where = f"MPD at {self.address}"
        try:
            yield
        except but:
            raise
        except self._mpd.CommandError as error:
            message = printable(str(error.msg or error))
            if error.errno in (codes.PERMISSION, codes.PASSWORD):
                raise MpdError(
                    f"{where}: refuses ({message}). Set MPD_HOST=PASSWORD@HOST to a password that may control it"
                ) from error
            raise MpdError(f"{where}: answers {message!r}. See its log") from error
        except (self._mpd.MPDError, OSError, UnicodeError) as error:
            reason = printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)
            raise MpdError(
                f"{where}: cannot be reached, or is no MPD ({reason}). Start it, or name it: --to mpd://HOST:PORT or "
                "mpd:///PATH/OF/SOCKET, or set MPD_HOST"
            ) from error


def mpd_player(text: str, *, music: Path | None = None) -> MpdPlayer:
    """A connection to the MPD that `--to` names."""
    return MpdPlayer(parse_address(text), music=music)
