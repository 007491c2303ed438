"""The opened file that every decoder of this room returns, and the errors of a single decoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tonelake.ingest.errors import AudioError
from tonelake.ingest.mono import Block

MAX_CHANNELS = 8
MAX_GAP_S = 0.5                          # a longer jump between packets is more than jitter
MAX_HOLE_S = 900.0                       # longest gap that is filled; scan rejects gaps above 2 %, 864 s of the longest file


class DecoderError(AudioError):
    """One decoder fails on a file; another may read it."""


def nothing() -> None:
    """Close a reader that holds nothing open."""


@dataclass(kw_only=True)
class Reader:
    """An opened file: its rate and channel count, and an iterator that decodes its samples."""

    rate: int                            # Hz, of the first samples
    channels: int
    promised_s: float | None             # by exact fields of the header; None if it has none
    blocks: Iterator[Block]              # (rate, (samples, channels) float32)
    first: int = 0                       # number of the first sample of `blocks`, a whole second
    close: Callable[[], None] = nothing
    exact: bool = False                  # a promise that is missed by one sample means lost pages
    bad_packets: int = 0                 # that do not decode although later audio does; counted while reading
    gap_s: float = 0.0                   # time missing between packets so far
    here: float = 1.0                    # share of its bytes that the file has, by its header
    stopped: str | None = None           # reason why the container could not be read further
    extra: bool = False                  # bytes behind the declared end are not read
