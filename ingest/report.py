"""Counts returned by an ingest, and their text for people."""

from __future__ import annotations

from dataclasses import dataclass, field

from tonelake.store import Added


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """Counts of recordings and clips, and notes for the user."""

    recordings: int = 0
    added: Added = field(default_factory=Added)
    flagged: int = 0
    failed: int = 0
    superseded: int = 0                  # clips whose file has been replaced since they were ingested
    copies: int = 0                      # files whose clips are stored under the path of another file with the same bytes
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.recordings} recordings: {self.added.new} clips new, {self.added.known} known"
        for count, word in (
            (self.added.changed, "changed"), (self.copies, "copies of other files"), (self.flagged, "flagged"),
            (self.superseded, "superseded, their file has changed"),
        ):
            counts += f", {count} {word}" if count else ""
        return counts + (f"; {self.failed} recordings failed (see `tonelake failures`)" if self.failed else "")
