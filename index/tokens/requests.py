"""Requests for a continuation: conditions on each event, read from text, and events that meet as many as possible.

    token = 12        consonance >= 0.6        ratio = 1:2        artist = Nina        loudness > -20 weight 2
    3: token = 12     2-5: consonance >= 0.8   6-: artist = Nina  @3 token = 12

A condition is a name, one of OPERATORS, and a number, a ratio of two whole numbers, or text (in quotes if it has spaces at its
ends).  Names are columns of the events: their token, their features, and any column of their clips.  An event without a value
does not meet it.  Nothing of the text reaches the database.  Steps before a condition restrict it to these events of the
continuation, counted from 0 as in its column `step`; at the others it is not asked for.

Order of relaxation, at each event, among those that may be used:

1. Conditions (`want`) come first, in the order given: one is kept if an event meets it together with those kept before it.
2. Of the events that meet all that were kept, those with the longest context in common with what was played remain: any with
   `least` or more, else with fewer, down to 0.
3. Of these, those with the largest sum of weights of the preferences (`prefer`) that they meet remain.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.ratios import small_ratios
from tonelake.store import InputError, is_list, is_number

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "=": operator.eq, ">": operator.gt, "<": operator.lt,
}
CONDITION = re.compile(r"\s*([A-Za-z_][\w ]*?)\s*(>=|<=|!=|==?|>|<)\s*(.+?)\s*(?:\sweight\s+(\S+)\s*)?")
STEPS = re.compile(r"\s*(@?)\s*(\d+)\s*(?:(-)\s*(\d+)?)?\s*(:?)\s*([A-Za-z_].*)")
RATIO = re.compile(r"(\d+)\s*:\s*(\d+)")
EXAMPLE = "Write for example \"consonance >= 0.6\", \"ratio = 1:2\" or \"artist = Nina\""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition on an event."""

    text: str                            # as given, without its weight
    name: str
    symbol: str                          # one of OPERATORS
    raw: str                             # the value as text, without quotes
    number: float | None                 # the value as a number, or the quotient of a ratio; None for text
    weight: float = 1.0                  # as a preference
    steps: tuple[int, int | None] | None = None      # first and last step, None for no last one; None for every step

    def applies(self, step: int) -> bool:
        """Whether the condition is on this step of a continuation, counted from 0."""
        if self.steps is None:
            return True
        first, last = self.steps
        return first <= step and (last is None or step <= last)

    def meets(self, values: pl.Series) -> np.ndarray:
        """Return the (value,) mask of values that meet it; a list meets = and != by whether it contains the value.

        Raises InputError for text compared with numbers, and for text that is to be smaller or larger.
        """
        if is_number(values.dtype):
            if self.number is None:
                raise InputError(f"condition {self.text!r}: {self.name!r} holds numbers. Compare it with one")
            number = float(np.float32(self.number)) if values.dtype == pl.Float32 else self.number       # as it is stored
            found = OPERATORS[self.symbol](values.cast(pl.Float64).fill_nan(None), number)
        elif self.symbol not in ("=", "!="):
            raise InputError(f"condition {self.text!r}: {self.name!r} holds no numbers. Use = or !=")
        elif is_list(values.dtype):
            found = values.cast(pl.List(pl.String)).list.contains(self.raw)
            found = found if self.symbol == "=" else ~found
        else:
            found = OPERATORS[self.symbol](values.cast(pl.String), self.raw)
        return found.fill_null(False).to_numpy()

    def meets_ratio(self, quotients: np.ndarray) -> np.ndarray:
        """Return the (event,) mask of quotients of inter-onset intervals whose small ratio meets it.

        Raises InputError if the condition is on text.
        """
        if self.number is None:
            raise InputError(f"condition {self.text!r}: a ratio is compared with a ratio. Write for example \"ratio = 1:2\"")
        numerators, denominators = small_ratios(quotients)
        known = numerators > 0
        return known & OPERATORS[self.symbol](numerators / np.maximum(denominators, 1), self.number)


def parse_condition(text: str, *, weighted: bool = False) -> Condition:
    """Read one condition; `weighted` allows a weight after it.  Raises InputError for text that is none.

    >>> parse_condition("consonance >= 0.6").number, parse_condition("ratio = 2:4").number
    (0.6, 0.5)
    >>> parse_condition("artist = 'Nina'").raw
    'Nina'
    >>> parse_condition("@2-5 token = 12").text, parse_condition("3: token = 12").steps
    ('2-5: token = 12', (3, 3))
    """
    steps, prefix, condition = split_steps(text)
    found = CONDITION.fullmatch(condition)
    if found is None:
        raise InputError(f"condition {text!r}: not a name, a comparison and a value. {EXAMPLE}")
    name, symbol, raw, weight = found.groups()
    if weight is not None and not weighted:
        raise InputError(f"condition {text!r}: a condition has no weight. Give it as a preference, or leave the weight out")
    ratio = RATIO.fullmatch(raw)
    if ratio is not None and 0 in (int(ratio[1]), int(ratio[2])):
        raise InputError(f"condition {text!r}: a ratio has no 0. Give two whole numbers from 1, such as 1:2")
    heavy = 1.0 if weight is None else to_number(weight)
    if heavy is None or heavy <= 0:
        raise InputError(f"condition {text!r}: weight {weight!r} is not a positive number. Write for example \"weight 2\"")
    quoted = len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\""
    return Condition(
        text=prefix + (condition.strip() if weight is None else f"{name} {symbol} {raw}"), name=name.lower(), steps=steps,
        symbol="=" if symbol == "==" else symbol, raw=raw[1:-1] if quoted else raw, weight=heavy,
        number=to_number(raw) if ratio is None else int(ratio[1]) / int(ratio[2]),
    )


def split_steps(text: str) -> tuple[tuple[int, int | None] | None, str, str]:
    """Return the steps before a condition (None for every step), as text to write before it, and the condition without them.

    Raises InputError for steps whose last one is before the first.

    >>> split_steps("@3 token = 1"), split_steps("4 - : token = 1")
    (((3, 3), '3: ', 'token = 1'), ((4, None), '4-: ', 'token = 1'))
    """
    found = STEPS.fullmatch(text)
    if found is None or not (found[1] or found[5]):
        return None, "", text
    first = int(found[2])
    last = first if not found[3] else int(found[4]) if found[4] else None
    if last is not None and last < first:
        raise InputError(f"condition {text!r}: step {last} is before step {first}. Write for example \"2-5: token = 12\"")
    shown = f"{first}" if last == first else f"{first}-{'' if last is None else last}"
    return (first, last), f"{shown}: ", found[6]


def check_steps(conditions: Sequence[Condition], steps: int) -> None:
    """Raise InputError for a condition on steps that a continuation of `steps` events does not have."""
    for one in conditions:
        if one.steps is not None and one.steps[0] >= steps:
            raise InputError(
                f"condition {one.text!r}: the continuation has steps 0 to {steps - 1}. Give earlier steps, or more with --steps"
            )


def to_number(raw: str) -> float | None:
    """Return a finite number, or None for other text."""
    try:
        value = float(raw)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


class Request:
    """Conditions and preferences on the events of a table, which is read once.

    `events`: one row per event, with a column for each name that a condition may have; `ioi_s`: their inter-onset intervals
    in seconds, NaN where unknown, for conditions on `ratio`, which compare an event with the one played before it.
    Raises InputError for a name that is not a column.
    """

    def __init__(self, want: Sequence[Condition], prefer: Sequence[Condition], events: pl.DataFrame, ioi_s: np.ndarray) -> None:
        self.want, self.prefer, self.events, self.ioi_s = list(want), list(prefer), events, ioi_s
        self._fixed: dict[str, np.ndarray] = {}
        for one in (*want, *prefer):
            if one.name == "ratio":
                one.meets_ratio(np.ones(1))          # refuses text
            elif one.name not in events.columns:
                names = ", ".join(sorted({"ratio", *events.columns}))
                raise InputError(f"condition {one.text!r}: events have no {one.name!r}. Choose {names}")
            else:
                self._fixed[one.text] = one.meets(events[one.name])

    def masks(self, conditions: Sequence[Condition], previous_s: float) -> list[np.ndarray]:
        """Return the (event,) mask of each condition, after an event whose interval was `previous_s` (NaN: unknown)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            quotients = self.ioi_s / previous_s
        return [one.meets_ratio(quotients) if one.name == "ratio" else self._fixed[one.text] for one in conditions]

    def choose(
        self, allowed: np.ndarray, contexts: np.ndarray, least: int, previous_s: float, step: int = 0
    ) -> np.ndarray:
        """Return the numbers of the events that the order of relaxation leaves, of those that are `allowed` (at least one).

        `contexts`: (event,) how much of what was played precedes each; `step`: of the continuation.
        """
        for mask in self.masks([one for one in self.want if one.applies(step)], previous_s):
            both = allowed & mask
            if both.any():
                allowed = both
        rows = np.flatnonzero(allowed)
        rows = rows[contexts[rows] >= min(least, int(contexts[rows].max()))]
        score = np.zeros(len(rows))
        preferred = [one for one in self.prefer if one.applies(step)]
        for one, mask in zip(preferred, self.masks(preferred, previous_s), strict=True):
            score += one.weight * mask[rows]
        return rows[score >= score.max() - 1e-9]

    def held(self, event: int, previous_s: float, step: int = 0) -> tuple[list[str], list[str]]:
        """Return the texts of the conditions and preferences on a step that an event meets, and of those that it does not."""
        conditions = [one for one in (*self.want, *self.prefer) if one.applies(step)]
        met = [bool(mask[event]) for mask in self.masks(conditions, previous_s)]
        texts = [one.text for one in conditions]
        return ([text for text, yes in zip(texts, met, strict=True) if yes],
                [text for text, yes in zip(texts, met, strict=True) if not yes])
