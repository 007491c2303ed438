"""Compare the audio of pairs of clips: the normalised cross-correlation of their waveforms at the best lag.

Clips are read one connected component of pairs at a time, so that memory holds the audio of one component.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy import sparse

from tonelake.embed import ReadClips
from tonelake.store import Progress

RATE_HZ = 4_000                          # lossy encoders preserve phases below 2 kHz
MOST_LAG_S = 2.5
SHORTEST_OVERLAP = 0.5                   # share of the shorter clip


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two clips by row, with their cosine and, once their audio is compared, its correlation and offset in seconds."""

    first: int
    second: int                          # a later row
    cosine: float
    correlation: float | None = None
    offset_s: float | None = None        # how much later the same audio starts in the second clip


@dataclass(frozen=True)
class Heard:
    """Pairs whose audio was compared."""

    same: tuple[Pair, ...]               # pairs that correlate
    unheard: tuple[Pair, ...]            # pairs with a clip whose audio could not be read
    errors: dict[int, Exception]         # by row: why its audio could not be read


def hear_pairs(
    pairs: Sequence[Pair], clips: pl.DataFrame, read: ReadClips, least: float, workers: int | None, progress: Progress
) -> Heard:
    """Compare the audio of pairs; `least`: the correlation from which two clips are the same."""
    component = components_of([(pair.first, pair.second) for pair in pairs], len(clips))
    by_component: dict[int, list[Pair]] = {}
    for pair in pairs:
        by_component.setdefault(int(component[pair.first]), []).append(pair)
    members = {
        number: sorted({row for pair in some for row in (pair.first, pair.second)}) for number, some in by_component.items()
    }
    order = [row for rows in members.values() for row in rows]
    audio = iter(progress(read(clips[order], RATE_HZ, workers), len(order), "comparing the audio of candidates"))
    same: list[Pair] = []
    unheard: list[Pair] = []
    errors: dict[int, Exception] = {}
    for number, rows in members.items():
        samples: dict[int, np.ndarray] = {}
        for row in rows:
            _, decoded = next(audio)
            if isinstance(decoded, Exception):
                errors[row] = decoded
            else:
                samples[row] = decoded
        for pair in by_component[number]:
            if pair.first not in samples or pair.second not in samples:
                unheard.append(pair)
                continue
            found, offset_s = correlate(samples[pair.first], samples[pair.second], RATE_HZ)
            if found >= least:
                same.append(replace(pair, correlation=found, offset_s=offset_s))
    return Heard(tuple(same), tuple(unheard), errors)


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
    from scipy.sparse.csgraph import connected_components

    edges = np.array(list(pairs), np.int64).reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]
