"""The HTML page that starts the app: Streamlit's own, with our title and with the server's address stated.

Without it, Streamlit's script first looks for its server below the address of the page (`/map/_stcore/health`): two failed
requests, and two errors in the browser's console, for every visit to a page other than the first.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

ADDRESS = "<script>window.__streamlit = { BACKEND_BASE_URL: window.location.origin };</script>"


@cache
def index_html() -> str:
    import streamlit

    text = (Path(streamlit.__file__).parent / "static" / "index.html").read_text(encoding="utf-8")
    return text.replace("<title>Streamlit</title>", "<title>tonelake</title>").replace("</title>", f"</title>{ADDRESS}", 1)


def index(request: Request) -> Response:
    return HTMLResponse(index_html(), headers={"Cache-Control": "no-cache"})


def index_routes(addresses: list[str]) -> list[BaseRoute]:
    """Return the routes of the pages at these addresses, each without a slash, and at `/`."""
    return [Route(f"/{address}", index) for address in ("", *addresses)]
