"""Playlists on a music server that speaks Subsonic, of songs whose ids on it the lake knows (`tonelake ingest subsonic`)."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tonelake.ingest import SubsonicServer, server_address
from tonelake.playlists.entries import Entry
from tonelake.playlists.names import shown_name
from tonelake.store import InputError, Lake


def last_user(lake: Lake, server: str) -> str | None:
    """The user of the last `tonelake ingest subsonic` of a server; None if that is not known."""
    found = lake.ingests.find("subsonic", server_address(server))
    user = found.options.get("user") if found is not None else None
    return user if isinstance(user, str) else None


class SubsonicPlayer:
    """A server, and the ids on it of the lake's songs."""

    lacks = "that the server does not have"

    def __init__(self, lake: Lake, server: SubsonicServer) -> None:
        """Raises InputError if the lake knows no song of the server."""
        self.server = server
        self._ids = dict(lake.paths.served(server.address).select("source", "id").iter_rows())
        if not self._ids:
            raise InputError(
                f"{server.address}: the lake knows no song of this server. Run `tonelake ingest subsonic {server.address}`"
            )

    def may_play(self, files: pl.DataFrame) -> pl.Series:
        return files["source"].is_in(list(self._ids))

    def place(self, source: str) -> str | None:
        return self._ids.get(source)

    def existing(self, name: str, *, replace: bool) -> str | None:
        """The id of the user's own playlist of a name; None if there is none.

        Raises InputError if there is one, unless `replace`, or if there are several.
        """
        wanted = shown_name(name)
        user = self.server.user.casefold()
        own = [
            one.id for one in self.server.playlists()
            if shown_name(one.name) == wanted and (one.owner is None or one.owner.casefold() == user)
        ]
        if len(own) > 1:
            raise InputError(f"{wanted}: {len(own)} playlists of {self.server.user} have this name. Rename or delete one there")
        if own and not replace:
            raise InputError(f"{wanted}: the server has a playlist of this name. Replace it with --replace, or rename yours")
        return own[0] if own else None

    def save(self, name: str, entries: Sequence[Entry], existing: str | None) -> None:
        """Make a playlist, or replace the `existing` one, given by its id."""
        ids = [one.place for one in entries]
        if existing is None:
            self.server.create_playlist(shown_name(name), ids)
        else:
            self.server.replace_playlist(existing, shown_name(name), ids)
