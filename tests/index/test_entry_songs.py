"""Songs by which to enter one group from another, against loops over all songs."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows, fill

from tonelake import index
from tonelake.store import InputError


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_entry_songs_are_the_nearest_to_the_other_groups_songs(filled):
    found = index.entry_songs(filled, "artist", "Artist 1", ["Artist 4", "Artist 0"], k=3, layer="high", centre=False)
    clips = filled.clips.read(["clip_id", "artist", "track", "title"])
    vectors = unit(filled.vectors().layer("high").vectors)
    rows = {name: np.flatnonzero((clips["artist"] == name).to_numpy()) for name in ("Artist 1", "Artist 4", "Artist 0")}

    def songs_of(name):
        tracks = clips["track"].to_numpy()[rows[name]]
        return {track: rows[name][tracks == track] for track in np.unique(tracks)}

    own = {track: vectors[mine].mean(axis=0) for track, mine in songs_of("Artist 1").items()}
    middle = unit(np.mean(list(own.values()), axis=0))
    for name in ("Artist 4", "Artist 0"):
        shown = found.filter(group=name)
        scores = {track: unit(vectors[mine].mean(axis=0)) @ middle for track, mine in songs_of(name).items()}
        best = sorted(scores, key=lambda track: -scores[track])[:3]
        assert shown["track"].to_list() == best and shown["rank"].to_list() == [1, 2, 3]
        np.testing.assert_allclose(shown["score"], [scores[track] for track in best], atol=1e-5)
        for row, track in zip(shown.to_dicts(), best, strict=True):
            mine = songs_of(name)[track]
            assert row["clip_id"] == clips["clip_id"][int(mine[(vectors[mine] @ middle).argmax()])] and row["clips"] == 10
            near = max(own, key=lambda one: unit(own[one]) @ unit(vectors[mine].mean(axis=0)))
            assert row["near_title"] == clips.filter(track=near)["title"][0]
    assert found["group"].unique(maintain_order=True).to_list() == ["Artist 4", "Artist 0"]


def test_a_song_that_both_share_is_no_entry_and_mistakes_are_named(lake):
    fill(lake, 12, 2, seed=3)
    duet = clip_rows(12, 2).with_columns(singers=pl.Series([
        ["Ada", "Cleo"] if track == 5 else ["Ada"] if track < 5 else ["Cleo"] for track in range(12) for _ in range(2)
    ]))
    lake.clips.set_labels(duet.select("clip_id", "singers"))
    found = index.entry_songs(lake, "singers", "Ada", ["Cleo"], k=20)
    assert len(found) == 6 and "track005" not in found["track"].to_list()
    assert index.entry_songs(lake, "singers", "Ada", []).is_empty()
    with pytest.raises(InputError, match="singers 'Bob': not among"):
        index.entry_songs(lake, "singers", "Ada", ["Bob"])
    with pytest.raises(InputError, match="must be at least 1"):
        index.entry_songs(lake, "singers", "Ada", ["Cleo"], k=0)


def test_sizes_of_groups_are_those_that_groups_are_compared_at(filled):
    sizes = index.group_sizes(filled, "artist").sort("group")
    compared = index.groups(filled, "artist")
    assert sizes["group"].to_list() == compared["artist"].to_list() and sizes["units"].to_list() == sizes["tracks"].to_list()
    assert sizes.select("clips", "tracks").equals(compared.select("clips", "tracks"))
    pieces = index.group_sizes(filled, "track")
    assert set(pieces["tracks"]) == {1} and pieces["units"].to_list() == pieces["clips"].to_list()
    assert len(index.group_sizes(filled, "artist", where="artist = 'Artist 1'")) == 1
