"""Recordings into the lake: digest, scan, cut into clips, add; with a failure on record for each that cannot be.

What is known by content is not decoded again, and what looks as it did is not read again (`ingest.file_stamps`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl
import polars.selectors as cs

from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError
from tonelake.ingest.file_stamps import FileStamps, Look, stamp_of
from tonelake.ingest.scan import MIN_SECONDS, Scan, clip_id
from tonelake.ingest.segment import MAX_WHOLE_S, Cut, is_silent
from tonelake.store import Added, Failure, Lake, Progress, cores, failure_id, silent_progress, tidy

ROWS_PER_BATCH = 2_000
STAGE = "ingest"

@dataclass(frozen=True)
class Recording:
    """One source to be cut into clips, by rule or at the spans given."""

    source: str
    track: str
    labels: dict[str, Any] = field(default_factory=dict)
    spans: tuple[tuple[float, float | None], ...] = ()               # (start, length or None for the rest) in seconds
    span_labels: tuple[dict[str, Any], ...] = ()                     # one for each span


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did."""

    recordings: int = 0
    added: Added = field(default_factory=Added)
    flagged: int = 0
    failed: int = 0
    superseded: int = 0                                              # clips whose file has been replaced since
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        counts = f"{self.recordings} recordings: {self.added.new} clips new, {self.added.known} known"
        for count, word in (
            (self.added.changed, "changed"), (self.added.copies, "copies of clips under another path"),
            (self.flagged, "flagged"), (self.superseded, "superseded, their file has changed"),
        ):
            counts += f", {count} {word}" if count else ""
        return counts + (f"; {self.failed} recordings failed (see `tonelake failures`)" if self.failed else "")


def ingest_recordings(
    lake: Lake, recordings: Sequence[Recording], cut: Cut | None, *, dataset: str | None = None,
    workers: int | None = None, progress: Progress = silent_progress,
) -> IngestReport:
    """Cut recordings into clips and add them.  `cut` None: each brings its spans (a manifest)."""
    name = "manifest" if cut is None else str(cut)
    shared = {"cut": name} | ({"dataset": dataset} if dataset else {})
    collector, looks = Collector(lake), FileStamps(lake)
    digests: dict[str, str] = {}
    try:
        with DecoderPool(workers or cores()) as pool:                    # nothing else is to do meanwhile
            for recording, result in _examine(pool, recordings, cut, _known_clips(lake, name), looks, progress):
                if isinstance(result, AudioError):
                    collector.fail(recording.source, str(result))
                    continue
                rows, problems = result
                if rows:
                    digests[recording.source] = rows[0]["digest"]
                collector.add([row | shared for row in rows])
                if problems:
                    collector.fail(recording.source, "; ".join(problems))
                else:
                    collector.succeed(recording.source)
    finally:
        collector.flush()                # also when interrupted: what is decoded is stored
        looks.save()
    tidy(lake.clips.table)
    return IngestReport(
        len(recordings), collector.added, collector.flagged, collector.failed, _mark_superseded(lake, digests)
    )


class Collector:
    """Gathers clips and failures, and commits them every so many."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        self._rows: list[dict[str, Any]] = []
        self._failures: list[Failure] = []
        self._succeeded: list[str] = []
        self.added = Added()
        self.flagged = self.failed = 0

    def add(self, rows: list[dict[str, Any]]) -> None:
        self._rows += rows
        self.flagged += sum(row.get("flag") is not None for row in rows)
        if len(self._rows) >= ROWS_PER_BATCH:
            self.flush()

    def fail(self, source: str, error: str) -> None:
        self._failures.append(Failure(STAGE, source, error))
        self.failed += 1

    def succeed(self, source: str) -> None:
        """A failure that is on record for this source is forgotten."""
        self._succeeded.append(failure_id(STAGE, source))

    def flush(self) -> None:
        """Commit what is waiting."""
        rows, self._rows = self._rows, []
        failures, self._failures = self._failures, []
        succeeded, self._succeeded = self._succeeded, []
        if rows:
            # Whichever row brings a label column, all of them have it.
            self.added += self._lake.clips.add(alike(pl.DataFrame(rows, infer_schema_length=None)))
        self._lake.failures.record(failures)
        self._lake.failures.clear(succeeded)


def alike(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose text is equal where it looks equal, as `store.text.composed`; but a source is a file's own name."""
    lists = [name for name, kind in rows.schema.items() if kind == pl.List(pl.String)]
    return rows.with_columns(
        (cs.string() - cs.by_name("source")).str.normalize("NFC"),
        pl.col(lists).list.eval(pl.element().str.normalize("NFC")),
    )


Rows = tuple[list[dict[str, Any]], list[str]]                        # clips, and what is wrong with other spans


def _examine(
    pool: DecoderPool, recordings: Sequence[Recording], cut: Cut | None, known: dict[str, list[dict[str, Any]]], looks: FileStamps,
    progress: Progress,
) -> Iterator[tuple[Recording, Rows | AudioError]]:
    """Each recording with the rows that come of it.  Only what the lake does not know is decoded, and what does not look as
    it did is read."""
    by_source = {r.source: r for r in recordings}
    unknown = list(by_source)

    def asked(what: str, sources: Iterable[str]) -> Iterator[tuple[Recording, dict[str, Any] | AudioError]]:
        """The workers' replies, and what a file looked like before it was read."""
        seen: dict[str, Look | None] = {}

        def requests() -> Iterator[dict[str, Any]]:
            for source in sources:
                seen[source] = stamp_of(source)
                yield {"do": what, "source": source, "length": _needs_length(by_source[source])}

        for request, reply in pool.map(requests()):
            source = request["source"]
            look = seen.pop(source)
            if not isinstance(reply, AudioError):
                looks.note(source, look, reply["digest"] if what == "digest" else reply["scan"]["digest"])
            yield by_source[source], reply

    if known:
        unknown = []
        same = looks.unchanged(source for source, recording in by_source.items() if not _needs_length(recording))
        for source, digest in same.items():
            rows = _rows_of_known(by_source[source], known.get(digest, []), None)
            if rows is None:
                unknown.append(source)
            else:
                yield by_source[source], (rows, [])
        rest = [source for source in by_source if source not in same]
        for recording, reply in progress(asked("digest", rest), len(rest), "reading"):
            failed = isinstance(reply, AudioError)
            rows = None if failed else _rows_of_known(recording, known.get(reply["digest"], []), reply["length_s"])
            if rows is None:
                unknown.append(recording.source)
            else:
                yield recording, (rows, [])
    for recording, reply in progress(asked("scan", unknown), len(unknown), "decoding"):
        yield recording, reply if isinstance(reply, AudioError) else _rows_of_scan(recording, cut, reply)


def _needs_length(recording: Recording) -> bool:
    """Whether a span goes to the end, so that a known clip has to be compared with the file's length."""
    return any(length_s is None for _, length_s in recording.spans)


def _rows_of_known(
    recording: Recording, stored: list[dict[str, Any]], file_s: float | None
) -> list[dict[str, Any]] | None:
    """Rows of a recording whose clips are in the lake, with the labels of now; None where some are not.

    `file_s`: the file's length by its header, where a span without an end has to be compared.
    """
    if not stored:
        return None
    base = {"track": recording.track, "source": recording.source} | recording.labels
    if not recording.spans:
        return [clip | base for clip in stored]
    by_start: dict[float, list[dict[str, Any]]] = {}
    for clip in stored:
        by_start.setdefault(round(clip["start_s"], 6), []).append(clip)
    rows = []
    for (start_s, length_s), labels in zip(recording.spans, recording.span_labels, strict=True):
        begun = by_start.get(round(start_s, 6), [])
        found = next((clip for clip in begun if _is_long(clip, start_s, length_s, file_s)), None)
        if found is None:
            return None
        rows.append(found | base | labels)
    return rows


def _is_long(clip: dict[str, Any], start_s: float, length_s: float | None, file_s: float | None) -> bool:
    """Whether a clip from `start_s` on is as long as asked for."""
    if length_s is not None:
        return abs(clip["duration_s"] - length_s) < 1e-3
    # The rest of the file; what decodes may differ from what the header says by what an encoder put around it.
    rest_s = min((file_s or 0.0) - start_s, MAX_WHOLE_S)
    return file_s is not None and abs(clip["duration_s"] - rest_s) < 0.1


def _rows_of_scan(recording: Recording, cut: Cut | None, reply: dict[str, Any]) -> Rows:
    scan = Scan(**reply["scan"])
    name = recording.source.rsplit("/", 1)[-1]
    rows, problems = [], []
    for start_s, length_s, labels in _spans(recording, cut, scan.duration_s):
        duration_s = min(scan.duration_s - start_s, MAX_WHOLE_S) if length_s is None else length_s
        if start_s < 0 or duration_s < MIN_SECONDS or start_s + duration_s > scan.duration_s + 0.1:
            problems.append(
                f"{name}: {start_s:g} to {start_s + duration_s:g} s cannot be a clip: the file has {scan.duration_s:.1f} s, "
                f"and a clip needs {MIN_SECONDS:g} s"
            )
            continue
        duration_s = min(duration_s, scan.duration_s - start_s)
        flags = list(scan.flags)
        if is_silent(scan.peaks, start_s, duration_s):
            flags.append("silent")
        if length_s is None and start_s + duration_s < scan.duration_s - 0.1:
            flags.append("first hour only")
        rows.append(
            {
                "clip_id": clip_id(scan.digest, start_s, duration_s), "track": recording.track,
                "source": recording.source, "digest": scan.digest, "start_s": start_s, "duration_s": duration_s,
                "flag": ", ".join(flags) or None,
            }
            | reply["tags"] | recording.labels | labels
        )
    return rows, problems


def _spans(recording: Recording, cut: Cut | None, duration_s: float) -> list[tuple[float, float | None, dict[str, Any]]]:
    """(start, length, labels) of the clips asked for; whole files keep an open end."""
    if cut is None:
        return [(*span, labels) for span, labels in zip(recording.spans, recording.span_labels, strict=True)]
    if cut.seconds is None:
        return [(0.0, None, {})]
    return [(*span, {}) for span in cut.spans(duration_s)]


def _known_clips(lake: Lake, cut: str) -> dict[str, list[dict[str, Any]]]:
    """Clips of the lake that were cut the same way, by the digest of their file."""
    clips = lake.clips.read(["clip_id", "digest", "start_s", "duration_s"], where=f"cut = '{cut}'")
    known: dict[str, list[dict[str, Any]]] = {}
    for clip in clips.iter_rows(named=True):
        known.setdefault(clip["digest"], []).append(clip)
    return known


def _mark_superseded(lake: Lake, digests: dict[str, str]) -> int:
    """Flag the clips of files that have been replaced by others of the same name; the number flagged."""
    now = pl.DataFrame({"source": list(digests), "now": list(digests.values())}, schema={"source": pl.String, "now": pl.String})
    clips = lake.clips.read(["clip_id", "source", "digest", "flag"])
    old = clips.join(now, on="source").filter(pl.col("digest") != pl.col("now"), pl.col("flag").ne_missing("superseded"))
    lake.clips.set_flag(old["clip_id"].to_list(), "superseded")
    return len(old)
