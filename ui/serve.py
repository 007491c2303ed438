"""Start the app: Streamlit on this machine's loopback address unless told otherwise, with its telemetry off."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from tonelake.store import InputError

APP = Path(__file__).parent / "app.py"           # the script that Streamlit runs for every visitor and click


def serve_app(lake_uri: str, *, port: int = 8501, address: str = "127.0.0.1", browser: bool = True) -> None:
    """Serve the lake until interrupted.  Raises InputError where the address cannot be listened on."""
    import streamlit as st
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from tonelake.ui.opened import LAKE_VARIABLE
    from tonelake.ui.routes import routes

    port = free_port(address, port)
    os.environ[LAKE_VARIABLE] = lake_uri
    # A page elsewhere that makes its own name point here ("DNS rebinding") asks for a host that is not ours.
    hosts = ["*"] if address in ("0.0.0.0", "::") else ["localhost", "127.0.0.1", "[::1]", address]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    server = st.App(APP, routes=routes(), middleware=[guard])
    print(f"tonelake: {lake_uri} at http://{address}:{port}  (Ctrl-C ends it)", flush=True)
    server.run(config={
        "server.address": address, "server.port": port, "server.headless": not browser,
        "browser.gatherUsageStats": False, "browser.serverAddress": address, "client.toolbarMode": "viewer",
        "server.fileWatcherType": "none", "server.maxUploadSize": 200,
        "client.showErrorDetails": "none",       # a surprise is a sentence in the browser, and whole on the terminal
    })


def free_port(address: str, port: int) -> int:
    """The port, if it is free; any free one for 0.  Raises InputError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise InputError(
                f"cannot listen on {address}:{port}: {error.strerror or error}; choose another --port, or 0 for a free one"
            ) from error
        return probe.getsockname()[1]
