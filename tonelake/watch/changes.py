"""Say in a line what a sync changed, by the tables of files before and after it.

    before = state_of(lake)
    report = repeat_ingest(lake, ingest)
    str(changes(before, state_of(lake), report))         # '3 added, 1 renamed, 2 missing'
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

import polars as pl

from tonelake.ingest import IngestReport
from tonelake.store import Lake

STAGE = "ingest"                         # of failures


@dataclass(frozen=True)
class State:
    """The files and failures of a lake at one moment."""

    files: pl.DataFrame                  # source, recording, missing_since
    failures: frozenset[tuple[str, str, str]]        # stage, source, error


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Numbers of files, each counted once; the names of the fields are the words for them."""

    added: int = 0
    renamed: int = 0
    replaced: int = 0                    # with other audio than before
    changed: int = 0                     # other tags or labels
    found_again: int = 0
    copied: int = 0                      # new files with audio that another file has too
    missing: int = 0

    def __str__(self) -> str:
        counts = ((getattr(self, one.name), one.name.replace("_", " ")) for one in fields(self))
        return ", ".join(f"{count:,} {word}" for count, word in counts if count)


def state_of(lake: Lake) -> State:
    files = lake.paths.read(["source", "recording", "missing_since"])
    failures = lake.failures.read().select("stage", "source", "error").rows()
    return State(files, frozenset((stage, source or "", error or "") for stage, source, error in failures))


def changes(before: State, after: State, report: IngestReport) -> Changes:
    """Compare two states; `report` counts files whose tags or labels changed."""
    rows = after.files.join(before.files, on="source", how="full", suffix="_before", coalesce=True)
    known = pl.col("source").is_in(before.files["source"].implode())
    failed = pl.Series([source for stage, source, _ in after.failures if stage == STAGE], dtype=pl.String)
    is_here = pl.col("missing_since").is_null() & pl.col("recording").is_not_null() & ~pl.col("source").is_in(failed.implode())
    was_here = known & pl.col("missing_since_before").is_null()
    present = set(rows.filter(is_here)["recording"])
    was_present = set(rows.filter(was_here)["recording_before"].drop_nulls())
    was_known = set(before.files["recording"].drop_nulls())
    gone = rows.filter(was_here & pl.col("missing_since").is_not_null())["recording"]
    moved = Counter(recording for recording in gone if recording is not None)
    new = rows.filter(is_here & ~known)["recording"].to_list()
    renamed = (Counter(new) & moved).total()
    back = rows.filter(is_here & known & ~was_here).height
    back += sum(recording in was_known and recording not in was_present for recording in new)
    added = sum(recording not in was_known for recording in new)
    replaced = rows.filter(
        is_here & was_here & pl.col("recording_before").is_not_null() & (pl.col("recording") != pl.col("recording_before"))
    ).height
    return Changes(
        added=added, renamed=renamed, replaced=replaced, found_again=back,
        changed=max(report.changed - renamed - back - replaced, 0),
        copied=max(len(new) - added - renamed - sum(r in was_known and r not in was_present for r in new), 0),
        missing=sum(recording not in present for recording in gone),
    )


def new_failures(before: State, after: State) -> list[str]:
    """The errors that the state before did not have."""
    return sorted(error for _, _, error in after.failures - before.failures)
