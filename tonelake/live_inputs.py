"""Sound of a live session, piece by piece: a file in real time, or raw samples on standard input.  `sound_card` has the third.

Each yields (samples,) or (samples, channel) float32 in [-1, 1].
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tonelake.ingest import DecoderPool, to_source
from tonelake.store import InputError

FILE_RATE = 48_000                       # Hz, at which a file is decoded
RAW_RATE = 44_100                        # Hz, of raw samples by default
PIECE_S = 0.1                            # seconds of a stream pushed at once
DECODED_S = 10.0                         # seconds of a file decoded at once, in a process of its own
FORMATS = {"s16le": ("<i2", 32768.0), "s32le": ("<i4", 2147483648.0), "f32le": ("<f4", 1.0)}


def file_pieces(path: Path, rate: int = FILE_RATE, *, real_time: bool = True) -> Iterator[np.ndarray]:
    """Yield the pieces of a file while it plays, or as fast as possible without `real_time`.  Raises AudioError."""
    source = to_source(path)
    begun = time.monotonic()
    with DecoderPool(1) as pool:
        length_s = pool.ask({"do": "scan", "source": source})["scan"]["duration_s"]
        at_s = 0.0
        while at_s < length_s:
            seconds = min(DECODED_S, length_s - at_s)
            request = {"do": "read", "source": source, "start_s": at_s, "duration_s": seconds, "rate": rate}
            samples = pool.ask(request)["samples"]
            step = round(PIECE_S * rate)
            for i in range(0, len(samples), step):
                if real_time:
                    time.sleep(max(0.0, begun + at_s + (i + step) / rate - time.monotonic()))
                yield samples[i : i + step]
            at_s += seconds


def stream_pieces(stream: BinaryIO, rate: int, *, channels: int = 1, form: str = "s16le") -> Iterator[np.ndarray]:
    """Return the pieces of raw interleaved samples, (samples, channel), until the stream ends.

    Raises InputError for an unknown format or number of channels.
    """
    if form not in FORMATS:
        raise InputError(f"format {form!r}: unknown. Choose {', '.join(FORMATS)}")
    if not 1 <= channels <= 64:
        raise InputError(f"{channels} channels: out of range. Give 1 to 64")
    return read_pieces(stream, rate, channels, form)


def read_pieces(stream: BinaryIO, rate: int, channels: int, form: str) -> Iterator[np.ndarray]:
    kind, full = FORMATS[form]
    frame = np.dtype(kind).itemsize * channels
    size = max(1, round(PIECE_S * rate)) * frame
    left = b""
    while True:
        read = getattr(stream, "read1", stream.read)(size)           # what is available now, without waiting for `size` bytes
        if not read:
            break
        data = left + read
        whole = len(data) // frame * frame
        left = data[whole:]
        if whole:
            samples = np.frombuffer(data[:whole], kind).astype(np.float32) / np.float32(full)
            yield np.nan_to_num(samples.reshape(-1, channels))


def standard_input() -> BinaryIO:
    """Standard input as bytes.  Raises InputError if it is a terminal, which sends no samples."""
    if sys.stdin.isatty():
        raise InputError("standard input: is a terminal. Pipe raw samples in, as from `arecord -t raw`")
    return sys.stdin.buffer
