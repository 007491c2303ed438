"""Ingest a Hugging Face data set with an audio column, from files of this machine only.

`hf_parts` says where it finds one.  Splits become the column `split`, class labels their names, and lists of text or class
labels list columns.

Audio in such files is either a path or the bytes of a whole file inside a table.  Bytes are written once as files named by
their content, because a clip's source must be readable for as long as the lake is used: by `embed`, the app and `verify`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tonelake.ingest.audio_files import clean_name
from tonelake.ingest.datasets.base import SPLITS, inside
from tonelake.ingest.datasets.foreign_labels import column_name, label_value, same_kinds
from tonelake.ingest.datasets.hf_parts import Part, offline, open_parts, rows_of
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import is_there, to_source
from tonelake.store import InputError, Lake, is_local

TRACKS = ("track", "track_id")           # columns that name the track of a row where they hold text
MAGIC = {                                # how audio files begin: their suffix, where the table does not say it
    b"RIFF": ".wav", b"RF64": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3",
    b"\xff\xf3": ".mp3", b"\xff\xf2": ".mp3", b"FORM": ".aiff",
}


@dataclass
class Found:
    """Rows with audio, and counts for the report."""

    files: dict[str, tuple[str, str, dict[str, Any]]] = field(default_factory=dict)        # source: (track, name, labels)
    total: int = 0
    missing: list[str] = field(default_factory=list)
    without: int = 0                     # rows whose audio is null
    repeated: int = 0                    # rows with the audio of an earlier row
    crossing: int = 0                    # of these, in another split
    left_out: Counter[str] = field(default_factory=Counter)                    # columns that cannot be labels


def ingest_hf(
    lake: Lake, path: str | Path, *, config: str | None = None, column: str | None = None, track: str | None = None,
    folder: str | Path | None = None, seconds: float | None = 30.0, hop: float | None = None, dataset: str | None = None,
    workers: int | None = None,
) -> IngestReport:
    """Add the rows of a Hugging Face data set as clips.  `path`: a folder, a parquet file, or the name of a cached set.

    `config`: one of several configurations.  `column`: the audio column; by default the first.  `track`: a column that names
    the track of a row; by default `track` or `track_id` if there is one, else the name of the audio file.  `folder`: for
    audio whose bytes are inside tables; by default `audio` in the lake.  `dataset`: value of the clips' column `dataset`; by
    default the set's name.
    Raises InputError if there is no such data set on this machine or if it has no audio column.
    """
    import polars as pl

    cut, place = Cut(seconds, hop), Path(path).expanduser()
    name = dataset or (place.resolve().name.removesuffix(".parquet") if place.exists() else str(path).rpartition("/")[2])
    home = Path(folder).expanduser() if folder is not None else None
    if home is None and is_local(lake.uri):
        home = Path(lake.uri) / "audio" / re.sub(r"[^\w-]+", "_", name)
    found = Found()
    with offline():
        for part in open_parts(str(path), config):
            audio = audio_column(part.features, column, str(path))
            if track is not None and track not in part.features:
                raise InputError(f"{path}: has no column {track!r} for --track. It has {', '.join(part.features)}")
            for row in lake.progress(rows_of(part, str(path)), part.rows, f"reading {part.split or 'rows'}"):
                take_row(found, row, part, audio, track, home)
    if not found.files:
        raise InputError(f"{path}: holds no audio: {found.total:,} rows, {len(found.missing):,} of them with a missing file")
    rows = same_kinds([labels for _, _, labels in found.files.values()])
    lake.clips.check_labels(pl.DataFrame(rows, infer_schema_length=None))
    tracks = tracks_of(found)
    recordings = [
        Recording(source=source, track=tracks[source], labels=labels)
        for source, labels in zip(found.files, rows, strict=True)
    ]
    report = ingest_recordings(lake, recordings, cut, dataset=name, workers=workers)
    return replace(report, notes=(*notes_of(found, home), *report.notes))


def tracks_of(found: Found) -> dict[str, str]:
    """The track of each source: as its row says, else the name of its audio file, with its source's name if that is taken.

    Rows of many sets have one file name, such as `audio.wav`, and splits often number their files from 0.
    """
    taken = Counter(name for track, name, _ in found.files.values() if not track)
    return {
        source: track or (name if taken[name] == 1 else f"{name}-{Path(source).stem[:12]}")
        for source, (track, name, _) in found.files.items()
    }


def audio_column(features: Mapping[str, Any], column: str | None, path: str) -> str:
    """The column with audio: the given one, or the first that is declared as audio or has its form."""
    found = [name for name, feature in features.items() if is_audio(feature)]
    if column is not None:
        if column not in features:
            raise InputError(f"{path}: has no column {column!r}. Choose one of {', '.join(features)}")
        return column
    if not found:
        raise InputError(f"{path}: has no audio column, but {', '.join(features)}. Name the column with --column")
    return found[0]


def is_audio(feature: Any) -> bool:
    """Whether a column is `Audio`, or a struct of bytes and path, which is how `Audio` is stored."""
    return type(feature).__name__ == "Audio" or (isinstance(feature, Mapping) and {"bytes", "path"} <= set(feature))


def take_row(found: Found, row: dict[str, Any], part: Part, audio: str, track: str | None, home: Path | None) -> None:
    """Add one row's audio and labels to `found`."""
    found.total += 1
    value = row[audio]
    value = {"path": value, "bytes": None} if isinstance(value, str) else value
    if not isinstance(value, dict) or not (value.get("bytes") or value.get("path")):
        found.without += 1
        return
    name = clean_name(Path(str(value.get("path") or f"{part.split or 'row'}-{found.total:07d}")).name)
    if value.get("bytes"):
        if home is None:
            raise InputError(
                "audio inside tables: is written to local files, but the lake is an object store. Name a folder with --out"
            )
        path = write_audio(home, value["bytes"], name)
    else:
        path = Path(str(value["path"]))
        path = path if path.is_absolute() or part.root is None else inside(part.root, str(path))
        if not path.is_absolute() or not is_there(path):
            found.missing.append(str(value["path"]))
            return
    labels = labels_of(row, part.features, audio, found.left_out)
    if part.split is not None:
        labels["split"] = SPLITS.get(part.split, part.split)
    labels.pop("track", None)
    key = row.get(track) if track is not None else next((row[c] for c in TRACKS if isinstance(row.get(c), str)), None)
    source = to_source(path)
    if source in found.files:
        found.repeated += 1
        found.crossing += found.files[source][2].get("split") != labels.get("split")
        return
    found.files[source] = ("" if key is None else str(key), Path(name).stem or name, labels)


def write_audio(home: Path, data: bytes, name: str) -> Path:
    """Write the bytes of an audio file under a name made of their content, unless that file exists."""
    suffix = Path(name).suffix.lower()
    if not suffix[1:].isalnum():
        suffix = next((ending for magic, ending in MAGIC.items() if data.startswith(magic)), ".audio")
    path = home / f"{hashlib.blake2b(data, digest_size=16).hexdigest()}{suffix}"
    if not path.is_file() or path.stat().st_size != len(data):
        home.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".tmp")
        beside.write_bytes(data)
        beside.replace(path)
    return path


def labels_of(row: dict[str, Any], features: Mapping[str, Any], audio: str, left_out: Counter[str]) -> dict[str, Any]:
    """The label columns of a row; columns that cannot be labels are counted."""
    labels = {}
    for name, value in row.items():
        if name == audio or value is None:
            continue
        label = label_value(named(value, features.get(name)))
        if label is not None:
            labels[column_name(name)] = label
        elif not is_empty(value):
            left_out[name] += 1
    return labels


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: empty text or list, not a number, or the class label -1, `datasets`' sign for none."""
    return value in ("", -1, []) or value != value


def named(value: Any, feature: Any) -> Any:
    """A value with class labels replaced by their names; None for a class label that is not set (-1)."""
    kind = type(feature).__name__
    if kind == "ClassLabel":
        if isinstance(value, str) or feature.names is None:
            return value
        return feature.names[value] if 0 <= value < len(feature.names) else None
    if isinstance(value, list):
        inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else None)
        parts = [named(part, inner) for part in value]
        return [part for part in parts if part is not None]
    if isinstance(value, bytes | dict):
        return None
    return str(value) if hasattr(value, "isoformat") else value


def notes_of(found: Found, home: Path | None) -> tuple[str, ...]:
    """Notes on rows and columns that were left out."""
    notes = []
    if home is not None and any(Path(source).parent == home for source in found.files):
        notes.append(f"audio inside tables was written to {home}; keep that folder, clips are read from it")
    for count, text in (
        (found.without, "have no audio"), (found.repeated, "have the audio of an earlier row, whose labels are kept"),
        (found.crossing, "of these are in another split than that row, so the splits share audio"),
    ):
        if count:
            notes.append(f"{count:,} of {found.total:,} rows {text}")
    if found.missing:
        notes.append(
            f"{len(found.missing):,} of {found.total:,} rows name a file that is missing, such as {found.missing[0]}"
        )
    if found.left_out:
        notes.append(f"columns that cannot be labels: {', '.join(sorted(found.left_out))}")
    return tuple(notes)
