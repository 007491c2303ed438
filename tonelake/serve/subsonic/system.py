"""Calls about the service itself, and those that a lake has nothing for: plays, stars, playlists and the like.

The service is read-only.  What a player reports on its own, such as a scrobble, is accepted and ignored, so that it goes on
playing; what a user asks to change is refused with code 50.
"""

from __future__ import annotations

from typing import Any

from tonelake.serve.subsonic.auth import DEFAULT_USER
from tonelake.serve.subsonic.forms import Code, Refused
from tonelake.serve.subsonic.library import Library
from tonelake.serve.subsonic.parameters import Parameters

EXTENSIONS = ("apiKeyAuthentication", "formPost", "sonicSimilarity")
FOLDER = {"id": 1, "name": "tonelake"}   # the one music folder
ROLES = {
    "scrobblingEnabled": False, "adminRole": False, "settingsRole": False, "downloadRole": True, "uploadRole": False,
    "playlistRole": False, "coverArtRole": False, "commentRole": False, "podcastRole": False, "streamRole": True,
    "jukeboxRole": False, "shareRole": False, "videoConversionRole": False,
}
# Calls for things that lakes do not have: the element of the answer, empty.
EMPTY: dict[str, dict[str, Any]] = {
    "getPlaylists": {"playlists": {"playlist": []}},
    "getStarred": {"starred": {"artist": [], "album": [], "song": []}},
    "getStarred2": {"starred2": {"artist": [], "album": [], "song": []}},
    "getNowPlaying": {"nowPlaying": {"entry": []}},
    "getTopSongs": {"topSongs": {"song": []}},
    "getBookmarks": {"bookmarks": {"bookmark": []}},
    "getPlayQueue": {},
    "getPlayQueueByIndex": {},
    "getPodcasts": {"podcasts": {"channel": []}},
    "getNewestPodcasts": {"newestPodcasts": {"episode": []}},
    "getInternetRadioStations": {"internetRadioStations": {"internetRadioStation": []}},
    "getShares": {"shares": {"share": []}},
    "getVideos": {"videos": {"video": []}},
    "getChatMessages": {"chatMessages": {"chatMessage": []}},
    "getLyrics": {"lyrics": {"value": ""}},
    "getLyricsBySongId": {"lyricsList": {"structuredLyrics": []}},
    "getAlbumInfo": {"albumInfo": {}},
    "getAlbumInfo2": {"albumInfo": {}},
    "scrobble": {},
    "reportPlayback": {},
    "savePlayQueue": {},
    "savePlayQueueByIndex": {},
}
ABSENT = ("getPlaylist", "getCoverArt", "getAvatar", "getPodcastEpisode", "getCaptions", "getVideoInfo")
CHANGES = (
    "createPlaylist", "updatePlaylist", "deletePlaylist", "star", "unstar", "setRating", "createShare", "updateShare",
    "deleteShare", "createPodcastChannel", "deletePodcastChannel", "deletePodcastEpisode", "downloadPodcastEpisode",
    "refreshPodcasts", "jukeboxControl", "createInternetRadioStation", "updateInternetRadioStation",
    "deleteInternetRadioStation", "addChatMessage", "createUser", "updateUser", "deleteUser", "changePassword",
    "createBookmark", "deleteBookmark", "startScan", "getUsers",
)


def ping(library: Library, given: Parameters) -> dict[str, Any]:
    return {}


def get_license(library: Library, given: Parameters) -> dict[str, Any]:
    return {"license": {"valid": True}}


def get_extensions(library: Library, given: Parameters) -> dict[str, Any]:
    """Answered without a login, so that a client can choose a way to log in."""
    return {"openSubsonicExtensions": [{"name": name, "versions": [1]} for name in EXTENSIONS]}


def get_music_folders(library: Library, given: Parameters) -> dict[str, Any]:
    return {"musicFolders": {"musicFolder": [FOLDER]}}


def get_user(library: Library, given: Parameters) -> dict[str, Any]:
    return {"user": {"username": given.needed("username"), **ROLES, "folder": [FOLDER["id"]]}}


def token_info(library: Library, given: Parameters) -> dict[str, Any]:
    return {"tokenInfo": {"username": given.get("u", DEFAULT_USER)}}


def get_scan_status(library: Library, given: Parameters) -> dict[str, Any]:
    return {"scanStatus": {"scanning": False, "count": len(library.shelves().catalogue)}}


def nothing_of(name: str) -> dict[str, Any]:
    """Return the answer of a call that lakes have nothing for.  Raises Refused for one that names a thing, or changes one."""
    if name in EMPTY:
        return EMPTY[name]
    if name in ABSENT:
        raise Refused(Code.NOT_FOUND, f"{name}: not found. A lake has no such data")
    if name in CHANGES:
        raise Refused(Code.FORBIDDEN, f"{name}: not allowed. This service is read-only")
    raise Refused(Code.GENERIC, f"{name[:40]!r}: not a call that this service offers")
