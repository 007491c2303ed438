"""Add recordings to the lake: identify, scan, cut into clips, store.  A recording that fails becomes a recorded failure.

A file whose stamp is unchanged is not read; one whose recording is known is not decoded (`ingest.recording_hash`); only the
others are scanned and cut.  Afterwards clips follow their files: names, tags and state (`store.sync`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tonelake.ingest.collector import Collector
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError
from tonelake.ingest.file_stamps import Stamp, stamp_of
from tonelake.ingest.file_table import FileTable
from tonelake.ingest.known_clips import KnownClips, labelled_columns
from tonelake.ingest.report import IngestReport
from tonelake.ingest.scan import CHANNELS_CANCEL, MIN_SECONDS, Scan, clip_id
from tonelake.ingest.segment import MAX_WHOLE_S, Cut, is_silent
from tonelake.ingest.sources import has_entries, sources_below, to_path
from tonelake.store import Lake, cores, sync_clips, tidy

MANIFEST = "manifest"                    # rule by which clips at given spans are cut


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One source to be cut into clips, by a rule or at given spans."""

    source: str
    track: str
    labels: dict[str, Any] = field(default_factory=dict)
    spans: tuple[tuple[float, float | None], ...] = ()               # (start, length; None: to the end) in seconds
    span_labels: tuple[dict[str, Any], ...] = ()                     # one for each span
    named_by_path: bool = False          # `track` is the path below a folder, so that it follows the file and is kept unique
    empties: bool = False                # a label that is None empties the column; else it says nothing
    identity: str | None = None          # of derived audio; None: the hash of the file's audio
    stamp: Stamp | None = None           # of a song of a music server, where `stamp_of` knows none
    tags: dict[str, Any] = field(default_factory=dict)               # fill the columns that the file's own tags leave empty

    @property
    def needs_length(self) -> bool:
        """Whether a span goes to the end, so that a known clip has to be compared with the file's length."""
        return any(length_s is None for _, length_s in self.spans)


Facts = dict[str, Any]                   # of a file: recording, digest, tags, length_s
# Yields the sources that can be read now, downloaded where need be, in order; calls (source, reason) for each other one.
Fetch = Callable[[Sequence[str], Callable[[str, str], None]], Iterator[str]]


def ingest_recordings(
    lake: Lake, recordings: Sequence[Recording], cut: Cut | None, *, dataset: str | None = None,
    workers: int | None = None, root: Path | None = None, checked: Collection[str] = (), gone: Collection[str] = (),
    fetch: Fetch | None = None,
) -> IngestReport:
    """Cut recordings into clips and add them.  `cut` None: at the spans of each recording (a manifest).

    `root`: the folder that `recordings` are all audio files of.  Known files below it that do not exist are marked missing, and
    so are those of `checked`, further sources, and all of `gone`.
    `fetch`: brings songs of a music server to this disk while earlier ones are decoded.
    Raises LakeError if the lake has an older format, so that it has to be upgraded first.
    """
    lake.check_writable()
    ingest = _Ingest(lake, recordings, cut, dataset, root, checked, gone, fetch)
    try:
        with DecoderPool(workers or cores()) as pool:                    # every core: no encoder runs meanwhile
            unknown = ingest.examine(pool)
            ingest.update_known()
            ingest.scan(pool, unknown)
    finally:
        ingest.collector.flush()         # also when interrupted: keep what is decoded
    return ingest.finish()


class _Ingest:
    """One run of `ingest_recordings`."""

    def __init__(
        self, lake: Lake, recordings: Sequence[Recording], cut: Cut | None, dataset: str | None, root: Path | None,
        checked: Collection[str] = (), known_gone: Collection[str] = (), fetch: Fetch | None = None,
    ) -> None:
        self.lake, self.cut, self.root, self.checked = lake, cut, root, checked
        self.known_gone, self.fetch = known_gone, fetch
        self.by_source = {recording.source: recording for recording in recordings}
        self.count = len(recordings)
        self.files = FileTable(lake)
        self.known = KnownClips(lake, str(cut.complete()) if cut is not None else MANIFEST, recordings)
        self.collector = Collector(lake, self.files)
        self.shared = {"cut": self.known.cut} | ({"dataset": dataset} if dataset else {})
        self.failed: list[str] = []
        self.gone: list[str] = []
        self.is_first = not len(self.files) and not lake.clips.count()

    def examine(self, pool: DecoderPool) -> list[str]:
        """Identify the files, reading only those that changed; returns the sources that have to be scanned."""
        if self.is_first:
            return list(self.by_source)
        lengths: dict[str, float | None] = {}
        stamps = {source: self._stamp(source) for source in self.by_source}
        changed: list[str] = []
        served: list[str] = []           # are downloaded once, for the scan, which identifies them too
        for source, recording in self.by_source.items():
            found = None if recording.needs_length else self.files.unchanged(source, stamps[source])
            if found is None:
                (changed if recording.stamp is None else served).append(source)
            else:
                self.known.recording_of[source] = found
                self.files.note_present(source, recording.track if recording.named_by_path else None)
        requests = ({"do": "identify", "source": source, "length": self.by_source[source].needs_length} for source in changed)
        for request, reply in self.lake.progress(pool.map(requests), len(changed), "reading"):
            source = request["source"]
            if isinstance(reply, AudioError):
                self._fail(source, str(reply))
            else:
                self._note_read(source, stamps[source], reply)
                lengths[source] = reply["length_s"]
        self._mark_gone()
        self.files.flush()
        here = [source for source in self.by_source if source in self.known.recording_of]
        return [source for source in here if not self._is_known(source, lengths)] + served

    def _is_known(self, source: str, lengths: dict[str, float | None]) -> bool:
        """Whether all clips of a file are in the lake; if so, its labels are kept for `update_known`."""
        recording, identity = self.by_source[source], self.known.recording_of[source]
        if self.cut is None:
            known = self.known.add_spans(recording, identity, lengths.get(source), self.shared)
        else:
            known = identity in self._complete
            if known:
                self.known.add(recording, identity, self.shared)
        if known:
            self.collector.succeed(source)
        return known

    @cached_property
    def _complete(self) -> set[str]:
        """Recordings all of whose clips by the rule of this run, or by one with more clips, are in the lake."""
        return self.files.cut_recordings({str(self.cut), self.known.cut})

    def update_known(self) -> None:
        """Have known clips follow their files, and store the labels of this run."""
        if self.files.changed_sources:
            self.known.note(sync_clips(self.lake))
        self.known.store_labels(self.collector)

    def scan(self, pool: DecoderPool, sources: list[str]) -> None:
        """Decode files, cut them and add their clips."""
        stamps: dict[str, Stamp | None] = {}

        def requests() -> Iterator[dict[str, Any]]:
            for source in self.fetch(sources, self._fail) if self.fetch is not None else sources:
                stamps[source] = self._stamp(source)
                yield {"do": "scan", "source": source, "recording": self.known.recording_of.get(source)}

        for request, reply in self.lake.progress(pool.map(requests()), len(sources), "decoding"):
            source = request["source"]
            stamp = stamps.pop(source)
            if isinstance(reply, AudioError):
                self._fail(source, str(reply))
                continue
            recording = self.by_source[source]
            reply["tags"] = completed(reply["tags"], recording.tags)
            if request["recording"] is None:
                self._note_read(source, stamp, reply | {"digest": reply["scan"]["digest"]})
            identity = self.known.recording_of[source]
            rows, problems = _rows_of_scan(recording, self.cut, reply, identity)
            self.collector.add(self.known.new_rows(recording, identity, [row | self.shared for row in rows]))
            if problems:
                self._fail(source, "; ".join(problems))
            elif self.cut is not None:
                self.files.note_cut(source, str(self.cut))
                self.collector.succeed(source)
            else:
                self.collector.succeed(source)

    def _mark_gone(self) -> None:
        """Mark known files that do not exist as missing: below the folder, asked for, or with audio that moved.

        None if the folder itself went away during the ingest, with the drive that it is on.
        """
        if self.root is not None and not has_entries(self.root):
            return
        candidates = {*self.failed, *self.checked, *self.known_gone}
        candidates |= set(self.files.of_recordings(set(self.known.recording_of.values())))
        if self.root is not None:
            for prefix in sources_below(self.root):
                candidates |= set(self.files.below(prefix))
        self.gone = self.files.note_gone(sorted(candidates - (set(self.by_source) - set(self.failed))), self.known_gone)

    def finish(self) -> IngestReport:
        """Bring all clips in step with their files, and count."""
        self.known.store_labels(self.collector)
        self.known.note(sync_clips(self.lake))
        counts = self.known.count(self.collector, set(self.failed))
        tidy(self.lake.clips.table)
        tidy(self.lake.paths.table)
        here = self.files.present_recordings() if self.gone else set()
        lost = [source for source in self.gone if (self.files.row(source) or {}).get("recording") not in here]  # not moved
        return IngestReport(
            recordings=self.count, added=counts.added, flagged=self.collector.flagged, failed=len(self.failed),
            superseded=self.known.superseded, missing=len(lost), copies=counts.copies,
            new=counts.new, changed=counts.changed,
            known=self.count - len(self.failed) - counts.copies - counts.new - counts.changed,
            notes=self.collector.copies.notes(),
        )

    def _stamp(self, source: str) -> Stamp | None:
        return self.by_source[source].stamp or stamp_of(source)

    def _fail(self, source: str, error: str) -> None:
        recording = self.by_source[source]
        if recording.stamp is not None:  # its file in the cache is named by a hash
            error = error.replace(to_path(source).name, recording.track.rsplit("/", 1)[-1])
        self.collector.fail(source, error)
        self.failed.append(source)

    def _note_read(self, source: str, stamp: Stamp | None, facts: Facts) -> str:
        """Note what was read from a file, and return the identity of its recording."""
        recording = self.by_source[source]
        identity = recording.identity or facts["recording"]
        self.known.adopt(identity, facts["digest"], facts["tags"])
        self.known.recording_of[source] = identity
        self.files.note_read(
            source, stamp, identity, facts["digest"], facts["tags"], recording.track if recording.named_by_path else None
        )
        return identity


def completed(tags: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Tags of a file, and `others` for those that it lacks.  Its artists and their first belong together.

    >>> completed({"title": "So What"}, {"title": "?", "artist": "Miles Davis", "artists": ["Miles Davis"], "year": None})
    {'title': 'So What', 'artist': 'Miles Davis', 'artists': ['Miles Davis']}
    """
    own = {name: value for name, value in tags.items() if value is not None}
    if "artist" in own or "artists" in own:
        others = {name: value for name, value in others.items() if name not in ("artist", "artists")}
    return own | {name: value for name, value in others.items() if value is not None and name not in own}


def _rows_of_scan(
    recording: Recording, cut: Cut | None, reply: dict[str, Any], identity: str
) -> tuple[list[dict[str, Any]], list[str]]:
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
        given = {name: value for name, value in (recording.labels | labels).items() if value is not None}
        rows.append(
            {
                "clip_id": clip_id(identity, start_s, duration_s), "track": recording.track, "recording": identity,
                "source": recording.source, "digest": scan.digest, "start_s": start_s, "duration_s": duration_s,
                "flag": ", ".join(flags) or None, "labelled": labelled_columns(given, recording.named_by_path),
            }
            | reply["tags"] | given
        )
    return rows, problems


def _spans(recording: Recording, cut: Cut | None, duration_s: float) -> list[tuple[float, float | None, dict[str, Any]]]:
    """(start, length, labels) of the requested clips; whole files have length None."""
    if cut is None:
        return [(*span, labels) for span, labels in zip(recording.spans, recording.span_labels, strict=True)]
    if cut.seconds is None:
        return [(0.0, None, {})]
    return [(*span, {}) for span in cut.spans(duration_s)]
