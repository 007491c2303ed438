"""Find a path from one clip to another: stations in between, each the clip nearest to an evenly spaced point.

In each layer the points divide the great-circle arc between the two clips' directions evenly (Shoemake 1985).  No clip
occurs twice, and the stations are chosen together: the assignment of clips to points with the highest sum of scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from tonelake.index.search.mixture import Weights
from tonelake.index.search.query import Query, resolve_one
from tonelake.index.search.similar import SHOWN, Search, allowed_rows, choose_layers, embedded_in_layer, highest
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake

MOST_STATIONS = 500


def path(
    lake: Lake, start: str, end: str, *, steps: int = 5, space: str | None = None, layer: int | str | None = None,
    layers: str | Mapping[int | str, float] | None = None, where: str | None = None, like: str | None = None,
    unlike: str | None = None,
) -> pl.DataFrame:
    """Return `steps` clips that lead from `start` to `end` (clip ids or files), and the two ends if they are clips.

    Returns step, place (0 at the start, 1 at the end), score (to the point on the arc), to_start and to_end (to the two
    ends), clip_id and columns that describe the clip.  `where`, `layers`, `like` and `unlike` are as for `similar`; the
    ends themselves need not satisfy the filter.  Fewer stations are returned only if fewer clips are allowed.
    Raises InputError if the ends are the same clip, or opposite in a layer.
    """
    if not 1 <= steps <= MOST_STATIONS:
        raise InputError(f"{steps} stations: must be 1 to {MOST_STATIONS}")
    chosen = lake.spaces.get(space)
    weights = choose_layers(lake, chosen, layer, layers)
    ends = [resolve_one(lake, one, chosen, list(weights)) for one in (start, end)]
    if ends[0].own & ends[1].own:
        raise InputError(f"{start} and {end} are the same clip. A path needs two ends")
    search = Search(lake=lake, space=chosen, like=like, unlike=unlike)
    places = np.arange(1, steps + 1) / (steps + 1)
    points = [arc_point(ends, weights, search, place) for place in places]
    ids, _ = search.scores(weights, points[0])
    own = Query({}, ends[0].own | ends[1].own)
    allowed = allowed_rows(lake, embedded_in_layer(lake, chosen, ids), own, where, None)
    scores = np.stack([search.scores(weights, point)[1] for point in points])             # (station, clip)
    stations, rows = assign(scores, allowed)
    to_ends = [search.scores(weights, one.vectors)[1] for one in ends]
    found = pl.DataFrame({
        "place": places[stations], "score": scores[stations, rows], "to_start": to_ends[0][rows], "to_end": to_ends[1][rows],
        "clip_id": ids.gather(rows),
    })
    whole = pl.concat([end_row(ends[0], 0.0, ids, to_ends), found, end_row(ends[1], 1.0, ids, to_ends)])
    whole = whole.select(pl.int_range(pl.len()).alias("step"), pl.all())
    shown = lake.clips.take(whole["clip_id"].to_list(), SHOWN)
    return whole.join(shown, on="clip_id", how="left", maintain_order="left")


def arc_point(ends: list[Query], weights: Weights, search: Search, place: float) -> dict[int, np.ndarray]:
    """Return the point at `place` (0 to 1) on the arc from one end to the other, by layer."""
    points = {}
    for layer in weights:
        a, b = (unit(end.vectors[layer][None])[0] for end in ends)
        angle = np.arccos(np.clip(a @ b, -1, 1))
        if angle > np.pi - 1e-3:
            name = search.space.layers[layer]
            raise InputError(f"layer {name}: the two ends are opposite, so no arc between them is shortest")
        even = np.array([1 - place, place])
        share_a, share_b = even if angle < 1e-4 else np.sin(even * angle) / np.sin(angle)
        points[layer] = (share_a * a + share_b * b).astype(np.float32)
    return points


def assign(scores: np.ndarray, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return (stations, rows): one clip for each station, with the highest possible sum of (station, clip) scores."""
    from scipy.optimize import linear_sum_assignment

    # n stations need only the n best clips of each: the other stations cannot take all of them.
    candidates = np.unique(np.concatenate([highest(row, len(scores), allowed) for row in scores]))
    if not len(candidates):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    stations, chosen = linear_sum_assignment(scores[:, candidates], maximize=True)
    return stations, candidates[chosen]


def end_row(end: Query, place: float, ids: pl.Series, to_ends: list[np.ndarray]) -> pl.DataFrame:
    """Return one row for an end of the path that is a clip, none for a file."""
    rows = np.flatnonzero(ids.is_in(list(end.own)).to_numpy()) if len(end.own) == 1 else np.empty(0, np.int64)
    return pl.DataFrame({
        "place": np.full(len(rows), place), "score": np.ones(len(rows), np.float32), "to_start": to_ends[0][rows],
        "to_end": to_ends[1][rows], "clip_id": ids.gather(rows),
    })
