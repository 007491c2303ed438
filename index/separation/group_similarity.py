"""Similarity measures of groups of clips, at equal size, with leave-one-out values over each group's units.

A unit is a track or, where every group is one track, a clip; each unit counts once, by the mean of its clips' vectors.

- `centroid`: the cosine of the groups' mean vectors.  Fast; ignores how widely the groups are spread.
- `mean`: the mean product of two units' vectors, one of each group.
- `chamfer`: the soft maximum cosine of each clip to the other group, averaged over units and both groups (smooth Chamfer:
  arXiv 2211.16761, section 3.3).  High if every clip of either group has a counterpart in the other.

Pairs of clips of one track are excluded: what two groups share says nothing about their similarity.

Equal size.  The mean vector of a large group is longer than that of a small one of the same spread less noise, so plain
centroids make large groups near to everything; the soft maximum grows with the number of clips.  All groups are therefore
compared as if they had `size` units.  For centroids the mean over all subsets of that many units is known: the product of two
means does not depend on size, and the squared length of a mean of m units is, on average, D / m + (1 - 1 / m) C, with D the
mean squared length of a unit and C the mean product of two.  For `chamfer` it is the mean over seeded subsets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tonelake.index.separation.chamfer import chamfer
from tonelake.index.separation.group_units import GroupUnits, Row, lengths_of_groups

DEFAULT_MEASURE = "centroid"


def centroid(units: GroupUnits, one: int, intervals: bool = True) -> Row:
    """Return the cosine of the groups' mean vectors, their lengths as expected at equal size."""
    return linear_row(units, one, intervals, normalised=True)


def mean(units: GroupUnits, one: int, intervals: bool = True) -> Row:
    """Return the mean product of two units' vectors."""
    return linear_row(units, one, intervals, normalised=False)


def linear_row(units: GroupUnits, one: int, intervals: bool, *, normalised: bool) -> Row:
    """Return similarities that are products of group means, divided by expected lengths or not."""
    own, lengths, counts = units.vectors[units.rows(one)], units.lengths, units.counts
    length = lengths.squared if normalised else np.ones(len(counts))
    products = (units.means @ units.means[one]).astype(np.float64)
    values = products / np.sqrt(length[one] * length)
    values[one] = 1.0 if normalised else units.cohesion[one]
    shared, others = np.empty((0, len(counts))), np.empty(0)
    if intervals:
        length_without = lengths.squared_without if normalised else np.ones(len(units.group))
        without = leave_one_out(own, units.means[one])
        shared = (without @ units.means.T) / np.sqrt(length_without[units.rows(one), None] * length[None, :])
        by_unit, count = (units.vectors @ units.means[one]).astype(np.float64), counts[units.group]
        with np.errstate(divide="ignore", invalid="ignore"):
            others = (count * products[units.group] - by_unit) / (count - 1) / np.sqrt(length[one] * length_without)
    for other in units.sharing(one):
        fill_sharing(units, one, int(other), values, shared, others, normalised)
    return Row(values, shared, others)


def leave_one_out(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Return (unit, dim) means without each unit; NaN for a single one."""
    count = len(vectors)
    return (count * mean - vectors) / (count - 1) if count > 1 else np.full(vectors.shape, np.nan)


def fill_sharing(
    units: GroupUnits, one: int, other: int, values: np.ndarray, shared: np.ndarray, others: np.ndarray, normalised: bool
) -> None:
    """Fill in the similarity of two groups that share tracks, from their other tracks; leaving a shared track out changes
    nothing."""
    sides = [np.arange(*units.rows(group).indices(len(units.group))) for group in (one, other)]
    kept = [side[~np.isin(units.track[side], units.track[opposite])] for side, opposite in (sides, sides[::-1])]
    values[other] = np.nan
    if len(shared):
        shared[:, other], others[sides[1]] = np.nan, np.nan
    if not all(map(len, kept)):
        return
    parts = [units.vectors[rows].astype(np.float64) for rows in kept]
    means = [part.mean(axis=0) for part in parts]
    found = [
        lengths_of_groups(part, np.zeros(len(part), int), average[None], np.array([len(part)]), min(units.size, len(part)))
        for part, average in zip(parts, means, strict=True)
    ]
    squared = [lengths.squared[0] if normalised else 1.0 for lengths in found]
    values[other] = means[0] @ means[1] / np.sqrt(squared[0] * squared[1])
    if not len(shared):
        return
    shared[:, other] = values[other]
    others[sides[1]] = values[other]
    without = [lengths.squared_without if normalised else np.ones(len(lengths.squared_without)) for lengths in found]
    with np.errstate(invalid="ignore"):
        shared[kept[0] - sides[0][0], other] = leave_one_out(parts[0], means[0]) @ means[1] / np.sqrt(without[0] * squared[1])
        others[kept[1]] = leave_one_out(parts[1], means[1]) @ means[0] / np.sqrt(without[1] * squared[0])


MEASURES: dict[str, Callable[..., Row]] = {"centroid": centroid, "mean": mean, "chamfer": chamfer}
