"""Files and clips that could not be ingested or embedded: one row per source and stage, replaced when a run is repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from tonelake.store.table import Table
from tonelake.store.table_reading import IDS_PER_FILTER, chunks, in_list, to_frame

FAILURE_SCHEMA = pa.schema(
    [
        pa.field("failure_id", pa.string()),
        pa.field("stage", pa.string()),          # ingest, or embed:<space>
        pa.field("source", pa.string()),
        pa.field("clip_id", pa.string()),        # null if the source gave no clip
        pa.field("error", pa.string()),
        pa.field("time", pa.timestamp("us", tz="UTC")),
    ]
)


@dataclass(frozen=True)
class Failure:
    """A source or clip that failed at one stage."""

    stage: str
    source: str
    error: str
    clip_id: str | None = None

    @property
    def failure_id(self) -> str:
        return failure_id(self.stage, self.source, self.clip_id)


def failure_id(stage: str, source: str, clip_id: str | None = None) -> str:
    """The key of a failure: a hash of stage, source and clip."""
    text = "\0".join((stage, source, clip_id or ""))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def storable(text: str) -> str:
    """Text that a column can store: bytes of a file name that are not UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


class Failures:
    """The failures of a lake."""

    def __init__(self, connection: Any) -> None:
        self.table = Table(connection, "failures", FAILURE_SCHEMA)

    def read(self, stage: str | None = None) -> pl.DataFrame:
        """Failures, of one stage or of all, newest first.  Columns: stage, source, clip_id, error, time."""
        found = to_frame(self.table.read()).drop("failure_id").sort("time", descending=True)
        return found if stage is None else found.filter(pl.col("stage") == stage)

    def count(self) -> int:
        return self.table.count()

    def record(self, failures: Sequence[Failure]) -> None:
        """Store failures; a known one is replaced."""
        if not failures:
            return
        rows = pl.DataFrame(
            [
                (f.failure_id, f.stage, f.source, f.clip_id, storable(f.error), datetime.now(UTC))
                for f in failures
            ],
            schema={
                "failure_id": pl.String, "stage": pl.String, "source": pl.String, "clip_id": pl.String,
                "error": pl.String, "time": pl.Datetime("us", "UTC"),
            },
            orient="row",
        )
        self.table.upsert(rows.unique("failure_id", keep="last").to_arrow())

    def clear(self, ids: Sequence[str]) -> None:
        """Delete failures by id, after their source or clip has succeeded."""
        if not ids or not self.table.count():
            return
        known = set(to_frame(self.table.read(["failure_id"]))["failure_id"])
        for part in chunks(sorted(known & set(ids)), IDS_PER_FILTER):
            self.table.delete(in_list("failure_id", part))
