"""Read tables in JSON: a list of objects, JSON lines, or an object of columns as pandas' `to_json` writes it.

Numbers keep the spelling of the file, so that `ingest.number_cells` decides about them as in CSV; lists are list columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tonelake.ingest.text_files import LINE_END, read_text
from tonelake.store import InputError

LINES_SUFFIXES = (".jsonl", ".ndjson")
JSON_SUFFIXES = (".json", *LINES_SUFFIXES)

Cell = str | list[str] | None


def read_json_rows(path: Path) -> tuple[list[str], list[int], list[list[Cell]]]:
    """Column names in the order of their first rows, and the rows with their numbers: of objects from 1, or of lines.

    Raises InputError, naming the file and row, if the file is not a table.
    """
    text = read_text(path)
    records = _lines(path.name, text) if path.suffix.lower() in LINES_SUFFIXES else _records(path.name, text)
    numbers, found = [], []
    names: dict[str, None] = {}
    for number, record in records:
        where = f"{path.name}, row {number}"
        if not isinstance(record, dict):
            raise InputError(f"{where}: is not an object. Give every row as one, such as {{\"path\": \"a.wav\"}}")
        found.append({str(name): _cell(where, str(name), value) for name, value in record.items()})
        numbers.append(number)
        names |= dict.fromkeys(found[-1])
    return list(names), numbers, [[row.get(name) for name in names] for row in found]


def parse_json(where: str, text: str) -> Any:
    """A JSON value whose numbers are text, as they are spelled; NaN is null.  Raises InputError, naming the place."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: is not JSON ({error}). Correct it") from error


def _lines(name: str, text: str) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each line that is not empty."""
    for number, line in enumerate(LINE_END.split(text), start=1):
        if line.strip():
            yield number, parse_json(f"{name}, row {number}", line)


def _records(name: str, text: str) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each row of a list of objects or of an object of columns."""
    value = parse_json(name, text)
    if isinstance(value, dict) and value and all(isinstance(column, dict) for column in value.values()):
        keys = dict.fromkeys(key for column in value.values() for key in column)
        value = [{name: column.get(key) for name, column in value.items()} for key in keys]
    if not isinstance(value, list):
        raise InputError(f"{name}: is not a list of objects. Write a table with `to_json(orient=\"records\")`, or as CSV")
    yield from enumerate(value, start=1)


def _cell(where: str, name: str, value: Any) -> Cell:
    """A value as text or a list of text."""
    if isinstance(value, list):
        parts = [_cell(where, name, one) for one in value]
        if any(isinstance(part, list) for part in parts):
            raise InputError(f"{where}: column {name!r} holds a list of lists. Give a list of texts or numbers")
        return [part.strip() for part in parts if isinstance(part, str) and part.strip()]
    if isinstance(value, dict):
        raise InputError(f"{where}: column {name!r} holds an object. Give a text, a number or a list")
    return value if value is None or isinstance(value, str) else str(value)
