"""The state of clips, derived from the table of files.

A recording is live if a present file has it, missing if only files have it that are gone, and superseded if the files that had
it have other audio now.
"""

from __future__ import annotations

import polars as pl

from tonelake.store.columns import MISSING, SUPERSEDED


def states_of(clips: pl.DataFrame, files: pl.DataFrame) -> pl.Series:
    """(clip,) null, `missing` or `superseded`.

    `clips` has recording, source and state, `files` source, recording and missing_since.  Clips without a recording, or whose
    source has no row, keep their state: they were not added by an ingest.
    """
    is_present = pl.col("missing_since").is_null()
    live = files.filter(is_present)["recording"].unique().implode()
    gone = files.filter(~is_present)["recording"].unique().implode()
    state = (
        pl.when(pl.col("recording").is_null()).then(pl.col("state"))
        .when(pl.col("recording").is_in(live)).then(pl.lit(None, pl.String))
        .when(pl.col("recording").is_in(gone)).then(pl.lit(MISSING))
        .when(pl.col("source").is_in(files["source"].implode())).then(pl.lit(SUPERSEDED))
        .otherwise(pl.col("state"))
    )
    return clips.select(state.alias("state"))["state"]
