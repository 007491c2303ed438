"""Compare groups of clips (artists, pieces, tunes): their cohesion, their similarity at equal size, and which is nearest.

Cohesion is the mean product of the mean vectors of two of a group's tracks; null for a group of one track.  The similarity of
two groups depends on the measure (`index.separation.group_similarity`).  Clips of one track, and known duplicates, are never
compared: what two groups share says nothing about their similarity.

Intervals are a jackknife over the units of both groups: tracks, unless every group is a single track; then clips.  A group is
named as the nearest only if its similarity is distinguishable from every other group's at 95 %, by max-t.

Where directions are used so unevenly that any two tracks have a mean cosine above CENTRE_ABOVE, every similarity is close to
1; vectors are then centred on the mean of all tracks.  Every track has the same weight in it, which makes the centre neutral:
with equal weights of groups, large ones would be nearer to everything.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from tonelake.evaluate import (
    GroupNames,
    Labelled,
    find_group,
    interval_of_strata,
    jackknife_variance,
    max_t_of_strata,
    read_labelled,
    variances_of_strata,
)
from tonelake.index.hubness import DEFAULT_HUBS, NEIGHBOURS, check_hubs, mean_of_highest
from tonelake.index.separation.group_similarity import DEFAULT_MEASURE, MEASURES
from tonelake.index.separation.group_units import OVER, GroupUnits, Row, divide
from tonelake.index.vectors import unit
from tonelake.store import InputError, Lake

MIN_TRACKS = 3                           # with two, there is one degree of freedom, and intervals are 13 errors wide
CENTRE_ABOVE = 0.5                       # mean cosine of two tracks
LEAST_CENTRED = 5                        # groups; of two centred groups one is always opposite to the other
CONTENDERS = 20                          # most similar groups whose ties are simulated
TIED_SHOWN = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """The groups of a column that have enough clips and tracks, and how they are compared."""

    units: GroupUnits
    measure: str
    corrected: bool                      # whether similarities are corrected for hubs
    note: str                            # a sentence on units, size, centring, and the groups left out
    left_out: tuple[str, ...]            # names of the groups with too few units

    @property
    def labelled(self) -> Labelled:
        return self.units.labelled

    @property
    def names(self) -> list[str]:
        return self.labelled.names

    @cached_property
    def neighbourhoods(self) -> tuple[np.ndarray, np.ndarray]:
        """(group,) the mean similarity of each group to its nearest ones, and (unit,) that of its group without the unit."""
        found, without = np.empty(len(self.names)), np.empty(len(self.units.group))
        for one in range(len(self.names)):
            row = self.plain_row(one)
            found[one] = mean_of_highest(finite_or_low(row.values[None]), NEIGHBOURS)[0]
            without[self.units.rows(one)] = mean_of_highest(finite_or_low(row.shared), NEIGHBOURS)
        return found, without

    def plain_row(self, one: int, intervals: bool = True) -> Row:
        """Return the similarities of one group to every other, NaN to itself."""
        row = MEASURES[self.measure](self.units, one, intervals)
        row.values[one], row.shared[:, one] = np.nan, np.nan
        return row

    def row(self, one: int, intervals: bool = True) -> Row:
        """Return the similarities of one group to every other, corrected for hubs on request."""
        row = self.plain_row(one, intervals)
        if not self.corrected:
            return row
        near, without = self.neighbourhoods
        values = row.values - (near[one] + near) / 2
        if not intervals:
            return replace(row, values=values)
        own = without[self.units.rows(one)]
        return Row(values, row.shared - (own[:, None] + near[None, :]) / 2, row.others - (near[one] + without) / 2)

    def matrix(self) -> np.ndarray:
        """Return the (group, group) similarities; on the diagonal that of a group with itself."""
        whole = np.empty((len(self.names), len(self.names)))
        for one in range(len(whole)):
            whole[one] = self.row(one, intervals=False).values if self.corrected else MEASURES[self.measure](
                self.units, one, False
            ).values
        return whole

    def variances(self, one: int, row: Row) -> tuple[np.ndarray, np.ndarray]:
        """Return the variances of one group's similarities over its own and over the other groups' units, (2, group), with
        their degrees of freedom."""
        degrees = np.maximum(self.units.counts - 1.0, 1.0)
        own = variances_of_strata(row.others, self.units.group, len(degrees))
        return np.stack([jackknife_variance(row.shared), own]), np.stack([np.full(len(degrees), degrees[one]), degrees])

    def intervals(self, one: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the similarities (group,) of one group to the others, with the ends of their 95 % intervals."""
        row = self.row(one)
        return row.values, *interval_of_strata(row.values, *self.variances(one, row))

    def compared(self, one: int) -> Compared:
        """Return the similarities of one group to the others with intervals, and which may be the nearest."""
        row, number = self.row(one), len(self.names)
        variances, degrees = self.variances(one, row)
        low, high = interval_of_strata(row.values, variances, degrees)
        order = np.argsort(-row.values, kind="stable")[: int(np.isfinite(row.values).sum())]
        tied = np.zeros(number, bool)
        known = order[np.isfinite(variances.sum(axis=0)[order])]
        if len(known) and known[0] == order[0]:
            found = max_t_of_strata(
                row.values[known], row.shared[:, known], variances[1, known], degrees[1, known], contenders=CONTENDERS
            )
            tied[order] = True
            tied[known[found.distinguishable]] = False
        else:                            # the most similar has no interval: nothing is distinguishable
            tied[order] = True
        return Compared(values=row.values, low=low, high=high, order=order, tied=tied)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Similarities of one group to the others."""

    values: np.ndarray                   # (group,) NaN for itself, and for groups that have only shared tracks
    low: np.ndarray
    high: np.ndarray
    order: np.ndarray                    # groups with a similarity, most similar first
    tied: np.ndarray                     # (group,) bool: the most similar, and those not distinguishable from it


def finite_or_low(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, -np.inf)


def read_groups(
    lake: Lake, column: str, *, space: str | None = None, layer: int | str | None = None, where: str | None = None,
    measure: str = DEFAULT_MEASURE, min_clips: int = 1, min_tracks: int = MIN_TRACKS, over: str | None = None,
    centre: bool | None = None, hubs: str = DEFAULT_HUBS,
) -> Groups:
    """Read the groups of a column that have `min_clips` clips and `min_tracks` units or more.

    `over`: "track", or "clip" (the default where every group is one track).  `centre`: by default where the mean cosine of
    two tracks is above CENTRE_ABOVE.  Raises InputError if fewer than two groups are left, or for an unknown choice.
    """
    if measure not in MEASURES:
        raise InputError(f"measure {measure!r}: unknown. Choose {', '.join(MEASURES)}")
    if over is not None and over not in OVER:
        raise InputError(f"--over {over}: unknown. Choose {' or '.join(OVER)}")
    if min_tracks < 1:
        raise InputError(f"--min-tracks {min_tracks}: must be at least 1")
    corrected = check_hubs(hubs)
    labelled, vectors = read_group_vectors(lake, column, space=space, layer=layer, where=where, min_clips=min_clips)
    over = over or ("clip" if labelled.tracks_of_groups().max() < 2 else "track")
    counts = labelled.clips_of_groups() if over == "clip" else labelled.tracks_of_groups()
    enough = np.flatnonzero(counts >= min_tracks)
    if len(enough) < 2:
        raise InputError(
            f"{len(enough)} of {len(counts)} groups of {column!r} have {min_tracks} {over}s or more, and comparing needs two. "
            "Choose a smaller --min-tracks"
        )
    left_out = tuple(name for name, count in zip(labelled.names, counts, strict=True) if count < min_tracks)
    if left_out:
        kept = labelled.only_groups(enough)
        vectors = vectors[labelled.ids.is_in(kept.ids.implode()).to_numpy()]
        labelled = kept
    units = divide(labelled, vectors, over)
    alike = mean_cosine(units)
    centred = centre if centre is not None else alike > CENTRE_ABOVE and len(enough) >= LEAST_CENTRED
    if centred:
        units = replace(units, clips=unit(vectors - centre_of_tracks(units)))
    note = f"{len(enough):,} groups of {column} compared over {over}s, as if each had {units.size}"
    if over == "clip":
        note += " (clips of one track are not independent, so intervals are too narrow)"
    if centred:
        note += f"; centred, as the mean cosine of two {over}s is {alike:.2f}"
    if left_out:
        note += f"; {len(left_out):,} with fewer than {min_tracks} {over}s are left out"
    return Groups(units=units, measure=measure, corrected=corrected, note=note, left_out=left_out)


def mean_cosine(units: GroupUnits) -> float:
    """Return the mean product of two units' mean vectors."""
    _, first = np.unique(units.track if units.over == "track" else units.weights.indices, return_index=True)
    vectors = units.vectors[first].astype(np.float64)
    number = len(vectors)
    squares = np.square(vectors).sum()
    return float((np.square(vectors.sum(axis=0)).sum() - squares) / max(number * (number - 1), 1))


def centre_of_tracks(units: GroupUnits) -> np.ndarray:
    """Return the (dim,) mean of all units' mean vectors, those in several groups counted once."""
    _, first = np.unique(units.track if units.over == "track" else units.weights.indices, return_index=True)
    return units.vectors[first].mean(axis=0)


def read_group_vectors(
    lake: Lake, column: str, *, space: str | None, layer: int | str | None, where: str | None, min_clips: int
) -> tuple[Labelled, np.ndarray]:
    """Read the groups of a column that have `min_clips` clips or more, with (clip, dim) unit vectors.

    Raises InputError if there are fewer than two.
    """
    if min_clips < 1:
        raise InputError(f"--min-clips {min_clips}: must be at least 1")
    chosen = lake.spaces.get(space)
    number = chosen.layer_index(layer)
    labelled = read_labelled(lake, chosen, column, where)
    enough = np.flatnonzero(labelled.clips_of_groups() >= min_clips)
    if len(labelled.names) > 1 and len(enough) < 2:
        raise InputError(
            f"{len(enough)} of {len(labelled.names)} groups of {column!r} have {min_clips} clips or more, and comparing needs "
            "two. Choose a smaller --min-clips"
        )
    if len(enough) < len(labelled.names):
        labelled = labelled.only_groups(enough)
    if len(labelled.names) < 2:
        raise InputError(f"column {column!r} has one value only, {labelled.names[0]!r}, and comparing needs two")
    return labelled, unit(lake.vectors(chosen).take(labelled.ids.to_list(), number).vectors)


def groups(
    lake: Lake, column: str, name: str | None = None, *, k: int | None = None, space: str | None = None,
    layer: int | str | None = None, where: str | None = None, measure: str = DEFAULT_MEASURE, min_clips: int = 1,
    min_tracks: int = MIN_TRACKS, over: str | None = None, centre: bool | None = None, hubs: str = DEFAULT_HUBS,
) -> pl.DataFrame:
    """With a name, return the groups most similar to it: group, similarity with its 95 % interval (low, high), tied (whether it
    is not distinguishable from the most similar one), clips and tracks.

    Without a name, return every group with its clips, tracks, cohesion with its interval, nearest (the most similar group; null
    if others are not distinguishable from it), the similarity of the most similar group with its interval, tied (that group and
    those not distinguishable from it, most similar first, at most TIED_SHOWN; null if `nearest` is given) and ties, their
    number.

    Groups are compared at equal size, that of the smallest.  Groups of fewer than `min_clips` clips or `min_tracks` tracks are
    left out; `over`, `centre` and `hubs` are as for `read_groups`.  A sentence on this is logged.
    """
    if k is not None and k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    found = read_groups(
        lake, column, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips, min_tracks=min_tracks,
        over=over, centre=centre, hubs=hubs,
    )
    clips, tracks = found.labelled.clips_of_groups(), found.labelled.tracks_of_groups()
    log.info("%s", found.note)
    if name is not None:
        compared = found.compared(row_of_group(found, name, min_tracks))
        order = compared.order[: k or 10]
        return pl.DataFrame({
            column: [found.names[i] for i in order], "similarity": compared.values[order], "low": compared.low[order],
            "high": compared.high[order], "tied": compared.tied[order], "clips": clips[order], "tracks": tracks[order],
        }).with_columns(pl.selectors.float().fill_nan(None))
    shown = range(len(found.names))[:k]
    low, high = cohesion_intervals(found.units)
    rows = [nearest_row(found, one) for one in lake.progress(shown, len(shown), f"comparing groups of {column}")]
    table = pl.DataFrame({
        column: found.names[:k], "clips": clips[:k], "tracks": tracks[:k], "cohesion": found.units.cohesion[:k],
        "cohesion_low": low[:k], "cohesion_high": high[:k],
    })
    schema: dict[str, Any] = {
        "nearest": pl.String, "similarity": pl.Float64, "low": pl.Float64, "high": pl.Float64, "tied": pl.List(pl.String),
        "ties": pl.Int64,
    }
    return pl.concat([table, pl.DataFrame(rows, schema=schema, orient="row")], how="horizontal").with_columns(
        pl.selectors.float().fill_nan(None)
    )


def nearest_row(found: Groups, one: int) -> tuple[str | None, float, float, float, list[str] | None, int]:
    """Return nearest, similarity, low, high, tied and ties of one group."""
    compared = found.compared(one)
    if not len(compared.order):
        return None, np.nan, np.nan, np.nan, None, 0
    best, tied = compared.order[0], [found.names[i] for i in compared.order if compared.tied[i]]
    alone = len(tied) == 1 and np.isfinite(compared.low[best])
    return (
        tied[0] if alone else None, compared.values[best], compared.low[best], compared.high[best],
        None if alone else tied[:TIED_SHOWN], 0 if alone else len(tied),
    )


def cohesion_intervals(units: GroupUnits) -> tuple[np.ndarray, np.ndarray]:
    """Return (group,) low and high of 95 % jackknife intervals of cohesion over the group's tracks; NaN over clips."""
    if units.over == "clip":
        return (np.full(len(units.counts), np.nan),) * 2
    variances = variances_of_strata(units.lengths.cohesion_without, units.group, len(units.counts))
    return interval_of_strata(units.lengths.cohesion, variances[None], np.maximum(units.counts - 1.0, 1.0)[None])


def row_of_group(found: Groups, name: str, min_tracks: int) -> int:
    """Return the number of a group by its name.  Raises InputError for one that is left out, and as `find_group`."""
    left_out = GroupNames(found.left_out).find(name)
    if left_out and not GroupNames(found.names).find(name):
        few = f"fewer than {min_tracks} {found.units.over}s"
        raise InputError(f"{found.labelled.column} {found.left_out[left_out[0]]!r}: has {few}. Choose a smaller --min-tracks")
    return find_group(found.labelled, name)


def group_matrix(
    lake: Lake, column: str, *, space: str | None = None, layer: int | str | None = None, where: str | None = None,
    measure: str = DEFAULT_MEASURE, min_clips: int = 1, min_tracks: int = MIN_TRACKS, over: str | None = None,
    centre: bool | None = None, hubs: str = DEFAULT_HUBS,
) -> pl.DataFrame:
    """Return the similarity of every pair of groups at equal size: a first column of names, then one column per group.

    Null for two groups with only shared tracks; so is a group of one track with itself.  The arguments are those of `groups`.
    """
    found = read_groups(
        lake, column, space=space, layer=layer, where=where, measure=measure, min_clips=min_clips, min_tracks=min_tracks,
        over=over, centre=centre, hubs=hubs,
    )
    log.info("%s", found.note)
    matrix = found.matrix()
    first = column if column not in found.names else f"{column} "
    table = pl.DataFrame({first: found.names} | {name: matrix[:, i] for i, name in enumerate(found.names)})
    return table.with_columns(pl.selectors.float().fill_nan(None))
