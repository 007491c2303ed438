"""Find what a newer version of a table added, so that what is known of the older one need not be read again."""

from __future__ import annotations

from typing import Any


def added_fragments(before: Any, after: Any) -> list[Any] | None:
    """Return the fragments that the Lance dataset `after` has behind those of `before`.

    Returns None unless the rows of `before` are the first rows of `after`: unless none was changed, removed or merged.
    """
    old, new = before.get_fragments(), after.get_fragments()
    if len(old) > len(new) or any(a.metadata != b.metadata for a, b in zip(old, new, strict=False)):
        return None
    return new[len(old) :]
