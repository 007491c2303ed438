"""Synthetic music on which encoders are compared with themselves: plucked chords, a bass, noise bursts and a pause."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SAMPLE_S = 10.0


def sample_music(rate: int, seconds: float = SAMPLE_S) -> np.ndarray:
    """Synthetic music: (samples,) float32, identical at each call.  The last fifth is a pause."""
    return _synthesised(rate, seconds).copy()


@lru_cache(maxsize=4)                    # an encoder is compared several times, at one rate
def _synthesised(rate: int, seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    time_s = np.arange(round(seconds * rate)) / rate
    sound = np.zeros_like(time_s)
    for beat in np.arange(0.0, 0.8 * seconds, 0.5):
        first = int(np.searchsorted(time_s, beat))
        since_s, rest = time_s[first:] - beat, sound[first:]
        ring = np.exp(-4 * since_s)
        for midi in (36 + rng.integers(0, 12), *(60 + rng.choice(24, 3, replace=False))):
            frequency_hz = 440 * 2 ** ((midi - 69) / 12)
            for partial in (1, 2, 3, 5):
                rest += 0.1 / partial * ring * np.sin(2 * np.pi * partial * frequency_hz * since_s)
        rest += 0.03 * np.where(since_s < 0.05, rng.standard_normal(len(time_s))[first:], 0)
    return (sound / np.abs(sound).max() * 0.8).astype(np.float32)
