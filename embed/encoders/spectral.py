"""`spectral`: hand-crafted descriptors instead of learned layers, one family per layer.  Needs no weights.

The baseline that every learned encoder has to beat.  Each family is scaled by fixed constants so that its
dimensions have similar size and are centred near zero; otherwise the cosine of two clips would measure only loudness.
Descriptors by librosa; MFCC after Davis and Mermelstein 1980, chroma and tonnetz (Harte 2006), contrast (Jiang 2002),
tempogram (Grosche 2010).
"""

from __future__ import annotations

from collections.abc import Sequence

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


class SpectralEncoder(Encoder):
    """Hand-crafted descriptors with the interface of an encoder."""

    name = "spectral"
    revision = "spectral-1"              # increase it whenever a descriptor changes
    location = "spectral"
    sample_rate = SAMPLE_RATE
    layers = tuple(FAMILIES)
    dims = tuple(FAMILIES.values())
    default_layer = 0
    learned = False
    frame_samples = HOP
    frame_offset = 0

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) float32 at 24 kHz -> each family, pooled."""
        spans = keep or [(0, None)] * len(windows)
        by_window = [
            [family[:, slice(*span)] for family in describe(window)] for window, span in zip(windows, spans, strict=True)
        ]
        by_family = list(zip(*by_window, strict=True))               # [family][window]: (dim, frame)
        return Pooled(
            [np.stack([f.mean(axis=1) for f in family]) for family in by_family],
            [np.stack([f.max(axis=1) for f in family]) for family in by_family],
            np.array([window[0].shape[1] for window in by_window]),
            [[f.T.astype(np.float16) for f in by_family[i]] for i in frames],
        )


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
