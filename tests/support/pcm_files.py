"""WAV, RF64, Wave64, AIFF, AU and CAF files written byte by byte, so that any field of their headers can be wrong.

Sources: RIFF and WAVEFORMATEXTENSIBLE (Microsoft), RF64 (EBU Tech 3306), Wave64 (Sony), AIFF and AIFF-C 1991 (Apple),
Sun/NeXT audio (`audio(5)`), Core Audio Format 1.0 (Apple).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

GUID_TAIL = bytes.fromhex("0000000000001000800000aa00389b71")[2:]
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")


@dataclass(frozen=True)
class Samples:
    """Encoded PCM: bytes in one byte order, with the fields that describe them."""

    body: bytes
    channels: int
    rate: int                            # Hz
    bits: int
    is_float: bool = False

    @property
    def block(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * (self.bits // 8)

    @property
    def frames(self) -> int:
        return len(self.body) // self.block


def pcm(sound: np.ndarray, rate: int, bits: int = 16, *, order: str = "<", is_float: bool = False,
        unsigned: bool = False) -> Samples:
    """Encode (samples, channels) in [-1, 1]."""
    if is_float:
        body = sound.astype(f"{order}f{bits // 8}").tobytes()
    else:
        full = 2.0 ** (bits - 1)
        whole = np.clip(np.rint(sound * full), -full, full - (1 if bits < 60 else 1024)).astype(np.int64)
        if unsigned:
            whole += int(full)
        wide = whole.astype("<i8").reshape(-1).view(np.uint8).reshape(-1, 8)[:, : bits // 8]
        body = (wide if order == "<" else wide[:, ::-1]).tobytes()
    return Samples(body, sound.shape[1], rate, bits, is_float)


def chunk(name: bytes, body: bytes, *, size: int | None = None, order: str = "<") -> bytes:
    """A RIFF or IFF chunk with its padding; `size` replaces the stated size."""
    return name + struct.pack(f"{order}I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def wav_format(samples: Samples, *, code: int | None = None, valid_bits: int | None = None, byte_rate: int | None = None,
               block: int | None = None, bits: int | None = None, order: str = "<") -> bytes:
    """The body of a `fmt ` chunk; extensible if `valid_bits` is given."""
    code = (3 if samples.is_float else 1) if code is None else code
    block = samples.block if block is None else block
    byte_rate = samples.rate * samples.block if byte_rate is None else byte_rate
    head = struct.pack(f"{order}HHIIHH", 0xFFFE if valid_bits is not None else code, samples.channels, samples.rate, byte_rate,
                       block, samples.bits if bits is None else bits)
    if valid_bits is None:
        return head
    mask = {1: 4, 2: 3, 6: 0x3F, 8: 0x63F}.get(samples.channels, 0)
    return head + struct.pack(f"{order}HHIH", 22, valid_bits, mask, code) + GUID_TAIL


def wav(samples: Samples, *, fmt: bytes | None = None, before: bytes = b"", after: bytes = b"", riff_size: int | None = None,
        data_size: int | None = None, magic: bytes = b"RIFF") -> bytes:
    """A WAV.  `before` and `after`: further chunks around the data; sizes replace the true ones."""
    order = ">" if magic == b"RIFX" else "<"
    body = (
        b"WAVE" + chunk(b"fmt ", wav_format(samples, order=order) if fmt is None else fmt, order=order) + before
        + chunk(b"data", samples.body, size=data_size, order=order) + after
    )
    return chunk(magic, body, size=riff_size, order=order)


def rf64(samples: Samples, *, riff: int | None = None, data: int | None = None, frames: int | None = None,
         chunk_size: int = 0xFFFFFFFF) -> bytes:
    """An RF64; the 64-bit sizes of its `ds64` chunk can be replaced."""
    fmt = chunk(b"fmt ", wav_format(samples))
    sizes = struct.pack(
        "<QQQI", 4 + 36 + len(fmt) + 8 + len(samples.body) if riff is None else riff,
        len(samples.body) if data is None else data, samples.frames if frames is None else frames, 0,
    )
    return b"RF64\xff\xff\xff\xffWAVE" + chunk(b"ds64", sizes) + fmt + chunk(b"data", samples.body, size=chunk_size)


def w64(samples: Samples, *, riff: int | None = None, data: int | None = None) -> bytes:
    """A Wave64: chunks named by GUIDs, with 64-bit sizes that include their heads of 24 bytes, padded to 8 bytes."""
    fmt = wav_format(samples)
    body = (
        b"wave" + W64_TAIL + b"fmt " + W64_TAIL + struct.pack("<Q", 24 + len(fmt)) + fmt
        + b"data" + W64_TAIL + struct.pack("<Q", 24 + len(samples.body) if data is None else data) + samples.body
        + bytes(-len(samples.body) % 8)
    )
    return W64_RIFF + struct.pack("<Q", 24 + len(body) if riff is None else riff) + body


def extended(rate: int) -> bytes:
    """An 80-bit IEEE 754 extended number, as AIFF states its rate."""
    exponent = rate.bit_length() - 1
    return struct.pack(">HQ", 16_383 + exponent, rate << (63 - exponent))


def aiff(samples: Samples, *, compression: bytes | None = None, frames: int | None = None, form_size: int | None = None,
         data_size: int | None = None, bits: int | None = None, after: bytes = b"", before: bytes = b"") -> bytes:
    """An AIFF; an AIFF-C if `compression` is given.  `before` and `after`: chunks around the sound."""
    common = struct.pack(">HIH", samples.channels, samples.frames if frames is None else frames,
                         samples.bits if bits is None else bits) + extended(samples.rate)
    kind = b"AIFF"
    version = b""
    if compression is not None:
        kind, version = b"AIFC", chunk(b"FVER", struct.pack(">I", 0xA2805140), order=">")
        common += compression + b"\0\0"
    body = (
        kind + version + chunk(b"COMM", common, order=">") + before
        + chunk(b"SSND", bytes(8) + samples.body, size=data_size, order=">") + after
    )
    return chunk(b"FORM", body, size=form_size, order=">")


def au(samples: Samples, code: int, *, size: int | None = None, note: bytes = bytes(8)) -> bytes:
    """A Sun/NeXT file; `code` is its encoding, 3 for 16 bits."""
    stated = len(samples.body) if size is None else size
    return struct.pack(">4sIIIII", b".snd", 24 + len(note), stated, code, samples.rate, samples.channels) + note + samples.body


def caf(samples: Samples, *, little: bool = False, size: int | None = None, before: bytes = b"") -> bytes:
    """A Core Audio file of linear PCM; `size` of the data chunk includes its edit count, -1 means up to the end."""
    flags = (1 if samples.is_float else 0) | (2 if little else 0)
    fields = (b"lpcm", flags, samples.block, 1, samples.channels, samples.bits)
    description = struct.pack(">d4sIIIII", float(samples.rate), *fields)
    stated = len(samples.body) + 4 if size is None else size
    return (
        b"caff\0\x01\0\0" + caf_chunk(b"desc", description) + before
        + b"data" + struct.pack(">q", stated) + bytes(4) + samples.body
    )


def caf_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack(">q", len(body)) + body
