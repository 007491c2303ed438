"""Clips that the lake has already, in an ingest: find them by recording, give them this run's labels, and count them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import polars as pl

from tonelake.ingest.recording_hash import recording_of_bytes
from tonelake.ingest.segment import MAX_WHOLE_S
from tonelake.ingest.text_forms import normalized
from tonelake.store import TAG_COLUMNS, Added, Lake, Synced

if TYPE_CHECKING:
    from tonelake.ingest.collector import Collector
    from tonelake.ingest.recordings import Recording

COLUMNS = ("clip_id", "recording", "source", "start_s", "duration_s", "cut")
FILLED_BY_LABELS = (*TAG_COLUMNS, "track")               # columns of which `labelled` records that labels filled them
PYTHON_TYPES = {"artists": list, "track_number": int, "year": int}   # of tags; the others are text

Span = tuple[float, float | None]        # start and length in seconds; None: to the end of the file


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of an ingest: of clips, and of files by what happened to them."""

    added: Added
    new: int
    changed: int
    copies: int


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """Labels for the stored clips of one file."""

    source: str
    recording: str
    labels: dict[str, Any]               # None: the label is emptied
    clips: tuple[tuple[str, dict[str, Any]], ...] | None = None      # (id, labels of its own); None: all clips by the rule


class KnownClips:
    """Clips of the lake at the start of an ingest, and what the run does to them."""

    def __init__(self, lake: Lake, cut: str, recordings: Iterable[Recording]) -> None:
        """`cut`: the rule by which this run cuts."""
        self._lake, self.cut = lake, cut
        self.recording_of: dict[str, str] = {}                       # by source, of the files of this run
        self.superseded = 0
        self._tags = usable_tags(lake, recordings)
        self._clips = lake.clips.read(COLUMNS, superseded=True)
        self._recordings = set(self._clips["recording"].drop_nulls())
        self._pending: list[_Pending] = []
        self._met: list[pl.DataFrame] = []                           # path, clip_id, is_copy: of known clips of this run
        self._changed: list[pl.Series] = []
        self._new_sources: set[str] = set()

    @cached_property
    def _by_recording(self) -> dict[str, list[tuple[str, float, float]]]:
        """(clip id, start, length) of the clips of each recording."""
        found: dict[str, list[tuple[str, float, float]]] = {}
        for clip, recording, start_s, duration_s in self._clips.select(
            "clip_id", "recording", "start_s", "duration_s"
        ).iter_rows():
            if recording is not None:
                found.setdefault(recording, []).append((clip, start_s, duration_s))
        return found

    def adopt(self, recording: str, digest: str, tags: dict[str, Any]) -> None:
        """Give clips that are known by their file's bytes only the identity of their recording.

        They are from a lake of format 1 whose files were not there when it was upgraded.  Labels that equal the tags are tags.
        """
        by_bytes = recording_of_bytes(digest)
        if recording == by_bytes or recording in self._recordings or by_bytes not in self._recordings:
            return
        ids = self._clips.filter(pl.col("recording") == by_bytes)["clip_id"].to_list()
        clips = self._lake.clips.take(ids, ["labelled", "title", "artist", "album"])
        tagged = [name for name in ("title", "artist", "album") if tags.get(name) is not None]
        labelled = clips["labelled"].to_list()
        for row, names in enumerate(labelled):
            kept = [name for name in names or () if name not in tagged or clips[name][row] != tags[name]]
            labelled[row] = kept or None
        self._lake.clips.update(pl.DataFrame(
            {"clip_id": ids, "recording": [recording] * len(ids), "labelled": labelled},
            schema_overrides={"labelled": pl.List(pl.String)},
        ))
        files = self._lake.paths.read(where=f"recording = '{by_bytes}'")
        self._lake.paths.put(files.with_columns(recording=pl.lit(recording)))
        self._clips = self._clips.with_columns(
            recording=pl.when(pl.col("recording") == by_bytes).then(pl.lit(recording)).otherwise("recording")
        )
        self._recordings = self._recordings - {by_bytes} | {recording}
        self.__dict__.pop("_by_recording", None)

    def add(self, recording: Recording, identity: str, shared: dict[str, Any]) -> None:
        """Count a file whose clips are all in the lake, and keep its labels for `store_labels`."""
        self._pending.append(_Pending(
            source=recording.source, recording=identity, labels=_labels(recording, recording.labels, shared)
        ))

    def add_spans(
        self, recording: Recording, identity: str, file_s: float | None, shared: dict[str, Any]
    ) -> bool:
        """As above for a file with spans; False if the lake lacks a clip of one of them.

        `file_s`: the file's length by its header, needed for a span without an end.
        """
        stored = self._by_recording.get(identity, [])
        found: list[tuple[str, dict[str, Any]]] = []
        for span, labels in zip(recording.spans, recording.span_labels, strict=True):
            match = next((clip for clip, *of_clip in stored if _is_span(of_clip, span, file_s)), None)
            if match is None:
                return False
            found.append((match, _labels(recording, recording.labels | labels, shared)))
        self._pending.append(_Pending(source=recording.source, recording=identity, labels={}, clips=tuple(found)))
        return True

    def new_rows(self, recording: Recording, identity: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of clips that the lake lacks; the labels of the others are kept for `store_labels`."""
        stored = {(_micro(start_s), _micro(length_s)): clip for clip, start_s, length_s in self._by_recording.get(identity, ())}
        fresh, known = [], []
        for row in rows:
            clip = stored.get((_micro(row["start_s"]), _micro(row["duration_s"])))
            if clip is None:
                fresh.append({name: value for name, value in row.items() if name in self._tags or name not in TAG_COLUMNS or (
                    name in (row["labelled"] or ()))})
                continue
            labels = {name: row[name] for name in row["labelled"] or () if name != "track" or not recording.named_by_path}
            others = {name: value for name, value in recording.labels.items() if value is not None}
            known.append((clip, others | labels))
        if known:
            self._pending.append(_Pending(source=recording.source, recording=identity, labels={}, clips=tuple(known)))
        if fresh:
            self._new_sources.add(recording.source)
        return fresh

    def note(self, synced: Synced) -> None:
        """Count clips that a sync changed."""
        self._changed.append(synced.changed)
        self.superseded += synced.superseded

    def store_labels(self, collector: Collector) -> None:
        """Store the labels of known clips.  Those of a copy are not stored but compared, and reported where they differ."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        targets, labels = self._targets(pending)
        self._met.append(targets.select("path", "clip_id", is_copy=pl.col("path") != pl.col("source")))
        own = targets.filter(pl.col("path") == pl.col("source"))
        if len(labels) and len(names := [name for name in labels.columns if name not in ("number", "emptied")]):
            labels = labels.select("number", "emptied").hstack(self._lake.clips.conform(normalized(labels.select(names))))
            self._changed.append(self._lake.clips.update(self._labelled(own, labels)))
        else:
            labels = pl.DataFrame(schema={"number": pl.UInt32})
        copies = targets.filter(pl.col("path") != pl.col("source")).drop("source").rename({"path": "source"})
        if len(copies):
            copies = copies.join(labels, on="number", how="left").drop("number", "emptied", strict=False)
            collector.copies.note(self._lake, copies)

    def _targets(self, pending: list[_Pending]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """(number, path, clip_id, source) of the clips that labels are for, and (number, labels, emptied)."""
        rows: list[dict[str, Any]] = []
        of_files, of_clips = [], []
        for one in pending:
            if one.clips is None:
                of_files.append((len(rows), one.source, one.recording))
                rows.append(one.labels)
            for clip, labels in one.clips or ():
                of_clips.append((len(rows), one.source, clip))
                rows.append(labels)
        clips = self._lake.clips.read(["clip_id", "recording", "source", "cut"], superseded=True)
        by_file = pl.DataFrame(
            of_files, schema={"number": pl.UInt32, "path": pl.String, "recording": pl.String}, orient="row"
        ).join(clips, on="recording", maintain_order="left")
        is_own = pl.col("cut") == self.cut
        by_file = by_file.filter(is_own | ~is_own.any().over("number"))              # a clip keeps the first rule that made it
        by_clip = pl.DataFrame(
            of_clips, schema={"number": pl.UInt32, "path": pl.String, "clip_id": pl.String}, orient="row"
        ).join(clips, on="clip_id", maintain_order="left")
        names = ["number", "path", "clip_id", "source"]
        emptied = [[name for name, value in row.items() if value is None] for row in rows]
        numbers = pl.DataFrame({"number": range(len(rows)), "emptied": emptied}, schema={
            "number": pl.UInt32, "emptied": pl.List(pl.String)
        })
        values = pl.DataFrame(rows, infer_schema_length=None) if any(rows) else pl.DataFrame()
        targets = pl.concat([by_file.select(names), by_clip.select(names)])
        return targets, numbers.hstack(values) if len(values) else numbers.clear()

    def _labelled(self, own: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
        """Clips with their labels: given ones, null where a label is emptied, else the stored ones."""
        names = [name for name in labels.columns if name not in ("number", "emptied")]
        stored = self._lake.clips.take(own["clip_id"].to_list(), [*names, "labelled"]).unique("clip_id")
        both = own.select("clip_id", "number").join(labels, on="number", maintain_order="left").unique("clip_id", keep="last")
        both = both.join(stored, on="clip_id", suffix=" stored", maintain_order="left")
        kept = [name for name in names if name in FILLED_BY_LABELS]
        given = pl.concat_list(
            pl.when(pl.col(name).is_not_null()).then(pl.lit(name)).otherwise(pl.lit(None, pl.String)) for name in kept
        ).list.drop_nulls() if kept else pl.lit([], pl.List(pl.String))
        marks = pl.col("labelled").fill_null([]).list.set_union(given).list.set_difference(pl.col("emptied")).list.sort()
        was_given = pl.col("labelled").fill_null([])
        return both.select(
            "clip_id",
            *(
                pl.when(pl.col("emptied").list.contains(name) & (was_given.list.contains(name) if name in kept else True))
                .then(None).otherwise(pl.coalesce(name, f"{name} stored")).alias(name) for name in names
            ),
            pl.when(marks.list.len() > 0).then(marks).alias("labelled"),
        )

    def count(self, collector: Collector, failed: set[str]) -> Counts:
        """Count what the run did, after `store_labels` and the last sync.  `failed`: files that are not counted otherwise."""
        added = collector.added
        met = pl.concat(self._met) if self._met else pl.DataFrame(
            schema={"path": pl.String, "clip_id": pl.String, "is_copy": pl.Boolean}
        )
        changed = pl.concat(self._changed).unique() if self._changed else pl.Series([], dtype=pl.String)
        own = met.filter(~pl.col("is_copy")).unique("clip_id")
        is_changed = own["clip_id"].is_in(changed.implode())
        copied = met.filter("is_copy")
        copies = set(collector.copies.sources) - failed
        new = self._new_sources - copies - failed
        files = set(own.filter(is_changed)["path"]) - new - copies - failed
        return Counts(
            added=added + Added(known=len(own) - int(is_changed.sum()), changed=int(is_changed.sum()), copies=len(copied)),
            new=len(new), changed=len(files), copies=len(copies),
        )


def labelled_columns(labels: dict[str, Any], named_by_path: bool) -> list[str] | None:
    """The columns of a new clip that labels fill and tags do not replace."""
    names = {name for name, value in labels.items() if value is not None and name in FILLED_BY_LABELS}
    return sorted(names if named_by_path else names | {"track"}) or None


def usable_tags(lake: Lake, recordings: Iterable[Recording]) -> set[str]:
    """The tag columns that tags can fill: neither the lake nor the labels of this run have values of another type."""
    schema = lake.clips.table.schema
    usable = {name for name, kind in TAG_COLUMNS.items() if name not in schema.names or schema.field(name).type == kind}
    for recording in recordings:
        for labels in (recording.labels, *recording.span_labels):
            for name in labels.keys() & usable:
                if labels[name] is not None and not isinstance(labels[name], PYTHON_TYPES.get(name, str)):
                    usable.discard(name)
    return usable


def _labels(recording: Recording, labels: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """Labels for stored clips: without empty ones, unless these empty the column."""
    fixed = {} if recording.named_by_path else {"track": recording.track}
    fixed |= {name: value for name, value in shared.items() if name == "dataset"}
    return fixed | {name: value for name, value in labels.items() if value is not None or recording.empties}


def _is_span(of_clip: Sequence[float], span: Span, file_s: float | None) -> bool:
    """Whether a clip, given by start and length, is the requested span of a file of `file_s` seconds."""
    (start_s, duration_s), (wanted_s, length_s) = of_clip, span
    if round(start_s, 6) != round(wanted_s, 6):
        return False
    if length_s is not None:
        return abs(duration_s - length_s) < 1e-3
    # Decoded length and header may differ by the padding that an encoder added.
    rest_s = min((file_s or 0.0) - wanted_s, MAX_WHOLE_S)
    return file_s is not None and abs(duration_s - rest_s) < 0.1


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
