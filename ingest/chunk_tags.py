"""Title, artists, album and more from the chunks of WAV (RIFF, RF64, BW64) and AIFF files: an ID3 tag, INFO, NAME and AUTH.

Sources: Microsoft's RIFF, EBU Tech 3306 for RF64, Apple's AIFF 1.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from tonelake.ingest.id3 import decode_8_bit, parse_id3v2

INFO_FIELDS = {
    b"INAM": "title", b"TITL": "title", b"IART": "artist", b"IPRD": "album", b"IALB": "album", b"ICRD": "year",
    b"IGNR": "genre", b"ITRK": "track_number", b"IPRT": "track_number",
}
AIFF_FIELDS = {b"NAME": "title", b"AUTH": "artist"}
MAX_CHUNK = 256 << 20                    # bytes of a chunk of tags: the limit of ID3
MAX_CHUNKS = 10_000


def read_chunk_tags(file: BinaryIO, start: int) -> Iterator[dict[str, list[str]]]:
    """Yield the fields of the ID3 chunks of the file that begins at `start`, then those of its other chunks."""
    file.seek(start)
    form = file.read(4)
    order = ">" if form == b"FORM" else "<"
    others: list[dict[str, list[str]]] = []
    for name, size in _chunks(file, start, order):
        if size > MAX_CHUNK:
            continue
        if name in (b"id3 ", b"ID3 "):
            yield parse_id3v2(file.read(size))
        elif name == b"LIST" and order == "<":
            others.append(_info(file.read(size)))
        elif name in AIFF_FIELDS and order == ">":
            with suppress(UnicodeDecodeError):                       # Macintosh or Windows: the format does not state it
                others.append({AIFF_FIELDS[name]: [file.read(size).decode("utf-8").split("\0")[0].strip()]})
    yield from others


def _chunks(file: BinaryIO, start: int, order: str) -> Iterator[tuple[bytes, int]]:
    """Yield name and size of each chunk, the file at its content.  Stops at the first one that cannot be a chunk."""
    at, long_size = start + 12, 0
    for _ in range(MAX_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or not head[:4].isascii() or not head[:4].decode("ascii").isprintable():
            return
        name, size = head[:4], struct.unpack(f"{order}I", head[4:])[0]
        if name == b"ds64":
            long_size = struct.unpack("<Q", file.read(16)[8:].ljust(8, b"\0"))[0]
            file.seek(at + 8)
        if name == b"data" and size == 0xFFFFFFFF and long_size:
            size = long_size
        yield name, size
        at += 8 + size + size % 2


def _info(body: bytes) -> dict[str, list[str]]:
    """Fields of the content of a LIST chunk; {} if it is not of type INFO."""
    found: dict[str, list[str]] = {}
    at = 4 if body.startswith(b"INFO") else len(body)
    while at + 8 <= len(body):
        name, size = body[at : at + 4], struct.unpack("<I", body[at + 4 : at + 8])[0]
        text = decode_8_bit(body[at + 8 : at + 8 + size].split(b"\0")[0]).strip()
        if name in INFO_FIELDS and text:
            found.setdefault(INFO_FIELDS[name], [text])
        at += 8 + size + size % 2
    return found
