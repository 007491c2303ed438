"""Headers of WAV, RF64, BW64, Wave64, AIFF, AIFF-C, CAF and AU: where the samples are, how they are stored, and their number.

A length counts only if it is exact.  Programs that write to a pipe cannot return to the header and leave a placeholder there
(SoX 0x7FFFF000, arecord 0x80000000, FFmpeg 0xFFFFFFFF, and others); such a size promises nothing.

Sources: Microsoft's Multimedia Programming Interface 1.0 (RIFF), EBU Tech 3306 (RF64), ITU-R BS.2088 (BW64), Sony's Wave64
specification, Apple's AIFF-C draft of 1991 and Core Audio Format 1.0, Sun's audio(5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

RIFF_FORMS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
AIFF_FORMS = (b"FORM",)
WAVE64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")           # a GUID; its chunks begin with four letters too
FORMS = (*RIFF_FORMS, *AIFF_FORMS, WAVE64[:4], b"caff", b".snd")
# Sizes of programs that cannot return to the header.  SoX writes whole blocks of about 0x7F000000 bytes into an AIFF.
PLACEHOLDERS = ((0x7EFF0000, 0x7F001000), (0x7FFFF000, 0x80001000), (0xFFFFF000, 0x1_0000_1000))
PLACEHOLDERS_64 = ((1 << 62, 1 << 64),)
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE    # format tags of WAV
AIFF_CODINGS = {
    b"NONE": ("integer", True), b"twos": ("integer", True), b"in24": ("integer", True), b"in32": ("integer", True),
    b"sowt": ("integer", False), b"fl32": ("float", True), b"FL32": ("float", True), b"fl64": ("float", True),
    b"FL64": ("float", True),
}
AU_CODINGS = {2: ("integer", 8), 3: ("integer", 16), 4: ("integer", 24), 5: ("integer", 32), 6: ("float", 32), 7: ("float", 64)}
MAX_CHUNKS = 10_000                      # before the samples; more are a damaged file


@dataclass(frozen=True, kw_only=True)
class PcmHeader:
    """The fields of one WAV or AIFF header."""

    coding: Literal["integer", "float", "compressed"]
    rate: int                            # Hz
    channels: int
    bits: int                            # of one sample that count
    frame_bytes: int                     # of one sample of all channels; of one block if compressed
    big_endian: bool
    signed: bool                         # False: 8 bits around 128
    start: int                           # of the samples, bytes from the start of the file
    size: int | None                     # bytes of samples; None: unknown
    frames: int | None                   # samples by the header, exact; None: unknown
    file_size: int
    wide: bool = False                   # a Wave64 or a CAF, whose chunks have 64 bits

    @property
    def here(self) -> float:
        """Share of the samples that the file has; below 1 if it is cut off."""
        return 1.0 if not self.size else self.available / self.size

    @property
    def available(self) -> int:
        """Bytes of samples that the file has."""
        rest = max(0, self.file_size - self.start)
        return rest if self.size is None else min(self.size, rest)

    @property
    def promised_s(self) -> float | None:
        return self.frames / self.rate if self.frames and self.rate else None


def is_placeholder(size: int, *, wide: bool = False) -> bool:
    """Whether a size in a header says that the size is unknown.  `wide`: it has 64 bits.

    >>> [is_placeholder(size) for size in (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 96_000)]
    [True, True, True, True, True, False]
    """
    ranges = (*PLACEHOLDERS, *PLACEHOLDERS_64) if wide else PLACEHOLDERS
    return not size or any(low <= size < high for low, high in ranges)


def read_header(path: Path, start: int = 0) -> PcmHeader | None:
    """The header of the file that begins at byte `start`; None if there is none, or if it lacks its format or its samples."""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(start)
        head = file.read(40)
        if head[:4] in RIFF_FORMS and head[8:12] == b"WAVE":
            return _read_wave(file, start + 12, size, big_endian=head[:4] == b"RIFX")
        if head[:16] == WAVE64:
            return _read_wave(file, start + 40, size, wide=True)
        if head[:4] in AIFF_FORMS and head[8:12] in (b"AIFF", b"AIFC"):
            return _read_aiff(file, start + 12, size)
        if head[:4] == b"caff":
            return _read_caf(file, start + 8, size)
        if head[:4] == b".snd":
            return _read_au(head, start, size)
    return None


def _chunks(file: BinaryIO, at: int, file_size: int, *, big_endian: bool = False, wide: bool = False):
    """Yield (name, offset of the body, size of the body) of successive chunks.  `wide`: chunks of Wave64."""
    head, align = (24, 8) if wide else (8, 2)
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        header = file.read(head)
        if len(header) < head or at >= file_size:
            return
        size = int.from_bytes(header[head - (8 if wide else 4) :], "big" if big_endian else "little") - (head if wide else 0)
        if size < 0:
            return
        yield header[:4], at + head, size
        at += head + size + -size % align


def _read_wave(
    file: BinaryIO, at: int, file_size: int, *, big_endian: bool = False, wide: bool = False
) -> PcmHeader | None:
    order: Literal["big", "little"] = "big" if big_endian else "little"
    form, fact, long_size, long_frames, head_wide = b"", 0, 0, 0, wide
    for name, body, chunk_size in _chunks(file, at, file_size, big_endian=big_endian, wide=wide):
        size = chunk_size
        if name not in (b"ds64", b"fmt ", b"fact", b"data"):
            continue
        file.seek(body)
        head = file.read(min(size, 40))
        if name == b"ds64" and len(head) >= 24:
            long_size, long_frames = int.from_bytes(head[8:16], "little"), int.from_bytes(head[16:24], "little")
        elif name == b"fmt " and len(head) >= 16:
            form = head
        elif name == b"fact" and len(head) >= 4:
            fact = int.from_bytes(head[:8] if wide and len(head) >= 8 else head[:4], order)
            if fact == 0xFFFFFFFF and long_frames:
                fact = long_frames
        elif name == b"data":
            if not form:
                return None
            if size == 0xFFFFFFFF and long_size:
                size, wide = long_size, True
            known = None if is_placeholder(size, wide=wide) else size
            return _wave_header(form, order, body, known, fact, file_size, head_wide)
    return None


def _wave_header(
    form: bytes, order: Literal["big", "little"], start: int, size: int | None, fact: int, file_size: int,
    wide: bool,
) -> PcmHeader:
    def number(first: int, last: int) -> int:
        return int.from_bytes(form[first:last], order)

    tag, channels, rate, frame_bytes, bits = number(0, 2), number(2, 4), number(4, 8), number(12, 14), number(14, 16)
    if tag == EXTENSIBLE and len(form) >= 26:
        tag = number(24, 26)             # the first two bytes of its GUID
    coding: Literal["integer", "float", "compressed"] = (
        "integer" if tag == PCM and bits else "float" if tag == FLOAT else "compressed"
    )
    if coding != "compressed":
        frames = size // frame_bytes if size is not None and frame_bytes else None
    else:                                # all of its blocks are there: length is what they decode to
        cut = size is not None and start + size > file_size
        frames = fact if cut and not is_placeholder(fact) else None
    return PcmHeader(
        coding=coding, rate=rate, channels=channels, bits=bits, frame_bytes=frame_bytes, big_endian=order == "big",
        signed=bits > 8, start=start, size=size, frames=frames, file_size=file_size, wide=wide,
    )


def _read_aiff(file: BinaryIO, at: int, file_size: int) -> PcmHeader | None:
    common, start, size = b"", 0, 0
    for name, body, chunk_size in _chunks(file, at, file_size, big_endian=True):
        file.seek(body)
        if name == b"COMM":
            common = file.read(min(chunk_size, 22))
        elif name == b"SSND":
            offset = int.from_bytes(file.read(4), "big")
            start, size = body + 8 + offset, max(0, chunk_size - 8 - offset)
            if chunk_size < 8:           # 0: the size is unknown
                start, size = body + 8, 0
            if is_placeholder(size) or body + chunk_size >= file_size:
                break                    # the chunks of such a file end here
        if common and start:
            break
    if len(common) < 18 or not start:
        return None
    channels, frames, bits = (int.from_bytes(common[a:b], "big") for a, b in ((0, 2), (2, 6), (6, 8)))
    coding, big_endian = AIFF_CODINGS.get(common[18:22] or b"NONE", ("compressed", True))
    frame_bytes = channels * -(-bits // 8)
    known = None if is_placeholder(size) or is_placeholder(size + 8) else size
    if is_placeholder(frames) or is_placeholder(frames * frame_bytes):
        promised = None
    elif coding == "compressed" or known is None:
        promised = frames
    else:
        promised = min(frames, known // max(1, frame_bytes))
    return PcmHeader(
        coding=coding,  # type: ignore[arg-type]
        rate=_extended(common[8:18]), channels=channels, bits=bits, frame_bytes=frame_bytes,
        big_endian=big_endian, signed=True, start=start, size=known, frames=promised, file_size=file_size,
    )


def _read_caf(file: BinaryIO, at: int, file_size: int) -> PcmHeader | None:
    description = b""
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        head = file.read(12)
        if len(head) < 12:
            return None
        name, size = head[:4], int.from_bytes(head[4:], "big", signed=True)
        if name == b"desc":
            description = file.read(32)
        elif name == b"data":
            break
        if size < 0:
            return None
        at += 12 + size
    if len(description) < 32:
        return None
    flags, frame_bytes, _, channels, bits = struct.unpack(">5I", description[12:])
    linear = description[8:12] == b"lpcm"
    known = None if size < 4 or is_placeholder(size - 4, wide=True) else size - 4    # the first four bytes count edits
    return PcmHeader(
        coding=("float" if flags & 1 else "integer") if linear else "compressed", rate=_caf_rate(description),
        channels=channels, bits=bits, frame_bytes=frame_bytes, big_endian=not flags & 2, signed=True, start=at + 16, size=known,
        frames=known // frame_bytes if linear and known and frame_bytes else None, file_size=file_size, wide=True,
    )


def _caf_rate(description: bytes) -> int:
    """Rate in Hz; 0 if the field is not a number."""
    (rate,) = struct.unpack(">d", description[:8])
    return round(rate) if 0 < rate < 1e9 else 0


def _read_au(head: bytes, at: int, file_size: int) -> PcmHeader | None:
    if len(head) < 24:
        return None
    offset, size, code, rate, channels = struct.unpack(">5I", head[4:24])
    coding, bits = AU_CODINGS.get(code, ("compressed", 8))
    known = None if is_placeholder(size) else size
    frame_bytes = channels * bits // 8
    return PcmHeader(
        coding=coding,  # type: ignore[arg-type]
        rate=rate, channels=channels, bits=bits, frame_bytes=frame_bytes, big_endian=True, signed=True,
        start=at + offset, size=known, file_size=file_size,
        frames=known // frame_bytes if coding != "compressed" and known and frame_bytes else None,
    )


def _extended(data: bytes) -> int:
    """An 80-bit float of IEEE 754, rounded: a sample rate."""
    exponent = int.from_bytes(data[:2], "big") & 0x7FFF
    mantissa = int.from_bytes(data[2:], "big")
    shift = exponent - 16383 - 63
    return (mantissa << shift if shift < 64 else 0) if shift >= 0 else round(mantissa / (1 << -shift)) if shift > -128 else 0


def after_samples(path: Path, header: PcmHeader, tags_end: int) -> tuple[int | None, int]:
    """(start of another WAV or AIFF behind this one, bytes of no known kind behind the samples).

    `tags_end`: where tags and padding at the end of the file begin.
    """
    if header.size is None:
        return None, 0
    with path.open("rb") as file:
        at = header.start + header.size
        file.seek(max(0, min(at, header.file_size)))
        if file.read(4) not in FORMS:
            at += -at % (8 if header.wide else 2)
        while at + 8 <= tags_end:
            file.seek(at)
            name = file.read(24)
            if name[:4] in FORMS:
                return at, 0
            if header.wide:              # the chunks of Wave64 and CAF differ; few have any here
                return (None, 0) if name[4:8] in (b"\xf3\xac\xd3\x11", b"\0\0\0\0") else (None, tags_end - at)
            sizes = [int.from_bytes(name[4:8], order) for order in ("little", "big")]
            size = next((size for size in sizes if at + 8 + size <= header.file_size + 1), None)
            if size is None or not all(0x20 <= letter < 0x7F for letter in name[:4]):
                return None, tags_end - at
            at += 8 + size + size % 2
    return None, 0
