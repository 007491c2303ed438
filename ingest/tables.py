"""Read tables made by people and programs, in CSV or JSON, into typed polars columns.

Separators: comma, semicolon, tab, bar, or the one that a first line `sep=;` names; encodings: UTF-8, UTF-16 or UTF-32; line
ends: LF, CRLF or CR.  `ingest.number_cells` decides which columns are numeric.  polars' own reader is not used: it pads short
rows silently.  JSON is read by `ingest.json_tables`.
"""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import polars as pl

from tonelake.ingest.json_tables import JSON_SUFFIXES, Cell, read_json_rows
from tonelake.ingest.number_cells import is_missing, number_series
from tonelake.ingest.text_files import LINE_END, lines_of, parse_rows, read_text, readable
from tonelake.store import DTYPES, InputError, to_nfc

MAX_BYTES = 512 << 20
SEPARATORS = ",;\t|"
LIST_SEPARATORS = re.compile(r"[|;]")    # of a list column without a separator of its own
SEPARATOR_LINE = re.compile(r"\"?sep=(?P<separator>\\t|[^\r\n\"])\"?[,;\t|]*(?=[\r\n])", re.IGNORECASE)     # for Excel
QUOTED_CELL = re.compile(r"(^|[,;\t|]) *\"(?:[^\"]|\"\")*\"")
UNNAMED = re.compile(r"_|unnamed_\d+(_\d+|_level_\d+)*")            # no letter or digit, or pandas' name for none
WHOLE_NUMBERS = re.compile(r"\d+(\.0)?", re.ASCII)
MAX_HEADER = 1 << 20                     # characters in which the separator is looked for
WORKBOOK = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")                      # .xlsx, .ods; .xls
log = logging.getLogger(__name__)

ListColumns = Sequence[str] | Mapping[str, str | None]


class Table(NamedTuple):
    """Columns of a table, and the number of each row in its file."""

    frame: pl.DataFrame
    numbers: list[int]


class _Cells(NamedTuple):
    """The cells of a file: the header, and the rows below it, each with its number."""

    header_number: int
    header: list[str]
    numbers: list[int]
    rows: list[list[str]] | list[list[Cell]]

    def column(self, at: int) -> list[Cell]:
        """The cells of a column; None for empty ones."""
        cells = (row[at] if at < len(row) else None for row in self.rows)
        return [(cell.strip() or None) if isinstance(cell, str) else cell for cell in cells]


def read_table(path: Path, *, multi: ListColumns = (), text: Sequence[str] = ()) -> pl.DataFrame:
    """A CSV file with a header, or a JSON file, as a frame; empty cells are null; column names are in lower case with '_'.

    `multi`: columns that become lists, split at `|` or `;`; `tags=,` or {"tags": ","} names another separator.  Those in `text`
    stay text even if every value is a number: a file may be named `1.50`.  Columns without a name are left out.
    Raises InputError, naming the file and row.
    """
    return read_numbered_table(path, multi=multi, text=text).frame


def read_numbered_table(path: Path, *, multi: ListColumns = (), text: Sequence[str] = ()) -> Table:
    """Like `read_table`, with the number of each row for errors."""
    cells = _Cells(1, *read_json_rows(path)) if path.suffix.lower() in JSON_SUFFIXES else _read_cells(path)
    if not cells.rows:
        raise InputError(f"{path.name}: has no rows. Add one for each file")
    separators = list_separators(multi)
    columns = _named_columns(path.name, cells)
    absent = sorted(set(separators) - set(columns))
    if absent:
        raise InputError(f"{path.name}: has no column {', '.join(absent)} to split. Choose one of {', '.join(columns)}")
    found = {name: _series(path.name, name, cells.column(at), separators, text) for name, at in columns.items()}
    return Table(pl.DataFrame(found), cells.numbers)


def _series(
    file: str, name: str, cells: list[Cell], separators: Mapping[str, str | None], text: Sequence[str]
) -> pl.Series:
    """One column: lists if it is named in `separators` or a cell is a list, text if it is named in `text`, else as `typed`."""
    texts = [cell if isinstance(cell, str) else None for cell in cells]
    lists = [cell if isinstance(cell, list) else None for cell in cells]
    if name in separators:
        if separators[name] is None:
            _warn_of_commas(file, name, texts)
        split = split_cells(texts, separators[name]).to_list()
    elif any(cell is not None for cell in lists):
        split = [None if cell is None else [cell] for cell in texts]
    else:
        return pl.Series(texts, dtype=pl.String) if name in text else typed(texts)
    return pl.Series([parts if cell is None else cell for cell, parts in zip(lists, split, strict=True)], dtype=DTYPES["tags"])


def list_separators(multi: ListColumns) -> dict[str, str | None]:
    """Column names of list columns with their separators; None: `|` or `;`.  Raises InputError if a separator is empty.

    >>> list_separators(["tags", "Mood words=, "]), list_separators({"tags": "/"})
    ({'tags': None, 'mood_words': ', '}, {'tags': '/'})
    """
    if isinstance(multi, str):
        multi = [multi]
    pairs = list(multi.items()) if isinstance(multi, Mapping) else [_split_option(option) for option in multi]
    empty = [name for name, separator in pairs if separator == ""]
    if empty:
        raise InputError(f"--multi {empty[0]}=: names no separator. Write it behind the sign, as in --multi \"{empty[0]}=,\"")
    return {label_name(name): separator for name, separator in pairs}


def typed(cells: list[str | None]) -> pl.Series:
    """Cells as integers or decimal numbers if that loses nothing, else as text.

    >>> typed(["1", None, "3"]).dtype, typed(["007"]).dtype, typed(["1", "2.5"]).dtype
    (Int64, String, Float64)
    """
    if all(map(is_missing, cells)):
        return pl.Series([None] * len(cells), dtype=DTYPES["class"])
    numbers = number_series(cells)
    return pl.Series(cells, dtype=DTYPES["class"]) if numbers is None else numbers


def split_cells(cells: Sequence[str | None], separator: str | None = None) -> pl.Series:
    """Cells as lists of text, split at a separator; None: at `|` or `;`, or lists as pandas writes them.  No part is empty.

    >>> split_cells(["a|b; c", None]).to_list(), split_cells(["a; b, c"], ",").to_list(), split_cells(["['a', 'b']"]).to_list()
    ([['a', 'b', 'c'], None], [['a; b', 'c']], [['a', 'b']])
    """
    def parts(cell: str) -> list[str]:
        if separator is not None:
            return cell.split(separator)
        listed = _literal_list(cell)
        return LIST_SEPARATORS.split(cell) if listed is None else listed

    return pl.Series(
        [None if cell is None else [part for one in parts(cell) if (part := one.strip())] for cell in cells],
        dtype=DTYPES["tags"],
    )


def label_name(text: str) -> str:
    """A header cell as a column name that needs no quotes in SQL.

    >>> label_name("Tempo (BPM)"), label_name("Künstler"), label_name("2nd meter")
    ('tempo_bpm', 'künstler', '_2nd_meter')
    """
    name = re.sub(r"\W+", "_", to_nfc(text).strip().lower()).strip("_")
    return f"_{name}" if not name or name[0].isdigit() else name


def _read_cells(path: Path) -> _Cells:
    """The cells of a file.  Raises InputError unless there is a header and at least one row."""
    with readable(path):
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path.name}: is larger than {MAX_BYTES >> 20} MB, the limit for a table of labels. Split it")
        with path.open("rb") as file:
            if file.read(4) in WORKBOOK:
                raise InputError(f"{path.name}: is a workbook, not a CSV file. Save it as 'CSV UTF-8'")
    text = read_text(path)
    if "\0" in text:
        row = len(LINE_END.split(text[: text.index("\0")]))
        raise InputError(f"{path.name}, row {row}: holds NUL characters, so it is not a CSV file. Save it as 'CSV UTF-8'")
    named = SEPARATOR_LINE.match(text)
    if named:
        separators, first = [named["separator"].replace("\\t", "\t")], 2
        text = LINE_END.split(text, maxsplit=1)[1]
    else:
        separators, first = find_separators(text), 1
    parsed = _parse(path.name, text, separators, first)
    if len(parsed) < 2:
        raise InputError(f"{path.name}: has no rows below its header. Add one for each file")
    numbers, rows = [number for number, _ in parsed], [row for _, row in parsed]
    return _Cells(numbers[0], rows[0], numbers[1:], rows[1:])


def find_separators(text: str) -> list[str]:
    """Separators that the first line holds outside quotes, the most frequent one first; `,` if there is none.

    >>> find_separators('"a, b, c";d'), find_separators("a,b;c,d"), find_separators("a")
    ([';'], [',', ';'], [','])
    """
    outside = QUOTED_CELL.sub(r"\1", text.lstrip("\r\n")[:MAX_HEADER])
    line = LINE_END.split(outside, maxsplit=1)[0]
    found = [separator for separator in SEPARATORS if separator in line]
    return sorted(found, key=line.count, reverse=True) or [","]


def _parse(name: str, text: str, separators: list[str], first: int) -> list[tuple[int, list[str]]]:
    """Numbered rows, split at the first separator that gives every row as many cells as the header, else at the first one."""
    errors: list[InputError] = []
    for separator in separators:
        try:
            rows = list(parse_rows(name, lines_of(text), separator, first=first))
            _check_widths(name, rows)
            return rows
        except InputError as error:
            errors.append(error)
    raise errors[0]


def _check_widths(name: str, rows: list[tuple[int, list[str]]]) -> None:
    """Raise InputError unless every row has a cell for each named column, and no others that are not empty.

    Excel leaves out separators at the end of some rows if the last columns are empty.
    """
    if not rows:
        return
    header = rows[0][1]
    needed = max((at + 1 for at, cell in enumerate(header) if cell.strip()), default=0)
    for number, row in rows[1:]:
        if len(row) < needed or any(cell.strip() for cell in row[len(header) :]):
            raise InputError(
                f"{name}, row {number}: has {len(row)} cells, the header {len(header)}. Give every row a cell for each column, "
                "and put cells that contain the separator in quotes"
            )


def _named_columns(file: str, cells: _Cells) -> dict[str, int]:
    """Positions of the columns that have a name.  Others are left out, with a warning if they hold more than row numbers."""
    columns: dict[str, int] = {}
    for at, written in enumerate(cells.header):
        name = label_name(written)
        if not UNNAMED.fullmatch(name):
            if name in columns:
                raise InputError(
                    f"{file}, row {cells.header_number}: two columns are named {name} ({cells.header[columns[name]].strip()!r} "
                    f"and {written.strip()!r}). Rename one"
                )
            columns[name] = at
            continue
        first = not columns              # a running number, as pandas and R write it
        filled = [(number, cell) for number, cell in zip(cells.numbers, cells.column(at), strict=True) if cell is not None]
        if filled and not (first and all(WHOLE_NUMBERS.fullmatch(str(cell)) for _, cell in filled)):
            log.warning(
                "%s: column %d has no name and is left out, although row %d has %r there. Name it in the header to keep it",
                file, at + 1, *filled[0],
            )
    return columns


def _split_option(option: str) -> tuple[str, str | None]:
    """Name and separator of an option such as `tags` or `tags=,`."""
    name, sign, separator = option.partition("=")
    return name, separator.replace("\\t", "\t") if sign else None


def _literal_list(cell: str) -> list[str] | None:
    """The values of a list written as JSON or by Python's `str`; None if the cell holds none."""
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            values = parse(cell)
            if isinstance(values, list) and all(isinstance(value, str | int | float) for value in values):
                return [str(value) for value in values]
    return None


def _warn_of_commas(file: str, column: str, cells: Sequence[str | None]) -> None:
    """Log a warning if a list column looks as if its values were separated by commas, and none is split."""
    filled = [cell for cell in cells if cell is not None]
    if any("," in cell for cell in filled) and not any(LIST_SEPARATORS.search(cell) for cell in filled):
        log.warning(
            "%s: no value of column %r holds | or ;, but some hold commas. If they separate values, use --multi \"%s=,\"",
            file, column, column,
        )
