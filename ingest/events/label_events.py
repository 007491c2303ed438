"""The result of reading one label file: events in seconds, and counts of what was repaired or left out.

A reader returns the columns kind, start_s, end_s, value, pitch and velocity, without recording and source, which are added when
the file is matched (`ingest.events.sync`).  Rules that hold for every format:

    rows in any order are sorted;  a row that is there twice counts once
    a time that is NaN or infinite: the row is left out
    a negative time: an instant is left out, a span begins at 0 or is left out
    a span that ends before it begins is left out
    chords, keys and sections do not overlap: a span ends where the next one begins
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import polars as pl

from tonelake.store import InputError

MAX_S = 86_400.0                         # seconds; no recording is longer than a day, so later times are errors
TYPES = {
    "kind": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "value": pl.String, "pitch": pl.Float32,
    "velocity": pl.Int32,
}
INSTANT_KINDS = ("onset", "beat", "downbeat")
EXCLUSIVE_KINDS = ("chord", "key", "section")                # kinds whose events cannot overlap
TO_THE_END = math.inf                    # end of a span that lasts until the recording ends


class EventRow(NamedTuple):
    """One event as read.  `end_s` is TO_THE_END for a span that lasts until the recording ends."""

    kind: str
    start_s: float
    end_s: float
    value: str | None = None
    pitch: float | None = None
    velocity: int | None = None


def instant(kind: str, time_s: float, value: str | None = None, *, velocity: int | None = None) -> EventRow:
    """An event without a length."""
    return EventRow(kind, start_s=time_s, end_s=time_s, value=value, velocity=velocity)


def span(kind: str, start_s: float, end_s: float, value: str | None) -> EventRow:
    """A chord, key or section."""
    return EventRow(kind, start_s=start_s, end_s=end_s, value=value)


@dataclass(frozen=True, kw_only=True)
class LabelEvents:
    """Events of one label file or score."""

    events: pl.DataFrame                 # columns of TYPES, sorted by start
    repairs: Counter[str] = field(default_factory=Counter)           # number of events by kind of repair

    def to_dict(self) -> dict[str, Any]:
        """Fields for JSON, with every number exact; a span to the end of the recording has no end.  See `from_dict`."""
        ends = pl.when(pl.col("end_s").is_finite()).then("end_s").alias("end_s")
        return {"events": self.events.with_columns(ends).to_dict(as_series=False), "repairs": dict(self.repairs)}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> LabelEvents:
        """The events whose `to_dict` is `fields`."""
        events = pl.DataFrame(fields["events"], schema=TYPES).with_columns(pl.col("end_s").fill_null(TO_THE_END))
        return cls(events=events, repairs=Counter(fields["repairs"]))


def label_events(name: str, rows: Iterable[EventRow], repairs: Counter[str] | None = None) -> LabelEvents:
    """Return rows as sorted events after the repairs that every format has in common.

    Raises InputError, with the file's `name`, if no event is left.
    """
    counts = Counter(repairs or {})
    kept = []
    for row in rows:
        problem, good = checked(row)
        if problem:
            counts[problem] += 1
        if good is not None:
            kept.append(good)
    unique = list(dict.fromkeys(kept))
    counts["repeated rows left out"] += len(kept) - len(unique)
    ordered = sorted(unique, key=by_time)
    counts["rows sorted by time"] += sum(
        1 for kind in {row.kind for row in unique} if not is_sorted([row.start_s for row in unique if row.kind == kind])
    )
    for kind in EXCLUSIVE_KINDS:
        ordered = without_overlap(ordered, kind, counts)
    if not ordered:
        left_out = f" ({described(+counts)})" if +counts else ""
        raise InputError(f"{name}: holds no events{left_out}. Check its format with `tonelake ingest events --help`")
    return LabelEvents(events=pl.DataFrame(ordered, schema=TYPES, orient="row"), repairs=+counts)


def checked(row: EventRow) -> tuple[str, EventRow | None]:
    """Return the repair that a row needs ("" for none), and the row after it; None if it is left out."""
    start_s, end_s = row.start_s, row.end_s
    if not math.isfinite(start_s) or math.isnan(end_s) or end_s == -math.inf:
        return "rows without a finite time left out", None
    if start_s > MAX_S or (end_s > MAX_S and end_s != TO_THE_END):
        return "rows later than a day left out", None
    if end_s < start_s:
        return "spans that end before they begin left out", None
    if start_s < 0:
        if row.kind in INSTANT_KINDS or end_s <= 0:
            return "rows before the beginning left out", None
        return "spans begun before the beginning cut", row._replace(start_s=0.0)
    if row.kind in EXCLUSIVE_KINDS and end_s == start_s:
        return "spans without a length left out", None
    return "", row._replace(start_s=start_s + 0.0)           # -0.0 becomes 0.0


def without_overlap(rows: Sequence[EventRow], kind: str, counts: Counter[str]) -> list[EventRow]:
    """Return sorted rows in which a span of `kind` ends where the next one begins, at the latest."""
    others = [row for row in rows if row.kind != kind]
    kept: list[EventRow] = []
    for row in rows:
        if row.kind != kind:
            continue
        if kept and kept[-1].end_s > row.start_s:
            before = kept.pop()
            counts[f"overlapping {kind} events cut at the next one"] += before.end_s != TO_THE_END
            if before.start_s < row.start_s:
                kept.append(before._replace(end_s=row.start_s))
        kept.append(row)
    return sorted(others + kept, key=by_time) if kept else others


def by_time(row: EventRow) -> tuple[float, float, float, str]:
    return row.start_s, row.end_s, row.pitch or 0.0, row.value or ""


def is_sorted(times: Sequence[float]) -> bool:
    return all(earlier <= later for earlier, later in pairwise(times))


def described(repairs: Counter[str]) -> str:
    """
    >>> described(Counter({"repeated rows left out": 1200, "rows sorted by time": 1}))
    '1,200 repeated rows left out, 1 rows sorted by time'
    """
    return ", ".join(f"{count:,} {what}" for what, count in sorted(repairs.items()) if count)
