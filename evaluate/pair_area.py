"""Area under the ROC curve of telling pairs of one group from pairs of two groups by their score, on all pairs and without each
jackknife unit.

The area is exact: by ranks, ties counted half (Mann and Whitney 1947), whatever the range of the scores.  Areas without a unit
are taken from histograms whose bins hold equally many pairs, and shifted by what binning changes on all pairs.  Standard errors
need only their differences, which are accurate to a share of 1 / BINS of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tonelake.evaluate.jackknife import Replicates

BINS = 1_024
CELLS = 1 << 16                          # equal cells of the range of scores, each of which belongs to one bin


def exact_area(same: np.ndarray, ordered: np.ndarray) -> float:
    """Return the area from the sorted scores of pairs of one group, and of all pairs; NaN without both kinds of pairs."""
    pairs, others = len(same), len(ordered) - len(same)
    if not pairs or not others:
        return float("nan")
    below, up_to = (np.searchsorted(ordered, same, side).sum() for side in ("left", "right"))
    own_below, own_up_to = (np.searchsorted(same, same, side).sum() for side in ("left", "right"))
    return float((below - own_below + up_to - own_up_to) / 2 / pairs / others)


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Bins that hold about equally many of some scores."""

    low: np.float32
    scale: np.float32
    of_cells: np.ndarray                 # (cell,) int64: the bin of each cell

    def find(self, scores: np.ndarray) -> np.ndarray:
        """Return the (…) int64 bins of scores; those out of the range are in the first or last bin."""
        cells = scores - self.low
        cells *= self.scale
        np.clip(cells, 0, CELLS - 1, out=cells)
        return self.of_cells[cells.astype(np.int32)]


def make_bins(scores: np.ndarray) -> Bins:
    """Return bins from a sample of scores."""
    ordered = np.sort(scores.astype(np.float32))
    tail = len(ordered) // (2 * BINS)    # half a bin at either end, so that an outlier does not widen all cells
    low, high = ordered[[tail, -1 - tail]]
    scale = np.float32((CELLS - 1) / (high - low)) if high > low else np.float32(0)
    cells = np.clip((ordered - low) * scale, 0, CELLS - 1).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=CELLS))[:-1]])      # scores of lower cells
    return Bins(low=low, scale=scale, of_cells=before * BINS // (len(ordered) + 1))


def replicate_area(exact: float, same: np.ndarray, different: np.ndarray) -> Replicates:
    """Return the area from the exact one and (1 + unit, bin) histograms: of all pairs, and of the pairs of each unit."""
    left_out = [histograms[0] - histograms[1:] for histograms in (same, different)]
    whole = binned_area(same[:1], different[:1])
    return Replicates(np.asarray(exact), binned_area(*left_out) + (exact - whole))


def binned_area(same: np.ndarray, different: np.ndarray) -> np.ndarray:
    """Return (row,) areas from (row, bin) histograms; pairs of one bin count as ties."""
    below = np.cumsum(different, axis=1) - different / 2
    pairs = same.sum(axis=1) * different.sum(axis=1)
    return np.divide((same * below).sum(axis=1), pairs, out=np.full(len(same), np.nan), where=pairs > 0)
