"""Check values read from a file against the types of a dataclass's fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints


def check_types(kind: type, values: Mapping[str, Any]) -> None:
    """Raise TypeError, naming the field, if a value does not have the type of its field; an int passes for a float.

    Fields are numbers, texts and tuples of them.  Missing and unknown fields are left to the class itself.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Point:
    ...     x: float
    ...     names: tuple[str, ...]
    >>> check_types(Point, {"x": 1, "names": ("a", "b")})
    >>> check_types(Point, {"x": "1"})
    Traceback (most recent call last):
        ...
    TypeError: x is '1'
    """
    hints = get_type_hints(kind)
    for name in (field.name for field in fields(kind) if field.name in values):
        found, hint = values[name], hints[name]
        several, one = (found, get_args(hint)[0]) if get_origin(hint) is tuple else ((found,), hint)
        kinds = (int, float) if one is float else one
        if not isinstance(several, tuple) or not all(isinstance(value, kinds) for value in several):
            raise TypeError(f"{name} is {found!r}")
