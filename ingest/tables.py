"""Read CSV files made by people into typed polars columns.

Separators: comma, semicolon, tab or bar; encodings: UTF-8 or UTF-16.  A column becomes numeric only if every value is a
number that would print the same again, so `007` stays text.  polars' own reader is not used: it pads short rows silently.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tonelake.ingest.text_files import encoding_of, readable
from tonelake.store import DTYPES, InputError, to_nfc

MAX_BYTES = 512 << 20
SEPARATORS = ",;\t|"
INTEGER = re.compile(r"0|-?[1-9]\d{0,17}", re.ASCII)
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def read_table(path: Path, *, multi: Sequence[str] = (), text: Sequence[str] = ()) -> pl.DataFrame:
    """A CSV file with a header as a frame; empty cells are null; column names are in lower case with '_'.

    Columns named in `multi` become lists, split at `|` or `;`.  Those in `text` stay text even if every value is a number: a
    file may be named `1.50`.  Raises InputError, naming the file and row.
    """
    rows = _rows(path)
    header = [label_name(name) for name in rows[0]]
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise InputError(f"{path.name}: two columns are named {', '.join(doubled)}")
    absent = sorted(set(multi) - set(header))
    if absent:
        raise InputError(f"{path.name}: has no column {', '.join(absent)} to split, but has {', '.join(header)}")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise InputError(f"{path.name}, row {number}: has {len(row)} cells, the header {len(header)}")
    columns = {}
    for i, name in enumerate(header):
        cells = [row[i].strip() or None for row in rows[1:]]
        stays_text = name in text and name not in multi
        columns[name] = pl.Series(cells, dtype=pl.String) if stays_text else typed(cells, split=name in multi)
    return pl.DataFrame(columns)


def typed(cells: list[str | None], *, split: bool = False) -> pl.Series:
    """Cells as integers, floats or text, whichever fits all of them; as lists of text if `split`.

    >>> typed(["1", None, "3"]).dtype, typed(["007"]).dtype, typed(["1", "2.5"]).dtype
    (Int64, String, Float64)
    """
    if split:
        return pl.Series(
            [None if c is None else [p.strip() for p in re.split(r"[|;]", c) if p.strip()] for c in cells],
            dtype=DTYPES["tags"],
        )
    filled = [c for c in cells if c is not None]
    if filled and all(INTEGER.fullmatch(c) for c in filled):
        return pl.Series([None if c is None else int(c) for c in cells], dtype=DTYPES["integer"])
    if filled and all(NUMBER.fullmatch(c) and math.isfinite(float(c)) for c in filled):
        return pl.Series([None if c is None else float(c) for c in cells], dtype=DTYPES["decimal"])
    return pl.Series(cells, dtype=DTYPES["class"])


def label_name(text: str) -> str:
    """A header cell as a column name that needs no quotes in SQL.

    >>> label_name("Tempo (BPM)"), label_name("Künstler"), label_name("2nd meter")
    ('tempo_bpm', 'künstler', '_2nd_meter')
    """
    name = re.sub(r"\W+", "_", to_nfc(text).strip().lower()).strip("_")
    return f"_{name}" if not name or name[0].isdigit() else name


def _rows(path: Path) -> list[list[str]]:
    with readable(path):
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path.name}: is larger than {MAX_BYTES >> 20} MB, the limit for a table of labels")
        text = path.read_bytes().decode(encoding_of(path))
        if "\0" in text:
            raise InputError(f"{path.name}: holds NUL characters, so it is not a CSV file")
        separator = max(SEPARATORS, key=text.split("\n", 1)[0].count)
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if any(row)]
    if len(rows) < 2:
        raise InputError(f"{path.name}: has no rows below its header")
    return rows
