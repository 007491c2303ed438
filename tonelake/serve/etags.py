"""Entity tags: whether a client already has an answer (RFC 9110, 8.8.3 and 13.1.2)."""

from __future__ import annotations


def weak_tag(version: str) -> str:
    """Return the entity tag of answers at one version of the lake; weak, since an answer may be compressed or not.

    >>> weak_tag("5f3a")
    'W/"5f3a"'
    """
    return f'W/"{version}"'


def matches(header: str | None, tag: str) -> bool:
    """Whether an If-None-Match header names a tag.

    >>> matches('"a", W/"b"', 'W/"b"'), matches('"b"', 'W/"b"'), matches("*", '"a"'), matches('"c"', '"a"')
    (True, True, True, False)
    """
    if header is None:
        return False
    given = [one.strip().removeprefix("W/") for one in header.split(",")]
    return "*" in given or tag.removeprefix("W/") in given
