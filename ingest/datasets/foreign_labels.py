"""Labels that another library returns, as label columns of clips.

A column holds text, integers, decimals, yes/no, or lists of text; values of any other kind are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tonelake.store import FIXED_COLUMNS, SETTABLE_COLUMNS

MAX_TEXT = 1_000                         # characters; longer text is a document, not a label
MAX_PARTS = 500                          # values of one list; longer ones are measurements
MAX_NAME = 64                            # characters of a column's name


def column_name(name: str) -> str:
    """A name as one of a label column; the names of columns that tonelake fills get an ending.

    >>> column_name("Key number"), column_name("source"), column_name("artist")
    ('key_number', 'source_label', 'artist')
    """
    from tonelake.ingest.tables import label_name

    column = label_name(name)[:MAX_NAME - len("_label")]
    return f"{column}_label" if column in FIXED_COLUMNS and column not in SETTABLE_COLUMNS else column


def label_value(value: Any) -> Any:
    """A value that a label column can hold; None for every other kind, and for empty or undefined values."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():       # a NumPy scalar
        value = value.item()
    if isinstance(value, bool | int):
        return value if isinstance(value, bool) or -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        text = value.strip()
        return text if 0 < len(text) <= MAX_TEXT and "\0" not in text else None
    if isinstance(value, list | tuple | set) and len(value) <= MAX_PARTS and all(isinstance(part, str | int) for part in value):
        parts = [str(part).strip() for part in (sorted(value, key=str) if isinstance(value, set) else value)]
        return [part for part in parts if 0 < len(part) <= MAX_TEXT] or None
    return None


def is_label(value: Any) -> bool:
    """Whether a value is of a kind that a label column can hold, or says nothing about its kind."""
    empty = isinstance(value, list | tuple | set | dict) and not value
    return value is None or empty or isinstance(value, str | float) or label_value(value) is not None


def same_kinds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of labels with one kind of value in each column, and without empty values.

    Integers beside decimals become decimals; values beside lists become lists; any other mixture becomes text.

    >>> same_kinds([{"year": 1999, "tags": "a"}, {"year": "199?", "tags": ["b"]}, {"year": None}])
    [{'year': '1999', 'tags': ['a']}, {'year': '199?', 'tags': ['b']}, {}]
    """
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                kinds.setdefault(name, set()).add(type(value))
    return [
        {name: _cast(value, kinds[name], name) for name, value in row.items() if value is not None} for row in rows
    ]


def _cast(value: Any, kinds: set[type], name: str) -> Any:
    """A value in the kind that holds all of `kinds`; text for the fixed columns, which hold nothing else."""
    if name in SETTABLE_COLUMNS:
        return ", ".join(value) if isinstance(value, list) else str(value)
    if len(kinds) == 1:
        return value
    if list in kinds:
        return value if isinstance(value, list) else [str(value)]
    return float(value) if kinds == {int, float} else str(value)
