"""Lengths by the framing of files, with headers written byte by byte."""

from __future__ import annotations

import struct

import pytest

from tonelake.ingest.containers import mp3_frames, ogg_is_chained, ogg_lacks_end, promised_seconds


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


FORMAT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 44_100, 176_400, 4, 16))


@pytest.mark.parametrize(
    ("chunks", "seconds"),
    [
        (FORMAT + chunk(b"data", b"", 352_800), 2.0),
        (FORMAT + chunk(b"note", b"as odd as can be, and later in the alphabet") + chunk(b"data", b"", 352_800), 2.0),
        (chunk(b"JUNK", bytes(27)) + FORMAT + chunk(b"LIST", bytes(40)) + chunk(b"data", b"", 88_200), 0.5),
        (FORMAT + chunk(b"data", b"", 0), None),
        (FORMAT + chunk(b"data", b"", 0xFFFFFFFF), None),
        (FORMAT + chunk(b"LIST", bytes(8)), None),
        (chunk(b"data", b"", 352_800), None),
    ],
)
def test_seconds_by_the_header_of_a_wav(tmp_path, chunks, seconds):
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    assert promised_seconds(tmp_path / "a.wav", 44_100) == seconds


def tag(mark: bytes, flags: int, frames: int) -> bytes:
    """First frame of an mp3, silent, with a header as written by LAME (with flags) or by Fraunhofer's encoder (without)."""
    if mark == b"VBRI":
        return b"\xff\xfb\x90\x00" + bytes(32) + mark + struct.pack(">HHHII", 1, 0, 75, 99_999, frames) + bytes(300)
    return b"\xff\xfb\x90\x00" + bytes(32) + mark + struct.pack(">II", flags, frames) + bytes(300)


@pytest.mark.parametrize(
    ("first", "frames"),
    [
        (tag(b"Xing", 0b1111, 12_345), 12_345),
        (tag(b"Info", 0b0001, 7), 7),
        (tag(b"Xing", 0b1110, 12_345), None),                        # bytes, seek table and quality, but no number of frames
        (tag(b"Info", 0b0110, 7), None),
        (tag(b"VBRI", 0, 4_096), 4_096),
        (b"\xff\xfb\x90\x00" + bytes(400), None),
        (b"\xff\xfb\x90\x00" + bytes(32) + b"Xing\0\0", None),     # cut off
    ],
)
@pytest.mark.parametrize("before", [b"", b"ID3\x04\0\0" + bytes([0, 0, 2, 5]) + b"Xing".ljust(2 * 128 + 5, b"\x01")])
def test_number_of_frames_by_the_header_of_an_mp3(tmp_path, before, first, frames):
    (tmp_path / "a.mp3").write_bytes(before + first)
    assert mp3_frames(tmp_path / "a.mp3") == frames


def page(flags: int, serial: int) -> bytes:
    return b"OggS" + struct.pack("<BBqIIIB", 0, flags, 48_000, serial, 0, 0, 1) + b"\x04body"


@pytest.mark.parametrize(("flags", "lacks_end"), [(0, True), (1, True), (2, True), (4, False), (5, False), (6, False)])
def test_an_ogg_stream_without_a_last_page_lacks_its_end(tmp_path, flags, lacks_end):
    path = tmp_path / "a.ogg"
    path.write_bytes(page(2, 1) + page(0, 1) * 50_000 + page(flags, 1))
    assert ogg_lacks_end(path) == lacks_end
    path.write_bytes(b"RIFF" + path.read_bytes()[4:])
    assert not ogg_lacks_end(path)


def test_ogg_pages_with_other_serial_numbers_belong_to_another_stream(tmp_path):
    path = tmp_path / "a.ogg"
    for serials, chained in (((1, 1, 1), False), ((1, 1, 2), True), ((1 << 31, 1 << 31, 1 << 30), True), ((7,), False)):
        path.write_bytes(b"".join(page(0, serial) for serial in serials))
        assert ogg_is_chained(path) == chained
