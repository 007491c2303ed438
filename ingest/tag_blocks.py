"""Tags and padding around the audio of a file.  bytes -> offsets at which the audio begins and ends.

Known here: ID3v2 in front of and between files, and at the end ID3v1 and its extension, ID3v2 with a footer, APEv1 and APEv2,
Lyrics3 v1 and v2, and padding of zeros, blanks and line breaks.  They are not audio, so they cannot be damage either.

Sources: id3.org (ID3v1, ID3v2.4 section 3.4, Lyrics3), Monkey's Audio's APE tag specification.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

Bytes = bytes | mmap.mmap

PADDING = b"\0\r\n\t \x1a\xff"
LYRICS3_V1 = 5_100                       # its longest text
SEARCHED = 1 << 22                       # bytes of a file searched at once
STEP = 1 << 16                           # bytes of padding examined at a time


@contextmanager
def file_bytes(path: Path) -> Iterator[Bytes]:
    """The bytes of a file, read when they are used."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            yield b""
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def find_all(data: Bytes, mark: bytes) -> Iterator[int]:
    """Offsets of a mark in a file, in order; pages that were searched leave this process's memory."""
    for begin in range(0, len(data), SEARCHED):
        stop = min(begin + SEARCHED + len(mark) - 1, len(data))
        at = data.find(mark, begin, stop)
        while at >= 0:
            yield at
            at = data.find(mark, at + 1, stop)
        release(data, begin, stop)


def release(data: Bytes, start: int, end: int) -> None:
    """Let the system take back the memory of a part of a mapped file; it is read again where it is used again."""
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") and end > start:
        page = start - start % mmap.PAGESIZE
        data.madvise(mmap.MADV_DONTNEED, page, end - page)


def tag_size(data: Bytes, at: int) -> int:
    """Bytes of the tag that begins at `at`; 0 if none does."""
    mark = data[at : at + 11]
    if mark[:3] == b"ID3" and len(mark) >= 10 and mark[3] < 0xFF and not any(byte & 0x80 for byte in mark[6:10]):
        return 10 + _syncsafe(mark[6:10]) + (10 if mark[5] & 0x10 else 0)
    if mark[:8] == b"APETAGEX":
        head = data[at : at + 32]
        return 32 + int.from_bytes(head[12:16], "little") if len(head) == 32 else 0
    if mark[:4] == b"TAG+":
        return 227
    if mark[:3] == b"TAG":
        return 128
    if mark == b"LYRICSBEGIN":
        for end in (b"LYRICSEND", b"LYRICS200"):
            found = data.find(end, at, at + (1 << 20))
            if found >= 0:
                return found + 9 - at
    return 0


def audio_start(data: Bytes) -> int:
    """Offset behind the ID3v2 tags, and the padding between them, at the start of a file."""
    at = 0
    while data[at : at + 3] == b"ID3" and (size := tag_size(data, at)):
        at += size
        rest = skip_padding(data, at, b"\0")
        at = rest if data[rest : rest + 3] == b"ID3" else at
    return min(at, len(data))


def audio_end(data: Bytes) -> int:
    """Offset at which the tags at the end of a file begin; its size if there are none.  Padding is cut only behind a tag."""
    end = len(data)
    while True:
        last = _strip(data, end)
        id3v1 = data.rfind(b"TAG", max(0, last - 128), min(end, last + 128))     # it ends with padding of its own
        for candidate in (end, last, *((id3v1 + 128,) if 0 <= id3v1 <= end - 128 else ())):
            start = _tag_before(data, candidate)
            if start is not None and start >= 0:
                end = start
                break
        else:
            return end


def _tag_before(data: Bytes, end: int) -> int | None:
    """Start of the tag that ends at `end`; None if none does."""
    if data[end - 128 : end - 125] == b"TAG" and end >= 128 and data[end - 131 : end - 128] != b"APE":
        return end - 128 - (227 if data[max(0, end - 355) : end - 351] == b"TAG+" else 0)
    tail = data[max(0, end - 32) : end]
    if tail[:8] == b"APETAGEX" and len(tail) == 32:
        size = int.from_bytes(tail[12:16], "little")                 # without the header
        start = end - size
        return start - 32 if data[max(0, start - 32) : max(0, start - 24)] == b"APETAGEX" else start
    if tail[-10:-7] == b"3DI" and not any(byte & 0x80 for byte in tail[-4:]):
        return end - 20 - _syncsafe(tail[-4:])
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        return end - 15 - int(tail[-15:-9])
    if tail[-9:] == b"LYRICSEND":
        found = data.rfind(b"LYRICSBEGIN", max(0, end - LYRICS3_V1 - 20), end)
        return found if found >= 0 else None
    return None


def skip_padding(data: Bytes, at: int, padding: bytes = PADDING) -> int:
    """Offset of the first byte from `at` on that is not padding."""
    while at < len(data):
        part = data[at : at + STEP]
        rest = part.lstrip(padding)
        at += len(part) - len(rest)
        if rest:
            break
    return at


def _strip(data: Bytes, end: int) -> int:
    """Offset behind the last byte before `end` that is not padding."""
    while end:
        part = data[max(0, end - STEP) : end]
        rest = part.rstrip(PADDING)
        end -= len(part) - len(rest)
        if rest:
            break
    return end


def _syncsafe(four: bytes) -> int:
    """A number of 4 × 7 bits."""
    return sum((byte & 0x7F) << shift for byte, shift in zip(four, (21, 14, 7, 0), strict=True))
