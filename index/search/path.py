"""A path from one clip to another: stations in between, each as near as can be to its place on the way.

In each layer the way is the arc of a great circle between the two clips' directions (Shoemake 1985), divided evenly.
Each clip stands once at most, and the stations are chosen together: of all assignments of clips to places the one with
the highest sum of scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from tonelake.index.search.mixture import Weights
from tonelake.index.search.query import Query, resolve_one
from tonelake.index.search.similar import SHOWN, Search, allowed_rows, best, choose_layers, embedded_of
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake

MOST_STATIONS = 500


def path(
    lake: Lake, start: str, end: str, *, steps: int = 5, space: str | None = None, layer: int | str | None = None,
    layers: str | Mapping[int | str, float] | None = None, where: str | None = None, like: str | None = None,
    unlike: str | None = None, stat: str = "mean",
) -> pl.DataFrame:
    """Clips that lead from `start` to `end` (clip ids or files): `steps` of them, and the two ends where they are clips.

    Returns step, place (0 at the start, 1 at the end), score (to the point on the way), to_start and to_end (to the two
    ends), clip_id and what tells which clip that is.  `where`, `layers`, `like` and `unlike` are as for `similar`; the
    ends themselves need not satisfy the filter.  Fewer stations come back only where fewer clips are allowed.
    """
    if not 1 <= steps <= MOST_STATIONS:
        raise InputError(f"{steps} stations: ask for 1 to {MOST_STATIONS}")
    chosen = lake.spaces.get(space)
    weights = choose_layers(lake, chosen, layer, layers, stat)
    ends = [resolve_one(lake, one, chosen, list(weights), stat) for one in (start, end)]
    if ends[0].own & ends[1].own:
        raise InputError(f"{start} and {end} are the same: a path needs two ends")
    seek = Search(lake, chosen, "cosine", stat, like, unlike)
    places = np.arange(1, steps + 1) / (steps + 1)
    on_the_way = [between(ends, weights, seek, place) for place in places]
    ids, _ = seek.scores(weights, on_the_way[0])
    own = Query({}, ends[0].own | ends[1].own)
    allowed = allowed_rows(lake, embedded_of(lake, chosen, ids), own, where, None)
    scores = np.stack([seek.scores(weights, point)[1] for point in on_the_way])           # (station, clip)
    stations, rows = assign(scores, allowed)
    to_ends = [seek.scores(weights, one.vectors)[1] for one in ends]
    found = pl.DataFrame({
        "place": places[stations], "score": scores[stations, rows], "to_start": to_ends[0][rows], "to_end": to_ends[1][rows],
        "clip_id": ids.gather(rows),
    })
    whole = pl.concat([end_row(ends[0], 0.0, ids, to_ends), found, end_row(ends[1], 1.0, ids, to_ends)])
    whole = whole.select(pl.int_range(pl.len()).alias("step"), pl.all())
    shown = lake.clips.take(whole["clip_id"].to_list(), SHOWN)
    return whole.join(shown, on="clip_id", how="left", maintain_order="left")


def between(ends: list[Query], weights: Weights, seek: Search, place: float) -> dict[int, np.ndarray]:
    """The point at `place` of the arc from one end to the other, in each layer."""
    points = {}
    for layer in weights:
        a, b = (unit(end.vectors[layer][None])[0] for end in ends)
        angle = np.arccos(np.clip(a @ b, -1, 1))
        if angle > np.pi - 1e-3:
            raise InputError(f"in layer {seek.space.layers[layer]} the two ends are opposite: no way between them is shortest")
        near, far = (1 - place, place) if angle < 1e-4 else np.sin([(1 - place) * angle, place * angle]) / np.sin(angle)
        points[layer] = (near * a + far * b).astype(np.float32)
    return points


def assign(scores: np.ndarray, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(stations, rows): one clip each, so that the sum of (station, clip) scores is the highest there is."""
    from scipy.optimize import linear_sum_assignment

    # A station takes one of its own best as many clips as there are stations: the others cannot take them all.
    candidates = np.unique(np.concatenate([best(row, len(scores), allowed) for row in scores]))
    if not len(candidates):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    stations, chosen = linear_sum_assignment(scores[:, candidates], maximize=True)
    return stations, candidates[chosen]


def end_row(end: Query, place: float, ids: pl.Series, to_ends: list[np.ndarray]) -> pl.DataFrame:
    """A row for an end of the path that is a clip; none for a file."""
    rows = np.flatnonzero(ids.is_in(list(end.own)).to_numpy()) if len(end.own) == 1 else np.empty(0, np.int64)
    return pl.DataFrame({
        "place": np.full(len(rows), place), "score": np.ones(len(rows), np.float32), "to_start": to_ends[0][rows],
        "to_end": to_ends[1][rows], "clip_id": ids.gather(rows),
    })
