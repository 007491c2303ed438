"""Rows and lines of text files in UTF-8 or UTF-16, with errors that name the file.

The csv module is used because polars pads short rows silently; here a row of another length is an error.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tonelake.store import InputError


def read_rows(path: Path, separator: str = ",") -> Iterator[list[str]]:
    """Yield the rows of a CSV file of any size, one at a time.

    Raises InputError, naming the file and row, if a row is not as long as the first.
    """
    width = 0
    with readable(path), path.open(encoding=encoding_of(path), newline="") as file:
        for number, row in enumerate(csv.reader(file, delimiter=separator), start=1):
            width = width or len(row)
            if row and len(row) != width:
                raise InputError(f"{path.name}, row {number}: has {len(row)} cells, the first {width}")
            if row:
                yield row


def read_lines(path: Path) -> list[str]:
    """Lines of a text file.  Raises InputError, naming the file."""
    with readable(path):
        return path.read_text(encoding=encoding_of(path)).splitlines()


def encoding_of(path: Path) -> str:
    """UTF-16 if the file starts with its byte-order mark, else UTF-8 with or without one."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise InputError, naming the file, instead of errors of reading, decoding and parsing it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeError as error:
        where = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
        raise InputError(f"{path.name}: is not UTF-8 text{where}. Save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise InputError(f"{path.name}: is not a CSV file: {error}") from error
