"""Find a path from one song or clip to another: stations in between, each the song nearest to an evenly spaced point.

In each layer the points divide the great-circle arc between the two ends' directions evenly (Shoemake 1985).  No song occurs
twice, and the stations are chosen together: the assignment of songs to points with the highest sum of scores.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import polars as pl

from tonelake.index.search.candidates import Embedded, allowed_rows, embedded_in_layer
from tonelake.index.search.mixture import Weights
from tonelake.index.search.query import Query, QueryPart, resolve_one, to_compare
from tonelake.index.search.similar import SHOWN, Search, choose_layers
from tonelake.index.search.songs import nearest_songs
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake

MOST_STATIONS = 500

log = logging.getLogger(__name__)


def path(
    lake: Lake, start: QueryPart, end: QueryPart, *, steps: int = 5, space: str | None = None, layer: int | str | None = None,
    layers: str | Mapping[int | str, float] | None = None, where: str | None = None, like: str | None = None,
    unlike: str | None = None, clips: bool = False,
) -> pl.DataFrame:
    """Return `steps` songs that lead from `start` to `end` (clips, songs or files), and the two ends if they are in the lake.

    A song is shown by the clip nearest to its point.  With `clips`, the stations are clips, and a song may have several.
    Returns step, place (0 at the start, 1 at the end), score (to the point on the arc), to_start and to_end (to the two ends),
    clip_id, clips (unless `clips` is True: how many clips of the song may be stations) and columns that describe the clip.
    `where`, `layers`, `like` and `unlike` are as for `similar`; the ends themselves need not satisfy the filter.  Fewer
    stations are returned only if fewer are allowed.
    Raises InputError if the ends are the same clip, or opposite in a layer, or if one is zero in a layer.
    """
    if not 1 <= steps <= MOST_STATIONS:
        raise InputError(f"{steps} stations: must be 1 to {MOST_STATIONS}")
    chosen = lake.spaces.get(space)
    weights = choose_layers(lake, chosen, layer, layers)
    resolved = (resolve_one(lake, one, chosen, list(weights)) for one in (start, end))
    ends = [to_compare(one, chosen, list(weights), "cosine") for one in resolved]
    for note in (*ends[0].notes, *ends[1].notes):
        log.info("%s", note)
    if ends[0].own & ends[1].own:
        raise InputError(f"{start} and {end} are the same clip. A path needs two ends")
    search = Search(lake=lake, space=chosen, like=like, unlike=unlike)
    places = np.arange(1, steps + 1) / (steps + 1)
    points = [arc_point(ends, weights, search, place) for place in places]
    ids, _ = search.scores(weights, points[0])
    own = Query({}, own=ends[0].own | ends[1].own)
    known = embedded_in_layer(lake, chosen, ids)
    allowed = allowed_rows(lake, known, own, where, None, own_songs=not clips)
    scores = np.stack([search.scores(weights, point)[1] for point in points])             # (station, clip)
    songs = known.each_clip if clips else known.songs
    stations, rows = assign(scores, allowed, songs.numbers)
    to_ends = [search.scores(weights, one.vectors)[1] for one in ends]
    found = pl.DataFrame({
        "place": places[stations], "score": scores[stations, rows], "to_start": to_ends[0][rows], "to_end": to_ends[1][rows],
        "clip_id": ids.gather(rows),
    })
    if not clips:
        members = [songs.members(songs.numbers[[row]]) for row in rows]
        counts = [len(own) if allowed is None else int(allowed[own].sum()) for own in members]
        found = found.with_columns(clips=pl.Series(counts, dtype=pl.Int64))
    whole = pl.concat(
        [end_row(ends[0], 0.0, known, to_ends, clips), found, end_row(ends[1], 1.0, known, to_ends, clips)], how="diagonal"
    )
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


def assign(
    scores: np.ndarray, allowed: np.ndarray | None, songs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (stations, rows): the best clip of one song for each station, with the highest possible sum of scores.

    `scores`: (station, clip); `songs`: (clip,) the song of each; no two stations take one song.
    """
    from scipy.optimize import linear_sum_assignment

    # n stations need only the n best songs of each: the other stations cannot take all of them.
    best = [nearest_songs(row, songs, len(scores), allowed)[0] for row in scores]
    candidates = np.unique(songs[np.concatenate(best)])
    if not len(candidates):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    members = np.isin(songs, candidates) if allowed is None else np.isin(songs, candidates) & allowed
    rows = np.flatnonzero(members)
    rows = rows[np.argsort(songs[rows], kind="stable")]
    starts = np.flatnonzero(np.diff(songs[rows], prepend=songs[rows[0]] - 1))
    of_songs = np.maximum.reduceat(scores[:, rows], starts, axis=1)                       # (station, song)
    stations, chosen = linear_sum_assignment(of_songs, maximize=True)
    ends = np.append(starts, len(rows))
    best_rows = [
        rows[ends[song] + scores[station, rows[ends[song] : ends[song + 1]]].argmax()]
        for station, song in zip(stations, chosen, strict=True)
    ]
    return stations, np.array(best_rows, np.int64)


def end_row(end: Query, place: float, known: Embedded, to_ends: list[np.ndarray], clips: bool) -> pl.DataFrame:
    """Return one row for an end of the path that is in the lake, none for other audio.

    An end of several clips, a file or a name, is shown as a song by the one that is nearest to their mean.
    """
    rows = known.rows.of(sorted(end.own))
    rows = np.sort(rows[rows >= 0])
    if clips and len(end.own) > 1:
        rows = rows[:0]
    own = to_ends[round(place)][rows]
    rows = rows[[own.argmax()]] if len(rows) else rows
    found = pl.DataFrame({
        "place": np.full(len(rows), place), "score": np.ones(len(rows), np.float32), "to_start": to_ends[0][rows],
        "to_end": to_ends[1][rows], "clip_id": known.ids.gather(rows),
    })
    return found if clips else found.with_columns(clips=pl.lit(len(end.own), pl.Int64))
