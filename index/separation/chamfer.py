"""Smooth Chamfer similarity of groups of clips: the soft maximum cosine of each clip to the other group, averaged over units
and both groups (arXiv 2211.16761, section 3.3).

The soft maximum of more clips is higher, so it is taken over `size` units of the other group, the mean over SUBSETS seeded
subsets.  Leave-one-out values are those of the whole groups, moved by their difference from the value at equal size: the
subsets' own would add the noise of drawing them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from tonelake.index.separation.group_units import GroupUnits, Row

TEMPERATURE = 0.05                       # in cosines: a clip 0.05 further away has a third of the weight
SUBSETS = 32
CELLS = 2_000_000                        # cosines compared at a time: 16 MB in float64
LEAST_SHARE = 1e-12                      # of a soft sum; what is left when one unit is taken out is rounding below this


def chamfer(units: GroupUnits, one: int, intervals: bool = True) -> Row:
    """Return the smooth Chamfer similarity of one group to every group, at equal size."""
    own, number = units.rows(one), len(units.counts)
    count = own.stop - own.start
    of_own, own_clips = clips_of(units, own)
    order = np.random.default_rng(0).random((SUBSETS, len(units.group)))
    own_subsets = subsets(order[:, own], np.zeros(count, int), np.array([0]), units.size)[:, 0]
    values = np.empty(number)
    shared, others = np.empty((count if intervals else 0, number)), np.empty(len(units.group) if intervals else 0)
    for first, last in blocks_of_groups(units, len(own_clips)):
        block = slice(units.starts[first], units.starts[last])
        of_block, clips = clips_of(units, block)
        starts = units.starts[first:last] - units.starts[first]
        cosines = (units.clips[own_clips] @ units.clips[clips].T).astype(np.float64)
        soft = np.exp((cosines - 1) / TEMPERATURE)
        soft[units.labelled.track[own_clips, None] == units.labelled.track[None, clips]] = 0
        hard = soft * cosines
        to_units = [part @ (of_block > 0).astype(np.float64).T for part in (hard, soft)]         # (own clip, unit)
        to_own = [((of_own > 0).astype(np.float64) @ part).T for part in (hard, soft)]           # (clip of the block, own unit)
        theirs = subsets(order[:, block], units.group[block], starts, units.size)
        there = nanmean(np.stack([ratio(*(part[:, index].sum(axis=2) for part in to_units)) for index in theirs]))
        back = nanmean(np.stack([ratio(*(part[:, index].sum(axis=1) for part in to_own)) for index in own_subsets]))
        values[first:last] = (
            nanmean(unit_means(of_own, there)) + group_means(unit_means(of_block, back[:, None]), starts)[:, 0]
        ) / 2
        if intervals:
            own_change, other_change = changes_without(to_units, to_own, of_own, of_block, starts)
            shared[:, first:last] = values[first:last] + own_change
            others[block] = values[units.group[block]] + other_change
    return Row(values, shared, others)


def changes_without(
    to_units: list[np.ndarray], to_own: list[np.ndarray], of_own: sparse.csr_array, of_block: sparse.csr_array,
    starts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (own unit, group) changes of the whole groups' similarity without each own unit, and (unit,) changes without each
    unit of the other groups."""
    group = np.repeat(np.arange(len(starts)), np.diff([*starts, of_block.shape[0]]))
    totals = [np.add.reduceat(part, starts, axis=1) for part in to_units]                        # (own clip, group)
    there = unit_means(of_own, ratio(*totals))                                                   # (own unit, group)
    own_totals = [part.sum(axis=1, keepdims=True) for part in to_own]
    back = unit_means(of_block, ratio(*own_totals))                                              # (unit, 1)
    there_mean, back_mean = nanmean(there), group_means(back, starts)[:, 0]                      # (group,)
    # Without an own unit: the mean over the others, and the soft maxima of the other groups' clips without it.
    hard, soft = (total - part for total, part in zip(own_totals, to_own, strict=True))
    back_without = unit_means(of_block, ratio(hard, soft, own_totals[1]))
    own_change = mean_without(there) - there_mean + (group_means(back_without, starts) - back_mean[:, None]).T
    # Without a unit of another group, likewise.
    hard, soft = (total[:, group] - part for total, part in zip(totals, to_units, strict=True))
    there_without = nanmean(unit_means(of_own, ratio(hard, soft, totals[1][:, group])))
    known = np.isfinite(back[:, 0])
    sums, counts = (np.add.reduceat(part, starts)[group] for part in (np.where(known, back[:, 0], 0.0), known.astype(float)))
    with np.errstate(divide="ignore", invalid="ignore"):
        back_others = (sums - np.where(known, back[:, 0], 0.0)) / (counts - known)
    return own_change / 2, (there_without - there_mean[group] + back_others - back_mean[group]) / 2


def clips_of(units: GroupUnits, rows: slice) -> tuple[sparse.csr_array, np.ndarray]:
    """Return (unit, clip) weights of some units over their clips only, and the rows of these clips."""
    weights = units.weights[rows]
    clips, column = np.unique(weights.indices, return_inverse=True)
    shape = (weights.shape[0], len(clips))
    return sparse.csr_array((weights.data.astype(np.float64), column, weights.indptr), shape=shape), clips


def blocks_of_groups(units: GroupUnits, own_clips: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of runs of groups with few enough clips to be compared with `own_clips` at once."""
    clips = np.add.reduceat(np.diff(units.weights.indptr), units.starts[:-1])
    most, first, total = max(1, CELLS // max(own_clips, 1)), 0, 0
    for group, count in enumerate(clips):
        if total and total + count > most:
            yield first, group
            first, total = group, 0
        total += count
    yield first, len(clips)


def subsets(order: np.ndarray, group: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """Return (subset, group, size) units: the first `size` of each group by each row of (subset, unit) random numbers.

    One subset if no group has more units; fewer units than `size` are repeated, which leaves soft maxima as they are.
    """
    counts = np.diff([*starts, len(group)])
    rows = order[:1] if counts.max() <= size else order
    place = starts[:, None] + np.arange(size)[None, :] % counts[:, None]
    return np.stack([np.lexsort((row, group))[place] for row in rows])


def ratio(hard: np.ndarray, soft: np.ndarray, least: np.ndarray | float = 0.0) -> np.ndarray:
    """Return soft maxima from sums of weighted cosines and of weights; NaN without any clip to compare with."""
    some = soft > np.asarray(least) * LEAST_SHARE
    return np.divide(hard, soft, out=np.full(np.broadcast(hard, soft).shape, np.nan), where=some)


def unit_means(weights: sparse.csr_array, values: np.ndarray) -> np.ndarray:
    """Return (unit, …) means of (clip, …) values over the clips of each unit that have one."""
    known = np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (weights @ np.where(known, values, 0.0)) / (weights @ known.astype(np.float64))


def group_means(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return (group, …) means of (unit, …) values that are not NaN."""
    known = np.isfinite(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.add.reduceat(np.where(known, values, 0.0), starts) / np.add.reduceat(known.astype(np.float64), starts)


def nanmean(values: np.ndarray) -> np.ndarray:
    """Return means over the first axis of the values that are not NaN, NaN without any."""
    return group_means(values, np.array([0]))[0]


def mean_without(values: np.ndarray) -> np.ndarray:
    """Return (unit, …) means over the other units' values that are not NaN."""
    known = np.isfinite(values)
    filled = np.where(known, values, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (filled.sum(axis=0) - filled) / (known.sum(axis=0) - known)
