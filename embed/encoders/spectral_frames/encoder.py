"""`logmel`, `vqt` and `cqt`: spectra as encoders.  (batch, samples) at 22,050 Hz -> frames of one layer, 11.6 ms apart.

The baseline that the frames of a learned encoder have to beat, and the input of heads that read notes.  Frame i is centred at
sample 256 i + 128 of its window, in the middle of the 256 samples that it represents, so frames of windows that follow each
other neither overlap nor leave a gap.  Beyond the ends of a window is silence.

A value is log10(amplitude + 0.0001) / 2 + 1, where a sine at full scale has amplitude 1: 1 is full scale, 0 is -40 dB, -1 is
silence.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from tonelake.embed.encoders.base import Encoder, FrameSpan, Pooled, pool_states
from tonelake.embed.encoders.live_pass import LivePass, LocalPass
from tonelake.embed.encoders.spectral_frames.constant_q import BINS, CQT_GAMMA_HZ, VQT_GAMMA_HZ, VQT_REACH, constant_q
from tonelake.embed.encoders.spectral_frames.mel import BANDS, REACH, mel_amplitudes
from tonelake.embed.encoders.spectral_frames.timing import HOP, SAMPLE_RATE, frame_count

REVISION = "1"                           # increase it whenever a value changes
FLOOR = 1e-4                             # amplitude added before the logarithm: -80 dB


class SpectralFramesEncoder(Encoder):
    """One spectrum as the only layer.  A subclass names it and computes its amplitudes."""

    revision = REVISION
    sample_rate = SAMPLE_RATE
    frame_samples = HOP
    learned = False
    reach: int | None = None             # frames before a frame that it depends on, where they are few
    exact_reach = True                   # whether it depends on no others at all

    @staticmethod
    @abstractmethod
    def amplitudes(samples: np.ndarray) -> np.ndarray:
        """(samples,) float32 -> (frame, dim) float32, 1 for a sine at full scale."""

    def frames_of(self, samples: int) -> int:
        """Number of frames of a window: one per 256 samples, at least one."""
        return frame_count(samples)

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) float32 at 22,050 Hz -> the spectrum, pooled."""
        return pool_states([np.stack([self.states(window, 0) for window in windows])], keep, frames)

    def states(self, window: np.ndarray, layer: int) -> np.ndarray:
        """(samples,) -> (frame, dim) float32 of the only layer."""
        return compress(self.amplitudes(np.asarray(window, np.float32)))

    def live_pass(self, layers: Sequence[int], drift: float) -> LivePass:
        if self.reach is None or not (self.exact_reach or drift):
            return super().live_pass(layers, drift)
        return LocalPass(self, layers, self.reach)


class LogMelEncoder(SpectralFramesEncoder):
    """229 mel bands, as Onsets and Frames reads them."""

    name = location = "logmel"
    layers, dims = ("mel",), (BANDS,)
    reach = REACH

    @staticmethod
    def amplitudes(samples: np.ndarray) -> np.ndarray:
        return mel_amplitudes(samples)


class VqtEncoder(SpectralFramesEncoder):
    """Three bins a semitone; filters of 49 ms at the lowest pitch, 5 ms at the highest."""

    name = location = "vqt"
    layers, dims = ("vqt",), (BINS,)
    reach, exact_reach = VQT_REACH, False

    @staticmethod
    def amplitudes(samples: np.ndarray) -> np.ndarray:
        return constant_q(samples, gamma_hz=VQT_GAMMA_HZ)


class CqtEncoder(SpectralFramesEncoder):
    """Three bins a semitone; filters of a constant number of periods, 1.9 s at the lowest pitch."""

    name = location = "cqt"
    layers, dims = ("cqt",), (BINS,)

    @staticmethod
    def amplitudes(samples: np.ndarray) -> np.ndarray:
        return constant_q(samples, gamma_hz=CQT_GAMMA_HZ)


def compress(amplitudes: np.ndarray) -> np.ndarray:
    """Amplitudes to the scale of the stored values, which float16 resolves to 0.04 dB; in place.

    >>> compress(np.array([1.0, 0.01, 0.0])).round(2).tolist()
    [1.0, 0.0, -1.0]
    """
    amplitudes += FLOOR
    np.log10(amplitudes, out=amplitudes)
    amplitudes *= 0.5
    amplitudes += 1
    return amplitudes
