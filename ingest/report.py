"""Counts returned by an ingest, and their text for people."""

from __future__ import annotations

from dataclasses import dataclass, field

from tonelake.store import Added


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """Counts of files and clips, and notes for the user.

    Every file is counted once: `recordings` = new + known + changed + copies + failed, and `skipped` are files of other kinds.
    """

    recordings: int = 0                  # files that were to be ingested
    new: int = 0                         # files with clips that the lake lacked
    known: int = 0
    changed: int = 0                     # known files with another name, other tags or labels, or that are back
    added: Added = field(default_factory=Added)
    flagged: int = 0
    failed: int = 0
    superseded: int = 0                  # clips whose file has been replaced since they were ingested
    missing: int = 0                     # files that are gone, and are not elsewhere
    copies: int = 0                      # files whose clips are stored under the path of another file with the same audio
    skipped: int = 0                     # files of other kinds in the folder, which `notes` name
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.recordings} recordings: {self.added.new} clips new, {self.added.known} known"
        for count, word in (
            (self.added.changed, "changed"), (self.copies, "copies of other files"), (self.flagged, "flagged"),
            (self.superseded, "superseded, their file has changed"),
        ):
            counts += f", {count} {word}" if count else ""
        counts += f"; {self.missing} files are missing" if self.missing else ""
        return counts + (f"; {self.failed} recordings failed (see `tonelake failures`)" if self.failed else "")
