"""Near-identical clips: the same recording under two names, cut a little differently, louder, or encoded again.

Candidates are neighbours in an embedding: centred vectors, whose cosine is high for few but the same.  They are confirmed
on the audio: the normalised cross-correlation of the two waveforms, at the lag of up to two and a half seconds where it
is highest, has to be high too.  Two performances of one piece are no duplicates.

Saved, they become the label column `same_as`: from then on clips of one set count as of one track wherever pairs of one
track do not count, and splits keep them on one side.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from tonelake.embed import ReadClips
from tonelake.index.search.neighbour_graph import neighbour_graph
from tonelake.index.search.similar import SHOWN
from tonelake.index.vectors import unit
from tonelake.store import DUPLICATE_COLUMN, InputError, Lake, Progress, silent_progress

NEIGHBOURS = 10
COSINE, CORRELATION = 0.9, 0.8
RATE_HZ = 4_000                          # lossy encoders keep what is below 2 kHz, phases included
MOST_LAG_S = 2.5
SHORTEST_OVERLAP = 0.5                   # of the shorter clip


Confirmed = tuple[int, int, float, float | None, float | None]      # row, later row, cosine, correlation, offset in seconds

SCHEMA: dict[str, Any] = {
    "set": pl.Int64, "clip_id": pl.String, "compared_with": pl.String, "cosine": pl.Float64, "correlation": pl.Float64,
    "offset_s": pl.Float64,
}


def duplicates(
    lake: Lake, read: ReadClips, *, space: str | None = None, layer: int | str | None = None, cosine: float = COSINE,
    correlation: float = CORRELATION, confirm: bool = True, where: str | None = None, save: bool = False, stat: str = "mean",
    workers: int | None = None, progress: Progress = silent_progress,
) -> pl.DataFrame:
    """Sets of clips that are the same, largest first: set, clip_id, compared_with (an earlier clip of the set), the cosine
    and correlation of the two and offset_s (how much later the same is heard), and what tells which clip it is.

    `read`: gives clips' samples, such as `ingest.read_clips`.  Clips of one source are never compared.  Without `confirm`
    the embedding alone decides, and correlation and offset_s are null, as they are where audio cannot be read.
    """
    if not -1 <= cosine <= 1 or not 0 < correlation <= 1:
        raise InputError(f"cosine {cosine:g}, correlation {correlation:g}: choose from -1 to 1, and from 0 to 1")
    chosen = lake.spaces.get(space)
    ids, vectors = lake.vectors(chosen).layer(layer, stat=stat, where=where)
    if len(ids) < 2:
        raise InputError(f"space {chosen.name!r} has {len(ids)} clips that are asked for: two can be the same")
    clips = lake.clips.take(ids.to_list(), ["source", "digest", "start_s", "duration_s", "flag"])
    pairs = candidates(vectors, clips, cosine)
    if confirm:
        same: list[Confirmed] = list(check(pairs, clips, read, correlation, workers, progress))
    else:
        same = [(a, b, cos, None, None) for a, b, cos in pairs]
    found = sets(same, ids)
    if save:
        remember(lake, found)
    shown = lake.clips.take(found["clip_id"].to_list(), SHOWN)
    return found.join(shown, on="clip_id", how="left", maintain_order="left")


def candidates(vectors: np.ndarray, clips: pl.DataFrame, cosine: float) -> list[tuple[int, int, float]]:
    """(row, later row, cosine) of neighbours from two sources that are near enough; silence is like nothing."""
    directions = unit(vectors - vectors.mean(axis=0))
    near, cosines = neighbour_graph(directions, NEIGHBOURS)
    row, place = np.nonzero(cosines >= cosine)
    other = near[row, place]
    source, silent = clips["source"].to_numpy(), (clips["flag"] == "silent").fill_null(False).to_numpy()
    keep = (source[row] != source[other]) & ~silent[row] & ~silent[other]
    first, second = np.minimum(row, other)[keep], np.maximum(row, other)[keep]
    unique, at = np.unique(np.stack([first, second]), axis=1, return_index=True)
    scores = cosines[row, place][keep][at]
    return [(int(a), int(b), float(score)) for a, b, score in zip(*unique, scores, strict=True)]


def check(
    pairs: list[tuple[int, int, float]], clips: pl.DataFrame, read: ReadClips, least: float, workers: int | None,
    progress: Progress,
) -> Generator[Confirmed, None, None]:
    """The pairs that their audio confirms, with correlation and offset in seconds.

    Clips that hang together are read together, so that no more than one such heap of waveforms is held.
    """
    heaps = heaps_of([(a, b) for a, b, _ in pairs], len(clips))
    by_heap: dict[int, list[tuple[int, int, float]]] = {}
    for pair in pairs:
        by_heap.setdefault(int(heaps[pair[0]]), []).append(pair)
    members = {heap: sorted({row for a, b, _ in some for row in (a, b)}) for heap, some in by_heap.items()}
    order = [row for rows in members.values() for row in rows]
    waves = iter(progress(read(clips[order], RATE_HZ, workers), len(order), "listening to what may be the same"))
    for heap, rows in members.items():
        heard: dict[int, np.ndarray] = {}
        for row in rows:
            _, wave = next(waves)
            if not isinstance(wave, Exception):
                heard[row] = wave
        for a, b, score in by_heap[heap]:
            if a in heard and b in heard:
                found, offset_s = correlate(heard[a], heard[b], RATE_HZ)
                if found >= least:
                    yield a, b, score, found, offset_s
            else:                        # its source is gone: the embedding alone has to do
                yield a, b, score, None, None


def correlate(first: np.ndarray, second: np.ndarray, rate_hz: int) -> tuple[float, float]:
    """(highest normalised cross-correlation in size, how many seconds later the second clip has the same).

    Each lag is normalised by the energy of what overlaps there; at least half of the shorter clip has to.
    """
    from scipy.signal import correlate as cross

    a, b = (wave.astype(np.float64) - wave.mean() for wave in (first, second))
    products = cross(b, a, method="fft")                             # at lag: sum of b[t + lag] a[t]
    lags = np.arange(-len(a) + 1, len(b))
    start, end = np.maximum(0, -lags), np.minimum(len(a), len(b) - lags)       # of a, what overlaps
    energy_a, energy_b = (np.concatenate([[0], np.cumsum(wave**2)]) for wave in (a, b))
    power = (energy_a[end] - energy_a[start]) * (energy_b[end + lags] - energy_b[start + lags])
    usable = (np.abs(lags) <= MOST_LAG_S * rate_hz) & (end - start >= SHORTEST_OVERLAP * min(len(a), len(b)))
    usable &= power > 1e-12 * max(energy_a[-1] * energy_b[-1], 1e-300)
    if not usable.any():
        return 0.0, 0.0
    strength = np.where(usable, np.abs(products) / np.sqrt(np.where(usable, power, 1)), 0)
    best = int(strength.argmax())
    return float(min(strength[best], 1.0)), float(lags[best] / rate_hz)


def heaps_of(pairs: Iterable[tuple[int, int]], count: int) -> np.ndarray:
    """(count,) the number of the heap that each row hangs together with."""
    edges = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def sets(confirmed: Sequence[Confirmed], ids: pl.Series) -> pl.DataFrame:
    """Rows of SCHEMA, the largest set first; in a set, clips in the order in which they came to the lake."""
    heaps = heaps_of([(a, b) for a, b, *_ in confirmed], len(ids))
    rows: dict[int, dict[int, tuple]] = {}
    for a, b, *values in sorted(confirmed):
        heap = rows.setdefault(int(heaps[a]), {})
        heap.setdefault(a, (None, None, None, None))
        if heap.get(b, (None,))[0] is None:          # the first of its partners
            heap[b] = (ids[a], *values)
    ordered = sorted(rows.values(), key=lambda heap: (-len(heap), min(heap)))
    return pl.DataFrame(
        [(number, ids[row], *heap[row]) for number, heap in enumerate(ordered, start=1) for row in sorted(heap)],
        schema=SCHEMA, orient="row",
    )


def remember(lake: Lake, found: pl.DataFrame) -> None:
    """Write the sets to the clips: `same_as` is the id of the first clip of a clip's set.

    Clips that were in a set and no longer are become their own.
    """
    first = found.group_by("set", maintain_order=True).agg(pl.col("clip_id").first().alias(DUPLICATE_COLUMN))
    marks = found.join(first, on="set").select("clip_id", DUPLICATE_COLUMN)
    if DUPLICATE_COLUMN in lake.clips.columns():
        before = lake.clips.read(["clip_id"], where=f"{DUPLICATE_COLUMN} IS NOT NULL")
        gone = before.join(marks, on="clip_id", how="anti")
        marks = pl.concat([marks, gone.with_columns(pl.col("clip_id").alias(DUPLICATE_COLUMN))])
    lake.clips.set_labels(marks)
