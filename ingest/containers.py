"""Read a file's length from its own framing, where decoders do not report it.

libsndfile trims the length in a WAV or AIFF header to the file's, neither library notices an Ogg stream without an end, and
FFmpeg guesses the length of an mp3 without a header.  Only the first or last bytes are read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

HEAD = 1 << 16                           # bytes searched for a header
OGG_TAIL = 1 << 17                       # two of the longest Ogg pages, so at least one whole header
PIPE_SIZE = 0xFFFFF000                   # larger sizes are placeholders of programs that cannot seek back


def promised_seconds(path: Path, rate: int) -> float | None:
    """Length in seconds by the header of a WAV or AIFF; None if it has none or the file is of another format."""
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
    """Yield (name, the first bytes of the body, size) of the chunks of a RIFF or IFF file."""
    at = 12
    while at + 8 <= len(head):
        size = int.from_bytes(head[at + 4 : at + 8], order)
        yield head[at : at + 4], head[at + 8 : at + 8 + min(size, 64)], size
        at += 8 + size + size % 2


def mp3_frames(path: Path) -> int | None:
    """Number of frames by the Xing, Info or VBRI header in an mp3's first frame; None if there is none."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3":           # its size has 4 × 7 bits
            file.seek(10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        frame = file.read(2048)
    for mark, offset in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):  # of the number, from the mark
        at = frame.find(mark)
        if at >= 0 and len(frame) >= at + offset + 4:
            counted = mark == b"VBRI" or frame[at + 7] & 1           # otherwise the field holds something else
            return int.from_bytes(frame[at + offset : at + offset + 4], "big") if counted else None
    return None


def ogg_lacks_end(path: Path) -> bool:
    """Whether a file is Ogg and its last page is not marked as the end of a stream."""
    if not _is_ogg(path):
        return False
    page = _last_ogg_page(path)
    return len(page) < 6 or not page[5] & 4


def ogg_is_chained(path: Path) -> bool:
    """Whether a file is Ogg and its last page belongs to another stream than its first, as in recordings of radio stations."""
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
    """The file from the header of its last page; empty if there is none within OGG_TAIL bytes of the end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OGG_TAIL))
        tail = file.read(OGG_TAIL)
    page = tail.rfind(b"OggS")
    return tail[page:] if page >= 0 else b""
