"""Text from tags, file names and labels: printable and in one Unicode normal form."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    r"""Text with control characters escaped: a tag or file name may contain them to manipulate a terminal.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def to_nfc(text: str) -> str:
    r"""Text in Unicode's NFC: each letter and its marks as a single character where one exists.

    Names typed on one system and files copied from another can look equal and differ: `é` may be one character or two.

    >>> to_nfc("Be\u0301la") == "B\xe9la"
    True
    """
    return unicodedata.normalize("NFC", text)
