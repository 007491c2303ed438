"""Decode audio files.  A path, a start and a length in seconds -> (samples,) float32, mono, at the requested rate.

WAV, FLAC, Ogg Vorbis and AIFF are read by libsndfile, the frames of mp3 and AAC and everything else by FFmpeg (PyAV); all in
blocks, so that memory does not grow with the file.  The content of the file decides which of them, never its name; if one
decoder fails, the next is tried.  Resampling is soxr HQ.  PyAV is used rather than torchcodec, which does not report gaps
between packets.

Reading from a time equals reading from the start and cutting: where a container cannot seek to an exact sample, the file is
decoded from its start.  The duration is what decodes, not what the header states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tonelake.ingest.containers import decoders
from tonelake.ingest.errors import AudioError
from tonelake.ingest.libraries import import_library
from tonelake.ingest.mono import MonoMix
from tonelake.ingest.readers import MAX_CHANNELS, DecoderError, Reader

DECODE_VERSION = 1                       # part of every clip id: raise it when decoding changes samples
RATES = (2_000, 6_000_000)               # Hz: from below old telephones to DSD 512, which FFmpeg decodes at 2.8 MHz
MAX_FILE_S = 12 * 3600.0                 # maximum read from one file
SHORT_S = 0.1                            # if more than this is missing, the seek went wrong


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An opened file, mixed to mono."""

    reader: Reader
    mix: MonoMix

    @property
    def rate(self) -> int:
        """Hz, of the first samples; later ones of another rate are resampled to it."""
        return self.reader.rate

    @property
    def channels(self) -> int:
        return self.reader.channels

    @property
    def promised_s(self) -> float | None:
        return self.reader.promised_s

    @property
    def first(self) -> int:
        """Number of the first sample of `blocks`, from the start of the file."""
        return self.reader.first

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode: (samples,) float32 at `rate`, at most MAX_FILE_S of the file."""
        left = round(MAX_FILE_S * self.rate) - self.first
        for block in self.mix:
            yield block[:left]
            left -= len(block)
            if left <= 0:
                return


def read_audio(path: Path, start_s: float, duration_s: float, rate: int, skip: int = 0) -> np.ndarray:
    """Part of a file as (samples,) float32 at `rate` Hz; shorter only if the file ends earlier.

    `skip`: number of decoders, of those that `decoders` lists, that are left out.  Raises AudioError if nothing decodes there.
    """
    failure: AudioError | None = None
    best, native = np.zeros(0, np.float32), 0
    for decoder in range(skip, len(decoders(path))):
        for seek in (True, False):
            # Seeking fails in some damaged files that decode completely from the start, as they did when they were scanned.
            if not seek and not start_s:
                continue
            try:
                samples, found = _read(path, start_s, duration_s, decoder, seek=seek)
            except DecoderError as error:
                failure = failure or error
                continue
            if len(samples) > len(best) or not native:
                best, native = samples, found
            if len(samples) >= (duration_s - SHORT_S) * found:
                return resample(samples, found, rate)
        if len(best):                    # the file ends there
            break
    if not len(best):
        raise failure or AudioError(f"{path.name}: nothing decodes at {start_s:.1f} s")
    return resample(best, native, rate)


def _read(path: Path, start_s: float, duration_s: float, decoder: int, *, seek: bool) -> tuple[np.ndarray, int]:
    """(samples,) float32 at the file's own rate, and that rate.  Without `seek`, decode from the start and drop a prefix."""
    with opened(path, start_s if seek else 0.0, decoder) as audio:
        if audio.first and start_s + duration_s > (audio.promised_s or np.inf) + SHORT_S:
            return np.zeros(0, np.float32), audio.rate               # a seek may land elsewhere
        wanted = round(duration_s * audio.rate)
        skip = round(start_s * audio.rate) - audio.first
        parts, count = [np.zeros(0, np.float32)], 0
        for block in audio.blocks():
            dropped = min(skip, len(block))
            skip -= dropped
            parts.append(block[dropped : dropped + wanted - count])
            count += len(parts[-1])
            if count >= wanted:
                break
        return np.concatenate(parts), audio.rate


def resample(samples: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """Resample by soxr HQ (aliases below -139 dB): (samples,) float32 in and out."""
    if rate_in == rate_out:
        return samples
    soxr = import_library("soxr")
    return soxr.resample(samples, rate_in, rate_out, quality="HQ")


@contextmanager
def opened(path: Path, start_s: float = 0.0, decoder: int = 0) -> Iterator[Opened]:
    """Open a file for reading from `start_s` or before, by one of its `decoders`.  Raises AudioError if that fails."""
    open_reader = decoders(path)[decoder]
    reader = open_reader(path, int(start_s))
    try:
        if not 1 <= reader.channels <= MAX_CHANNELS:
            raise AudioError(f"{path.name}: claims {reader.channels} channels; at most {MAX_CHANNELS} are read")
        if not RATES[0] <= reader.rate <= RATES[1]:                  # otherwise hours of sound could be seconds of noise
            raise AudioError(f"{path.name}: claims {reader.rate:,} samples a second; {RATES[0]:,} to {RATES[1]:,} are read")
        yield Opened(reader=reader, mix=MonoMix(reader.blocks, reader.rate, reader.first))
    finally:
        reader.close()
