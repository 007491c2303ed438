"""What a file's own framing says about its length, where decoders keep silent about it.

libsndfile trims what a WAV or AIFF header promises to what the file has, neither library minds an Ogg stream that just
stops, and FFmpeg guesses the length of an mp3 without a header.  Read here from the first or last bytes alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

HEAD = 1 << 16                           # bytes in which a header is looked for
OGG_TAIL = 1 << 17                       # two of the longest Ogg pages: one whole header at least
PIPE_SIZE = 0xFFFFF000                   # sizes above are what a program writes that cannot seek back


def promised_seconds(path: Path, rate: int) -> float | None:
    """Seconds that a WAV's or AIFF's header promises; None where it does not say, or is of another kind."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[:4] == b"RIFF":
        return _wav_seconds(head)
    if head[:4] == b"FORM":
        common = next((body for name, body, _ in _chunks(head, "big") if name == b"COMM"), b"")
        return int.from_bytes(common[2:6], "big") / rate if len(common) >= 6 else None
    return None


def _wav_seconds(head: bytes) -> float | None:
    bytes_a_second = 0
    for name, body, size in _chunks(head, "little"):
        if name == b"fmt ":
            bytes_a_second = int.from_bytes(body[8:12], "little")
        if name == b"data":
            return size / bytes_a_second if bytes_a_second and 0 < size < PIPE_SIZE else None
    return None


def _chunks(head: bytes, order: Literal["little", "big"]) -> Iterator[tuple[bytes, bytes, int]]:
    """(name, as much of the body as is in `head`, size) of the chunks of a RIFF or IFF file."""
    at = 12
    while at + 8 <= len(head):
        size = int.from_bytes(head[at + 4 : at + 8], order)
        yield head[at : at + 4], head[at + 8 : at + 8 + min(size, 64)], size
        at += 8 + size + size % 2


def mp3_frames(path: Path) -> int | None:
    """The number of frames that an mp3's first one says there are (Xing, Info or VBRI); None where it says nothing."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":           # its size is 4 × 7 bits
            file.seek(10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        frame = file.read(2048)
    for mark, place in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):  # of the number, behind the mark
        at = frame.find(mark)
        if at >= 0 and len(frame) >= at + place + 4:
            counted = mark == b"VBRI" or frame[at + 7] & 1           # else it has other things to say
            return int.from_bytes(frame[at + place : at + place + 4], "big") if counted else None
    return None


def ogg_just_stops(path: Path) -> bool:
    """Whether a file is Ogg, and its last page is not marked as the end of a stream."""
    if not _is_ogg(path):
        return False
    page = _last_ogg_page(path)
    return len(page) < 6 or not page[5] & 4


def ogg_is_chained(path: Path) -> bool:
    """Whether a file is Ogg, and its last page is of another stream than its first: a station's recording, song by song."""
    if not _is_ogg(path):
        return False
    with path.open("rb") as file:
        first = file.read(18)
    page = _last_ogg_page(path)
    return len(page) >= 18 and page[14:18] != first[14:18]           # serial numbers


def _is_ogg(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"OggS"


def _last_ogg_page(path: Path) -> bytes:
    """The file from its last page's header on; empty where the longest of pages would not have hidden it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OGG_TAIL))
        tail = file.read(OGG_TAIL)
    page = tail.rfind(b"OggS")
    return tail[page:] if page >= 0 else b""
