"""Ingest a manifest: a CSV or JSON table with one clip in each row (path, start, seconds or end) and any label columns."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from tonelake.ingest.chorale_sources import is_chorale
from tonelake.ingest.labels import PATH_NAMES, TEXT_NAMES, check_label_columns, check_labels, stored_as_text
from tonelake.ingest.number_cells import is_missing
from tonelake.ingest.recordings import Recording, ingest_recordings
from tonelake.ingest.report import IngestReport
from tonelake.ingest.sources import as_on_disk, is_there, to_source
from tonelake.ingest.tables import ListColumns, Table, list_separators, read_numbered_table
from tonelake.store import InputError, Lake

START_NAMES = ("start", "start_s", "offset")
LENGTH_NAMES = ("seconds", "duration", "duration_s")
END_NAMES = ("end", "end_s", "stop", "stop_s")
TOLERANCE_S = 0.01                       # by which a length and an end may disagree: tables round to hundredths

Span = tuple[float, float | None]        # start and length in seconds; None: to the end of the file


def ingest_manifest(
    lake: Lake, file: str | Path, *, multi: ListColumns = (), dataset: str | None = None, workers: int | None = None
) -> IngestReport:
    """Add every row of a manifest as a clip.

    Paths are relative to the manifest's folder.  A clip without start begins at 0; one without seconds and end goes to the end
    of its file.  Raises InputError, before anything is written, if the table itself is not valid.
    """
    file = Path(file).expanduser()
    recordings, labels = read_manifest(file, multi, stored_as_text(lake))
    check_labels(lake, file, labels.frame, labels.numbers)
    lake.check_writable()
    lake.ingests.record("manifest", os.path.abspath(file), {         # noqa: PTH100 - keeps links
        "multi": list_separators(multi), "dataset": dataset,
    })
    report = ingest_recordings(lake, recordings, None, dataset=dataset, workers=workers)
    return replace(report, notes=(f"{file.name}: {len(labels.numbers)} rows of {len(recordings)} files", *report.notes))


class _Row(NamedTuple):
    span: Span
    labels: dict[str, Any]
    number: int                          # in the table


@dataclass
class _File:
    """The rows of one file of a manifest, by start and length in microseconds, which make a clip's id."""

    track: str
    rows: dict[tuple[int, int | None], _Row] = field(default_factory=dict)


def read_manifest(file: Path, multi: ListColumns = (), text: Sequence[str] = ()) -> tuple[list[Recording], Table]:
    """Recordings of a manifest with their spans, in the order of their first rows; and the table's label columns.

    `text`: columns that stay text even if every value is a number.
    """
    times = (*START_NAMES, *LENGTH_NAMES, *END_NAMES)
    table, numbers = read_numbered_table(file, multi=multi, text=(*TEXT_NAMES, *times, *text))
    path, start, length, end = (
        next((name for name in names if name in table.columns), None)
        for names in (PATH_NAMES, START_NAMES, LENGTH_NAMES, END_NAMES)
    )
    if path is None:
        raise InputError(f"{file.name}: needs a column named path, but has {', '.join(table.columns)}. Rename one")
    columns = [name for name in table.columns if name not in (path, start, length, end)]
    check_label_columns(file, columns)

    folder = file.absolute().parent
    files: dict[str, _File] = {}
    for number, row in zip(numbers, table.iter_rows(named=True), strict=True):
        where = f"{file.name}, row {number}"
        if row[path] is None:
            raise InputError(f"{where}: has no path. Name the audio file")
        if is_chorale(str(row[path])):
            raise InputError(
                f"{where}: {row[path]} is rendered, not a file. Run `tonelake ingest chorales --labels {file.name}`, with a "
                "column piece, bwv or name"
            )
        span = _span(where, row, start, length, end)
        labels = {name: row[name] for name in columns}               # an empty cell empties the label
        source = to_source(listed_path(folder, str(row[path])))             # ./a.wav and a.wav are the same file
        one = files.setdefault(source, _File(str(row[path])))
        key = (round(span[0] * 1e6), None if span[1] is None else round(span[1] * 1e6))
        other = one.rows.setdefault(key, _Row(span, labels, number))
        if other.labels != labels:
            raise InputError(
                f"{where}: two different rows for {row[path]!r} from {_text(span)}, the other is row {other.number}. Delete "
                "one, or put several values of a column into one cell and name it with --multi"
            )
    recordings = [
        Recording(
            source=source, track=one.track, named_by_path=True, empties=True,
            spans=tuple(row.span for row in one.rows.values()),
            span_labels=tuple(row.labels for row in one.rows.values()),
        )
        for source, one in files.items()
    ]
    return recordings, Table(table.select(columns), numbers)


def _span(where: str, row: dict[str, Any], start: str | None, length: str | None, end: str | None) -> Span:
    """Start and length of a row.  Raises InputError if the cells of these columns are not times or contradict each other."""
    start_s = _seconds(where, row, start) or 0.0
    length_s, end_s = _seconds(where, row, length), _seconds(where, row, end)
    if end_s is None:
        return start_s, length_s
    if end_s <= start_s:
        raise InputError(f"{where}: column {end!r} must be later than the start at {start_s:g} s, not {end_s:g} s. Correct it")
    if length_s is not None and abs(start_s + length_s - end_s) > TOLERANCE_S:
        raise InputError(
            f"{where}: {length} {length_s:g} s and {end} {end_s:g} s contradict each other for a clip that starts at "
            f"{start_s:g} s. Delete one of the two columns"
        )
    return start_s, round(end_s - start_s, 6) if length_s is None else length_s


def _seconds(where: str, row: dict[str, Any], column: str | None) -> float | None:
    """The time in a cell; None for an empty one.  Raises InputError if it is not a finite number."""
    if column is None or is_missing(row[column]):
        return None
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: column {column!r} must hold seconds, such as 12.5, not {row[column]!r}. Correct it")
    return value


def _text(span: Span) -> str:
    start_s, length_s = span
    return f"{start_s:g} s to the end" if length_s is None else f"{start_s:g} to {start_s + length_s:g} s"


def listed_path(folder: Path, name: str) -> Path:
    """The file that a table in `folder` lists as `name`: relative to it, below the home folder (~), or with backslashes."""
    path = as_on_disk(folder / (Path(name).expanduser() if name.startswith("~/") else name))
    if "\\" in name and not is_there(path):
        other = as_on_disk(folder / name.replace("\\", "/"))
        return other if is_there(other) and other.is_file() else path
    return path
