"""Find onsets in a stream: half-wave rectified spectral flux of log magnitudes in mel bands, and local peaks of it.

    finder = OnsetFinder()
    finder.push(samples)                 # times in seconds of onsets that are certain now
    finder.finish()                      # … and of the rest

The peaks follow Böck, Krebs and Schedl 2012 ("Evaluating the online capabilities of onset detection methods"): an onset is
the largest flux nearby and exceeds the mean of what came before by a constant.  Nothing depends on the rest of the recording
(no normalisation by its maximum), so a stream in pieces has the onsets of one pass.  An onset is certain LATENCY_S after it.
"""

from __future__ import annotations

from functools import cache

import numpy as np

RATE = 22_050                            # Hz, of the samples
HOP, SIZE = 256, 1024                    # samples: 12 ms, 46 ms
BANDS = 64
COMPRESSION = 1_000.0                    # flux of log(1 + COMPRESSION * magnitude): sounds below -60 dB hardly count
BEFORE, AFTER = 3, 3                     # frames in which an onset has the largest flux
MEAN = 10                                # frames before an onset whose mean it exceeds
EXCESS = 0.1                             # … by this
APART = 5                                # frames between two onsets, at least: 58 ms
LATENCY_S = (SIZE + (AFTER + 1) * HOP) / RATE


@cache
def filters() -> tuple[np.ndarray, np.ndarray]:
    """The window, scaled so that a sine of amplitude 1 has magnitude 1, and the (bin, band) mel filters with peaks of 1."""
    from librosa.filters import mel
    from scipy.signal.windows import hann

    window = hann(SIZE, sym=False)
    bands = mel(sr=RATE, n_fft=SIZE, n_mels=BANDS, norm=None).T
    return (2 * window / window.sum()).astype(np.float32), bands.astype(np.float32)


class OnsetFinder:
    """Onsets of one stream; memory is constant."""

    def __init__(self) -> None:
        self._left = np.zeros(SIZE - HOP, np.float32)                # silence before the stream: frame t ends at (t + 1) * HOP
        self._last = np.zeros((1, BANDS), np.float32)                # bands of the frame before
        self._flux = np.zeros(MEAN)                                  # of frames that can still matter
        self._first = -MEAN                                          # number of the frame of `_flux[0]`
        self._next = 0                                               # first frame that is not decided
        self._onset = -APART

    def push(self, samples: np.ndarray) -> list[float]:
        """Take (samples,) at RATE; return the onsets that became certain, in seconds from the stream's first sample."""
        samples = np.concatenate([self._left, np.asarray(samples, np.float32)])
        count = max(0, (len(samples) - SIZE) // HOP + 1)
        self._left = samples[count * HOP :]
        found = []
        for first in range(0, count, 1024):                          # spectra of 12 s at once
            part = samples[first * HOP : (min(count, first + 1024) - 1) * HOP + SIZE]
            self._add(np.lib.stride_tricks.sliding_window_view(part, SIZE)[::HOP])
            found += self._decide(self._first + len(self._flux) - AFTER)
        return found

    def finish(self) -> list[float]:
        """End the stream; return the remaining onsets."""
        return self._decide(self._first + len(self._flux))

    def _add(self, framed: np.ndarray) -> None:
        window, bands = filters()
        now = np.log1p(COMPRESSION * (np.abs(np.fft.rfft(framed * window, axis=1)).astype(np.float32) @ bands))
        before = np.concatenate([self._last, now[:-1]])
        self._last = now[-1:]
        self._flux = np.concatenate([self._flux, np.maximum(now - before, 0).mean(axis=1, dtype=np.float64)])

    def _decide(self, until: int) -> list[float]:
        """Return onsets among frames up to `until`, and drop the flux that is no longer needed."""
        found = []
        for frame in range(self._next, until):
            at = frame - self._first
            value = self._flux[at]
            if value < EXCESS or frame - self._onset < APART:
                continue
            near = self._flux[max(0, at - BEFORE) : at + AFTER + 1]
            if value >= near.max() and value >= self._flux[at - MEAN : at].mean() + EXCESS:
                self._onset = frame
                # The window's slope is steepest a quarter before its end: there a sound begins if its flux is largest.
                found.append(max(0.0, ((frame + 1) * HOP - SIZE / 4) / RATE))
        self._next = max(self._next, until)
        drop = self._next - MEAN - self._first
        if drop > 0:
            self._flux, self._first = self._flux[drop:], self._first + drop
        return found
