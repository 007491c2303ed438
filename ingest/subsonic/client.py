"""A music server that speaks Subsonic (Navidrome, Gonic, Ampache, supysonic, …): its songs, playlists and files.

    with SubsonicServer("http://localhost:4533", user="ada") as server:
        for song in server.songs(): ...
        server.create_playlist("Calm", [song.id, …])

Every call is one POST, so that no address in a log holds a login; the answer is JSON.  The login is a salted md5 of the
password; a server that refuses that form (supysonic, or users of LDAP) is sent the password itself, but only where the
connection is private or `insecure` is set.  Redirects are not followed, since they would carry the login to another address.
Interface: https://opensubsonic.netlify.app/docs/
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from tonelake.ingest.subsonic.connection import CLIENT, Busy, Connection, ServerError, kind_of_answer
from tonelake.ingest.subsonic.login import Ask, login_for, server_address
from tonelake.ingest.subsonic.songs import ServerPlaylist, ServerSong, playlist_from, song_from, text
from tonelake.store import InputError

if TYPE_CHECKING:
    import httpx2

VERSION = "1.13.0"                       # the version that has tokens; servers refuse clients that are newer than they are
OLD_VERSION = "1.12.0"                   # the newest without
PAGE = 500                               # songs or albums asked for at once: the most that servers allow
MOST_SONGS = 5_000_000
BLOCK_BYTES = 1 << 20
MISSING_PARAMETER, WRONG_LOGIN, NOT_ALLOWED, NOT_FOUND = 10, 40, 50, 70          # codes of Subsonic
NO_TOKENS = (MISSING_PARAMETER, 41, 42)


class SubsonicError(ServerError):
    """A music server cannot be reached, refuses a call, or answers something else than Subsonic."""


class SongGone(SubsonicError):
    """The server has no song of that id any more."""


class SubsonicServer:
    """One server and a login for it.  A context manager; safe to use from several threads."""

    def __init__(
        self, url: str, *, user: str | None = None, password: str | None = None, insecure: bool = False,
        known_user: str | None = None, ask: Ask | None = None, transport: httpx2.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`user`, `password`, `known_user`, `ask`: as for `login_for`.  `transport`: of httpx2, for tests.

        `insecure`: send the password itself over a connection that others can read, if the server demands it.
        Raises InputError for a bad address or an incomplete login; nothing is sent yet.
        """
        self.address = server_address(url)
        self.user, self._password = login_for(self.address, user, password, known_user=known_user, ask=ask)
        self.insecure = insecure
        self._sends_password = False     # else a token; decided by the server's answer to the first call
        refused = "refuses the request with status {}. Check user and password"
        self._http = Connection(self.address, error=SubsonicError, transport=transport, sleep=sleep, refusals={
            401: refused.format(401), 403: refused.format(403),
            404: f"has no Subsonic interface at {self.address}/rest. Check the address",
        })
        self.is_private = self._http.is_private

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SubsonicServer({self.address!r}, user={self.user!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # -- calls

    def ping(self) -> None:
        """Raise SubsonicError unless the server answers and accepts the login."""
        self._call("ping")

    def songs(self) -> Iterator[ServerSong]:
        """Yield every song of the server once, in its order.

        They are found by a search for nothing, which lists all; where a server answers nothing to that, by its albums.
        """
        empty = True
        for song in _once(self._searched()):
            empty = False
            yield song
        if empty:
            yield from _once(self._of_albums())

    def playlists(self) -> list[ServerPlaylist]:
        """The playlists that the user can see."""
        entries = _list(_dict(self._call("getPlaylists").get("playlists")).get("playlist"))
        return [found for entry in entries if (found := playlist_from(entry)) is not None]

    def playlist_songs(self, playlist: str) -> list[ServerSong]:
        """The songs of a playlist, in order.  Raises SubsonicError if there is none of that id."""
        entries = _list(_dict(self._call("getPlaylist", id=playlist).get("playlist")).get("entry"))
        return [found for entry in entries if (found := song_from(entry)) is not None]

    def create_playlist(self, name: str, songs: Sequence[str]) -> None:
        """Make a playlist of the songs with these ids, in order.  Servers accept several playlists of a name."""
        self._call("createPlaylist", retry=False, name=name, songId=list(songs))

    def replace_playlist(self, playlist: str, name: str, songs: Sequence[str]) -> None:
        """Replace the songs of a playlist, given by its id, and its name."""
        self._call("createPlaylist", retry=False, playlistId=playlist, name=name, songId=list(songs))

    def delete_playlist(self, playlist: str) -> None:
        """Delete a playlist, given by its id."""
        self._call("deletePlaylist", retry=False, id=playlist)

    def download(
        self, song: str, file: BinaryIO, *, most_bytes: int, stopped: Callable[[], bool] = lambda: False
    ) -> int:
        """Write the original file of a song to `file`, and return the number of bytes.

        `stopped`: asked now and then whether to give up.  Raises SongGone, or SubsonicError if the file is larger than
        `most_bytes`, ends early, or cannot be had.
        """
        try:
            return self._download("download", {"id": song}, file, most_bytes, stopped)
        except _Refused as error:
            if error.code not in (MISSING_PARAMETER, NOT_ALLOWED, 0):
                raise
        # A user without the right to download can often listen.
        return self._download("stream", {"id": song, "format": "raw"}, file, most_bytes, stopped)

    # -- HTTP

    def _searched(self) -> Iterator[dict[str, Any]]:
        return self._pages(lambda first: _list(_dict(self._call(
            "search3", query="", artistCount=0, albumCount=0, songCount=PAGE, songOffset=first,
        ).get("searchResult3")).get("song")))

    def _of_albums(self) -> Iterator[dict[str, Any]]:
        albums = self._pages(lambda first: _list(_dict(self._call(
            "getAlbumList2", type="alphabeticalByName", size=PAGE, offset=first,
        ).get("albumList2")).get("album")))
        for album in albums:
            try:
                yield from _list(_dict(self._call("getAlbum", id=album.get("id", "")).get("album")).get("song"))
            except SongGone:             # the library changed meanwhile
                continue

    def _pages(self, read: Callable[[int], list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        """Entries of all pages; stops at a page that brings nothing new, as from a server that ignores the offset."""
        seen: set[str] = set()
        first = 0
        while page := read(first):
            known = len(seen)
            seen |= {str(entry.get("id")) for entry in page}
            if len(seen) == known:
                return
            if len(seen) > MOST_SONGS:
                raise SubsonicError(f"{self.address}: lists more than {MOST_SONGS:,} songs. Check the server")
            yield from page
            first += len(page)

    def _call(self, method: str, *, retry: bool = True, **parameters: Any) -> dict[str, Any]:
        """The `subsonic-response` to a call.  Raises SubsonicError, also where the server reports a failure."""
        return self._with_login(lambda: self._http.tried(lambda: self._answer(method, parameters), retry=retry))

    def _with_login(self, call: Callable[[], Any]) -> Any:
        """The result of a call, by a token or else by the password itself."""
        try:
            return call()
        except _Refused as error:
            if error.code not in NO_TOKENS or self._sends_password:
                raise
            if not (self.is_private or self.insecure):
                raise InputError(
                    f"{self.address}: wants the password itself rather than a token, and others on the network could read it. "
                    "Use the server's https address, or allow it with --insecure"
                ) from error
        self._sends_password = True
        try:
            return call()
        except _Refused as error:
            if error.code in NO_TOKENS:  # the login was not what the server refused
                self._sends_password = False
            raise

    def _login(self) -> dict[str, str]:
        form = {"f": "json", "c": CLIENT, "u": self.user}
        if self._sends_password:
            return form | {"v": OLD_VERSION, "p": f"enc:{self._password.encode().hex()}"}
        salt = secrets.token_hex(8)
        token = hashlib.md5((self._password + salt).encode(), usedforsecurity=False).hexdigest()
        return form | {"v": VERSION, "s": salt, "t": token}

    def _request(self, method: str, parameters: dict[str, Any]) -> AbstractContextManager[httpx2.Response]:
        """The open response to a POST.  Raises Busy, and SubsonicError for a status that is not 200."""
        return self._http.opened("POST", f"/rest/{method}.view", data=self._login() | parameters)

    def _answer(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        with self._request(method, parameters) as response:
            return self._read_answer(response)

    def _read_answer(self, response: httpx2.Response) -> dict[str, Any]:
        try:
            found = json.loads(self._http.body(response))["subsonic-response"]
            status = found["status"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SubsonicError(
                f"{self.address}: answers with {kind_of_answer(response)} rather than as a Subsonic server. Check the address: "
                "it is the one before `/rest`, without a page's path"
            ) from error
        if status != "ok":
            raise self._refusal(_dict(found.get("error")))
        return found

    def _refusal(self, error: dict[str, Any]) -> SubsonicError:
        code = error.get("code")
        said = (text(error.get("message")) or "without a reason")[:300]
        if code == WRONG_LOGIN:
            return SubsonicError(f"{self.address}: refuses the login of {self.user} ({said}). Check user and password")
        if code == NOT_FOUND:
            return SongGone(f"{self.address}: has no such item ({said}). Run `tonelake ingest subsonic` again")
        if code == NOT_ALLOWED:
            return _Refused(f"{self.address}: {self.user} may not do this ({said}). Check the user's rights there", code)
        return _Refused(f"{self.address}: reports an error ({said}). Look into the server's log", code)

    def _download(
        self, method: str, parameters: dict[str, Any], file: BinaryIO, most_bytes: int, stopped: Callable[[], bool]
    ) -> int:
        begin = file.tell()

        def write() -> int:
            file.seek(begin)
            file.truncate()
            with self._request(method, parameters) as response:
                kind = response.headers.get("content-type", "")
                if kind.startswith(("application/json", "text/", "application/xml")):        # a refusal, or a page
                    self._read_answer(response)
                    raise SubsonicError(f"{self.address}: sends an answer without the file. Check the server")
                stated = response.headers.get("content-length", "")
                expected = int(stated) if stated.isdigit() and "content-encoding" not in response.headers else None
                written = 0
                for block in response.iter_bytes(BLOCK_BYTES):
                    written += len(block)
                    if max(written, expected or 0) > most_bytes:
                        raise SubsonicError(
                            f"{self.address}: the file has {max(written, expected or 0):,} bytes, and the cache holds "
                            f"{most_bytes:,}. Give it more with --cache-gb"
                        )
                    if stopped():
                        raise SubsonicError(f"{self.address}: the download was stopped. Run it again")
                    file.write(block)
                if expected is not None and written != expected:
                    raise Busy(f"sends {written:,} of {expected:,} bytes of a file. Run it again")
                return written

        return self._with_login(lambda: self._http.tried(write))


class _Refused(SubsonicError):
    """The server reports a failure, with a code of Subsonic."""

    def __init__(self, message: str, code: Any) -> None:
        super().__init__(message)
        self.code = code


def _once(entries: Iterator[dict[str, Any]]) -> Iterator[ServerSong]:
    """Songs among entries, each id once."""
    seen: set[str] = set()
    for entry in entries:
        song = song_from(entry)
        if song is not None and song.id not in seen:
            seen.add(song.id)
            yield song


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[dict[str, Any]]:
    """The entries of a list that are objects; one object alone counts as a list of one, as some servers send it."""
    entries = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]
