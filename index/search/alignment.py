"""Align two clips: find the stretch of one that is most similar to a stretch of the other, in seconds.

Frames of one layer are averaged to ten a second, centred by their common mean, and compared by cosine.  A match of fixed
length is the diagonal of that matrix with the highest mean; with `warp` the second clip may play the stretch faster or
slower, by librosa's dynamic time warping (Müller, Fundamentals of Music Processing, 2015, section 7.2).
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.embed import load_librosa
from tonelake.index.names.rank import Song
from tonelake.index.search.file_vectors import encode_file
from tonelake.index.search.names import find_clip
from tonelake.index.search.query import is_file
from tonelake.index.vectors import unit
from tonelake.ingest import DecoderPool
from tonelake.store import FrameStates, InputError, Lake, Space, layer_with_frames

RATE = 10                                # frames a second that are compared: one beat is about half a second
WARP_STEP = RATE // 2                    # frames between the stretches of the first clip that are tried: half a second
SECONDS = 5.0                            # default length of a match

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two stretches in seconds from the starts of their clips, with the mean cosine between them."""

    start_s: float
    end_s: float
    other_start_s: float
    other_end_s: float
    score: float

    def __str__(self) -> str:
        return (
            f"{self.start_s:.1f} to {self.end_s:.1f} s of the first clip match {self.other_start_s:.1f} to "
            f"{self.other_end_s:.1f} s of the second best: score {self.score:.3f}"
        )


def align(
    lake: Lake, query: str | Path | Song, other: str | Path | Song, *, space: str | None = None, layer: int | str | None = None,
    seconds: float = SECONDS, warp: bool = False,
) -> Match:
    """Return the best match of `seconds`, or of the shorter clip's length, between two clips (ids or files).

    `layer`: by default the space's default layer, or the first one with stored frames.
    Raises InputError if the frames of a clip are not stored.
    """
    if seconds <= 0:
        raise InputError(f"a match of {seconds:g} s: its length must be positive")
    chosen = lake.spaces.get(space)
    number = layer_with_frames(lake.frames(space), chosen, layer)
    first, second = (frames_of(lake, chosen, one, number) for one in (query, other))
    return match(first, second, seconds, warp)


def add_parts(
    lake: Lake, hits: pl.DataFrame, query: str | Path | Song, *, space: str | None = None, layer: int | str | None = None,
    seconds: float = SECONDS, warp: bool = False,
) -> pl.DataFrame:
    """Add the best match to each hit: query_at_s, hit_at_s, part_s (in the hit) and part_score; null for hits without
    stored frames, and where `match` raises."""
    chosen = lake.spaces.get(space)
    number = layer_with_frames(lake.frames(space), chosen, layer)
    first = frames_of(lake, chosen, query, number)
    stored = lake.frames(chosen).each(hits["clip_id"].to_list(), number) if len(hits) else ()
    found: dict[str, Match] = {}
    for frames in stored:
        with contextlib.suppress(InputError):            # silence has no best match
            found[frames.clip_id] = match(first, frames, seconds, warp)
    rows = [
        (m.start_s, m.other_start_s, m.other_end_s - m.other_start_s, m.score) if m else (None,) * 4
        for m in map(found.get, hits["clip_id"])
    ]
    schema = dict.fromkeys(("query_at_s", "hit_at_s", "part_s", "part_score"), pl.Float64)
    return hits.hstack(pl.DataFrame(rows, schema=schema, orient="row"))


def frames_of(lake: Lake, space: Space, query: str | Path | Song, layer: int) -> FrameStates:
    """Return the frames of one layer of a clip or file, or of the first clip of a song."""
    if isinstance(query, Song) or not is_file(query):
        return lake.frames(space).read(find_clip(lake, query if isinstance(query, Song) else str(query))["clip_id"], layer)
    with DecoderPool(1) as pool:
        encoded, _, notes = encode_file(lake, Path(query), space, pool, frames=(layer,))
    for note in notes:
        log.info("%s", note)
    return FrameStates(str(query), layer, encoded.frame_s, encoded.frames[0])


def match(first: FrameStates, second: FrameStates, seconds: float, warp: bool) -> Match:
    """Return the best match between the frames of two clips.

    Raises InputError for frames with NaN, and if the frames of both clips are all alike, so that no stretch fits best.
    """
    a, b = average_frames(first), average_frames(second)
    for frames, one in ((a, first), (b, second)):
        if not np.isfinite(frames).all():
            raise InputError(f"{one.clip_id}: its frames hold NaN or infinity. Embed it again in float32")
    common = np.concatenate([a, b]).mean(axis=0)
    if not any(np.abs(frames - common).max() > 1e-6 * np.abs(common).max() for frames in (a, b)):
        raise InputError(f"{first.clip_id} and {second.clip_id}: all their frames are alike, as in silence. Choose other clips")
    cosines = unit(a - common) @ unit(b - common).T                  # (frame, frame)
    length = min(max(1, round(seconds * RATE)), *cosines.shape)
    if warp:                             # the best stretch at equal speed need not be the best with warping
        tried = [(i, *best_warp(cosines[i : i + length])) for i in range(0, len(cosines) - length + 1, WARP_STEP)]
        i, j, j_end, score = max(tried, key=lambda found: found[3])
    else:
        i, j, score = best_diagonal(cosines, length)
        j_end = j + length
    return Match(
        start_s=i / RATE, end_s=(i + length) / RATE, other_start_s=j / RATE, other_end_s=j_end / RATE, score=float(score)
    )


def average_frames(frames: FrameStates) -> np.ndarray:
    """Average frames to RATE a second: (frame, dim) float32.  A slot without frames repeats the one before."""
    slot = np.floor(frames.frame_s * RATE).astype(np.int64)
    starts = np.flatnonzero(np.diff(slot, prepend=slot[0] - 1))
    sums = np.add.reduceat(frames.states.astype(np.float32), starts, axis=0)
    means = sums / np.diff(np.append(starts, len(slot)))[:, None]
    filled = np.searchsorted(slot[starts], np.arange(slot[-1] + 1), side="right") - 1
    return means[np.maximum(filled, 0)]


def best_diagonal(cosines: np.ndarray, length: int) -> tuple[int, int, float]:
    """Return (row, column, mean) of the diagonal stretch of `length` with the highest mean, the first of equal ones."""
    rows, columns = cosines.shape
    sums = np.zeros((rows + 1, columns + 1))
    for row in range(rows):              # cumulative sums along each diagonal
        sums[row + 1, 1:] = sums[row, :-1] + cosines[row]
    means = (sums[length:, length:] - sums[: rows - length + 1, : columns - length + 1]) / length
    best = divmod(int(means.argmax()), means.shape[1])
    return *best, float(means[best])


def best_warp(cosines: np.ndarray) -> tuple[int, int, float]:
    """Return (first column, column after the last, mean along the path) of the stretch that all rows fit best with warping."""
    steps = np.array([[1, 1], [1, 2], [2, 1]])               # half to twice as fast
    _, path = load_librosa().sequence.dtw(C=1 - cosines, subseq=True, step_sizes_sigma=steps)
    columns = path[:, 1]
    return int(columns.min()), int(columns.max()) + 1, float(cosines[path[:, 0], columns].mean())
