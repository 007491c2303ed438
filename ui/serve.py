"""Start the app: Streamlit on the loopback address by default, with telemetry off."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tonelake.store import InputError, require_extra

APP = Path(__file__).parent / "app.py"           # the script that Streamlit runs for every visitor and interaction


def serve_app(lake_uri: str, *, port: int = 8501, address: str = "127.0.0.1", browser: bool = True) -> None:
    """Serve the lake until interrupted.  Raises InputError if the address cannot be bound."""
    for library in ("streamlit", "starlette", "plotly"):
        require_extra(library, "ui", "the app")
    import streamlit as st
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from streamlit.runtime.pages_manager import PagesManager

    from tonelake.ui.frame import MOVED, PAGES, THEME
    from tonelake.ui.index_page import index_routes
    from tonelake.ui.opened import LAKE_VARIABLE
    from tonelake.ui.routes import routes

    # app.py lists the pages.  Without this, a first visit to an address such as /map would run that page alone, without app.py.
    PagesManager.uses_pages_directory = False
    port = free_port(address, port)
    os.environ[LAKE_VARIABLE] = lake_uri
    # Against DNS rebinding: a foreign page that resolves its own name to this address sends its own Host header.
    hosts = ["*"] if address in ("0.0.0.0", "::") else ["localhost", "127.0.0.1", "[::1]", address]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    server = st.App(APP, routes=[*routes(), *index_routes([*PAGES, *MOVED])], middleware=[guard])
    print(f"tonelake: {lake_uri} at http://{address}:{port}  (Ctrl-C to stop)", flush=True)
    server.run(config=THEME | {
        "server.address": address, "server.port": port, "server.headless": not browser,
        "browser.gatherUsageStats": False, "browser.serverAddress": address, "client.toolbarMode": "viewer",
        "server.fileWatcherType": "none", "server.maxUploadSize": 200,
        "client.showErrorDetails": "none",       # a sentence in the browser; the traceback goes to the terminal
        "client.showErrorLinks": False,          # they lead to other hosts
    })


def free_port(address: str, port: int) -> int:
    """Return `port` if it is free, or any free port for 0.  Raises InputError if it is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {address}:{port}: {error.strerror or error}. Choose another --port, or 0 for any free one"
            ) from error
        return probe.getsockname()[1]
