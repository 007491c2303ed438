"""Where in two clips the match lies: the stretch of the one that is most like a stretch of the other, in seconds.

Frames of one layer are averaged to ten a second, less their common mean, and compared by cosine.  A match of fixed
length is the diagonal of that matrix with the highest mean; `warp` then lets the second clip play the first one's
stretch faster or slower, by dynamic time warping (Müller, Fundamentals of Music Processing, 2015, section 7.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.embed import load_librosa
from tonelake.index.search.query import hear_file, is_file
from tonelake.index.vectors import unit
from tonelake.ingest import DecoderPool
from tonelake.store import FrameStates, InputError, Lake, Space, layer_with_frames

RATE = 10                                # frames a second that are compared: an event of a beat is half a second
WARP_STEP = RATE // 2                    # stretches of the first clip are tried every half second
SECONDS = 5.0                            # of a match, where nothing else is asked for


@dataclass(frozen=True)
class Match:
    """Two stretches, in seconds from the starts of their clips, and the mean cosine between them."""

    start_s: float
    end_s: float
    other_start_s: float
    other_end_s: float
    score: float

    def __str__(self) -> str:
        return (
            f"{self.start_s:.1f} to {self.end_s:.1f} s of the first are most like {self.other_start_s:.1f} to "
            f"{self.other_end_s:.1f} s of the second: {self.score:.3f}"
        )


def align(
    lake: Lake, query: str | Path, other: str | Path, *, space: str | None = None, layer: int | str | None = None,
    seconds: float = SECONDS, warp: bool = False,
) -> Match:
    """The best match of `seconds` between two clips (ids or files); of all the shorter one has, where that is less.

    `layer`: by default the space's, or the only one of which frames are stored.
    Raises InputError where the frames of a clip are not stored.
    """
    if seconds <= 0:
        raise InputError(f"a match of {seconds:g} s: ask for more than none")
    chosen = lake.spaces.get(space)
    number = layer_with_frames(lake.frames(space), chosen, layer)
    first, second = (frames_of(lake, chosen, one, number) for one in (query, other))
    return match(first, second, seconds, warp)


def add_parts(
    lake: Lake, hits: pl.DataFrame, query: str | Path, *, space: str | None = None, layer: int | str | None = None,
    seconds: float = SECONDS, warp: bool = False,
) -> pl.DataFrame:
    """Hits with the best match of each: query_at_s, hit_at_s, part_s (in the hit) and part_score; null for hits without
    stored frames."""
    chosen = lake.spaces.get(space)
    number = layer_with_frames(lake.frames(space), chosen, layer)
    first = frames_of(lake, chosen, query, number)
    stored = lake.frames(chosen).each(hits["clip_id"].to_list(), number) if len(hits) else ()
    found = {frames.clip_id: match(first, frames, seconds, warp) for frames in stored}
    rows = [
        (m.start_s, m.other_start_s, m.other_end_s - m.other_start_s, m.score) if m else (None,) * 4
        for m in map(found.get, hits["clip_id"])
    ]
    schema = dict.fromkeys(("query_at_s", "hit_at_s", "part_s", "part_score"), pl.Float64)
    return hits.hstack(pl.DataFrame(rows, schema=schema, orient="row"))


def frames_of(lake: Lake, space: Space, query: str | Path, layer: int) -> FrameStates:
    """One layer of a clip or file over time."""
    if not is_file(query):
        return lake.frames(space).read(lake.clips.find(str(query))["clip_id"], layer)
    with DecoderPool(1) as pool:
        heard, _ = hear_file(lake, Path(query), space, pool, frames=(layer,))
    return FrameStates(str(query), layer, heard.frame_s, heard.frames[0])


def match(first: FrameStates, second: FrameStates, seconds: float, warp: bool) -> Match:
    """The best match between two clips' frames."""
    a, b = slow(first), slow(second)
    common = np.concatenate([a, b]).mean(axis=0)
    likeness = unit(a - common) @ unit(b - common).T                 # (frame, frame)
    length = min(max(1, round(seconds * RATE)), *likeness.shape)
    if warp:                             # the stretch that fits best at the same speed need not be the one that fits best
        tried = [(i, *best_warp(likeness[i : i + length])) for i in range(0, len(likeness) - length + 1, WARP_STEP)]
        i, j, j_end, score = max(tried, key=lambda found: found[3])
    else:
        i, j, score = best_diagonal(likeness, length)
        j_end = j + length
    return Match(i / RATE, (i + length) / RATE, j / RATE, j_end / RATE, float(score))


def slow(frames: FrameStates) -> np.ndarray:
    """Frames averaged to RATE a second: (frame, dim) float32.  Where a stretch has no frame, the one before stands."""
    slot = np.floor(frames.frame_s * RATE).astype(np.int64)
    starts = np.flatnonzero(np.diff(slot, prepend=slot[0] - 1))
    sums = np.add.reduceat(frames.states.astype(np.float32), starts, axis=0)
    means = sums / np.diff(np.append(starts, len(slot)))[:, None]
    filled = np.searchsorted(slot[starts], np.arange(slot[-1] + 1), side="right") - 1
    return means[np.maximum(filled, 0)]


def best_diagonal(likeness: np.ndarray, length: int) -> tuple[int, int, float]:
    """(row, column, mean) of the diagonal stretch of `length` with the highest mean, the first of equal ones."""
    rows, columns = likeness.shape
    sums = np.zeros((rows + 1, columns + 1))
    for row in range(rows):              # along each diagonal, the sum of what came before
        sums[row + 1, 1:] = sums[row, :-1] + likeness[row]
    means = (sums[length:, length:] - sums[: rows - length + 1, : columns - length + 1]) / length
    best = divmod(int(means.argmax()), means.shape[1])
    return *best, float(means[best])


def best_warp(likeness: np.ndarray) -> tuple[int, int, float]:
    """(first column, column after the last, mean along the way): the stretch that all rows fit best when time may warp."""
    steps = np.array([[1, 1], [1, 2], [2, 1]])               # half to twice as fast
    _, way = load_librosa().sequence.dtw(C=1 - likeness, subseq=True, step_sizes_sigma=steps)
    columns = way[:, 1]
    return int(columns.min()), int(columns.max()) + 1, float(likeness[way[:, 0], columns].mean())
