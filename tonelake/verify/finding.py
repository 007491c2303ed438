"""One finding of `verify`, and the words of its table."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

SHOWN = 5                                # names listed in one finding
REPAIR = "tonelake verify --repair"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One problem."""

    what: str                            # clips, events, vectors, sources, index, map, vocabulary, run, space, file, format
    where: str
    problem: str
    remedy: str                          # what a person can do; what was done, if it was mended
    mended: bool = False


def as_frame(found: list[Finding]) -> pl.DataFrame:
    """One row a finding: what, where, problem, remedy, mended."""
    schema = {"what": pl.String, "where": pl.String, "problem": pl.String, "remedy": pl.String, "mended": pl.Boolean}
    return pl.DataFrame([vars(one) for one in found], schema=schema)


def first_few(names: pl.Series) -> str:
    """
    >>> first_few(pl.Series(["a", "b"])), first_few(pl.Series(["a", "b", "c", "d", "e", "f"]))
    ('a, b', 'a, b, c, d, e, …')
    """
    shown = ", ".join(str(name) for name in names.head(SHOWN))
    return shown + (", …" if len(names) > SHOWN else "")
