"""Read label columns from a table and join them to files by path, stem or track, or to other sources by keys of theirs."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl

from tonelake.ingest.tables import ListColumns, read_numbered_table
from tonelake.store import DTYPES, FIXED_COLUMNS, SETTABLE_COLUMNS, InputError, Lake, to_nfc

PATH_NAMES = ("path", "file", "filename", "file_name", "filepath", "source")
KEY_NAMES = (*PATH_NAMES, "stem", "track")
TEXT_NAMES = (*PATH_NAMES, *SETTABLE_COLUMNS)


class Labels:
    """Rows of labels by key, and how many files each of them has matched so far."""

    keys: tuple[str, ...] = KEY_NAMES    # names of a key column, by precedence
    keys_text = "path, stem or track"    # in an error
    noun = "file"                        # that a row is matched with

    def __init__(self, file: Path, *, multi: ListColumns = (), text: Sequence[str] = ()) -> None:
        """Read a table.  Its key column is the first that is named path (file, filename), stem or track.

        `text`: columns that stay text even if every value is a number.
        """
        table, numbers = read_numbered_table(file, multi=multi, text=(*TEXT_NAMES, *self.keys, *text))
        key = next((name for name in self.keys if name in table.columns), None)
        if key is None:
            raise InputError(
                f"{file.name}: needs a column named {self.keys_text} to match {self.noun}s by, but has "
                f"{', '.join(table.columns)}. Rename one"
            )
        self.file, self._numbers = file, numbers
        self.kind = "path" if key in PATH_NAMES else key
        self.table = table.drop(key)
        check_label_columns(file, self.table.columns)
        self._rows: dict[str, dict[str, Any]] = {}
        self._written: dict[str, str] = {}                           # the cell of each key
        first: dict[str, int] = {}                                   # number of the row by key
        for number, row in zip(numbers, table.iter_rows(named=True), strict=True):
            name = row.pop(key)
            if name is None:
                continue
            cell, name = str(name), self.key_form(str(name))
            if self._rows.setdefault(name, row) != row:
                raise InputError(
                    f"{file.name}, row {number}: two different rows for {self.kind} {name!r}, the other is row {first[name]}. "
                    "Delete one, or put several values of a column into one cell and name it with --multi"
                )
            first.setdefault(name, number)
            self._written.setdefault(name, cell)
        self._matched: Counter[str] = Counter()                      # number of files by key

    def key_form(self, cell: str) -> str:
        """The key in a cell, in the form by which `find` looks it up."""
        return to_nfc(str(PurePosixPath(cell.replace("\\", "/"))) if self.kind == "path" else cell)

    def check(self, lake: Lake) -> None:
        """Raise InputError, naming the row, if a value cannot be stored in its column of the lake."""
        check_labels(lake, self.file, self.table, self._numbers)

    def match(self, path: Path, track: str) -> dict[str, Any]:
        """The labels of one file, None for an empty cell; {} if no row matches it.

        `track`: its path below the ingested folder.
        """
        relative = PurePosixPath(track)
        if self.kind == "track":
            keys = [track, str(relative.with_suffix(""))]
        elif self.kind == "stem":
            keys = [path.stem]
        else:
            keys = [str(path), track, path.name, path.stem]
        return self.find(map(to_nfc, keys))

    def find(self, keys: Iterable[str]) -> dict[str, Any]:
        """The labels of one file by the first of these keys that a row has, None for an empty cell; {} if no row has one."""
        for key in keys:
            if key in self._rows:
                self._matched[key] += 1
                return dict(self._rows[key])
        return {}

    def report(self, files: int) -> str:
        """One line on how many rows matched, and which matched more than one file.  Raises InputError if none matched."""
        matched, total = len(self._matched), len(self._rows)
        if not matched:
            raise InputError(
                f"{self.file.name}: none of its {total} rows matches any of {files} {self.noun}s by {self.kind}; the first is "
                f"{next(iter(self._written.values()), '')!r}. Nothing was ingested"
            )
        unmatched = [self._written[key] for key in self._rows if key not in self._matched]
        rest = f"; without a {self.noun}: {', '.join(unmatched[:3])}{' …' if len(unmatched) > 3 else ''}" if unmatched else ""
        several = [self._written[key] for key, count in self._matched.items() if count > 1]
        if several:
            names = f"{', '.join(several[:3])}{' …' if len(several) > 3 else ''}"
            rest += f"; labels applied to several {self.noun}s of the same name: {names}"
        return f"{self.file.name}: {matched} of {total} rows matched by {self.kind}{rest}"


def check_label_columns(file: Path, columns: Sequence[str]) -> None:
    """Raise InputError if a table has columns that tonelake itself fills."""
    taken = [name for name in columns if name in FIXED_COLUMNS and name not in SETTABLE_COLUMNS]
    if taken:
        raise InputError(f"{file.name}: {', '.join(taken)} cannot be label columns, because tonelake fills them. Rename them")


def check_labels(lake: Lake, file: Path, table: pl.DataFrame, numbers: Sequence[int]) -> None:
    """Raise InputError, naming the row, if a value of a table cannot be stored in its column of the lake."""
    try:
        lake.clips.check_labels(table)
    except InputError as error:
        def fits(rows: int) -> bool:
            try:
                lake.clips.check_labels(table.head(rows))
            except InputError:
                return False
            return True

        wrong = bisect_left(range(len(table) + 1), True, key=lambda rows: not fits(rows))      # the shortest head that fails
        if not wrong:                    # the name of a column
            raise InputError(f"{file.name}: {error}") from error
        raise InputError(f"{file.name}, row {numbers[wrong - 1]}: {_reason(lake, table.slice(wrong - 1, 1), error)}") from error


def _reason(lake: Lake, row: pl.DataFrame, error: InputError) -> str:
    """Why one row cannot be stored, else the reason for the whole table."""
    try:
        lake.clips.check_labels(row)
    except InputError as reason:
        return str(reason)
    return str(error)


def stored_as_text(lake: Lake) -> list[str]:
    """Label columns that the lake stores as text: a table whose values happen to be numbers must not change their spelling."""
    names = lake.clips.label_columns()
    schema = lake.clips.read(names, where="false").schema if names else {}
    return [name for name, dtype in schema.items() if dtype == DTYPES["class"]]
