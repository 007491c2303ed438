"""List pairs of groups by similarity, most similar first, each with its interval.

Similarities and intervals are those of `groups`: at equal size, a jackknife over the units of both groups.  Each interval is
for its own pair: of many pairs of equally similar groups, one in twenty has an interval that misses their similarity.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from tonelake.index.hubness import DEFAULT_HUBS
from tonelake.index.separation.group_similarity import DEFAULT_MEASURE
from tonelake.index.separation.groups import MIN_TRACKS, Groups, read_groups
from tonelake.store import InputError, Lake

HELD_PAIRS = 1_000_000                   # beyond k: 40 MB
FEW_SHARE = 4                            # if fewer than a fourth of all pairs are wanted, not all intervals are computed
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

    If k is small, all similarities are computed first, without intervals, which take far longer; then the intervals of the
    groups that the k pairs begin with.
    """
    number = len(found.names)
    firsts: Sequence[int] = range(number - 1)
    few = k is not None and FEW_SHARE * k < number * (number - 1) / 2
    if few:
        values = (found.row(one, intervals=False).values for one in lake.progress(firsts, number - 1, "comparing groups"))
        kept = collect_pairs(((one, {"similarity": row}) for one, row in enumerate(values)), k)
        firsts = kept["one"].unique().sort().to_list()
    title = f"comparing pairs of {found.labelled.column}"
    measured = ((one, found.intervals(one)) for one in lake.progress(firsts, len(firsts), title))
    return collect_pairs(
        ((one, dict(zip(("similarity", "low", "high"), parts, strict=True))) for one, parts in measured), k
    )


def collect_pairs(rows: Iterable[tuple[int, dict[str, np.ndarray]]], k: int | None) -> pl.DataFrame:
    """Return the k most similar pairs, or all, of groups with their (group,) figures, among them `similarity`.

    Pairs are collected group by group and cut to k whenever many are held, so that memory does not grow with their number.
    """
    parts: list[pl.DataFrame] = []
    held = 0
    for one, figures in rows:
        two = one + 1 + np.flatnonzero(np.isfinite(figures["similarity"][one + 1 :]))
        parts.append(pl.DataFrame({"one": np.full(len(two), one), "two": two} | {
            name: values[two] for name, values in figures.items()
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
