"""The stored map of a layer as points of songs, each drawn at one of its clips."""

from __future__ import annotations

import polars as pl

from tonelake import Lake
from tonelake.index import read_map, read_points, song_rows
from tonelake.serve.catalogue import Catalogue
from tonelake.serve.rows import MapPoint
from tonelake.store import InputError, Space

COLUMNS = ["clip_id", "projection_x", "projection_y", "cluster"]


def read_song_map(lake: Lake, catalogue: Catalogue, space: Space, layer: int) -> pl.DataFrame:
    """Return one row a song: its row of the catalogue, and COLUMNS.  Raises InputError if there is no map."""
    found = read_points(lake, space, layer, COLUMNS)
    if found is None:
        read_map(lake, space=space.name, layer=layer)                # raises an error that names the command to run
        raise InputError("map: was removed. Ask again")
    points = found[0].with_columns(row=pl.Series(catalogue.rows_of(found[0]["clip_id"]))).filter(pl.col("row") >= 0)
    places = points.select("projection_x", "projection_y").to_numpy()
    return points[song_rows(places, points["row"].to_numpy())]


def point_rows(catalogue: Catalogue, points: pl.DataFrame) -> list[MapPoint]:
    """Return points of `read_song_map` as rows."""
    titles, artists = (catalogue.songs[name].gather(points["row"]) for name in ("title", "artist"))
    return [
        MapPoint(id=catalogue.id_of(row), clip_id=clip_id, title=title, artist=artist, x=x, y=y, cluster=cluster)
        for (row, clip_id, x, y, cluster), title, artist in zip(
            points.select("row", *COLUMNS).iter_rows(), titles, artists, strict=True
        )
    ]
