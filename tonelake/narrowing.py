"""Chosen values of columns -> an SQL filter over clips, made of literals; what a user or a program sends is never SQL.

Values are text, as in an address.  Values of one column are alternatives; a year can be a range such as 1990-1999.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import polars as pl

from tonelake import Lake
from tonelake.shelf import is_range
from tonelake.store import element_kind, is_list, quote

YEARS = re.compile(r"(-?\d{1,6})?-(-?\d{1,6})?")


def condition_on(lake: Lake, column: str, chosen: Sequence[str]) -> str | None:
    """Return the SQL of the chosen values of a column; None if none of them can be a value of it."""
    kind = lake.clips.read([column], where="false").schema[column]
    if is_range(lake, column) and (found := next((YEARS.fullmatch(value) for value in chosen if "-" in value), None)):
        ends = [f"{column} {sign} {int(end)}" for sign, end in ((">=", found[1]), ("<=", found[2])) if end]
        return f"({' AND '.join(ends)})" if ends else None
    literals = [text for value in chosen if (text := literal(value, kind)) is not None]
    if not literals:
        return None
    if is_list(kind):
        return f"({' OR '.join(f'array_has({column}, {text})' for text in literals)})"
    condition = f"{column} IN ({', '.join(literals)})"
    if column == "artist" and "artists" in lake.clips.columns():        # a song's several artists, each a value
        condition += "".join(f" OR array_has(artists, {text})" for text in literals)
    return f"({condition})"


def literal(value: str, kind: Any) -> str | None:
    """Return a chosen value as an SQL literal of a column's type; None if it cannot be one.

    >>> literal("Guns N' Roses", pl.String), literal("1990", pl.Int64), literal("x", pl.Int64), literal("true", pl.Boolean)
    ("'Guns N'' Roses'", '1990', None, 'true')
    """
    if element_kind(kind) == "integer":
        return str(int(value)) if re.fullmatch(r"-?\d{1,18}", value) else None
    if kind == pl.Boolean or (is_list(kind) and kind.inner == pl.Boolean):
        return value if value in ("true", "false") else None
    return quote(value)
