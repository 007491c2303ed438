"""The music servers that were ingested on this machine, with their users, and the bound of the cache.

    <cache folder>/subsonic/settings.json

Only servers in it are sent a login without being named in a command.  A lake from somewhere else can name any server as a
source, which must not make this machine send a login there.
"""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tonelake.store import InputError, cache_folder, exclusive_lock

FOLDER = "subsonic"
SETTINGS = "settings.json"
MOST_BYTES = 10 * 10**9                  # of the cache, unless the file says otherwise
_lock = threading.Lock()                 # one thread a process changes the folder


@dataclass(frozen=True)
class Settings:
    """The content of `settings.json`."""

    most_bytes: int = MOST_BYTES
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)         # by address: user, and whether it is insecure

    def user(self, address: str) -> str | None:
        """The user that was used last with a server; None for one that was never ingested here."""
        return str(self.servers.get(address, {}).get("user") or "") or None

    def of_server(self, address: str, kind: str, *, name: str | None = None) -> dict[str, Any]:
        """Return the user and the choices for a server that was ingested on this machine.  Raises InputError for any other.

        `kind`: name of the command that ingests it; `name`: in this file, by default the address.
        """
        about = self.servers.get(name or address)
        if about is None:
            raise InputError(
                f"{address}: was never ingested on this machine, so nothing is sent there. If you trust it, run "
                f"`tonelake ingest {kind} {address}`"
            )
        return about


def folder() -> Path:
    """The folder of the settings and the cache.  Not created here."""
    return cache_folder() / FOLDER


def read_settings() -> Settings:
    """The settings of this machine; the defaults where the file is absent or damaged."""
    try:
        found = json.loads((folder() / SETTINGS).read_text(encoding="utf-8"))
        servers = {str(name): dict(about) for name, about in found["servers"].items()}
        return Settings(int(found["most_bytes"]), servers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Settings()


def remember_server(address: str, user: str, *, insecure: bool = False, most_bytes: int | None = None) -> None:
    """Note a server, so that its songs may be downloaded from now on, and the bound of the cache unless it is None.

    Raises InputError if the folder cannot be written.
    """
    with writing():
        found = read_settings()
        servers = found.servers | {address: {"user": user, "insecure": insecure}}
        wanted = Settings(most_bytes or found.most_bytes, servers)
        if wanted != found:
            part = folder() / f".{SETTINGS}.{uuid.uuid4().hex}.tmp"
            part.write_text(json.dumps(asdict(wanted), indent=1), encoding="utf-8")
            part.replace(folder() / SETTINGS)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Hold the lock of the folder, which is made if absent.  Raises InputError if it cannot be written."""
    try:
        (folder() / "files").mkdir(parents=True, exist_ok=True)
        with _lock, exclusive_lock(folder() / ".lock"):
            yield
    except OSError as error:
        raise InputError(
            f"{folder()}: cannot be written ({error.strerror or error}). Free some space, or name another folder with "
            "TONELAKE_CACHE"
        ) from error
