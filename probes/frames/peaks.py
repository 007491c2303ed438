"""Peaks of probabilities over time: where onsets and beats are, whatever the threshold."""

from __future__ import annotations

import numpy as np


def median_period(frame_s: np.ndarray) -> float:
    """Return the usual distance of frames in seconds; 1 for fewer than two frames."""
    return float(np.median(np.diff(np.asarray(frame_s, np.float64)))) if len(frame_s) > 1 else 1.0


def frames_within(seconds: float, period_s: float) -> int:
    """Return how many frames beside a frame are at most `seconds` away."""
    return int(np.floor(seconds / period_s + 1e-6))


def local_maxima(probabilities: np.ndarray, reach: int) -> np.ndarray:
    """Return (frame, output) bool: the highest of the frames within `reach` (at least 1), the first of equally high ones.

    Whether a frame is a peak does not depend on a threshold, so that one set of peaks serves all thresholds.
    """
    reach = max(reach, 1)
    p = np.asarray(probabilities, np.float32)
    padded = np.pad(p, ((reach, reach), (0, 0)), constant_values=-np.inf)
    found = p > 0
    for step in range(1, reach + 1):
        found &= p > padded[reach - step:len(p) + reach - step]
        found &= p >= padded[reach + step:len(p) + reach + step]
    return found


def refined_times(probabilities: np.ndarray, frame_s: np.ndarray, frames: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """Return (peak,) times of the vertices of parabolas through peaks and their neighbours, at most half a frame away."""
    p, centres = np.asarray(probabilities, np.float64), np.asarray(frame_s, np.float64)
    times = centres[frames].copy()
    inner = np.flatnonzero((frames > 0) & (frames < len(p) - 1))
    at, column = frames[inner], outputs[inner]
    before, top, after = p[at - 1, column], p[at, column], p[at + 1, column]
    curve = before - 2 * top + after
    shift = np.divide(0.5 * (before - after), curve, out=np.zeros(len(inner)), where=curve < 0)
    step = np.where(shift < 0, centres[at] - centres[at - 1], centres[at + 1] - centres[at])
    times[inner] += np.clip(shift, -0.5, 0.5) * step
    return times


def boundaries(frame_s: np.ndarray) -> np.ndarray:
    """Return (frame + 1,) times between frames: midpoints of centres, and half a period beyond the first and last."""
    centres = np.asarray(frame_s, np.float64)
    half = median_period(centres) / 2
    middles = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[max(centres[0] - half, 0.0)], middles, [centres[-1] + half]])
