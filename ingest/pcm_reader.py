"""Read samples of WAV and AIFF files that the libraries misread: 24 bits in 4 bytes, 64-bit integers, lengths that are unknown
or wrong, and several files in one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from tonelake.ingest.mono import Block
from tonelake.ingest.pcm_headers import PcmHeader
from tonelake.ingest.readers import DecoderError, Reader

EXAMINED = 65_536                        # samples at a time
FLOATS = (4, 8)                          # bytes
INTEGERS = (1, 2, 3, 4, 8)


def sample_bytes(header: PcmHeader) -> int:
    """Bytes in which one sample of one channel is stored; 0 if the header contradicts itself."""
    channels = header.channels
    return header.frame_bytes // channels if channels and not header.frame_bytes % channels else 0


def can_read(header: PcmHeader) -> bool:
    """Whether `open_pcm` reads this kind of samples."""
    width = sample_bytes(header)
    widths = {"integer": INTEGERS, "float": FLOATS, "compressed": ()}[header.coding]
    return width in widths and 0 < header.bits <= 8 * width and header.rate > 0


def open_pcm(path: Path, headers: list[PcmHeader], first_s: int = 0) -> Reader:
    """Open the samples that `headers` describe, one file after another, from second `first_s`."""
    if not all(can_read(header) for header in headers):
        raise DecoderError(f"{path.name}: its samples are stored in a way that is not read")
    promises = [header.promised_s for header in headers]
    first = first_s * headers[0].rate if len(headers) == 1 else 0

    def blocks() -> Iterator[Block]:
        for header in headers:
            for block in _read(path, header, first if len(headers) == 1 else 0):
                yield header.rate, block

    return Reader(
        rate=headers[0].rate, channels=max(header.channels for header in headers), blocks=blocks(), first=first,
        promised_s=sum(filter(None, promises)) if all(promises) else None,
    )


def _read(path: Path, header: PcmHeader, first: int) -> Iterator[np.ndarray]:
    width = sample_bytes(header)
    to_float = _conversion(path, header, width)
    count = header.available // header.frame_bytes - first
    with path.open("rb") as file:
        file.seek(header.start + first * header.frame_bytes)
        while count > 0:
            raw = file.read(min(count, header.rate) * header.frame_bytes)
            whole = len(raw) // header.frame_bytes
            if not whole:
                return
            count -= whole
            samples = np.frombuffer(raw, np.uint8, whole * header.frame_bytes).reshape(-1, width)
            yield to_float(samples).reshape(whole, header.channels)


def _conversion(path: Path, header: PcmHeader, width: int):
    """A function (samples, width) uint8 -> (samples,) float32 in [-1, 1]."""
    order = ">" if header.big_endian else "<"
    if header.coding == "float":
        return lambda raw: raw.reshape(-1).view(f"{order}f{width}").astype(np.float32)
    if width == 1 and not header.signed:
        return lambda raw: (raw.reshape(-1).astype(np.float32) - 128) / np.float32(128)
    shift = 0
    if width > -(-header.bits // 8) and _is_right_aligned(path, header):
        shift = 8 * (width - -(-header.bits // 8))
    if width == 3:
        return lambda raw: _from_24(raw if order == "<" else raw[:, ::-1], shift)
    scale = np.float64(2.0 ** (1 - 8 * width))

    def convert(raw: np.ndarray) -> np.ndarray:
        values = raw.reshape(-1).view(f"{order}i{width}").astype(f"i{width}", copy=False)
        if shift:
            values = values << shift
        if width <= 2:
            return values.astype(np.float32) * np.float32(scale)
        return (values * scale).astype(np.float32)

    return convert


def _from_24(raw: np.ndarray, shift: int) -> np.ndarray:
    """(samples, 3) bytes, the lowest first, as float32."""
    values = np.zeros((len(raw), 4), np.uint8)
    values[:, 1:] = raw
    return ((values.reshape(-1).view("<i4") << shift) * np.float64(2.0**-31)).astype(np.float32)


def _is_right_aligned(path: Path, header: PcmHeader) -> bool:
    """Whether samples fill the low bytes of their container, as arecord's S24_LE does, rather than the high ones."""
    stat = path.stat()
    return _aligned_right_in_state(path, header, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=8)                    # clips of one file follow each other
def _aligned_right_in_state(path: Path, header: PcmHeader, _mtime_ns: int, _size: int) -> bool:
    """In samples that fill the high bytes, the lowest byte is zero throughout; in those that fill the low bytes, the highest
    byte is a sign.  If both hold, a peak below -48 dB is less likely than samples of few bits."""
    width, left = sample_bytes(header), header.available
    low, high, below = (-1, 0, 1) if header.big_endian else (0, -1, -2)
    with path.open("rb") as file:
        file.seek(header.start)
        while left > 0 and (raw := file.read(min(left, EXAMINED * header.frame_bytes))):
            left -= len(raw)
            samples = np.frombuffer(raw, np.uint8, len(raw) // width * width).reshape(-1, width)
            if samples[:, low].any():
                return True
            signs = samples[:, high]
            if not np.isin(signs, (0, 255)).all() or ((signs == 255) & (samples[:, below] < 128)).any():
                return False
    return True
