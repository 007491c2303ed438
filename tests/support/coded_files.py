"""Files of every container that libsndfile and FFmpeg write, as bytes; Ogg pages and mp3 frames taken apart.

Sources: RFC 3533 (Ogg), RFC 7845 (Opus in Ogg), ISO 11172-3 (mp3 frames), the Xing and VBRI headers.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


def by_sndfile(sound: np.ndarray, rate: int, container: str, subtype: str, **more: Any) -> bytes:
    """Encode (samples, channels) by libsndfile."""
    import soundfile as sf

    out = io.BytesIO()
    with sf.SoundFile(out, "w", rate, sound.shape[1], format=container, subtype=subtype, **more) as file:
        for first in range(0, len(sound), rate):                     # libsndfile crashes over a minute of Vorbis at once
            file.write(sound[first : first + rate])
    return out.getvalue()


def by_ffmpeg(sound: np.ndarray, rate: int, container: str, codec: str, *, bit_rate: int | None = None,
              options: dict[str, str] | None = None, codec_options: dict[str, str] | None = None, start_s: float = 0.0,
              quality: int | None = None, sample_format: str | None = None, seekable: bool = True,
              extra_streams: Iterable[str] = (), comment: str = "") -> bytes:
    """Encode (samples, channels) by FFmpeg.

    `bit_rate`: of up to three channels, in bit/s.  `start_s`: time stamp of the first sample.  `seekable`: whether the muxer
    may return to the header, as in a file rather than a pipe.  `extra_streams`: "video" and "cover" add one before the sound.
    `comment`: a tag.
    """
    import av

    av.logging.set_level(None)
    layout = LAYOUTS[sound.shape[1]]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        out = str(folder / "file") if seekable else _Pipe()          # some muxers open the file again: it needs a name
        file = stack.enter_context(av.open(out, "w", format=container, options=options or {}))
        file.metadata.update({"comment": comment} if comment else {})
        pictures = [_add_picture(file, kind) for kind in extra_streams]
        stream = file.add_stream(codec, rate=rate, layout=layout, options=codec_options or {})
        if sample_format:
            stream.format = sample_format
        if bit_rate:
            stream.bit_rate = bit_rate * max(sound.shape[1] // 2, 1)
        if quality is not None:
            stream.codec_context.qscale = True
            stream.codec_context.global_quality = quality * 118
        resampler = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 1024)
        packed = np.ascontiguousarray(sound.astype(np.float32).reshape(1, -1))           # PyAV takes at most 7 planes
        whole = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        whole.sample_rate, whole.time_base, whole.pts = rate, Fraction(1, rate), round(start_s * rate)
        for picture, frame in pictures:
            file.mux(picture.encode(frame))
        for frame in (*resampler.resample(whole), *resampler.resample(None)) if len(sound) else ():
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        for picture, _ in pictures:
            file.mux(picture.encode(None))
        file.close()
        return (folder / "file").read_bytes() if isinstance(out, str) else out.getvalue()


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    seek = None                          # PyAV asks whether there is a method


def _add_picture(file: Any, kind: str) -> tuple[Any, Any]:
    import av

    stream = file.add_stream("mjpeg" if kind == "cover" else "mpeg4", rate=1, options={})
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p" if kind == "cover" else "yuv420p"
    frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24").reformat(format=stream.pix_fmt)
    frame.pts = 0
    return stream, frame


# Ogg

@dataclass(frozen=True)
class Page:
    """A page of an Ogg stream.  `flags`: 1 continued, 2 first, 4 last; `granule` is -1 if no packet ends on the page."""

    flags: int
    granule: int
    serial: int
    number: int
    lacing: bytes
    body: bytes

    def to_bytes(self) -> bytes:
        head = struct.pack("<4sBBqIII", b"OggS", 0, self.flags, self.granule, self.serial, self.number, 0)
        page = head + bytes([len(self.lacing)]) + self.lacing + self.body
        return page[:22] + struct.pack("<I", _crc(page)) + page[26:]


def ogg_pages(data: bytes) -> Iterator[Page]:
    at = 0
    while at + 27 <= len(data):
        _, _, flags, granule, serial, number, _, segments = struct.unpack_from("<4sBBqIIIB", data, at)
        lacing = data[at + 27 : at + 27 + segments]
        start = at + 27 + segments
        yield Page(flags, granule, serial, number, lacing, data[start : start + sum(lacing)])
        at = start + sum(lacing)


def with_granules(data: bytes, offset: int, *, end: int | None = None) -> bytes:
    """An Ogg stream with `offset` added to the time of every page of sound; `end` replaces the last page's time."""
    pages = list(ogg_pages(data))
    moved = [page if page.granule <= 0 else replace(page, granule=page.granule + offset) for page in pages]
    if end is not None:
        moved[-1] = replace(moved[-1], granule=end)
    return b"".join(page.to_bytes() for page in moved)


def multiplexed(data: bytes, other: bytes) -> bytes:
    """Two Ogg streams at a time: both first pages, then a page of each in turn, as beside a video or a Skeleton."""
    mine, theirs = list(ogg_pages(data)), list(ogg_pages(other))
    pages = [page for pair in zip_longest(mine, theirs) for page in pair if page is not None]
    return b"".join(page.to_bytes() for page in pages)


def with_serial(data: bytes, serial: int) -> bytes:
    return b"".join(replace(page, serial=serial).to_bytes() for page in ogg_pages(data))


_CRC_TABLE = []
for _index in range(256):
    _value = _index << 24
    for _ in range(8):
        _value = (_value << 1) ^ (0x04C11DB7 if _value & 0x80000000 else 0)
    _CRC_TABLE.append(_value & 0xFFFFFFFF)


def _crc(page: bytes) -> int:
    value = 0
    for byte in page:
        value = ((value << 8) & 0xFFFFFFFF) ^ _CRC_TABLE[(value >> 24) ^ byte]
    return value


# mp3

BIT_RATES = {  # kbit/s by index, layer III
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}       # by the version's bits


def mp3_frames(data: bytes) -> list[bytes]:
    """The frames of layer III of a bare mp3, in order, the one with the Xing header included."""
    found, at = [], 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        version, bit_rate, rate = (data[at + 1] >> 3) & 3, data[at + 2] >> 4, (data[at + 2] >> 2) & 3
        kbit = BIT_RATES[1 if version == 3 else 2][bit_rate]
        size = (144 if version == 3 else 72) * kbit * 1000 // RATES[version][rate] + ((data[at + 2] >> 1) & 1)
        found.append(data[at : at + size])
        at += size
    return found


def with_xing_frames(data: bytes, frames: int) -> bytes:
    """An mp3 with another number of frames in its Xing or Info header."""
    at = max(data.find(b"Xing", 0, 4096), data.find(b"Info", 0, 4096))
    assert at > 0
    return data[: at + 8] + struct.pack(">I", frames) + data[at + 12 :]


def with_vbri(data: bytes) -> bytes:
    """An mp3 whose Xing header is replaced by one of Fraunhofer's encoder, which counts frames without the delay."""
    frames = mp3_frames(data)
    head = frames[0][:4] + bytes(32) + b"VBRI" + struct.pack(">HHHII", 1, 0, 75, sum(map(len, frames)), len(frames) - 1)
    head += struct.pack(">HHHH", 0, 1, 2, len(frames))
    return head.ljust(len(frames[0]), b"\0") + b"".join(frames[1:])
