"""Add recordings to the lake: hash, scan, cut into clips, store.  A recording that fails becomes a recorded failure.

A file whose content is known is not decoded again, and one whose size and times are unchanged is not even read
(`ingest.file_stamps`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tonelake.ingest.collector import Collector
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError
from tonelake.ingest.file_stamps import FileStamps, Stamp, stamp_of
from tonelake.ingest.report import IngestReport
from tonelake.ingest.scan import CHANNELS_CANCEL, MIN_SECONDS, Scan, clip_id
from tonelake.ingest.segment import MAX_WHOLE_S, Cut, is_silent
from tonelake.store import Lake, cores, tidy


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One source to be cut into clips, by a rule or at given spans."""

    source: str
    track: str
    labels: dict[str, Any] = field(default_factory=dict)
    spans: tuple[tuple[float, float | None], ...] = ()               # (start, length; None: to the end) in seconds
    span_labels: tuple[dict[str, Any], ...] = ()                     # one for each span


Rows = tuple[list[dict[str, Any]], list[str]]                        # rows of clips; problems of spans that are not clips


def ingest_recordings(
    lake: Lake, recordings: Sequence[Recording], cut: Cut | None, *, dataset: str | None = None,
    workers: int | None = None,
) -> IngestReport:
    """Cut recordings into clips and add them.  `cut` None: at the spans of each recording (a manifest)."""
    name = "manifest" if cut is None else str(cut)
    shared = {"cut": name} | ({"dataset": dataset} if dataset else {})
    collector, stamps = Collector(lake), FileStamps(lake)
    digests: dict[str, str] = {}
    try:
        with DecoderPool(workers or cores()) as pool:                    # every core: no encoder runs meanwhile
            for recording, result in _examine(lake, pool, recordings, cut, name, stamps):
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
        collector.flush()                # also when interrupted: keep what is decoded
        stamps.save()
    tidy(lake.clips.table)
    return IngestReport(
        recordings=len(recordings), added=collector.added, flagged=collector.flagged, failed=collector.failed,
        superseded=mark_superseded(lake, digests), copies=len(collector.copies), notes=collector.copies.notes(),
    )


def _examine(
    lake: Lake, pool: DecoderPool, recordings: Sequence[Recording], cut: Cut | None, cut_name: str, stamps: FileStamps
) -> Iterator[tuple[Recording, Rows | AudioError]]:
    """Yield each recording with its rows.  Decodes only content that the lake lacks; reads only files that changed."""
    known = _known_clips(lake, cut_name)
    by_source = {r.source: r for r in recordings}
    unknown = list(by_source)

    def ask(task: str, sources: Iterable[str]) -> Iterator[tuple[Recording, dict[str, Any] | AudioError]]:
        """Replies of the decoders.  Notes each file's digest with its stamp from before it was read."""
        before: dict[str, Stamp | None] = {}

        def requests() -> Iterator[dict[str, Any]]:
            for source in sources:
                before[source] = stamp_of(source)
                yield {"do": task, "source": source, "length": _needs_length(by_source[source])}

        for request, reply in pool.map(requests()):
            source = request["source"]
            stamp = before.pop(source)
            if not isinstance(reply, AudioError):
                stamps.note(source, stamp, reply["digest"] if task == "digest" else reply["scan"]["digest"])
            yield by_source[source], reply

    if known:
        unknown = []
        unchanged = stamps.unchanged(source for source, recording in by_source.items() if not _needs_length(recording))
        for source, digest in unchanged.items():
            rows = _rows_of_known(by_source[source], known.get(digest, []), None)
            if rows is None:
                unknown.append(source)
            else:
                yield by_source[source], (rows, [])
        changed = [source for source in by_source if source not in unchanged]
        for recording, reply in lake.progress(ask("digest", changed), len(changed), "reading"):
            failed = isinstance(reply, AudioError)
            rows = None if failed else _rows_of_known(recording, known.get(reply["digest"], []), reply["length_s"])
            if rows is None:
                unknown.append(recording.source)
            else:
                yield recording, (rows, [])
    for recording, reply in lake.progress(ask("scan", unknown), len(unknown), "decoding"):
        yield recording, reply if isinstance(reply, AudioError) else _rows_of_scan(recording, cut, reply)


def _needs_length(recording: Recording) -> bool:
    """Whether a span goes to the end, so that a known clip has to be compared with the file's length."""
    return any(length_s is None for _, length_s in recording.spans)


def _rows_of_known(
    recording: Recording, stored: list[dict[str, Any]], file_s: float | None
) -> list[dict[str, Any]] | None:
    """Rows of a recording whose clips are all in the lake, with its current labels; None if some are not.

    `file_s`: the file's length by its header, needed for a span without an end.
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
        same_start = by_start.get(round(start_s, 6), [])
        match = next((clip for clip in same_start if _has_length(clip, start_s, length_s, file_s)), None)
        if match is None:
            return None
        rows.append(match | base | labels)
    return rows


def _has_length(clip: dict[str, Any], start_s: float, length_s: float | None, file_s: float | None) -> bool:
    """Whether a clip that starts at `start_s` has the requested length; None: to the end of the file."""
    if length_s is not None:
        return abs(clip["duration_s"] - length_s) < 1e-3
    # Decoded length and header may differ by the padding that an encoder added.
    rest_s = min((file_s or 0.0) - start_s, MAX_WHOLE_S)
    return file_s is not None and abs(clip["duration_s"] - rest_s) < 0.1


def _rows_of_scan(recording: Recording, cut: Cut | None, reply: dict[str, Any]) -> Rows:
    """Rows of a recording that was just scanned, and problems of spans that cannot be clips."""
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
        elif CHANNELS_CANCEL not in flags and scan.cancels(start_s, duration_s):
            flags.append(CHANNELS_CANCEL)
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
    """(start, length, labels) of the requested clips; whole files have length None."""
    if cut is None:
        return [(*span, labels) for span, labels in zip(recording.spans, recording.span_labels, strict=True)]
    if cut.seconds is None:
        return [(0.0, None, {})]
    return [(*span, {}) for span in cut.spans(duration_s)]


def _known_clips(lake: Lake, cut: str) -> dict[str, list[dict[str, Any]]]:
    """Clips of the lake that were cut by the same rule, by the digest of their file."""
    clips = lake.clips.read(["clip_id", "digest", "start_s", "duration_s"], where=f"cut = '{cut}'")
    known: dict[str, list[dict[str, Any]]] = {}
    for clip in clips.iter_rows(named=True):
        known.setdefault(clip["digest"], []).append(clip)
    return known


def mark_superseded(lake: Lake, digests: dict[str, str]) -> int:
    """Flag the clips of sources whose content has been replaced; returns how many.  `digests`: content by source, as it is."""
    now = pl.DataFrame({"source": list(digests), "now": list(digests.values())}, schema={"source": pl.String, "now": pl.String})
    clips = lake.clips.read(["clip_id", "source", "digest", "flag"])
    old = clips.join(now, on="source").filter(pl.col("digest") != pl.col("now"), pl.col("flag").ne_missing("superseded"))
    lake.clips.set_flag(old["clip_id"].to_list(), "superseded")
    return len(old)
