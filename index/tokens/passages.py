"""Find repeated passages in the token sequences of a lake, and continue a sequence: a factor oracle over runs of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.search.names import find_clip
from tonelake.index.tokens.joined import PATH, JoinedRuns, read_joined_gestures, read_joined_runs
from tonelake.index.tokens.requested_path import GESTURE_FEATURES, last_interval, log_relaxed, request_of, requested_path
from tonelake.index.tokens.requests import check_steps, parse_condition
from tonelake.store import InputError, Lake, read_songs


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
    token: int | None = None, want: Sequence[str] = (), prefer: Sequence[str] = (), other_tracks: bool = False,
    space: str | None = None, where: str | None = None, seed: int = 0,
) -> pl.DataFrame:
    """Continue a sequence with stretches of the lake's own clips: a path through the oracle.

    `sequence`: a clip, continued from its end, or tokens.  The path begins at the place with the longest context in common
    with the end of the sequence, follows that clip, and at each step, with probability `jump` (always at a clip's end), jumps
    to another place with at least `least` runs of common context.  It stays within the clips that `where` keeps (labels, or
    ranges of numbers such as "consonance BETWEEN 0.2 AND 0.6"), and `other_tracks` excludes the clip's own track.

    `token`: asks for the first token.  `want` and `prefer`: conditions on each event, "consonance >= 0.6", "ratio = 1:2", or on
    some steps, "3: consonance >= 0.8", "2-5: token = 12", relaxed in the order of `tokens.requests` instead of failing; a jump
    is then made to fulfil them, with less context if necessary.  Events are runs of tokens; they are gestures
    (`compute_gestures`) if a condition names one of their features.

    Returns step, token, clip_id, start_s, end_s, context (common events before this one), jumped, held and relaxed (the
    conditions that the event meets, and those that it does not).  Raises InputError if no clip may be used, and, where nothing
    was asked for, if no place has `least` runs of common context.
    """
    if steps < 1 or least < 1 or not 0 <= jump <= 1:
        raise InputError(f"{steps} steps, {least} runs of context, probability {jump:g}: must be 1 or more of each, and 0 to 1")
    own: list[str] = []
    if isinstance(sequence, str):
        own = [find_clip(lake, sequence)["clip_id"]]
    wanted = [parse_condition(text) for text in want]
    preferred = [parse_condition(text, weighted=True) for text in prefer]
    check_steps((*wanted, *preferred), steps)
    names = {one.name for one in (*wanted, *preferred)}
    if names & GESTURE_FEATURES:
        joined = read_joined_gestures(lake, name, space=space, where=where, others=own)
    else:
        joined = read_joined_runs(lake, name, space=space, where=where, others=own)
    count = len(joined.numbers)
    if own:
        of_clip = (joined.clip == joined.sequences.row(own[0])) & (joined.numbers >= 0)
        word = joined.numbers[of_clip].tolist()
    else:
        of_clip = np.zeros(count, bool)
        word = [int(one) for one in sequence]
    # A state can be continued if the run after it is allowed.
    continues = np.zeros(count + 1, bool)
    continues[:count] = allowed_runs(lake, joined, where, own, other_tracks)
    if not continues.any():
        raise InputError("continuation: no clip with tokens may be used. Choose more with --where, or allow the own track")
    rng = np.random.default_rng(seed)
    if names:
        request = request_of(lake, joined, wanted, preferred)
        path = requested_path(
            joined, continues[:count], word, request, token=token, steps=steps, least=least, jump=jump,
            previous_s=last_interval(joined, of_clip), rng=rng,
        )
    else:
        path = oracle_path(joined, continues, word, token=token, steps=steps, least=least, jump=jump, rng=rng)
    log_relaxed(path)
    titles = lake.clips.take(path["clip_id"].unique().to_list(), ["title", "artist"])
    return path.join(titles, on="clip_id", how="left", maintain_order="left")


def oracle_path(
    joined: JoinedRuns, continues: np.ndarray, word: list[int], *, token: int | None, steps: int, least: int, jump: float,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Return the path of `continuation` without conditions, and with at most a first token.

    A token that no place with `least` runs of context has is taken where there is less context, down to none; one that no
    place has at all is relaxed.  Raises InputError without a token, if no place has `least` runs of context.
    """
    oracle = joined.oracle
    shared = np.where(continues, oracle.contexts(word), -1)
    held: list[str] = []
    relaxed: list[str] = []
    if token is not None:
        has = np.append(joined.numbers == token, False) & continues
        (held if has.any() else relaxed).append(f"token = {token}")
        shared[~has & has.any()] = -1
    best = int(shared.max(initial=0))
    if token is None and best < min(least, len(word)):
        raise InputError(f"no allowed place shares {least} runs with the end of the sequence. Allow fewer with --context")
    state = int(rng.choice(np.flatnonzero(shared == best)))
    rows, context, jumped = [], best, True
    for step in range(steps):
        clip_id, start_s, end_s = joined.span(state, state)
        rows.append((step, int(joined.numbers[state]), clip_id, start_s, end_s, context, jumped, held, relaxed))
        held, relaxed = [], []
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
    return pl.DataFrame(rows, schema=PATH, orient="row")


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
