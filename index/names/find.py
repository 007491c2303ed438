"""Find songs of a lake by name: title, artist, album or file name, despite typing errors and missing accents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from tonelake.index.names.grams import query_grams
from tonelake.index.names.normalise import query_forms
from tonelake.index.names.rank import Song, rank
from tonelake.index.names.table import search_names
from tonelake.store import MISSING, InputError, Lake, in_list, read_songs

CANDIDATES = 100                         # songs that share most grams with the query, and are compared in full
SCHEMA: dict[str, Any] = {
    "rank": pl.Int64, "score": pl.Float64, "clip_id": pl.String, "title": pl.String, "artist": pl.String, "album": pl.String,
    "file": pl.String, "versions": pl.List(pl.String), "clips": pl.Int64, "state": pl.String, "paths": pl.List(pl.String),
}
FEW = 1_000                              # tracks or recordings looked up by a filter; for more, reading everything is faster


def find_songs(lake: Lake, words: str, *, k: int = 10) -> pl.DataFrame:
    """Return the k songs whose names match `words` best: title, artist, album or file name, typing errors allowed.

    Returns rank, score (100 for equal names), clip_id (of the song's first clip), title (the file name where there is none),
    artist, album, file, the titles of other versions of the song, such as live ones, which have no row of their own, the
    number of its clips, its state (`missing` if none of its files exists) and the paths of its files (of a missing song, those
    that it had).
    The names are indexed in the lake at the first call, and brought up to date at each.  Raises InputError if k is below 1.
    """
    if k < 1:
        raise InputError(f"-k {k}: must be at least 1")
    songs = match_songs(lake, words)[:k]
    rows = [
        (
            number, min(song.score, 100.0), song.clip_id, song.title, song.artist, song.album, song.file, list(song.others),
            *facts,
        )
        for number, (song, facts) in enumerate(zip(songs, read_facts(lake, songs), strict=True), start=1)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def read_facts(lake: Lake, songs: Sequence[Song]) -> list[tuple[int, str | None, list[str]]]:
    """(number of clips, state, paths) of each song."""
    tracks = [track for song in songs for track in song.tracks]
    where = in_list("track", tracks) if 0 < len(tracks) <= FEW else None
    numbers, found = read_songs(lake.clips), lake.clips.read(["clip_id", "recording", "source", "state"], where=where)
    clips = pl.DataFrame({
        "number": np.arange(len(songs)), "song": numbers.of([song.clip_id for song in songs]),
    }).join(found.with_columns(song=pl.Series(numbers.of(found["clip_id"]))), on="song")
    recordings = clips["recording"].drop_nulls().unique().to_list()
    where = in_list("recording", recordings) if 0 < len(recordings) <= FEW else None
    files = lake.paths.read(["source", "recording", "missing_since"], where=where)
    known = clips.select("number", "recording").join(files, on="recording")
    named = clips.join(files, on="source", how="anti")               # clips that no ingest of files has added
    paths = pl.concat([
        known.select("number", "source", is_here=pl.col("missing_since").is_null()),
        named.select("number", "source", is_here=pl.col("state").is_null()),
    ]).unique().sort("number", "source")
    counts = dict(clips.group_by("number").len().iter_rows())
    every: dict[int, list[str]] = {}
    present: dict[int, list[str]] = {}
    for number, source, is_here in paths.iter_rows():
        every.setdefault(number, []).append(source)
        if is_here:
            present.setdefault(number, []).append(source)
    return [
        (counts.get(number, 0), None if number in present else MISSING, present.get(number) or every.get(number, []))
        for number in range(len(songs))
    ]


def match_songs(lake: Lake, words: str) -> list[Song]:
    """Return the songs whose names match `words`, best first."""
    query = words.encode("utf-8", "ignore").decode()         # an argument of a program need not be valid UTF-8
    forms = query_forms(query)
    if not forms:
        return []
    grams = sorted(query_grams(forms))
    return rank(query, forms, search_names(lake, lambda names: names.match(grams, CANDIDATES)))
