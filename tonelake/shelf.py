"""A lake as a listener sees it: songs, artists, albums, values of labels, recently added songs, and songs to start from.

Everything is derived from clips and vectors, and cached until they change.  A song is a track joined with its confirmed
duplicates (`store.read_songs`), and is named by the id of one of its clips.  Counts are of songs unless a name says clips.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl

from tonelake.embed import spaces_with_words
from tonelake.index import answers_words
from tonelake.store import Lake, Space, can_group, descriptive_columns, kind_of, read_songs, value_rows

SONG_COLUMNS = ("title", "artist", "album", "track", "start_s", "duration_s", "source", "state")     # shown of a song
NEVER_CHIPS = ("dataset", "split", "stem", "artists", "album_artist", "track_number")    # columns that do not narrow a list
FEW_VALUES = 50                          # up to here, values may name a single song each
SAMPLE = 1_000                           # clips that are compared to choose songs to start from
SEED = 0
LEAST_SCORE = 72.0                       # of a name that resembles what was typed, of 100
CACHED = 64                              # answers kept for each lake

Result = TypeVar("Result")
_cache: WeakKeyDictionary[Lake, dict[tuple, Any]] = WeakKeyDictionary()
_making = threading.RLock()


def cached(lake: Lake, key: tuple, make: Callable[[], Result]) -> Result:
    """Return an answer about the clips of a lake, made once until clips change.  Viewers that ask meanwhile wait for it."""
    with _making:
        known = _cache.setdefault(lake, {})
        stamped = (*key, lake.clips.table.version)
        if stamped not in known:
            answer = make()
            for old in [one for one in known if one[: len(key)] == key] + list(known)[: max(0, len(known) - CACHED)]:
                known.pop(old, None)
            known[stamped] = answer
        return known[stamped]


# -- songs


def songs_of(lake: Lake, ids: Sequence[str] | pl.Series, *, first: int) -> tuple[pl.DataFrame, int]:
    """Return the first songs that these clips belong to, in their order, and the number of all their songs.

    A row has the clip's clip_id, SONG_COLUMNS, and `clips`: how many of these clips the song has.
    """
    numbers = read_songs(lake.clips).of(ids)
    places, counts = np.unique(numbers, return_index=True, return_counts=True)[1:]
    order = np.argsort(places, kind="stable")[:first]
    chosen = pl.Series("clip_id", ids, dtype=pl.String).gather(places[order])
    counted = pl.DataFrame({"clip_id": chosen, "clips": counts[order]})
    rows = lake.clips.take(chosen.to_list(), SONG_COLUMNS)
    return rows.join(counted, on="clip_id", how="left", maintain_order="left"), len(places)


def clips_of_song(lake: Lake, clip_id: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Return the clips of the song that a clip belongs to, from its beginning; no rows for an unknown clip."""
    songs, ids = read_songs(lake.clips), lake.clips.ids()
    number = int(songs.of([clip_id])[0])
    own = ids.filter(pl.Series(songs.of(ids) == number)) if len(ids) != len(songs.numbers) else (
        ids.gather(np.flatnonzero(songs.numbers == number))
    )
    wanted = None if columns is None else list(dict.fromkeys([*columns, "start_s"]))
    found = lake.clips.take(own.to_list() if number >= 0 else [], wanted)
    return found.sort("start_s", "clip_id")


def recent_songs(lake: Lake, count: int = 6) -> pl.DataFrame:
    """Return the songs that were added last, newest first."""
    newest = lake.clips.ids().reverse()
    return cached(lake, ("recent", count), lambda: songs_of(lake, newest, first=count)[0])


def start_songs(lake: Lake, space: Space | None, count: int = 6) -> pl.DataFrame:
    """Return a few songs that differ: of clusters of a sample of clips, the largest first, the song nearest to each centre.

    Each is by another artist as long as there are enough.  Without a space, the first songs of the artists with most songs.
    The answer depends on the lake alone.
    """
    if space is None:
        return cached(lake, ("start", count), lambda: _first_songs(lake, count))
    version = lake.vectors(space).table.version
    return cached(lake, ("start", count, space.fingerprint, version), lambda: _central_songs(lake, space, count))


def _first_songs(lake: Lake, count: int) -> pl.DataFrame:
    names = artists(lake)["artist"][:count].to_list()
    clips = lake.clips.read(["clip_id", "artist"]).unique("artist", keep="first", maintain_order=True)
    order = {name: place for place, name in enumerate(names)}
    chosen = sorted((row for row in clips.iter_rows() if row[1] in order), key=lambda row: order[row[1]])
    ids = [clip_id for clip_id, _ in chosen]
    if len(ids) < count:                 # fewer artists
        ids += lake.clips.ids().to_list()
    return songs_of(lake, ids, first=count)[0]


def _central_songs(lake: Lake, space: Space, count: int) -> pl.DataFrame:
    from sklearn.cluster import KMeans

    ids = lake.vectors(space).ids()
    ids = ids.filter(ids.is_in(lake.clips.ids().implode()))
    rows = np.sort(np.random.default_rng(SEED).choice(len(ids), min(SAMPLE, len(ids)), replace=False))
    taken = lake.vectors(space).take(ids.gather(rows).to_list(), space.default_layer)
    vectors = taken.vectors.astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    kept = np.isfinite(vectors).all(axis=1)
    ids, vectors = pl.Series("clip_id", taken.ids).filter(pl.Series(kept)), vectors[kept]
    if not len(ids):
        return _first_songs(lake, count)
    found = KMeans(min(count, len(np.unique(vectors, axis=0))), n_init=1, random_state=SEED).fit(vectors)
    away = np.linalg.norm(vectors - found.cluster_centers_[found.labels_], axis=1)
    named = lake.clips.take(ids.to_list(), ["artist"]).with_columns(
        cluster=found.labels_, away=away, song=read_songs(lake.clips).of(ids),
    )
    sizes = named.group_by("cluster").len("size")
    named = named.join(sizes, on="cluster").sort("size", "cluster", "away", "clip_id", descending=[True, False, False, False])
    chosen: dict[int, str] = {}
    used: set[object] = set()            # artists and songs
    for others in (False, True):         # with fewer artists than clusters, another song of an artist
        for cluster, artist, song, clip_id in named.select("cluster", "artist", "song", "clip_id").iter_rows():
            if cluster not in chosen and song not in used and (others or artist is None or artist not in used):
                chosen[cluster] = clip_id
                used |= {artist, song}
    return songs_of(lake, [*chosen.values(), *named["clip_id"]], first=count)[0]


# -- artists, albums, and values of labels


def artists(lake: Lake) -> pl.DataFrame:
    """Return artist and songs, those with most songs first.  Each of several artists of a song counts."""
    return values_of(lake, "artist").rename({"value": "artist"})


def albums(lake: Lake) -> pl.DataFrame:
    """Return album, artist (null where songs of an album differ in it) and songs, those with most songs first."""
    return cached(lake, ("albums",), lambda: _read_albums(lake))


def _read_albums(lake: Lake) -> pl.DataFrame:
    present = [name for name in ("album_artist", "artist") if name in lake.clips.columns()]
    clips = lake.clips.read(["clip_id", "album", *present])
    clips = clips.with_columns(song=pl.Series(read_songs(lake.clips).of(clips["clip_id"]))).drop_nulls("album")
    each = clips.filter(pl.col("album") != "").select("album", "song", artist=pl.coalesce(present)).unique()
    first, last = pl.col("artist").min(), pl.col("artist").max()         # nulls are left out
    found = each.group_by("album").agg(
        artist=pl.when(first == last).then(first), songs=pl.col("song").n_unique().cast(pl.Int64),
    )
    return found.sort("songs", "album", descending=[True, False])


def values_of(lake: Lake, column: str) -> pl.DataFrame:
    """Return value and songs of a column, the most frequent value first.  Each value of a list counts.

    Raises InputError for a column that clips do not have.
    """
    lake.clips.check_column(column)
    return cached(lake, ("values", column), lambda: _read_values(lake, column))


def _read_values(lake: Lake, column: str) -> pl.DataFrame:
    several = "artists" if column == "artist" and "artists" in lake.clips.columns() else None
    clips = lake.clips.read(["clip_id", column, *([several] if several else [])])
    songs = read_songs(lake.clips).of(clips["clip_id"])
    if several:                          # `artist` is all of them as one text
        listed = clips[several].list.len().fill_null(0) > 0
        found = pl.concat([
            value_rows(clips[several]), value_rows(pl.select(pl.when(~listed).then(clips[column])).to_series()),
        ])
    else:
        found = value_rows(clips[column])
    if found["value"].dtype == pl.String:
        found = found.filter(pl.col("value") != "")
    each = found.select("value", song=songs[found["row"].to_numpy()]).unique()
    counted = each.group_by("value").agg(songs=pl.len().cast(pl.Int64))
    return counted.sort("songs", "value", descending=[True, False])


def value_text(value: object) -> str:
    """Return a value as it is in the address.

    >>> value_text(True), value_text(1990)
    ('true', '1990')
    """
    return str(value).lower() if isinstance(value, bool) else str(value)


def narrowing_columns(lake: Lake) -> list[str]:
    """Return the columns by whose values a list of songs can be narrowed: artist, album and year first.

    Left out are columns with one value, and label columns that name nearly every song by a value of its own.
    """
    return cached(lake, ("narrowing",), lambda: _read_narrowing(lake))


def _read_narrowing(lake: Lake) -> list[str]:
    present = lake.clips.columns()
    types = lake.clips.read(present, where="false").schema
    songs = int(read_songs(lake.clips).numbers.max(initial=-1)) + 1
    first = [name for name in ("artist", "album", "year") if name in present]
    others = [name for name in descriptive_columns(present) if name not in (*first, *NEVER_CHIPS)]
    found: list[str] = []
    for name in [*first, *others] if songs > 1 else []:
        if not can_group(types[name]) or kind_of(types[name]) == "time":
            continue
        values = values_of(lake, name)
        identifier = name not in first and len(values) > max(FEW_VALUES, songs / 2)
        if len(values) > 1 and not identifier:
            found.append(name)
    return found


def is_range(lake: Lake, column: str) -> bool:
    """Whether a column is narrowed by a first and a last number rather than by single values: the year."""
    return column == "year" and kind_of(lake.clips.read([column], where="false").schema[column]) == "integer"


# -- names that resemble what was typed, and words


def word_space(lake: Lake, text: str) -> Space | None:
    """Return the first space that answers a text as words, of those that understand words or name all of it as tags."""
    return next((space for space, _ in spaces_with_words(lake) if answers_words(space, text)), None)


@dataclass(frozen=True, kw_only=True)
class NamedValue:
    """An artist or an album that resembles what was typed."""

    column: str                          # artist or album
    value: str
    songs: int
    artist: str | None = None            # of an album
    score: float = 0.0                   # 0 to 100


def match_values(lake: Lake, typed: str, *, count: int = 4) -> list[NamedValue]:
    """Return the artists and albums whose names resemble what was typed, best first; typing errors are allowed."""
    folded = folded_name(typed)
    if len(folded) < 2:
        return []
    found = [
        NamedValue(column="artist", value=artist, songs=songs, score=score)
        for (artist, songs), score in _nearest(folded, artists(lake), folded_names(lake, "artist"), count)
    ] + [
        NamedValue(column="album", value=album, artist=artist, songs=songs, score=score)
        for (album, artist, songs), score in _nearest(folded, albums(lake), folded_names(lake, "album"), count)
    ]
    return sorted(found, key=lambda one: -one.score)[:count]


def _nearest(typed: str, table: pl.DataFrame, names: Sequence[str], count: int) -> list[tuple[tuple, float]]:
    """Rows of a table with scores: names that begin with the text, then those with a word that does, then similar ones."""
    from rapidfuzz import fuzz, process

    scores = {row: score for _, score, row in process.extract(
        typed, names, scorer=fuzz.ratio, limit=4 * count, score_cutoff=LEAST_SCORE,
    )}
    begun = (row for row, name in enumerate(names) if f" {typed}" in f" {name}")
    for row, _ in zip(begun, range(4 * count), strict=False):          # rows are in order of their songs
        scores[row] = max(scores.get(row, 0.0), 95.0 if names[row].startswith(typed) else 90.0)
    best = sorted(scores, key=lambda row: (-scores[row], row))[:count]
    return [(table.row(row), scores[row]) for row in best]


def folded_names(lake: Lake, column: str) -> list[str]:
    """Return the names of artists or albums, in the order of their tables, folded for comparison."""
    table = artists(lake) if column == "artist" else albums(lake)
    return cached(lake, ("folded", column), lambda: [folded_name(name) for name in table[column]])


def folded_name(name: str) -> str:
    """Return a name in lower case and Latin letters, without signs.

    >>> folded_name("Béla  Fleck & the Flecktones")
    'bela fleck the flecktones'
    """
    from anyascii import anyascii

    return " ".join("".join(sign if sign.isalnum() else " " for sign in anyascii(name).casefold()).split())
