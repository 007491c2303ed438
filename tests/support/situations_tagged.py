"""Tags before and behind the music, in containers where they belong and where taggers put them all the same."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial

from pcm_files import aiff, chunk, wav
from situations import KINDS, Case, Situation
from tag_blocks import PICTURE, apev2, id3v1, id3v2, lyrics3

ARTIST = "The Long Winters"
# Behind the music: a tag must not change what is read from any container.
BEHIND = {
    "ID3v1 behind": lambda title: id3v1(title, ARTIST),
    "APEv2 behind": lambda title: apev2(title, ARTIST),
    "APEv2 with a picture behind": lambda title: apev2(title, ARTIST, picture=PICTURE),
    "APEv2 and ID3v1 behind": lambda title: apev2(title, ARTIST, header=False) + id3v1(title, ARTIST),
    "ID3v2 with a footer behind": lambda title: id3v2(title, ARTIST, footer=True),
    "ID3v2 with a picture and a footer behind": lambda title: id3v2(title, ARTIST, footer=True, picture=PICTURE),
}
MORE_BEHIND = {
    "Lyrics3 and ID3v1 behind": lambda title: lyrics3(title) + id3v1(title, ARTIST),
    "Lyrics3 without ID3v1 behind": lambda title: lyrics3(title),
    "APEv2, Lyrics3 and ID3v1 behind": lambda title: apev2(title, ARTIST) + lyrics3(title) + id3v1(title, ARTIST),
    "two ID3v1 behind": lambda title: id3v1(title, ARTIST) * 2,
    "ID3v1 extended behind": lambda title: b"TAG+" + bytes(223) + id3v1(title, ARTIST),
    "ID3v1 and a newline behind": lambda title: id3v1(title, ARTIST) + b"\n",
}
BEFORE = {
    "ID3v2.3 before": lambda title: id3v2(title, ARTIST, version=3),
    "ID3v2.4 before": lambda title: id3v2(title, ARTIST, encoding=3),
    "ID3v2.4 with a picture before": lambda title: id3v2(title, ARTIST, picture=PICTURE),
    "ID3v2.4 with 200 KB of padding before": lambda title: id3v2(title, ARTIST, padding=200_000),
}
MORE_BEFORE = {
    "ID3v2.3 unsynchronised before": lambda title: id3v2(title, ARTIST, version=3, unsync=True, picture=PICTURE),
    "ID3v2.4 unsynchronised before": lambda title: id3v2(title, ARTIST, unsync=True, picture=PICTURE),
    "ID3v2.4 with unsynchronised frames, unsaid in its head": lambda title: id3v2(title, ARTIST, unsync=True,
                                                                                 flag_frames_only=True),
    "ID3v2.3 with an extended header before": lambda title: id3v2(title, ARTIST, version=3, extended=True, padding=50),
    "ID3v2.4 with an extended header before": lambda title: id3v2(title, ARTIST, extended=True),
    "ID3v2.4 with a footer before": lambda title: id3v2(title, ARTIST, footer=True),
    "two ID3v2 before": lambda title: id3v2(title, ARTIST) + id3v2(title, ARTIST, version=3),
    "APEv2 before": lambda title: apev2(title, ARTIST),
    "ID3v2 before, zeros behind it": lambda title: id3v2(title, ARTIST) + bytes(5_000),
}
HIDES_THE_DELAY = ("APEv2 before", "ID3v2 before, zeros behind it")              # decoders look for it in the first frame
CERTAIN = ("ID3v2.3 before", "ID3v2.4 before", "ID3v2.4 with a picture before", "ID3v1 behind")      # read, not dropped
LONG_COMMENTS = {
    "opus": ("ogg", "libopus", {}), "ogg flac": ("ogg", "flac", {}), "flac": ("flac", "flac", {}),
    "mp3 cbr": ("mp3", "libmp3lame", {"bit_rate": 128_000}), "m4a aac": ("ipod", "aac", {"bit_rate": 128_000}),
    "webm opus": ("webm", "libopus", {}),
}
STREAMS = ("mp3 cbr", "mp3 vbr", "mp3 no xing", "adts")              # ID3 and APE belong to these
# libFLAC, FFmpeg and taggers read a FLAC behind an ID3v2 tag; the others appear since taggers do not look.
ALSO_BEFORE = ("flac", "wav", "aiff", "ogg vorbis", "opus", "ogg flac", "wavpack", "tta", "ac3")


def situations(seed: int) -> Iterator[Situation]:
    yield from _inside(seed)
    for kind in KINDS.values():
        stream = kind.name in STREAMS
        for name, tag in (BEHIND | (MORE_BEHIND if stream else {})).items():
            case = Case(kind, name, seed)
            title = _title(case)
            yield case.situation(lambda case=case, tag=tag, title=title: case.encode() + tag(title),
                                 title=title if stream else None, ffmpeg=kind.ffmpeg_ends,
                                 title_may_be_absent=name not in CERTAIN or kind.name == "adts")
        if not stream and kind.name not in ALSO_BEFORE:
            continue
        for name, tag in (BEFORE | (MORE_BEFORE if stream else {})).items():
            case = Case(kind, name, seed)
            title = _title(case)
            yield case.situation(lambda case=case, tag=tag, title=title: tag(title) + _untagged(case),
                                 case.delayed() if name in HIDES_THE_DELAY else case.outcome(),
                                 title=title if stream else None,
                                 title_may_be_absent=name not in CERTAIN or kind.name == "adts")


def _inside(seed: int) -> Iterator[Situation]:
    """Tags where the container has a place for them, longer than the parts of a file that are searched for headers."""
    for kind, (container, codec, more) in LONG_COMMENTS.items():
        case = Case(KINDS[kind], "a comment of 300 KB", seed)
        yield case.situation(partial(case.by_ffmpeg, container, codec, comment="a remark " * 33_000, **more))
    for name, tag in (("ID3v2", id3v2), ("ID3v2 with a picture", partial(id3v2, picture=PICTURE * 20))):
        for kind, chunk_name in (("wav", b"id3 "), ("aiff", b"ID3 ")):
            for place in ("before", "after"):
                case = Case(KINDS[kind], f"{name} in a chunk {place} the sound", seed)
                make = partial(_with_chunk, case, chunk_name, tag(_title(case), ARTIST), place)
                yield case.situation(make)
    case = Case(KINDS["flac"], "a picture of 1 MB and padding", seed)
    yield case.situation(partial(_with_blocks, case))


def _with_chunk(case: Case, name: bytes, tag: bytes, place: str) -> bytes:
    if case.kind.name == "wav":
        return wav(case.pcm(), **{place: chunk(name, tag)})
    return aiff(case.pcm(order=">"), **{place: chunk(name, tag, order=">")})


def _with_blocks(case: Case) -> bytes:
    """A FLAC with a picture and padding behind its STREAMINFO; the blocks of libFLAC follow."""
    data = case.encode()
    head = struct.pack(">II", 3, 10) + b"image/jpeg" + struct.pack(">IIIIII", 0, 0, 0, 0, 0, 1_000_000)
    picture = head + (PICTURE * 60)[:1_000_000].ljust(1_000_000, b"\0")
    blocks = b"\x06" + struct.pack(">I", len(picture))[1:] + picture + b"\x01" + struct.pack(">I", 8_192)[1:] + bytes(8_192)
    return data[:42] + blocks + data[42:]


def _title(case: Case) -> str:
    words = ("Night", "Crossing", "Ancient", "Names", "Bl\u00e5", "\u00c9t\u00e9", "Harbour")
    return " ".join(str(word) for word in case.rng.choice(words, 3))


def _untagged(case: Case) -> bytes:
    """The case's file without the tag that FFmpeg writes before an mp3."""
    data = case.encode()
    if data[:3] != b"ID3":
        return data
    size = sum((byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    return data[10 + size :]
