"""Files that go wrong elsewhere, made on the spot; each returns the path it wrote."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sounds import RATE, encode, melody, write


def truncate(path: Path, keep: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def flip(path: Path, start: float, stop: float, seed: int = 0) -> Path:
    """Random bytes from `start` to `stop` of a file, both shares of its size."""
    data = bytearray(path.read_bytes())
    first, last = int(len(data) * start), int(len(data) * stop)
    data[first:last] = np.random.default_rng(seed).integers(0, 256, last - first, dtype=np.uint8).tobytes()
    path.write_bytes(bytes(data))
    return path


def drm(path: Path) -> Path:
    """An m4a whose sample entry says that it is protected."""
    encode(path, melody(3))
    path.write_bytes(path.read_bytes().replace(b"mp4a", b"drms", 1))
    return path


def endless_header(path: Path) -> Path:
    """A WAV as a pipe writes it: sizes of 0xFFFFFFFF."""
    write(path, melody(3), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = struct.pack("<I", 0xFFFFFFFF)
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(bytes(data))
    return path


def no_length(path: Path) -> Path:
    """A FLAC or WAV as somebody writes it who cannot go back to the header: its length is 0."""
    data = bytearray(write(path, melody(3), subtype="PCM_16").read_bytes())
    if path.suffix == ".flac":
        data[21] &= 0xF0                 # 36 bits of STREAMINFO
        data[22:26] = bytes(4)
    else:
        at = data.index(b"data") + 4
        data[4:8] = data[at : at + 4] = bytes(4)
    path.write_bytes(bytes(data))
    return path


def joined(path: Path) -> Path:
    """Two files, one after the other, as a mixtape or a recorded station is: the first one's header tells of itself alone."""
    make = write if path.suffix == ".ogg" else encode
    parts = [make(path.with_name(f"{seed}{path.suffix}"), melody(3 + 5 * seed, seed=seed)) for seed in (0, 1)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def without_pages(path: Path, *places: float, seconds: float = 30) -> Path:
    """Opus that lacks a second at each of the places, shares of its length."""
    data = encode(path, melody(seconds)).read_bytes()
    starts = [found.start() for found in re.finditer(b"OggS", data)]
    lost = {int(place * len(starts)) for place in places}
    pages = zip(starts, [*starts[1:], len(data)], strict=True)
    path.write_bytes(b"".join(data[start:end] for number, (start, end) in enumerate(pages) if number not in lost))
    return path


def bad_packet(path: Path, value: int = 0) -> Path:
    """20 s of which one packet in the middle holds nothing but one value."""
    import av

    data = bytearray(encode(path, melody(20)).read_bytes())
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux(audio=0) if packet.size]
    start, size = packets[len(packets) // 2]
    data[start : start + size] = bytes([value]) * size
    path.write_bytes(bytes(data))
    return path


def many_channels(path: Path) -> Path:
    return write(path, np.repeat(melody(2), 12, axis=1))


def nan_samples(path: Path) -> Path:
    sound = melody(3)
    sound[RATE : RATE + 5] = np.nan
    sound[-1] = np.inf
    return write(path, sound, subtype="FLOAT")


def folder_named(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def loop(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name)
    return path


def named(path: Path, make: Callable[[Path], Path], suffix: str) -> Path:
    """A file of one format under the name of another."""
    return make(path.with_suffix(suffix)).rename(path)


# Rejected, and a word that the reason must have.
REJECTED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty.mp3": (lambda p: _bytes(p, b""), "empty"),
    "page.mp3": (lambda p: _bytes(p, b"<!DOCTYPE html><html><body>Not found</body></html>" * 40), "not audio|no audio"),
    "noise.mp3": (lambda p: _bytes(p, np.random.default_rng(1).integers(0, 256, 30_000, dtype=np.uint8).tobytes()), ""),
    "noise.flac": (lambda p: _bytes(p, b"fLaC" + bytes(range(256)) * 20), ""),
    "no_frames.wav": (lambda p: write(p, np.zeros((0, 1), np.float32)), "no audio frames"),
    "one_sample.wav": (lambda p: write(p, np.full((1, 1), 0.5, np.float32)), "0.00 s long"),
    "short.wav": (lambda p: write(p, melody(0.6)), "0.60 s long"),
    "silence.wav": (lambda p: write(p, np.zeros((RATE * 3, 2), np.float32)), "silent throughout"),
    "loud.wav": (lambda p: write(p, melody(3) * 9, subtype="FLOAT"), "peak of"),
    "nan.wav": (nan_samples, "NaN"),
    "drm.m4a": (drm, "encrypted"),
    "cut.flac": (lambda p: truncate(write(p, melody(20)), 0.5), "truncated|decod"),
    "cut.m4a": (lambda p: truncate(encode(p, melody(20)), 0.5), ""),
    "cut.wav": (lambda p: truncate(write(p, melody(20), subtype="PCM_16"), 0.5), "20.0 s promised"),
    "cut.aiff": (lambda p: truncate(write(p, melody(20)), 0.5), "20.0 s promised"),
    "cut.mp3": (lambda p: truncate(encode(p, melody(20)), 0.5), "20.0 s promised"),
    "hole.flac": (lambda p: flip(write(p, melody(20)), 0.4, 0.5), ""),
    "holes.opus": (lambda p: without_pages(p, 0.3, 0.6), "2.0 s of 30.0 s are missing"),
    "twelve.wav": (many_channels, "12 channels"),
    "two_hertz.aiff": (lambda p: write(p, melody(3), rate=2), "claims 2 samples a second"),
    "gigahertz.wav": (lambda p: write(p, melody(3), rate=2_000_000_000), "claims 2,000,000,000 samples"),
    "folder.mp3": (folder_named, "folder"),
    "loop.mp3": (loop, "cannot be read"),
}

def varying_bit_rate(path: Path) -> Path:
    """10 s at 32 kbit/s, then 10 s at 320, without a header that counts: a guess from the first frames says 110 s."""
    bare = {"write_xing": "0", "id3v2_version": "0"}
    low = encode(path.with_name("low.mp3"), melody(10, rate=44_100), options=bare, bit_rate=32_000)
    high = encode(path.with_name("high.mp3"), melody(10, seed=1, rate=44_100), options=bare, bit_rate=320_000)
    path.write_bytes(low.read_bytes() + high.read_bytes())
    return path


# Accepted: their seconds.
ACCEPTED: dict[str, tuple[Callable[[Path], Path], float]] = {
    "six.wav": (lambda p: write(p, np.repeat(melody(3), 6, axis=1)), 3.0),
    "u8.wav": (lambda p: write(p, melody(3), subtype="PCM_U8"), 3.0),
    "f64.wav": (lambda p: write(p, melody(3), subtype="DOUBLE"), 3.0),
    "fast.wav": (lambda p: write(p, melody(3, rate=96_000), rate=96_000), 3.0),
    "slow.wav": (lambda p: write(p, melody(3, rate=8_000), rate=8_000), 3.0),
    "pipe.wav": (endless_header, 3.0),
    "mp3_inside.wav": (lambda p: named(p, lambda q: encode(q, melody(3)), ".mp3"), 3.0),
    "wav_inside.mp3": (lambda p: named(p, lambda q: write(q, melody(3)), ".wav"), 3.0),
    "varying.mp3": (varying_bit_rate, 20.0),
    "no_xing.mp3": (lambda p: encode(p, melody(12), options={"write_xing": "0"}), 12.0),
    "stream.flac": (no_length, 3.0),
    "recorder.wav": (no_length, 3.0),
    "hole.opus": (lambda p: without_pages(p, 0.5, seconds=60), 60.0),
    "late.opus": (lambda p: without_pages(p, 0.08), 29.0),
    "packet.m4a": (bad_packet, 20.0),
    "packet_255.m4a": (lambda p: bad_packet(p, 255), 20.0),
    "packet.mp3": (bad_packet, 20.0),
    "packet_255.mp3": (lambda p: bad_packet(p, 255), 20.0),
    "joined.mp3": (joined, 11.0),
    "joined.opus": (joined, 11.0),
    "joined.ogg": (joined, 11.0),
}


def _bytes(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
