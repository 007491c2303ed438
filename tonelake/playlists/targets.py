"""Choose a playlist's songs and hand them to where it goes: a file, a music server, or MPD."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tonelake.playlists.choose import SongList, choose_songs
from tonelake.playlists.files import FilePlayer, playlist_file, write_m3u
from tonelake.playlists.request import PlaylistRequest
from tonelake.store import InputError, Lake

if TYPE_CHECKING:
    from tonelake.ingest import SubsonicServer


@dataclass(frozen=True, kw_only=True)
class Made:
    """A playlist that was made."""

    songs: SongList
    where: str                           # a sentence: what was made, and of how many songs


def is_mpd(to: str) -> bool:
    """Whether a target is MPD: `mpd`, or an address that begins with mpd://."""
    return to == "mpd" or to.startswith("mpd://")


def make_file(
    lake: Lake, name: str, request: PlaylistRequest, *, out: Path | None = None, relative: bool = False,
    replace: bool = False,
) -> Made:
    """Make a playlist as a file, by default NAME.m3u8 in the current folder."""
    file = playlist_file(name, out)
    if os.path.lexists(file) and not replace:            # before songs are chosen, which takes longer
        raise InputError(f"{file}: exists. Replace it with --replace, or choose another name or --out")
    songs = choose_songs(lake, request, FilePlayer())
    write_m3u(file, name, songs.entries, relative=relative, replace=replace)
    return Made(songs=songs, where=f"{file}: {len(songs.entries)} songs")


def make_on_server(
    lake: Lake, name: str, request: PlaylistRequest, *, server: str | SubsonicServer, user: str | None = None,
    replace: bool = False, insecure: bool = False, ask: Callable[[str], str] | None = None,
) -> Made:
    """Make a playlist on a music server that speaks Subsonic, as the user's own.

    `server`: its address, or a client for it.  `user`, `insecure`, `ask`: as for `SubsonicServer`; without `user` it is the one
    of the last `ingest subsonic`.
    """
    from tonelake.ingest import SubsonicServer, server_address
    from tonelake.playlists.subsonic import SubsonicPlayer, last_user

    with ExitStack() as stack:
        if isinstance(server, str):
            if lake.ingests.find("jellyfin", server_address(server)) is not None:
                raise InputError(
                    f"{server}: is a Jellyfin server, which reads playlists from its music folder. Write one there with --out"
                )
            known = last_user(lake, server)
            server = stack.enter_context(SubsonicServer(server, user=user, insecure=insecure, ask=ask, known_user=known))
        player = SubsonicPlayer(lake, server)
        existing = player.existing(name, replace=replace)
        songs = choose_songs(lake, request, player)
        player.save(name, songs.entries, existing)
        verb = "made" if existing is None else "replaced"
        return Made(songs=songs, where=f"{name}: {verb} on {server.address}, {len(songs.entries)} songs")


def make_in_mpd(
    lake: Lake, name: str, request: PlaylistRequest, *, to: str = "mpd", music: Path | None = None, replace: bool = False,
    play: bool = False, save: bool = False,
) -> Made:
    """Add a playlist's songs to MPD's queue; with `replace` they take the place of what is in it.

    `play`: start with the first of them.  `save`: also store them in MPD as the playlist NAME.
    """
    from tonelake.playlists.mpd import mpd_player

    with mpd_player(to, music=music) as player:
        stored = player.check_stored(name, replace=replace) if save else None
        songs = choose_songs(lake, request, player)
        kept = "" if stored is None else f"; {player.store(stored, songs.entries)} stored as its playlist {stored}"
        count = player.queue(songs.entries, replace=replace, play=play)
        verb = "in its queue, which was replaced" if replace else "added to its queue"
        refused = f"; {len(songs.entries) - count} may not be read by it" if count < len(songs.entries) else ""
        return Made(songs=songs, where=f"MPD at {player.address}: {count} songs {verb}{refused}{kept}")
