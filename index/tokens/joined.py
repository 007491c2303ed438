"""Join the runs of tokens, or the gestures, of many clips into one sequence under a factor oracle.

Clips are joined with a unique number between them, so that no passage crosses their ends.  Runs are used rather than frames:
a slower performance has the same runs, and a held sound is one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.tokens.factor_oracle import FactorOracle
from tonelake.index.tokens.sequences import Sequences, read_sequences
from tonelake.index.tokens.vocabulary import find_vocabulary
from tonelake.store import InputError, Lake, TokenSequence

MOST_RUNS = 2_000_000                    # an oracle of 2 GB, built in 8 s
PATH: dict[str, Any] = {
    "step": pl.Int64, "token": pl.Int64, "clip_id": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "context": pl.Int64,
    "jumped": pl.Boolean, "held": pl.List(pl.String), "relaxed": pl.List(pl.String),
}


@dataclass(frozen=True, kw_only=True)
class JoinedRuns:
    """The runs of many clips in sequence, with their times, under one oracle."""

    sequences: Sequences
    numbers: np.ndarray                  # (run,) token, or -1 - clip between clips
    clip: np.ndarray                     # (run,) number of the clip
    start_s: np.ndarray                  # (run,) seconds from the clip's start
    end_s: np.ndarray
    oracle: FactorOracle
    features: pl.DataFrame | None = None             # (run,) of gestures

    def span(self, first: int, last: int) -> tuple[str, float, float]:
        """Return (clip, start, end in seconds) of the runs `first` to `last`."""
        return self.sequences.clips[self.clip[first]].clip_id, float(self.start_s[first]), float(self.end_s[last])


def read_joined_runs(
    lake: Lake, name: str | None = None, *, space: str | None = None, where: str | None = None, others: Sequence[str] = ()
) -> JoinedRuns:
    """Read the runs of the clips that a filter keeps, and of `others`.  Raises InputError for too many."""
    found = read_sequences(lake, name, space=space, where=where, others=others)
    numbers: list[np.ndarray] = []
    clip: list[np.ndarray] = []
    start_s: list[np.ndarray] = []
    end_s: list[np.ndarray] = []
    between = np.array([np.nan])
    for row, one in enumerate(found.clips):
        tokens, starts = one.runs()
        if not len(tokens):
            continue
        ends = np.append(one.frame_s[starts[1:]], one.frame_s[-1])
        numbers += [tokens.astype(np.int64), np.array([-1 - row])]
        clip.append(np.full(len(tokens) + 1, row))
        start_s += [one.frame_s[starts], between]
        end_s += [ends, between]
    joined = np.concatenate(numbers)
    check_count(len(joined))
    return JoinedRuns(
        sequences=found, numbers=joined, clip=np.concatenate(clip), start_s=np.concatenate(start_s),
        end_s=np.concatenate(end_s), oracle=FactorOracle(joined),
    )


def read_joined_gestures(
    lake: Lake, name: str | None = None, *, space: str | None = None, where: str | None = None, others: Sequence[str] = ()
) -> JoinedRuns:
    """Read the gestures of the clips that a filter keeps, and of `others`, as events in place of runs.

    Raises InputError for too many, and if no clip that `where` keeps, or one of `others`, has gestures.
    """
    vocabulary = find_vocabulary(lake, name, space=space)
    chosen = lake.spaces.get(vocabulary.space)
    kept = {*lake.clips.ids(where), *others}
    rows = lake.gestures(chosen).read(vocabulary.digest)
    rows = rows.filter(pl.col("clip_id").is_in(list(kept)) & pl.col("token").is_not_null())
    without = set(others).difference(rows["clip_id"])
    if without or not len(rows):
        which = f"clip {min(without)}" if without else f"no clip where {where}" if where else "no clip"
        has = "has no gestures" if without else "has gestures"
        raise InputError(f"{which} {has} in {vocabulary.name}. Run `tonelake tokens gestures {vocabulary.name}`")
    check_count(len(rows))
    clips, numbers, clip, features = [], [], [], []
    for row, ((clip_id,), part) in enumerate(rows.group_by("clip_id", maintain_order=True)):
        tokens = part["token"].to_numpy().astype(np.int64)
        clips.append(TokenSequence(str(clip_id), tokens.astype(np.uint16), part["start_s"].to_numpy().astype(np.float32)))
        numbers += [tokens, np.array([-1 - row])]
        clip.append(np.full(len(part) + 1, row))
        features += [part, pl.DataFrame({"clip_id": [clip_id]}, schema={"clip_id": pl.String})]
    table = pl.concat(features, how="diagonal")
    joined = np.concatenate(numbers)
    return JoinedRuns(
        sequences=Sequences(vocabulary, clips), numbers=joined, clip=np.concatenate(clip),
        start_s=table["start_s"].fill_null(np.nan).to_numpy(), end_s=table["end_s"].fill_null(np.nan).to_numpy(),
        oracle=FactorOracle(joined), features=table,
    )


def check_count(count: int) -> None:
    """Raise InputError for more events than one oracle takes."""
    if count > MOST_RUNS:
        raise InputError(
            f"{count:,} runs of tokens are too many for one oracle, which takes {MOST_RUNS:,}. Choose clips by --where"
        )
