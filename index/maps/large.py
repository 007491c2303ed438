"""Optimise the points of large maps: UMAP's updates, with repulsion among nearby points.

    fuzzy graph of (clip, clip) weights, (clip, 2) start  ->  (clip, 2) float32

UMAP pulls the ends of an edge together as often as its weight says, and pushes a point away from NEGATIVES random others each
time.  Others drawn from the whole map rarely lie near the point: in a million clips, points of one neighbourhood are hardly
pushed apart, and most true neighbours are lost.  Here they are drawn from blocks of nearby points, of the whole map at first,
of BLOCK points in the end, which lie in the processor's cache.  This arranges neighbourhoods and not the whole: it needs a
start whose structure is right, such as the layout of a sample, in which `interpolated` places the other clips.

One thread and a generator per point and epoch: a seed reproduces the result.  numba compiles at the first call, or reads its
cache.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

EPOCHS = 50
BLOCK = 2_000                            # points of the smallest blocks; with 500, neighbourhoods are torn apart
REGROUPED = 3                            # epochs until blocks are formed again, in another direction
NEGATIVES = 5                            # as in umap-learn
RADIUS = 0.08                            # root mean square radius of the start, times the root of the number of points
RATE = 0.5                               # learning rate of the first epoch; it falls to 0
REACHED = 20                             # steps along edges in which a clip finds one of the sample
WEIGHT_BITS = 24                         # weights are compared with this many random bits
njit: Any = numba.njit                   # untyped for type checkers


def optimise(graph: Any, start: np.ndarray, a: float, b: float, seed: int, *, from_map: bool = False) -> np.ndarray:
    """Return (clip, 2) points from `start`; `graph`: scipy's CSR matrix of UMAP's symmetric weights.

    `a` and `b` are those of UMAP's curve.  `from_map`: `start` is a finished map, cut into the smallest blocks
    at once.
    """
    rng = np.random.default_rng(seed)
    rows = len(start)
    weights = (graph.data * ((1 << WEIGHT_BITS) / graph.data.max())).astype(np.int32)
    edges = graph.indptr.astype(np.int32), graph.indices.astype(np.int32), weights
    centre = start.mean(axis=0, dtype=np.float64)
    radius = float(np.sqrt(np.mean((start - centre) ** 2) * 2))
    points = np.ascontiguousarray((start - centre) * (RADIUS * rows**0.5 / max(radius, 1e-9)), np.float32)
    least = min(BLOCK, rows)
    first = least if from_map else rows
    for epoch in range(EPOCHS):
        done = epoch / EPOCHS
        if epoch % REGROUPED == 0:
            block = int(first * (least / first) ** done)
            order, place = spatial_order(points, block, float(rng.uniform(0, np.pi)))
        seeds = rng.integers(2**63, dtype=np.uint64)
        curve = np.float32(a), np.float32(b), np.float32(RATE * (1 - done))
        run_epoch(points, *edges, order, place, block, *curve, NEGATIVES, seeds)
    return points


def interpolated(graph: Any, start: np.ndarray, sample: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return (clip, 2) points: those of the sample, and other clips at the weighted mean of their neighbours' points.

    `sample`: rows with known (row, 2) `points`.  Clips that no edges lead to from the sample keep their points of `start`.
    """
    found = np.zeros((len(start), 2), np.float32)
    placed = np.zeros(len(start), np.float32)
    found[sample], placed[sample] = points, 1
    for _ in range(REACHED):
        weight = graph @ placed
        reached = weight > 0
        found[reached] = (graph @ found)[reached] / weight[reached, None]
        found[sample] = points
        if (placed[reached] > 0).all():
            break
        placed[reached] = 1
    return np.where(placed[:, None] > 0, found, start).astype(np.float32)


def spatial_order(points: np.ndarray, block: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (order, place), (clip,) int32: consecutive runs of `block` rows in `order` are compact on the map.

    The map is cut into strips across `angle` (radians), and these along it.  `place` is the position of each row in `order`.
    """
    rows = len(points)
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    order = np.argsort(points @ along.astype(np.float32), kind="stable")
    height = points @ across.astype(np.float32)
    blocks = -(-rows // block)
    strip = block * -(-blocks // max(round(blocks**0.5), 1))
    for start in range(0, rows, strip):
        part = order[start : start + strip]
        order[start : start + strip] = part[np.argsort(height[part], kind="stable")]
    place = np.empty(rows, np.int32)
    place[order] = np.arange(rows, dtype=np.int32)
    return order.astype(np.int32), place


@njit(cache=True)
def scrambled(seed: Any) -> Any:
    """Return a 64-bit state for a generator (SplitMix64's finaliser): neighbouring seeds give unrelated states."""
    state = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))) | np.uint64(1)


@njit(cache=True)
def stepped(state: Any) -> Any:
    """Return the next state of a generator (xorshift64; Marsaglia 2003)."""
    state ^= state << np.uint64(13)
    state ^= state >> np.uint64(7)
    return state ^ (state << np.uint64(17))


@njit(cache=True)
def bounded(gradient: Any) -> Any:
    """Return a gradient between -4 and 4, as umap-learn bounds it."""
    return max(np.float32(-4), min(np.float32(4), gradient))


@njit(cache=True, fastmath=True)
def run_epoch(
    points: Any, first_edge: Any, other_end: Any, weights: Any, order: Any, place: Any, block: Any, a: Any, b: Any, rate: Any,
    negatives: Any, seed: Any,
) -> None:
    """Move all points once, in place: along sampled edges, and away from others of their block."""
    rows = points.shape[0]
    one, two, least = np.float32(1), np.float32(2), np.float32(0.001)
    for row in range(rows):
        state = scrambled(seed + np.uint64(row))
        x, y = points[row, 0], points[row, 1]
        begin = place[row] // block * block
        size = np.uint64(min(block, rows - begin))
        for edge in range(first_edge[row], first_edge[row + 1]):
            state = stepped(state)
            if np.int64(state >> np.uint64(40)) >= weights[edge]:
                continue
            other = other_end[edge]
            across, up = x - points[other, 0], y - points[other, 1]
            square = across * across + up * up
            if square > 0:
                raised = square**b
                pull = -two * a * b * raised / (square * (one + a * raised))
                move_x, move_y = bounded(pull * across) * rate, bounded(pull * up) * rate
                x += move_x
                y += move_y
                points[other, 0] -= move_x
                points[other, 1] -= move_y
            for _ in range(negatives):
                state = stepped(state)
                other = order[begin + np.int64((state >> np.uint64(33)) % size)]
                across, up = x - points[other, 0], y - points[other, 1]
                square = across * across + up * up
                if square > 0 and other != row:          # its own place may be out of date
                    push = two * b / ((least + square) * (one + a * square**b))
                    x += bounded(push * across) * rate
                    y += bounded(push * up) * rate
        points[row, 0], points[row, 1] = x, y
