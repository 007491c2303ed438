"""Triangular mel bands, for the front ends of encoders whose models are ours.

The values are those of `transformers.audio_utils.mel_filter_bank`, and a test compares them; importing that module alone takes
half a second of every process that encodes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Scale = Literal["htk", "slaney"]

HTK_MELS, HTK_HZ = 2595.0, 700.0         # mel = 2595 log10(1 + f / 700) (O'Shaughnessy 1987)
LINEAR_HZ = 200.0 / 3                    # Slaney's Auditory Toolbox (1998): a mel is 66.7 Hz up to 1 kHz,
BREAK_HZ, BREAK_MEL = 1_000.0, 15.0
LOG_STEP = np.log(6.4) / 27              # and above it, each is a constant ratio


def mel_bands(
    bins: int, bands: int, low_hz: float, high_hz: float, rate_hz: int, *, scale: Scale, equal_area: bool = False
) -> np.ndarray:
    """Return (bin, band) float64: triangles whose corners are spaced evenly in mels from `low_hz` to `high_hz`.

    `bins`: frequencies of the spectrum, from 0 Hz to half the sample rate.  `equal_area`: divide each triangle by half its
    width in Hz, instead of a peak of 1.
    """
    corners = to_hz(np.linspace(to_mel(low_hz, scale), to_mel(high_hz, scale), bands + 2), scale)
    frequencies = np.linspace(0, rate_hz // 2, bins)
    widths = np.diff(corners)
    away = corners[None, :] - frequencies[:, None]                   # (bin, corner)
    rising, falling = -away[:, :-2] / widths[:-1], away[:, 2:] / widths[1:]
    found = np.maximum(0, np.minimum(rising, falling))
    return found * (2.0 / (corners[2:] - corners[:-2])) if equal_area else found


def to_mel(hz: float, scale: Scale) -> float:
    """Return a frequency in mels.

    >>> to_mel(1_000, "slaney"), round(to_mel(1_000, "htk"))
    (15.0, 1000)
    """
    if scale == "htk":
        return float(HTK_MELS * np.log10(1.0 + hz / HTK_HZ))
    return float(BREAK_MEL + np.log(hz / BREAK_HZ) / LOG_STEP) if hz >= BREAK_HZ else hz / LINEAR_HZ


def to_hz(mels: np.ndarray, scale: Scale) -> np.ndarray:
    """Return the frequencies of mels."""
    if scale == "htk":
        return HTK_HZ * (np.power(10, mels / HTK_MELS) - 1.0)
    above = BREAK_HZ * np.exp(LOG_STEP * (mels - BREAK_MEL))
    return np.where(mels >= BREAK_MEL, above, LINEAR_HZ * mels)
