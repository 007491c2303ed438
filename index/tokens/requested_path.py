"""Continue a sequence by events that meet a request: conditions on token, features, rhythm and labels (`tokens.requests`)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.index.tokens.joined import PATH, JoinedRuns
from tonelake.index.tokens.requests import Condition, Request, parse_condition
from tonelake.store import GESTURE_COLUMNS, Lake

# Names that only gestures have; "start_s" and "end_s" could be the clip's too.
GESTURE_FEATURES = frozenset(GESTURE_COLUMNS) - {"number", "start_s", "end_s", "token", "pitch_classes"}

log = logging.getLogger(__name__)


def request_of(lake: Lake, joined: JoinedRuns, want: Sequence[Condition], prefer: Sequence[Condition]) -> Request:
    """Return a request on the events of `joined`.  Raises InputError for a name that is no column of them or of clips."""
    events: dict[str, pl.Series] = {
        "token": pl.Series(joined.numbers), "duration_s": pl.Series(joined.end_s - joined.start_s, nan_to_null=True),
    }
    if joined.features is not None:
        events |= {name: joined.features[name] for name in sorted(GESTURE_FEATURES) if name != "ratio"}
    own = {one.name for one in (*want, *prefer)} - set(events) - {"ratio"}
    columns = sorted(own & set(lake.clips.table.schema.names))
    if columns:
        clips = pl.DataFrame({"clip_id": joined.sequences.ids})
        known = lake.clips.take(clips["clip_id"].to_list(), columns)
        labels = clips.join(known, on="clip_id", how="left", maintain_order="left")
        events |= {name: labels[name][joined.clip] for name in columns}
    return Request(want, prefer, pl.DataFrame(events), intervals(joined))


def intervals(joined: JoinedRuns) -> np.ndarray:
    """Return the (event,) seconds from each onset to the next; NaN for runs and for the last gesture of a clip."""
    if joined.features is None:
        return np.full(len(joined.numbers), np.nan)
    return joined.features["ioi_s"].fill_null(np.nan).to_numpy()


def last_interval(joined: JoinedRuns, events: np.ndarray) -> float:
    """Return the last known inter-onset interval among an (event,) mask of events; NaN if there is none."""
    known = intervals(joined)[events]
    known = known[np.isfinite(known)]
    return float(known[-1]) if len(known) else float("nan")


def requested_path(
    joined: JoinedRuns, continues: np.ndarray, word: list[int], request: Request, *, token: int | None, steps: int, least: int,
    jump: float, previous_s: float, rng: np.random.Generator,
) -> pl.DataFrame:
    """Return a path of `steps` events that meet a request as far as they can, as a table with the columns of PATH.

    `continues`: (event,) mask of those that may be used, at least one.  `word`: tokens played before; `previous_s`: the last
    inter-onset interval, NaN if unknown.  `token`: asked of the first event, before everything else.
    The next event of the same clip is taken if the request leaves it among the best, unless it jumps with probability `jump`.
    """
    first = [] if token is None else [parse_condition(f"token = {token}")]
    with_token = Request([*first, *request.want], request.prefer, request.events, request.ioi_s)
    played, following = list(word), -1
    rows = []
    for step in range(steps):
        asked = request if step else with_token
        contexts = joined.oracle.contexts(played)[:-1]
        longest = least if step else len(joined.numbers)
        best = asked.choose(continues, contexts, longest, previous_s, step)
        others = best[best != following]
        follows = len(others) < len(best) and (not len(others) or rng.random() >= jump)
        event = following if follows else int(others[int(rng.integers(len(others)))])
        held, relaxed = asked.held(event, previous_s, step)
        clip_id, start_s, end_s = joined.span(event, event)
        number = int(joined.numbers[event])
        rows.append((step, number, clip_id, start_s, end_s, int(contexts[event]), not follows, held, relaxed))
        played.append(number)
        following = event + 1
        if np.isfinite(request.ioi_s[event]):
            previous_s = float(request.ioi_s[event])
    return pl.DataFrame(rows, schema=PATH, orient="row")


def log_relaxed(path: pl.DataFrame) -> None:
    """Warn of each condition that some events of a path do not meet, with their number."""
    counts = Counter(text for texts in path["relaxed"].to_list() for text in texts)
    for text, count in counts.items():
        asked = count + sum(text in texts for texts in path["held"].to_list())
        log.warning("continuation: %d of %d events do not meet %r. The column relaxed says which", count, asked, text)
