"""Rank the confusions of a run: which label is taken for which, how often, and what share of the label's clips that is."""

from __future__ import annotations

import numpy as np
import polars as pl


def rank_confusions(confusion: pl.DataFrame) -> pl.DataFrame:
    """Return a row a pair of classes that are confused, most clips first: label, predicted, clips, share and support.

    `confusion`: a run's table, a first column of labels, then a column of counts for each prediction, in the same order.
    `clips` is a mean over seeds, so it can be a fraction; `share` is of the label's test clips, `support` their number.  Pairs
    with as many clips are ordered by share, then by name.
    """
    names, counts = confusion[:, 0].cast(pl.String), confusion[:, 1:].to_numpy().astype(float)
    support = counts.sum(axis=1)
    label, said = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
    return pl.DataFrame({
        "label": names.gather(label), "predicted": names.gather(said), "clips": counts[label, said],
        "share": counts[label, said] / support[label], "support": support[label],
    }).sort("clips", "share", "label", "predicted", descending=[True, True, False, False])
