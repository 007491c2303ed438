"""Targets for each frame: frame i is centred at sample 320 i + 200 of 24 kHz, like the model's.

The acoustic teacher gives k-means clusters of the sound's log-mel spectrum (300) and of its chroma (200), as in arXiv
2306.00107, section 3.2.  The musical teacher gives the constant-Q spectrum (Brown and Puckette 1992) of the sound, and of the
notes played by one plain tone: the latter represents the music independently of the instrument.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from scipy.signal import firwin

from bench.pretrain.examples import PLAIN_RATE, RATE

HOP, CENTRE = 320, 200                   # samples of RATE
MEL_BANDS, MEL_FFT, CHROMA_FFT = 128, 1024, 4096
CLUSTERS = {"mel": 300, "chroma": 200}
PER_OCTAVE, OCTAVES, LOWEST_HZ = 24, 7, 32.703           # from C1 to C8
CQT_BINS = PER_OCTAVE * OCTAVES
CQT_FFT = 4096                           # of PLAIN_RATE, 0.34 s: below 100 Hz bins are wider than constant Q asks
HALVING = 63                             # taps of the filter before decimation by two
FLOOR = 1e-2                             # magnitudes below it, relative to a note of full scale, count as silence


class Teachers(NamedTuple):
    """Fitted teachers: cluster centres, and mean and deviation of the constant-Q spectrum per bin."""

    mel: Any                             # (300, 128) tensors
    chroma: Any                          # (200, 12)
    cqt_mean: Any                        # (168,)
    cqt_std: Any

    def clusters(self, mel: Any, chroma: Any) -> tuple[Any, Any]:
        """Assign the outputs of `log_mel` and `chroma_of` to their clusters, (batch, frame) each."""
        return nearest(mel, self.mel), nearest(chroma, self.chroma)

    def cqt(self, sound: Any) -> Any:
        """(batch, samples) at 12 kHz -> the constant-Q spectrum (batch, frame, 168), scaled."""
        return (constant_q(sound) - self.cqt_mean) / self.cqt_std


def frames_of(samples: int) -> int:
    """Return the model's number of frames for a number of samples."""
    return (samples - 400) // HOP + 1


def spectrum(sound: Any, size: int, rate: int, window: str = "hann") -> Any:
    """(batch, samples) -> (batch, frame, bin) complex, each window centred on its frame; silence beyond the ends."""
    import torch

    ratio = RATE // rate
    hop, centre, count = HOP // ratio, CENTRE // ratio, frames_of(sound.shape[1] * ratio)
    padded = torch.nn.functional.pad(sound, (size // 2 - centre, size))
    pieces = padded.unfold(1, size, hop)[:, :count]
    return torch.fft.rfft(pieces * torch.hann_window(size, device=sound.device) if window == "hann" else pieces)


def power(values: Any) -> Any:
    """Return |z|², which torch computes for complex numbers four times as fast as abs()."""
    import torch

    return torch.view_as_real(values).square().sum(dim=-1)


def log_mel(sound: Any) -> Any:
    """(batch, samples) -> (batch, frame, 128): the log-mel spectrum minus its mean over time and bands of each entry."""
    import torch

    bands = torch.log(power(spectrum(sound, MEL_FFT, RATE)) @ mel_filters(str(sound.device)).T + 1e-5)
    return bands - bands.mean(dim=(1, 2), keepdim=True)


def chroma_of(sound: Any) -> Any:
    """(batch, samples) -> (batch, frame, 12): energy of the pitch classes, each frame of unit length; silence is zero."""
    energy = power(spectrum(sound, CHROMA_FFT, RATE)).sqrt() @ chroma_filters(str(sound.device)).T
    return energy / (energy.norm(dim=2, keepdim=True) + 1e-2)


@lru_cache(maxsize=2)
def mel_filters(device: str) -> Any:
    import torch
    from librosa.filters import mel

    return torch.from_numpy(mel(sr=RATE, n_fft=MEL_FFT, n_mels=MEL_BANDS)).to(device)


@lru_cache(maxsize=2)
def chroma_filters(device: str) -> Any:
    import torch
    from librosa.filters import chroma

    return torch.from_numpy(chroma(sr=RATE, n_fft=CHROMA_FFT, tuning=0.0).astype(np.float32)).to(device)


def halved(sound: Any) -> Any:
    """(batch, samples) at 24 kHz -> at 12 kHz.  Content above 5.3 kHz is lost; the constant-Q spectrum ends below."""
    import torch

    taps = torch.from_numpy(firwin(HALVING, 5_600, fs=RATE).astype(np.float32)).to(sound.device)
    return torch.nn.functional.conv1d(sound[:, None], taps[None, None], stride=2, padding=HALVING // 2)[:, 0]


def constant_q(plain: Any) -> Any:
    """(batch, samples) at 12 kHz -> (batch, frame, 168): log(1 + magnitude / FLOOR), a note of full scale being about 4.6."""
    import torch

    kernels, used = cqt_kernels(str(plain.device))
    found = spectrum(plain, CQT_FFT, PLAIN_RATE, window="none")[..., :used]
    return torch.log1p(power(found @ kernels).sqrt() / FLOOR)


@lru_cache(maxsize=2)
def cqt_kernels(device: str) -> tuple[Any, int]:
    """((FFT bin, 168) complex, number of FFT bins used): each bin's windowed sinusoid, in the frequency domain."""
    import torch

    quality = 1 / (2 ** (1 / PER_OCTAVE) - 1)
    time = np.arange(CQT_FFT) - CQT_FFT // 2
    kernels = np.zeros((CQT_FFT, CQT_BINS), np.complex128)
    frequencies = LOWEST_HZ * 2 ** (np.arange(CQT_BINS) / PER_OCTAVE)
    for number, hz in enumerate(frequencies):
        length = min(quality * PLAIN_RATE / hz, CQT_FFT)
        window = np.where(np.abs(time) < length / 2, 0.5 + 0.5 * np.cos(2 * np.pi * time / length), 0)
        kernels[:, number] = window / window.sum() * np.exp(2j * np.pi * hz / PLAIN_RATE * time) * 2
    used = min(CQT_FFT // 2 + 1, int(frequencies[-1] * 1.1 * CQT_FFT / PLAIN_RATE))
    # Parseval: a sum over samples against a conjugated kernel is one over FFT bins.
    inside = np.conj(np.fft.fft(kernels, axis=0)[:used]) / CQT_FFT
    return torch.from_numpy(inside.astype(np.complex64)).to(device), used


def nearest(features: Any, centres: Any) -> Any:
    """(batch, frame, dim), (cluster, dim) -> (batch, frame) int64."""
    return (centres.square().sum(dim=1) - 2 * features @ centres.T).argmin(dim=2)


def fit(sound: np.ndarray, plain: np.ndarray, seed: int) -> Teachers:
    """Fit the teachers to (example, samples) of sounds."""
    import torch
    from sklearn.cluster import MiniBatchKMeans

    pieces = [torch.from_numpy(sound[i : i + 16]) for i in range(0, len(sound), 16)]

    def centres(of: Any, count: int) -> Any:
        features = np.concatenate([of(piece).flatten(0, 1).numpy() for piece in pieces])
        found = MiniBatchKMeans(count, batch_size=4096, n_init=1, max_iter=30, random_state=seed).fit(features)
        return torch.from_numpy(found.cluster_centers_.astype(np.float32))

    spectra = torch.cat([constant_q(torch.from_numpy(plain[i : i + 16])).flatten(0, 1) for i in range(0, len(plain), 16)])
    return Teachers(
        centres(log_mel, CLUSTERS["mel"]), centres(chroma_of, CLUSTERS["chroma"]),
        spectra.mean(dim=0), spectra.std(dim=0).clamp(min=0.05),
    )
