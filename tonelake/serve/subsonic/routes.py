"""Routes of the OpenSubsonic interface: /rest/NAME and /rest/NAME.view by GET, POST and HEAD.

Every answer has the form that the request asks for, errors included, and the status 200; a sound is sent as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tonelake.ingest import AudioError
from tonelake.serve.answers import Answers
from tonelake.serve.audio import sound_response
from tonelake.serve.errors import RETRY_AFTER_S, sentence_of
from tonelake.serve.slots import LEFT, in_slot
from tonelake.serve.subsonic import browsing, finding, system
from tonelake.serve.subsonic.auth import Accounts, check_login
from tonelake.serve.subsonic.forms import FORMS, Code, Refused, answered, refused
from tonelake.serve.subsonic.library import Library
from tonelake.serve.subsonic.parameters import Parameters, read_parameters
from tonelake.store import ClipNotFound, InputError, SpaceNotFound, TonelakeError

SUFFIX = ".view"                         # of the names of calls, as the first servers had it
OPEN = ("getOpenSubsonicExtensions",)    # answered without a login
SOUNDS = ("stream", "download")
CALLS: dict[str, Callable[[Library, Parameters], dict[str, Any]]] = {
    "ping": system.ping,
    "getLicense": system.get_license,
    "getOpenSubsonicExtensions": system.get_extensions,
    "getMusicFolders": system.get_music_folders,
    "getUser": system.get_user,
    "tokenInfo": system.token_info,
    "getScanStatus": system.get_scan_status,
    "getArtists": browsing.get_artists,
    "getIndexes": browsing.get_indexes,
    "getMusicDirectory": browsing.get_music_directory,
    "getArtist": browsing.get_artist,
    "getAlbum": browsing.get_album,
    "getArtistInfo": browsing.get_artist_info,
    "getArtistInfo2": browsing.get_artist_info2,
    "getAlbumList": browsing.get_album_list,
    "getAlbumList2": browsing.get_album_list2,
    "getGenres": browsing.get_genres,
    "getSongsByGenre": browsing.get_songs_by_genre,
    "getRandomSongs": browsing.get_random_songs,
    "getSong": finding.get_song,
    "search2": finding.search2,
    "search3": finding.search3,
    "getSimilarSongs": finding.get_similar_songs,
    "getSimilarSongs2": finding.get_similar_songs2,
    "getSonicSimilarTracks": finding.get_sonic_similar_tracks,
    "findSonicPath": finding.find_sonic_path,
}

log = logging.getLogger("tonelake.serve")


def subsonic_router(answers: Answers, accounts: Accounts) -> APIRouter:
    """Return the routes of the interface; they check the login of each request themselves."""
    library = Library(answers)
    router = APIRouter(include_in_schema=False)

    @router.api_route("/rest", methods=["GET", "POST", "HEAD"])
    @router.api_route("/rest/{name:path}", methods=["GET", "POST", "HEAD"])
    async def call(request: Request, name: str = "") -> Response:
        try:
            given = await read_parameters(request)
        except Refused as error:
            return refused(error, FORMS[0])
        called = name.removesuffix(SUFFIX)
        found = await in_slot(request, lambda: answer(library, accounts, request, called, given), sound=called in SOUNDS)
        return Response(status_code=LEFT) if found is None else found

    return router


def answer(library: Library, accounts: Accounts, request: Request, name: str, given: Parameters) -> Response:
    """Return the answer to one call, or its error in the form that the request asks for."""
    form = "json" if given.get("f", "").startswith("json") else FORMS[0]
    try:
        form = given.form()
        if name not in OPEN:
            check_login(given, accounts)
        if name in SOUNDS:
            sound = library.answers.sound(given.needed("id"))
            return sound_response(request, library.answers.opened(), sound)
        found = CALLS[name](library, given) if name in CALLS else system.nothing_of(name)
        return answered(found, form)
    except Refused as error:
        return refused(error, form)
    except TonelakeError as error:
        return refused(refusal_of(error), form)
    except Exception:
        log.exception("the call %r failed", name)
        return refused(Refused(Code.GENERIC, "the call failed. The log of the service has the reason"), form)


def refusal_of(error: TonelakeError) -> Refused:
    """Return an error of the lake as one of the interface."""
    if isinstance(error, ClipNotFound | SpaceNotFound | AudioError):
        return Refused(Code.NOT_FOUND, sentence_of(error))
    if isinstance(error, InputError):
        return Refused(Code.GENERIC, sentence_of(error))
    return Refused(Code.GENERIC, sentence_of(error), retry_after_s=RETRY_AFTER_S)
