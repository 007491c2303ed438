"""`spectral`: hand-crafted descriptors instead of learned layers, one family per layer, and all of them joined.  No weights.

The baseline that every learned encoder has to beat.  Each family is scaled by fixed constants so that its
dimensions have similar size and are centred near zero; otherwise the cosine of two clips would measure only loudness.
Layer `all` joins the families, each dimension standardised by its mean and standard deviation over clips of real music.
Both are constants (`spectral_scale.json`, made by `python -m bench.spectral_scale`): a vector does not depend on the lake.
Descriptors by librosa; MFCC after Davis and Mermelstein 1980, chroma and tonnetz (Harte 2006), contrast (Jiang 2002),
tempogram (Grosche 2010).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from tonelake.embed.encoders.base import Encoder, FrameSpan, Pooled
from tonelake.embed.librosa_import import load_librosa

SAMPLE_RATE = 24_000
FFT = 2048                               # 85 ms
HOP = 512                                # 21 ms, 46.9 frames a second
RHYTHM_LAGS = 128                        # frames: lags up to 2.7 s, tempi from 22 beats a minute

FAMILIES = {                             # name: width
    "mfcc": 40,                          # 1-20 and their slopes, without 0, the loudness
    "mel": 64,                           # log mel bands minus their mean
    "chroma": 12,                        # energy of the pitch classes minus their mean
    "tonnetz": 6,                        # pitch classes on circles of fifths and thirds
    "contrast": 7,                       # peak over valley in octave bands
    "shape": 5,                          # centroid, bandwidth, rolloff, flatness, zero crossings
    "rhythm": RHYTHM_LAGS,               # autocorrelation of the onset strength
}
ALL = "all"                              # layer of the families, standardised and joined
SCALE = Path(__file__).with_name("spectral_scale.json")
REVISION = "spectral-2"                  # increase it whenever a descriptor or constant changes
WITHOUT_ALL = "spectral-1"               # equal families, before there was a layer `all`


class SpectralEncoder(Encoder):
    """Hand-crafted descriptors with the interface of an encoder."""

    name = "spectral"
    location = "spectral"
    sample_rate = SAMPLE_RATE
    learned = False
    frame_samples = HOP
    frame_offset = 0

    def __init__(self, revision: str = REVISION) -> None:
        """`revision`: `spectral-1` leaves layer `all` out."""
        self.revision = revision
        self.layers, self.dims = tuple(FAMILIES), tuple(FAMILIES.values())
        if revision != WITHOUT_ALL:
            self.layers, self.dims = (*self.layers, ALL), (*self.dims, sum(self.dims))
            self.default_layer = len(FAMILIES)

    def at_revision(self, revision: str) -> SpectralEncoder:
        """This encoder with the layers of `revision`; itself for one that it does not know."""
        return SpectralEncoder(revision) if revision == WITHOUT_ALL else self

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) float32 at 24 kHz -> each family, pooled."""
        spans = keep or [(0, None)] * len(windows)
        by_window = [
            [family[:, slice(*span)] for family in self._describe(window)] for window, span in zip(windows, spans, strict=True)
        ]
        by_family = list(zip(*by_window, strict=True))               # [family][window]: (dim, frame)
        return Pooled(
            [np.stack([f.mean(axis=1) for f in family]) for family in by_family],
            [np.stack([f.max(axis=1) for f in family]) for family in by_family],
            np.array([window[0].shape[1] for window in by_window]),
            [[f.T.astype(np.float16) for f in by_family[i]] for i in frames],
        )

    def _describe(self, window: np.ndarray) -> list[np.ndarray]:
        """(samples,) -> (dim, frame) of each layer."""
        families = describe(window)
        return families if self.revision == WITHOUT_ALL else [*families, join(families)]


def join(families: Sequence[np.ndarray]) -> np.ndarray:
    """(dim, frame) of each family -> the families standardised and joined: (total dim, frame) float32."""
    mean, spread = scale()
    return (np.concatenate(families) - mean[:, None]) / spread[:, None]


@cache
def scale() -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each dimension of the joined families over clips of real music: (total dim,) float32."""
    values = json.loads(SCALE.read_text(encoding="utf-8"))
    mean, spread = (
        np.concatenate([np.array(values[name][family], np.float32) for family in FAMILIES]) for name in ("mean", "std")
    )
    return mean, spread


def describe(samples: np.ndarray) -> list[np.ndarray]:
    """(samples,) -> one (dim, frame) float32 array per family."""
    librosa = load_librosa()
    rate = SAMPLE_RATE
    samples = samples / (np.sqrt(np.mean(samples**2)) + 1e-5)        # of equal loudness, like MERT's input
    magnitude = np.abs(librosa.stft(samples, n_fft=FFT, hop_length=HOP))
    power = magnitude**2
    mel = librosa.feature.melspectrogram(S=power, sr=rate, n_mels=128)
    mel_db = librosa.power_to_db(mel, top_db=None)
    mfcc = librosa.feature.mfcc(S=mel_db, n_mfcc=21)[1:]
    width = min(9, mfcc.shape[1] - (mfcc.shape[1] + 1) % 2)
    slope = librosa.feature.delta(mfcc, width=width) if width >= 3 else np.zeros_like(mfcc)
    chroma = librosa.feature.chroma_stft(S=power, sr=rate, norm=1, tuning=0.0)
    bands = mel_db.reshape(64, 2, -1).mean(axis=1)
    octaves = np.log2(np.maximum(np.stack([
        librosa.feature.spectral_centroid(S=magnitude, sr=rate)[0],
        librosa.feature.spectral_bandwidth(S=magnitude, sr=rate)[0],
        librosa.feature.spectral_rolloff(S=magnitude, sr=rate)[0],
    ]), 20.0) / 2000.0)                                              # octaves from 2 kHz, about the middle of music
    flatness = np.log10(np.maximum(librosa.feature.spectral_flatness(S=magnitude)[0], 1e-6)) / 3 + 1
    crossings = librosa.feature.zero_crossing_rate(samples, frame_length=FFT, hop_length=HOP)[0] * 10 - 1
    onset = librosa.onset.onset_strength(S=mel_db, sr=rate)
    rhythm = librosa.feature.tempogram(onset_envelope=onset, sr=rate, hop_length=HOP, win_length=RHYTHM_LAGS)
    families = [
        np.concatenate([mfcc / 50, slope / 5]),                      # typical coefficients reach 50, slopes 5
        (bands - bands.mean(axis=0)) / 20,                           # dB, typical spread 20
        chroma * 12 - 1,                                             # 0 if a class has an equal share
        librosa.feature.tonnetz(chroma=chroma, sr=rate),
        librosa.feature.spectral_contrast(S=magnitude, sr=rate, fmin=100.0) / 20 - 1,
        np.concatenate([octaves, flatness[None], crossings[None]]),
        rhythm,
    ]
    frames = min(family.shape[1] for family in families)
    return [np.ascontiguousarray(np.nan_to_num(family[:, :frames]), dtype=np.float32) for family in families]
