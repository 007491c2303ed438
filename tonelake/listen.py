"""Feed a live encoder in real time from a file, or from raw samples on standard input."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from tonelake.ingest import DecoderPool, to_source
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.index import LiveEncoder, LiveGestures, LiveStep

PIECE_S = 0.1                            # seconds of a stream pushed at once
DECODED_S = 10.0                         # seconds of a file decoded at once, in a process of its own
FORMATS = {"s16le": ("<i2", 32768.0), "s32le": ("<i4", 2147483648.0), "f32le": ("<f4", 1.0)}


def listen_to_file(live: LiveEncoder | LiveGestures, path: Path, *, real_time: bool = True) -> Iterator[LiveStep]:
    """Yield steps of the live encoder while a file plays, or as fast as possible without `real_time`.  Raises AudioError."""
    source, rate = to_source(path), live.frames.rate
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
                yield live.push(samples[i : i + step])
            at_s += seconds
    yield live.finish()


def listen_to_stream(
    live: LiveEncoder | LiveGestures, stream: BinaryIO, *, channels: int = 1, form: str = "s16le"
) -> Iterator[LiveStep]:
    """Yield steps of the live encoder for raw interleaved samples, until the stream ends.

    Raises InputError for an unknown format or number of channels.
    """
    if form not in FORMATS:
        raise InputError(f"format {form!r}: unknown. Choose {', '.join(FORMATS)}")
    if not 1 <= channels <= 64:
        raise InputError(f"{channels} channels: out of range. Give 1 to 64")
    kind, full = FORMATS[form]
    frame = np.dtype(kind).itemsize * channels
    size = max(1, round(PIECE_S * live.frames.rate)) * frame
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
            yield live.push(np.nan_to_num(samples.reshape(-1, channels)))
    yield live.finish()


class Lateness:
    """Warn if the encoder falls behind the stream, at most once a minute."""

    def __init__(self) -> None:
        self._begun, self._said = time.monotonic(), 0.0

    def note(self, at_s: float) -> str | None:
        """A warning for a person, or None.  `at_s`: seconds of the stream that are encoded."""
        behind, now = time.monotonic() - self._begun - at_s, time.monotonic()
        if behind < 2.0 or now - self._said < 60:
            return None
        self._said = now
        return f"{behind:.1f} s behind. Use a lower --layer, a shorter --window or a longer --hop"


def standard_input() -> BinaryIO:
    """Standard input as bytes.  Raises InputError if it is a terminal, which sends no samples."""
    if sys.stdin.isatty():
        raise InputError("standard input: is a terminal. Pipe raw samples in, as from `arecord -t raw`")
    return sys.stdin.buffer
