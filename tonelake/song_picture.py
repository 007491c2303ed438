"""A recording as a small picture: its spectrum over its whole length, as levels that a page draws in its own colours.

(samples,) of a recording at RATE  ->  (column, band) uint8.  Columns are equal parts of the recording, bands are spaced
logarithmically from LOWEST_HZ to half of RATE, lowest first.  A level is the mean power in the column and band: 255 for the
loudest, 0 for RANGE_DB below it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tonelake.ingest import AudioError

if TYPE_CHECKING:
    from tonelake.lake import Lake

RATE = 12_000                            # Hz
COLUMNS, BANDS = 600, 40
FEW_COLUMNS = 200                        # of a recording longer than LONG_S, which is not read whole: one window each
LONG_S = 1_200.0
BLOCK_COLUMNS = 100                      # read at a time
WINDOW = 1_024                           # samples of one spectrum: 85 ms
WINDOWS = 6                              # spectra of one column, spread evenly over it
LOWEST_HZ, RANGE_DB = 60.0, 70.0


def song_picture(lake: Lake, clip_id: str) -> np.ndarray:
    """Return (column, band) uint8: the picture of the whole recording that a clip is part of.  Raises AudioError as `audio`."""
    length_s = lake.recording_length(clip_id)
    if length_s > LONG_S:
        power = np.stack([
            column_power(lake.audio(clip_id, RATE, start=place * length_s / FEW_COLUMNS, seconds=WINDOW / RATE, whole=True))
            for place in range(FEW_COLUMNS)
        ])
        return levels_of(power)
    parts: list[np.ndarray] = []
    step_s = length_s / COLUMNS
    for first in range(0, COLUMNS, BLOCK_COLUMNS):
        seconds = min(BLOCK_COLUMNS * step_s, length_s - first * step_s)
        try:
            samples = lake.audio(clip_id, RATE, start=first * step_s, seconds=seconds, whole=True)
        except AudioError:
            if not first:
                raise
            samples = np.zeros(0, np.float32)        # the header promises more than the file has
        ends = np.linspace(0, max(len(samples), 1), BLOCK_COLUMNS + 1).astype(int)
        parts += [column_power(samples[start:end]) for start, end in pairwise(ends)]
    return levels_of(np.stack(parts))


def column_power(samples: np.ndarray) -> np.ndarray:
    """Return (band,) mean power of (samples,), from WINDOWS spectra at most."""
    if len(samples) < WINDOW:
        samples = np.pad(samples, (0, WINDOW - len(samples)))
    starts = np.unique(np.linspace(0, len(samples) - WINDOW, WINDOWS).astype(int))
    windows = samples[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW).astype(np.float32)
    power = (np.abs(np.fft.rfft(windows, axis=1)) ** 2).mean(axis=0)
    return np.add.reduceat(power, BAND_STARTS) / np.diff([*BAND_STARTS, len(power)])


def band_starts() -> np.ndarray:
    """(band,) first bin of each band; every band has at least one bin.

    >>> starts = band_starts()
    >>> len(starts) == BANDS, bool((np.diff(starts) > 0).all())
    (True, True)
    """
    edges = np.geomspace(LOWEST_HZ, RATE / 2, BANDS + 1)[:-1] * WINDOW / RATE
    starts = np.maximum(edges.astype(int), 1)
    for band in range(1, BANDS):
        starts[band] = max(starts[band], starts[band - 1] + 1)
    return starts


BAND_STARTS = band_starts()


def levels_of(power: np.ndarray) -> np.ndarray:
    """Return (column, band) uint8 of (column, band) power; silence throughout is 0.

    >>> levels_of(np.array([[1.0, 1e-7], [1e-3, 0.0]])).tolist()
    [[255, 0], [146, 0]]
    """
    loudest = float(power.max(initial=0.0))
    if loudest <= 0:
        return np.zeros(power.shape, np.uint8)
    decibels = 10 * np.log10(np.maximum(power / loudest, 1e-12))
    return np.round(255 * np.clip(1 + decibels / RANGE_DB, 0, 1)).astype(np.uint8)
