"""Title, artists, album and more from ID3 tags: versions 2.2, 2.3 and 2.4, and the 128 bytes of version 1.  Source: id3.org.

tinytag's reader of ID3 is not used: it returns bytes of unsynchronised, compressed, grouped and encrypted frames as text, and
skips extended headers wrongly.  Here such encodings are undone, or the frame is dropped.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress

from tonelake.ingest.genres import GENRES

HEADER = FRAME_HEADER = 10               # bytes
V1_SIZE = 128
FIELDS_22 = {
    b"TT2": "title", b"TP1": "artist", b"TAL": "album", b"TP2": "album_artist", b"TRK": "track_number", b"TYE": "year",
    b"TCO": "genre",
}
FIELDS = {
    b"TIT2": "title", b"TPE1": "artist", b"TALB": "album", b"TPE2": "album_artist", b"TRCK": "track_number", b"TYER": "year",
    b"TDRC": "year", b"TCON": "genre", **FIELDS_22,
    **{name + b"\0": field for name, field in FIELDS_22.items()},     # names of 2.2 in tags of 2.3, by old iTunes
}
FRAME_NAME = re.compile(rb"[A-Z0-9]{3}[A-Z0-9\0 ]")
MAX_FRAME = 1 << 20                      # bytes of an uncompressed frame
ENCODINGS = {0: "", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}         # 0: Latin 1, in practice any 8-bit encoding


def id3v2_size(head: bytes) -> int:
    """Bytes of the ID3v2 tag that starts with these 10 bytes or more, header and footer included; 0 if there is none."""
    if len(head) < HEADER or head[:3] != b"ID3" or head[3] not in (2, 3, 4) or max(head[6:10]) > 0x7F:
        return 0
    return HEADER + _synchsafe(head[6:10]) + (HEADER if head[3] == 4 and head[5] & 0x10 else 0)


def parse_id3v2(tag: bytes) -> dict[str, list[str]]:
    """Values of each field of an ID3v2 tag, its header included.  Frames that cannot be decoded are left out."""
    if not id3v2_size(tag):
        return {}
    version, flags = tag[3], tag[5]
    body = tag[HEADER : HEADER + _synchsafe(tag[6:10])]
    if version == 2 and flags & 0x40:    # a compressed tag, for which 2.2 never defined a method
        return {}
    if flags & 0x80 and version < 4:
        body = _synchronised(body)
    if flags & 0x40:
        body = body[_extended_header_size(body, version) :]
    found: dict[str, list[str]] = {}
    for name, content in _frames(body, version, unsynchronised=version == 4 and bool(flags & 0x80)):
        if values := _values(content):
            found.setdefault(FIELDS[name], values)
    return found


def parse_id3v1(tag: bytes) -> dict[str, list[str]]:
    """Values of each field of an ID3v1 tag; {} if these 128 bytes are none."""
    if len(tag) != V1_SIZE or not tag.startswith(b"TAG"):
        return {}
    places = {"title": tag[3:33], "artist": tag[33:63], "album": tag[63:93], "year": tag[93:97]}
    found = {name: [text] for name, part in places.items() if (text := decode_8_bit(part.split(b"\0")[0]).strip())}
    if not tag[125] and tag[126]:        # version 1.1
        found["track_number"] = [str(tag[126])]
    if tag[127] < len(GENRES) and found:
        found["genre"] = [GENRES[tag[127]]]
    return found


def decode_8_bit(data: bytes) -> str:
    """Text whose encoding is unstated: UTF-8 where the bytes are valid as such, else Windows-1252; "" if they are neither.

    A last character of UTF-8 that was cut off is left out, because ID3v1 cuts after 30 bytes.

    >>> decode_8_bit("Björk".encode()), decode_8_bit("Björk".encode("latin-1")), decode_8_bit("Jóga".encode()[:2])
    ('Björk', 'Björk', 'JÃ')
    """
    with suppress(UnicodeDecodeError):
        text = codecs.getincrementaldecoder("utf-8")().decode(data)
        if data.isascii() or not text.isascii():
            return text
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return ""


def _frames(body: bytes, version: int, unsynchronised: bool) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of the frames of FIELDS, with every encoding undone."""
    at = 0
    head_size, name_size = (6, 3) if version == 2 else (FRAME_HEADER, 4)
    while at + head_size < len(body):
        head = body[at : at + head_size]
        name = head[:name_size]
        size = int.from_bytes(head[3:6], "big") if version == 2 else _frame_size(body, at, version)
        if not name.strip(b"\0") or at + head_size + size > len(body):
            return                       # padding, or a tag that was cut
        content = body[at + head_size : at + head_size + size]
        if name in FIELDS:
            plain = content if version == 2 else _plain(content, head[9], version, unsynchronised)
            if plain is not None:
                yield name, plain
        at += head_size + size


def _frame_size(body: bytes, at: int, version: int) -> int:
    """Size of the frame that starts at `at`: synchsafe in 2.4, plain in 2.3.

    Old versions of iTunes wrote plain sizes into 2.4: the size after which a frame, padding or the end follows is taken.
    """
    raw = body[at + 4 : at + 8]
    sizes = [int.from_bytes(raw, "big")]
    if max(raw) <= 0x7F:
        sizes.insert(0 if version == 4 else 1, _synchsafe(raw))
    for size in sizes:
        end = at + FRAME_HEADER + size
        following = body[end : end + 4]
        if end == len(body) or (end < len(body) and (not following.strip(b"\0") or FRAME_NAME.match(following))):
            return size
    return sizes[0]


def _plain(content: bytes, flags: int, version: int, unsynchronised: bool) -> bytes | None:
    """Content of a frame without its encodings, by the second byte of its flags; None if one of them cannot be undone."""
    if version == 3:
        compressed, encrypted, grouped, sized = flags & 0x80, flags & 0x40, flags & 0x20, flags & 0x80
    else:
        compressed, encrypted, grouped, sized = flags & 0x08, flags & 0x04, flags & 0x40, flags & 0x01
        if unsynchronised or flags & 0x02:
            content = _synchronised(content)
    if encrypted:
        return None
    content = content[(4 if sized else 0) + (1 if grouped else 0) :]
    if not compressed:
        return content
    for start in (0, 4):                 # some writers of 2.4 add the length without the flag for it
        with suppress(zlib.error):
            return zlib.decompressobj().decompress(content[start:], MAX_FRAME)
    return None


def _values(content: bytes) -> list[str]:
    """The values of a text frame; none if it is not valid in the encoding that its first byte names."""
    if not content or content[0] not in ENCODINGS:
        return []
    encoding, data = ENCODINGS[content[0]], content[1:]
    if not encoding:
        values = [decode_8_bit(part) for part in data.split(b"\0")]
    else:
        if encoding != "utf-8":
            data = data[: len(data) // 2 * 2]
        if encoding == "utf-16" and data[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            encoding = "utf-16-le"
        try:
            values = data.decode(encoding).split("\0")
        except UnicodeDecodeError:
            return []
    return [text for value in values if (text := value.strip("\ufeff \t\r\n"))]


def _synchronised(data: bytes) -> bytes:
    """Undo unsynchronisation (ID3 2.4, section 6.1).  Data that cannot be in that form, whatever its flags, is unchanged."""
    if re.search(rb"\xff[\xe0-\xff]", data):
        return data
    return data.replace(b"\xff\0", b"\xff")


def _extended_header_size(body: bytes, version: int) -> int:
    """Bytes of the extended header: 2.3 counts without the size field, 2.4 with it and as synchsafe."""
    if version == 3:
        return 4 + int.from_bytes(body[:4], "big")
    return _synchsafe(body[:4])


def _synchsafe(data: bytes) -> int:
    """A number with seven bits in each byte."""
    value = 0
    for byte in data:
        value = value << 7 | byte & 0x7F
    return value
