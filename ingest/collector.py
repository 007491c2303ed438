"""Collect clips and failures during an ingest, and commit them in batches."""

from __future__ import annotations

from typing import Any

import polars as pl

from tonelake.ingest.copies import Copies
from tonelake.ingest.file_table import FileTable
from tonelake.ingest.text_forms import normalized
from tonelake.store import Added, Failure, Lake, failure_id

ROWS_PER_BATCH = 2_000
STAGE = "ingest"


class Collector:
    """Buffers rows of clips and failures of an ingest until they are committed."""

    def __init__(self, lake: Lake, files: FileTable | None = None) -> None:
        """`files`: changes of the table of files, which are stored after clips."""
        self._lake, self._files = lake, files
        self._rows: list[dict[str, Any]] = []
        self._failures: list[Failure] = []
        self._succeeded: list[str] = []
        self.added = Added()
        self.copies = Copies()
        self.flagged = self.failed = 0

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Buffer rows of clips; commit if a batch is full."""
        self._rows += rows
        self.flagged += sum(row.get("flag") is not None for row in rows)
        if len(self._rows) >= ROWS_PER_BATCH:
            self.flush()

    def fail(self, source: str, error: str) -> None:
        """Record that a source could not be ingested."""
        self._failures.append(Failure(STAGE, source, error))
        self.failed += 1

    def succeed(self, source: str) -> None:
        """Delete the recorded failure of a source, if there is one."""
        self._succeeded.append(failure_id(STAGE, source))

    def flush(self) -> None:
        """Commit everything buffered."""
        rows, self._rows = self._rows, []
        failures, self._failures = self._failures, []
        succeeded, self._succeeded = self._succeeded, []
        if rows:
            # A label column that only one row has becomes a column of all.
            frame = normalized(pl.DataFrame(rows, infer_schema_length=None))
            self.added += self._lake.clips.add(frame)
            self.copies.note(self._lake, frame)
        if self._files is not None:
            self._files.flush()
        self._lake.failures.record(failures)
        self._lake.failures.clear(succeeded)
