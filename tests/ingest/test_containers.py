"""Framing of files: headers, pages and frames written byte by byte, and what of them promises a length."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from sounds import RATE, encode, melody, write

from tonelake.ingest.decode import read_audio
from tonelake.ingest.flac_frames import flac_parts
from tonelake.ingest.ogg_pages import ogg_links
from tonelake.ingest.pcm_headers import WAVE64, read_header
from tonelake.ingest.scan import promised_length, scan_file

PLACEHOLDERS = (0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0x80000024, 0xFFFFF000, 0xFFFFFFFF)


# -- WAV and its relatives

def chunk(name: bytes, body: bytes, size: int | None = None, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def form(tag: int = 1, channels: int = 2, rate: int = RATE, bits: int = 16, align: int | None = None) -> bytes:
    align = channels * bits // 8 if align is None else align
    return struct.pack("<HHIIHH", tag, channels, rate, rate * align, align, bits)


def wav(path: Path, *chunks: bytes, mark: bytes = b"RIFF") -> Path:
    body = b"".join(chunks)
    path.write_bytes(mark + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    return path


def pcm(path: Path, sound: np.ndarray, size: int | None = None) -> Path:
    data = (sound * 32_767).astype("<i2").tobytes()
    return wav(path, chunk(b"fmt ", form(channels=1)), chunk(b"data", data, size))


FORMAT = chunk(b"fmt ", form())
ADPCM = chunk(b"fmt ", form(tag=0x11, bits=4, align=1024)) + chunk(b"fact", struct.pack("<I", 44_100))


@pytest.mark.parametrize(
    ("chunks", "seconds"),
    [
        (FORMAT + chunk(b"data", b"", 352_800), 2.0),
        (FORMAT + chunk(b"note", b"as odd as can be, and later in the alphabet") + chunk(b"data", b"", 352_800), 2.0),
        (chunk(b"JUNK", bytes(27)) + FORMAT + chunk(b"LIST", bytes(40)) + chunk(b"data", b"", 88_200), 0.5),
        (chunk(b"fmt ", form()[:8] + b"\0\0\1\0" + form()[12:]) + chunk(b"data", b"", 88_200), 0.5),     # a wrong byte rate
        *((FORMAT + chunk(b"data", b"", size), None) for size in PLACEHOLDERS),
        (ADPCM + chunk(b"data", bytes(64)), None),                   # all blocks are there
        (ADPCM + chunk(b"data", b"", 64), 1.0),
    ],
)
def test_seconds_by_the_header_of_a_wav(tmp_path, chunks, seconds):
    header = read_header(wav(tmp_path / "a.wav", chunks))
    assert header.promised_s == seconds


@pytest.mark.parametrize("chunks", [FORMAT + chunk(b"LIST", bytes(8)), chunk(b"data", b"", 352_800), b"", bytes(40)])
def test_a_wav_without_format_or_samples_has_no_header(tmp_path, chunks):
    assert read_header(wav(tmp_path / "a.wav", chunks)) is None


def extended(rate: int) -> bytes:
    """A rate as an 80-bit float."""
    return struct.pack(">HQ", 16383 + 63 - (64 - rate.bit_length()), rate << (64 - rate.bit_length()))


def aiff(path: Path, sound: np.ndarray, frames: int | None = None, size: int | None = None) -> Path:
    data = (sound * 32_767).astype(">i2").tobytes()
    common = struct.pack(">hIh", sound.shape[1], len(sound) if frames is None else frames, 16) + extended(RATE)
    chunks = chunk(b"COMM", common, order=">") + chunk(b"SSND", bytes(8) + data, size, order=">")
    path.write_bytes(b"FORM" + struct.pack(">I", 4 + len(chunks)) + b"AIFF" + chunks)
    return path


def rf64(path: Path, sound: np.ndarray, size: int) -> Path:
    data = (sound * 32_767).astype("<i2").tobytes()
    long = chunk(b"ds64", struct.pack("<QQQI", size, size, size, 0))
    return wav(path, long, chunk(b"fmt ", form(channels=1)), chunk(b"data", data, 0xFFFFFFFF), mark=b"RF64")


def wave64(path: Path, sound: np.ndarray, size: int) -> Path:
    data = (sound * 32_767).astype("<i2").tobytes()
    tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    chunks = b"fmt " + tail + struct.pack("<Q", 40) + form(channels=1) + b"data" + tail + struct.pack("<Q", size) + data
    path.write_bytes(WAVE64 + struct.pack("<Q", 40 + len(chunks)) + b"wave" + tail + chunks)
    return path


STREAMS = {
    **{f"{size:#x}.wav": lambda p, s, n=size: pcm(p, s, n) for size in PLACEHOLDERS},
    **{f"{size:#x}.aiff": lambda p, s, n=size: aiff(p, s, n, n) for size in PLACEHOLDERS},
    "sox.aiff": lambda p, s: aiff(p, s, 0x7F000000 // 2, 0x7F000008),
    **{f"{size:#x}.rf64": lambda p, s, n=size: rf64(p, s, n) for size in (0, 0x7FFFFFFF, (1 << 64) - 1, (1 << 63) - 1)},
    **{f"{size:#x}.w64": lambda p, s, n=size: wave64(p, s, n) for size in (0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1)},
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_unknown_length_is_read_to_its_end(tmp_path, name):
    sound = melody(3)
    path = STREAMS[name](tmp_path / name, sound)
    scan = scan_file(path)
    assert (scan.duration_s, scan.flags, promised_length(path)) == (3.0, [], None)
    np.testing.assert_allclose(read_audio(path, 1.5, 1.0, RATE), sound[RATE * 3 // 2 : RATE * 5 // 2, 0], atol=1e-4)


@pytest.mark.parametrize("bits", [16, 24, 32, 64])
@pytest.mark.parametrize("container", [2, 3, 4, 8])
@pytest.mark.parametrize("side", ["left", "right"])
def test_integers_in_wider_containers_have_their_level(tmp_path, bits, container, side):
    if bits > 8 * container:
        pytest.skip("does not fit")
    sound = melody(1.5)
    values = np.round(sound[:, 0] * np.float64(2 ** (bits - 1))).astype("<i8")
    values = values << (8 * container - bits if side == "left" else 0)
    data = values.view(np.uint8).reshape(-1, 8)[:, :container].tobytes()
    path = wav(tmp_path / "a.wav", chunk(b"fmt ", form(channels=1, bits=bits, align=container)), chunk(b"data", data))
    scan = scan_file(path)
    assert (scan.duration_s, scan.flags) == (1.5, [])
    np.testing.assert_allclose(read_audio(path, 0.25, 1.0, RATE), sound[RATE // 4 : RATE // 4 + RATE, 0], atol=1e-4)


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".flac"])
def test_another_file_behind_the_end_is_read(tmp_path, suffix):
    parts = [write(tmp_path / f"{seed}{suffix}", melody(2 + seed, seed)) for seed in range(2)]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    scan = scan_file(path)
    assert (scan.duration_s, scan.flags) == (5.0, [])
    np.testing.assert_array_equal(read_audio(path, 2.5, 2.0, RATE), read_audio(parts[1], 0.5, 2.0, RATE))


def test_joined_mp4_files_are_read_to_the_end(tmp_path):
    parts = [encode(tmp_path / f"{seed}.m4a", melody(2 + seed, seed)) for seed in range(2)]
    path = tmp_path / "joined.m4a"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    scan = scan_file(path)
    assert scan.flags == []
    assert abs(scan.duration_s - 5) < 0.05


@pytest.mark.parametrize(("behind", "flags"), [
    (b"", []), (b"\0" * 100_000, []), (b"\n", []), (b"TAG" + bytes(125), []),
    (np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes(), ["extra data"]),
])
def test_bytes_behind_the_declared_end_are_flagged_unless_they_are_padding_or_a_tag(tmp_path, behind, flags):
    path = write(tmp_path / "a.wav", melody(3), subtype="PCM_16")
    path.write_bytes(path.read_bytes() + behind)
    scan = scan_file(path)
    assert (scan.duration_s, scan.flags) == (3.0, flags)


# -- FLAC

def test_the_last_frame_of_a_flac_tells_where_it_ends(tmp_path):
    path = write(tmp_path / "a.flac", melody(3.3))
    (part,) = flac_parts(path)
    assert (part.samples, part.last_sample, part.rate, part.longer) == (145_530, 145_530, RATE, False)
    data = bytearray(path.read_bytes())
    data[22:26] = struct.pack(">I", 44_100)
    path.write_bytes(bytes(data))
    assert flac_parts(path)[0].longer
    scan = scan_file(path)
    assert (scan.duration_s, scan.flags) == (3.3, [])


# -- Ogg

def page(flags: int, serial: int, number: int = 0, granule: int = 48_000, body: bytes = b"body") -> bytes:
    return b"OggS" + struct.pack("<BBqIIIB", 0, flags, granule, serial, number, 0, 1) + bytes([len(body)]) + body


@pytest.mark.parametrize(("flags", "ended"), [(0, False), (1, False), (4, True), (5, True), (6, True)])
def test_an_ogg_stream_ends_with_a_page_that_says_so(tmp_path, flags, ended):
    path = tmp_path / "a.ogg"
    path.write_bytes(page(2, 1) + b"".join(page(0, 1, n) for n in range(1, 5_000)) + page(flags, 1, 5_000))
    assert ogg_links(path)[-1].ended == ended
    path.write_bytes(path.read_bytes() + bytes(300_000))             # padding does not hide the last page
    assert ogg_links(path)[-1].ended == ended
    path.write_bytes(b"RIFF" + path.read_bytes()[4:])
    assert ogg_links(path) == []


def test_an_ogg_page_that_is_cut_off_does_not_end_its_stream(tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes((page(2, 1) + page(0, 1, 1) + page(4, 1, 2, 96_000))[:-1])
    (link,) = ogg_links(path)
    assert (link.ended, link.granules) == (False, [48_000])


def test_ogg_pages_with_other_serial_numbers_belong_to_another_stream(tmp_path):
    path = tmp_path / "a.ogg"
    first, second = page(2, 7) + page(0, 7, 1) + page(4, 7, 2), page(2, 8) + page(4, 8, 1)
    path.write_bytes(first + second)
    assert [(link.serial, link.start, link.end) for link in ogg_links(path)] == [
        (7, 0, len(first)), (8, len(first), len(first) + len(second)),
    ]
    # Multiplexed streams begin with one page each, before the first of any other kind.
    both = page(2, 1, body=b"\x80theora") + page(2, 2, body=b"\x01vorbis")
    path.write_bytes(both + page(0, 1, 1) + page(4, 2, 1) + page(4, 1, 2))
    (link,) = ogg_links(path)
    assert (link.serial, link.codec, link.ended) == (2, "vorbis", True)


def test_lost_ogg_pages_are_counted(tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes(page(2, 1) + page(0, 1, 1) + page(0, 1, 5) + page(4, 1, 6))
    assert ogg_links(path)[0].lost_pages == 3
