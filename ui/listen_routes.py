"""HTTP routes of the Listen page: suggestions, artists, albums and values with their songs, pictures of songs, and uploads.

    /tonelake/suggest               songs, artists and albums that resemble ?q=, typing errors allowed, as JSON
    /tonelake/values                values of a ?column= that contain ?q=, with their numbers of songs
    /tonelake/albums                albums that contain ?q=, with artists and numbers of songs
    /tonelake/picture/{clip}        (column, band) uint8: the spectrum of a clip’s recording; X-Length: seconds
    /tonelake/heard                 a POST of a file's bytes embeds it; the answer has a token for ?heard=
"""

from __future__ import annotations

import threading
from collections import Counter
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tonelake import Lake
from tonelake.index import match_songs
from tonelake.shelf import albums as list_albums
from tonelake.shelf import folded_name, folded_names, match_values, value_text, values_of, word_space
from tonelake.song_picture import song_picture
from tonelake.ui.answers import HEADERS, binary, errors_as_json, whole_number
from tonelake.ui.listening.heard import receive_upload
from tonelake.ui.opened import opened_lake

SUGGESTED_SONGS, SUGGESTED_VALUES = 6, 3
NAMED = 90.0                             # score of an artist or album that contains the typed words
LONGEST_QUERY = 200                      # characters
MOST_VALUES = 500                        # in one answer
KEPT_PICTURES = 200                      # of 24 kB

_naming = threading.Lock()
_named: WeakKeyDictionary[Lake, bool] = WeakKeyDictionary()          # lakes whose names have been prepared


@errors_as_json
def suggest(request: Request) -> Response:
    lake, typed = opened_lake(), request.query_params.get("q", "").strip()[:LONGEST_QUERY]
    if not typed:                        # the box was entered: the names are made ready meanwhile
        later = BackgroundTask(prepare_names, lake)
        return JSONResponse({"songs": [], "values": [], "words": None}, 200, HEADERS, background=later)
    found = match_songs(lake, typed)[:SUGGESTED_SONGS]
    shown = Counter((song.title, song.artist, song.album) for song in found)
    songs = [
        {
            "clip_id": song.clip_id, "title": song.title, "artist": song.artist, "album": song.album,
            "file": song.file if shown[song.title, song.artist, song.album] > 1 else None,     # distinguishes equal names
        }
        for song in found
    ]
    named = match_values(lake, typed, count=SUGGESTED_VALUES)
    titled = bool(found) and folded_name(found[0].title).startswith(folded_name(typed))
    values = [
        {"column": one.column, "value": one.value, "artist": one.artist, "songs": one.songs}
        for one in named
    ]
    words = word_space(lake, typed)
    return JSONResponse({
        "songs": songs, "values": values, "words": words.name if words else None,
        "values_first": not titled and any(one.score >= NAMED for one in named),
    }, 200, HEADERS)


def prepare_names(lake: Lake) -> None:
    """Make the table of names, which takes a while in a large lake, unless that is done already."""
    with _naming:
        if not _named.get(lake):
            match_songs(lake, "names")
            _named[lake] = True


@errors_as_json
def values(request: Request) -> Response:
    lake, column = opened_lake(), request.query_params.get("column", "")
    most = whole_number(request, "most", 1, MOST_VALUES) if "most" in request.query_params else MOST_VALUES
    found = values_of(lake, column)
    wanted = folded_name(request.query_params.get("q", "")[:LONGEST_QUERY])
    if wanted:
        texts = found["value"].to_list()
        names = folded_names(lake, column) if column == "artist" else [folded_name(value_text(text)) for text in texts]
        found = found.filter(pl.Series([wanted in name for name in names], dtype=pl.Boolean))
    listed = [[value_text(value), songs] for value, songs in found.select("value", "songs").head(most).iter_rows()]
    return JSONResponse({"values": listed, "total": len(found)}, 200, HEADERS)


@errors_as_json
def albums(request: Request) -> Response:
    lake = opened_lake()
    most = whole_number(request, "most", 1, MOST_VALUES) if "most" in request.query_params else MOST_VALUES
    found, wanted = list_albums(lake), folded_name(request.query_params.get("q", "")[:LONGEST_QUERY])
    if wanted:
        found = found.filter(pl.Series([wanted in name for name in folded_names(lake, "album")], dtype=pl.Boolean))
    rows = found.select("album", "songs", "artist").head(most).rows()
    return JSONResponse({"values": rows, "total": len(found)}, 200, HEADERS)


@errors_as_json
def picture(request: Request) -> Response:
    lake = opened_lake()
    levels, length_s = picture_of(lake, lake.clips.find(request.path_params["clip"])["clip_id"])
    return binary(levels.tobytes(), **{"X-Bands": str(levels.shape[1]), "X-Length": f"{length_s:.3f}"})


@lru_cache(maxsize=KEPT_PICTURES)
def picture_of(lake: Lake, clip_id: str) -> tuple[np.ndarray, float]:
    """Return the levels of a recording and its length in seconds."""
    return song_picture(lake, clip_id), lake.recording_length(clip_id)


def listen_routes() -> list[BaseRoute]:
    answers: dict[str, Any] = {
        "/tonelake/suggest": suggest, "/tonelake/values": values, "/tonelake/albums": albums,
        "/tonelake/picture/{clip}": picture,
    }
    upload = Route("/tonelake/heard", receive_upload, methods=["POST"])
    return [*(Route(path, answer) for path, answer in answers.items()), upload]
