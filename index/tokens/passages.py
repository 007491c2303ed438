"""What comes again in the token sequences of a lake, and how a sequence could go on: a factor oracle over runs of tokens.

Clips are joined with a number between them that occurs once, so nothing is found across their ends.  Runs rather than frames:
what is played slower has the same runs, and a held sound is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.tokens.factor_oracle import FactorOracle
from tonelake.index.tokens.sequences import Sequences, read_sequences
from tonelake.store import InputError, Lake

MOST_RUNS = 2_000_000                    # 2 GB of oracle, 8 s to build


@dataclass(frozen=True)
class Score:
    """The runs of many clips, one after the other, and where each of them sounds."""

    sequences: Sequences
    numbers: np.ndarray                  # (run,) token, or -1 - clip between clips
    clip: np.ndarray                     # (run,) number of the clip
    start_s: np.ndarray                  # (run,) seconds from the clip's start
    end_s: np.ndarray
    oracle: FactorOracle

    def place(self, first: int, last: int) -> tuple[str, float, float]:
        """(clip, start, end in seconds) of the runs `first` to `last`."""
        return self.sequences.clips[self.clip[first]].clip_id, float(self.start_s[first]), float(self.end_s[last])


def read_score(
    lake: Lake, name: str | None = None, *, space: str | None = None, where: str | None = None, others: Sequence[str] = ()
) -> Score:
    """The runs of all clips that a filter keeps, and of these `others`, under one oracle.  Raises InputError for too many."""
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
            f"{len(joined):,} runs of tokens are too many for one oracle, which takes {MOST_RUNS:,}: choose clips by --where"
        )
    return Score(found, joined, np.concatenate(clip), np.concatenate(start_s), np.concatenate(end_s), FactorOracle(joined))


def repeats(
    lake: Lake, name: str | None = None, *, clip: str | None = None, least: int = 5, across: bool | None = None, k: int = 50,
    space: str | None = None, where: str | None = None,
) -> pl.DataFrame:
    """Passages that come again, the longest first: each with the first time that it came.

    `least`: runs; `across`: only between clips of different tracks (True) or within one clip (False); `clip`: only with this
    clip.  Returns runs, tokens, clip_id, start_s, end_s, first_clip_id, first_start_s, first_end_s, and titles.
    """
    if least < 2 or k < 1:
        raise InputError(f"passages of {least} runs, {k} of them: ask for 2 runs or more, and 1 passage or more")
    only = lake.clips.find(clip)["clip_id"] if clip is not None else None
    score = read_score(lake, name, space=space, where=where, others=[only] if only else ())
    tracks = dict(lake.clips.take(score.sequences.ids, ["track"]).select("clip_id", "track").iter_rows())
    rows = []
    for end, earlier, length in score.oracle.repeats(least):
        one, first = score.place(end - length, end - 1), score.place(earlier - length, earlier - 1)
        if only is not None and only not in (one[0], first[0]):
            continue
        if across is True and tracks.get(one[0]) == tracks.get(first[0]):
            continue
        if across is False and one[0] != first[0]:
            continue
        rows.append((length, score.numbers[end - length : end].tolist(), *one, *first))
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
    """How a sequence could go on, in stretches of the lake's own clips: a path through the oracle.

    `sequence`: a clip, which goes on from its end, or tokens.  The path begins where the most of the sequence's last runs
    came, follows the clip there, and with chance `jump` at each step (always at a clip's end) goes to another place that
    shares at least `least` runs of context.  It stays among the clips that `where` keeps (labels, or ranges of numbers, as
    "consonance BETWEEN 0.2 AND 0.6"), begins with `token` where one is asked for, and with `other_tracks` leaves the clip's
    own track out.  Returns step, token, clip_id, start_s, end_s, context (runs shared with what was before), jumped.
    Raises InputError where no place shares so much.
    """
    if steps < 1 or least < 1 or not 0 <= jump <= 1:
        raise InputError(f"{steps} steps, {least} runs of context, chance {jump:g}: ask for 1 or more of each, and 0 to 1")
    own: list[str] = []
    if isinstance(sequence, str):
        own = [lake.clips.find(sequence)["clip_id"]]
    score = read_score(lake, name, space=space, where=where, others=own)
    oracle, count = score.oracle, len(score.numbers)
    if isinstance(sequence, str):
        row = score.sequences.row(own[0])
        word = score.sequences.clips[row].runs()[0].astype(np.int64).tolist()
    else:
        word = [int(one) for one in sequence]
    allowed = allowed_runs(lake, score, where, own, other_tracks)
    # A state can be gone on from where the run after it may be played.
    goes_on = np.zeros(count + 1, bool)
    goes_on[:count] = allowed
    shared = np.where(goes_on, oracle.contexts(word), 0)
    if token is not None:
        shared[:count][score.numbers != token] = 0
    best = int(shared.max(initial=0))
    if best < min(least, len(word)):
        asked = f" that goes on with token {token}" if token is not None else ""
        raise InputError(
            f"no allowed place{asked} shares {least} runs with the end of the sequence: allow fewer with --context"
        )
    rng = np.random.default_rng(seed)
    state = int(rng.choice(np.flatnonzero(shared == best)))
    rows, context, jumped = [], best, True
    for step in range(steps):
        clip_id, start_s, end_s = score.place(state, state)
        rows.append((step, int(score.numbers[state]), clip_id, start_s, end_s, context, jumped))
        state, context, jumped = state + 1, context + 1, False
        if not goes_on[state] or rng.random() < jump:
            # Of what two places share only that counts which has been played: not what the clip had before a jump.
            alike = [(other, min(length, context)) for other, length in oracle.alike(state, least) if goes_on[other]]
            others = [(other, length) for other, length in alike if length >= least]
            if others:
                state, context = others[int(rng.integers(len(others)))]
                jumped = True
            elif not goes_on[state]:
                break                    # nowhere to go: the path ends with its clip
    schema: dict[str, Any] = {
        "step": pl.Int64, "token": pl.Int64, "clip_id": pl.String, "start_s": pl.Float64, "end_s": pl.Float64,
        "context": pl.Int64, "jumped": pl.Boolean,
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    names = lake.clips.take(table["clip_id"].unique().to_list(), ["title", "artist"])
    return table.join(names, on="clip_id", how="left", maintain_order="left")


def allowed_runs(lake: Lake, score: Score, where: str | None, own: list[str], other_tracks: bool) -> np.ndarray:
    """(run,) bool: what a continuation may play."""
    kept = set(lake.clips.ids(where))
    if own and other_tracks:
        track = lake.clips.find(own[0])["track"]
        same = lake.clips.take(score.sequences.ids, ["track"]).filter(pl.col("track") == track)
        kept -= set(same["clip_id"])
    good = np.array([clip_id in kept for clip_id in score.sequences.ids])
    return good[score.clip] & (score.numbers >= 0)
