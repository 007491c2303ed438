"""Spectrogram of a clip over pitch, in parts of 16 s: three bins a semitone from A0.

A value is the lesser of the constant-Q transform, exact in pitch, and the variable-Q transform, exact in time.
Parts follow one another without a gap: part i covers the columns from `PART_COLUMNS` i on, each of `COLUMN_S` seconds.  A part
is decoded and computed alone, so that an hour takes no more memory than a minute.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tonelake import Lake
from tonelake.embed import BINS_PER_SEMITONE, LOWEST_PITCH, load_encoder
from tonelake.store import InputError

RATE, HOP = 22_050, 256                  # of the encoder: Hz, and samples between frames
FRAMES_A_COLUMN = 2                      # the louder of two frames is kept
COLUMN_S = FRAMES_A_COLUMN * HOP / RATE
PART_COLUMNS = 688
PART_S = PART_COLUMNS * COLUMN_S
MARGIN_FRAMES = 88                       # computed on either side and cut off: more than half of the longest filter, 1.9 s
HIGHEST_PITCH = 108                      # overtones above a piano's highest key are left out
BINS = BINS_PER_SEMITONE * (HIGHEST_PITCH - LOWEST_PITCH + 1)
KEPT_PARTS = 64                          # 180 kB each


def part_count(duration_s: float) -> int:
    """Number of parts of a clip, at least one.

    >>> part_count(0.5), part_count(PART_S), part_count(20.0)
    (1, 1, 2)
    """
    return max(1, int(np.ceil(duration_s / PART_S - 1e-6)))


def grid_of(duration_s: float) -> dict[str, float]:
    """Return the sizes that are needed to draw the parts of a clip."""
    return {
        "parts": part_count(duration_s), "part_s": PART_S, "column_s": COLUMN_S, "bins": BINS, "per_pitch": BINS_PER_SEMITONE,
        "lowest": LOWEST_PITCH, "highest": HIGHEST_PITCH,
    }


@lru_cache(maxsize=KEPT_PARTS)
def spectrogram_part(lake: Lake, clip_id: str, part: int) -> np.ndarray:
    """Return one part as (column, bin) uint8: 0 is -80 dB, 255 a sine at full scale; the last part is as short as it is.

    Raises InputError if the clip has no such part, AudioError if its audio cannot be read.
    """
    duration_s = lake.clips.find(clip_id)["duration_s"]
    if not 0 <= part < part_count(duration_s):
        raise InputError(f"clip {clip_id}: has {part_count(duration_s)} parts of {PART_S:.1f} s. Ask for one from 0 on")
    before = MARGIN_FRAMES if part else 0
    start_s = part * PART_S - before * HOP / RATE
    seconds = PART_S + (before + MARGIN_FRAMES) * HOP / RATE
    audio = lake.audio(clip_id, RATE, start=start_s, seconds=seconds)
    frames = np.minimum(*(load_encoder(name).states(audio, 0) for name in ("cqt", "vqt")))       # (frame, bin)
    frames = frames[before : before + PART_COLUMNS * FRAMES_A_COLUMN, :BINS]
    if len(frames) % FRAMES_A_COLUMN:
        frames = np.concatenate([frames, frames[-1:]])
    columns = frames.reshape(-1, FRAMES_A_COLUMN, BINS).max(axis=1)                  # (column, bin), -1 is -80 dB
    return np.clip(np.rint((columns + 1) * 127.5), 0, 255).astype(np.uint8)
