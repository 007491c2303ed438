"""Recognise columns of numbers among the text cells of a table, without losing what the cells say.

A column is numeric only if every cell, printed again from its number with as many decimals, is the same text, and no two
different cells are the same number.  So `007`, opus `2.10` beside `2.1`, hashes such as `12e3` and ids of 20 digits stay text.
Markers of missing values, as pandas, R and Excel write them, are empty cells of a numeric column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import polars as pl

from tonelake.store import DTYPES

INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
# An exponent needs a sign, as printf, Python and R write it: `1e5` may be an identifier.
NUMBER = re.compile(r"(?P<sign>-?)(?P<whole>0|[1-9]\d*|(?=\.\d))(\.(?P<decimals>\d+))?(?P<exponent>[eE][+-]\d+)?", re.ASCII)
MISSING = frozenset({
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN",
    "None", "n/a", "nan", "null", "\\N",
})                                       # those of pandas.read_csv, and MySQL's
MAX_INTEGER = 2**63 - 1


def number_series(cells: Sequence[str | None]) -> pl.Series | None:
    """Cells as integers or decimal numbers; None if they stay text.  Whole numbers with `.0` beside empty cells are integers,
    because pandas writes integers so.

    >>> number_series(["3.0", None, "4.0"]).to_list(), number_series([".5", "nan", "1"]).to_list()
    ([3, None, 4], [0.5, None, 1.0])
    >>> number_series(["2.1", "2.10"]), number_series(["007"]), number_series(["1e5"]), number_series(["NA", "rock"])
    (None, None, None, None)
    """
    filled = [None if cell in MISSING else cell for cell in cells]
    distinct = {cell for cell in filled if cell is not None}
    if not distinct:
        return None
    values: dict[str, int] | dict[str, float] | None = _integers(distinct, whole=None in filled)
    kind = DTYPES["integer"]
    if values is None:
        values, kind = _decimals(distinct), DTYPES["decimal"]
    if values is None or len(set(values.values())) < len(distinct):
        return None
    return pl.Series([None if cell is None else values[cell] for cell in filled], dtype=kind)


def is_missing(cell: str | None) -> bool:
    """Whether a cell of a numeric column is empty or holds a marker of a missing value."""
    return cell is None or cell in MISSING


def _integers(cells: set[str], whole: bool) -> dict[str, int] | None:
    """The integer of each cell; None if one is none.  `whole`: accept `3.0` if every cell is of that form."""
    if whole and all(cell.endswith(".0") for cell in cells):
        names = {cell: cell.removesuffix(".0") for cell in cells}
    else:
        names = {cell: cell for cell in cells}
    if not all(INTEGER.fullmatch(name) for name in names.values()):
        return None
    values = {cell: int(name) for cell, name in names.items()}
    return values if all(-MAX_INTEGER <= value <= MAX_INTEGER for value in values.values()) else None


def _decimals(cells: set[str]) -> dict[str, float] | None:
    """The number of each cell; None if one is not a number, or would not be printed as it is."""
    if all(cell.removeprefix("-").isdecimal() for cell in cells):    # integers that do not fit
        return None
    values: dict[str, float] = {}
    lengths, trailing_zero = set(), False
    for cell in cells:
        match = NUMBER.fullmatch(cell)
        value = float(cell) if match else math.nan
        if match is None or not math.isfinite(value) or not _prints_as(value, match):
            return None
        decimals = match["decimals"] or ""
        if decimals and not match["exponent"]:
            lengths.add(len(decimals))
            trailing_zero |= decimals.endswith("0") and decimals != "0"
        values[cell] = value
    # A trailing zero belongs to numbers printed with a fixed number of decimals; elsewhere it distinguishes 2.10 from 2.1.
    return None if trailing_zero and len(lengths) > 1 else values


def _prints_as(value: float, match: re.Match[str]) -> bool:
    """Whether a number, printed with the decimals of its cell, is the cell."""
    places = len(match["decimals"] or "")
    if not match["exponent"]:
        whole = match["whole"] or "0"
        return f"{value:.{places}f}" == f"{match['sign']}{whole}" + (f".{match['decimals']}" if places else "")
    mantissa, exponent = f"{value:.{places}e}".split("e")
    digits = f"{match['sign']}{match['whole']}" + (f".{match['decimals']}" if places else "")
    return digits == mantissa and int(match["exponent"][1:]) == int(exponent)
