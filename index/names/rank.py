"""Score candidates against a query, and decide whether one song is meant.

Scores reach from 0 to 100: literal matches of a whole field first (title, title with artist, artist, file name), then edit
ratios of the same (rapidfuzz), then beginnings and parts of names, albums and sets of words.  Popularity plays no part.
Weights and thresholds were set on made-up queries, and bench/names.py measures how often they take a wrong song.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tonelake.index.names.grams import field_tokens, text_grams
from tonelake.index.names.normalise import fold, is_sign, plain_title, romanised, squeeze, title_in_file, without_suffix

LEAST = 76.0                             # below this score a name does not match
SURE = 86.0                              # from this score on a single song is taken, if
MARGIN = 3.0                             # it is ahead of the next different song by this much
LITERAL = 97.0                           # from this score on the query equals a name
AS_WRITTEN = 3.0                         # bonus of a title that has the signs and accents of the query too
LATER_FORM = 0.3                         # deduction for a form of the query other than as typed
WITHOUT_SIGNS = 1.5                      # and for one without the signs that are words of the query: "Ada" for "!!! Ada"
WORDS_BEFORE_PARTS = 92.0                # from this score on parts of names are not compared

SEPARATOR = "\x1f"                       # of folded texts as they are stored: folding removes it

Decision = Literal["one", "several", "none"]


class FoldedSong(NamedTuple):
    """The folded texts of a song, as they are stored."""

    title: str
    plain: str                           # the title without version marks
    artist: str
    album: str
    file: str
    latin_title: str                     # `plain` and `artist` romanised, without spaces; empty if both are in Latin
    latin_artist: str


@dataclass(frozen=True, kw_only=True)
class Song:
    """A song of the lake as found by name."""

    clip_id: str                         # of its first clip
    tracks: tuple[str, ...]              # values of `track` of its clips
    title: str                           # the file's name where the song has no title
    artist: str | None
    album: str | None
    file: str
    score: float = 0.0                   # 0 to 100; up to 103 with AS_WRITTEN
    others: tuple[str, ...] = ()         # titles of other versions, which this answer includes

    def __str__(self) -> str:
        return f"'{self.title}'" + (f" by {self.artist}" if self.artist else "")


def fold_song(row: dict[str, Any]) -> FoldedSong:
    """Fold the title, artist, album and file of a song."""
    file = without_suffix(row["file"] or "")
    plain = fold(plain_title(row["title"]) if row["title"] else title_in_file(file))
    artist = fold(row["artist"])
    latin_title, latin_artist = romanised(plain), romanised(artist)
    if latin_title or latin_artist:
        latin_title, latin_artist = latin_title or squeeze(plain), latin_artist or squeeze(artist)
    return FoldedSong(
        title=fold(row["title"] or file), plain=plain, artist=artist, album=fold(row["album"]), file=fold(file),
        latin_title=latin_title, latin_artist=latin_artist,
    )


def song_grams(song: FoldedSong) -> str:
    """The grams of a song, separated by spaces."""
    grams = set().union(*(field_tokens(squeeze(text)) for text in (song.title, song.plain, song.artist)))
    for text in (song.title, song.artist, song.album, song.file, song.latin_title, song.latin_artist):
        grams |= text_grams(text)
    return " ".join(sorted(grams))


def score(form: str, song: FoldedSong) -> float:
    """Score one folded form of a query against a song, 0 to 100."""
    from rapidfuzz import fuzz

    tight, ratio = squeeze(form), fuzz.ratio
    title, plain, artist, album, file = map(squeeze, song[:5])
    if form == song.title:
        return 100.0
    if tight in (plain + artist, artist + plain, title + artist, artist + title):
        return 99.8
    if tight in (title, plain):
        return 99.5
    if tight == artist:
        return 98.0
    if tight == file:
        return 97.5
    best = max(
        ratio(tight, plain), ratio(tight, title) - 0.2, ratio(tight, plain + artist) - 0.2, ratio(tight, artist + plain) - 0.2,
        ratio(tight, artist) - 2, ratio(tight, album) - 6, ratio(tight, file) - 3,
        fuzz.token_sort_ratio(form, f"{song.plain} {song.artist}") - 1,
    )
    if best < WORDS_BEFORE_PARTS:
        best = max(best, score_of_part(tight, title, plain, artist, album))
        if " " in form:
            best = max(best, 0.88 * fuzz.token_set_ratio(form, f"{song.plain} {song.artist} {song.album}"))
    if song.latin_title and tight.isascii():
        latin = (song.latin_title, song.latin_title + song.latin_artist, song.latin_artist + song.latin_title)
        best = max(best, *(ratio(tight, text) - 4 for text in latin), ratio(tight, song.latin_artist) - 5)
    return best


def score_of_part(tight: str, title: str, plain: str, artist: str, album: str) -> float:
    """Score a query that is the beginning of a name or within it: the more of the name is missing, the lower.

    All texts are without spaces.
    """
    if len(tight) < 3 and not (tight and tight[0] > "\u2e80"):         # a Chinese or Japanese sign may be a word
        return 0.0
    for whole, at_start, top in (
        (plain, True, 92), (artist, True, 90), (title, False, 86), (artist, False, 85), (album, False, 82),
    ):
        if whole.startswith(tight) if at_start else tight in whole:
            return top - min(5.0, 0.1 * (len(whole) - len(tight)))
    return 0.0


def rank(query: str, forms: Sequence[str], candidates: Sequence[dict[str, Any]]) -> list[Song]:
    """Return the matching songs among candidates, best first; versions of a song are folded into the best of them."""
    typed = written(query)
    special = typed != fold(query)       # accents or signs that folding removes: a title that has them too is meant
    has_signs = [any(map(is_sign, form.split())) for form in forms]
    deductions = [
        LATER_FORM * (number > 0) + WITHOUT_SIGNS * (has_signs[0] and not signs) for number, signs in enumerate(has_signs)
    ]
    scored = []
    for row in candidates:
        folded = FoldedSong(*row["folded"].split(SEPARATOR))
        best = max(score(form, folded) - deduction for form, deduction in zip(forms, deductions, strict=True))
        if special and best >= LITERAL and typed in (written(row["title"]), written(without_suffix(row["file"]))):
            best += AS_WRITTEN
        if best >= LEAST:
            scored.append((best, row, folded))
    # Among equal scores the shortest title comes first: the song itself before its versions.
    scored.sort(key=lambda one: (-one[0], len(one[2].title), one[1]["song"]))
    answers: list[tuple[float, dict[str, Any], FoldedSong, list[str]]] = []
    for best, row, folded in scored:
        same = next((answer for answer in answers if is_version(folded, answer[2])), None)
        if same is None:
            answers.append((best, row, folded, []))
        else:
            same[3].append(shown_title(row))
    return [
        Song(
            clip_id=row["song"], tracks=tuple(row["tracks"]), title=shown_title(row), artist=row["artist"], album=row["album"],
            file=row["file"], score=best, others=tuple(others),
        )
        for best, row, _, others in answers
    ]


def is_version(song: FoldedSong, other: FoldedSong) -> bool:
    """Whether two songs are versions of one title by one artist, or copies.

    Equal titles on different albums are not: they can be different songs, such as two preludes.
    """
    if (song.plain, song.artist) != (other.plain, other.artist) or not (song.artist or song.album == other.album != ""):
        return False
    return song.title != other.title or (song.album, song.file) == (other.album, other.file)


def shown_title(row: dict[str, Any]) -> str:
    """The title of a song or, where it has none, its file name."""
    return row["title"] or without_suffix(row["file"])


def written(text: str | None) -> str:
    """A text as written but for case, spaces and the Unicode form of its accents."""
    return " ".join(unicodedata.normalize("NFC", text or "").casefold().split())


def decide(songs: Sequence[Song], *, literally: bool = False) -> Decision:
    """Decide whether the first of ranked songs is the one that is meant.

    `literally`: only a name that equals the query is taken, not one that resembles it.
    """
    if not songs:
        return "none"
    ahead = len(songs) == 1 or songs[0].score - songs[1].score >= MARGIN
    return "one" if songs[0].score >= (LITERAL if literally else SURE) and ahead else "several"
