"""List pairs of groups by similarity, most similar first, each with its interval.

Similarities and intervals are those of `groups`: at equal size, a jackknife over the units of both groups.  Each interval is
for its own pair: of many pairs of equally similar groups, one in twenty has an interval that misses their similarity.
"""

from __future__ import annotations

import logging

import numpy as np
import polars as pl

from tonelake.index.hubness import DEFAULT_HUBS
from tonelake.index.separation.group_similarity import DEFAULT_MEASURE
from tonelake.index.separation.groups import MIN_TRACKS, Groups, read_groups
from tonelake.store import InputError, Lake

HELD_PAIRS = 1_000_000                   # beyond k: 40 MB
COLUMNS = ("rank", "other", "similarity", "low", "high", "tracks", "other_tracks", "clips", "other_clips")

log = logging.getLogger(__name__)


def group_pairs(
    lake: Lake, column: str, *, k: int | None = None, space: str | None = None, layer: int | str | None = None,
    where: str | None = None, measure: str = DEFAULT_MEASURE, min_clips: int = 1, min_tracks: int = MIN_TRACKS,
    over: str | None = None, centre: bool | None = None, hubs: str = DEFAULT_HUBS,
) -> pl.DataFrame:
    """Return the k most similar pairs of groups (default: all), most similar first; equal ones in the order of their names.

    Columns: rank, the column (one group), other, similarity, low and high (its 95 % interval), tracks, other_tracks, clips and
    other_clips (of the two groups).  Pairs that have only shared tracks have no similarity and are left out.  The other
    arguments are those of `groups`.

    Raises InputError as `groups`.
    """
    if k is not None and k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    found = read_groups(
        lake, column, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips, min_tracks=min_tracks,
        over=over, centre=centre, hubs=hubs,
    )
    log.info("%s", found.note)
    pairs = most_similar_pairs(lake, found, k)
    clips, tracks, names = found.labelled.clips_of_groups(), found.labelled.tracks_of_groups(), pl.Series(found.names)
    first = f"{column} " if column in COLUMNS else column
    return pl.DataFrame({
        "rank": np.arange(1, len(pairs) + 1), first: names.gather(pairs["one"]), "other": names.gather(pairs["two"]),
        "similarity": pairs["similarity"], "low": pairs["low"], "high": pairs["high"], "tracks": tracks[pairs["one"]],
        "other_tracks": tracks[pairs["two"]], "clips": clips[pairs["one"]], "other_clips": clips[pairs["two"]],
    }).with_columns(pl.selectors.float().fill_nan(None))


def most_similar_pairs(lake: Lake, found: Groups, k: int | None) -> pl.DataFrame:
    """Return the k most similar pairs of groups, or all, most similar first: one, two (rows of groups), similarity, low, high.

    Pairs are collected group by group and cut to k whenever many are held, so that memory does not grow with their number.
    """
    parts: list[pl.DataFrame] = []
    held, number = 0, len(found.names)
    for one in lake.progress(range(number - 1), number - 1, f"comparing pairs of {found.labelled.column}"):
        values, low, high = found.intervals(one)
        two = one + 1 + np.flatnonzero(np.isfinite(values[one + 1 :]))
        parts.append(pl.DataFrame({
            "one": np.full(len(two), one), "two": two, "similarity": values[two], "low": low[two], "high": high[two]
        }))
        held += len(two)
        if k is not None and held > k + HELD_PAIRS:
            parts = [ordered(parts, k)]
            held = len(parts[0])
    return ordered(parts, k)


def ordered(parts: list[pl.DataFrame], k: int | None) -> pl.DataFrame:
    """Join pairs and return the k most similar, most similar first; equal ones in the order of their groups."""
    found = pl.concat(parts).sort("similarity", "one", "two", descending=[True, False, False])
    return found if k is None else found.head(k)
