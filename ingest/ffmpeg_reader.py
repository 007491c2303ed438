"""Decode by FFmpeg (PyAV): every container that libsndfile does not read.

Two rules that decoders break silently, each checked against librosa in the tests:
- time 0 is the stream's `start_time`, which need not be 0: place samples by that;
- stereo becomes mono by the mean of the channels (FFmpeg's own downmix is 1.41 times louder), so channels are kept here.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.ingest.flac_frames import frame_start
from tonelake.ingest.libraries import import_library
from tonelake.ingest.mono import Block
from tonelake.ingest.readers import MAX_CHANNELS, MAX_GAP_S, MAX_HOLE_S, DecoderError, Reader

PREROLL_S = 0.5                          # decoded and dropped after a seek: AAC's overlap, Opus's convergence
PROTECTED = ("drms", "enca")             # sample entries of encrypted m4a, which decodes to noise
DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
# Containers in which a seek lands on an exact sample.  Elsewhere time stamps are milliseconds (Matroska), or guesses.
EXACT_SEEKS = ("mov,mp4,m4a,3gp,3g2,mj2", "ogg", "wav", "w64", "aiff", "caf", "au")
STATES_LENGTH = (
    "mov,mp4,m4a,3gp,3g2,mj2", "wv", "tta", "ape", "flac", "tak", "mpc", "mpc8", "dsf", "iff", "wav", "aiff", "w64",
)
STATES_LAST = ("matroska,webm",)         # the time at which the last sample ends
EXACT_CODECS = ("aac", "alac", "opus", "vorbis")         # besides PCM


def open_ffmpeg(
    path: Path, first_s: int = 0, *, part: tuple[int, int] | None = None, promised_s: float | None = None,
    trust_container: bool = True, last_granules: list[int] | None = None, in_order: bool = False,
) -> Reader:
    """Open a file, or its bytes `part`, from second `first_s`, or from the start where a seek would not be exact.

    `promised_s`: exact length; if None, the container's, if `trust_container`.  `last_granules`: granule positions of the last
    pages of an Ogg stream, from which its length follows.  A seek into the last of them is not exact.
    `in_order`: ignore time stamps, since nothing is missing.
    Raises DecoderError if FFmpeg does not read it.
    """
    av = import_library("av")
    av.logging.set_level(None)
    file = file_argument(path, part)
    try:
        container = av.open(file, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        if not isinstance(file, str):
            file.close()
        raise DecoderError(f"{path.name}: is not audio that can be read ({reason(error)})") from error

    def close() -> None:
        container.close()
        if not isinstance(file, str):
            file.close()

    stream = container.streams.audio[0] if container.streams.audio else None
    context = stream.codec_context if stream is not None else None
    if stream is None or context is None or not context.sample_rate or _codec_tag(context) in PROTECTED:
        close()
        raise DecoderError(f"{path.name}: has no audio, or its codec is unknown or encrypted (DRM)")
    rate = context.sample_rate
    base = stream.time_base or Fraction(1, rate)
    origin = stream.start_time or 0                                  # time stamp of time 0; see the module docstring
    if last_granules:
        promised_s = max(0.0, float((last_granules[-1] - origin) * base))
    elif promised_s is None and trust_container:
        promised_s = _promised_s(container, stream, base)
    if not _seeks_exactly(container.format.name, context.name, base * rate):
        first_s = 0
    seek_s = first_s - PREROLL_S
    if last_granules and first_s:
        seek_s = min(seek_s, float((last_granules[-3] - origin) * base) - PREROLL_S) if len(last_granules) > 2 else 0.0
    reader = Reader(
        rate=rate, channels=context.channels, promised_s=promised_s, blocks=iter(()), first=first_s * rate, close=close
    )

    # FFmpeg adds up the lengths of FLAC's frames, whose headers say where they belong even if others were lost.
    is_flac = container.format.name == "flac" and context.extradata
    flac_block = int.from_bytes(context.extradata[2:4], "big") if is_flac else None

    def frames() -> Iterator[Any]:
        decoded, failed, trouble = False, 0, None
        try:
            if seek_s > 0:
                container.seek(origin + int(seek_s / base), stream=stream)
            for packet in container.demux(stream):
                numbered = None if flac_block is None else frame_start(bytes(packet)[:16], flac_block)
                try:
                    for frame in packet.decode():
                        if numbered is not None:
                            frame.pts = numbered
                        reader.bad_packets += failed if decoded else 0           # an error with audio behind it is damage
                        decoded, failed = True, 0
                        yield frame
                except av.error.MemoryError:
                    raise
                except av.error.FFmpegError as error:                # concerns this packet only
                    failed += 1
                    trouble = error
            if trouble is not None and not decoded:
                raise trouble
        except av.error.FFmpegError as error:
            if not decoded:
                raise DecoderError(f"{path.name}: decoding fails ({reason(error)})") from error
            if not isinstance(error, BlockingIOError):               # "try again": FFmpeg waits for more, behind the end
                reader.stopped = reason(error)                       # by junk behind the audio, or by the rest of it

    numbered = flac_block is not None
    reader.blocks = _place(path.name, frames(), reader, in_order, numbered, lambda pts: round((pts - origin) * base * rate))
    return reader


def _codec_tag(context: Any) -> str:
    """Four letters of a container's codec; empty if they are not letters."""
    try:
        return str(context.codec_tag)
    except UnicodeDecodeError:
        return ""


def _seeks_exactly(container: str, codec: str, samples_a_tick: Fraction) -> bool:
    """Whether a seek leads to the samples that decoding from the start gives, and time stamps are whole samples."""
    return (
        container in EXACT_SEEKS and (codec in EXACT_CODECS or codec.startswith("pcm_")) and samples_a_tick.denominator == 1
    )


def _promised_s(container: Any, stream: Any, base: Fraction) -> float | None:
    """Length by the container, where it is exact: elsewhere FFmpeg guesses it from the bit rate or the file's size."""
    if container.format.name in STATES_LAST:
        late_s = max(0.0, float((stream.start_time or 0) * base))
        return container.duration / 1e6 - late_s if container.duration else None
    if container.format.name not in STATES_LENGTH:
        return None
    if stream.duration:
        return float(stream.duration * base)
    return container.duration / 1e6 if container.duration else None


def _place(
    name: str, frames: Iterator[Any], reader: Reader, in_order: bool, numbered: bool, sample_at: Callable[[int], int]
) -> Iterator[Block]:
    """Decoded frames as blocks from sample `reader.first` on; `sample_at` maps a time stamp to the number of a sample.
    `numbered`: time stamps are exact, so that the shortest gap is one.

    Gaps are filled with silence, so that later samples have the right time wherever reading began.
    """
    first, rate = reader.first, reader.rate
    position: int | None = None                                      # sample at which the next block should begin
    bad_before, late, timed = 0, 0, False
    jitter = 0 if numbered else MAX_GAP_S * rate
    for frame in frames:
        block = to_float(frame, name)
        if first and (frame.sample_rate != rate or (position is None and frame.pts is None)):
            raise DecoderError(f"{name}: has no time stamp at {first / rate:.0f} s")
        if frame.sample_rate != rate:                                # time stamps count other samples: keep the order only
            yield frame.sample_rate, block
            in_order = True
            continue
        # AAC and Opus begin before time 0: their first samples are the encoder's warm-up.
        at = (position or 0) if frame.pts is None else sample_at(frame.pts) - late
        if not timed and frame.pts is not None:
            timed = True
            if not first and at > (position or 0) and not reader.bad_packets:    # time 0 is the first sample, wherever time
                late, at = at - (position or 0), position or 0                   # stamps begin
        # Frames are joined without gaps, ignoring the rounding of their time stamps.  A time stamp places only the first frame
        # and one that follows a missing or undecodable packet.
        expected = first if position is None else position
        missing = 0 if in_order else at - expected
        if missing > jitter or (missing > 0 and reader.bad_packets > bad_before):
            if missing > MAX_HOLE_S * rate:
                raise DecoderError(f"{name}: {missing / rate:,.0f} s are missing inside: the file is damaged")
            reader.gap_s += missing / rate
            position = expected
        else:
            missing = 0
            position = at if position is None else position
        bad_before = reader.bad_packets
        for part in (*silence(missing, block.shape[1]), block):
            position += len(part)
            kept = part[max(len(part) - (position - first), 0) :]
            if len(kept):
                yield rate, kept


def silence(samples: int, channels: int) -> Iterator[np.ndarray]:
    """Blocks of silence, (samples, channels) float32."""
    while samples > 0:
        yield np.zeros((min(samples, 65_536), channels), np.float32)
        samples -= 65_536


def file_argument(path: Path, part: tuple[int, int] | None) -> Any:
    """The argument for FFmpeg: a `file:` URL, so that a colon in the name does not make it a protocol; an open file if the
    name is not UTF-8."""
    limits = f"subfile,,start,{part[0]},end,{part[1]},,:" if part else ""
    try:
        return f"{limits}file:" + str(path).encode("utf-8").decode()
    except UnicodeEncodeError:
        return path.open("rb") if part is None else PartOfFile(path, *part)


class PartOfFile(io.RawIOBase):
    """Some bytes of a file, as a file."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        self._file, self._start, self._size, self._at = path.open("rb"), start, end - start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence] + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        data = self._file.read(max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def to_float(frame: Any, name: str) -> np.ndarray:
    """A decoded frame as (samples, channels) float32 in [-1, 1].

    Planes are read one by one: `AudioFrame.to_ndarray` reads beyond the last of eight, and crashes.
    """
    plane: Any = import_library("av.audio.plane").AudioPlane
    channels, count = frame.layout.nb_channels, frame.samples
    if not 1 <= channels <= MAX_CHANNELS:
        raise DecoderError(
            f"{name}: decodes to {channels} channels; at most {MAX_CHANNELS} are read. It is damaged or encrypted"
        )
    kind = frame.format.name.removesuffix("p")
    if kind not in DTYPES:
        raise DecoderError(f"{name}: holds samples of the kind {kind!r}, which are not read")
    dtype = np.dtype(DTYPES[kind])
    if frame.format.is_planar:
        samples = np.empty((count, channels), dtype)
        for channel in range(channels):
            samples[:, channel] = np.frombuffer(plane(frame, channel), dtype, count)
    else:
        samples = np.frombuffer(plane(frame, 0), dtype, count * channels).reshape(count, channels)
    if dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    if dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / np.float32(128)
    return samples.astype(np.float32) * np.float32(1 / 2 ** (8 * dtype.itemsize - 1))


def reason(error: BaseException) -> str:
    """FFmpeg's message without error number and path."""
    return str(getattr(error, "strerror", None) or error).split(":")[0].removeprefix("[Errno ")
