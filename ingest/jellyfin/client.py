"""A Jellyfin server and an API key for it: its songs.

    with JellyfinServer("http://localhost:8096") as server:
        for song in server.songs(): ...

The key is read from TONELAKE_JELLYFIN_KEY, and sent as the header `Authorization: MediaBrowser Token="…"`, never in an address.
It opens the whole server, so it is only sent where the connection is private or `insecure` is set.
Interface: https://api.jellyfin.org/, operations getItems and getUsers
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from tonelake.ingest.jellyfin.items import item_id, song_of_item
from tonelake.ingest.subsonic.connection import CLIENT, Connection, ServerError, kind_of_answer
from tonelake.ingest.subsonic.login import Ask, is_private_connection, server_address
from tonelake.ingest.subsonic.songs import ServerSong, text
from tonelake.store import InputError

if TYPE_CHECKING:
    import httpx2

KEY_VARIABLE = "TONELAKE_JELLYFIN_KEY"
EXAMPLE = "http://localhost:8096"
PAGE = 500                               # songs asked for at once
MOST_SONGS = 5_000_000
KEY = re.compile(r"[!-~]{1,512}")        # printable ASCII without spaces
PAGES = re.compile(r"/web(/index\.html)?/?(#.*)?$")      # the end of an address that is copied from a browser


class JellyfinError(ServerError):
    """A Jellyfin server cannot be reached, refuses a call, or answers something else than Jellyfin."""


class JellyfinServer:
    """One server and an API key for it.  A context manager."""

    def __init__(
        self, url: str, *, user: str | None = None, key: str | None = None, insecure: bool = False, ask: Ask | None = None,
        transport: httpx2.BaseTransport | None = None, sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`user`: list what this user may see; None: all that the server has.  `key`: instead of TONELAKE_JELLYFIN_KEY.

        `insecure`: send the key over a connection that others can read.  `ask`: asks for the key, given a prompt.
        `transport`: of httpx2, for tests.  Raises InputError for an unusable address or key; nothing is sent yet.
        """
        self.address = server_address(PAGES.sub("", url.strip()), example=EXAMPLE, secret=KEY_VARIABLE)
        self.user, self.insecure = user, insecure
        self.is_private = is_private_connection(self.address)
        if not (self.is_private or insecure):
            raise InputError(
                f"{self.address}: the connection is not encrypted, so others on the network could read the API key. Use the "
                "server's https address, or allow it with --insecure"
            )
        self._key = key_for(self.address, key, ask)
        refused = "refuses the API key (status {}). Make one in Jellyfin's dashboard, under API Keys, and set " + KEY_VARIABLE
        self._http = Connection(self.address, error=JellyfinError, transport=transport, sleep=sleep, refusals={
            400: "refuses the request (status 400). " + (
                "Name a user of the server with --user, which older versions need" if user is None else "Look into its log"
            ),
            401: refused.format(401), 403: refused.format(403),
            404: "has no Jellyfin there. Check the address: it is the one before `/web`",
        })

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"JellyfinServer({self.address!r}, user={self.user!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def songs(self) -> Iterator[ServerSong]:
        """Yield every song of the server once, in its order.

        Raises JellyfinError if the server cannot be asked, InputError if it has no user of this name.
        """
        chosen = {} if self.user is None else {"userId": self._user_id(self.user)}
        seen: set[str] = set()
        songs: set[str] = set()
        first = 0
        while items := self._items(first, chosen):
            known = len(seen)
            seen |= {str(item.get("Id") if isinstance(item, dict) else item) for item in items}
            if len(seen) == known:       # a server that ignores the offset
                return
            for song in filter(None, map(song_of_item, items)):
                if song.id not in songs:
                    songs.add(song.id)
                    yield song
            if len(seen) > MOST_SONGS:
                raise JellyfinError(f"{self.address}: lists more than {MOST_SONGS:,} songs. Check the server")
            first += len(items)

    def _items(self, first: int, chosen: dict[str, str]) -> list[Any]:
        """One page of items."""
        found = self._get("/Items", {
            "includeItemTypes": "Audio", "recursive": "true", "fields": "Path,Genres", "sortBy": "DateCreated,SortName",
            "enableImages": "false", "enableUserData": "false", "startIndex": str(first), "limit": str(PAGE), **chosen,
        })
        items = found.get("Items") if isinstance(found, dict) else None
        if not isinstance(items, list):
            raise JellyfinError(f"{self.address}: answers without a list of items. Check that it is a Jellyfin server")
        return items

    def _user_id(self, user: str) -> str:
        """The id of a user by its name, in any case."""
        found = self._get("/Users", {})
        users = {
            name.casefold(): (name, identity) for one in (found if isinstance(found, list) else []) if isinstance(one, dict)
            if (name := text(one.get("Name"))) is not None and (identity := item_id(one.get("Id"))) is not None
        }
        if user.casefold() not in users:
            names = ", ".join(sorted(name for name, _ in users.values())[:10]) or "none"
            raise InputError(f"{user}: is not a user of {self.address}. Choose one with --user; there are {names}")
        return users[user.casefold()][1]

    def _get(self, path: str, parameters: dict[str, str]) -> Any:
        """The JSON that a path answers with."""
        header = {"Authorization": f'MediaBrowser Token="{urllib.parse.quote(self._key)}", Client="{CLIENT}"'}

        def answer() -> Any:
            with self._http.opened("GET", path, params=parameters, headers=header) as response:
                body = self._http.body(response)
                try:
                    return json.loads(body)
                except (ValueError, RecursionError) as error:
                    raise JellyfinError(
                        f"{self.address}: answers with {kind_of_answer(response)} rather than as Jellyfin. Check the address: "
                        "it is the one before `/web`"
                    ) from error

        return self._http.tried(answer)


def key_for(address: str, key: str | None = None, ask: Ask | None = None) -> str:
    """The API key: the one that is given, else TONELAKE_JELLYFIN_KEY, else it is asked for.  Raises InputError without one."""
    found = key or os.environ.get(KEY_VARIABLE)
    if not found and ask is not None:
        found = ask(f"API key of Jellyfin at {address}")
    found = (found or "").strip()
    if not found:
        raise InputError(f"{address}: no API key. Make one in Jellyfin's dashboard, under API Keys, and set {KEY_VARIABLE}")
    if not KEY.fullmatch(found):
        raise InputError(f"{KEY_VARIABLE}: holds characters that no API key has. Copy the key from Jellyfin's dashboard again")
    return found
