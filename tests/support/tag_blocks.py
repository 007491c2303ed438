"""Tags as bytes: ID3v1, ID3v2.3 and 2.4 in every legal form, APEv2, Lyrics3v2.

Sources: id3.org (ID3v2.3.0, ID3v2.4.0 structure and frames, Lyrics3 v2.00), Hydrogenaudio (APEv2 specification).
"""

from __future__ import annotations

import struct

# A picture that contains what looks like frame headers of mp3, ADTS and FLAC, and the marks of other tags.
PICTURE = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + (b"\xff\xfb\x90\x64" + bytes(40) + b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(20)
                                              + b"\xff\xf8\xc9\x18" + b"TAG" + b"OggS" + bytes(range(256))) * 60 + b"\xff\xd9"


def synchsafe(number: int) -> bytes:
    return bytes((number >> shift) & 0x7F for shift in (21, 14, 7, 0))


def unsynchronised(data: bytes) -> bytes:
    """Insert a zero after each 0xFF that would look like the beginning of a frame (ID3v2.4 structure, 6.1)."""
    out = bytearray()
    for number, byte in enumerate(data):
        out.append(byte)
        following = data[number + 1] if number + 1 < len(data) else 0xFF
        if byte == 0xFF and (following >= 0xE0 or following == 0):
            out.append(0)
    return bytes(out)


def id3v1(title: str, artist: str) -> bytes:
    fields = (title, 30), (artist, 30), ("", 30), ("1999", 4), ("", 30)
    return b"TAG" + b"".join(text.encode("latin-1", "replace")[:size].ljust(size, b"\0") for text, size in fields) + b"\x0c"


def text_frame(text: str, encoding: int) -> bytes:
    """Body of a text frame; `encoding` 0 Latin-1, 1 UTF-16 with a byte order mark, 3 UTF-8."""
    return bytes([encoding]) + {0: text.encode("latin-1", "replace"), 1: b"\xff\xfe" + text.encode("utf-16-le"),
                                3: text.encode()}[encoding]


def id3v2(title: str, artist: str, *, version: int = 4, encoding: int = 1, unsync: bool = False, extended: bool = False,
          footer: bool = False, padding: int = 0, picture: bytes = b"", flag_frames_only: bool = False) -> bytes:
    """An ID3v2 tag.  Version 3 unsynchronises the whole tag, version 4 each frame; a footer excludes padding."""
    frames = [(b"TIT2", text_frame(title, encoding)), (b"TPE1", text_frame(artist, encoding))]
    if picture:
        frames.append((b"APIC", b"\0image/jpeg\0\x03\0" + picture))
    body = b""
    for name, data in frames:
        flags = b"\0\0"
        if unsync and version == 4:
            flags, data = b"\0\x03", synchsafe(len(data)) + unsynchronised(data)         # with a data length indicator
        body += name + (synchsafe(len(data)) if version == 4 else struct.pack(">I", len(data))) + flags + data
    if extended:
        head = struct.pack(">IHI", 6, 0, padding) if version == 3 else synchsafe(6) + b"\x01\0"
        body = head + body
    body += bytes(padding)
    if unsync and version == 3:
        body = unsynchronised(body)
    flags = (0x80 if unsync and not flag_frames_only else 0) | (0x40 if extended else 0) | (0x10 if footer else 0)
    rest = bytes([version, 0, flags]) + synchsafe(len(body))
    return b"ID3" + rest + body + (b"3DI" + rest if footer else b"")


def apev2(title: str, artist: str, *, picture: bytes = b"", header: bool = True) -> bytes:
    """An APEv2 tag with its footer, and with its header unless told otherwise."""
    values = [(b"Title", title.encode(), 0), (b"Artist", artist.encode(), 0)]
    if picture:
        values.append((b"Cover Art (Front)", b"cover.jpg\0" + picture, 2))
    items = b"".join(struct.pack("<II", len(value), flags) + name + b"\0" + value for name, value, flags in values)
    fields = struct.pack("<III", 2000, len(items) + 32, len(values))
    present = 0x80000000 if header else 0
    end = b"APETAGEX" + fields + struct.pack("<I", present) + bytes(8)
    return (b"APETAGEX" + fields + struct.pack("<I", present | 0x20000000) + bytes(8) if header else b"") + items + end


def lyrics3(title: str, lines: int = 20) -> bytes:
    """A Lyrics3 v2 block; its sizes are decimal digits."""
    lyrics = "".join(f"[00:{line:02d}]a line of the song\r\n" for line in range(lines)).encode()
    fields = b"".join(name + b"%05d" % len(value) + value for name, value in
                      ((b"IND", b"11"), (b"LYR", lyrics), (b"ETT", title.encode("latin-1", "replace"))))
    body = b"LYRICSBEGIN" + fields
    return body + b"%06d" % len(body) + b"LYRICS200"
