"""Serve a clip, or the recording it is part of, as a virtual WAV file, decoding byte ranges on request.

Playback starts within a moment at any position and in any format that can be decoded, including those browsers do not
support, and an hour takes no more memory than a minute.  16-bit mono at 24 kHz, decoded in a separate process.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tonelake import Lake
from tonelake.ingest import AudioError, is_file_source, to_path

RATE = 24_000                            # Hz
BLOCK_S = 10.0                           # audio decoded at a time
MARGIN_S = 0.1                           # extra audio decoded on either side of a block, so that resampling leaves no seam
HEADER = 44                              # bytes before the samples of a WAV file
KEPT_BLOCKS = 64                         # 31 MB
KEPT_LENGTHS = 1_000
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
MAX_DATA_BYTES = (1 << 32) - 64          # largest sample size in bytes that a WAV header can state: 24 hours


@dataclass(frozen=True)
class Sound:
    """The virtual WAV file of a clip, or with `whole` of the recording that it is part of."""

    lake: Lake
    clip_id: str
    duration_s: float
    whole: bool = False

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return HEADER + min(2 * round(self.duration_s * RATE), MAX_DATA_BYTES)

    def bytes(self, first: int, last: int) -> Iterator[bytes]:
        """Yield bytes `first` to `last`, both included, in pieces.  Raises AudioError if the source cannot be read."""
        if first < HEADER:
            yield wav_header(self.size - HEADER)[first : last + 1]
            first = HEADER
        while first <= last:
            number, offset = divmod(first - HEADER, self._block_bytes)
            block = decoded_block(self.lake, self.clip_id, number, self.duration_s, self.whole)
            piece = block[offset : offset + last + 1 - first]
            if not piece:                # the source is slightly shorter than recorded: pad with silence to the stated size
                piece = bytes(min(last + 1 - first, self._block_bytes - offset))
            yield piece
            first += len(piece)

    @property
    def _block_bytes(self) -> int:
        return 2 * round(BLOCK_S * RATE)


@lru_cache(maxsize=KEPT_LENGTHS)
def recording_length(lake: Lake, clip_id: str) -> float:
    """Return the length in seconds of the recording that a clip is part of.  Raises AudioError if its file is missing."""
    return lake.recording_length(clip_id, urgent=True)


@lru_cache(maxsize=KEPT_BLOCKS)
def decoded_block(lake: Lake, clip_id: str, number: int, duration_s: float, whole: bool = False) -> bytes:
    """Return one block of a clip or recording as little-endian 16-bit samples."""
    begin, end = number * BLOCK_S, min((number + 1) * BLOCK_S, duration_s)
    before, after = min(MARGIN_S, begin), min(MARGIN_S, duration_s - end)
    try:
        seconds = end + after - begin + before
        samples = lake.audio(clip_id, RATE, start=begin - before, seconds=seconds, whole=whole, urgent=True)
    except AudioError:
        # A header may promise more than the file holds; what no clip covers may be damaged.  Both are played as silence.
        clip = lake.clips.find(clip_id)
        if not whole or number * BLOCK_S < clip["start_s"] + clip["duration_s"] or not is_file_there(clip["source"]):
            raise
        samples = np.zeros(0, np.float32)
    skip, count = round(before * RATE), round(end * RATE) - round(begin * RATE)
    return np.round(np.clip(samples[skip : skip + count], -1, 1) * 32767).astype("<i2").tobytes()


def is_file_there(source: str) -> bool:
    """Whether the file of a source exists.  Sources that name no file, such as chorales and songs of a server, always do."""
    return not is_file_source(source) or to_path(source).exists()


def wav_header(data: int) -> bytes:
    """Return the 44-byte header of a 16-bit mono WAV file with `data` bytes of samples."""
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", data + HEADER - 8, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", data
    )


def is_byte_range(header: str | None) -> bool:
    """Whether a Range header is one range of bytes, perhaps one that cannot be satisfied.

    >>> is_byte_range("bytes=100-"), is_byte_range("bytes=-"), is_byte_range("lines=1-2"), is_byte_range("bytes=1-2,5-6")
    (True, False, False, False)
    """
    found = RANGE.fullmatch((header or "").strip())
    return found is not None and not found[0].endswith("=-")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Parse an HTTP Range header with one range into (first, last) byte; None if it is missing or unsatisfiable.

    >>> parse_range("bytes=100-", 1000), parse_range("bytes=-10", 1000), parse_range("bytes=2000-", 1000)
    ((100, 999), (990, 999), None)
    """
    found = RANGE.fullmatch((header or "").strip())
    if found is None or not is_byte_range(header):
        return None
    if not found[1]:
        if not int(found[2]):            # the last 0 bytes
            return None
        return max(0, size - int(found[2])), size - 1
    first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
    return (first, last) if first <= last else None
