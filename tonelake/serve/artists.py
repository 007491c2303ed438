"""Artists near an artist, with songs of both that exemplify it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake import Lake
from tonelake.index import MIN_TRACKS
from tonelake.serve.catalogue import Catalogue
from tonelake.serve.rows import NearArtist, SongRow
from tonelake.store import InputError, Space

EXAMPLES, EXAMPLE_SONGS = 3, 100         # songs that are shown of an artist, and songs that are looked at for them


def find_near_artists(
    lake: Lake, catalogue: Catalogue, name: str, space: Space, layer: int, count: int
) -> list[NearArtist]:
    """Return the artists most similar to one, compared at equal size."""
    column, found = near_groups(lake, catalogue, name, space, layer, count)
    known = [row for row in found.select(column, "similarity").drop_nulls().iter_rows() if row[0] in catalogue.artists]
    own = first_vectors(lake, catalogue, space, layer, name)
    near = []
    for other, score in known:
        theirs = first_vectors(lake, catalogue, space, layer, other)
        near.append(NearArtist(
            id=catalogue.id_of_artist(other), name=other, score=score, examples=nearest_songs(catalogue, own, theirs[1]),
            near_examples=nearest_songs(catalogue, theirs, own[1]),
        ))
    return near


def near_groups(
    lake: Lake, catalogue: Catalogue, name: str, space: Space, layer: int, count: int
) -> tuple[str, pl.DataFrame]:
    """Return the column that holds an artist, and the groups of it most similar to the artist.

    An artist of few songs is compared as if every artist had as few.
    """
    alone = (catalogue.songs["artist"] == name).any()
    column = "artist" if alone or "artists" not in lake.clips.columns() else "artists"
    least = min(MIN_TRACKS, max(1, len(catalogue.artists[name])))
    for tracks in dict.fromkeys([least, 1]):
        try:
            return column, lake.groups(column, name, k=count, space=space.name, layer=layer, min_tracks=tracks)
        except InputError:
            if tracks == 1:
                raise
    raise AssertionError


def first_vectors(
    lake: Lake, catalogue: Catalogue, space: Space, layer: int, artist: str
) -> tuple[list[tuple[int, str]], np.ndarray]:
    """Return (row, clip) of the first embedded clips of an artist's songs, and their (clip, dim) vectors of unit length."""
    clips = {catalogue.clips_of(row)["clip_id"][0]: row for row in catalogue.artists[artist][:EXAMPLE_SONGS].tolist()}
    vectors = lake.vectors(space)
    embedded: Sequence[str] = list(clips)
    try:
        found = vectors.take(embedded, layer).vectors
    except InputError:                   # some are not embedded yet
        ids = pl.Series(embedded)
        embedded = ids.filter(ids.is_in(vectors.ids().implode())).to_list()
        found = vectors.take(embedded, layer).vectors
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return [(clips[clip], clip) for clip in embedded], found / np.maximum(lengths, 1e-9)


def nearest_songs(catalogue: Catalogue, songs: tuple[list[tuple[int, str]], np.ndarray], others: np.ndarray) -> list[SongRow]:
    """Return the songs nearest to the mean of (clip, dim) vectors."""
    if not len(others) or not len(songs[1]):
        return []
    nearest = np.argsort(-(songs[1] @ others.mean(axis=0)), kind="stable")[:EXAMPLES]
    return [catalogue.song(songs[0][place][0], clip_id=songs[0][place][1]) for place in nearest]
