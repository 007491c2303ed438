"""Find data sets and ingest one by name.

The modules of this package are found by name; other packages add theirs by an entry point of group `tonelake.datasets`:

    [project.entry-points."tonelake.datasets"]
    myset = "mypackage.myset:DATASET"
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tonelake.ingest import datasets
from tonelake.ingest.audio_files import clean_name
from tonelake.ingest.datasets.base import AUDIO_SUFFIXES, DataSet, ListedFile, audio_below
from tonelake.ingest.passed_over import note_on_folder
from tonelake.ingest.text_links import link_text
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.ingest.recordings import Recording
    from tonelake.ingest.report import IngestReport
    from tonelake.store import Lake

GROUP = "tonelake.datasets"
NOT_SETS = frozenset({                   # modules without a DATASET
    "base", "registry", "meters", "foreign_labels", "chorales", "wikimeter", "wikimeter_catalogue", "wikimeter_segments",
    "mirdata", "hf", "hf_parts",
})
RENAMED = {"wikimeter_folder": "wikimeter"}                  # module: name of its data set, where they differ
RESERVED = frozenset({"folder", "manifest", "catalogue", "chorales", "mirdata", "hf", "events"})     # commands of their own
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
SHOWN = 3                                # files named in a note
CONVERTED = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a")
log = logging.getLogger(__name__)


class FoundDataSet(NamedTuple):
    """A data set by name: it, or the reason why it cannot be used."""

    name: str
    dataset: DataSet | None
    problem: str = ""


def find_datasets() -> list[FoundDataSet]:
    """Every data set of this package and of installed ones, by name, including those that cannot be loaded."""
    found: dict[str, FoundDataSet] = {}
    for name, origin, load in _candidates():
        try:
            dataset = load()
            if not isinstance(dataset, DataSet):
                raise TypeError(f"is a {type(dataset).__name__}, not a tonelake.ingest.DataSet")
        except Exception as error:       # an error in one plugin must not break the others
            problem = f"data set {name!r}: {origin} cannot be loaded ({type(error).__name__}: {error}). Update or uninstall it"
            found.setdefault(name, FoundDataSet(name, None, problem))
            continue
        if name in found or name in RESERVED or not NAME.fullmatch(name):
            log.warning("data set %r: ignored %s: its name is taken, or not of a-z, 0-9, - and _", name, origin)
            continue
        found[name] = FoundDataSet(name, dataset)
    return sorted(found.values())


def known_datasets() -> dict[str, DataSet]:
    """Every data set that can be ingested, by name.  Logs a warning for each that cannot be loaded."""
    found = find_datasets()
    for each in found:
        if each.problem:
            log.warning(each.problem)
    return {each.name: each.dataset for each in found if each.dataset is not None}


def get_dataset(name: str) -> DataSet:
    """The data set of that name.  Raises InputError if it is not known or cannot be loaded."""
    found = {each.name: each for each in find_datasets()}
    if name not in found:
        raise InputError(f"data set {name!r}: is not known. Choose one of {', '.join(found)}")
    dataset = found[name].dataset
    if dataset is None:
        raise InputError(found[name].problem)
    return dataset


def ingest_dataset(
    lake: Lake, name: str, folder: str | Path, *, seconds: float | None = None, hop: float | None = None,
    workers: int | None = None,
) -> IngestReport:
    """Ingest a published data set from the folder that it unpacks to.

    `seconds`, `hop`: length of a clip, and from one clip's start to the next; by default as the set is usually cut.
    Raises InputError, before anything is written, if the set is not known or the folder does not hold it.
    """
    import polars as pl

    from tonelake.ingest.recordings import Recording, ingest_recordings
    from tonelake.ingest.segment import Cut
    from tonelake.ingest.sources import is_there, to_source

    dataset = get_dataset(name)
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder. `tonelake ingest {name}` takes the folder that {name} unpacks to")
    listed = dataset.read(folder)
    files = [file._replace(path=_locate(file.path)) for file in listed.files]
    exists = [is_there(file.path) and file.path.is_file() for file in files]
    missing = [file.path for file, here in zip(files, exists, strict=True) if not here]
    links = {file.path: target for file in compress(files, exists) if (target := link_text(file.path)) is not None}
    present = [file for file in compress(files, exists) if file.path not in links]
    if not present:
        first = f"the first of {len(missing):,} listed files is {missing[0]}" if missing else f"expected {dataset.layout}"
        raise InputError(f"{folder}: holds no audio of {name}: {next(iter(_link_note(links)), first)}")
    lake.clips.check_labels(pl.DataFrame([file.labels for file in present], infer_schema_length=None))
    recordings: list[Recording] = []
    cut: Cut | None = None
    if any(file.span is not None for file in present):
        if seconds is not None or hop is not None:
            raise InputError(f"{folder}: its tables say where each clip begins and ends. Leave out --seconds and --hop")
        recordings = _parts(present)
    else:
        recordings = [Recording(source=to_source(file.path), track=file.track, labels=file.labels) for file in present]
        cut = Cut(seconds or dataset.seconds, hop)
    report = ingest_recordings(lake, recordings, cut, dataset=name, workers=workers, root=folder)
    known = {file.path for file in files} | set(listed.left_out)
    notes = event_notes(lake, folder, workers) if dataset.events else ()
    unlisted = [path for path in audio_below(folder) if path not in known]
    return replace(report, notes=(
        *listed.notes, *_missing_note(missing, len(listed.files)), *_link_note(links), *_unlisted_note(unlisted),
        *note_on_folder(folder, AUDIO_SUFFIXES), *report.notes, *notes,
    ))


def event_notes(lake: Lake, folder: Path, workers: int | None) -> tuple[str, ...]:
    """Store the events of label files in a set's folder; return notes on them, none if it has no label files.

    Label files of audio that the set leaves out are not mentioned.
    """
    from tonelake.ingest.events.sync import UNMATCHED, ingest_events

    try:
        report = ingest_events(lake, folder, workers=workers)
    except InputError as error:
        log.debug("no events: %s", error)
        return ()
    return (*(note for note in report.notes if UNMATCHED not in note), str(report))


def _parts(files: Sequence[ListedFile]) -> list[Recording]:
    """Recordings with the spans of listed parts; a file without a span is one clip."""
    from tonelake.ingest.recordings import Recording
    from tonelake.ingest.sources import to_source

    by_path: dict[Path, list[ListedFile]] = {}
    for file in files:
        by_path.setdefault(file.path, []).append(file)
    return [
        Recording(
            source=to_source(path), track=parts[0].track, spans=tuple(part.span or (0.0, None) for part in parts),
            span_labels=tuple(part.labels | {"track": part.track} for part in parts),
        )
        for path, parts in by_path.items()
    ]


def _candidates() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(name, where it is defined, how to load it), those of this package first."""
    for module in pkgutil.iter_modules(datasets.__path__):
        if module.name not in NOT_SETS:
            path = f"{datasets.__name__}.{module.name}"
            yield RENAMED.get(module.name, module.name), f"module {path}", partial(_dataset_of, path)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        package = entry.dist.name if entry.dist is not None else "a package"
        yield entry.name, f"entry point {entry.value} of {package}", entry.load


def _dataset_of(module: str) -> Any:
    return importlib.import_module(module).DATASET


def _locate(path: Path) -> Path:
    """A listed file as it is called on the disk.

    Sets are often converted while their tables keep the suffix, so a file beside it with another audio suffix is accepted.
    """
    from tonelake.ingest.sources import as_on_disk, is_there

    path = as_on_disk(path)
    if is_there(path) or not path.stem:
        return path
    return next((other for suffix in CONVERTED if is_there(other := path.with_name(path.stem + suffix))), path)


def _missing_note(missing: Sequence[Path], total: int) -> tuple[str, ...]:
    """A note on listed files that are not in the folder."""
    return (f"{len(missing):,} of {total:,} listed files are missing: {_names(missing)}",) if missing else ()


def _link_note(links: Mapping[Path, str]) -> tuple[str, ...]:
    """A note on audio files that are links unpacked as text."""
    if not links:
        return ()
    path, target = next(iter(links.items()))
    return (
        f"{len(links):,} audio files are links that were unpacked as text, such as {path.name} to {target}. Unpack the archive "
        "where links can be made",
    )


def _unlisted_note(unlisted: Sequence[Path]) -> tuple[str, ...]:
    """A note on audio files in the folder that the set's reader passed over."""
    if not unlisted:
        return ()
    return (f"passed over {len(unlisted):,} audio files that the set does not list: {_names(unlisted)}",)


def _names(paths: Sequence[Path]) -> str:
    """The names of the first paths."""
    return ", ".join(clean_name(path.name) for path in paths[:SHOWN]) + (" …" if len(paths) > SHOWN else "")
