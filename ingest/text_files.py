"""Text, rows and lines of files in UTF-8, UTF-16 or UTF-32, with errors that name the file and the row.

The csv module is used because polars pads short rows silently; here a row of another length is an error.  Rows are numbered as
a spreadsheet shows them: the first is 1, empty ones count, and a cell with line breaks is one row.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tonelake.ingest.text_links import link_text
from tonelake.store import InputError

MAX_CELL = min(sys.maxsize, 2**31 - 1)   # characters; the csv module's own limit is 131,072, less than the lyrics of a song
MARKS = {                                # byte-order marks: the longer ones first, because UTF-32's begins with UTF-16's
    codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}
LINE_END = re.compile(r"\r\n|\r|\n")


def read_rows(path: Path, separator: str = ",") -> Iterator[list[str]]:
    """Yield the rows of a CSV file of any size, one at a time, without empty ones.

    Raises InputError, naming the file and row, if a row is not as long as the first.
    """
    width = 0
    with readable(path), path.open(encoding=encoding_of(path), newline="") as file:
        for number, row in parse_rows(path.name, file, separator, strict=False):
            width = width or len(row)
            if len(row) != width:
                raise InputError(f"{path.name}, row {number}: has {len(row)} cells, the first {width}")
            yield row


def parse_rows(
    name: str, lines: Iterable[str], separator: str, *, strict: bool = True, first: int = 1
) -> Iterator[tuple[int, list[str]]]:
    """Yield (number, cells) of each row that is not empty; `first`: number of the first row.

    `strict`: text behind a closing quote, or a quote that is never closed, is an error.  Raises InputError, naming the row.
    """
    if csv.field_size_limit() < MAX_CELL:
        csv.field_size_limit(MAX_CELL)   # a limit of the whole process; it is only ever raised
    reader = csv.reader(lines, delimiter=separator, strict=strict, skipinitialspace=strict)
    number = first
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{name}, row {number}: is not CSV ({error}). Put cells that contain quotes in quotes, doubling the inner ones"
            ) from error
        if row is None:
            return
        if any(row):
            yield number, row
        number += 1


def read_text(path: Path) -> str:
    """The text of a file without its byte-order mark, line ends unchanged.  Raises InputError, naming the file and row."""
    with readable(path):
        data = path.read_bytes()
        encoding = encoding_of(path)
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            row = len(LINE_END.split(error.object[: error.start].decode(encoding, "replace")))
            raise _not_text(f"{path.name}, row {row}", encoding, error) from error


def read_lines(path: Path) -> list[str]:
    """Lines of a text file, ended by CR, LF or both.  Raises InputError, naming the file."""
    lines = LINE_END.split(read_text(path))
    return lines[:-1] if lines[-1] == "" else lines


def encoding_of(path: Path) -> str:
    """UTF-16 or UTF-32 if the file starts with the byte-order mark of one, else UTF-8 with or without a mark."""
    with path.open("rb") as file:
        head = file.read(4)
    return next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "utf-8-sig")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise InputError, naming the file, instead of errors of reading, decoding and parsing it, or if it is a text link."""
    target = link_text(path)
    if target is not None:
        raise InputError(
            f"{path.name}: is a link to {target} that was unpacked as text. Put that file in its place, or unpack the archive "
            "where links can be made"
        )
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeError as error:
        raise _not_text(path.name, encoding_of(path), error) from error
    except csv.Error as error:
        raise InputError(f"{path.name}: is not a CSV file: {error}") from error


def _not_text(where: str, encoding: str, error: UnicodeError) -> InputError:
    byte = f" (byte {error.start})" if isinstance(error, UnicodeDecodeError) else ""
    name = encoding.removesuffix("-sig").upper()
    return InputError(f"{where}: is not {name} text{byte}. Save it as 'CSV UTF-8'")


def lines_of(text: str) -> io.StringIO:
    """Text as an iterable of lines with their ends, CR, LF or both, as the csv module needs it."""
    return io.StringIO(text, newline="")
