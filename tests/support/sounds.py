"""Audio for tests: made when needed, the same each time, and different for each seed."""

from __future__ import annotations

import functools
import hashlib
import io
from fractions import Fraction
from pathlib import Path

import numpy as np

RATE = 44_100


def melody(seconds: float, seed: int = 0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A run of random tones with a few partials: (samples, channels) float32, peak below 0.7."""
    return _melody(seconds, seed, rate, channels).copy()


@functools.lru_cache(maxsize=16)
def _melody(seconds: float, seed: int, rate: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * rate)) / rate
    note = np.minimum((time_s / 0.25).astype(int), 10_000)
    pitches = 220 * 2 ** (rng.integers(0, 24, 10_001) / 12)
    loud = 0.2 + 0.25 * rng.random(10_001)
    phase = 2 * np.pi * np.cumsum(pitches[note]) / rate
    sound = loud[note] * (np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.1 * np.sin(3 * phase))
    sides = [sound * (1 - 0.3 * c / max(channels, 1)) for c in range(channels)]
    return np.stack(sides, axis=1).astype(np.float32)


def write(path: Path, sound: np.ndarray, rate: int = RATE, subtype: str | None = None,
          tags: dict[str, str] | None = None) -> Path:
    """Write by libsndfile (wav, flac, ogg, aiff), with tags, in the format of the ending.  Vorbis made before is copied from
    memory: encoding it takes as long as that of FFmpeg's formats."""
    import soundfile as sf

    path.parent.mkdir(parents=True, exist_ok=True)
    key = made_of(sound, path.suffix, rate, subtype, tags) if path.suffix == ".ogg" else b""
    if key in _encoded:
        path.write_bytes(_encoded[key])
        return path
    with sf.SoundFile(path, "w", rate, sound.shape[1], subtype=subtype) as file:
        for name, text in (tags or {}).items():
            setattr(file, name, text)
        for first in range(0, len(sound), RATE):                     # libsndfile crashes over a minute of Vorbis at once
            file.write(sound[first : first + RATE])
    if key:
        _encoded[key] = path.read_bytes()
    return path


def made_of(sound: np.ndarray, *settings: object) -> bytes:
    """A key of a sound and of how it is encoded."""
    described = repr((sound.shape, sound.dtype, *settings)).encode()
    return hashlib.blake2b(np.ascontiguousarray(sound).tobytes() + described).digest()


CODECS = {".mp3": ("mp3", "libmp3lame"), ".m4a": ("ipod", "aac"), ".opus": ("ogg", "libopus")}


def encode(path: Path, sound: np.ndarray, rate: int = RATE, tags: dict[str, str] | None = None,
           options: dict[str, str] | None = None, bit_rate: int = 128_000) -> Path:
    """Write by FFmpeg (mp3, m4a, opus), with tags, in the format of the ending.  A file made before is copied from memory."""
    key = made_of(sound, path.suffix, rate, tags, options, bit_rate)
    if key not in _encoded:
        _encoded[key] = _encode(path.suffix, sound, rate, tags or {}, options or {}, bit_rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encoded[key])
    return path


_encoded: dict[bytes, bytes] = {}


def _encode(suffix: str, sound: np.ndarray, rate: int, tags: dict[str, str], options: dict[str, str], bit_rate: int) -> bytes:
    import av

    container, codec = CODECS[suffix]
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as out:
        out.metadata.update(tags)
        target = 48_000 if codec == "libopus" else rate
        layout = "mono" if sound.shape[1] == 1 else "stereo"
        stream = out.add_stream(codec, rate=target, layout=layout)
        stream.bit_rate = bit_rate
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=target, frame_size=stream.frame_size or 0)
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), format="fltp", layout=layout)
        whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
        for frame in (*resampler.resample(whole), *resampler.resample(None)):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()
