"""Ingest the library of a Jellyfin server, as a sync: its songs are matched to files of the lake (`subsonic.sync`).

Ids of songs and artists are stored, so that the service answers Jellyfin's plugins by them.  A song without a match whose path
leads to a file below the music folder is ingested from there; others are reported.  Nothing is downloaded.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from tonelake.ingest.jellyfin.client import JellyfinServer
from tonelake.ingest.segment import Cut
from tonelake.ingest.subsonic.login import Ask
from tonelake.ingest.subsonic.settings import read_settings, remember_server
from tonelake.ingest.subsonic.sync import ServerReport, checked_folder, sync_library
from tonelake.store import InputError, Lake

KIND = "jellyfin"                        # of the record of ingests


def ingest_jellyfin(
    lake: Lake, server: str | JellyfinServer, *, user: str | None = None, music: str | Path | None = None,
    seconds: float | None = 30.0, hop: float | None = None, per_track: int | None = None, dataset: str | None = None,
    insecure: bool = False, ask: Ask | None = None, workers: int | None = None,
) -> ServerReport:
    """Bring the lake in step with the music of a Jellyfin server, as the module says.

    `server`: its address, or a client for it.  `user`, `insecure`, `ask`: as for `JellyfinServer`; the API key is not stored.
    `music`: folder of the server's music on this disk; files outside it are never opened.
    `seconds`, `hop`, `per_track`, `dataset`: as for `ingest_folder`.
    Raises InputError, before anything is written, for unusable arguments or a server without songs; JellyfinError if the server
    cannot be reached or refuses the key.
    """
    cut = Cut(seconds, hop, per_track)
    folder = checked_folder(music)
    lake.check_writable()
    with ExitStack() as stack:
        if isinstance(server, str):
            server = stack.enter_context(JellyfinServer(server, user=user, insecure=insecure, ask=ask))
        songs = list(server.songs())
        if not songs:
            raise InputError(
                f"{server.address}: lists no songs. Wait until Jellyfin has scanned its music; nothing was changed"
            )
        remember_server(machine_name(server.address), server.user or "", insecure=server.insecure)
        lake.ingests.record(KIND, server.address, {
            "user": server.user, "music": None if folder is None else str(folder), "seconds": seconds, "hop": hop,
            "per_track": per_track, "dataset": dataset,
        })
        return sync_library(
            lake, server, songs, folder, cut, dataset=dataset, workers=workers,
            absent="is not in the lake, and songs are not downloaded from Jellyfin: ingest its file, or name the music folder "
            "with --music",
        )


def repeat_jellyfin(
    lake: Lake, address: str, *, user: str | None = None, music: str | None = None, seconds: float | None = 30.0,
    hop: float | None = None, per_track: int | None = None, dataset: str | None = None, workers: int | None = None,
) -> ServerReport:
    """Run a recorded ingest again.

    Raises InputError for a server that was never ingested on this machine: a lake is a file that anybody may have written, and
    must not choose where a key is sent.  `user` is that of the machine too.
    """
    about = read_settings().of_server(address, KIND, name=machine_name(address))
    with JellyfinServer(
        address, user=str(about.get("user") or "") or None, insecure=about.get("insecure") is True
    ) as server:
        return ingest_jellyfin(
            lake, server, music=music, seconds=seconds, hop=hop, per_track=per_track, dataset=dataset, workers=workers
        )


def machine_name(address: str) -> str:
    """The name of a server in the settings of this machine: none to which a login for Subsonic is sent.

    >>> machine_name("http://localhost:8096")
    'jellyfin:http://localhost:8096'
    """
    return f"{KIND}:{address}"
