"""Make maps: the clips of one layer as points of a plane, stored with the lake as parquet that other viewers can open.

    maps/<space>/<layer>.parquet   clip_id, projection_x, projection_y, cluster, neighbors {ids, distances}, title, …

Titles and other names are those of the lake: `read_points` takes them from it, and `make_map` writes the file again where they
have changed.  `neighbors.ids` are row numbers of the same file.  New clips are placed on an existing map without moving the
others, up to PLACED_SHARE; beyond it the map is laid out again.  A layer starts from the map of the nearest other layer, so
that a clip keeps its place when the layer changes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.maps.clusters import describe_clusters, find_clusters
from tonelake.index.maps.layout import EXTENT, METHODS, Layout, lay_out, nearest_others, place_new
from tonelake.index.maps.tsne import MOST_PERPLEXITY, check_tsne
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake, Space, descriptive_columns, read_songs, rows_of

PLACED_SHARE = 0.3                       # of the old clips; more new clips than this lead to a new layout
NAMED = ("title", "artist", "album", "track", "start_s")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Map:
    """A stored map of one layer."""

    space: str
    layer: str
    points: pl.DataFrame                 # clip_id, projection_x, projection_y, cluster, neighbors, and NAMED
    clusters: pl.DataFrame               # cluster, clips, x, y, labels, name
    settings: dict[str, Any]             # that the map was made with
    done: str                            # what the call did: made, placed new clips, or left unchanged
    file: str

    def __str__(self) -> str:
        rows, number = len(self.points), len(self.clusters)
        alone = int((self.points["cluster"] < 0).sum())
        return (
            f"map of {self.space}, layer {self.layer}: {rows:,} clips, {self.done}; {number} clusters, {alone:,} clips in none"
        )


def make_map(
    lake: Lake, layer: int | str | None = None, *, space: str | None = None, method: str = "umap", neighbours: int = 15,
    min_dist: float = 0.1, perplexity: float | None = None, seed: int = 0, again: bool = False
) -> Map:
    """Return the map of one layer: make it, bring it up to date, or leave it unchanged.

    `method`: "umap", "tsne" (Barnes-Hut t-SNE, for up to `tsne.MOST_ROWS` clips) or "pca" (two principal components).
    `min_dist` is UMAP's; `perplexity` is t-SNE's, a smooth number of neighbours, and equal to `neighbours` by default.
    A map with other settings is laid out again from its current points; with `again` it is made from scratch.
    Raises InputError for invalid settings, or if nothing is embedded.
    """
    if method not in METHODS:
        raise InputError(f"no method {method!r}: choose {', '.join(METHODS)}")
    if neighbours < 2 or not 0 <= min_dist <= 1:
        raise InputError(f"{neighbours} neighbours at least {min_dist:g} apart: must be 2 or more, and 0 to 1")
    if perplexity is not None and (method != "tsne" or not 1 <= perplexity <= MOST_PERPLEXITY):
        problem = f"must be 1 to {MOST_PERPLEXITY:g}" if method == "tsne" else "belongs to --method tsne"
        raise InputError(f"--perplexity {perplexity:g}: {problem}. Choose another, or leave it out")
    chosen = lake.spaces.get(space)
    number = chosen.layer_index(layer)
    settings: dict[str, Any] = {
        "space": chosen.name, "fingerprint": chosen.fingerprint, "layer": number, "stat": "mean", "method": method,
        "neighbours": neighbours, "min_dist": min_dist, "seed": seed,
    }
    if method == "tsne":                 # maps by other methods keep the settings that they were made with
        settings["perplexity"] = float(min(neighbours, MOST_PERPLEXITY) if perplexity is None else perplexity)
    log.info("reading the vectors of layer %s of space %s", chosen.layers[number], chosen.name)
    ids, stored = lake.vectors(chosen).layer(number, dtype="float16")
    if not len(ids):
        raise InputError(f"no clip is embedded in space {chosen.name!r} yet: run `tonelake embed --space {chosen.name}`")
    vectors = unit(stored.astype(np.float32))
    old = None if again else read_points(lake, chosen, number)
    done = "made"
    if old is not None and old[1] == settings:
        before = rows_of(old[0]["clip_id"], ids)
        new = int((before < 0).sum())
        if not new and len(ids) == len(old[0]):
            renamed = write_names(lake, chosen, number, *old)
            return assemble(lake, chosen, number, *old, f"names of {renamed:,} clips updated" if renamed else "unchanged")
        if new <= PLACED_SHARE * (len(ids) - new):
            log.info("placing %d new clips", new)
            layout, done = extend_layout(vectors, before, old[0], neighbours), f"{new:,} new clips placed"
            return write_map(lake, chosen, number, ids, layout, settings, done)
    log.info("laying out %d clips", len(ids))
    if method == "tsne":
        for sentence in check_tsne(len(ids), settings["perplexity"]):
            log.info("%s", sentence)
    start = initial_points(lake, chosen, number, method, ids, vectors, old)
    layout = lay_out(
        vectors, method=method, neighbours=neighbours, min_dist=min_dist, perplexity=settings.get("perplexity"), seed=seed,
        start=start,
    )
    log.info("finding clusters")
    return write_map(lake, chosen, number, ids, layout, settings, done)


def initial_points(
    lake: Lake, space: Space, layer: int, method: str, ids: pl.Series, vectors: np.ndarray,
    old: tuple[pl.DataFrame, dict[str, Any]] | None,
) -> np.ndarray | None:
    """Return (clip, 2) points of the older map of this layer, or of the nearest mapped layer; None without any.

    Points of a map by another method are scaled to the extent of an initial layout.
    """
    if method == "pca":
        return None
    found = old
    if found is None:
        nearest_first = sorted(set(mapped_layers(lake, space)) - {layer}, key=lambda n: abs(n - layer))
        others = (read_points(lake, space, n) for n in nearest_first)
        found = next((other for other in others if other is not None and other[1]["method"] != "pca"), None)
    if found is None:
        return None
    before = rows_of(found[0]["clip_id"], ids)
    known = before >= 0
    if known.mean() < 0.5:
        return None
    start, at = np.empty((len(ids), 2), np.float32), xy(found[0])
    if found[1]["method"] != method:
        at = (at - at.mean(axis=0)) * (EXTENT / max(float(np.abs(at - at.mean(axis=0)).max()), 1e-9))
    start[known] = at[before[known]]
    if not known.all():
        start[~known] = place_new(vectors[~known], vectors[known], start[known], 1).points
    return start


def extend_layout(vectors: np.ndarray, before: np.ndarray, old: pl.DataFrame, neighbours: int) -> Layout:
    """Keep the points of known clips and place the others; `before`: (clip,) row in the old map, or -1."""
    known = np.flatnonzero(before >= 0)
    points = np.empty((len(vectors), 2), np.float32)
    points[known] = xy(old)[before[known]]
    if len(known) < len(vectors):
        fresh = np.flatnonzero(before < 0)
        points[fresh] = place_new(vectors[fresh], vectors[known], points[known], neighbours).points
    nearest, cosines = nearest_others(vectors, min(neighbours, len(vectors) - 1), np.random.default_rng(0))
    return Layout(points, nearest, cosines)


def write_map(
    lake: Lake, space: Space, layer: int, ids: pl.Series, layout: Layout, settings: dict[str, Any], done: str
) -> Map:
    """Store a map, replacing the older one atomically."""
    distances = np.maximum(1 - layout.cosines, 0)
    frame = pl.DataFrame({
        "clip_id": ids, "projection_x": layout.points[:, 0], "projection_y": layout.points[:, 1],
        "cluster": find_clusters(layout.points, settings["seed"]),
        "neighbors": pl.DataFrame({
            "ids": pl.Series(layout.nearest.tolist(), dtype=pl.List(pl.Int64)),
            "distances": pl.Series(distances.tolist(), dtype=pl.List(pl.Float32)),
        }).to_struct(),
    })
    frame = with_names(lake, frame, NAMED)
    write_frame(lake, space, layer, frame, settings)
    return assemble(lake, space, layer, frame, settings, done)


def write_frame(lake: Lake, space: Space, layer: int, frame: pl.DataFrame, settings: dict[str, Any]) -> None:
    """Write the file of a map."""
    import pyarrow.parquet as pq

    table = frame.to_arrow().replace_schema_metadata({"tonelake": json.dumps(settings)})
    lake.files(f"maps/{space.name}").put(f"{layer:02d}.parquet", lambda path: pq.write_table(table, path))


def with_names(lake: Lake, points: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return points with these columns of the clips as the lake has them; nulls for clips that are no longer in it."""
    clips = lake.clips.take(points["clip_id"].to_list(), names)
    return points.drop(names, strict=False).join(clips, on="clip_id", how="left", maintain_order="left")


def write_names(lake: Lake, space: Space, layer: int, points: pl.DataFrame, settings: dict[str, Any]) -> int:
    """Write a map's file again if names in it are not those of the lake; return the number of clips whose names differ.

    `points`: as `read_points` gives them, with the lake's names.
    """
    stored = read_points(lake, space, layer, ["clip_id", *NAMED], names=False)
    if stored is None:
        return 0
    before = stored[0].select(pl.struct(NAMED).alias("names"))["names"]
    changed = int(before.ne_missing(points.select(pl.struct(NAMED).alias("names"))["names"]).sum())
    if changed:
        write_frame(lake, space, layer, points, settings)
    return changed


def assemble(lake: Lake, space: Space, layer: int, frame: pl.DataFrame, settings: dict[str, Any], done: str) -> Map:
    """Return a map with its clusters."""
    file = f"{lake.uri.rstrip('/')}/maps/{space.name}/{layer:02d}.parquet"
    clusters = clusters_of(lake, frame)
    return Map(
        space=space.name, layer=space.layers[layer], points=frame, clusters=clusters, settings=settings, done=done, file=file
    )


def clusters_of(lake: Lake, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the clusters of a map's points (clip_id, projection_x, projection_y, cluster), described by current labels."""
    known = lake.clips.read(["clip_id", "title", *descriptive_columns(lake.clips.columns())])
    clips = frame.select("clip_id").join(known, on="clip_id", how="left", maintain_order="left")
    return describe_clusters(xy(frame), frame["cluster"].to_numpy(), clips, read_songs(lake.clips).of(frame["clip_id"]))


def read_clusters(lake: Lake, space: Space, layer: int) -> pl.DataFrame:
    """Return the clusters of a stored map, as `Map.clusters`, without reading its neighbours.  Raises InputError without it."""
    found = read_points(lake, space, layer, ["clip_id", "projection_x", "projection_y", "cluster"])
    return read_map(lake, space=space.name, layer=layer).clusters if found is None else clusters_of(lake, found[0])


def read_map(lake: Lake, *, space: str | None = None, layer: int | str | None = None) -> Map:
    """Return the stored map of a layer, with the clips it was made of.  Raises InputError if there is none."""
    chosen = lake.spaces.get(space)
    number = chosen.layer_index(layer)
    found = read_points(lake, chosen, number)
    if found is None:
        raise InputError(
            f"layer {chosen.layers[number]} of space {chosen.name!r} has no map: run `tonelake map --space {chosen.name} "
            f"--layer {chosen.layers[number]}`"
        )
    return assemble(lake, chosen, number, *found, "unchanged")


def read_points(
    lake: Lake, space: Space, layer: int, columns: Sequence[str] | None = None, *, names: bool = True
) -> tuple[pl.DataFrame, dict[str, Any]] | None:
    """Return (points, settings) of a stored map; None if there is none for this space's fingerprint, or it is unreadable.

    Titles and other names are those of the lake now; without `names`, those of the file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with lake.files(f"maps/{space.name}").fetched(f"{layer:02d}.parquet") as path:
        if path is None:
            return None
        try:
            table = pq.read_table(path, columns=None if columns is None else list(columns))
            settings = json.loads((table.schema.metadata or {})[b"tonelake"])
        except (pa.ArrowException, OSError, KeyError, ValueError):       # damaged or foreign: it is derived, and made again
            return None
    if settings.get("fingerprint") != space.fingerprint:
        return None
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    named = [name for name in NAMED if name in frame.columns]
    if names and named:
        frame = with_names(lake, frame, named).select(frame.columns)
    return frame, settings


def map_stamp(lake: Lake, space: Space, layer: int) -> str | None:
    """Return a stamp that changes whenever the map of a layer is rewritten; None without a file."""
    return lake.files(f"maps/{space.name}").stamp(f"{layer:02d}.parquet")


def mapped_layers(lake: Lake, space: Space) -> list[int]:
    """Return the numbers of the layers that have a map."""
    stems = [Path(name).stem for name in lake.files(f"maps/{space.name}").names(".parquet")]
    return [int(stem) for stem in stems if stem.isdigit()]


def xy(frame: pl.DataFrame) -> np.ndarray:
    """Return a map's points as (clip, 2) float32."""
    return frame.select("projection_x", "projection_y").to_numpy().astype(np.float32)

