"""Figures of a fine-tuning on events from the scores of clips: means over seeds, differences, and groups of notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from tonelake.evaluate import (
    Estimate,
    Replicates,
    Units,
    estimates_by_notes,
    replicate_means,
    score_names,
    seeds_estimate,
)
from tonelake.finetune.evaluation import Figures, difference_estimate

SECONDS = "_s"                           # end of the names of scores that are times, not shares


def is_share_of_events(name: str) -> bool:
    """Return whether a score is between 0 and 1."""
    return not name.endswith(SECONDS)


def replicates_of(scores: pl.DataFrame, units: Units) -> dict[str, Replicates]:
    """Return the mean of each score over the clips for which it is defined, of all tracks and without each one."""
    return {name: replicate_means(scores[name].to_numpy(), units) for name in score_names(scores)}


def judge_scores(tuned: Sequence[pl.DataFrame], frozen: Sequence[pl.DataFrame], units: Units) -> Figures:
    """Return the means over seeds of the scores of the same clips, one table a seed, and their paired differences."""
    after, before = ([replicates_of(table, units) for table in tables] for tables in (tuned, frozen))
    names = [name for name in after[0] if all(name in one for one in (*after, *before))]
    return Figures(
        tuned=means(after, names), frozen=means(before, names),
        difference={
            name: difference_estimate(
                [one[name] - other[name] for one, other in zip(after, before, strict=True)], share=is_share_of_events(name)
            ) for name in names
        },
    )


def means(runs: Sequence[Mapping[str, Replicates]], names: Sequence[str]) -> dict[str, Estimate]:
    return {name: seeds_estimate([run[name] for run in runs], share=is_share_of_events(name)).estimate for name in names}


def note_groups(clips: Sequence[tuple[pl.DataFrame, pl.DataFrame, float]], units: Units) -> pl.DataFrame:
    """Return onset scores of the notes of an octave and of an instrument: by, group, clips, score, value, low, high."""
    tables = [
        estimates_by_notes(clips, units, by).select(pl.lit(name).alias("by"), pl.all())
        for by, name in (("octave", "octave"), ("value", "instrument"))
    ]
    return pl.concat(tables)


def song_scores(table: pl.DataFrame, songs: Sequence[str], name: str) -> pl.DataFrame:
    """Return a row a seed and song with the mean of a score over its clips: seed, song, value; NaN where it is undefined.

    `table`: clip_id, seed and the score; `songs`: the song of each row.
    """
    keyed = table.select("seed", pl.Series("song", songs), pl.col(name).fill_nan(None).alias("value"))
    return keyed.group_by("seed", "song", maintain_order=True).agg(pl.col("value").mean().fill_null(np.nan))
