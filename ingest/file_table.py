"""The lake's files during an ingest: which are unchanged, what was read from the others, and which are gone.

Changes are buffered and stored by `flush`, which the collector calls after it has stored clips: a file is not recorded as cut
before its clips are in the lake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from tonelake.ingest.file_stamps import Stamp, is_gone, is_trusted
from tonelake.store import FILE_TAGS, STAMP, Lake, file_rows, to_nfc


class FileTable:
    """The stored files of a lake, and their changes in one ingest."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._stored = lake.paths.read()
        self._row_of = {source: row for row, source in enumerate(self._stored["source"])}
        self._stamps = self._stored.select(STAMP).rows()
        self._recordings = self._stored["recording"].to_list()
        self._changed: dict[str, dict[str, Any]] = {}                # rows, including those already stored
        self._waiting: set[str] = set()                              # sources of changed rows that are not stored yet
        self.changed_sources: set[str] = set()                       # whose row differs from before the ingest

    def __len__(self) -> int:
        return len(self._stored)

    def row(self, source: str) -> dict[str, Any] | None:
        """The newest row of a file; None for one that is not known."""
        if source in self._changed:
            return self._changed[source]
        at = self._row_of.get(source)
        return None if at is None else self._stored.row(at, named=True)

    def unchanged(self, source: str, stamp: Stamp | None) -> str | None:
        """The recording of a file whose stamp is as stored; None if the file has to be read."""
        at = self._row_of.get(source)
        return self._recordings[at] if at is not None and stamp is not None and stamp == self._stamps[at] else None

    def cut_recordings(self, cuts: Iterable[str]) -> set[str]:
        """Recordings all of whose clips by one of these rules are stored."""
        wanted = pl.Series(sorted(cuts), dtype=pl.String).implode()
        found = self._stored.select("recording", "cuts").explode("cuts").filter(pl.col("cuts").is_in(wanted))
        return set(found["recording"].drop_nulls())

    def note_present(self, source: str, name: str | None) -> None:
        """Note that a known file is present, with its path below the ingested folder if its track is named after it."""
        at = self._row_of[source]
        if self._stored["missing_since"][at] is not None or (name is not None and self._stored["name"][at] != to_nfc(name)):
            self._put(source, {"missing_since": None} | ({"name": to_nfc(name)} if name is not None else {}))

    def note_read(
        self, source: str, stamp: Stamp | None, recording: str, digest: str, tags: dict[str, Any], name: str | None
    ) -> None:
        """Note what was read from a file; `stamp`: from before it was read."""
        before = self.row(source) or {}
        values: dict[str, Any] = {
            "recording": recording, "digest": digest, "missing_since": None, "seen": datetime.now(UTC),
            **dict(zip(STAMP, stamp if stamp is not None and is_trusted(stamp) else (None,) * 3, strict=True)),
            **{tag: _nfc(tags.get(tag)) for tag in FILE_TAGS},
        }
        if before.get("recording") != recording:
            values["cuts"] = None
        if name is not None:
            values["name"] = to_nfc(name)
        self._put(source, values)

    def note_cut(self, source: str, cut: str) -> None:
        """Note that all clips of a file by this rule are stored, or will be when the next `flush` is called."""
        cuts = (self.row(source) or {}).get("cuts") or []
        if cut not in cuts:
            self._put(source, {"cuts": [*cuts, cut]})

    def note_gone(self, candidates: Sequence[str], gone: Collection[str] = ()) -> list[str]:
        """Mark those of these files as missing that do not exist, or that are known to be `gone`; returns them."""
        found = []
        for source in candidates:
            row = self.row(source)
            if row is not None and row["missing_since"] is None and (source in gone or is_gone(source)):
                self._put(source, {"missing_since": datetime.now(UTC)})
                found.append(source)
        return found

    def note_unused(self, source: str) -> None:
        """Note that a file does not count as a recording any more: the next sync supersedes clips that no other file has."""
        if (self.row(source) or {}).get("recording") is not None:
            self._put(source, {"recording": None, "cuts": None})

    def present_recordings(self) -> set[str]:
        """Recordings that a present file has."""
        here = self._stored.filter(pl.col("missing_since").is_null() & ~pl.col("source").is_in([*self._changed]))
        changed = {row["recording"] for row in self._changed.values() if row.get("missing_since") is None}
        return {recording for recording in changed | set(here["recording"]) if recording is not None}

    def below(self, root: str) -> list[str]:
        """Sources of stored files below a folder, given as a source."""
        prefix = root.rstrip("/") + "/"
        return self._stored.filter(pl.col("source").str.starts_with(prefix))["source"].to_list()

    def of_recordings(self, recordings: set[str]) -> list[str]:
        """Sources of stored files that have one of these recordings."""
        return [source for source, recording in zip(self._row_of, self._recordings, strict=True) if recording in recordings]

    def flush(self) -> None:
        """Store the changes."""
        waiting, self._waiting = self._waiting, set()
        if waiting:
            self._lake.paths.put(file_rows([self._changed[source] for source in sorted(waiting)]))

    def _put(self, source: str, values: dict[str, Any]) -> None:
        self._changed[source] = {**(self.row(source) or {"source": source}), **values}
        self._waiting.add(source)
        self.changed_sources.add(source)


def _nfc(value: Any) -> Any:
    if isinstance(value, list):
        return [to_nfc(one) for one in value] or None
    return to_nfc(value) if isinstance(value, str) else value
