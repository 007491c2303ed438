"""Where FLAC files begin in a file, and whether one is longer than its header says.

Source: RFC 9639 (metadata blocks in section 8, frame headers in section 9.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tonelake.ingest.tag_blocks import Bytes, audio_end, file_bytes, find_all

MARKS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")           # with the header of the first block, STREAMINFO
TAIL = 1 << 18                           # bytes searched for the last frame; a frame of 8 channels has some 100 kB
LONGEST_FRAME = 65_535                   # samples


@dataclass(frozen=True, kw_only=True)
class FlacPart:
    """One FLAC file within a file."""

    start: int                           # bytes
    end: int
    samples: int                         # by its header; 0: unknown
    rate: int
    last_sample: int | None              # at which its last frame ends, by that frame's own number; None if none was found

    @property
    def longer(self) -> bool:
        """Whether it has more samples than its header says."""
        return bool(self.samples) and self.last_sample is not None and self.last_sample > self.samples


def flac_parts(path: Path) -> list[FlacPart]:
    """The FLAC files that follow each other in a file."""
    stat = path.stat()
    return _parts_of_state(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)                    # clips of one file follow each other
def _parts_of_state(path: Path, _mtime_ns: int, _size: int) -> list[FlacPart]:
    with file_bytes(path) as data:
        starts = sorted(at for mark in MARKS for at in find_all(data, mark))
        ends = [*starts[1:], audio_end(data)][: len(starts)]
        return [_part(data, start, end) for start, end in zip(starts, ends, strict=True)]


def _part(data: Bytes, start: int, end: int) -> FlacPart:
    info = data[start + 8 : start + 42]
    longest = int.from_bytes(info[2:4], "big")
    fixed = info[0:2] == info[2:4]
    samples = int.from_bytes(info[13:18], "big") & 0xF_FFFF_FFFF
    rate = int.from_bytes(info[10:13], "big") >> 4
    first = max(start + 42, end - TAIL)
    tail = data[first:end]
    last = None
    for second in (b"\xf8", b"\xf9"):    # blocks of one size, blocks of several
        at = len(tail)
        while last is None and (at := tail.rfind(b"\xff" + second, 0, at)) >= 0:
            ends_at = _frame_end(tail[at : at + 16], longest if fixed or second == b"\xf8" else 0)
            last = ends_at if ends_at is not None else last
    return FlacPart(start=start, end=end, samples=samples, rate=rate, last_sample=last)


def frame_start(header: bytes, block_samples: int) -> int | None:
    """Sample at which the frame with this header begins; None if it is not one.  `block_samples`: of the stream's blocks."""
    found = _frame(header, block_samples)
    return found[0] if found else None


def _frame_end(header: bytes, block_samples: int) -> int | None:
    found = _frame(header, block_samples)
    return sum(found) if found else None


def _frame(header: bytes, block_samples: int) -> tuple[int, int] | None:
    """(first sample, number of samples) of the frame with this header; None if the header's checksum is wrong."""
    if len(header) < 16 or header[3] & 1 or header[2] >> 4 == 0 or header[2] & 15 == 15:
        return None
    lead = header[4]
    extra = 0 if lead < 0x80 else next((n for n in range(1, 7) if lead >> (6 - n) == (1 << (n + 2)) - 2), None)
    if extra is None:
        return None
    number = lead if not extra else lead & ((1 << max(0, 6 - extra)) - 1)
    for byte in header[5 : 5 + extra]:
        number = number << 6 | byte & 0x3F
    at, size, rate = 5 + extra, header[2] >> 4, header[2] & 15
    if size == 6:
        samples, at = header[at] + 1, at + 1
    elif size == 7:
        samples, at = int.from_bytes(header[at : at + 2], "big") + 1, at + 2
    else:
        samples = 192 if size == 1 else 576 << (size - 2) if size < 6 else 256 << (size - 8)
    at += {12: 1, 13: 2, 14: 2}.get(rate, 0)
    if at >= len(header) or _crc8(header[:at]) != header[at]:
        return None
    return (number if header[1] & 1 else number * (block_samples or samples)), samples


def _crc8(data: bytes) -> int:
    """Checksum of a frame header: polynomial x^8 + x^2 + x + 1."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x107 if crc & 0x80 else crc << 1) & 0xFF
    return crc
