"""Grams: the short pieces of folded text by which a text index finds candidates despite typing errors.

A name has the trigrams of its words and of its text without spaces, single signs and pairs of Chinese, Japanese and Korean
text, and tokens for whole fields (`=text`), for their beginnings (`<te`), and for short titles without a letter (`~txt`).  The
latter three are rare, so that short names are not crowded out by long ones that share their trigrams.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tonelake.index.names.normalise import squeeze

VERSION = 2                              # of the grams and of folding: another version makes the table of names again
CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff]+")
PREFIXES = range(2, 7)                   # letters of the beginnings of fields
LONGEST_FIELD = 60                       # letters of a whole field that are compared
SHORT_TITLE = range(3, 10)               # letters of titles that are also found by what is left without one letter


def text_grams(folded: str) -> set[str]:
    """The grams of a folded text.

    >>> sorted(text_grams("no 月光"))
    ['^no', '^no$', '光', '月', '月光']
    """
    grams: set[str] = set()
    for run in CJK.findall(folded):
        grams.update(run)
        grams.update(run[i : i + 2] for i in range(len(run) - 1))
    words = CJK.sub(" ", folded).split()
    for word in words:
        if len(word) <= 2:
            grams.add(f"^{word}$")
        if len(word) >= 2:
            grams.add(f"^{word[:2]}")
    for text in (*words, "".join(words)):
        grams.update([text[i : i + 3] for i in range(len(text) - 2)])
    return grams


def field_tokens(squeezed: str, prefixes: Iterable[int] = PREFIXES) -> set[str]:
    """Tokens of a whole field without spaces, and of its beginnings.

    >>> sorted(field_tokens("love"))
    ['<lo', '<lov', '<love', '=love']
    """
    if not squeezed:
        return set()
    return {f"={squeezed[:LONGEST_FIELD]}", *(f"<{squeezed[:size]}" for size in prefixes if len(squeezed) >= size)}


def deletions(squeezed: str) -> set[str]:
    """Tokens of a short title without one of its letters, and of the whole; none for longer titles.

    A title and a query that differ by one typing error have such a token in common (Garbe 2012, symmetric deletion), even
    where all their trigrams differ.

    >>> sorted(deletions("sky")), sorted(deletions("a long title"))
    (['~ky', '~sk', '~sky', '~sy'], [])
    """
    if len(squeezed) not in SHORT_TITLE:
        return set()
    return {f"~{squeezed}", *(f"~{squeezed[:place]}{squeezed[place + 1:]}" for place in range(len(squeezed)))}


def query_grams(forms: Sequence[str]) -> set[str]:
    """The grams that are looked up for a query in its folded forms."""
    grams: set[str] = set()
    for form in forms:
        squeezed = squeeze(form)
        grams |= text_grams(form) | field_tokens(squeezed, [min(PREFIXES.stop - 1, len(squeezed))]) | deletions(squeezed)
    return grams
