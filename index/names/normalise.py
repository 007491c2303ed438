r"""Fold the text of names and queries so that spelling variants become equal, and split off what is not the name.

Folding: Unicode NFKC and case folding (UAX 15, section 3.13 of the Unicode standard), then letters without their accents, a few
special letters by their usual spelling, and words separated by single spaces.  Only the combining marks of Latin, Greek and
Cyrillic, and the optional vowel points of Hebrew and Arabic are removed: without all marks ガ would become カ, and Hindi words
would fall apart.  Text without letters or digits ("!!!") is kept as it is.

    >>> fold("Beyonc\u00e9"), fold("Guns N\u2019 Roses"), fold("P!nk"), fold("!!!"), fold("ガ")
    ('beyonce', 'guns n roses', 'pink', '!!!', 'ガ')
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

LONGEST = 300                            # characters of a folded text; longer tags are not names
SPECIAL = str.maketrans({
    "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŋ": "n",
})
MARKS = re.compile("[\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u064b-\u065f\u0670]")
APOSTROPHES = re.compile("['’‘`´ʼ]")
SPELLED = (                              # signs that spell a letter within a word, as in P!nk, A$AP, $ign, c@t
    (re.compile(r"(?<=[^\W\d_])!(?=[^\W\d_])"), "i"),
    (re.compile(r"(?<=[^\W\d_])\$(?=[^\W\d_])|(?<!\S)\$(?=[^\W\d_])"), "s"),
    (re.compile(r"(?<=[^\W\d_])@(?=[^\W\d_])"), "a"),
    (re.compile(r"(?<=\s)&(?=\s)"), "and"),
)
NO_WORD = re.compile(r"[\W_]+")

AUDIO_SUFFIX = re.compile(
    r"\.(?:flac|mp[234]|og[ag]|opus|m4[ab]|wave?|w64|aac|ac3|wma|wv|ape|tta|mka|webm|aif[fc]?|au|caf)$", re.I
)
TRACK_NUMBER = re.compile(r"^\s*(?:\d{1,2}-)?\d{1,3}\s*(?:[-._)]\s*|\s)(?=\S)")
JOINING = ("-", "–", "—", "&", "+", "/", "|")               # signs that are rarely titles themselves
SEPARATOR = re.compile(r"\s+[-–—]\s+")
NOISE = re.compile(
    r"[(\[][^)\]]*\b(?:official|lyrics?|visuali[sz]er|hd|hq|4k)\b[^)\]]*[)\]]"
    r"|\b(?:official|lyrics?) (?:music |lyrics? )?(?:video|audio)\b|\blyrics$", re.I
)
KINDS = r"acoustic|album|bonus(?: track)?|deluxe|demo|extended|instrumental|mono|original|radio|single|stereo|unplugged"
REMASTER = r"(?:\d{4} )?(?:digital(?:ly)? )?re-?master(?:ed)?"
WITHIN = r"[^()\[\]]*"                   # text that stays within its brackets
MARK = (                                 # "live at Leeds", "2011 Remaster", "Single Version"
    rf"(?:{KINDS}|{REMASTER})(?: (?:version|edit|mix|edition|take|session|\d{{4}}))*"
    rf"|(?:recorded )?live(?: (?:at|in|from|on|session|version|acoustic)\b{WITHIN}| ?\W?\d{{2,4}})?"
)
NAMED_MARK = rf"{REMASTER}\b{WITHIN}|{WITHIN}\b(?:live|mix|remix|edit|version)"         # "Ada's Remix"
FEATURED = r"(?:feat|ft|featuring)\b\.?\s"
VERSION_MARK = re.compile(
    rf"\s*[(\[](?:{MARK}|{NAMED_MARK}|{FEATURED}{WITHIN})[)\]]"
    rf"|\s+[-–—]\s+(?:{MARK}|(?:(?!\s[-–—]\s).)*\b(?:mix|remix|edit|version))\s*$|\s+{FEATURED}.*$", re.I
)
WHOLLY_MARK = re.compile(MARK, re.I)


def fold(text: str | None) -> str:
    """Fold a text for comparison; empty only for text of nothing but spaces."""
    if not text:
        return ""
    return _fold(text[: 2 * LONGEST])


@lru_cache(maxsize=20_000)
def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not folded.isascii():
        stripped = MARKS.sub("", unicodedata.normalize("NFKD", folded))
        folded = unicodedata.normalize("NFC", stripped).translate(SPECIAL)
    for sign, letter in SPELLED:
        folded = sign.sub(letter, folded)
    folded = APOSTROPHES.sub("", folded)
    words = NO_WORD.sub(" ", folded) if folded.isascii() else "".join(c if _in_word(c) else " " for c in folded)
    words = " ".join(words.split())
    if is_sign(words):
        signs = "".join(text.split())
        words = "".join(c for c in signs if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f") or signs
    return words[:LONGEST].rstrip()


def _in_word(character: str) -> bool:
    """Whether a character belongs to a word: letters, digits, and the marks that some scripts write vowels with."""
    return character.isalnum() or (unicodedata.category(character)[0] == "M" and not "\ufe00" <= character <= "\ufe0f")


def squeeze(folded: str) -> str:
    """Folded text without spaces, by which "love theme" equals "lovetheme"."""
    return folded.replace(" ", "")


def plain_title(title: str) -> str:
    """A title without marks of a version or of guests; unchanged if nothing else would be left.

    >>> [plain_title(t) for t in ("Song (Live at Leeds)", "Song - 2011 Remaster", "Song feat. X", "(Live and Let Die)")]
    ['Song', 'Song', 'Song', '(Live and Let Die)']
    """
    return VERSION_MARK.sub("", title[: 2 * LONGEST]).strip() or title


def without_suffix(file: str) -> str:
    """A file name without the suffix of an audio format.

    >>> without_suffix("01 - Love Theme.flac"), without_suffix("Mr. Blue")
    ('01 - Love Theme', 'Mr. Blue')
    """
    return AUDIO_SUFFIX.sub("", file.strip())


def without_track_number(file: str) -> str:
    """A file name without a leading track number; unchanged if nothing else would be left.

    >>> without_track_number("01 - Love_Theme"), without_track_number("1-07. Song"), without_track_number("99")
    ('Love Theme', 'Song', '99')
    """
    return TRACK_NUMBER.sub("", file.replace("_", " "))


def title_in_file(file: str) -> str:
    """The part of a file name that is most likely the title: the last one of "artist - album - 03 - title".

    >>> [title_in_file(f) for f in ("Ada - First - 03 - Love Theme (Live)", "03 Love Theme - Live", "Ada - Some Remix")]
    ['Love Theme', 'Love Theme', 'Some Remix']
    """
    parts = SEPARATOR.split(without_track_number(file))
    if len(parts) > 1 and WHOLLY_MARK.fullmatch(parts[-1].strip()):
        parts.pop()
    return plain_title(without_track_number(parts[-1])) or file


def query_forms(query: str) -> list[str]:
    """Folded forms of a query, most literal first: as typed, and without what titles rarely have in the lake.

    >>> query_forms("Ada - First - 03 - Love Theme.mp3")
    ['ada first 03 love theme', 'ada first love theme', 'ada love theme']
    """
    typed = without_suffix(query[: 2 * LONGEST])
    plain = (plain_title(typed), plain_title(without_track_number(typed)), plain_title(NOISE.sub(" ", typed)))
    forms = [fold(typed), *map(fold, plain)]
    words = typed.split()
    if any(is_sign(word) and word not in JOINING for word in words):
        # Folding drops signs beside words, but in "!!! Ada" they are the title.
        forms.insert(0, " ".join(fold(word) for word in words if word not in JOINING))
    parts = SEPARATOR.split(typed)
    if len(parts) > 2:
        named = [part for part in parts if not part.isdigit()]
        forms.append(fold(plain_title(" ".join(named))))
        forms.append(fold(f"{named[0]} {plain_title(named[-1])}") if named else "")
    return list(dict.fromkeys(form for form in forms if form))


def is_sign(word: str) -> bool:
    """Whether a word has neither letters nor digits."""
    return not any(c.isalnum() for c in word)


def romanised(folded: str) -> str:
    """Folded text of other scripts in Latin letters, without spaces; empty for text that is in Latin already.

    >>> romanised("кино"), romanised("kino")
    ('kino', '')
    """
    if all(c < "\u0370" for c in folded):
        return ""
    from anyascii import anyascii

    return squeeze(fold(anyascii(folded)))
