"""Token sequences of clips: each frame as the number of the nearest centre in a vocabulary of a space.

One row per clip and vocabulary: the token and the centre time of each frame, and the sequence as runs of equal tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.store.filters import quote
from tonelake.store.frames import lists
from tonelake.store.space import Space
from tonelake.store.table import Table
from tonelake.store.table_reading import in_list, to_frame

SCHEMA = pa.schema([
    pa.field("tokens_id", pa.string()),                              # clip and vocabulary: each pair is unique
    pa.field("clip_id", pa.string()),
    pa.field("vocabulary", pa.string()),                             # digest of its centres
    pa.field("tokens", pa.list_(pa.uint16())),
    pa.field("frame_s", pa.list_(pa.float32())),                     # centre of each frame, seconds from the clip's start
    pa.field("run_tokens", pa.list_(pa.uint16())),
    pa.field("run_frames", pa.list_(pa.uint32())),                   # length of each run in frames
])


class TokenSequence(NamedTuple):
    """The tokens of one clip over time."""

    clip_id: str
    tokens: np.ndarray                            # (frame,) uint16
    frame_s: np.ndarray                           # (frame,) float32, seconds from the clip's start

    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """(run,) the token and (run,) the first frame of each run."""
        starts = np.flatnonzero(np.diff(self.tokens.astype(np.int64), prepend=-1))
        return self.tokens[starts], starts


class Tokens:
    """The token sequences of one space of a lake, in all its vocabularies."""

    def __init__(self, connection: Any, space: Space) -> None:
        self.space = space
        self.table = Table(connection, f"tokens_{space.name}", SCHEMA)

    def ids(self, vocabulary: str) -> pl.Series:
        """Ids of clips that have stored tokens of a vocabulary."""
        return to_frame(self.table.read(["clip_id"], where=f"vocabulary = {quote(vocabulary)}"))["clip_id"]

    def add(self, vocabulary: str, sequences: Sequence[TokenSequence]) -> int:
        """Store sequences and return their number; clips that already have one keep it."""
        runs = [one.runs() for one in sequences]
        ends = [np.diff(starts, append=len(one.tokens)) for one, (_, starts) in zip(sequences, runs, strict=True)]
        return self.table.insert_new(pa.table({
            "tokens_id": [f"{one.clip_id}-{vocabulary}" for one in sequences],
            "clip_id": [one.clip_id for one in sequences],
            "vocabulary": [vocabulary] * len(sequences),
            "tokens": lists([one.tokens for one in sequences], pa.list_(pa.uint16())),
            "frame_s": lists([one.frame_s for one in sequences], pa.list_(pa.float32())),
            "run_tokens": lists([tokens for tokens, _ in runs], pa.list_(pa.uint16())),
            "run_frames": lists([lengths.astype(np.uint32) for lengths in ends], pa.list_(pa.uint32())),
        }, schema=SCHEMA))

    def each(self, vocabulary: str, clip_ids: Sequence[str] | None = None) -> Iterator[TokenSequence]:
        """Yield the sequences of a vocabulary, of these clips or of all, in table order."""
        where = f"vocabulary = {quote(vocabulary)}"
        if clip_ids is not None:
            where += f" AND {in_list('clip_id', clip_ids)}"
        for batch in self.table.batches(["clip_id", "tokens", "frame_s"], where=where, rows=256):
            for row in range(batch.num_rows):
                yield TokenSequence(
                    batch.column("clip_id")[row].as_py(), batch.column("tokens")[row].values.to_numpy(),
                    batch.column("frame_s")[row].values.to_numpy(),
                )

    def drop(self, vocabulary: str) -> None:
        """Delete the sequences of a vocabulary."""
        self.table.delete(f"vocabulary = {quote(vocabulary)}")
