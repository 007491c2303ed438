"""The address of a music server, and the login for it.  Neither is stored in a lake but for the address.

The user is the one that is named, else TONELAKE_SUBSONIC_USER, else the one of this host in ~/.netrc, else `known_user`, else
the one that was used last with this server on this machine (`settings`).  The password is the one that is given, else
TONELAKE_SUBSONIC_PASSWORD, else that of the user in ~/.netrc, else it is asked for.
"""

from __future__ import annotations

import ipaddress
import netrc
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tonelake.ingest.subsonic.settings import read_settings
from tonelake.store import InputError

USER_VARIABLE = "TONELAKE_SUBSONIC_USER"
PASSWORD_VARIABLE = "TONELAKE_SUBSONIC_PASSWORD"

Ask = Callable[[str], str]               # asks for a text, given a prompt


def server_address(url: str, *, example: str = "http://localhost:4533", secret: str = PASSWORD_VARIABLE) -> str:
    """The address of a server in the form in which a lake stores it.  Raises InputError if it is not one.

    `example`, `secret`: an address and a variable that messages name.

    >>> server_address("HTTP://Music.Local:80/navidrome/rest/"), server_address("music.local:4533")
    ('http://music.local/navidrome', 'http://music.local:4533')
    """
    given = url.strip()
    if "://" not in given:
        given = f"http://{given}"
    wrong = InputError(f"{url!r}: is not the address of a server. Give one such as {example}")
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError as error:
        raise wrong from error
    if parts.scheme not in ("http", "https") or not parts.hostname or not parts.hostname.isascii():
        raise wrong
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"{parts.scheme}://{parts.hostname}: an address with a login in it is shown on screens and in logs. Leave the "
            f"login out; use --user and {secret}"
        )
    if parts.query or parts.fragment or not given.isprintable() or " " in given:
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown_port = "" if port is None or port == {"http": 80, "https": 443}[parts.scheme] else f":{port}"
    path = parts.path.rstrip("/").removesuffix("/rest").rstrip("/")
    return f"{parts.scheme}://{host}{shown_port}{path}"


def is_private_connection(address: str) -> bool:
    """Whether what is sent to a server cannot be read on the way: by https, or on this machine.

    >>> is_private_connection("https://a.org"), is_private_connection("http://[::1]:4533"), is_private_connection("http://a.org")
    (True, True, False)
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def login_for(
    address: str, user: str | None = None, password: str | None = None, *, known_user: str | None = None, ask: Ask | None = None
) -> tuple[str, str]:
    """(user, password) for a server, as the module says.  Raises InputError if one of them cannot be found."""
    host = urlsplit(address).hostname or ""
    user, password = user or os.environ.get(USER_VARIABLE), password or os.environ.get(PASSWORD_VARIABLE)
    entry = netrc_entry(host) if not (user and password) else None
    user = user or (entry[0] if entry else None) or known_user or read_settings().user(address)
    if not user:
        raise InputError(f"{address}: no user. Name one with --user, or set {USER_VARIABLE}")
    password = password or (entry[1] if entry and entry[0] in (user, "") else None)
    if not password and ask is not None:
        password = ask(f"Password of {user} at {address}")
    if not password:
        raise InputError(
            f"{address}: no password for {user}. Set {PASSWORD_VARIABLE}, or add the line `machine {host} login {user} "
            "password …` to ~/.netrc"
        )
    return user, password


def netrc_entry(host: str) -> tuple[str, str] | None:
    """(user, password) of a host in the file that NETRC names, by default ~/.netrc; None without one.

    Entries of the name `default` are not used: they would send a password to any server.  Raises InputError if the file cannot
    be read.
    """
    file = Path(os.environ.get("NETRC") or "~/.netrc")
    try:
        file = file.expanduser()
        if not file.is_file():
            return None
        found = netrc.netrc(str(file)).hosts.get(host)
    except (netrc.NetrcParseError, OSError, RuntimeError, UnicodeDecodeError) as error:
        reason = getattr(error, "msg", None) or str(error)
        raise InputError(f"{file}: cannot be read ({reason}). Correct it, or set {PASSWORD_VARIABLE}") from error
    return (found[0] or "", found[2] or "") if found else None
