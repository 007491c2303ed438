"""Maps: the clips of one layer as points of a plane, kept with the lake as parquet that other viewers open too.

    maps/<space>/<layer>.parquet   clip_id, projection_x, projection_y, cluster, neighbors {ids, distances}, title, …

`neighbors.ids` are row numbers of the same file.  A map is made once; clips that come later are placed on it without
moving the others, until they are many.  Layers start from each other, so that a clip stays put when the layer changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.maps.clusters import describe_clusters, find_clusters
from tonelake.index.maps.layout import METHODS, Layout, lay_out, place
from tonelake.index.search.neighbour_graph import neighbour_graph
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Space, rows_of

PLACED_SHARE = 0.3                       # more new clips than this share of the old ones, and the map is laid out anew
FIXED_LABELS = ("artist", "album", "dataset", "stem", "split")
NAMED = ("title", "artist", "album", "track", "start_s")


@dataclass(frozen=True)
class Map:
    """A map, read or made."""

    space: str
    layer: str
    points: pl.DataFrame                 # clip_id, projection_x, projection_y, cluster, neighbors, and what names a clip
    clusters: pl.DataFrame               # cluster, clips, x, y, labels
    made: dict[str, Any]                 # by which settings
    done: str                            # what was done: made, so many clips placed, nothing
    file: str

    def __str__(self) -> str:
        rows, number = len(self.points), len(self.clusters)
        alone = int((self.points["cluster"] < 0).sum())
        return (
            f"map of {self.space}, layer {self.layer}: {rows:,} clips, {self.done}; {number} clusters, {alone:,} clips in none"
        )


def make_map(
    lake: Lake, *, space: str | None = None, layer: int | str | None = None, method: str = "umap", neighbours: int = 15,
    min_dist: float = 0.1, seed: int = 0, again: bool = False, stat: str = "mean",
    step: Callable[[str], None] = lambda name: None,
) -> Map:
    """The map of one layer, made, brought up to date, or as it is.

    A map made by other settings than these is made anew, starting from where it was; `again` forgets it first.
    Raises InputError for settings that cannot be, and where nothing is embedded.
    """
    if method not in METHODS:
        raise InputError(f"no method {method!r}: choose {' or '.join(METHODS)}")
    if neighbours < 2 or not 0 <= min_dist <= 1:
        raise InputError(f"{neighbours} neighbours at least {min_dist:g} apart: ask for 2 or more, and 0 to 1")
    chosen = lake.spaces.get(space)
    number = chosen.layer_index(layer)
    settings = {
        "space": chosen.name, "fingerprint": chosen.fingerprint, "layer": number, "stat": stat, "method": method,
        "neighbours": neighbours, "min_dist": min_dist, "seed": seed,
    }
    step("reading")
    ids, stored = lake.vectors(chosen).layer(number, stat=stat, dtype="float16")
    if not len(ids):
        raise InputError(f"no clip is embedded in space {chosen.name!r} yet: run `tonelake embed --space {chosen.name}`")
    vectors = unit(stored.astype(np.float32))
    old = None if again else read_points(lake, chosen, number)
    done = "made"
    if old is not None and old[1] == settings:
        before = rows_of(old[0]["clip_id"], ids)
        new = int((before < 0).sum())
        if not new and len(ids) == len(old[0]):
            return assemble(lake, chosen, number, *old, "as it was")
        if new <= PLACED_SHARE * (len(ids) - new):
            step("placing new clips")
            layout, done = extended(vectors, before, old[0], neighbours), f"{new:,} new ones placed"
            return write(lake, chosen, number, ids, layout, settings, done)
    step("laying out")
    start = start_from(lake, chosen, number, method, ids, vectors, old)
    layout = lay_out(vectors, method=method, neighbours=neighbours, min_dist=min_dist, seed=seed, start=start)
    step("finding clusters")
    return write(lake, chosen, number, ids, layout, settings, done)


def start_from(
    lake: Lake, space: Space, layer: int, method: str, ids: pl.Series, vectors: np.ndarray,
    old: tuple[pl.DataFrame, dict[str, Any]] | None,
) -> np.ndarray | None:
    """(clip, 2) points of the older map of this layer, or else of the nearest layer that has one; None without any."""
    if method != "umap":
        return None
    found = old
    if found is None:
        nearest_first = sorted(set(mapped_layers(lake, space)) - {layer}, key=lambda n: abs(n - layer))
        others = (read_points(lake, space, n) for n in nearest_first)
        found = next((other for other in others if other is not None and other[1]["method"] == "umap"), None)
    if found is None:
        return None
    before = rows_of(found[0]["clip_id"], ids)
    known = before >= 0
    if known.mean() < 0.5:
        return None
    start = np.empty((len(ids), 2), np.float32)
    start[known] = xy(found[0])[before[known]]
    if not known.all():
        start[~known] = place(vectors[~known], vectors[known], start[known], 1).points
    return start


def extended(vectors: np.ndarray, before: np.ndarray, old: pl.DataFrame, neighbours: int) -> Layout:
    """The layout of clips of which most have a point: `before`, their row in the old map, or -1."""
    known = np.flatnonzero(before >= 0)
    points = np.empty((len(vectors), 2), np.float32)
    points[known] = xy(old)[before[known]]
    if len(known) < len(vectors):
        fresh = np.flatnonzero(before < 0)
        points[fresh] = place(vectors[fresh], vectors[known], points[known], neighbours).points
    near, cosines = neighbour_graph(vectors, min(neighbours, len(vectors) - 1), repeatable=True)
    return Layout(points, near, cosines)


def write(
    lake: Lake, space: Space, layer: int, ids: pl.Series, layout: Layout, settings: dict[str, Any], done: str
) -> Map:
    """Store a map; replaces the older one in one step."""
    import pyarrow.parquet as pq

    clips = lake.clips.take(ids.to_list(), NAMED)
    far = np.maximum(1 - layout.cosines, 0)
    frame = pl.DataFrame({
        "clip_id": ids, "projection_x": layout.points[:, 0], "projection_y": layout.points[:, 1],
        "cluster": find_clusters(layout.points, settings["seed"]),
        "neighbors": pl.DataFrame({
            "ids": pl.Series(layout.near.tolist(), dtype=pl.List(pl.Int64)),
            "distances": pl.Series(far.tolist(), dtype=pl.List(pl.Float32)),
        }).to_struct(),
    }).join(clips, on="clip_id", how="left", maintain_order="left")
    table = frame.to_arrow()
    table = table.replace_schema_metadata({"tonelake": json.dumps(settings)})
    lake.files(f"maps/{space.name}").put(f"{layer:02d}.parquet", lambda path: pq.write_table(table, path))
    return assemble(lake, space, layer, frame, settings, done)


def assemble(lake: Lake, space: Space, layer: int, frame: pl.DataFrame, settings: dict[str, Any], done: str) -> Map:
    labels = [*FIXED_LABELS, *lake.clips.label_columns()]
    clips = frame.select("clip_id").join(lake.clips.read(["clip_id", *labels]), on="clip_id", how="left", maintain_order="left")
    clusters = describe_clusters(xy(frame), frame["cluster"].to_numpy(), clips)
    file = f"{lake.uri.rstrip('/')}/maps/{space.name}/{layer:02d}.parquet"
    return Map(space.name, space.layers[layer], frame, clusters, settings, done, file)


def read_map(lake: Lake, *, space: str | None = None, layer: int | str | None = None) -> Map:
    """The stored map of a layer, of the clips it was made of.  Raises InputError where there is none."""
    chosen = lake.spaces.get(space)
    number = chosen.layer_index(layer)
    found = read_points(lake, chosen, number)
    if found is None:
        raise InputError(
            f"layer {chosen.layers[number]} of space {chosen.name!r} has no map: run `tonelake map --space {chosen.name} "
            f"--layer {chosen.layers[number]}`"
        )
    return assemble(lake, chosen, number, *found, "as it was")


def read_points(
    lake: Lake, space: Space, layer: int, columns: Sequence[str] | None = None
) -> tuple[pl.DataFrame, dict[str, Any]] | None:
    """(points, settings) of a stored map; None where there is none of this very space, or it cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with lake.files(f"maps/{space.name}").fetched(f"{layer:02d}.parquet") as path:
        if path is None:
            return None
        try:
            table = pq.read_table(path, columns=None if columns is None else list(columns))
            settings = json.loads((table.schema.metadata or {})[b"tonelake"])
        except (pa.ArrowException, OSError, KeyError, ValueError):       # damaged, or not ours: it is derived, and made anew
            return None
    if settings.get("fingerprint") != space.fingerprint:
        return None
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame, settings


def map_stamp(lake: Lake, space: Space, layer: int) -> str | None:
    """What changes when the map of a layer is written anew; None where there is no file of one."""
    return lake.files(f"maps/{space.name}").stamp(f"{layer:02d}.parquet")


def mapped_layers(lake: Lake, space: Space) -> list[int]:
    """Numbers of the layers that have a map."""
    stems = [Path(name).stem for name in lake.files(f"maps/{space.name}").names(".parquet")]
    return [int(stem) for stem in stems if stem.isdigit()]


def xy(frame: pl.DataFrame) -> np.ndarray:
    """(clip, 2) float32."""
    return frame.select("projection_x", "projection_y").to_numpy().astype(np.float32)

