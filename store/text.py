"""Text that came from tags, file names and labels."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Text without control characters, which a tag or file name may hold to play with a terminal.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
