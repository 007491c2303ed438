"""Sample rate and frames that the spectra share: frame i of a window is centred at sample 256 i + 128."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SAMPLE_RATE = 22_050                     # Hz
HOP = 256                                # 11.6 ms, 86.1 frames a second
CENTRE = HOP // 2                        # of the first frame
FRAMES_AT_ONCE = 512                     # cut out of the signal together: 4 MB of 2,048 samples each


def frame_count(samples: int) -> int:
    """Number of frames of a window: one per whole hop, at least one.

    >>> frame_count(100), frame_count(512), frame_count(767)
    (1, 2, 2)
    """
    return max(1, samples // HOP)


def cut_frames(signal: np.ndarray, *, first: int, hop: int, length: int, count: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield `count` pieces of `length` samples, the first of which begins at sample `first`, as (rows, (row, length)) views."""
    pieces = np.lib.stride_tricks.sliding_window_view(signal, length)[first::hop][:count]
    assert len(pieces) == count, f"a signal of {len(signal)} samples has {len(pieces)} of {count} frames"
    for begin in range(0, count, FRAMES_AT_ONCE):
        rows = slice(begin, min(begin + FRAMES_AT_ONCE, count))
        yield rows, pieces[rows]
