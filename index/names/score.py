"""Score folded queries against folded songs, all pairs at once.

Scores reach from 0 to 100: literal matches of a whole field first (title, title with artist, artist, file name), then edit
ratios of the same (rapidfuzz), then beginnings and parts of names, albums and sets of words.  Popularity plays no part.
Weights were set on made-up queries, and bench/names.py measures how often a wrong song comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tonelake.index.names.folded import FoldedSong, artists_of
from tonelake.index.names.normalise import squeeze

WORDS_BEFORE_PARTS = 92.0                # from this score on parts of names are not compared
SHORTEST_WORD = 4                        # letters of a query of one word that is compared with each word of a name
OF_WORD, OF_SET = 0.86, 0.88             # weights of one word of a name, and of a set of words


def score_songs(forms: Sequence[str], songs: Sequence[FoldedSong]) -> np.ndarray:
    """(form, song) float64: the score of each folded form of a query against each song, 0 to 100.

    A song with several artists is compared with all of them together and with each; the best counts.
    """
    if not forms or not songs:
        return np.zeros((len(forms), len(songs)))
    artists = [artists_of(song) for song in songs]
    first = np.cumsum([0, *map(len, artists[:-1])])
    each = [song._replace(artist=artist) for song, several in zip(songs, artists, strict=True) for artist in several]
    return np.maximum.reduceat(_score(forms, each), first, axis=1)


def _score(forms: Sequence[str], songs: Sequence[FoldedSong]) -> np.ndarray:
    from rapidfuzz import fuzz

    tight = [squeeze(form) for form in forms]
    title, plain, artist, album, file = ([squeeze(song[field]) for song in songs] for field in range(5))

    def with_artist(titles: list[str]) -> np.ndarray:
        """The better ratio to the title before the artist and behind it."""
        pairs = list(zip(titles, artist, strict=True))
        return np.maximum(ratios(tight, [a + b for a, b in pairs]), ratios(tight, [b + a for a, b in pairs]))

    to_title, to_plain, to_artist, to_file = (ratios(tight, texts) for texts in (title, plain, artist, file))
    plain_and_artist = with_artist(plain)
    best = np.maximum.reduce([
        to_plain, to_title - 0.2, plain_and_artist - 0.2, to_artist - 2, ratios(tight, album) - 6, to_file - 3,
        ratios(forms, [f"{song.plain} {song.artist}" for song in songs], fuzz.token_sort_ratio) - 1,
    ])
    lower = best < WORDS_BEFORE_PARTS
    if lower.any():
        parts = np.maximum(_parts(tight, title, plain, artist, album, lower), _words(forms, songs))
        best = np.where(lower, np.maximum(best, parts), best)
    _add_latin(best, tight, songs)
    equal = [
        (np.array([[form == song.title for song in songs] for form in forms]), 100.0),
        ((plain_and_artist == 100) | (with_artist(title) == 100), 99.8), ((to_title == 100) | (to_plain == 100), 99.5),
        (to_artist == 100, 98.0), (to_file == 100, 97.5),
    ]
    return np.select([mask for mask, _ in equal], [value for _, value in equal], best)


def ratios(queries: Sequence[str], texts: Sequence[str], scorer: Any = None) -> np.ndarray:
    """(query, text) float64: similarity by a scorer of rapidfuzz, 0 to 100; 100 for `ratio` only if both are equal."""
    from rapidfuzz import fuzz
    from rapidfuzz.process import cdist

    return cdist(queries, texts, scorer=scorer or fuzz.ratio, dtype=np.float64)


def _parts(
    tight: list[str], title: list[str], plain: list[str], artist: list[str], album: list[str], wanted: np.ndarray
) -> np.ndarray:
    """(form, song): scores of queries that are the beginning of a name or within it; 0 where not `wanted`."""
    found = np.zeros(wanted.shape)
    for row, text in enumerate(tight):
        if len(text) < 3 and not text > "\u2e80":                     # a Chinese or Japanese sign may be a word
            continue
        for column in np.flatnonzero(wanted[row]).tolist():
            names = (title[column], plain[column], artist[column], album[column])
            if any(text in name for name in names):
                found[row, column] = score_of_part(text, *names)
    return found


def score_of_part(tight: str, title: str, plain: str, artist: str, album: str) -> float:
    """Score a query that is the beginning of a name or within it: the more of the name is missing, the lower.

    All texts are without spaces.
    """
    for whole, at_start, top in (
        (plain, True, 92), (artist, True, 90), (title, False, 86), (artist, False, 85), (album, False, 82),
    ):
        if whole.startswith(tight) if at_start else tight in whole:
            return top - min(5.0, 0.1 * (len(whole) - len(tight)))
    return 0.0


def _words(forms: Sequence[str], songs: Sequence[FoldedSong]) -> np.ndarray:
    """(form, song): scores of queries that share words with a name, or that are one of its words with typing errors."""
    from rapidfuzz import fuzz

    found = np.zeros((len(forms), len(songs)))
    several = [row for row, form in enumerate(forms) if " " in form]
    if several:
        texts = [f"{song.plain} {song.artist} {song.album}" for song in songs]
        found[several] = OF_SET * ratios([forms[row] for row in several], texts, fuzz.token_set_ratio)
    single = [row for row, form in enumerate(forms) if " " not in form and len(form) >= SHORTEST_WORD]
    words = [f"{song.plain} {song.artist}".split() or [""] for song in songs] if single else []
    if single:
        first = np.cumsum([0, *map(len, words[:-1])])
        near = ratios([forms[row] for row in single], [word for name in words for word in name])
        found[single] = OF_WORD * np.maximum.reduceat(near, first, axis=1)
    return found


def _add_latin(best: np.ndarray, tight: list[str], songs: Sequence[FoldedSong]) -> None:
    """Raise the scores of queries in Latin letters against songs in other scripts, romanised."""
    rows = [row for row, text in enumerate(tight) if text.isascii()]
    columns = [column for column, song in enumerate(songs) if song.latin_title]
    if not rows or not columns:
        return
    queries = [tight[row] for row in rows]
    titles, artists = ([songs[column][field] for column in columns] for field in (5, 6))
    both = [[a + b for a, b in zip(*texts, strict=True)] for texts in ((titles, artists), (artists, titles))]
    near = np.maximum.reduce([*(ratios(queries, texts) - 4 for texts in (titles, *both)), ratios(queries, artists) - 5])
    at = np.ix_(rows, columns)
    best[at] = np.maximum(best[at], near)
