"""Find the frames of MPEG audio (mp1, mp2, mp3) and of AAC in ADTS, file by file if several were joined.

A false synchronisation, as in the picture of a tag, is not a frame: a frame counts only if the next one follows it with the
same layer and rate, or if the audio ends there.  An mp3's first frame may hold the encoder's delay and the number of frames
(Xing, Info, VBRI) instead of audio.

Sources: ISO/IEC 11172-3 and 13818-3 (frame headers), 13818-7 (ADTS), the LAME tag's description by Taylor and Leidinger.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tonelake.ingest.tag_blocks import Bytes, audio_end, audio_start, file_bytes, skip_padding, tag_size

# kbit/s by (is MPEG 1, layer); MPEG 2 and 2.5 have one table for layers II and III.
BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}      # by version field
ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
CODECS = {1: "mp1float", 2: "mp2", 3: "mp3float", 4: "aac"}          # FFmpeg's decoders by layer; 4: ADTS
SEARCHED = 1 << 17                       # bytes behind the tags in which the first frame must be found
CHAIN = 3                                # frames in sequence that make a beginning
DECODER_DELAY = 529                      # samples of an mp3 decoder, as LAME's tag assumes
LAME_WRITERS = (b"LAME", b"Lavf", b"Lavc")

Header = tuple[int, int, int, int, int]  # size in bytes (0: only ADTS states it), samples, rate, channels, layer


@dataclass(kw_only=True)
class Stream:
    """Successive frames of one file: one rate, one channel count, one encoder's delay."""

    layer: int
    rate: int                            # Hz, by the frame header; AAC with SBR decodes to twice of it
    channels: int
    frame_samples: int
    offsets: array = field(default_factory=lambda: array("Q"))       # of the frames, in bytes
    sizes: array = field(default_factory=lambda: array("I"))
    holes: dict[int, int] = field(default_factory=dict)              # bytes lost before a frame, by its number
    skip: int = 0                        # samples of the encoder's and decoder's delay at the start
    keep: int | None = None              # samples up to the encoder's padding, the delay included; None: all
    counted: int | None = None           # frames by the file's own header


@lru_cache(maxsize=4096)
def mpeg_header(four: bytes) -> Header | None:
    """The frame header in four bytes; None if they are not one.

    >>> mpeg_header(bytes.fromhex("fffb9064"))
    (417, 1152, 44100, 2, 3)
    """
    if len(four) < 4 or four[0] != 0xFF or four[1] & 0xE0 != 0xE0:
        return None
    version, layer = four[1] >> 3 & 3, 4 - (four[1] >> 1 & 3)
    bit_rate, rate, padding = four[2] >> 4, four[2] >> 2 & 3, four[2] >> 1 & 1
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3 or four[3] & 3 == 2:
        return None
    first = version == 3
    hertz, bits = RATES[version][rate], 1000 * BIT_RATES[first, layer][bit_rate - 1]
    channels = 1 if four[3] >> 6 == 3 else 2
    if layer == 1:
        return (12 * bits // hertz + padding) * 4, 384, hertz, channels, 1
    samples = 1152 if layer == 2 or first else 576
    return samples // 8 * bits // hertz + padding, samples, hertz, channels, layer


def adts_header(seven: bytes) -> Header | None:
    """The ADTS header in seven bytes; None if they are not one."""
    if len(seven) < 7 or seven[0] != 0xFF or seven[1] & 0xF6 != 0xF0:
        return None
    rate, channels = seven[2] >> 2 & 15, (seven[2] & 1) << 2 | seven[3] >> 6
    size = (seven[3] & 3) << 11 | seven[4] << 3 | seven[5] >> 5
    blocks = 1 + (seven[6] & 3)
    if rate >= len(ADTS_RATES) or size < 8:
        return None
    return size, 1024 * blocks, ADTS_RATES[rate], 8 if channels == 7 else channels, 4


def header_at(data: Bytes, at: int) -> Header | None:
    """The frame header at `at`, of either kind."""
    return mpeg_header(data[at : at + 4]) or adts_header(data[at : at + 7])


def mpeg_streams(path: Path) -> list[Stream]:
    """The streams of an mp1, mp2, mp3 or ADTS file in sequence; empty if the file does not begin as one."""
    stat = path.stat()
    return _streams_of_state(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)                    # clips of one file follow each other
def _streams_of_state(path: Path, _mtime_ns: int, _size: int) -> list[Stream]:
    with file_bytes(path) as data:
        start, end = audio_start(data), audio_end(data)
        first = _next_chain(data, start, end, start + SEARCHED)
        return _walk(data, first, end) if first is not None else []


def _walk(data: Bytes, at: int, end: int) -> list[Stream]:
    streams: list[Stream] = []
    stream: Stream | None = None
    kind: tuple[int, ...] = ()
    fresh, lost_from = True, None        # `fresh`: a file may begin here
    while at + 4 <= end:
        header = header_at(data, at)
        if header is not None and stream is not None and not fresh and header[1:] == kind:
            accepted = True
        else:
            accepted = header is not None and _follows(data, at, header, end)
        if not accepted or header is None:
            skipped = tag_size(data, at)
            if skipped:
                at, fresh = at + skipped, True
                continue
            lost_from = at if lost_from is None else lost_from
            found = _next_chain(data, at + 1, end, end)
            if found is None:
                break
            at = _tag_between(data, at + 1, found) or found
            continue
        if stream is None or header[1:] != kind or (header[4] == 3 and _info_mark(data, at, header)):
            kind = header[1:]
            stream = Stream(layer=header[4], rate=header[2], channels=header[3], frame_samples=header[1])
            streams.append(stream)
            if header[4] == 3 and _read_info(stream, data, at, header):
                at, fresh, lost_from = at + header[0], False, None
                continue
        if lost_from is not None and (stream.offsets or len(streams) > 1) and skip_padding(data, lost_from) < at:
            stream.holes[len(stream.offsets)] = at - lost_from
        fresh, lost_from = False, None
        stream.offsets.append(at)
        stream.sizes.append(min(header[0], end - at))
        at += header[0]
    for stream in streams:
        if stream.counted and len(stream.offsets) > stream.counted + 1:
            stream.keep = None           # a wrong number, so the encoder's padding is elsewhere
    return [stream for stream in streams if stream.offsets]


def _follows(data: Bytes, at: int, header: Header, end: int, chain: int = 2) -> bool:
    """Whether `chain` frames of one layer and rate follow each other from `at`, or the audio ends before."""
    for _ in range(chain - 1):
        at += header[0]
        if at + 4 > end:
            return True
        following = header_at(data, at)
        if following is None:
            return bool(tag_size(data, at)) or skip_padding(data, at) >= end
        if (following[2], following[4]) != (header[2], header[4]):
            return False
        header = following
    return True


def _next_chain(data: Bytes, at: int, end: int, limit: int) -> int | None:
    """Offset of the next CHAIN frames in sequence that begin between `at` and `limit`."""
    limit = min(limit, end)
    while (at := data.find(b"\xff", at, limit)) >= 0:
        header = header_at(data, at)
        if header is not None and at + header[0] <= end and _follows(data, at, header, end, CHAIN):
            return at
        at += 1
    return None


def _tag_between(data: Bytes, at: int, end: int) -> int | None:
    """Offset of an ID3v2 tag between frames: of a file that was joined behind padding or a damaged frame."""
    while (at := data.find(b"ID3", at, end)) >= 0:
        if tag_size(data, at) and at + tag_size(data, at) <= len(data):
            return at
        at += 1
    return None


SIDE_INFO = {(1152, 1): 17, (1152, 2): 32, (576, 1): 9, (576, 2): 17}       # bytes, by samples and channels of a frame


def _info_mark(data: Bytes, at: int, header: Header) -> tuple[bytes, int] | None:
    """(mark, its offset) of a header in the place of a frame's audio; None for audio."""
    place = at + 4 + SIDE_INFO[header[1], header[3]]
    mark = data[place : place + 4]
    if mark in (b"Xing", b"Info"):
        return mark, place
    return (b"VBRI", at + 36) if data[at + 36 : at + 40] == b"VBRI" else None


def _read_info(stream: Stream, data: Bytes, start: int, header: Header) -> bool:
    """Read the number of frames and the encoder's delay from a first frame; False if it is a frame of audio."""
    found = _info_mark(data, start, header)
    if found is None:
        return False
    mark, place = found
    frame, at = data[start : start + header[0]], place - start
    if mark == b"VBRI":
        stream.counted = int.from_bytes(frame[at + 14 : at + 18], "big") or None
        return True
    flags = int.from_bytes(frame[at + 4 : at + 8], "big")
    if flags & 1:
        stream.counted = int.from_bytes(frame[at + 8 : at + 12], "big") or None
    tag = at + 8 + 4 * bool(flags & 1) + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    if frame[tag : tag + 4] in LAME_WRITERS and len(frame) >= tag + 24:
        delays = int.from_bytes(frame[tag + 21 : tag + 24], "big")
        stream.skip = (delays >> 12) + DECODER_DELAY
        if stream.counted:
            stream.keep = stream.counted * stream.frame_samples - max(0, (delays & 0xFFF) - DECODER_DELAY)
    return True
