"""Find near-identical clips: one recording under two names, with another cut, at another level, or encoded again.

Candidates are neighbours in an embedding of centred vectors, whose cosine is rarely high for different recordings.  They
are confirmed on the audio: the normalised cross-correlation of the two waveforms must also be high, at the best lag of up
to two and a half seconds.  Two performances of one piece are not duplicates.

Saved sets become the label column `same_as`: clips of one set then count as one track wherever pairs of one track are
excluded, and splits keep them on one side.
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
from tonelake.ingest import read_clips
from tonelake.store import DUPLICATE_COLUMN, InputError, Lake, Progress

NEIGHBOURS = 10
COSINE, CORRELATION = 0.9, 0.8
RATE_HZ = 4_000                          # lossy encoders preserve phases below 2 kHz
MOST_LAG_S = 2.5
SHORTEST_OVERLAP = 0.5                   # share of the shorter clip

# Row, later row, cosine, correlation, offset in seconds.
Confirmed = tuple[int, int, float, float | None, float | None]

SCHEMA: dict[str, Any] = {
    "set": pl.Int64, "clip_id": pl.String, "compared_with": pl.String, "cosine": pl.Float64, "correlation": pl.Float64,
    "offset_s": pl.Float64,
}


def duplicates(
    lake: Lake, *, space: str | None = None, layer: int | str | None = None, cosine: float = COSINE,
    correlation: float = CORRELATION, confirm: bool = True, where: str | None = None, save: bool = False,
    workers: int | None = None, read: ReadClips = read_clips,
) -> pl.DataFrame:
    """Return sets of duplicate clips, largest first: set, clip_id, compared_with (an earlier clip of the set), the cosine
    and correlation of the two, offset_s (how much later the same audio starts), and columns that describe the clip.

    `read` decodes clips.  Clips of one source are never compared.  Without `confirm` the embedding alone decides; then, and
    for audio that cannot be read, correlation and offset_s are null.
    Raises InputError if fewer than two clips match `where`, or for thresholds out of range.
    """
    if not -1 <= cosine <= 1 or not 0 < correlation <= 1:
        raise InputError(f"cosine {cosine:g}, correlation {correlation:g}: must be -1 to 1, and above 0 to 1")
    chosen = lake.spaces.get(space)
    ids, vectors = lake.vectors(chosen).layer(layer, where=where)
    if len(ids) < 2:
        raise InputError(f"only {len(ids)} clips in space {chosen.name!r} match; at least 2 are needed")
    clips = lake.clips.take(ids.to_list(), ["source", "digest", "start_s", "duration_s", "flag"])
    pairs = candidates(vectors, clips, cosine)
    if confirm:
        same: list[Confirmed] = list(confirm_pairs(pairs, clips, read, correlation, workers, lake.progress))
    else:
        same = [(a, b, cos, None, None) for a, b, cos in pairs]
    found = duplicate_sets(same, ids)
    if save:
        save_sets(lake, found)
    shown = lake.clips.take(found["clip_id"].to_list(), SHOWN)
    return found.join(shown, on="clip_id", how="left", maintain_order="left")


def candidates(vectors: np.ndarray, clips: pl.DataFrame, cosine: float) -> list[tuple[int, int, float]]:
    """Return (row, later row, cosine) of near neighbours from different sources; silent clips are left out."""
    directions = unit(vectors - vectors.mean(axis=0))
    nearest_rows, cosines = neighbour_graph(directions, NEIGHBOURS)
    row, column = np.nonzero(cosines >= cosine)
    other = nearest_rows[row, column]
    source, silent = clips["source"].to_numpy(), (clips["flag"] == "silent").fill_null(False).to_numpy()
    keep = (source[row] != source[other]) & ~silent[row] & ~silent[other]
    first, second = np.minimum(row, other)[keep], np.maximum(row, other)[keep]
    unique, at = np.unique(np.stack([first, second]), axis=1, return_index=True)
    scores = cosines[row, column][keep][at]
    return [(int(a), int(b), float(score)) for a, b, score in zip(*unique, scores, strict=True)]


def confirm_pairs(
    pairs: list[tuple[int, int, float]], clips: pl.DataFrame, read: ReadClips, least: float, workers: int | None,
    progress: Progress,
) -> Generator[Confirmed, None, None]:
    """Yield the pairs that their audio confirms, with correlation and offset in seconds.

    Clips are read one connected component of pairs at a time, so that memory holds the audio of one component.
    """
    component = components_of([(a, b) for a, b, _ in pairs], len(clips))
    by_component: dict[int, list[tuple[int, int, float]]] = {}
    for pair in pairs:
        by_component.setdefault(int(component[pair[0]]), []).append(pair)
    members = {number: sorted({row for a, b, _ in some for row in (a, b)}) for number, some in by_component.items()}
    order = [row for rows in members.values() for row in rows]
    audio = iter(progress(read(clips[order], RATE_HZ, workers), len(order), "comparing the audio of candidates"))
    for number, rows in members.items():
        samples: dict[int, np.ndarray] = {}
        for row in rows:
            _, decoded = next(audio)
            if not isinstance(decoded, Exception):
                samples[row] = decoded
        for a, b, score in by_component[number]:
            if a in samples and b in samples:
                found, offset_s = correlate(samples[a], samples[b], RATE_HZ)
                if found >= least:
                    yield a, b, score, found, offset_s
            else:                        # a source cannot be read: the embedding alone decides
                yield a, b, score, None, None


def correlate(first: np.ndarray, second: np.ndarray, rate_hz: int) -> tuple[float, float]:
    """Return (largest absolute normalised cross-correlation, seconds by which the second clip is later).

    Each lag is normalised by the energy of its overlap, which must cover at least half of the shorter clip.
    """
    from scipy.signal import correlate as cross

    a, b = (wave.astype(np.float64) - wave.mean() for wave in (first, second))
    products = cross(b, a, method="fft")                             # at lag: sum of b[t + lag] a[t]
    lags = np.arange(-len(a) + 1, len(b))
    start, end = np.maximum(0, -lags), np.minimum(len(a), len(b) - lags)       # overlap, in samples of a
    energy_a, energy_b = (np.concatenate([[0], np.cumsum(wave**2)]) for wave in (a, b))
    power = (energy_a[end] - energy_a[start]) * (energy_b[end + lags] - energy_b[start + lags])
    usable = (np.abs(lags) <= MOST_LAG_S * rate_hz) & (end - start >= SHORTEST_OVERLAP * min(len(a), len(b)))
    usable &= power > 1e-12 * max(energy_a[-1] * energy_b[-1], 1e-300)
    if not usable.any():
        return 0.0, 0.0
    strength = np.where(usable, np.abs(products) / np.sqrt(np.where(usable, power, 1)), 0)
    best = int(strength.argmax())
    return float(min(strength[best], 1.0)), float(lags[best] / rate_hz)


def components_of(pairs: Iterable[tuple[int, int]], count: int) -> np.ndarray:
    """Return the (count,) number of each row's connected component in the graph of pairs."""
    edges = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def duplicate_sets(confirmed: Sequence[Confirmed], ids: pl.Series) -> pl.DataFrame:
    """Return rows of SCHEMA, the largest set first; within a set, clips in the order of the lake."""
    component = components_of([(a, b) for a, b, *_ in confirmed], len(ids))
    sets: dict[int, dict[int, tuple]] = {}
    for a, b, *values in sorted(confirmed):
        one = sets.setdefault(int(component[a]), {})
        one.setdefault(a, (None, None, None, None))
        if one.get(b, (None,))[0] is None:           # compare with the first of its partners
            one[b] = (ids[a], *values)
    ordered = sorted(sets.values(), key=lambda one: (-len(one), min(one)))
    return pl.DataFrame(
        [(number, ids[row], *one[row]) for number, one in enumerate(ordered, start=1) for row in sorted(one)],
        schema=SCHEMA, orient="row",
    )


def save_sets(lake: Lake, found: pl.DataFrame) -> None:
    """Write the sets to the clips: `same_as` is the id of the first clip of a clip's set.

    Clips that are no longer in a set get their own id.
    """
    first = found.group_by("set", maintain_order=True).agg(pl.col("clip_id").first().alias(DUPLICATE_COLUMN))
    marks = found.join(first, on="set").select("clip_id", DUPLICATE_COLUMN)
    if DUPLICATE_COLUMN in lake.clips.columns():
        before = lake.clips.read(["clip_id"], where=f"{DUPLICATE_COLUMN} IS NOT NULL")
        dropped = before.join(marks, on="clip_id", how="anti")
        marks = pl.concat([marks, dropped.with_columns(pl.col("clip_id").alias(DUPLICATE_COLUMN))])
    lake.clips.set_labels(marks)
