"""Published data sets as recordings: their files, labels and splits, and the files that are known to be bad.

A reader takes the folder that a set unpacks to and gives what it lists.  The tables in `SETS` are the command line's
choices.  Splits are the published ones, in column `split` as train, valid and test; where a set comes without its lists,
the reader says where they are to be had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import polars as pl

from tonelake.ingest import readers, stems
from tonelake.ingest.readers import Listed
from tonelake.ingest.recordings import IngestReport, Recording, ingest_recordings
from tonelake.ingest.segment import Cut
from tonelake.ingest.sources import as_on_disk, is_there, to_source
from tonelake.store import InputError, Lake, Progress, silent_progress

SHOWN = 3                                # missing files that are named


class DataSet(NamedTuple):
    """How to read one."""

    read: Callable[[Path], Listed]
    seconds: float | None                # clips of this length, None: whole files, where nobody says otherwise


SETS = {
    "gtzan": DataSet(readers.gtzan, None),
    "fma": DataSet(readers.fma, None),
    "jamendo": DataSet(readers.jamendo, 30.0),
    "magnatagatune": DataSet(readers.magnatagatune, None),
    "nsynth": DataSet(readers.nsynth, None),
    "giantsteps": DataSet(readers.giantsteps, None),
    "meter2800": DataSet(readers.meter2800, None),
    "slakh": DataSet(stems.slakh, 30.0),
    "musdb": DataSet(stems.musdb, 30.0),
}


def ingest_dataset(
    lake: Lake, name: str, folder: Path, *, seconds: float | None = None, hop: float | None = None,
    workers: int | None = None, progress: Progress = silent_progress,
) -> IngestReport:
    """A published data set from the folder that it unpacks to.

    `seconds`, `hop`: how to cut, by default as the set is used.  Raises InputError, before anything is written, for a set
    that is not known or a folder that does not hold it.
    """
    if name not in SETS:
        raise InputError(f"no data set {name!r}: choose {', '.join(SETS)}")
    folder = folder.expanduser()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: `tonelake ingest {name}` takes the folder that {name} unpacks to")
    listed = SETS[name].read(folder)
    files = [(as_on_disk(path), track, labels) for path, track, labels in listed.files]
    found = [is_there(path) and path.is_file() for path, _, _ in files]
    there = list(compress(files, found))
    missing = [path for (path, _, _), here in zip(files, found, strict=True) if not here]
    if not there:
        first = f"the first of {len(missing):,} that it lists is {missing[0]}" if missing else f"it wants {listed.layout}"
        raise InputError(f"{folder} holds no audio of {name}: {first}")
    lake.clips.check_labels(pl.DataFrame([labels for _, _, labels in there], infer_schema_length=None))
    recordings = [Recording(to_source(path), track, labels) for path, track, labels in there]
    cut = Cut(seconds or SETS[name].seconds, hop)
    report = ingest_recordings(lake, recordings, cut, dataset=name, workers=workers, progress=progress)
    return replace(report, notes=(*listed.notes, *absence(missing, len(listed.files))))


def absence(missing: Sequence[Path], total: int) -> tuple[str, ...]:
    """That files are listed and not there."""
    if not missing:
        return ()
    names = ", ".join(path.name for path in missing[:SHOWN]) + (" …" if len(missing) > SHOWN else "")
    return (f"{len(missing):,} of {total:,} files that are listed are not there: {names}",)
