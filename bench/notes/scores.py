"""Scores of models by groups of timbres, with intervals over pieces, and the recall of repeated notes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from bench.notes.models import Result
from bench.notes.pieces import HELD_OUT, ORGAN, SEEN
from tonelake.evaluate import Estimate, estimates_by_clips, make_units, match_notes, merge_unisons

FAST_MS = 20                             # a timbre attacks fast if it reaches half of its level within this time
REPEATED_S = 0.02                        # longest gap before a note that repeats the pitch of the one before
SEEN_GROUP, HELD_GROUP = "seen", "held out"
FAST_SEEN, FAST_HELD = "fast, seen", "fast, held out"


class Figure(Estimate):
    """An estimate with its 95 % interval, shown with two decimals."""

    def __str__(self) -> str:
        if not np.isfinite(self.value):
            return "–"
        return f"{self.value:.2f} ({self.low:.2f}–{self.high:.2f})" if np.isfinite(self.low) else f"{self.value:.2f}"


Figures = Mapping[tuple[str, str], Figure]           # (group, score)


def group_figures(result: Result, clips: pl.DataFrame, attacks: Mapping[str, float]) -> Figures:
    """Return the estimates of every timbre and group of timbres.  `clips`: clip_id, piece, timbre; `attacks`: ms by timbre."""
    rows = result.scores.select("clip_id").join(clips, on="clip_id", how="left", maintain_order="left")
    scores = result.scores.select(name for name, kind in result.scores.schema.items() if kind == pl.Float64)
    units = make_units(rows["piece"].rank("dense").to_numpy().astype(np.int64) - 1, "pieces")
    found = {}
    for grouping in groupings(rows["timbre"].to_list(), attacks):
        for row in estimates_by_clips(scores, units, grouping).iter_rows(named=True):
            found[row["group"], row["score"]] = Figure(row["value"], row["low"], row["high"])
    return found


def groupings(timbres: list[str], attacks: Mapping[str, float]) -> list[list[str | None]]:
    """Return the group of each clip in each of several divisions.

    >>> groupings(["piano", "choir"], {"piano": 8, "choir": 154})
    [['piano', 'choir'], ['seen', 'held out'], ['fast, seen', None]]
    """
    def side(timbre: str) -> str | None:
        return SEEN_GROUP if timbre in SEEN else HELD_GROUP if timbre in HELD_OUT else None

    fast = {SEEN_GROUP: FAST_SEEN, HELD_GROUP: FAST_HELD}
    return [
        list(timbres), [side(timbre) for timbre in timbres],
        [fast.get(side(timbre) or "") if attacks[timbre] <= FAST_MS else None for timbre in timbres],
    ]


def repeated_recall(
    result: Result, events: Mapping[str, pl.DataFrame], timbres: Mapping[str, str]
) -> dict[str, tuple[float, float]]:
    """Return the recall of notes that repeat a pitch without a gap, and of other notes, for seen, held-out and organ clips."""
    counts: dict[str, np.ndarray] = {}
    for (clip,), found in result.events.group_by("clip_id"):
        reference = events[str(clip)].filter(pl.col("kind") == "note")
        matched = match_notes(reference, found.filter(pl.col("kind") == "note"))
        ends = merge_unisons(reference).select("pitch", pl.col("end_s").alias("before_s")).sort("before_s")
        notes = matched.reference.with_row_index("row").sort("start_s")
        joined = notes.join_asof(
            ends, left_on="start_s", right_on="before_s", by="pitch", strategy="nearest", tolerance=REPEATED_S,
            check_sortedness=False,      # both are sorted
        ).sort("row")
        repeated = joined["before_s"].is_not_null().to_numpy()
        hit = np.zeros(len(notes), bool)
        hit[matched.pairs[:, 0]] = True
        timbre = timbres[str(clip)]
        group = SEEN_GROUP if timbre in SEEN else HELD_GROUP if timbre in HELD_OUT else ORGAN
        own = np.array([(hit & repeated).sum(), repeated.sum(), (hit & ~repeated).sum(), (~repeated).sum()])
        counts[group] = counts.get(group, np.zeros(4, int)) + own
    return {group: (own[0] / max(own[1], 1), own[2] / max(own[3], 1)) for group, own in counts.items()}
