"""Features of one gesture: (samples,) at RATE in, loudness, centroid, pitch, pitch classes and consonance out.

All but the loudness come from one spectrum: the mean power of Hann windows of at most LONGEST samples, with gestures shorter
than that in one window.  Partials closer than 4 / (length of the window in seconds) Hz are not told apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tonelake.index.gestures.onsets import RATE

LONGEST = 16_384                         # samples of a window: 0.74 s, which separates a semitone at 90 Hz
LOWEST, HIGHEST = 27.5, 10_000.0         # Hz, of a partial
PEAKS, PEAK_DB = 24, 30.0                # partials, and how far below the strongest they may be: above the sidelobes
FLOOR_DB = -120.0                        # loudness of silence
HARMONICS, DECAY = 10, 0.84              # of the pitch: Hermes 1988, subharmonic summation
NEAR_CENTS = 50.0                        # a partial counts as a harmonic within this


class Features(NamedTuple):
    """Features of one gesture."""

    loudness: float                      # RMS, dB re full scale: a full-scale sine has -3.01
    centroid: float | None               # Hz: mean frequency, weighted by magnitude; None for silence
    pitch: float | None                  # MIDI number of the strongest pitch; None without partials
    pitch_classes: list[float]           # (12,) shares of the partials' energy, C first; zeros without partials
    consonance: float | None             # 0 to 1; None without partials


def features_of(samples: np.ndarray) -> Features:
    """Return the features of (samples,) in [-1, 1] at RATE."""
    rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean())) if len(samples) else 0.0
    loudness = max(FLOOR_DB, 20 * np.log10(rms)) if rms > 0 else FLOOR_DB
    if loudness <= FLOOR_DB:
        return Features(loudness=FLOOR_DB, centroid=None, pitch=None, pitch_classes=[0.0] * 12, consonance=None)
    magnitude, step = spectrum(samples)
    frequencies = step * np.arange(len(magnitude))
    centroid = float((frequencies * magnitude).sum() / magnitude.sum())
    partials, amplitudes = find_partials(magnitude, step)
    if not len(partials):
        return Features(
            loudness=float(loudness), centroid=centroid, pitch=None, pitch_classes=[0.0] * 12, consonance=None
        )
    classes = np.zeros(12)
    np.add.at(classes, np.round(midi(partials)).astype(int) % 12, np.square(amplitudes))
    return Features(
        loudness=float(loudness), centroid=centroid, pitch=strongest_pitch(partials, amplitudes),
        pitch_classes=(classes / classes.sum()).tolist(), consonance=max(0.0, 1 - roughness(partials, amplitudes)),
    )


def spectrum(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the (bin,) magnitudes, the root of the mean power of half-overlapping windows, and the Hz between two bins."""
    size = min(LONGEST, len(samples))
    padded = 2 * max(2048, 1 << (size - 1).bit_length())             # interpolates between bins
    starts = range(0, len(samples) - size + 1, max(1, size // 2))
    window = np.hanning(size + 2)[1:-1]
    power = np.zeros(padded // 2 + 1)
    for start in starts:
        power += np.abs(np.fft.rfft(samples[start : start + size] * window, padded)) ** 2
    return np.sqrt(power / len(starts)) * 2 / window.sum(), RATE / padded


def find_partials(magnitude: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (partial,) frequencies in Hz and amplitudes of the strongest peaks, by a parabola through their log magnitudes."""
    inner = magnitude[1:-1]
    hz = step * np.arange(1, len(magnitude) - 1)
    usable = (inner > magnitude[:-2]) & (inner >= magnitude[2:]) & (hz >= LOWEST) & (hz <= HIGHEST)
    usable &= inner > max(magnitude.max() * 10 ** (-PEAK_DB / 20), 1e-9)
    at = np.flatnonzero(usable) + 1
    at = np.sort(at[np.argsort(-magnitude[at], kind="stable")[:PEAKS]])
    low, middle, high = (np.log(np.maximum(magnitude[at + i], 1e-12)) for i in (-1, 0, 1))
    bend = low - 2 * middle + high
    shift = np.where(bend < 0, 0.5 * (low - high) / np.where(bend < 0, bend, -1), 0.0)
    return step * (at + shift), np.exp(middle - 0.25 * (low - high) * shift)


def midi(hz: np.ndarray) -> np.ndarray:
    """Return MIDI numbers of frequencies, with A4 = 440 Hz = 69."""
    return 69 + 12 * np.log2(hz / 440)


def strongest_pitch(partials: np.ndarray, amplitudes: np.ndarray) -> float:
    """Return the MIDI number of the partial whose harmonics, weighted by DECAY, have the largest sum of amplitudes."""
    order = np.arange(1, HARMONICS + 1)
    cents = 1200 * np.abs(np.log2(partials[None, None, :] / (partials[:, None, None] * order[None, :, None])))
    heard = np.where(cents <= NEAR_CENTS, amplitudes[None, None, :], 0).max(axis=2)      # (candidate, harmonic)
    return float(midi(partials[[np.argmax(heard @ DECAY ** (order - 1))]])[0])


def roughness(partials: np.ndarray, amplitudes: np.ndarray) -> float:
    """Return the dissonance of Hutchinson and Knopoff (1978, Interface 7): pairs of partials within a critical band.

    The sum of a_i a_j g(|f_i - f_j| / critical band) over the pairs, divided by the sum of squares of all amplitudes.
    The critical band is 1.72 f^0.65 Hz at the mean frequency f of two partials; g is the curve of Plomp and Levelt (1965) in
    the form of Bigand, Parncutt and Lerdahl (1996), with its maximum of 1 at a quarter of the band, and 0 from 1.2 bands on.
    Two tones of ten partials 1/n above C4 have 0.48 a semitone apart, and 0.001 at an octave.

    >>> tone = np.arange(1, 11)
    >>> dyad = lambda semitones: np.append(261.63 * tone, 261.63 * 2 ** (semitones / 12) * tone)
    >>> [round(roughness(dyad(n), np.tile(1 / tone, 2)), 3) for n in (12, 7, 6, 1)]
    [0.001, 0.019, 0.093, 0.482]
    """
    first, second = np.triu_indices(len(partials), 1)
    band = 1.72 * ((partials[first] + partials[second]) / 2) ** 0.65
    apart = np.abs(partials[first] - partials[second]) / band
    curve = np.where(apart < 1.2, np.square(apart / 0.25 * np.exp(1 - apart / 0.25)), 0.0)
    return float((amplitudes[first] * amplitudes[second] * curve).sum() / np.square(amplitudes).sum())
