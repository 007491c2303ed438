"""The artists of music servers: the ids that each server gives to them, by which plugins ask.

    lake.servers.set_artists("http://localhost:4533", {"ar-1": "Ada Lark"})       # by the ingest of the server
    lake.servers.artists("http://localhost:4533")                                  # {"ar-1": "Ada Lark"}

One small JSON file a server in `servers/`.  Ids of songs are in the table of files (`store.files`).  Lakes of older releases
lack the folder, which reads as no artists.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from tonelake.store.blobs import Blobs
from tonelake.store.errors import LakeError


class Servers:
    """The music servers of a lake: the ids that they give to artists."""

    def __init__(self, files: Blobs) -> None:
        self._files = files

    def set_artists(self, server: str, artists: Mapping[str, str]) -> None:
        """Store the names of a server's artists by their ids there, in place of those stored before; {} deletes them.

        Where several artists have one name, the first is the one whose id answers have.  Raises LakeError if the file cannot be
        written.
        """
        name = file_name(server)
        if not artists:
            self._files.remove(name)
            return
        text = json.dumps({"server": server, "artists": dict(artists)}, indent=0)
        if self._files.read(name) != text:
            self._files.put_text(name, text)

    def artists(self, server: str) -> dict[str, str]:
        """Names of a server's artists by their ids there, in the stored order.  Raises LakeError if the file is damaged."""
        name = file_name(server)
        text = self._files.read(name)
        if text is None:
            return {}
        try:
            found = json.loads(text)["artists"]
            if not all(isinstance(one, str) for one in found.values()):
                raise TypeError("names have to be texts")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LakeError(
                f"{self._files.uri}/{name}: is not a list of artists ({error}). Delete it and ingest {server} again"
            ) from error
        return dict(found)

    def stamp(self, server: str) -> str | None:
        """A text that changes when the artists of a server do; None without any."""
        return self._files.stamp(file_name(server))


def file_name(server: str) -> str:
    """Name of the file of a server.

    >>> file_name("http://localhost:4533")
    '3ab01fdb33db17ad.json'
    """
    return f"{hashlib.blake2b(server.encode(), digest_size=8).hexdigest()}.json"
