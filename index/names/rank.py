"""Rank candidates for a query, and decide whether one song is meant.

Versions of a song are folded into its best one.  The thresholds were set on made-up queries, and bench/names.py measures how
often they take a wrong song.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tonelake.index.names.folded import FoldedSong, read_folded, read_shown
from tonelake.index.names.normalise import fold, is_sign, without_suffix
from tonelake.index.names.score import score_songs

LEAST = 76.0                             # below this score a name does not match
SURE = 86.0                              # from this score on a single song is taken, if
MARGIN = 3.0                             # it is ahead of the next different song by this much
LITERAL = 97.0                           # from this score on the query equals a name
AS_WRITTEN = 3.0                         # bonus of a title that has the signs and accents of the query too
LATER_FORM = 0.3                         # deduction for a form of the query other than as typed
WITHOUT_SIGNS = 1.5                      # and for one without the signs that are words of the query: "Ada" for "!!! Ada"

Decision = Literal["one", "several", "none"]


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


def rank(query: str, forms: Sequence[str], candidates: Sequence[str]) -> list[Song]:
    """Return the matching songs among candidates (stored texts), best first; versions of a song are folded into its best."""
    typed = written(query)
    special = typed != fold(query)       # accents or signs that folding removes: a title that has them too is meant
    has_signs = [any(map(is_sign, form.split())) for form in forms]
    deductions = [
        LATER_FORM * (number > 0) + WITHOUT_SIGNS * (has_signs[0] and not signs) for number, signs in enumerate(has_signs)
    ]
    folded = [read_folded(text) for text in candidates]
    scores = (score_songs(forms, folded) - np.array(deductions)[:, None]).max(axis=0, initial=0.0)
    scored: list[tuple[float, dict[str, Any], FoldedSong]] = []
    for place in np.flatnonzero(scores >= LEAST).tolist():
        row, best = read_shown(candidates[place]), float(scores[place])
        if special and best >= LITERAL and typed in (written(row["title"]), written(without_suffix(row["file"]))):
            best += AS_WRITTEN
        scored.append((best, row, folded[place]))
    # Among equal scores the shortest title comes first: the song itself before its versions.
    scored.sort(key=lambda one: (-one[0], len(one[2].title), one[1]["song"]))
    answers: list[tuple[float, dict[str, Any], FoldedSong, list[str]]] = []
    for best, row, song in scored:
        same = next((answer for answer in answers if is_version(song, answer[2])), None)
        if same is None:
            answers.append((best, row, song, []))
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
