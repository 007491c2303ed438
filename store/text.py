"""Text that came from tags, file names and labels."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    r"""Text without control characters, which a tag or file name may hold to play with a terminal.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def to_nfc(text: str) -> str:
    r"""Text with each letter and its marks as one character, where there is one (Unicode's NFC).

    Names typed on one system and files copied from another look the same and are not: `é` may be one character or two.

    >>> composed("Be\u0301la") == "B\xe9la"
    True
    """
    return unicodedata.normalize("NFC", text)
