"""HTTP routes of the map: points, colours, names, search, neighbours and selections.

    /tonelake/map/{space}/{layer}/…             a map whose points are clips
    /tonelake/songs/{space}/{layer}/…           a map whose points are songs
        points        (point, 2) float32: x, y; header X-Order identifies the row order
        colours       (point,) uint16, by ?column=
        legend        meaning of the colour codes; with &find=, the values that contain a text
        places        names written on the map: clusters with their labels, artists
        search        (found,) uint32 rows whose names contain ?q=
        find          songs and artists for a list, by ?q=, also with typing errors; &misspelt=0: without, and at once
        rows          clips at ?rows=, comma-separated, for a list
        point         clip at one ?row= or of one ?clip=
        selected      songs within a polygon ?within=x_y_x_y_…, for a list; selected.csv, selected.m3u8, manifest.csv
    /tonelake/near/{space}/{layer}/{clip}       result of `tonelake similar`, with rows of ?points=songs or clips
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import polars as pl
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from tonelake import Lake, store
from tonelake.index import file_names
from tonelake.playlists import playlist
from tonelake.store import ClipNotFound, InputError, Space, TonelakeError, joined_lists, read_songs
from tonelake.ui.answers import HEADERS, binary, errors_as_json, whole_number
from tonelake.ui.opened import opened_lake
from tonelake.ui.points import SHOWN, Points, load_points

MAX_NEIGHBOURS = 200
MAX_ROWS = 200                           # of one request for names
MAX_LISTED = 200                         # songs of a selection in the panel; its files contain all
WARM_UP_AFTER_S = 0.7                    # by then the page has been drawn


def requested_points(request: Request) -> Points:
    lake = opened_lake()
    space, layer = space_and_layer(lake, request)
    return load_points(lake, space, layer, songs=request.url.path.startswith("/tonelake/songs/"))


def space_and_layer(lake: Lake, request: Request) -> tuple[Space, int]:
    space = lake.spaces.get(request.path_params["space"])
    return space, space.layer_index(request.path_params["layer"])


@errors_as_json
def points(request: Request) -> Response:
    found = requested_points(request)
    return binary(found.xy.tobytes(), BackgroundTask(warm_up, found), **{"X-Order": found.order})


def warm_up(found: Points) -> None:
    """Prepare for the first click: load the ids and the layer or its index, and start a decoder process."""
    if found.warm or not len(found.ids):
        return
    found.warm = True
    time.sleep(WARM_UP_AFTER_S)
    with contextlib.suppress(TonelakeError):         # the first click reports the error
        lake = opened_lake()
        lake.similar(found.ids[0], space=found.space.name, layer=found.space.layers[found.layer])
        lake.prepare_playing()


@errors_as_json
def colours(request: Request) -> Response:
    found = requested_points(request)
    codes = found.colours(request.query_params.get("column", "cluster")).codes
    return binary(codes.tobytes(), **{"X-Order": found.order})


@errors_as_json
def legend(request: Request) -> Response:
    found = requested_points(request).colours(request.query_params.get("column", "cluster"))
    text = request.query_params.get("find")
    return JSONResponse(found.legend if text is None else found.find(text), 200, HEADERS)


@errors_as_json
def places(request: Request) -> Response:
    return JSONResponse(requested_points(request).places(), 200, HEADERS)


@errors_as_json
def search(request: Request) -> Response:
    return binary(requested_points(request).search(request.query_params.get("q", "")).tobytes())


@errors_as_json
def find(request: Request) -> Response:
    misspelt = request.query_params.get("misspelt") != "0"
    return JSONResponse(requested_points(request).find(request.query_params.get("q", ""), misspelt=misspelt), 200, HEADERS)


@errors_as_json
def rows(request: Request) -> Response:
    found = requested_points(request)
    wanted = request.query_params.get("rows", "").split(",")[:MAX_ROWS]
    if not all(text.isdecimal() and int(text) < len(found.ids) for text in wanted):
        raise InputError(f"rows: must be numbers below {len(found.ids)}, separated by commas. Reload the page")
    return JSONResponse(found.rows_as_clips(list(dict.fromkeys(map(int, wanted)))), 200, HEADERS)


@errors_as_json
def point(request: Request) -> Response:
    found = requested_points(request)
    clip = request.query_params.get("clip")
    if clip is None:
        row = whole_number(request, "row", 0, len(found.ids) - 1)
        return JSONResponse(found.rows_as_clips([row])[0], 200, HEADERS)
    at = found.rows_of([clip])[0]
    shown = as_clips(found.lake, [clip])
    if at is None or not shown:
        raise ClipNotFound(f"clip {clip!r}: not on this map. `tonelake map` adds new clips")
    return JSONResponse(shown[0] | {"row": at}, 200, HEADERS)


def as_clips(lake: store.Lake, ids: list[str]) -> list[dict[str, Any]]:
    """Return clips for a list, with the name of the file in place of its path."""
    clips = lake.clips.take(ids, SHOWN)
    return clips.with_columns(source=file_names(clips["source"])).to_dicts()


@errors_as_json
def near(request: Request) -> Response:
    lake = opened_lake()
    space, layer = space_and_layer(lake, request)
    count = whole_number(request, "k", 1, MAX_NEIGHBOURS)
    hits = lake.similar(
        request.path_params["clip"], space=space.name, layer=space.layers[layer], k=count,
        not_same=request.query_params.get("not_same") or None,
    )
    songs = request.query_params.get("points") == "songs"
    rows = load_points(lake, space, layer, songs=songs).rows_of(hits["clip_id"])
    if "source" in hits.columns:
        hits = hits.with_columns(source=file_names(hits["source"]))
    hits = hits if songs else hits.with_columns(queue_s="start_s")
    return JSONResponse([hit | {"row": row} for hit, row in zip(hits.to_dicts(), rows, strict=True)], 200, HEADERS)


# -- a selection: the clips within a polygon


def selection(request: Request) -> tuple[Points, pl.Series]:
    """Return the map and the ids of the clips within the polygon of a request."""
    found = requested_points(request)
    text = request.query_params.get("within", "")
    try:
        values = [float(value) for value in text.split("_")]
    except ValueError:
        raise InputError(f"within={text[:40]!r}: not numbers separated by '_'. Draw the selection again") from None
    return found, found.within_polygon([[x, y] for x, y in zip(values[::2], values[1::2], strict=False)])


def one_clip_a_song(found: Points, ids: pl.Series) -> pl.DataFrame:
    """Return one row a song of these clips: clip_id (on a map of songs that of its point) and `clips`, how many it has here."""
    songs = pl.DataFrame({"clip_id": ids, "song": read_songs(found.lake.clips).of(ids)})
    if found.songs:
        songs = songs.with_columns(drawn=pl.col("clip_id").is_in(found.ids.implode())).sort("drawn", descending=True)
    return songs.group_by("song", maintain_order=True).agg(pl.first("clip_id"), pl.len().alias("clips")).drop("song")


@errors_as_json
def selected(request: Request) -> Response:
    found, ids = selection(request)
    songs = one_clip_a_song(found, ids)
    listed = songs["clip_id"].head(MAX_LISTED)
    rows_of = dict(zip(listed, found.rows_of(listed), strict=True))
    shown = [{"row": rows_of[clip["clip_id"]]} | clip for clip in as_clips(found.lake, listed.to_list())]
    return JSONResponse({"clips": len(ids), "songs": len(songs), "shown": shown}, 200, HEADERS)


def as_file(text: str, name: str, kind: str = "text/csv") -> Response:
    return Response(text, 200, HEADERS | {"Content-Disposition": f'attachment; filename="{name}"'}, kind)


def as_csv(clips: pl.DataFrame) -> str:
    return clips.with_columns(joined_lists(column, ";") for column in clips).write_csv()


@errors_as_json
def selected_csv(request: Request) -> Response:
    found, ids = selection(request)
    return as_file(as_csv(found.lake.clips.take(ids.to_list())), "clips.csv")


@errors_as_json
def selected_manifest(request: Request) -> Response:
    found, ids = selection(request)
    labels = ("title", "artist", "album", *found.lake.clips.label_columns())
    clips = found.lake.clips.take(ids.to_list(), ["source", "start_s", "duration_s", *labels])
    named = clips.rename({"source": "path", "start_s": "start", "duration_s": "seconds"})
    return as_file(as_csv(named.select("path", "start", "seconds", *labels)), "manifest.csv")


@errors_as_json
def selected_playlist(request: Request) -> Response:
    found, ids = selection(request)
    return as_file(playlist(found.lake, one_clip_a_song(found, ids))[0], "selection.m3u8", "audio/x-mpegurl")


ANSWERS: dict[str, Callable[[Request], Response]] = {
    "points": points, "colours": colours, "legend": legend, "places": places, "search": search, "find": find, "rows": rows,
    "point": point, "selected": selected, "selected.csv": selected_csv, "selected.m3u8": selected_playlist,
    "manifest.csv": selected_manifest,
}


def map_routes() -> list[BaseRoute]:
    """Return the routes, for the app's server."""
    bases = [f"/tonelake/{kind}/{{space}}/{{layer}}" for kind in ("map", "songs")]
    maps = [Route(f"{place}/{name}", answer) for place in bases for name, answer in ANSWERS.items()]
    return [*maps, Route("/tonelake/near/{space}/{layer}/{clip}", near)]
