"""Rows of numbers and labels in text files, as annotators and programs write them.

    0.511    1            beats, separated by spaces, tabs, semicolons or commas
    0,511;1               decimal commas, where no number of the file has a decimal point
    0.0  2.61  A:min7     spans with a label, which may contain spaces
    12.5  Verse           boundaries: a span lasts until the next row

UTF-8, UTF-16 and UTF-32, any line ends.  Empty lines and those that begin with #, % or // are left out, and so is a header: a
first row that does not begin with a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tonelake.ingest.events.label_events import TO_THE_END
from tonelake.ingest.text_files import read_lines, readable
from tonelake.store import InputError

MAX_BYTES = 16 << 20                     # a row of 20 bytes for every 0.1 s of a day
COMMENTS = ("#", "%", "//")
SEPARATOR = r"(?:\s*[;,\t]\s*|\s+|$)"
POINT = re.compile(rf'"?([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?i:nan|inf|infinity))"?{SEPARATOR}')
COMMA = re.compile(r'"?([-+]?(?:\d+,?\d*|,\d+)(?:[eE][-+]?\d+)?|[-+]?(?i:nan|inf|infinity))"?(?:\s*[;\t]\s*|\s+|$)')
LAST_BOUNDARY = frozenset({"end", "fin", "eof"})         # labels of a last row that only says where the one before ends


class TextRow(NamedTuple):
    """One row: the numbers that it begins with, and the text behind them."""

    number: int                          # of the row in its file, from 1
    numbers: tuple[float, ...]
    text: str


def read_number_rows(path: Path, most: int, *, alone: bool = False) -> list[TextRow]:
    """Rows with the first `most` numbers of each.  `alone`: times are the only numbers, so a comma between digits is decimal.

    Raises InputError, naming the file and row, if a row other than a header begins with no number.
    """
    lines = read_label_lines(path)
    pattern = COMMA if has_decimal_commas([line for _, line in lines], alone) else POINT
    rows = []
    for position, (number, line) in enumerate(lines):
        row = split_row(number, line, pattern, most)
        if not row.numbers:
            if position == 0 and len(lines) > 1:
                continue
            raise InputError(f"{path.name}, row {number}: begins with {line[:40]!r}, not with a time in seconds. Correct it")
        rows.append(row)
    return rows


def read_label_lines(path: Path) -> list[tuple[int, str]]:
    """(number, text) of the lines that are neither empty nor comments.  Raises InputError, naming the file."""
    with readable(path):
        size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"{path.name}: has {size / 2**20:.0f} MB; label files are read up to {MAX_BYTES >> 20} MB. Split it")
    numbered = ((number, line.strip()) for number, line in enumerate(read_lines(path), start=1))
    return [(number, line) for number, line in numbered if line and not line.startswith(COMMENTS)]


def split_row(number: int, line: str, pattern: re.Pattern[str], most: int) -> TextRow:
    """
    >>> split_row(1, '0.5\\t1e1 "Verse 1, long"', POINT, 2)
    TextRow(number=1, numbers=(0.5, 10.0), text='Verse 1, long')
    """
    numbers: list[float] = []
    at = 0
    while at < len(line) and len(numbers) < most and (match := pattern.match(line, at)) is not None:
        numbers.append(float(match[1].replace(",", ".")))
        at = match.end()
    text = line[at:].strip().strip('"').strip()
    return TextRow(number, tuple(numbers), text)


def has_decimal_commas(lines: Sequence[str], alone: bool = False) -> bool:
    """Whether commas are decimal in numbers, rather than between them.  `alone`: see `read_number_rows`.

    >>> has_decimal_commas(["0,5 1", "1,25 2"]), has_decimal_commas(["0.5,1"]), has_decimal_commas(["1,2", "2,3"])
    (True, False, False)
    >>> has_decimal_commas(["1,02", "2,31"]), has_decimal_commas(["1,2", "2,3"], alone=True)
    (True, True)
    """
    firsts = [re.split(r"[\s;]", line, maxsplit=1)[0] for line in lines]
    if any(re.match(r'"?[-+]?\d*\.\d', line) for line in lines):
        return False
    decimal = [first for first in firsts if re.fullmatch(r'"?[-+]?\d*,\d+"?', first)]
    if not decimal:
        return False
    if alone or any(re.search(r"[\s;]", line) for line in lines):
        return True
    return any(len(first.strip('"').partition(",")[2]) > 1 for first in decimal)         # no bar has ten beats and more


def read_spans(path: Path) -> list[tuple[float, float, str]]:
    """(start, end, label) of each row: start, end and label, or boundaries with the label of what begins there.

    A third number is left out if every row has one before its label, as Isophonics' sections have.  The last boundary lasts
    until the recording ends, or is only an end if its label is `end`.
    Raises InputError, naming the file and row, for rows of different forms.
    """
    rows = read_number_rows(path, 3)
    if not all(len(row.numbers) == 3 and row.text for row in rows):  # else the third number is a label, or its beginning
        rows = read_number_rows(path, 2)
    short = [row for row in rows if len(row.numbers) == 1]
    if not short:
        return [(row.numbers[0], row.numbers[1], row.text) for row in rows]
    if len(short) < len(rows):
        row = short[0]
        raise InputError(f"{path.name}, row {row.number}: has one time, other rows have two. Give each a start and an end")
    if any(not row.text for row in rows):
        row = next(row for row in rows if not row.text)
        raise InputError(f"{path.name}, row {row.number}: has a time and no label. Give each row a label")
    rows = sorted(rows, key=lambda row: row.numbers[0])
    ends = [row.numbers[0] for row in rows[1:]] + [TO_THE_END]
    spans = [(row.numbers[0], end, row.text) for row, end in zip(rows, ends, strict=True)]
    return spans[:-1] if rows[-1].text.casefold() in LAST_BOUNDARY and len(spans) > 1 else spans
