"""Find repeated passages in the token sequences of a lake, and continue a sequence: a factor oracle over runs of tokens.

Clips are joined with a unique number between them, so that no passage crosses their ends.  Runs are used rather than frames:
a slower performance has the same runs, and a held sound is one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.search.names import find_clip
from tonelake.index.tokens.factor_oracle import FactorOracle
from tonelake.index.tokens.sequences import Sequences, read_sequences
from tonelake.store import InputError, Lake, read_songs

MOST_RUNS = 2_000_000                    # an oracle of 2 GB, built in 8 s


@dataclass(frozen=True, kw_only=True)
class JoinedRuns:
    """The runs of many clips in sequence, with their times, under one oracle."""

    sequences: Sequences
    numbers: np.ndarray                  # (run,) token, or -1 - clip between clips
    clip: np.ndarray                     # (run,) number of the clip
    start_s: np.ndarray                  # (run,) seconds from the clip's start
    end_s: np.ndarray
    oracle: FactorOracle

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
    if len(joined) > MOST_RUNS:
        raise InputError(
            f"{len(joined):,} runs of tokens are too many for one oracle, which takes {MOST_RUNS:,}. Choose clips by --where"
        )
    return JoinedRuns(
        sequences=found, numbers=joined, clip=np.concatenate(clip), start_s=np.concatenate(start_s),
        end_s=np.concatenate(end_s), oracle=FactorOracle(joined),
    )


def repeats(
    lake: Lake, name: str | None = None, *, clip: str | None = None, least: int = 5, across: bool | None = None, k: int = 20,
    space: str | None = None, where: str | None = None,
) -> pl.DataFrame:
    """Return repeated passages, the longest first, each with its first occurrence.

    `least`: minimum number of runs; `across`: only between clips of different tracks (True) or within one clip (False);
    `clip`: only passages with this clip.  Returns runs, tokens, clip_id, start_s, end_s, first_clip_id,
    first_start_s, first_end_s, and titles.
    """
    if least < 2 or k < 1:
        raise InputError(f"passages of {least} runs, {k} of them: must be 2 runs or more, and 1 passage or more")
    only = find_clip(lake, clip)["clip_id"] if clip is not None else None
    joined = read_joined_runs(lake, name, space=space, where=where, others=[only] if only else ())
    songs = dict(zip(joined.sequences.ids, read_songs(lake.clips).of(joined.sequences.ids).tolist(), strict=True))
    rows = []
    for end, earlier, length in joined.oracle.repeats(least):
        one, first = joined.span(end - length, end - 1), joined.span(earlier - length, earlier - 1)
        if only is not None and only not in (one[0], first[0]):
            continue
        if across is True and songs[one[0]] == songs[first[0]]:
            continue
        if across is False and one[0] != first[0]:
            continue
        rows.append((length, joined.numbers[end - length : end].tolist(), *one, *first))
    schema: dict[str, Any] = {
        "runs": pl.Int64, "tokens": pl.List(pl.Int64), "clip_id": pl.String, "start_s": pl.Float64, "end_s": pl.Float64,
        "first_clip_id": pl.String, "first_start_s": pl.Float64, "first_end_s": pl.Float64,
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    table = table.sort("runs", pl.col("end_s") - pl.col("start_s"), descending=True, maintain_order=True).head(k)
    names = lake.clips.take(table["clip_id"].unique().to_list(), ["title", "artist"])
    firsts = lake.clips.take(table["first_clip_id"].unique().to_list(), ["title"])
    return table.join(names, on="clip_id", how="left", maintain_order="left").join(
        firsts.select(first_clip_id="clip_id", first_title="title"), on="first_clip_id", how="left", maintain_order="left"
    )


def continuation(
    lake: Lake, sequence: str | Sequence[int], name: str | None = None, *, steps: int = 32, least: int = 2, jump: float = 0.3,
    token: int | None = None, other_tracks: bool = False, space: str | None = None, where: str | None = None, seed: int = 0,
) -> pl.DataFrame:
    """Continue a sequence with stretches of the lake's own clips: a path through the oracle.

    `sequence`: a clip, continued from its end, or tokens.  The path begins at the place with the longest context in common
    with the end of the sequence, follows that clip, and at each step, with probability `jump` (always at a clip's end), jumps
    to another place with at least `least` runs of common context.  It stays within the clips that `where` keeps (labels, or
    ranges of numbers such as "consonance BETWEEN 0.2 AND 0.6"); `token` sets its first token, and `other_tracks` excludes
    the clip's own track.  Returns step, token, clip_id, start_s, end_s, context (common runs before this one), jumped.
    Raises InputError if no place has `least` runs of common context.
    """
    if steps < 1 or least < 1 or not 0 <= jump <= 1:
        raise InputError(f"{steps} steps, {least} runs of context, probability {jump:g}: must be 1 or more of each, and 0 to 1")
    own: list[str] = []
    if isinstance(sequence, str):
        own = [find_clip(lake, sequence)["clip_id"]]
    joined = read_joined_runs(lake, name, space=space, where=where, others=own)
    oracle, count = joined.oracle, len(joined.numbers)
    if isinstance(sequence, str):
        row = joined.sequences.row(own[0])
        word = joined.sequences.clips[row].runs()[0].astype(np.int64).tolist()
    else:
        word = [int(one) for one in sequence]
    # A state can be continued if the run after it is allowed.
    continues = np.zeros(count + 1, bool)
    continues[:count] = allowed_runs(lake, joined, where, own, other_tracks)
    shared = np.where(continues, oracle.contexts(word), 0)
    if token is not None:
        shared[:count][joined.numbers != token] = 0
    best = int(shared.max(initial=0))
    if best < min(least, len(word)):
        before_token = f" before token {token}" if token is not None else ""
        raise InputError(
            f"no allowed place{before_token} shares {least} runs with the end of the sequence. Allow fewer with --context"
        )
    rng = np.random.default_rng(seed)
    state = int(rng.choice(np.flatnonzero(shared == best)))
    rows, context, jumped = [], best, True
    for step in range(steps):
        clip_id, start_s, end_s = joined.span(state, state)
        rows.append((step, int(joined.numbers[state]), clip_id, start_s, end_s, context, jumped))
        state, context, jumped = state + 1, context + 1, False
        if not continues[state] or rng.random() < jump:
            # Only context that has been played counts, not what the clip had before the last jump.
            similar = oracle.similar_states(state, least)
            candidates = [(other, min(length, context)) for other, length in similar if continues[other]]
            others = [(other, length) for other, length in candidates if length >= least]
            if others:
                state, context = others[int(rng.integers(len(others)))]
                jumped = True
            elif not continues[state]:
                break                    # no continuation: the path ends with its clip
    schema: dict[str, Any] = {
        "step": pl.Int64, "token": pl.Int64, "clip_id": pl.String, "start_s": pl.Float64, "end_s": pl.Float64,
        "context": pl.Int64, "jumped": pl.Boolean,
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    names = lake.clips.take(table["clip_id"].unique().to_list(), ["title", "artist"])
    return table.join(names, on="clip_id", how="left", maintain_order="left")


def allowed_runs(
    lake: Lake, joined: JoinedRuns, where: str | None, own: list[str], other_tracks: bool
) -> np.ndarray:
    """Return a (run,) bool mask of the runs that a continuation may use."""
    kept = set(lake.clips.ids(where))
    if own and other_tracks:
        songs, ids = read_songs(lake.clips), pl.Series(joined.sequences.ids)
        kept -= set(ids.filter(songs.of(ids) == songs.of(own)[0]))
    good = np.array([clip_id in kept for clip_id in joined.sequences.ids])
    return good[joined.clip] & (joined.numbers >= 0)
