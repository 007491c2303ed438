"""Hubness: the skewness of how often a clip is among the ten nearest of others, 0 without hubs (Radovanović et al. 2010).

Leaving a unit out removes its queries and its clips; where a clip is removed from a query's ten nearest, the next one moves up.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from tonelake.evaluate import Replicates

HUBS_AT = 10
LISTED = 64                              # nearest clips kept of each query, among which those that move up are found


def nearest_without_units(
    candidates: np.ndarray, counted: np.ndarray, unit_of: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (query, HUBS_AT) nearest clips, their units, and the clip that moves up if the unit is left out; -1 for none.

    `candidates`: (query, clip) clips in order of their scores; `counted`: (query,) how many of them count.  If a query's
    first LISTED clips hold too few of other units, all of them are searched.
    """
    width = min(LISTED, candidates.shape[1])
    while True:
        listed = candidates[:, :width]
        valid = np.arange(width) < counted[:, None]
        units = np.where(valid, unit_of[listed], -1)
        nearest, own = np.where(valid, listed, -1)[:, :HUBS_AT], units[:, :HUBS_AT]
        later, later_units = np.where(valid, listed, -1)[:, HUBS_AT:], units[:, HUBS_AT:]
        replacements = np.full(nearest.shape, -1)
        complete = True
        for place in range(nearest.shape[1]):
            unit = own[:, [place]]
            moved_up = (own[:, :place] == unit).sum(axis=1)          # clips that earlier ones of this unit have brought up
            usable = (later_units != unit) & (later_units >= 0)
            order = np.cumsum(usable, axis=1)
            chosen = usable & (order == moved_up[:, None] + 1)
            there = chosen.any(axis=1)
            replacements[:, place] = np.where(there, np.where(chosen, later, 0).sum(axis=1), -1)
            complete &= bool((there | (own[:, place] < 0) | (counted <= width)).all())
        if complete or width == candidates.shape[1]:
            return nearest, own, replacements
        width = candidates.shape[1]


def replicate_hubness(
    nearest: np.ndarray, own: np.ndarray, replacements: np.ndarray, unit_of_query: np.ndarray, unit_of: np.ndarray, units: int
) -> Replicates:
    """Return the hubness on all units and without each, from what `nearest_without_units` returns for all queries."""
    clips = len(unit_of)
    by_query = occurrences(np.broadcast_to(unit_of_query[:, None], nearest.shape), nearest, units, clips)
    own = np.where(own == unit_of_query[:, None], -1, own)           # such a query is left out itself
    moved_up = occurrences(own, replacements, units, clips)
    times = np.asarray(by_query.sum(axis=0)).ravel()
    left_out = np.empty(units)
    for unit in range(units):
        without = times - by_query[[unit]].toarray()[0] + moved_up[[unit]].toarray()[0]
        left_out[unit] = skewness(without[unit_of != unit])
    return Replicates(np.asarray(skewness(times)), left_out)


def occurrences(units: np.ndarray, clips: np.ndarray, number: int, width: int) -> sparse.csr_array:
    """Return (unit, clip) counts of pairs of a unit and a clip, without those of -1."""
    used = (units >= 0) & (clips >= 0)
    return sparse.csr_array((np.ones(int(used.sum())), (units[used], clips[used])), shape=(number, width))


def skewness(values: np.ndarray) -> float:
    """Return the skewness of (value,) numbers; 0 if all are equal, NaN without any."""
    if not len(values):
        return float("nan")
    deviation = values - values.mean()
    spread = np.sqrt(np.square(deviation).mean())
    return float((deviation**3).mean() / spread**3) if spread > 0 else 0.0
