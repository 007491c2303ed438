"""A small pipe organ in NumPy: notes -> samples, identical on every machine, with nothing to install.

Four ranks sound together, at 8', 4', 2 2/3' and 2' (the fundamental's multiples 1, 2, 3, 4); each pipe has a few
partials.  One period of their sum, without partials above the Nyquist frequency, is kept as a table and read at the pitch of
the note; 20 ms attack, 60 ms release.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

RANKS = {1: 1.0, 2: 0.5, 3: 0.25, 4: 0.3}            # multiple of the fundamental: loudness
PIPE = (1.0, 0.35, 0.2, 0.08)                        # loudness of a pipe's own partials
TABLE = 4096                                         # samples in a period; the error of linear interpolation is below -90 dB
ATTACK_S, RELEASE_S = 0.020, 0.060
A4_HZ = 440.0


def render(notes: np.ndarray, duration_s: float, rate: int, *, voices: int = 4) -> np.ndarray:
    """Render notes to (round(duration_s · rate),) float32.

    `notes`: (note, 3) float64 of start in seconds, length in seconds and MIDI pitch; cut at 0 and at `duration_s`.
    `voices` sets the loudness: a sum of that many notes stays below full scale.
    """
    out = np.zeros(round(duration_s * rate), np.float32)
    for start_s, length_s, midi in notes:
        first, last = max(round(start_s * rate), 0), min(round((start_s + length_s) * rate), len(out))
        if last > first:
            out[first:last] += tone(midi, last - first, rate)
    return out * np.float32(0.6 / max(voices, 1))


def tone(midi: float, samples: int, rate: int) -> np.ndarray:
    """One note of the organ: (samples,) float32 with a peak of about 1."""
    frequency_hz = A4_HZ * 2 ** ((midi - 69) / 12)
    period = waveform(min(int(rate / 2 / frequency_hz), max(RANKS) * len(PIPE)))
    phase = np.arange(samples) * (frequency_hz / rate) % 1.0 * TABLE
    index = phase.astype(np.int64)
    fraction = (phase - index).astype(np.float32)
    sound = period[index] * (1 - fraction) + period[index + 1] * fraction
    return sound * envelope(samples, rate)


@lru_cache(maxsize=32)
def waveform(harmonics: int) -> np.ndarray:
    """One period of all ranks with this many harmonics, its first sample repeated at the end: (TABLE + 1,) float32."""
    phase = np.arange(TABLE + 1) * (2 * np.pi / TABLE)
    period = np.zeros(TABLE + 1)
    for rank, loudness in RANKS.items():
        for partial, share in enumerate(PIPE, start=1):
            if rank * partial <= harmonics:
                period += loudness * share * np.sin(rank * partial * phase)
    return (period / max(np.abs(period).max(), 1e-9)).astype(np.float32)


def envelope(samples: int, rate: int) -> np.ndarray:
    """Raised-cosine attack and release; both shrink if the note is shorter than their sum."""
    shape = np.ones(samples, np.float32)
    attack = min(round(ATTACK_S * rate), samples // 2)
    release = min(round(RELEASE_S * rate), samples - attack)
    shape[:attack] = 0.5 - 0.5 * np.cos(np.pi * np.arange(attack) / max(attack, 1))
    shape[samples - release :] *= 0.5 + 0.5 * np.cos(np.pi * np.arange(1, release + 1) / max(release, 1))
    return shape
