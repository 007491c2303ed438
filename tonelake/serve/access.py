"""Access to the service: programs of this machine have it or, where it listens on other addresses, those with its token.

On loopback a guard of the Host header keeps out pages of other sites that resolve their own name to this machine (DNS
rebinding).  The token is read from a file or the variable TONELAKE_TOKEN, never from the command line, which other users of a
machine can see.
"""

from __future__ import annotations

import ipaddress
import os
import re
import stat
from hmac import compare_digest
from pathlib import Path
from typing import TYPE_CHECKING

from tonelake.store import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_VARIABLE = "TONELAKE_TOKEN"
TOKEN = re.compile(r"[\x21-\x7e]{12,512}")
HOW = "Make one with `openssl rand -hex 16 > FILE`, and name it by --token-file FILE"
GUARDED = ("/v1/", "/api/")              # OpenSubsonic requests log in by parameters


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach an address.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "192.168.1.5", "nas")]
    [True, True, True, False, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def allowed_hosts(host: str, token: str | None) -> list[str]:
    """Return the names by which a service at this address may be asked for; all where a token guards it."""
    return ["*"] if token is not None else ["localhost", "127.0.0.1", "[::1]", "::1", host.lower()]


def read_token(file: Path | None, *, host: str) -> str | None:
    """Return the token of a file, else of TONELAKE_TOKEN; None without any on loopback.

    Raises InputError if one is needed and not given, if a file cannot be read, or if it does not hold a token.
    """
    if file is not None:
        try:
            with file.expanduser().open(encoding="utf-8") as opened:
                token, place = opened.read(1_024).strip(), f"token file {file}"
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise InputError(f"token file {file}: cannot be read ({reason}). {HOW}") from error
    else:
        token, place = os.environ.get(TOKEN_VARIABLE, "").strip(), TOKEN_VARIABLE
    if file is None and not token:
        if is_loopback(host):
            return None
        raise InputError(f"--host {host}: other machines can reach it, so a token is needed. {HOW}")
    if not TOKEN.fullmatch(token):
        raise InputError(f"{place}: not a token of 12 to 512 letters, digits and signs on one line. {HOW}")
    return token


def is_readable_by_others(file: Path) -> bool:
    """Whether other users of the machine can read a file."""
    try:
        return os.name == "posix" and bool(file.expanduser().stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except (OSError, RuntimeError):
        return False


def is_authorized(header: bytes | None, token: str) -> bool:
    """Whether an Authorization header is `Bearer TOKEN`, in a time that does not depend on where it differs.

    >>> is_authorized(b"Bearer a-long-secret", "a-long-secret"), is_authorized(b"Basic eA==", "a-long-secret")
    (True, False)
    """
    scheme, _, given = (header or b"").partition(b" ")
    return scheme.lower() == b"bearer" and compare_digest(given.strip(), token.encode())


class Access:
    """ASGI middleware: refuse requests for answers without the token, and add headers that keep answers from other sites."""

    HEADERS = ((b"cross-origin-resource-policy", b"same-origin"), (b"x-content-type-options", b"nosniff"))

    def __init__(self, app: ASGIApp, token: str | None, page_policy: str) -> None:
        """`page_policy`: the Content-Security-Policy of pages."""
        self.app, self.token = app, token
        self._headers = [*self.HEADERS, (b"content-security-policy", page_policy.encode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        path = scope["path"]
        if self.token is not None and path.startswith(GUARDED):
            header = next((value for name, value in scope["headers"] if name == b"authorization"), None)
            if not is_authorized(header, self.token):
                from starlette.responses import JSONResponse

                sentence = "authorization: missing or wrong. Send the header `Authorization: Bearer TOKEN`"
                refusal = JSONResponse({"error": sentence}, 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send_with_headers)
                return
        await self.app(scope, receive, send_with_headers)
