"""A lake of two performances with frames, tokens and gestures, and the sound of one that is played to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from fakes import FakeEncoder
from sounds import write

import tonelake
from tonelake.index.gestures.onsets import RATE

TIMES = (0.3, 0.55, 1.05, 1.3, 2.3)      # onsets
PITCHES = (55, 60, 62, 64, 67)
END_S = 3.3


def tone(pitch: float, seconds: float, amplitude: float = 0.1) -> np.ndarray:
    """Ten harmonics with amplitudes 1/n."""
    time = np.arange(round(seconds * RATE)) / RATE
    hz = 440 * 2 ** ((pitch - 69) / 12)
    return amplitude * sum(np.sin(2 * np.pi * hz * n * time) / n for n in range(1, 11))


def performance(pitches=PITCHES, times=TIMES, end_s: float = END_S) -> np.ndarray:
    """Decaying tones over faint noise: (samples,) float32 at RATE."""
    sound = 1e-4 * np.random.default_rng(0).standard_normal(round(end_s * RATE))
    for pitch, start, end in zip(pitches, times, (*times[1:], end_s), strict=True):
        note = tone(pitch, end - start)
        note *= np.exp(-3 * np.arange(len(note)) / RATE)
        at = round(start * RATE)
        sound[at : at + len(note)] += note[: len(sound) - at]
    return sound.astype(np.float32)


def make_lake(home: Path, tokens: int = 8) -> tonelake.Lake:
    """A lake with two performances, `one.wav` and its pitches backwards in `two.wav`, and the vocabulary `sounds`."""
    write(home / "music" / "one.wav", performance()[:, None], RATE)
    write(home / "music" / "two.wav", performance(PITCHES[::-1])[:, None], RATE)
    lake = tonelake.open(home / "lake", progress=False)
    lake.ingest_folder(home / "music", workers=1)
    lake.embed(f"fakes:{FakeEncoder.__name__}", frames=["high"], workers=1)
    lake.fit_vocabulary(k=tokens, layer="high", name="sounds")
    lake.apply_vocabulary()
    lake.compute_gestures(workers=1)
    return lake
