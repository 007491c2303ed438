"""Events of recordings: notes, onsets, beats, downbeats, chords, keys and sections, with their times.

One row per event, in seconds from the recording's beginning.  Events belong to recordings, as audio does, so that clips cut
in any way see their part (`Events.of_clips`).  `source` says where a row comes from: a kind of label file, or the run that
predicted it (`predicted:RUN`).  Storing events of a recording replaces those of the same kind and source, in one commit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from tonelake.store.errors import InputError
from tonelake.store.filters import quote
from tonelake.store.table import Table
from tonelake.store.table_reading import IDS_PER_FILTER, chunks, in_list, to_frame

EVENT_KINDS = ("note", "onset", "beat", "downbeat", "chord", "key", "section")
INSTANTS = ("onset", "beat", "downbeat")         # kinds whose events have no length
PREDICTED = "predicted:"                         # beginning of a source that is a run
EDGE_S = 1e-6                                    # times that differ by less are equal, as in scores
ROWS_A_READ = 100_000
RECORDINGS_AT_ONCE = 1_000                       # whose events one commit replaces

SCHEMA = pa.schema([
    pa.field("event_id", pa.string()),                               # hash of the row
    pa.field("recording", pa.string()),
    pa.field("kind", pa.string()),                                   # one of EVENT_KINDS
    pa.field("start_s", pa.float64()),                               # seconds from the recording's beginning
    pa.field("end_s", pa.float64()),                                 # equal to start_s for instants
    pa.field("value", pa.string()),      # note: instrument or voice; beat: number in the bar; chord, key, section: its label
    pa.field("pitch", pa.float32()),                                 # MIDI number of a note
    pa.field("velocity", pa.int32()),                                # MIDI velocity of a note, 1 to 127
    pa.field("source", pa.string()),
])
EVENT_COLUMNS = tuple(SCHEMA.names[1:])
GROUP = ("recording", "kind", "source")          # what `replace` replaces
TYPES = {
    "recording": pl.String, "kind": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "value": pl.String,
    "pitch": pl.Float32, "velocity": pl.Int32, "source": pl.String,
}


class Events:
    """The events of a lake."""

    def __init__(self, connection: Any) -> None:
        self.table = Table(connection, "events", SCHEMA)

    def count(self) -> int:
        return self.table.count()

    def summary(self, *, kinds: Sequence[str] | None = None, source: str | None = None) -> pl.DataFrame:
        """Return one row per kind and source: kind, source, recordings, events.

        Of these kinds and source only, if given.  Raises InputError for an unknown kind.
        """
        counts = self.groups(kinds=kinds, source=source).group_by("kind", "source").agg(
            pl.len().cast(pl.Int64).alias("recordings"), pl.col("events").sum()
        )
        order = pl.col("kind").replace_strict({kind: i for i, kind in enumerate(EVENT_KINDS)}, default=len(EVENT_KINDS))
        return counts.sort(order, "source").select("kind", "source", "recordings", "events")

    def groups(self, *, kinds: Sequence[str] | None = None, source: str | None = None) -> pl.DataFrame:
        """Return one row per recording, kind and source that has events: recording, kind, source, events (their number).

        Reads the table in parts, since it may not fit in memory.  Raises InputError for an unknown kind.
        """
        counts = pl.DataFrame(schema={**{name: TYPES[name] for name in GROUP}, "events": pl.Int64})
        for batch in self.table.batches(GROUP, where=" AND ".join(conditions(kinds, source)) or None, rows=ROWS_A_READ):
            rows = to_frame(pa.Table.from_batches([batch]))
            part = rows.group_by(GROUP).agg(pl.len().cast(pl.Int64).alias("events"))
            counts = pl.concat([counts, part]).group_by(GROUP).agg(pl.col("events").sum())
        return counts.sort(GROUP)

    def read(
        self, *, recordings: Sequence[str] | None = None, kinds: Sequence[str] | None = None, source: str | None = None
    ) -> pl.DataFrame:
        """Events with the columns EVENT_COLUMNS, sorted by recording, start and pitch.

        Of these recordings, kinds and source only, if given.  Raises InputError for an unknown kind.
        """
        shared = conditions(kinds, source)
        parts = [None] if recordings is None else list(chunks(list(dict.fromkeys(recordings)), IDS_PER_FILTER))
        found = []
        for part in parts:
            own = [] if part is None else [in_list("recording", part)]
            where = " AND ".join([*own, *shared]) or None
            found.append(to_frame(self.table.read(EVENT_COLUMNS, where=where)))
        rows = pl.concat(found) if found else pl.DataFrame(schema=TYPES)
        return rows.sort("recording", "start_s", "pitch", "end_s", "kind", "value", maintain_order=True)

    def replace(self, rows: pl.DataFrame, *, also: pl.DataFrame | None = None) -> int:
        """Store events in place of those of the same recording, kind and source; return the number of rows.

        `rows`: recording, kind, start_s, end_s, source, and optionally value, pitch, velocity.  `also`: further (recording,
        kind, source) whose events are deleted, such as those of a label file that holds none any more.
        Rows that are stored already are not written again.  Raises InputError for rows that are not events.
        """
        rows = check_events(rows)
        groups = rows.select(GROUP) if also is None else pl.concat([rows.select(GROUP), also.select(GROUP)])
        groups = groups.unique(maintain_order=True)
        together = groups.group_by("recording", "source", maintain_order=True).agg(pl.col("kind").sort())
        for (source, kinds), part in together.group_by("source", "kind", maintain_order=True):
            for recordings in chunks(part["recording"].to_list(), RECORDINGS_AT_ONCE):
                own = rows.filter(
                    (pl.col("source") == source) & pl.col("kind").is_in(list(kinds)) & pl.col("recording").is_in(recordings)
                )
                where = f"source = {quote(source)} AND {in_list('kind', kinds)} AND {in_list('recording', recordings)}"
                self._replace(own, where)
        return len(rows)

    def _replace(self, rows: pl.DataFrame, where: str) -> None:
        """Make `rows` the only ones that match `where`."""
        if not len(rows):
            self.table.delete(where)
            return
        new = with_ids(rows)
        stored = to_frame(self.table.read(["event_id"], where=where))["event_id"]
        if len(stored) != len(new) or not stored.sort().equals(new["event_id"].sort()):
            self.table.replace_where(where, new.to_arrow())

    def of_clips(self, clips: pl.DataFrame, kinds: Sequence[str], *, source: str | None = None) -> pl.DataFrame:
        """Return the events that clips contain, with times in seconds from the clip's start, cut at its ends.

        `clips`: clip_id, recording, start_s, duration_s.  Columns: clip_id, kind, start_s, end_s, value, pitch, velocity,
        source; `begins`, whether the event starts inside the clip (a note that is held over from before does not); `ends`,
        whether it ends there.  An event of no length belongs to the clip in which it lies; at a border, to the later one.
        `source` None: every source but predictions.  Raises InputError if a recording has two of these for one kind.
        """
        spans = clips.select(
            "clip_id", "recording", pl.col("start_s").alias("clip_start"),
            (pl.col("start_s") + pl.col("duration_s")).alias("clip_end"),
        ).drop_nulls("recording")
        recordings = spans["recording"].unique(maintain_order=True).to_list()
        events = self.read(recordings=recordings, kinds=kinds, source=source)
        if source is None:
            events = one_source(events.filter(~pl.col("source").str.starts_with(PREDICTED)))
        start, end, first, last = (pl.col(name) for name in ("start_s", "end_s", "clip_start", "clip_end"))
        instant = end - start <= 0
        inside = pl.when(instant).then((start >= first - EDGE_S) & (start < last - EDGE_S)).otherwise(
            (start < last - EDGE_S) & (end > first + EDGE_S)
        )
        found = spans.join(events, on="recording", how="inner", maintain_order="left_right").filter(inside)
        return found.select(
            "clip_id", "kind", (start.clip(lower_bound=first) - first).alias("start_s"),
            (end.clip(upper_bound=last).clip(lower_bound=first) - first).alias("end_s"), "value", "pitch", "velocity", "source",
            (start >= first - EDGE_S).alias("begins"), (end <= last + EDGE_S).alias("ends"),
        )

    def forget(self, recordings: Sequence[str]) -> None:
        """Delete the events of these recordings."""
        if self.table.version:
            for part in chunks(list(recordings), IDS_PER_FILTER):
                self.table.delete(in_list("recording", part))

    def drop(self, source: str) -> None:
        """Delete the events of one source, such as those that a run predicted."""
        self.table.delete(f"source = {quote(source)}")


def conditions(kinds: Sequence[str] | None, source: str | None) -> list[str]:
    """SQL for events of these kinds and this source, if given.  Raises InputError for an unknown kind."""
    check_kinds(kinds or ())
    of_kinds = [] if kinds is None else [in_list("kind", kinds) if kinds else "false"]
    return of_kinds if source is None else [*of_kinds, f"source = {quote(source)}"]


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise InputError unless all of these are kinds of events."""
    for kind in kinds:
        if kind not in EVENT_KINDS:
            raise InputError(f"kind {kind!r}: unknown. Choose {', '.join(EVENT_KINDS)}")


def check_events(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with all EVENT_COLUMNS in their types; missing optional columns are null.  Raises InputError."""
    missing = {"recording", "kind", "start_s", "end_s", "source"} - set(rows.columns)
    unknown = set(rows.columns) - set(EVENT_COLUMNS)
    if missing or unknown:
        what = f"lack {', '.join(sorted(missing))}" if missing else f"have unknown columns {', '.join(sorted(unknown))}"
        raise InputError(f"events: {what}. Give the columns {', '.join(EVENT_COLUMNS)}")
    rows = rows.select(
        (pl.col(name) if name in rows.columns else pl.lit(None)).cast(kind).alias(name) for name, kind in TYPES.items()
    )
    check_kinds(rows["kind"].unique().to_list())
    wrong = {
        "no recording or source": rows["recording"].is_null() | rows["source"].is_null(),
        "a time that is not a number": ~(rows["start_s"].is_finite() & rows["end_s"].is_finite()).fill_null(False),
        "a negative start": (rows["start_s"] < 0).fill_null(False),
        "an end before its start": (rows["end_s"] < rows["start_s"]).fill_null(False),
        "a pitch outside 0 to 127": ~rows["pitch"].is_between(0, 127).fill_null(True),
        "a velocity outside 1 to 127": ~rows["velocity"].is_between(1, 127).fill_null(True),
        "no pitch, as a note": (rows["kind"] == "note") & rows["pitch"].is_null(),
        "a length, as an instant": rows["kind"].is_in(INSTANTS) & (rows["end_s"] != rows["start_s"]).fill_null(True),
    }
    for problem, mask in wrong.items():
        if mask.any():
            raise InputError(f"events: {int(mask.sum()):,} of {len(rows):,} have {problem}. Correct them")
    return rows


def with_ids(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows of EVENT_COLUMNS with `event_id`, a hash of the row and of its number among equal ones."""
    number = rows.select(pl.int_range(pl.len()).over(EVENT_COLUMNS)).to_series()
    numbers = np.stack([
        rows["start_s"].to_numpy(), rows["end_s"].to_numpy(), rows["pitch"].fill_null(-1).cast(pl.Float64).to_numpy(),
        rows["velocity"].fill_null(-1).cast(pl.Float64).to_numpy(), number.cast(pl.Float64).to_numpy(),
    ], axis=1)
    texts = rows.select("recording", "kind", "source", pl.col("value").fill_null("\0")).iter_rows()
    ids = [
        hashlib.blake2b("\0".join(text).encode() + row.tobytes(), digest_size=12).hexdigest()
        for text, row in zip(texts, np.ascontiguousarray(numbers), strict=True)
    ]
    return rows.select(pl.Series("event_id", ids, dtype=pl.String), *EVENT_COLUMNS)


def one_source(events: pl.DataFrame) -> pl.DataFrame:
    """Return `events`.  Raises InputError if a recording has events of one kind from two sources."""
    counts = events.group_by("recording", "kind").agg(pl.col("source").unique().sort())
    several = counts.filter(pl.col("source").list.len() > 1)
    if len(several):
        kind, sources = several["kind"][0], several["source"][0].to_list()
        raise InputError(
            f"events: {len(several):,} recordings have {kind} events from {' and '.join(sources)}. Choose one as the source"
        )
    return events
