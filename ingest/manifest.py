"""Ingest a manifest: a CSV file with one clip in each row (path, start, seconds) and any label columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from tonelake.ingest.labels import PATH_NAMES, TEXT_NAMES, check_label_columns
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.sources import as_on_disk, is_there, to_source
from tonelake.ingest.tables import read_table
from tonelake.store import InputError, Lake, is_number

START_NAMES = ("start", "start_s", "offset")
LENGTH_NAMES = ("seconds", "duration", "duration_s")


def ingest_manifest(
    lake: Lake, file: str | Path, *, multi: Sequence[str] = (), dataset: str | None = None, workers: int | None = None
) -> IngestReport:
    """Add every row of a manifest as a clip.

    Paths are relative to the manifest's folder.  A clip without start begins at 0; one without seconds goes to the end.
    Raises InputError, before anything is written, if the table itself is not valid.
    """
    file = Path(file).expanduser()
    recordings, labels = read_manifest(file, multi)
    lake.clips.check_labels(labels)
    report = ingest_recordings(lake, recordings, None, dataset=dataset, workers=workers)
    return replace(report, notes=(f"{file.name}: {sum(len(r.spans) for r in recordings)} rows of {len(recordings)} files",))


def read_manifest(file: Path, multi: Sequence[str] = ()) -> tuple[list[Recording], pl.DataFrame]:
    """Recordings of a manifest with their spans, in the order of their first rows; and the table's label columns."""
    table = read_table(file, multi=multi, text=TEXT_NAMES)
    path = next((name for name in PATH_NAMES if name in table.columns), None)
    if path is None:
        raise InputError(f"{file.name}: needs a column named path, but has {', '.join(table.columns)}")
    start = next((name for name in START_NAMES if name in table.columns), None)
    length = next((name for name in LENGTH_NAMES if name in table.columns), None)
    for name in (start, length):
        if name is not None and not is_number(table[name].dtype) and table[name].null_count() < len(table):
            raise InputError(f"{file.name}: column {name!r} must hold seconds, such as 12.5")
    columns = [name for name in table.columns if name not in (path, start, length)]
    check_label_columns(file, columns)

    folder = file.absolute().parent
    tracks: dict[str, str] = {}
    spans: dict[str, list[tuple[tuple[float, float | None], dict[str, Any]]]] = {}
    for number, row in enumerate(table.iter_rows(named=True), start=2):
        if row[path] is None:
            raise InputError(f"{file.name}, row {number}: has no path")
        span = (float(row[start] or 0.0) if start else 0.0, float(row[length]) if length and row[length] is not None else None)
        labels = {name: row[name] for name in columns if row[name] is not None}
        source = to_source(listed_path(folder, str(row[path])))             # ./a.wav and a.wav are the same file
        tracks.setdefault(source, str(row[path]))
        spans.setdefault(source, []).append((span, labels))
    recordings = [
        Recording(
            source=source, track=tracks[source], spans=tuple(span for span, _ in rows),
            span_labels=tuple(labels for _, labels in rows),
        )
        for source, rows in spans.items()
    ]
    return recordings, table.select(columns)


def listed_path(folder: Path, name: str) -> Path:
    """The file that a table in `folder` lists as `name`: relative to it, below the home folder (~), or with backslashes."""
    path = as_on_disk(folder / (Path(name).expanduser() if name.startswith("~/") else name))
    if "\\" in name and not is_there(path):
        other = as_on_disk(folder / name.replace("\\", "/"))
        return other if is_there(other) and other.is_file() else path
    return path
