"""Title, artists, album and more from tags at the end of a file: APEv2, ID3v1, and ID3v2.4 with a footer.

Sources: Hydrogenaudio's specification of APEv2, id3.org for ID3 and Lyrics3.  Tags may follow each other in any order.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import BinaryIO

from tonelake.ingest.id3 import HEADER, V1_SIZE, decode_8_bit, id3v2_size, parse_id3v1, parse_id3v2

APE_EDGE = 32                            # bytes of an APE tag's header and of its footer
MAX_TAG = 64 << 20                       # bytes
MAX_TAGS = 100
ENHANCED_SIZE = 227                      # "TAG+", before an ID3v1 tag
FIELDS = {
    "title": "title", "artist": "artist", "album": "album", "album artist": "album_artist", "albumartist": "album_artist",
    "track": "track_number", "year": "year", "genre": "genre",
}
PRECEDENCE = ("id3v2", "ape", "id3v1")   # by how much of the text a tag can keep


def read_tail(file: BinaryIO) -> Iterator[dict[str, list[str]]]:
    """Yield the fields of the tags at the end of a file, those of the most expressive tag first."""
    found: dict[str, list[dict[str, list[str]]]] = {kind: [] for kind in PRECEDENCE}
    end = file.seek(0, io.SEEK_END)
    for _ in range(MAX_TAGS):
        tail = _read(file, end - ENHANCED_SIZE, end)
        v1 = tail[-V1_SIZE:]
        if len(v1) == V1_SIZE and v1.startswith(b"TAG") and tail[-V1_SIZE - 3 : -V1_SIZE] != b"APE":     # not of "APETAGEX"
            found["id3v1"].append(parse_id3v1(v1))
            end -= V1_SIZE
        elif tail[-APE_EDGE:].startswith(b"APETAGEX") and (start := _ape_start(tail[-APE_EDGE:], end)) is not None:
            found["ape"].append(parse_ape(_read(file, start, end)))
            end = start
        elif tail[-HEADER:].startswith(b"3DI") and (size := id3v2_size(b"ID3" + tail[-HEADER + 3 :])) and size <= end:
            found["id3v2"].append(parse_id3v2(_read(file, end - size, end)))
            end -= size
        elif size := _lyrics_size(file, tail, end) or (ENHANCED_SIZE if tail.startswith(b"TAG+") else 0):
            end -= size
        else:
            break
    for kind in PRECEDENCE:
        yield from found[kind]


def ape_size(head: bytes) -> int:
    """Bytes of the APEv2 tag that starts with this header of 32 bytes; 0 if there is none."""
    if len(head) < APE_EDGE or not head.startswith(b"APETAGEX"):
        return 0
    return APE_EDGE + min(struct.unpack("<I", head[12:16])[0], MAX_TAG)


def parse_ape(tag: bytes) -> dict[str, list[str]]:
    """Values of each field of an APE tag with its header or footer or both."""
    at = APE_EDGE if tag.startswith(b"APETAGEX") else 0
    found: dict[str, list[str]] = {}
    while at + 8 < len(tag):
        size, flags = struct.unpack("<II", tag[at : at + 8])
        name_end = tag.find(b"\0", at + 8, at + 8 + 256)
        if name_end < 0 or name_end + 1 + size > len(tag):
            break
        name = tag[at + 8 : name_end].decode("latin-1").lower()
        value = tag[name_end + 1 : name_end + 1 + size]
        values = [text for part in value.split(b"\0") if (text := decode_8_bit(part).strip())]
        if name in FIELDS and flags & 0x6 == 0 and values:           # text, not bytes or a link
            found.setdefault(FIELDS[name], values)
        at = name_end + 1 + size
    return found


def _ape_start(footer: bytes, end: int) -> int | None:
    """Where the tag with this footer starts; None if its size is impossible."""
    size, _, flags = struct.unpack("<III", footer[12:24])
    start = end - size - (APE_EDGE if flags & 0x80000000 else 0)
    return start if APE_EDGE <= size <= MAX_TAG and start >= 0 else None


def _lyrics_size(file: BinaryIO, tail: bytes, end: int) -> int:
    """Bytes of the Lyrics3 block that ends here; 0 if there is none."""
    if tail.endswith(b"LYRICS200") and tail[-15:-9].isdigit():
        size = int(tail[-15:-9]) + 15
        return size if size <= end else 0
    if tail.endswith(b"LYRICSEND"):
        block = _read(file, end - 5_200, end)
        start = block.find(b"LYRICSBEGIN")
        return len(block) - start if start >= 0 else 0
    return 0


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(max(start, 0))
    return file.read(max(end - max(start, 0), 0))
