"""Gestures of clips: stretches of sound between two onsets, each with its token in a vocabulary of a space, and features.

One row per gesture, so that SQL can choose by any feature.  Gestures of a clip are replaced together, in one commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from tonelake.store.filters import quote
from tonelake.store.space import Space
from tonelake.store.table import Table
from tonelake.store.table_reading import IDS_PER_FILTER, chunks, in_list, to_frame

SCHEMA = pa.schema([
    pa.field("gesture_id", pa.string()),                             # clip, vocabulary, segmentation and number
    pa.field("clip_id", pa.string()),
    pa.field("vocabulary", pa.string()),                             # digest of its centres
    pa.field("segmentation", pa.string()),                           # "onsets", or "grid 0.5 s"
    pa.field("number", pa.int32()),                                  # in the clip, from 0
    pa.field("start_s", pa.float64()),                               # seconds from the clip's start
    pa.field("end_s", pa.float64()),
    pa.field("token", pa.int32()),                                   # the most frequent one of its frames
    pa.field("token_share", pa.float32()),                           # share of its frames that have it
    pa.field("loudness", pa.float32()),                              # RMS, dB re full scale
    pa.field("centroid", pa.float32()),                              # Hz
    pa.field("pitch", pa.float32()),                                 # MIDI number; null without a spectral peak
    pa.field("pitch_classes", pa.list_(pa.float32())),               # (12,) shares of energy, C first
    pa.field("consonance", pa.float32()),                            # 1 - roughness of Hutchinson and Knopoff, at least 0
    pa.field("ioi_s", pa.float64()),                                 # from its onset to the next; null for the last
    pa.field("ratio", pa.string()),                                  # ioi_s to that of the gesture before, "2:1"
    pa.field("ratio_numerator", pa.int16()),
    pa.field("ratio_denominator", pa.int16()),
])
GESTURE_COLUMNS = tuple(SCHEMA.names[4:])        # of one gesture of a clip


class Gestures:
    """The gestures of one space of a lake, in all its vocabularies."""

    def __init__(self, connection: Any, space: Space) -> None:
        self.space = space
        self.table = Table(connection, f"gestures_{space.name}", SCHEMA)

    def ids(self, vocabulary: str, segmentation: str | None = None) -> pl.Series:
        """Ids of clips that have stored gestures in a vocabulary, of one segmentation if given."""
        where = f"vocabulary = {quote(vocabulary)} AND number = 0"
        if segmentation is not None:
            where += f" AND segmentation = {quote(segmentation)}"
        return to_frame(self.table.read(["clip_id"], where=where))["clip_id"]

    def replace(self, vocabulary: str, segmentation: str, rows: pl.DataFrame) -> int:
        """Store the gestures of whole clips in place of their earlier ones; return the number of gestures.

        `rows`: clip_id and GESTURE_COLUMNS.
        """
        where = f"vocabulary = {quote(vocabulary)} AND {in_list('clip_id', rows['clip_id'].unique().sort().to_list())}"
        keys = pl.format("{}-{}-{}-{}", "clip_id", pl.lit(vocabulary), pl.lit(segmentation), "number")
        named = rows.with_columns(
            gesture_id=keys, vocabulary=pl.lit(vocabulary), segmentation=pl.lit(segmentation)
        ).select(SCHEMA.names)
        self.table.replace_where(where, named.to_arrow().cast(SCHEMA))
        return len(named)

    def read(
        self, vocabulary: str, clip_ids: Sequence[str] | None = None, columns: Sequence[str] = GESTURE_COLUMNS
    ) -> pl.DataFrame:
        """Return clip_id and `columns` of the gestures of these clips, or of all, by clip and number."""
        own = f"vocabulary = {quote(vocabulary)}"
        names = list(dict.fromkeys(["clip_id", "number", *columns]))
        parts = [own] if clip_ids is None else [
            f"{own} AND {in_list('clip_id', part)}" for part in chunks(list(clip_ids), IDS_PER_FILTER)
        ]
        found = [to_frame(self.table.read(names, where=where)) for where in parts or ["false"]]
        return pl.concat(found).sort("clip_id", "number").select("clip_id", *columns)

    def drop(self, vocabulary: str) -> None:
        """Delete the gestures of a vocabulary."""
        self.table.delete(f"vocabulary = {quote(vocabulary)}")
