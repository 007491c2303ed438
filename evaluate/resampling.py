"""Bootstrap and jackknife over tracks, as weights.

A bootstrap sample is a row of weights (how often each unit was drawn), so that one matrix product gives a metric for all
draws.  scipy.stats.bootstrap resamples single observations and knows no clusters; clips of a track are not independent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

JACKKNIFE_PARTS = 40


def resample_weights(units: int, draws: int, seed: int) -> np.ndarray:
    """Return (draw, unit) float64: how often each unit is drawn in each bootstrap sample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(units, np.full(units, 1 / units), size=draws).astype(np.float64)


def bootstrap_means(values: np.ndarray, unit_of: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return (draw, …) bootstrap means over queries; whole tracks are drawn, since clips of a track are not independent.

    `values`: (…, query); `unit_of`: (query,) the track of each query, 0 to units - 1; `weights`: (draw, unit).
    """
    units = weights.shape[1]
    flat = values.reshape(-1, values.shape[-1])
    sums = np.stack([np.bincount(unit_of, weights=row, minlength=units) for row in flat])        # (…, unit)
    counts = np.bincount(unit_of, minlength=units)
    means = (weights @ sums.T) / np.maximum(weights @ counts, 1)[:, None]
    return means.reshape(len(weights), *values.shape[:-1])


def jackknife(measure: Callable[[np.ndarray], np.ndarray], units: int) -> float:
    """Return the standard error of a statistic by leaving out one part of the tracks at a time (Efron and Tibshirani 1993,
    section 11); NaN for fewer than two tracks.

    For statistics that a bootstrap biases: a clip drawn twice is its own neighbour twice, which makes it a hub.
    `measure`: (draw, unit) weights -> (draw,).
    """
    parts = min(JACKKNIFE_PARTS, units)
    if parts < 2:
        return float("nan")
    left = (np.arange(units)[None, :] % parts != np.arange(parts)[:, None]).astype(np.float64)
    values = measure(left)
    return float(np.sqrt((parts - 1) / parts * np.square(values - values.mean()).sum()))


def resample_weights_of_clips(track: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return (draw, clip) float64: how often the track of each clip is drawn in each bootstrap sample."""
    _, unit = np.unique(track, return_inverse=True)
    return resample_weights(int(unit.max()) + 1, draws, seed)[:, unit]


def weights_with_original(track: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Return (1 + draw, clip) float64: ones for the clips as they are, then `resample_weights_of_clips`."""
    return np.concatenate([np.ones((1, len(track))), resample_weights_of_clips(track, draws, seed)])
