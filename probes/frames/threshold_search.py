"""F1 of peaks at every threshold of a grid at once, and a search whose grid does not end at the optimum.

A peak is kept if its onset probability and its support reach the two thresholds.  Peaks and reference onsets of one pitch that
are at most a window apart can be matched; with windows of equal length, taking the references in order of time and for each the
earliest free peak gives a largest matching, which is mir_eval's (distances rounded to 0.1 ms, as there).  The thresholds are
handled together as bits of an array, so a grid costs about as much as one threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LOWEST, HIGHEST = 0.02, 0.95             # of the first grid
STEP = 0.4                               # in logits
EXTENSION = 5                            # steps added while the optimum is at an end
LIMIT = 15.0                             # logits; float32 has no probability nearer to 1
SAME_F1 = 0.002                          # thresholds whose mean F1 differs by less are equally good


class ClipPeaks(NamedTuple):
    """Peaks and reference onsets of one clip."""

    time_s: np.ndarray                   # (peak,) float64
    pitch: np.ndarray                    # (peak,) int
    onset: np.ndarray                    # (peak,) float32 probability
    support: np.ndarray                  # (peak,) float32 probability
    wanted_s: np.ndarray                 # (onset,) float64, the reference
    wanted_pitch: np.ndarray             # (onset,) int
    excused: np.ndarray                  # (peak,) bool: not counted unless it is matched


class Axes(NamedTuple):
    """Thresholds of a grid, as increasing logits."""

    onset: np.ndarray
    support: np.ndarray


def logit(p: np.ndarray | float) -> np.ndarray:
    """Return logits, at most LIMIT from zero."""
    p = np.asarray(p, np.float64)
    with np.errstate(divide="ignore"):
        return np.clip(np.log(p) - np.log1p(-p), -LIMIT, LIMIT)


def sigmoid(x: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def grid_f1(clip: ClipPeaks, axes: Axes, window_s: float) -> np.ndarray:
    """Return (onset threshold, support threshold) F1 of one clip; NaN where there is nothing to find and nothing was found."""
    shape = (len(axes.onset), len(axes.support))
    high = np.searchsorted(sigmoid(axes.onset), clip.onset.astype(np.float64), side="right")     # thresholds that keep a peak
    wide = np.searchsorted(sigmoid(axes.support), clip.support.astype(np.float64), side="right")
    estimated = rectangles(high[~clip.excused], wide[~clip.excused], shape)
    alive = np.flatnonzero((high > 0) & (wide > 0))
    alive = alive[np.lexsort((clip.time_s[alive], clip.pitch[alive]))]
    order = np.lexsort((clip.wanted_s, clip.wanted_pitch))
    wanted, pitch = clip.wanted_s[order], clip.wanted_pitch[order]
    # One increasing coordinate for pitch and time, so that all windows are found by two searches.
    far = 4 * window_s + max(clip.time_s.max(initial=0.0), wanted.max(initial=0.0))
    along = clip.pitch[alive] * far + clip.time_s[alive]
    first = np.searchsorted(along, pitch * far + wanted - window_s - 1e-4)
    last = np.searchsorted(along, pitch * far + wanted + window_s + 1e-4, side="right")
    matched = np.zeros(shape)
    used: dict[int, np.ndarray] = {}     # peaks that more than one reference can have: thresholds at which they are taken
    for row, (a, b) in enumerate(zip(first, last, strict=True)):
        distance = np.around(np.abs(clip.time_s[alive[a:b]] - wanted[row]), 4)
        near = alive[a:b][distance <= window_s].tolist()
        if not near:
            continue
        shared = row + 1 < len(first) and first[row + 1] < b
        free = np.ones(shape, bool)      # thresholds at which this reference has no peak yet
        for peak in near:
            takes = np.zeros(shape, bool)
            takes[:high[peak], :wide[peak]] = free[:high[peak], :wide[peak]]
            if peak in used:
                takes &= ~used[peak]
            free ^= takes
            if shared or peak in used:
                used[peak] = used[peak] | takes if peak in used else takes
            if clip.excused[peak]:
                estimated += takes
        matched += ~free
    with np.errstate(invalid="ignore"):
        return 2 * matched / (estimated + len(wanted))


def rectangles(high: np.ndarray, wide: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return how many of (peak,) pairs cover each cell (i, j) with i < high and j < wide."""
    counts = np.zeros((shape[0] + 1, shape[1] + 1))
    np.add.at(counts, (high, wide), 1)
    return counts[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1][1:, 1:]


class Optimum(NamedTuple):
    """The best cell of a grid."""

    onset: float                         # thresholds as probabilities
    support: float
    score: float                         # mean F1
    second: float                        # the second score, by which equally good thresholds are chosen


Evaluate = Callable[[Axes], tuple[np.ndarray, np.ndarray]]


def search(evaluate: Evaluate, *, supports: bool = True) -> Optimum:
    """Return the thresholds with the highest score.

    `evaluate`: axes to (onset threshold, support threshold) scores and second scores.  The first grid covers LOWEST to HIGHEST
    in steps of STEP logits.  While its optimum is at an end that can be moved, it is extended there; then a finer grid covers
    the neighbourhood of the optimum.  Without `supports`, the support threshold is not searched.
    """
    start = np.arange(float(logit(LOWEST)), float(logit(HIGHEST)) + STEP, STEP)
    axes = Axes(start, start if supports else np.array([-LIMIT]))
    while True:
        scores, seconds = evaluate(axes)
        best = best_cell(scores, seconds)
        wider = Axes(*(
            extend(axis, at) if len(axis) > 1 else axis for axis, at in zip(axes, best, strict=True)
        ))
        if all(len(new) == len(old) for new, old in zip(wider, axes, strict=True)):
            break
        axes = wider
    fine = Axes(*(
        axis[at] + np.linspace(-STEP, STEP, 9) if len(axis) > 1 else axis for axis, at in zip(axes, best, strict=True)
    ))
    scores, seconds = evaluate(fine)
    i, j = best_cell(scores, seconds)
    return Optimum(
        float(sigmoid(fine.onset[i])), float(sigmoid(fine.support[j])), float(scores[i, j]), float(seconds[i, j])
    )


def extend(axis: np.ndarray, at: int) -> np.ndarray:
    """Return the axis with more thresholds at the end where the optimum is, as far as LIMIT allows."""
    steps = STEP * np.arange(1, EXTENSION + 1)
    if at == 0:
        lower = axis[0] - steps[::-1]
        return np.concatenate([lower[lower > -LIMIT], axis])
    if at == len(axis) - 1:
        higher = axis[-1] + steps
        return np.concatenate([axis, higher[higher < LIMIT]])
    return axis


def best_cell(scores: np.ndarray, seconds: np.ndarray) -> tuple[int, int]:
    """Return the cell with the best second score among those within SAME_F1 of the highest score.

    Of equally good cells, the one in the middle of them, so that a threshold is not at the end of a plateau.
    """
    known = np.where(np.isfinite(scores), scores, -np.inf)
    near = known >= known.max() - SAME_F1
    second = np.where(near, np.where(np.isfinite(seconds), seconds, -np.inf), -np.inf)
    rows, columns = np.nonzero(near & (second >= second.max() - 1e-9))
    middle = np.abs(rows - np.median(rows)) + np.abs(columns - np.median(columns))
    choice = int(np.argmin(middle))
    return int(rows[choice]), int(columns[choice])


def mean_f1(grids: list[np.ndarray]) -> np.ndarray:
    """Return the mean of grids over clips, without undefined values; NaN where all are undefined."""
    stacked = np.stack(grids)
    known = np.isfinite(stacked)
    with np.errstate(invalid="ignore"):
        return np.where(known, stacked, 0).sum(axis=0) / known.sum(axis=0)


def search_line(evaluate: Callable[[float], float], start: np.ndarray, limits: tuple[float, float]) -> tuple[float, float]:
    """Return (value, score) of the best of increasing values `start`, extended by its step while the best is at an end.

    The step is a difference; give logarithms or logits for a ratio.  Values stay within `limits`.  Scores that are not finite
    count as the lowest; of equal scores the middle one is taken.
    """
    step = float(start[1] - start[0])
    found = {float(value): evaluate(float(value)) for value in start}
    while True:
        values = np.array(sorted(found))
        scores = np.array([found[value] if np.isfinite(found[value]) else -np.inf for value in values.tolist()])
        best = np.flatnonzero(scores >= scores.max() - 1e-9)
        at = int(best[(len(best) - 1) // 2])
        new = values[0] - step if at == 0 else values[-1] + step if at == len(values) - 1 else None
        if new is None or not limits[0] <= new <= limits[1]:
            return float(values[at]), float(scores[at])
        found[float(new)] = evaluate(float(new))
