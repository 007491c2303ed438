"""Tags as other programs write them, one builder for each format, and a table of whole files with the tags that are right.

ID3v2 by id3.org's 2.2.0, 2.3.0 and 2.4.0; APEv2 by the Hydrogenaudio wiki; RIFF INFO by the multimedia programming interface;
AIFF text and ID3 chunks by AIFF 1.3; Vorbis comments and FLAC blocks by RFC 9639; MP4 `ilst` as iTunes writes it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from sounds import encode, melody, write

NIGHT = {"title": "Night Crossing", "artist": "The Long Winters", "album": "Vide Noir"}
NORTH = {"title": "Jóga", "artist": "Björk", "album": "Homogenic – 10 Years"}
IDS = {"title": b"TIT2", "artist": b"TPE1", "album": b"TALB"}
SHORT_IDS = {"title": b"TT2", "artist": b"TP1", "album": b"TAL"}
ATOMS = {"title": b"\xa9nam", "artist": b"\xa9ART", "album": b"\xa9alb"}
INFO = {"title": b"INAM", "artist": b"IART", "album": b"IPRD"}
CODECS = {0: "latin-1", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}


def synchsafe(value: int) -> bytes:
    return bytes((value >> shift) & 0x7F for shift in (21, 14, 7, 0))


def unsynchronised(data: bytes) -> bytes:
    """ID3v2's escape: a zero byte after each 0xFF that a decoder could take for the start of a frame, and after a last one."""
    out = bytearray()
    for at, byte in enumerate(data):
        out.append(byte)
        follows = data[at + 1] if at + 1 < len(data) else 0
        if byte == 0xFF and (follows >= 0xE0 or follows == 0):
            out.append(0)
    return bytes(out)


def text_body(text: str, encoding: int = 3, end: bool = False) -> bytes:
    body = text.encode(CODECS[encoding])
    return bytes([encoding]) + body + (b"\0" * (2 if encoding in (1, 2) else 1) if end else b"")


def frame(name: bytes, body: bytes, version: int = 4, flags: Sequence[str] = (), plain_size: bool = False) -> bytes:
    """One ID3v2 frame; `flags` of grouped, compressed, encrypted, unsynchronised, length.

    `plain_size`: as old versions of iTunes wrote 2.4.
    """
    if version == 2:
        return name + len(body).to_bytes(3, "big") + body
    bits, original = 0, len(body)
    if "compressed" in flags:
        body = zlib.compress(body)
    if version == 3:
        bits = 0x80 * ("compressed" in flags) | 0x40 * ("encrypted" in flags) | 0x20 * ("grouped" in flags)
        extra = struct.pack(">I", original) if "compressed" in flags else b""
        extra += b"\x80" * ("encrypted" in flags) + b"\x05" * ("grouped" in flags)
        return name + struct.pack(">I", len(extra + body)) + bytes([0, bits]) + extra + body
    bits = (
        0x40 * ("grouped" in flags)
        | 0x08 * ("compressed" in flags)
        | 0x04 * ("encrypted" in flags)
        | 0x02 * ("unsynchronised" in flags)
        | 0x01 * ("length" in flags or "compressed" in flags)
    )
    if "unsynchronised" in flags:
        body = unsynchronised(body)
    body = b"\x05" * ("grouped" in flags) + b"\x80" * ("encrypted" in flags) + (synchsafe(original) if bits & 1 else b"") + body
    size = struct.pack(">I", len(body)) if plain_size else synchsafe(len(body))
    return name + size + bytes([0, bits]) + body


def id3(
    frames: bytes, version: int = 4, unsync: bool = False, extended: bytes = b"", padding: int = 0, footer: bool = False
) -> bytes:
    """A whole ID3v2 tag; `unsync` escapes it as one piece, as 2.2 and 2.3 do (2.4 sets the bit only)."""
    body = extended + frames + bytes(padding)
    if unsync and version < 4:
        body = unsynchronised(body)
    flags = 0x80 * unsync | 0x40 * bool(extended) | 0x10 * footer
    head = bytes([version, 0, flags]) + synchsafe(len(body))
    return b"ID3" + head + body + (b"3DI" + head if footer else b"")


def frames_of(
    tags: dict[str, str],
    version: int = 4,
    encoding: int = 3,
    flags: Sequence[str] = (),
    end: bool = False,
    plain_size: bool = False,
) -> bytes:
    ids = SHORT_IDS if version == 2 else IDS
    return b"".join(frame(ids[name], text_body(text, encoding, end), version, flags, plain_size) for name, text in tags.items())


def picture(version: int = 4, size: int = 3_000, flags: Sequence[str] = ()) -> bytes:
    """A cover whose bytes look like frames and like escapes."""
    data = (b"\xff\xe0\xff\x00TPE1\0\0\0\x05\0\0\0evil" * (size // 16 + 1))[:size]
    if version == 2:
        return frame(b"PIC", b"\0JPG\x03\0" + data, version)
    return frame(b"APIC", b"\0image/jpeg\0\x03\0" + data, version, flags)


def id3v1(tags: dict[str, str], encoding: str = "latin-1") -> bytes:
    cut = [tags.get(name, "").encode(encoding)[:30].ljust(30, b"\0") for name in ("title", "artist", "album")]
    return b"TAG" + b"".join(cut) + b"1999" + bytes(30) + b"\x0c"


def ape(items: Sequence[tuple[str, bytes, int]], header: bool = True, version: int = 2_000) -> bytes:
    """An APEv2 tag of (key, value, flags): flags 0 for text, 2 for bytes, 4 for a link."""
    body = b"".join(struct.pack("<II", len(v), flags) + key.encode() + b"\0" + v for key, v, flags in items)

    def edge(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII", version, len(body) + 32, len(items), flags) + bytes(8)

    return (edge(0xA0000000) if header else b"") + body + edge(0x80000000 if header else 0)


def ape_of(tags: dict[str, str], **options) -> bytes:
    return ape([(name.title(), text.encode(), 0) for name, text in tags.items()], **options)


def lyrics3() -> bytes:
    body = b"LYRICSBEGININD0000200LYR00011la la la la"
    return body + f"{len(body):06d}".encode() + b"LYRICS200"


def chunk(name: bytes, body: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(body)) + body + b"\0" * (len(body) % 2)


def info_of(tags: dict[str, str], encoding: str = "utf-8") -> bytes:
    return chunk(b"LIST", b"INFO" + b"".join(chunk(INFO[n], t.encode(encoding) + b"\0") for n, t in tags.items()))


def with_chunks(data: bytes, *chunks: bytes, first: bool = False) -> bytes:
    """A RIFF or AIFF file with chunks added at its end, or behind its 12 bytes of header."""
    body = data[:12] + b"".join(chunks) + data[12:] if first else data + b"\0" * (len(data) % 2) + b"".join(chunks)
    return body[:4] + struct.pack("<I" if body[:4] == b"RIFF" else ">I", len(body) - 8) + body[8:]


def comments(pairs: Sequence[tuple[str, bytes]]) -> bytes:
    """A Vorbis comment without framing bit."""
    fields = [key.encode() + b"=" + value for key, value in pairs]
    return (
        struct.pack("<I", 4)
        + b"test"
        + struct.pack("<I", len(fields))
        + b"".join(struct.pack("<I", len(field)) + field for field in fields)
    )


def with_flac_comments(data: bytes, body: bytes) -> bytes:
    """A FLAC whose only blocks are STREAMINFO and these comments."""
    at = 4
    while True:
        last, size = data[at] & 0x80, int.from_bytes(data[at + 1 : at + 4], "big")
        at += 4 + size
        if last:
            break
    return data[:4] + b"\0" + data[5:42] + b"\x84" + len(body).to_bytes(3, "big") + body + data[at:]


def atom(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body


def ilst_of(tags: dict[str, str], kind: int = 1, encoding: str = "utf-8") -> bytes:
    items = b"".join(
        atom(ATOMS[name], atom(b"data", struct.pack(">II", kind, 0) + text.encode(encoding))) for name, text in tags.items()
    )
    handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    return atom(b"udta", atom(b"meta", bytes(4) + handler + atom(b"ilst", items)))


def with_ilst(data: bytes, udta: bytes) -> bytes:
    """An MP4 whose movie atom is its last one, with this `udta`."""
    at = data.rindex(b"moov") - 4
    movie = data[at + 8 : at + struct.unpack(">I", data[at : at + 4])[0]]
    kept, inside = b"", 0
    while inside < len(movie):
        size = struct.unpack(">I", movie[inside : inside + 4])[0]
        kept += movie[inside : inside + size] if movie[inside + 4 : inside + 8] != b"udta" else b""
        inside += size
    return data[:at] + atom(b"moov", kept + udta)


@lru_cache(maxsize=16)
def sound(suffix: str) -> bytes:
    """Two seconds of music without tags."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        if suffix in (".mp3", ".m4a", ".opus"):
            bare = {"id3v2_version": "0", "write_xing": "0"} if suffix == ".mp3" else {}
            encode(path, melody(2), options=bare, bit_rate=32_000)
        elif suffix == ".aac":
            adts(path)
        else:
            write(path, melody(2, rate=8_000), rate=8_000)
        return path.read_bytes()


def adts(path: Path) -> None:
    import av

    with av.open(str(encode(path.with_suffix(".m4a"), melody(2)))) as file, av.open(str(path), "w", format="adts") as out:
        stream = out.add_stream_from_template(file.streams.audio[0])
        for packet in file.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)


def _mp3_situations() -> dict[str, tuple[Callable[[], bytes], dict[str, str]]]:
    def mp3(*before: bytes, after: bytes = b"") -> Callable[[], bytes]:
        return lambda: b"".join(before) + sound(".mp3") + after

    made: dict[str, tuple[Callable[[], bytes], dict[str, str]]] = {}
    for version in (2, 3, 4):
        for encoding in (0, 1) if version < 4 else (0, 1, 2, 3):
            tags = NIGHT if encoding == 0 else NORTH
            for unsync in (False, True):
                body = frames_of(tags, version, encoding, ("unsynchronised", "length") if unsync and version == 4 else ())
                made[f"v2{version}-{CODECS[encoding]}{'-unsync' * unsync}.mp3"] = (
                    mp3(id3(body, version, unsync, padding=64)),
                    tags,
                )
    cover = picture(3)
    made |= {
        "v23-cover-unsync.mp3": (mp3(id3(cover + frames_of(NORTH, 3, 1), 3, True)), NORTH),
        "v22-cover-unsync.mp3": (mp3(id3(picture(2) + frames_of(NORTH, 2, 1), 2, True)), NORTH),
        "v24-cover-unsync.mp3": (
            mp3(id3(picture(4, flags=["unsynchronised"]) + frames_of(NORTH, 4, 1, ["unsynchronised"]), 4, True)),
            NORTH,
        ),
        "v24-unsync-no-length.mp3": (mp3(id3(frames_of(NORTH, 4, 1, ["unsynchronised"]), 4, True)), NORTH),
        "v24-unsync-frame-only.mp3": (mp3(id3(frames_of(NORTH, 4, 1, ["unsynchronised"]), 4)), NORTH),
        "v24-bit-without-frames.mp3": (mp3(id3(frames_of(NIGHT, 4, 3), 4, True)), NIGHT),
        "v23-extended.mp3": (mp3(id3(frames_of(NORTH, 3, 1), 3, extended=struct.pack(">IHI", 6, 0, 0), padding=20)), NORTH),
        "v23-extended-crc.mp3": (mp3(id3(frames_of(NORTH, 3, 1), 3, extended=struct.pack(">IHII", 10, 0x8000, 0, 77))), NORTH),
        "v23-extended-unsync.mp3": (
            mp3(id3(frames_of(NORTH, 3, 1), 3, True, extended=struct.pack(">IHII", 10, 0x8000, 0, 0xFFFFFFFF))),
            NORTH,
        ),
        "v24-extended.mp3": (mp3(id3(frames_of(NORTH), 4, extended=synchsafe(6) + b"\x01\x00")), NORTH),
        "v24-extended-crc.mp3": (
            mp3(id3(frames_of(NORTH), 4, extended=synchsafe(12) + b"\x01\x20\x05" + bytes(4) + b"\x4d")),
            NORTH,
        ),
        "v23-compressed.mp3": (mp3(id3(frames_of(NORTH, 3, 1, ["compressed"]), 3)), NORTH),
        "v24-compressed.mp3": (mp3(id3(frames_of(NORTH, 4, 3, ["compressed"]), 4)), NORTH),
        "v24-compressed-unsync.mp3": (mp3(id3(frames_of(NORTH, 4, 3, ["compressed", "unsynchronised"]), 4, True)), NORTH),
        "v23-grouped.mp3": (mp3(id3(frames_of(NORTH, 3, 1, ["grouped"]), 3)), NORTH),
        "v24-grouped.mp3": (mp3(id3(frames_of(NORTH, 4, 1, ["grouped"]), 4)), NORTH),
        "v24-grouped-length.mp3": (mp3(id3(frames_of(NORTH, 4, 1, ["grouped", "length"]), 4)), NORTH),
        "v24-length.mp3": (mp3(id3(frames_of(NORTH, 4, 1, ["length"]), 4)), NORTH),
        "v23-encrypted.mp3": (mp3(id3(frames_of(NORTH, 3, 1, ["encrypted"]), 3)), {}),
        "v24-encrypted.mp3": (
            mp3(id3(frames_of({"title": "x"}, 4, 1, ["encrypted"]) + frames_of({"artist": "Béla"}), 4)),
            {"artist": "Béla"},
        ),
        "v24-encrypted-with-v1.mp3": (mp3(id3(frames_of(NIGHT, 4, 1, ["encrypted"]), 4), after=id3v1(NIGHT)), NIGHT),
        "v24-plain-sizes.mp3": (
            mp3(id3(frames_of({"title": "long " * 60 + "end"}, 4, 3, plain_size=True) + frames_of({"artist": "Béla"}), 4)),
            {"title": ("long " * 60).strip(), "artist": "Béla"},
        ),
        "v24-footer.mp3": (mp3(id3(frames_of(NORTH), footer=True)), NORTH),
        "v24-appended.mp3": (mp3(after=id3(frames_of(NORTH), footer=True)), NORTH),
        "v24-twice.mp3": (
            mp3(id3(frames_of({"artist": "Björk"})), id3(frames_of({"title": "Jóga"}))),
            {"artist": "Björk", "title": "Jóga"},
        ),
        "v24-several.mp3": (mp3(id3(frames_of({"artist": "Ada\0Béla", "title": "Duo"}))), {"artist": "Ada", "title": "Duo"}),
        "v24-several-utf16.mp3": (
            mp3(id3(frame(b"TPE1", b"\x01" + "Ada".encode("utf-16") + b"\0\0" + "Béla".encode("utf-16")))),
            {"artist": "Ada"},
        ),
        "v24-ended.mp3": (mp3(id3(frames_of(NORTH, 4, 1, end=True))), NORTH),
        "v23-utf8.mp3": (mp3(id3(frames_of(NORTH, 3, 3), 3)), NORTH),
        "v23-utf16-without-mark.mp3": (
            mp3(id3(b"".join(frame(IDS[n], b"\x01" + t.encode("utf-16-le"), 3) for n, t in NIGHT.items()), 3)),
            NIGHT,
        ),
        "v23-empty-frame.mp3": (mp3(id3(frame(b"TIT2", b"", 3) + frames_of({"artist": "Ada"}, 3, 0), 3)), {"artist": "Ada"}),
        "v24-lists-no-name.mp3": (mp3(id3(frame(b"TXXX", b"\x03album\0No") + frames_of({"artist": "Ada"}))), {"artist": "Ada"}),
        "v24-long-cover-first.mp3": (mp3(id3(picture(4, 200_000) + frames_of(NORTH))), NORTH),
        "v24-unknown-encoding.mp3": (mp3(id3(frame(b"TIT2", b"\x09junk") + frames_of({"artist": "Ada"}))), {"artist": "Ada"}),
        "v1.mp3": (mp3(after=id3v1(NIGHT)), NIGHT),
        "v1-utf8.mp3": (mp3(after=id3v1({"artist": "Björk"}, "utf-8")), {"artist": "Björk"}),
        "v1-latin.mp3": (mp3(after=id3v1({"artist": "Björk"})), {"artist": "Björk"}),
        "v1-fills-v2.mp3": (
            mp3(id3(frames_of({"title": "Jóga"})), after=id3v1({"title": "Joga", "artist": "Bjork"})),
            {"title": "Jóga", "artist": "Bjork"},
        ),
        "ape.mp3": (mp3(after=ape_of(NORTH)), NORTH),
        "ape-no-header.mp3": (mp3(after=ape_of(NORTH, header=False)), NORTH),
        "ape-v1.mp3": (mp3(after=ape_of(NORTH) + id3v1({"artist": "Bjork", "title": "Joga"})), NORTH),
        "ape-lyrics-v1.mp3": (mp3(after=ape_of(NORTH) + lyrics3() + id3v1({"artist": "Bjork"})), NORTH),
        "ape-cover.mp3": (
            mp3(after=ape([("Cover Art (Front)", b"x.jpg\0\xff\xfb" * 900, 2), ("ARTIST", b"Ada\0B\xc3\xa9la", 0)])),
            {"artist": "Ada"},
        ),
        "ape-gain-only.mp3": (mp3(after=ape([("REPLAYGAIN_TRACK_GAIN", b"-3 dB", 0)]) + id3v1(NIGHT)), NIGHT),
        "ape-bytes.mp3": (mp3(after=ape([("Title", b"\xff\xfe\x00", 2), ("Artist", b"Ada", 0)])), {"artist": "Ada"}),
        "ape-and-v2.mp3": (
            mp3(id3(frames_of({"title": "Jóga"})), after=ape_of({"title": "Other", "artist": "Björk"})),
            {"title": "Jóga", "artist": "Björk"},
        ),
        "ape-at-start.mp3": (mp3(ape_of(NORTH)), NORTH),
    }
    return made


def _other_situations() -> dict[str, tuple[Callable[[], bytes], dict[str, str]]]:
    def v4() -> bytes:
        return id3(frames_of(NORTH, 4, 1, ["unsynchronised"]), 4, True)

    def v3() -> bytes:
        return id3(picture(3) + frames_of(NORTH, 3, 1), 3, True)

    plain = [(name, text.encode()) for name, text in NORTH.items()]
    big = [("METADATA_BLOCK_PICTURE", b"QUJD" * 40_000), *plain]
    return {
        "info.wav": (lambda: with_chunks(sound(".wav"), info_of(NORTH)), NORTH),
        "info-first.wav": (lambda: with_chunks(sound(".wav"), info_of(NORTH), first=True), NORTH),
        "info-cp1252.wav": (lambda: with_chunks(sound(".wav"), info_of(NORTH, "cp1252")), NORTH),
        "id3.wav": (lambda: with_chunks(sound(".wav"), chunk(b"id3 ", v3())), NORTH),
        "id3-v4.wav": (lambda: with_chunks(sound(".wav"), chunk(b"ID3 ", v4())), NORTH),
        "id3-and-info.wav": (lambda: with_chunks(sound(".wav"), info_of({"artist": "Bjork"}), chunk(b"id3 ", v3())), NORTH),
        "id3.aiff": (lambda: with_chunks(sound(".aiff"), chunk(b"ID3 ", v4(), ">")), NORTH),
        "id3-v3.aiff": (lambda: with_chunks(sound(".aiff"), chunk(b"ID3 ", v3(), ">")), NORTH),
        "text.aiff": (
            lambda: with_chunks(
                sound(".aiff"), chunk(b"NAME", b"Night Crossing", ">"), chunk(b"AUTH", b"The Long Winters", ">")
            ),
            {k: NIGHT[k] for k in ("title", "artist")},
        ),
        "text-8-bit.aiff": (lambda: with_chunks(sound(".aiff"), chunk(b"NAME", "Jóga".encode("mac-roman"), ">")), {}),
        "comments.flac": (lambda: with_flac_comments(sound(".flac"), comments(plain)), NORTH),
        "comments-twice.flac": (
            lambda: with_flac_comments(sound(".flac"), comments([("artist", b"Ada"), ("ARTIST", b"Cleo")])),
            {"artist": "Ada"},
        ),
        "comments-8-bit.flac": (
            lambda: with_flac_comments(sound(".flac"), comments([("artist", b"Bj\xf6rk"), ("title", b"J")])),
            {"title": "J"},
        ),
        "id3-before.flac": (
            lambda: id3(frames_of({"artist": "Bjork"})) + with_flac_comments(sound(".flac"), comments(plain)),
            NORTH,
        ),
        "id3-alone.flac": (lambda: v4() + with_flac_comments(sound(".flac"), comments([])), NORTH),
        "big.flac": (lambda: with_flac_comments(sound(".flac"), comments(big)), NORTH),
        "ilst.m4a": (lambda: with_ilst(sound(".m4a"), ilst_of(NORTH)), NORTH),
        "ilst-utf16.m4a": (lambda: with_ilst(sound(".m4a"), ilst_of(NORTH, 2, "utf-16-be")), {}),
        "ilst-untyped.m4a": (lambda: with_ilst(sound(".m4a"), ilst_of(NORTH, 0)), {}),
        "id3.aac": (lambda: v4() + sound(".aac"), NORTH),
        "v1.aac": (lambda: sound(".aac") + id3v1(NIGHT), NIGHT),
        "ape.aac": (lambda: sound(".aac") + ape_of(NORTH), NORTH),
        "mp3-inside.wav": (lambda: v4() + sound(".mp3"), NORTH),
        "flac-inside.mp3": (lambda: with_flac_comments(sound(".flac"), comments(plain)), NORTH),
        "wav-inside.mp3": (lambda: with_chunks(sound(".wav"), info_of(NORTH)), NORTH),
        "m4a-inside.mp3": (lambda: with_ilst(sound(".m4a"), ilst_of(NORTH)), NORTH),
        "none.wav": (lambda: sound(".wav"), {}),
        "none.mp3": (lambda: sound(".mp3"), {}),
    }


SITUATIONS = _mp3_situations() | _other_situations()
