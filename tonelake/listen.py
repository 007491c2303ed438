"""Listening in real time to a file or to raw samples from standard input: (seconds, samples) pieces, and what is heard."""

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
    from tonelake.index import LiveEncoder, LiveStep

PIECE_S = 0.1                            # of a stream, pushed at a time
DECODED_S = 10.0                         # of a file, read at a time in a process of its own
FORMATS = {"s16le": ("<i2", 32768.0), "s32le": ("<i4", 2147483648.0), "f32le": ("<f4", 1.0)}


def listen_to_file(live: LiveEncoder, path: Path, *, real_time: bool = True) -> Iterator[LiveStep]:
    """What is heard of a file as it plays; as fast as can be where not in `real_time`.  Raises AudioError."""
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
    live: LiveEncoder, stream: BinaryIO, *, channels: int = 1, form: str = "s16le"
) -> Iterator[LiveStep]:
    """What is heard of raw samples, channel beside channel, until they end.  Raises InputError for an unknown format."""
    if form not in FORMATS:
        raise InputError(f"no format {form!r}: choose {', '.join(FORMATS)}")
    if not 1 <= channels <= 64:
        raise InputError(f"{channels} channels: a stream has 1 to 64")
    kind, full = FORMATS[form]
    frame = np.dtype(kind).itemsize * channels
    size = max(1, round(PIECE_S * live.frames.rate)) * frame
    left = b""
    while True:
        read = getattr(stream, "read1", stream.read)(size)           # what is there, rather than all that was asked for
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
    """Whether the encoder keeps up with what comes, said once a minute at the most."""

    def __init__(self) -> None:
        self._begun, self._said = time.monotonic(), 0.0

    def note(self, at_s: float) -> str | None:
        """`at_s`: how much of the stream has been heard."""
        behind, now = time.monotonic() - self._begun - at_s, time.monotonic()
        if behind < 2.0 or now - self._said < 60:
            return None
        self._said = now
        return f"{behind:.1f} s behind: a lower --layer, a shorter --window or a longer --hop takes less"


def standard_input() -> BinaryIO:
    """Raises InputError where it is a terminal, which plays nothing."""
    if sys.stdin.isatty():
        raise InputError("- listens to raw samples on standard input: pipe some in, as from `arecord -t raw`")
    return sys.stdin.buffer
