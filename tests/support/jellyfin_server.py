"""A small HTTP server that lists songs in the form that Jellyfin documents (getItems and getUsers of https://api.jellyfin.org/).

    server = JellyfinLibrary(items)                                 # `item(...)` makes one
    JellyfinServer(ADDRESS, key=KEY, transport=server.transport())  # no port, no thread
    with server.running() as address: ...                           # on a free port of the loopback, for other processes

Not Jellyfin itself: names of parameters are compared without case, pages, users and the header of the key are handled as
documented, and anything else is refused.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2

ADDRESS, KEY = "http://localhost:8096", "0123456789abcdef0123456789abcdef"
USERS = ({"Name": "Ada", "Id": uuid.uuid5(uuid.NAMESPACE_DNS, "ada").hex},)
Answer = Callable[[str, dict[str, str]], tuple[int, Any] | None]         # (path, query) -> (status, content); None: as usual


def identity(name: str) -> str:
    """The id of an item or artist, as Jellyfin writes ids."""
    return uuid.uuid5(uuid.NAMESPACE_URL, name).hex


def item(path: str, title: str, artists: list[str], **more: Any) -> dict[str, Any]:
    """An item of the type Audio; `more`: further fields."""
    pairs = [{"Name": name, "Id": identity(name)} for name in artists]
    return {
        "Name": title, "Id": identity(path), "Type": "Audio", "MediaType": "Audio", "IsFolder": False, "Path": path,
        "Artists": artists, "ArtistItems": pairs, "AlbumArtists": pairs[:1], "AlbumArtist": next(iter(artists), None),
        "RunTimeTicks": 20_000_000, "Genres": ["Jazz"], "ProductionYear": 1959, "IndexNumber": 1,
    } | more


class JellyfinLibrary:
    """The server: its items, and the requests that it was sent."""

    def __init__(self, items: list[dict[str, Any]], answer: Answer = lambda path, query: None) -> None:
        self.items, self.answer = items, answer
        self.requests: list[tuple[str, dict[str, str]]] = []

    def respond(self, target: str, header: str) -> tuple[int, Any]:
        """(status, content) of the answer to a GET."""
        parts = urlsplit(target)
        query = {name.lower(): value for name, value in parse_qsl(parts.query)}
        self.requests.append((parts.path, query))
        if (found := self.answer(parts.path, query)) is not None:
            return found
        if not header.startswith("MediaBrowser ") or f'Token="{KEY}"' not in header:
            return 401, {}
        if parts.path == "/Users":
            return 200, list(USERS)
        if parts.path != "/Items" or (query["includeitemtypes"], query["recursive"]) != ("Audio", "true"):
            return 404, {}
        if query.get("userid", USERS[0]["Id"]) != USERS[0]["Id"]:
            return 404, {}
        first, count = int(query["startindex"]), int(query["limit"])
        left_out = {"Path", "Genres"} - set(query["fields"].split(","))
        page = [
            {name: value for name, value in one.items() if name not in left_out} if isinstance(one, dict) else one
            for one in self.items[first : first + count]
        ]
        return 200, {"Items": page, "TotalRecordCount": len(self.items), "StartIndex": first}

    def transport(self) -> httpx2.MockTransport:
        """A transport that asks this server without a connection."""

        def handle(request: httpx2.Request) -> httpx2.Response:
            assert request.method == "GET" and KEY not in str(request.url)
            return response(*self.respond(str(request.url), request.headers.get("authorization", "")))

        return httpx2.MockTransport(handle)

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve on a free port of the loopback while the context is open; yields the address."""
        library = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = response(*library.respond(self.path, self.headers.get("Authorization", "")))
                self.send_response(found.status_code)
                for name, value in found.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(found.content)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def response(status: int, content: Any) -> httpx2.Response:
    """A response of JSON, of a page for a text, or a redirect for a tuple of one address."""
    if isinstance(content, tuple):
        return httpx2.Response(status, headers={"location": content[0]})
    if isinstance(content, str):
        return httpx2.Response(status, content=content.encode(), headers={"content-type": "text/html"})
    return httpx2.Response(status, content=json.dumps(content).encode(), headers={"content-type": "application/json"})
