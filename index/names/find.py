"""Find songs of a lake by name: title, artist, album or file name, despite typing errors and missing accents."""

from __future__ import annotations

from typing import Any

import polars as pl

from tonelake.index.names.grams import query_grams
from tonelake.index.names.normalise import query_forms
from tonelake.index.names.rank import Song, rank
from tonelake.index.names.table import search_names
from tonelake.store import InputError, Lake

CANDIDATES = 100                         # songs that share most grams with the query, and are compared in full
SCHEMA: dict[str, Any] = {
    "rank": pl.Int64, "score": pl.Float64, "clip_id": pl.String, "title": pl.String, "artist": pl.String, "album": pl.String,
    "file": pl.String, "versions": pl.List(pl.String),
}


def find_songs(lake: Lake, words: str, *, k: int = 10) -> pl.DataFrame:
    """Return the k songs whose names match `words` best: title, artist, album or file name, typing errors allowed.

    Returns rank, score (100 for equal names), clip_id (of the song's first clip), title (the file name where there is none),
    artist, album, file, and the titles of other versions of the song, such as live ones, which have no row of their own.
    The names are indexed in the lake at the first call, and brought up to date at each.  Raises InputError if k is below 1.
    """
    if k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    rows = [
        (
            number, min(song.score, 100.0), song.clip_id, song.title, song.artist, song.album, song.file, list(song.others)
        )
        for number, song in enumerate(match_songs(lake, words)[:k], start=1)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def match_songs(lake: Lake, words: str) -> list[Song]:
    """Return the songs whose names match `words`, best first."""
    query = words.encode("utf-8", "ignore").decode()         # an argument of a program need not be valid UTF-8
    forms = query_forms(query)
    if not forms:
        return []
    grams = sorted(query_grams(forms))
    return rank(query, forms, search_names(lake, lambda names: names.match(grams, CANDIDATES)))
