"""Decode audio files.  A path, a start and a length in seconds -> (samples,) float32, mono, at the requested rate.

WAV, FLAC, Ogg Vorbis and AIFF are read by libsndfile, everything else by FFmpeg (PyAV); both in blocks, so that memory
does not grow with the file.  The content of the file decides which of the two, never its name.  Resampling is soxr HQ.
PyAV is used rather than torchcodec, which does not report gaps between packets.

Three rules that decoders break silently, each checked against librosa in the tests:
- time 0 of an mp3 with an encoder-delay tag is its stream's `start_time`, 25 ms in: seek and place samples by that;
- the duration is what decodes, not what the header states;
- stereo becomes mono by the mean of the channels (FFmpeg's own downmix is 1.41 times louder).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.ingest.containers import mp3_frames, ogg_is_chained, promised_seconds
from tonelake.ingest.errors import AudioError, DecoderStartError

DECODE_VERSION = 1                       # part of every clip id: raise it when decoding changes samples
MAX_CHANNELS = 8                         # PyAV crashes on planar frames beyond; an encrypted mp4 "has" 34
RATES = (2_000, 6_000_000)               # Hz: from below old telephones to DSD 512, which FFmpeg decodes at 2.8 MHz
MAX_FILE_S = 12 * 3600.0                 # maximum read from one file
PREROLL_S = 0.5                          # decoded and dropped after a seek: mp3's bit reservoir, AAC's overlap
SHORT_S = 0.1                            # if more than this is missing, the seek went wrong
MAX_GAP_S = 0.5                          # a longer jump between packets is more than jitter
MAX_HOLE_S = 900.0                       # longest gap that is filled; scan rejects gaps above 2 %, 864 s of the longest file
UNKNOWN_FRAMES = 1 << 62                 # libsndfile reports this, or 0, if the header has no length
PROTECTED = ("drms", "enca")             # sample entries of encrypted m4a, which decodes to noise
SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"FORM", b"riff")
LIBRARIES = ("soundfile", "av", "soxr")


@dataclass(kw_only=True)
class Blocks:
    """An opened file: its rate and channel count, and an iterator that decodes its samples."""

    rate: int                            # Hz
    channels: int
    promised_s: float | None             # by the header; None if it has no length
    blocks: Iterator[np.ndarray]         # (samples, channels) float32
    bad_packets: int = 0                 # counted while reading
    gap_s: float = 0.0                   # time missing between packets so far
    exact: bool = False                  # whether the header's length is exact to the sample
    chained: bool = False                # several streams in sequence, each with its own time stamps


def read_audio(path: Path, start_s: float, duration_s: float, rate: int) -> np.ndarray:
    """Part of a file as (samples,) float32 at `rate` Hz; shorter only if the file ends earlier.

    Raises AudioError if nothing decodes there.
    """
    samples, native = np.zeros(0, np.float32), 0
    try:
        samples, native = _read(path, start_s, duration_s)
    except AudioError:
        if not start_s:
            raise
    if not native or (start_s and len(samples) < (duration_s - SHORT_S) * native):
        # Seeking fails in some files, joined from several or damaged, that decode completely from the start, as they did when
        # they were scanned.
        longer, native = _read(path, start_s, duration_s, seek=False)
        samples = max(samples, longer, key=len)
    if not len(samples):
        raise AudioError(f"{path.name}: nothing decodes at {start_s:.1f} s")
    return resample(samples, native, rate)


def _read(path: Path, start_s: float, duration_s: float, *, seek: bool = True) -> tuple[np.ndarray, int]:
    """(samples,) float32 at the file's own rate, and that rate.  Without `seek`, decode from the start and drop a prefix."""
    with opened(path, start_s if seek else 0.0) as audio:
        beyond = start_s + duration_s > (audio.promised_s or np.inf) + SHORT_S
        if seek and start_s and (audio.chained or beyond):
            return np.zeros(0, np.float32), audio.rate               # a seek may land elsewhere
        wanted = round(duration_s * audio.rate)
        skip = 0 if seek else round(start_s * audio.rate)
        parts, count = [np.zeros(0, np.float32)], 0
        for block in audio.blocks:
            dropped = min(skip, len(block))
            skip -= dropped
            parts.append(to_mono(block[dropped : dropped + wanted - count]))
            count += len(parts[-1])
            if count >= wanted:
                break
        return np.concatenate(parts), audio.rate


def to_mono(block: np.ndarray) -> np.ndarray:
    """Mean of the channels: (samples, channels) -> (samples,)."""
    if block.shape[1] == 1:
        return block[:, 0]
    if block.shape[1] == 2:
        return (block[:, 0] + block[:, 1]) * np.float32(0.5)         # three times as fast as mean(axis=1)
    return block.mean(axis=1, dtype=np.float32)


def resample(samples: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """Resample by soxr HQ (aliases below -139 dB): (samples,) float32 in and out."""
    if rate_in == rate_out:
        return samples
    soxr = import_library("soxr")
    return soxr.resample(samples, rate_in, rate_out, quality="HQ")


def import_library(name: str) -> Any:
    """Import a decoding library.  Raises DecoderStartError if the installation lacks it or if it is broken."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:      # OSError: the package is installed, libsndfile is not
        raise DecoderStartError(
            f"{name}: cannot be imported ({error}). Check the installation with `tonelake doctor`"
        ) from error


def library_versions() -> dict[str, str]:
    """Versions of the decoding libraries by name.  Raises DecoderStartError if one cannot be imported."""
    return {name: str(import_library(name).__version__) for name in LIBRARIES}


@contextmanager
def opened(path: Path, start_s: float = 0.0) -> Iterator[Blocks]:
    """Open a file for reading from `start_s`.  Raises AudioError if it is not readable audio."""
    try:
        if path.is_dir():
            raise AudioError(f"{path.name}: is a folder named like an audio file")
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise AudioError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    if not head:
        raise AudioError(f"{path.name}: is empty (0 bytes)")
    chained = head.startswith(b"OggS") and ogg_is_chained(path)
    vorbis = head.startswith(b"OggS") and b"vorbis" in head and not chained      # libsndfile would read only the first stream
    if head.startswith(SNDFILE_MAGIC) or vorbis:
        audio, close = _open_sndfile(path, start_s)
        if audio is None:                # a RIFF with mp3 inside, an AIFF-C with a rare codec: FFmpeg may decode it
            audio, close = _open_ffmpeg(path, start_s)
    else:
        audio, close = _open_ffmpeg(path, start_s)
    audio.chained = chained
    try:
        if not 1 <= audio.channels <= MAX_CHANNELS:
            raise AudioError(f"{path.name}: claims {audio.channels} channels; at most {MAX_CHANNELS} are read")
        if not RATES[0] <= audio.rate <= RATES[1]:                   # otherwise hours of sound could be seconds of noise
            raise AudioError(f"{path.name}: claims {audio.rate:,} samples a second; {RATES[0]:,} to {RATES[1]:,} are read")
        yield audio
    finally:
        close()


def _open_sndfile(path: Path, start_s: float) -> tuple[Any, Any]:
    sf = import_library("soundfile")
    try:
        file = sf.SoundFile(os.fsencode(path))                       # bytes: the name may not be UTF-8
    except sf.LibsndfileError:
        return None, None
    if not 0 < file.frames < UNKNOWN_FRAMES:     # written as a stream: FFmpeg reads it to its end
        file.close()
        return None, None
    promised = file.frames / file.samplerate
    if file.format in ("WAV", "AIFF"):   # for these, libsndfile trims the header's length to the file's
        promised = promised_seconds(path, file.samplerate)
    audio = Blocks(
        rate=file.samplerate, channels=file.channels, promised_s=promised, blocks=iter(()), exact=file.format == "OGG"
    )

    def blocks() -> Iterator[np.ndarray]:
        left = round(MAX_FILE_S * file.samplerate)
        try:
            if start_s:
                file.seek(min(round(start_s * file.samplerate), file.frames))
            while left > 0:
                block = file.read(min(65_536, left), dtype="float32", always_2d=True)
                if not len(block):
                    return
                left -= len(block)
                yield block
        except (sf.LibsndfileError, RuntimeError) as error:
            at_s = (start_s or 0.0) + MAX_FILE_S - left / file.samplerate
            text = f"decoding fails at {at_s:.1f} s ({error}): the file is truncated or damaged"
            raise AudioError(f"{path.name}: {text}") from error

    audio.blocks = blocks()
    return audio, file.close


def _open_ffmpeg(path: Path, start_s: float) -> tuple[Blocks, Any]:
    av = import_library("av")
    av.logging.set_level(None)
    file = _ffmpeg_name(path)
    try:
        container = av.open(file, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        if not isinstance(file, str):
            file.close()
        raise AudioError(f"{path.name}: is not audio that can be read ({reason(error)})") from error

    def close() -> None:
        container.close()
        if not isinstance(file, str):
            file.close()

    stream = container.streams.audio[0] if container.streams.audio else None
    context = stream.codec_context if stream is not None else None
    if stream is None or context is None or not context.sample_rate or context.codec_tag in PROTECTED:
        close()
        raise AudioError(f"{path.name}: has no audio, or its codec is unknown or encrypted (DRM)")
    base = stream.time_base or Fraction(1, context.sample_rate)
    origin = stream.start_time or 0                                  # pts of time 0; see the module docstring
    promised: float | None = container.duration / 1e6 if container.duration else None
    if stream.duration:
        promised = float(stream.duration * base)
    if container.format.name in ("mp3", "aac"):
        # Without a frame count FFmpeg guesses the length from the bit rate of the first frames, which is far off if the rate
        # varies.  It is also wrong if files were joined: only the first is counted, and seeking does not reach the others.
        counted = mp3_frames(path)
        length = (1152 if context.sample_rate >= 32_000 else 576) / context.sample_rate
        promised = min(promised or np.inf, counted * length) if counted else None
    audio = Blocks(rate=context.sample_rate, channels=context.channels, promised_s=promised, blocks=iter(()))

    def frames() -> Iterator[Any]:
        decoded, trouble = False, None
        try:
            if start_s > PREROLL_S:
                container.seek(origin + round((start_s - PREROLL_S) / base), stream=stream)
            for packet in container.demux(stream):
                try:
                    for frame in packet.decode():
                        decoded = True
                        yield frame
                except av.error.MemoryError:
                    raise
                except av.error.FFmpegError as error:                # concerns this packet only
                    audio.bad_packets += 1
                    trouble = error
            if trouble is not None and not decoded:
                raise trouble
        except av.error.FFmpegError as error:
            raise AudioError(f"{path.name}: decoding fails ({reason(error)})") from error

    first = round(start_s * audio.rate)                              # first sample that the caller wants
    audio.blocks = _place(path.name, frames(), audio, first, lambda pts: round((pts - origin) * base * audio.rate))
    return audio, close


def _place(
    name: str, frames: Iterator[Any], audio: Blocks, first: int, sample_at: Callable[[int], int]
) -> Iterator[np.ndarray]:
    """Decoded frames as blocks from sample `first` on; `sample_at` maps a time stamp to the number of a sample.

    Gaps are filled with silence, so that later samples have the right time wherever reading began.
    """
    position: int | None = None                                      # sample at which the next block should begin
    bad_before = 0
    left = round(MAX_FILE_S * audio.rate)
    for frame in frames:
        channels = frame.layout.nb_channels
        if channels != audio.channels or channels > MAX_CHANNELS:
            raise AudioError(
                f"{name}: changes from {audio.channels} to {channels} channels midway: it is damaged or encrypted"
            )
        # AAC and Opus begin before time 0: their first samples are the encoder's warm-up.
        at = (position or 0) if frame.pts is None else sample_at(frame.pts)
        # Frames are joined without gaps, ignoring the rounding of their time stamps.  A time stamp places only the first frame
        # and one that follows a missing or undecodable packet.
        expected = first if position is None else position
        missing = 0 if audio.chained else at - expected
        if missing > MAX_GAP_S * audio.rate or (missing > 0 and audio.bad_packets > bad_before):
            if missing > MAX_HOLE_S * audio.rate:
                raise AudioError(f"{name}: {missing / audio.rate:,.0f} s are missing inside: the file is damaged")
            audio.gap_s += missing / audio.rate
            position = expected
        else:
            missing = 0
            position = at if position is None else position
        bad_before = audio.bad_packets
        for block in (*_silence(missing, channels), to_float(frame)):
            position += len(block)
            kept = block[max(len(block) - (position - first), 0) :][:left]
            left -= len(kept)
            if len(kept):
                yield kept
        if left <= 0:
            return


def _silence(samples: int, channels: int) -> Iterator[np.ndarray]:
    while samples > 0:
        yield np.zeros((min(samples, 65_536), channels), np.float32)
        samples -= 65_536


def _ffmpeg_name(path: Path) -> Any:
    """The argument for FFmpeg: a `file:` URL, so that a colon in the name does not make it a protocol; an open file if the
    name is not UTF-8."""
    try:
        return "file:" + str(path).encode("utf-8").decode()
    except UnicodeEncodeError:
        return path.open("rb")


def to_float(frame: Any) -> np.ndarray:
    """A decoded frame as (samples, channels) float32 in [-1, 1]."""
    samples = frame.to_ndarray()
    channels = frame.layout.nb_channels
    samples = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype.kind == "i":
        return samples.astype(np.float32) * np.float32(1 / 2 ** (8 * samples.dtype.itemsize - 1))
    return np.ascontiguousarray(samples, dtype=np.float32)


def reason(error: BaseException) -> str:
    """FFmpeg's message without error number and path."""
    return str(getattr(error, "strerror", None) or error).split(":")[0].removeprefix("[Errno ")
