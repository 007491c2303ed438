"""Ingest a data set by its loader in mirdata: tracks as clips, their scalar attributes as labels.

mirdata (Bittner et al. 2019, mirdata: Software for reproducible usage of datasets, ISMIR) describes each set by an index: a
JSON file with the path and MD5 of every file of every track.  The index is not part of the package, and nothing is downloaded
here: `mirdata.initialize(NAME).download(["index"])` puts it into the package, or a file is named.
"""

from __future__ import annotations

import inspect
import json
import typing
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from tonelake.ingest.collector import STAGE
from tonelake.ingest.datasets.base import AUDIO_SUFFIXES, SPLITS, inside
from tonelake.ingest.datasets.foreign_labels import column_name, is_label, label_value, same_kinds
from tonelake.ingest.passed_over import note_on_folder
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import as_on_disk, is_there, to_source
from tonelake.ingest.text_files import encoding_of, readable
from tonelake.store import Failure, InputError, Lake, import_extra

MAIN = "audio"                           # the index's key of a track's audio where there is one
SUFFIXES = AUDIO_SUFFIXES | {".mp4", ".wma"}
SHOWN = 5                                # names in a note
NOT_LABELS = ("track_id", "mtrack_id", "data_home", "dataset_name")
NOT_READ = ("audio", "spectrogram", "tracks")                # how names of properties begin that read audio
HEAVY = ("ndarray", "annotations", "PrettyMIDI", "EventDataExtended", "Note")    # in the types of properties that read events


@dataclass
class Found:
    """The entries of a set's index: files that exist, and counts for the report."""

    rows: list[tuple[Path, str, dict[str, Any]]] = field(default_factory=list)             # (file, track, labels)
    missing: list[str] = field(default_factory=list)
    wrong: list[tuple[Path, str]] = field(default_factory=list)                            # audio whose MD5 differs
    changed: int = 0                     # other files whose MD5 differs
    unread: set[str] = field(default_factory=set)                                          # kinds of files of annotations
    keys: set[str] = field(default_factory=set)                                            # kinds of audio files
    failed: dict[str, str] = field(default_factory=dict)                                   # attribute: the loader's error


def ingest_mirdata(
    lake: Lake, name: str, folder: str | Path, *, version: str = "default", index: str | Path | None = None,
    audio: tuple[str, ...] | list[str] = (), validate: bool = True, seconds: float | None = 30.0, hop: float | None = None,
    workers: int | None = None,
) -> IngestReport:
    """Add the tracks of a set that mirdata can load, from `folder`, mirdata's `data_home`.

    Labels are the scalar and text attributes of mirdata's tracks, and lists of text; `split` is the published one.
    `audio`: kinds of audio file to read, as the index calls them; by default `audio`, or all of them if there is no such kind.
    They are clips of one track, and column `audio` tells them apart.  `validate`: compare the MD5 of every file with the
    index; audio that differs is a recorded failure.  `index`: a JSON file to use as the set's index.
    Raises InputError if mirdata does not know the set, or if its index or all of its audio is missing.
    """
    import polars as pl

    cut, folder = Cut(seconds, hop), Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder. Name the folder of {name} that mirdata calls data_home")
    loader, listed = load_dataset(name, folder, version, Path(index).expanduser() if index is not None else None)
    found = find_files(lake, loader, listed, folder, tuple(audio), validate)
    if not found.rows and not found.wrong:
        first = f"the first of {len(found.missing):,} is {found.missing[0]}" if found.missing else "the index lists none"
        raise InputError(f"{folder}: holds no audio of {name}: {first}")
    labels = same_kinds([labels for _, _, labels in found.rows])
    if labels:
        lake.clips.check_labels(pl.DataFrame(labels, infer_schema_length=None))
    recordings = [
        Recording(source=to_source(path), track=track, labels=row)
        for (path, track, _), row in zip(found.rows, labels, strict=True)
    ]
    lake.failures.record([Failure(STAGE, to_source(path), problem) for path, problem in found.wrong])
    report = ingest_recordings(lake, recordings, cut, dataset=name, workers=workers, root=folder)
    return replace(
        report, recordings=len(recordings) + len(found.wrong), failed=report.failed + len(found.wrong),
        notes=(*notes_of(found), *note_on_folder(folder, AUDIO_SUFFIXES), *report.notes),
    )


def load_dataset(name: str, folder: Path, version: str, index: Path | None) -> tuple[Any, dict[str, Any]]:
    """mirdata's data set of that name, and its index.  Raises InputError with the remedy if it cannot be used."""
    mirdata = import_mirdata()
    if name not in mirdata.list_datasets():
        raise InputError(f"mirdata has no data set {name!r}. It has {', '.join(mirdata.list_datasets())}")
    try:
        with warnings.catch_warnings():  # of the libraries that mirdata imports for storage in the cloud
            warnings.simplefilter("ignore")
            dataset = mirdata.initialize(name, data_home=str(folder), version=version)
    except ImportError as error:
        raise InputError(f"mirdata {name}: needs another package. Install mirdata[{name}]") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"mirdata {name}: has no version {version!r} ({error})") from error
    places = [index] if index is not None else [Path(dataset.index_path), folder / Path(dataset.index_path).name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise InputError(
            f"mirdata {name}: its index {places[0].name} is missing. Download it with python -c "
            f"\"import mirdata; mirdata.initialize('{name}').download(['index'])\", or name a copy with --index"
        )
    with readable(path):
        text = path.read_text(encoding=encoding_of(path))
    try:
        content = json.loads(text)
        parts = [content.get(part) or {} for part in ("tracks", "multitracks")]
        if not any(parts) or not all(isinstance(entry, dict) for part in parts for entry in part.values()):
            raise ValueError("it lists no tracks")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: is not an index of mirdata: {error}") from error
    dataset.index_path = str(path)
    return dataset, content


def import_mirdata() -> ModuleType:
    """The package mirdata.  Raises MissingExtra if it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_extra("mirdata", "mirdata", "data sets by mirdata")


def find_files(
    lake: Lake, dataset: Any, index: dict[str, Any], folder: Path, chosen: tuple[str, ...], validate: bool
) -> Found:
    """The audio files of a set with their tracks and labels, and what is missing or differs."""
    found, labels_of = Found(), LabelReader()
    multitrack_of = {
        track: name for name, entry in (index.get("multitracks") or {}).items() for track in entry.get("tracks", ())
    }
    entries = [
        (identity, entry, load)
        for part, load in (("tracks", dataset.track), ("multitracks", dataset.multitrack))
        for identity, entry in (index.get(part) or {}).items()
    ]
    kinds = audio_kinds(entries, chosen)
    published = splits_of(dataset)
    for identity, entry, load in lake.progress(entries, len(entries), "checking" if validate else "listing"):
        files = {kind: (inside(folder, path), checksum) for kind, path, checksum in files_of(entry)}
        audio = {kind: place for kind, place in files.items() if is_audio(place[0])}
        found.keys |= audio.keys()
        found.unread |= files.keys() - audio.keys()
        here = {}
        for kind, (path, checksum) in files.items():
            if kind in audio and kind not in kinds:
                continue
            path = as_on_disk(path)
            if not is_there(path):
                if kind in audio:
                    found.missing.append(str(path.relative_to(folder)))
            elif validate and checksum and md5(path) != checksum:
                if kind in audio:
                    problem = "its MD5 differs from mirdata's index. Download it again, or use --no-validate"
                    found.wrong.append((path, f"{path.name}: {problem}"))
                else:
                    found.changed += 1
            elif kind in audio:
                here[kind] = path
        if not here:
            continue
        try:
            shared = labels_of(load(identity))
        except Exception as error:       # the loader's own tables are missing or of another version
            shared = {}
            found.failed.setdefault("every label of some tracks", f"{type(error).__name__}: {error}")
        if identity in published:
            shared["split"] = published[identity]
        if "split" not in shared and shared.get("subset") in SPLITS:
            shared["split"] = shared["subset"]
        if "split" in shared:
            shared["split"] = SPLITS.get(str(shared["split"]), shared["split"])
        if identity in multitrack_of:
            shared["multitrack"] = multitrack_of[identity]
        for kind, path in here.items():
            found.rows.append((path, str(identity), shared | ({} if kind == MAIN else {"audio": kind})))
    found.failed |= {name: error for name, error in labels_of.failed.items() if name not in labels_of.read}
    return found


def audio_kinds(entries: list[tuple[str, dict[str, Any], Any]], chosen: tuple[str, ...]) -> set[str]:
    """The kinds of audio file to read.  Raises InputError if one of `chosen` is not in the index."""
    kinds = {kind for _, entry, _ in entries for kind, path, _ in files_of(entry) if is_audio(Path(path))}
    absent = sorted(set(chosen) - kinds)
    if absent:
        raise InputError(f"--audio {absent[0]}: the index has no such audio files. Choose from {', '.join(sorted(kinds))}")
    return set(chosen) or ({MAIN} & kinds) or kinds


def files_of(entry: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Yield (kind, path, MD5) of each file of a track or multitrack in an index; a set without some file has null there."""
    for kind, value in entry.items():
        if kind != "tracks" and isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
            yield kind, value[0], value[1]


def is_audio(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def md5(path: Path) -> str:
    """MD5 of a file's bytes, as mirdata's indexes have it."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def splits_of(dataset: Any) -> dict[str, str]:
    """Track: split, of a set whose loader computes splits itself; elsewhere they are an attribute of tracks."""
    from mirdata import core

    if type(dataset).get_track_splits is core.Dataset.get_track_splits:
        return {}
    try:
        return {str(track): str(split) for split, tracks in dataset.get_track_splits().items() for track in tracks}
    except Exception:                    # a table that is missing: the set is read without its split
        return {}


class LabelReader:
    """Reads the labels of mirdata's tracks: attributes that hold a number, a text or a list of texts.

    Whether an attribute is one is learned from its type and from the first track on which it has a value, since other
    attributes read whole files of annotations.
    """

    def __init__(self) -> None:
        self._names: dict[type, list[str]] = {}
        self._rejected: set[tuple[type, str]] = set()
        self.read: set[str] = set()      # attributes that had a value on some track
        self.failed: dict[str, str] = {}                             # attributes that could not be read on some track

    def __call__(self, track: Any) -> dict[str, Any]:
        kind = type(track)
        if kind not in self._names:
            self._names[kind] = list(computed_attributes(kind))
        plain = {name for name in vars(track) if not name.startswith("_")}
        labels = {}
        for name in (*sorted(plain), *(name for name in self._names[kind] if name not in plain)):
            if name in NOT_LABELS or "path" in name.split("_") or (kind, name) in self._rejected:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    value = getattr(track, name)
            except Exception as error:   # a file of annotations that is missing or damaged concerns this track only
                self.failed.setdefault(name, f"{type(error).__name__}: {error}")
                continue
            if not is_label(value):
                self._rejected.add((kind, name))
            elif (label := label_value(value)) is not None:
                labels[column_name(name)] = label
                self.read.add(name)
        return labels


def computed_attributes(kind: type) -> Iterator[str]:
    """Names of a class's properties that may hold a label."""
    from mirdata import core

    for name, member in inspect.getmembers_static(kind):
        function = getattr(member, "fget", None) or (member.func if isinstance(member, core.cached_property) else None)
        if function is None or name.startswith(("_", *NOT_READ)):
            continue
        try:
            result = typing.get_type_hints(function).get("return")
        except Exception:                # a type that cannot be evaluated
            result = None
        if result is None or not any(word in str(result) for word in HEAVY):
            yield name


def notes_of(found: Found) -> tuple[str, ...]:
    """Notes on files that are missing, that differ or that are not read."""
    notes = []
    if found.missing:
        total = len(found.missing) + len(found.rows) + len(found.wrong)
        notes.append(f"{len(found.missing):,} of {total:,} audio files are missing: {_names(found.missing)}")
    if found.wrong:
        notes.append(f"{len(found.wrong):,} audio files differ from mirdata's index and are left out")
    if found.changed:
        notes.append(f"{found.changed:,} files of annotations differ from mirdata's index; their labels are used")
    used = {labels.get("audio", MAIN) for _, _, labels in found.rows}
    others = sorted(found.keys - used)
    if others:
        notes.append(f"other audio files of the same tracks, by --audio: {_names(others)}")
    by_error: dict[str, list[str]] = {}
    for name, error in found.failed.items():
        by_error.setdefault(error, []).append(name)
    notes += [f"mirdata could not read {_names(names)} ({error})" for error, names in list(by_error.items())[:SHOWN]]
    if found.unread:
        notes.append(f"files of annotations with times are not read: {_names(sorted(found.unread))}")
    return tuple(notes)


def _names(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" …" if len(names) > SHOWN else "")
