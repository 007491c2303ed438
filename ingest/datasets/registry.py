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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tonelake.ingest import datasets
from tonelake.ingest.datasets.base import DataSet, ListedFile
from tonelake.store import InputError

if TYPE_CHECKING:
    from tonelake.ingest.report import IngestReport
    from tonelake.store import Lake

GROUP = "tonelake.datasets"
NOT_SETS = frozenset({"base", "registry"})
RESERVED = frozenset({"folder", "manifest", "catalogue", "chorales", "wikimeter"})     # ingested by commands of their own
NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
SHOWN = 3                                # missing files named in a note
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
    from tonelake.ingest.sources import as_on_disk, is_there, to_source

    dataset = get_dataset(name)
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder. `tonelake ingest {name}` takes the folder that {name} unpacks to")
    listed = dataset.read(folder)
    files = [ListedFile(as_on_disk(path), track, labels) for path, track, labels in listed.files]
    exists = [is_there(file.path) and file.path.is_file() for file in files]
    present = list(compress(files, exists))
    missing = [file.path for file, here in zip(files, exists, strict=True) if not here]
    if not present:
        first = f"the first of {len(missing):,} listed files is {missing[0]}" if missing else f"expected {dataset.layout}"
        raise InputError(f"{folder}: holds no audio of {name}: {first}")
    lake.clips.check_labels(pl.DataFrame([file.labels for file in present], infer_schema_length=None))
    recordings = [Recording(source=to_source(file.path), track=file.track, labels=file.labels) for file in present]
    cut = Cut(seconds or dataset.seconds, hop)
    report = ingest_recordings(lake, recordings, cut, dataset=name, workers=workers)
    return replace(report, notes=(*listed.notes, *_missing_note(missing, len(listed.files))))


def _candidates() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(name, where it is defined, how to load it), those of this package first."""
    for module in pkgutil.iter_modules(datasets.__path__):
        if module.name not in NOT_SETS | RESERVED:
            path = f"{datasets.__name__}.{module.name}"
            yield module.name, f"module {path}", partial(_dataset_of, path)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        package = entry.dist.name if entry.dist is not None else "a package"
        yield entry.name, f"entry point {entry.value} of {package}", entry.load


def _dataset_of(module: str) -> Any:
    return importlib.import_module(module).DATASET


def _missing_note(missing: Sequence[Path], total: int) -> tuple[str, ...]:
    """A note on listed files that are not in the folder."""
    if not missing:
        return ()
    names = ", ".join(path.name for path in missing[:SHOWN]) + (" …" if len(missing) > SHOWN else "")
    return (f"{len(missing):,} of {total:,} listed files are missing: {names}",)
