"""Amplitudes of the mel bands of Onsets and Frames: (samples,) at 22,050 Hz -> (frame, 229) float32.

229 bands on the HTK scale from 30 Hz to 8 kHz (Hawthorne et al., arXiv 1710.11153, whose audio has 16 kHz), of a Hann window of
2,048 samples (93 ms).  Each band is a triangle with a peak of 1 over the power spectrum; its root is the amplitude of a sine at
its peak.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from tonelake.embed.encoders.mel_bands import mel_bands
from tonelake.embed.encoders.spectral_frames.timing import CENTRE, HOP, SAMPLE_RATE, cut_frames, frame_count

BANDS = 229
FFT = 2048
LOWEST_HZ, HIGHEST_HZ = 30.0, 8_000.0
REACH = -(-(FFT // 2 - CENTRE) // HOP)                               # frames before a frame that share samples with it
BINS = int(HIGHEST_HZ * FFT / SAMPLE_RATE) + 1                       # up to the highest frequency; those above are in no band


def mel_amplitudes(samples: np.ndarray) -> np.ndarray:
    """(samples,) float32 -> (frame, band) float32; a sine at full scale has an amplitude of about 1."""
    import scipy.fft

    count = frame_count(len(samples))
    window, bands = constants()
    before = FFT // 2 - CENTRE
    padded = np.pad(samples, (before, max(0, (count - 1) * HOP + FFT - before - len(samples))))
    found = np.empty((count, BANDS), np.float32)
    for rows, pieces in cut_frames(padded, first=0, hop=HOP, length=FFT, count=count):
        spectrum = scipy.fft.rfft(pieces * window, axis=1)[:, :BINS]
        power = np.square(spectrum.real) + np.square(spectrum.imag)
        np.matmul(power, bands, out=found[rows])
    return np.sqrt(found, out=found)


@cache
def constants() -> tuple[np.ndarray, np.ndarray]:
    """The (2048,) window, scaled to an amplitude of 1 for a sine at full scale, and the (bin, band) triangles."""
    from scipy.signal.windows import hann

    window = hann(FFT, sym=False)
    bands = mel_bands(FFT // 2 + 1, BANDS, LOWEST_HZ, HIGHEST_HZ, SAMPLE_RATE, scale="htk")
    return (window / (window.sum() / 2)).astype(np.float32), np.ascontiguousarray(bands[:BINS], np.float32)
