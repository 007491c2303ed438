"""Audio files to samples.  A path, a start and a length in seconds -> (samples,) float32, mono, at the rate asked.

WAV, FLAC, Ogg Vorbis and AIFF are read by libsndfile, everything else by FFmpeg (PyAV); both in blocks, so that memory
does not grow with the file.  Which of the two is decided by what is in the file, never by its name.  Resampling is soxr HQ.

Three rules that decoders break silently, each checked against librosa in the tests:
- time 0 of an mp3 with an encoder-delay tag is its stream's `start_time`, 25 ms in: seek and place by that;
- the duration is what decodes, not what the header says;
- stereo becomes mono by the mean of the channels (FFmpeg's own downmix is 1.41 times louder).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.ingest.containers import mp3_frames, ogg_is_chained, promised_seconds
from tonelake.ingest.errors import AudioError

DECODE_VERSION = 1                       # part of every clip id: raise it when decoding gives other samples
MAX_CHANNELS = 8                         # PyAV crashes on planar frames beyond; an encrypted mp4 "has" 34
RATES = (2_000, 6_000_000)               # Hz: from below the oldest telephone to DSD 512, of which FFmpeg makes 2.8 MHz
MAX_FILE_S = 12 * 3600.0                 # seconds read of one file at the most
PREROLL_S = 0.5                          # decoded and thrown away before a seek: mp3's bit reservoir, AAC's overlap
SHORT_S = 0.1                            # more than this is missing where reading began in the wrong place
MAX_GAP_S = 0.5                          # a jump between packets that is more than jitter
MAX_HOLE_S = 900.0                       # more than is let pass in the longest of files
UNKNOWN_FRAMES = 1 << 62                 # libsndfile says so, or 0, where the header gives no length
PROTECTED = ("drms", "enca")             # sample entries of encrypted m4a: what "decodes" is noise
SNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"FORM", b"riff")


@dataclass
class Blocks:
    """An opened file: its rate and channel count, and its samples as they are decoded."""

    rate: int                            # Hz
    channels: int
    promised_s: float | None             # what the header says; None where it says nothing
    blocks: Iterator[np.ndarray]         # (samples, channels) float32
    bad_packets: int = 0                 # counted while reading
    gap_s: float = 0.0                   # time missing between packets, so far
    exact: bool = False                  # whether the promise is good to the sample
    chained: bool = False                # several streams, one after the other, each with time stamps of its own


def read_audio(path: Path, start_s: float, duration_s: float, rate: int) -> np.ndarray:
    """Part of a file as (samples,) float32 at `rate` Hz; shorter only where the file ends earlier.

    Raises AudioError where nothing decodes there.
    """
    samples, native = np.zeros(0, np.float32), 0
    try:
        samples, native = _read(path, start_s, duration_s)
    except AudioError:
        if not start_s:
            raise
    if not native or (start_s and len(samples) < (duration_s - SHORT_S) * native):
        # In some files, joined from several or damaged, no way leads into the middle; but all decodes from the beginning on, as
        # it did when the file was scanned.
        longer, native = _read(path, start_s, duration_s, seek=False)
        samples = max(samples, longer, key=len)
    if not len(samples):
        raise AudioError(f"{path.name}: nothing decodes at {start_s:.1f} s")
    return resample(samples, native, rate)


def _read(path: Path, start_s: float, duration_s: float, *, seek: bool = True) -> tuple[np.ndarray, int]:
    """(samples,) float32 at the file's own rate, and that rate; without `seek`, what comes before is decoded and dropped."""
    with opened(path, start_s if seek else 0.0) as audio:
        beyond = start_s + duration_s > (audio.promised_s or np.inf) + SHORT_S
        if seek and start_s and (audio.chained or beyond):
            return np.zeros(0, np.float32), audio.rate               # whatever is found there need not be what was asked for
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
    """The mean of the channels: (samples, channels) -> (samples,)."""
    if block.shape[1] == 1:
        return block[:, 0]
    if block.shape[1] == 2:
        return (block[:, 0] + block[:, 1]) * np.float32(0.5)         # three times as fast as mean(axis=1)
    return block.mean(axis=1, dtype=np.float32)


def resample(samples: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """soxr HQ: alias below -139 dB, (samples,) float32 in and out."""
    if rate_in == rate_out:
        return samples
    import soxr

    return soxr.resample(samples, rate_in, rate_out, quality="HQ")


@contextmanager
def opened(path: Path, start_s: float = 0.0) -> Iterator[Blocks]:
    """Open a file for reading from `start_s`.  Raises AudioError where it is no audio that can be read."""
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
    vorbis = head.startswith(b"OggS") and b"vorbis" in head and not chained      # of which libsndfile reads the first link
    if head.startswith(SNDFILE_MAGIC) or vorbis:
        audio, close = _open_sndfile(path, start_s)
        if audio is None:                # a RIFF that holds mp3, an AIFF-C of an exotic codec: FFmpeg may know it
            audio, close = _open_ffmpeg(path, start_s)
    else:
        audio, close = _open_ffmpeg(path, start_s)
    audio.chained = chained
    try:
        if not 1 <= audio.channels <= MAX_CHANNELS:
            raise AudioError(f"{path.name}: claims {audio.channels} channels; at most {MAX_CHANNELS} are read")
        if not RATES[0] <= audio.rate <= RATES[1]:                   # else seconds of noise pass for hours of sound
            raise AudioError(f"{path.name}: claims {audio.rate:,} samples a second; {RATES[0]:,} to {RATES[1]:,} are read")
        yield audio
    finally:
        close()


def _open_sndfile(path: Path, start_s: float) -> tuple[Any, Any]:
    import soundfile as sf

    try:
        file = sf.SoundFile(os.fsencode(path))                       # bytes: a name need not be UTF-8
    except sf.LibsndfileError:
        return None, None
    if not 0 < file.frames < UNKNOWN_FRAMES:     # written as a stream: FFmpeg reads such a file to its end
        file.close()
        return None, None
    promised = file.frames / file.samplerate
    if file.format in ("WAV", "AIFF"):   # there libsndfile trims what the header says to what the file has
        promised = promised_seconds(path, file.samplerate)
    audio = Blocks(file.samplerate, file.channels, promised, iter(()), exact=file.format == "OGG")

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
    import av

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
    origin = stream.start_time or 0                                  # pts of time 0; see the module's docstring
    promised: float | None = container.duration / 1e6 if container.duration else None
    if stream.duration:
        promised = float(stream.duration * base)
    if container.format.name in ("mp3", "aac"):
        # FFmpeg guesses from the first frames' bit rate where none are counted, which is far off where the rate varies, and
        # where files were joined, of which the first is counted alone: there nothing leads to the others.
        frames_told = mp3_frames(path)
        length = (1152 if context.sample_rate >= 32_000 else 576) / context.sample_rate
        promised = min(promised or np.inf, frames_told * length) if frames_told else None
    audio = Blocks(context.sample_rate, context.channels, promised, iter(()))

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
                except av.error.FFmpegError as error:                # of this packet alone
                    audio.bad_packets += 1
                    trouble = error
            if trouble is not None and not decoded:
                raise trouble
        except av.error.FFmpegError as error:
            raise AudioError(f"{path.name}: decoding fails ({reason(error)})") from error

    first = round(start_s * audio.rate)                              # sample the caller wants first
    audio.blocks = _place(path.name, frames(), audio, first, lambda pts: round((pts - origin) * base * audio.rate))
    return audio, close


def _place(
    name: str, frames: Iterator[Any], audio: Blocks, first: int, sample_at: Callable[[int], int]
) -> Iterator[np.ndarray]:
    """Decoded frames as blocks from sample `first` on; `sample_at` turns a time stamp into a sample's number.

    What is missing between them is silence, so that what follows stands at its time wherever reading began.
    """
    position: int | None = None                                      # sample the next block should begin at
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
        # Frames follow each other without the rounding of their time stamps, which place the first one, and what comes after
        # something that is not there or did not decode.
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
    """What FFmpeg opens: `file:` keeps a name with a colon from being a protocol; an open file where the name is not
    UTF-8."""
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
    """FFmpeg's words without its error number and path."""
    return str(getattr(error, "strerror", None) or error).split(":")[0].removeprefix("[Errno ")
