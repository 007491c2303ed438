"""The text of a song as the table of names stores it: folded for comparison, as grams for the index, and as it is shown.

    folded fields, separated by FIELD  END  JSON of song, tracks, title, artist, album and file

One string holds all of it, since LanceDB reads a hundred rows of one column in a tenth of the time that it takes for eight.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

import polars as pl

from tonelake.index.names.grams import deletions, field_tokens, text_grams
from tonelake.index.names.normalise import FEATURED, fold, plain_title, romanised, squeeze, title_in_file, without_suffix

FIELD, EACH, END = "\x1f", "\x1e", "\x1d"                # control characters, which folding and JSON do not leave in a text
SHOWN = ("song", "tracks", "title", "artist", "album", "file")
JOINED = re.compile(rf"\s*[,;]\s+|\s+{FEATURED}", re.I)  # between artists
MOST_ARTISTS = 6                         # of a song that are compared one by one


class FoldedSong(NamedTuple):
    """The folded texts of a song."""

    title: str
    plain: str                           # the title without version marks
    artist: str                          # all artists
    album: str
    file: str
    latin_title: str                     # `plain` and `artist` romanised, without spaces; empty if both are in Latin
    latin_artist: str
    artists: str = ""                    # each of several artists, separated by EACH


def fold_song(row: dict[str, Any]) -> FoldedSong:
    """Fold the title, artist, album and file of a song."""
    file = without_suffix(row["file"] or "")
    plain = fold(plain_title(row["title"]) if row["title"] else title_in_file(file))
    artist = fold(row["artist"])
    latin_title, latin_artist = romanised(plain), romanised(artist)
    if latin_title or latin_artist:
        latin_title, latin_artist = latin_title or squeeze(plain), latin_artist or squeeze(artist)
    each = list(dict.fromkeys(filter(None, map(fold, JOINED.split(row["artist"] or "")))))[:MOST_ARTISTS]
    return FoldedSong(
        title=fold(row["title"] or file), plain=plain, artist=artist, album=fold(row["album"]), file=fold(file),
        latin_title=latin_title, latin_artist=latin_artist, artists=EACH.join(each) if len(each) > 1 else "",
    )


def artists_of(song: FoldedSong) -> list[str]:
    """The artist of a song, or all of them together and each by itself.

    >>> artists_of(fold_song({"title": "T", "artist": "Ada, Béla", "album": None, "file": "t.mp3"}))
    ['ada bela', 'ada', 'bela']
    """
    return [song.artist, *song.artists.split(EACH)] if song.artists else [song.artist]


def song_grams(song: FoldedSong) -> str:
    """The grams of a song, separated by spaces."""
    fields = {squeeze(text) for text in (song.title, song.plain, *artists_of(song))}
    grams = set().union(*map(field_tokens, fields)) | deletions(squeeze(song.plain))
    for text in (song.title, song.artist, song.album, song.file, song.latin_title, song.latin_artist):
        grams |= text_grams(text)
    return " ".join(sorted(grams))


def shown_texts(songs: pl.DataFrame) -> pl.Series:
    """The text of each song as it is shown, as JSON."""
    return songs.select(pl.struct(SHOWN).struct.json_encode().alias("shown"))["shown"]


def stored_shown(texts: pl.Series) -> pl.Series:
    """The part of stored texts that is shown."""
    return texts.str.split(END).list.last()


def stored_text(folded: FoldedSong, shown: str) -> str:
    """The text that is stored for a song."""
    return f"{FIELD.join(folded)}{END}{shown}"


def read_folded(text: str) -> FoldedSong:
    """The folded texts of a stored song."""
    return FoldedSong(*text[: text.index(END)].split(FIELD))


def read_shown(text: str) -> dict[str, Any]:
    """The row of a stored song: song, tracks, title, artist, album and file."""
    return dict(json.loads(text[text.index(END) + 1 :]))
