"""Bring the events of a lake in step with label files: find them, match them to recordings, read and store them.

A label file that was changed replaces its events; equal ones are not written again.  Events of a file that is gone are kept, as
clips are: `forget` deletes them with their recording.  A file that cannot be read, or fits several recordings, is a recorded
failure of stage `events`.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import polars as pl

from tonelake.ingest.audio_files import audio_files, clean_name
from tonelake.ingest.chorale_scores import Score
from tonelake.ingest.chorale_sources import SCHEME
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.errors import AudioError
from tonelake.ingest.events.chorale_events import recording_events
from tonelake.ingest.events.dataset_tables import TABLE, listed_matches
from tonelake.ingest.events.formats import FORMATS, SUFFIXES, TEXT_SUFFIXES, format_of
from tonelake.ingest.events.label_events import LabelEvents, described
from tonelake.ingest.events.matching import PLACES, AudioFile, Match, match_labels
from tonelake.ingest.file_stamps import is_gone
from tonelake.ingest.sources import is_file_source, to_path, to_source
from tonelake.store import EVENT_KINDS, Failure, InputError, Lake, check_kinds, cores, failure_id, tidy

STAGE = "events"
LABEL_SUFFIXES = frozenset(SUFFIXES) | TEXT_SUFFIXES
ROWS_PER_WRITE = 200_000
UNMATCHED = "belong to no recording of the lake"
SHOWN = 3                                # files named in a note


@dataclass(frozen=True, kw_only=True)
class EventReport:
    """Counts returned by `ingest_events`, and notes for the user."""

    files: int                           # label files, or pieces of chorales, whose events are stored
    recordings: int
    events: dict[str, int]               # by kind
    changed: bool                        # whether anything was written
    unmatched: int                       # label files without a recording
    failed: int
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.events[kind]:,} {kind}" for kind in EVENT_KINDS if self.events.get(kind))
        counts = f"{sum(self.events.values()):,} events ({kinds or 'none'}) of {self.recordings:,} recordings"
        counts += f" from {self.files:,} label files{'' if self.changed else ', all known'}"
        return counts + (f"; {self.failed:,} files failed (see `tonelake failures --stage events`)" if self.failed else "")


def ingest_events(
    lake: Lake, folder: str | Path | None = None, *, labels: str | Path | None = None, kinds: Sequence[str] = (),
    sustain: bool = True, workers: int | None = None,
) -> EventReport:
    """Store the notes, onsets, beats, chords, keys and sections of label files as events of the recordings that they belong to.

    `folder`: the folder of the audio, which is in the lake; None: all recordings of the lake, its chorales included.
    `labels`: the folder of the label files; default: `folder`, or else the folders of the recordings.
    `kinds`: only these kinds; with one, text files whose name does not say what they hold are of that kind.
    `sustain`: notes of MIDI files last as long as the pedal holds them.
    Files are recognised by `ingest.events.formats` and matched by `ingest.events.matching`.

    Raises InputError if a folder does not exist, no audio of the lake is in it, or no label file belongs to a recording.
    """
    check_kinds(kinds)
    lake.check_writable()
    root = folder_of(folder, "FOLDER") if folder is not None else None
    label_root = folder_of(labels, "--labels") if labels is not None else None
    sync = _Sync(lake, kinds=tuple(kinds), sustain=sustain)
    audio = audio_of_lake(lake, root)
    if root is not None and not audio:
        raise InputError(f"{root}: the lake has no audio of this folder. Bring it in first with `tonelake ingest folder`")
    with DecoderPool(workers or cores()) as pool:
        if audio:
            sync.read_labels(pool, audio, root, label_root)
        if root is None and label_root is None:
            sync.read_chorales(pool)
    return sync.finish()


def folder_of(given: str | Path, name: str) -> Path:
    """An absolute folder.  Raises InputError, with the option's `name`, if it is none."""
    path = Path(os.path.abspath(Path(given).expanduser()))           # noqa: PTH100 - keeps links, unlike Path.resolve
    if not path.is_dir():
        raise InputError(f"{name} {path}: is not a folder. Name an existing one")
    return path


def audio_of_lake(lake: Lake, root: Path | None) -> list[AudioFile]:
    """The present audio files of a lake, below `root` if it is given, sorted by source."""
    files = lake.paths.read(["source", "recording", "missing_since"]).filter(
        pl.col("missing_since").is_null() & pl.col("recording").is_not_null()
    )
    tracks = dict(lake.clips.read(["recording", "track"]).drop_nulls().unique("recording").iter_rows())
    found = []
    for source, recording in files.sort("source").select("source", "recording").iter_rows():
        path = to_path(source)
        if is_file_source(source) and recording in tracks and (root is None or path.is_relative_to(root)):
            found.append(AudioFile(source=source, path=path, recording=recording, track=str(tracks[recording])))
    return found


def label_files(root: Path, kinds: Sequence[str]) -> dict[Path, str]:
    """Label files below a folder with their formats, sorted by path within each folder."""
    found = {}
    for path in audio_files(root, LABEL_SUFFIXES):
        name = format_of(PurePath(root.name) / path.relative_to(root), kinds or None)
        if name is not None and path.is_file() and (not kinds or set(kinds) & set(FORMATS[name].kinds)):
            found[path] = name
    return found


@dataclass
class _Sync:
    """One run of `ingest_events`."""

    lake: Lake
    kinds: tuple[str, ...]
    sustain: bool
    rows: list[pl.DataFrame] = field(default_factory=list)
    waiting: int = 0                     # rows that are not stored yet
    counts: Counter[str] = field(default_factory=Counter)            # events by kind
    repairs: Counter[str] = field(default_factory=Counter)
    recordings: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    found_files: int = 0
    unmatched: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    succeeded: list[str] = field(default_factory=list)
    taken: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)     # recording, source, kind: file, hash
    covered: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))      # kinds that were read
    rivals: list[str] = field(default_factory=list)
    recorded: int = 0                    # failures that are stored

    def __post_init__(self) -> None:
        self.version = self.lake.events.table.version

    def read_labels(self, pool: DecoderPool, audio: list[AudioFile], root: Path | None, label_root: Path | None) -> None:
        """Find label files, match them to audio files, read them and store their events."""
        common = root or Path(os.path.commonpath([file.path.parent for file in audio]))
        searched = [label_root] if label_root is not None else [root] if root is not None else outermost(audio)
        labels: dict[Path, str] = {}
        matches: list[Match] = []
        listed: set[Path] = set()
        for place in searched:
            labels |= label_files(place, self.kinds)
            if not self.kinds or {"note", "onset"} & set(self.kinds):
                tables = listed_matches(place, audio)
                matches += tables.found
                listed |= tables.files
                for path, problem in tables.problems:
                    self.fail(path, problem)
        labels = {path: name for path, name in labels.items() if path not in listed}
        found = match_labels(audio, labels, common, label_root or common)
        for path, problem in found.ambiguous:
            self.fail(path, problem)
        self.unmatched = found.unmatched
        self.found_files = len(labels) + len(listed)
        matches += found.found
        if not matches and not self.failures and (root is not None or label_root is not None):
            where = label_root or root
            raise InputError(
                f"{where}: none of its {self.found_files:,} label files belongs to one of the {len(audio):,} audio files. "
                "See docs/events.md for the formats, and name the folder of the labels with --labels"
            )
        self.read(pool, matches)

    def read(self, pool: DecoderPool, matches: Sequence[Match]) -> None:
        """Read matched files, those found at the closest places first."""
        ends = dict(
            self.lake.clips.read(["recording", "start_s", "duration_s"]).drop_nulls("recording").group_by("recording").agg(
                (pl.col("start_s") + pl.col("duration_s")).max()
            ).iter_rows()
        )
        order = {place: number for number, place in enumerate((TABLE, *PLACES))}
        pairs = sorted(((match, audio) for match in matches for audio in match.audio), key=lambda pair: order[pair[0].place])
        requests = [self.request(match, audio, ends.get(audio.recording, 0.0)) for match, audio in pairs]
        replies = self.lake.progress(pool.map(requests), len(requests), "reading labels")
        try:
            for (match, audio), (_, reply) in zip(pairs, replies, strict=True):
                if isinstance(reply, AudioError):
                    self.fail(match.parts[0].path, str(reply))
                else:
                    self.add(match, audio.recording, LabelEvents.from_dict(reply))
        finally:
            self.flush()                 # also when interrupted: keep what is read

    def request(self, match: Match, audio: AudioFile, end_s: float) -> dict[str, Any]:
        parts = [{"source": to_source(part.path), "value": part.value, "is_drums": part.is_drums} for part in match.parts]
        return {
            "do": "events", "source": parts[0]["source"], "parts": parts, "format": match.format, "sustain": self.sustain,
            "kinds": list(self.kinds) or None, "audio": audio.source, "end_s": end_s,
        }

    def add(self, match: Match, recording: str, found: LabelEvents) -> None:
        """Keep the events of a file, without kinds that a file found earlier has."""
        kept, source = [], FORMATS[match.format].source
        for kind in found.events["kind"].unique(maintain_order=True):
            digest = int(found.events.filter(kind=kind).hash_rows().sum())
            key = (recording, source, kind)
            if key not in self.taken:
                self.taken[key] = match.name, digest
                kept.append(kind)
            elif self.taken[key][1] != digest:
                self.rivals.append(f"{kind} of {match.name}, since {self.taken[key][0]} has some")
        events = found.events.filter(pl.col("kind").is_in(kept))
        if len(events):
            self.put(events.with_columns(recording=pl.lit(recording), source=pl.lit(source)))
        wanted = set(self.kinds) or set(EVENT_KINDS)
        self.covered[recording, source] |= (set(FORMATS[match.format].kinds) if match.format != "lab" else set(kept)) & wanted
        self.repairs += found.repairs
        sources = [to_source(part.path) for part in match.parts]
        self.files.update(sources if len(events) else ())
        self.succeeded += [failure_id(STAGE, source) for source in sources]

    def read_chorales(self, pool: DecoderPool) -> None:
        """Store the events of the chorales of the lake."""
        pieces = self.lake.clips.read(["source", "recording"], where=f"source LIKE '{SCHEME}%'").unique(maintain_order=True)
        requests = [{"do": "parse", "source": source} for source in pieces["source"]]
        replies = self.lake.progress(pool.map(requests), len(requests), "reading scores") if requests else ()
        for (_, recording), (request, reply) in zip(pieces.iter_rows(), replies, strict=True):
            if isinstance(reply, AudioError):
                self.fail_source(request["source"], str(reply))
                continue
            events = recording_events(Score.from_dict(reply["score"]), recording)
            self.put(events.filter(pl.col("kind").is_in(list(self.kinds))) if self.kinds else events)
            self.files.add(request["source"])
            self.succeeded.append(failure_id(STAGE, request["source"]))
        self.flush()

    def put(self, events: pl.DataFrame) -> None:
        """Buffer events; store them if there are many."""
        self.rows.append(events)
        self.waiting += len(events)
        self.counts.update(dict(events.group_by("kind").len().iter_rows()))
        self.recordings |= set(events["recording"])
        if self.waiting >= ROWS_PER_WRITE:
            self.flush()

    def flush(self) -> None:
        """Store what is buffered, and the failures."""
        rows, self.rows, self.waiting = self.rows, [], 0
        if rows:
            self.lake.events.replace(pl.concat(rows))
        self.lake.failures.record(self.failures[self.recorded :])
        self.lake.failures.clear(self.succeeded)
        self.recorded, self.succeeded = len(self.failures), []

    def fail(self, path: Path, error: str) -> None:
        self.fail_source(to_source(path), error)

    def fail_source(self, source: str, error: str) -> None:
        self.failures.append(Failure(STAGE, source, error))

    def finish(self) -> EventReport:
        """Delete events that files no longer hold, and count."""
        self.flush()
        gone = [
            (recording, source, kind) for (recording, source), kinds in self.covered.items() for kind in sorted(kinds)
            if (recording, source, kind) not in self.taken
        ]
        if gone:
            also = pl.DataFrame(gone, schema=["recording", "source", "kind"], orient="row")
            stored = self.lake.events.groups(kinds=also["kind"].unique().to_list())
            also = also.join(stored, on=["recording", "source", "kind"], how="semi")
            self.lake.events.replace(self.lake.events.read(recordings=[]), also=also)
        tidy(self.lake.events.table)
        earlier = self.lake.failures.read(STAGE)["source"]
        self.lake.failures.clear([failure_id(STAGE, source) for source in earlier if is_gone(source)])
        failed = len({failure.failure_id for failure in self.failures})
        return EventReport(
            files=len(self.files), recordings=len(self.recordings), events=dict(self.counts), unmatched=len(self.unmatched),
            changed=self.lake.events.table.version != self.version, failed=failed, notes=tuple(self.notes()),
        )

    def notes(self) -> Iterator[str]:
        """Yield sentences for the report: files and events that were left out, and repairs."""
        if self.unmatched:
            names = ", ".join(clean_name(path.name) for path in self.unmatched[:SHOWN])
            more = ", …" if len(self.unmatched) > SHOWN else ""
            count = f"{len(self.unmatched):,} of {self.found_files:,} label files"
            yield f"{count} {UNMATCHED}: {names}{more}"
        if self.rivals:
            more = ", …" if len(self.rivals) > SHOWN else ""
            yield f"left out events that another file has as well: {'; '.join(self.rivals[:SHOWN])}{more}"
        if self.repairs:
            yield f"repaired: {described(self.repairs)}"


def outermost(audio: Sequence[AudioFile]) -> list[Path]:
    """The folders of audio files, without those inside another one."""
    kept: list[Path] = []
    for folder in sorted({file.path.parent for file in audio}):
        if not kept or not folder.is_relative_to(kept[-1]):
            kept.append(folder)
    return [folder for folder in kept if folder.is_dir()]
