"""Constant-Q and variable-Q transforms: (samples,) at 22,050 Hz -> (frame, 309) float32 amplitudes, 3 bins a semitone.

The middle bin of a semitone has its frequency, from A0 (27.5 Hz, MIDI pitch 21) to D#9 (9,956 Hz, pitch 123): the 88 keys of a
piano and overtones above them.  A filter is a Hann window times a complex exponential.  Its bandwidth is that of a constant Q
plus `gamma_hz` (Schörkhuber et al. 2014), in the notation of librosa: length = rate / (alpha f + gamma), where alpha is the
spacing of the bins relative to their frequency.  With 0 Hz it is the constant-Q transform; with 20 Hz low filters are short
enough to show onsets.

The signal is decimated for every octave as far as its filters allow, by cutting its spectrum, and filtered there by one matrix
product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from tonelake.embed.encoders.spectral_frames.timing import CENTRE, HOP, SAMPLE_RATE, cut_frames, frame_count

BINS_PER_SEMITONE = 3
LOWEST_PITCH, HIGHEST_PITCH = 21, 123                                # MIDI; the middle bins of the lowest and highest semitone
BINS = BINS_PER_SEMITONE * (HIGHEST_PITCH - LOWEST_PITCH + 1)
PER_OCTAVE = 12 * BINS_PER_SEMITONE
VQT_GAMMA_HZ, CQT_GAMMA_HZ = 20.0, 0.0
# Frames before a frame that it depends on.  Filters see 2.2; the decimation rings further, which changes a value by 0.003 at
# most (0.12 dB), where amplitudes are near the floor.
VQT_REACH = 32
SHORTEST = 64                                                        # samples of a filter: fewer sample its window too coarsely


@dataclass(frozen=True, kw_only=True)
class Octave:
    """Filters of neighbouring bins, which run at one rate."""

    bins: slice
    decimation: int                      # a power of 2 that divides the hop
    kernels: np.ndarray                  # (sample, 2 × bin) float32: real parts, then imaginary ones; centred at its middle


def constant_q(samples: np.ndarray, *, gamma_hz: float) -> np.ndarray:
    """(samples,) float32 -> (frame, bin) float32; a sine at full scale has amplitude 1 in the bin of its frequency."""
    import scipy.fft

    octaves = filter_bank(gamma_hz)
    count = frame_count(len(samples))
    before = first_centre(octaves) - CENTRE
    least = before + max(len(samples), count * HOP) + before         # silence at the end: decimated signals are periodic
    length = scipy.fft.next_fast_len(-(-least // HOP), real=True)    # in hops
    needed = max(-(-last_sample(octave, before, count) // HOP) for octave in octaves)
    if length < needed:
        length = scipy.fft.next_fast_len(needed, real=True)
    padded = np.zeros(HOP * length, np.float32)
    padded[before : before + len(samples)] = samples
    spectrum = scipy.fft.rfft(padded)
    found = np.empty((count, BINS), np.float32)
    for octave in octaves:
        signal = padded
        if octave.decimation > 1:
            length = len(padded) // octave.decimation
            signal = scipy.fft.irfft(spectrum[: length // 2 + 1], length) / np.float32(octave.decimation)
        half = len(octave.kernels) // 2
        first = (before + CENTRE) // octave.decimation - half
        for rows, pieces in cut_frames(
            signal, first=first, hop=HOP // octave.decimation, length=len(octave.kernels), count=count
        ):
            real, imaginary = np.split(pieces @ octave.kernels, 2, axis=1)
            np.hypot(real, imaginary, out=found[rows, octave.bins])
    return found


def first_centre(octaves: tuple[Octave, ...]) -> int:
    """Centre of the first frame after padding: a multiple of the hop, so that it exists at every rate, beyond half a filter."""
    half = max(len(octave.kernels) // 2 * octave.decimation for octave in octaves)
    return HOP * -(-max(half, CENTRE) // HOP)


def last_sample(octave: Octave, before: int, count: int) -> int:
    """One past the last sample that an octave's filters see in `count` frames of a signal with `before` samples of padding."""
    centre = (before + CENTRE + (count - 1) * HOP) // octave.decimation
    return (centre + len(octave.kernels) // 2 + 1) * octave.decimation


def frequencies() -> np.ndarray:
    """Centre frequencies of the bins in Hz: (bin,) float64."""
    semitones = LOWEST_PITCH - 69 + (np.arange(BINS) - BINS_PER_SEMITONE // 2) / BINS_PER_SEMITONE
    return 440.0 * 2.0 ** (semitones / 12)


def lengths_s(gamma_hz: float) -> np.ndarray:
    """Lengths of the filters in seconds: (bin,) float64."""
    step = 2.0 ** (2 / PER_OCTAVE)
    return 1 / ((step - 1) / (step + 1) * frequencies() + gamma_hz)


@cache
def filter_bank(gamma_hz: float) -> tuple[Octave, ...]:
    """The filters, octave by octave from the highest bin."""
    octaves = []
    for last in range(BINS, 0, -PER_OCTAVE):
        bins = slice(max(0, last - PER_OCTAVE), last)
        hz, length_s = frequencies()[bins], lengths_s(gamma_hz)[bins]
        decimation = decimation_of(float((hz + 2 / length_s).max()), float(length_s.min()))
        octaves.append(Octave(bins=bins, decimation=decimation, kernels=make_kernels(hz, length_s, SAMPLE_RATE / decimation)))
    return tuple(octaves)


def decimation_of(highest_hz: float, shortest_s: float) -> int:
    """The largest power of 2 that keeps frequencies up to `highest_hz` and filters of at least `SHORTEST` samples.

    >>> decimation_of(10_500, 0.005), decimation_of(650, 0.1), decimation_of(81, 0.048)
    (1, 16, 16)
    """
    decimation = 1
    while decimation < HOP:
        rate = SAMPLE_RATE / (2 * decimation)
        if highest_hz > rate / 2 or shortest_s * rate < SHORTEST:
            break
        decimation *= 2
    return decimation


def make_kernels(hz: np.ndarray, length_s: np.ndarray, rate: float) -> np.ndarray:
    """(sample, 2 × bin) float32: Hann windows of exact, fractional lengths, with an amplitude of 1 for a sine at full scale."""
    half = int(np.ceil(length_s.max() * rate / 2))
    time_s = (np.arange(2 * half + 1) - half)[:, None] / rate                # (sample, 1)
    window = np.where(np.abs(time_s) < length_s / 2, 1 + np.cos(2 * np.pi * time_s / length_s), 0)
    window *= 2 / window.sum(axis=0)
    angle = 2 * np.pi * time_s * hz
    return np.concatenate([window * np.cos(angle), window * np.sin(angle)], axis=1).astype(np.float32)
