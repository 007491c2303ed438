"""The shelf of a lake: songs, artists, albums, values with their songs, songs to start from, and names that are misspelt."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import TagsEncoder, clip_rows, fill

from tonelake import shelf
from tonelake.store import InputError, read_songs


@pytest.fixture
def twelve(lake):
    """Twelve songs of three artists, three clips each, with vectors."""
    return lake, fill(lake, 12, 3, seed=0)


def test_artists_and_values_count_songs_not_clips(twelve):
    lake, _ = twelve
    assert dict(shelf.artists(lake).iter_rows()) == {"Artist 0": 4, "Artist 1": 4, "Artist 2": 4}
    assert dict(shelf.values_of(lake, "tags").iter_rows()) == {"even": 6, "odd": 6, "tag0": 4, "tag1": 4, "tag2": 4}
    with pytest.raises(InputError, match="no column"):
        shelf.values_of(lake, "mood")


def test_each_of_several_artists_of_a_song_is_counted(lake):
    rows = clip_rows(3, 2).with_columns(
        artist=pl.col("track").replace_strict({"track000": "Ada", "track001": "Ada; Bea", "track002": "Bea"}),
        artists=pl.col("track").replace_strict(
            {"track000": None, "track001": ["Ada", "Bea"], "track002": ["Bea"]}, return_dtype=pl.List(pl.String)),
    )
    lake.clips.add(rows)
    assert dict(shelf.artists(lake).iter_rows()) == {"Ada": 2, "Bea": 2}


def test_an_album_of_several_artists_has_no_artist(lake):
    number = pl.col("track").str.slice(5).cast(pl.Int64)
    lake.clips.add(clip_rows(6, 1).with_columns(album=pl.when(number < 2).then(pl.lit("One")).when(number > 3).then(
        pl.lit("")).otherwise(pl.lit("Two")), artist=pl.when(number == 3).then(pl.lit("Guest")).otherwise("artist")))
    assert shelf.albums(lake).rows() == [("One", "Artist 0", 2), ("Two", None, 2)]


def test_answers_follow_the_clips(twelve):
    lake, _ = twelve
    assert len(shelf.artists(lake)) == 3 and shelf.recent_songs(lake, 2)["title"].to_list() == ["Title 11", "Title 10"]
    lake.clips.add(clip_rows(16, 1))
    assert len(shelf.artists(lake)) == 4 and shelf.recent_songs(lake, 1)["title"].to_list() == ["Title 15"]


def test_songs_of_clips_are_folded_counted_and_cut_in_order(twelve):
    lake, _ = twelve
    ids = lake.clips.ids()
    found, total = shelf.songs_of(lake, ids.reverse(), first=2)
    assert total == 12 and found["title"].to_list() == ["Title 11", "Title 10"] and found["clips"].to_list() == [3, 3]
    assert found["clip_id"].to_list() == [ids[35], ids[32]]          # the first of each song among the given clips
    assert shelf.songs_of(lake, [], first=5)[1] == 0


def test_clips_of_a_song_are_those_of_its_track_from_the_beginning(twelve):
    lake, _ = twelve
    ids = lake.clips.ids()
    found = shelf.clips_of_song(lake, ids[5])
    assert found["clip_id"].to_list() == ids[3:6].to_list() and found["start_s"].is_sorted()
    assert not len(shelf.clips_of_song(lake, "nothing"))


def test_songs_to_start_from_are_near_different_centres_by_different_artists(twelve):
    lake, space = twelve
    found = shelf.start_songs(lake, space, 3)
    assert sorted(found["artist"]) == ["Artist 0", "Artist 1", "Artist 2"]           # layer `high` groups by artist
    assert found.equals(shelf.start_songs(lake, space, 3))
    songs = read_songs(lake.clips).of(found["clip_id"])
    assert len(np.unique(songs)) == 3
    assert sorted(shelf.start_songs(lake, None, 3)["artist"]) == ["Artist 0", "Artist 1", "Artist 2"]


@pytest.mark.parametrize("songs", [0, 1])
def test_a_lake_of_no_or_one_song_has_a_shelf(lake, songs):
    lake.clips.add(clip_rows(max(songs, 1), 1))
    space = fill(lake, 1, 1, seed=0) if songs else None
    if not songs:
        lake.clips.table.delete("true")
    assert len(shelf.start_songs(lake, space)) == len(shelf.recent_songs(lake)) == len(shelf.artists(lake)) == songs
    assert not len(shelf.albums(lake)) and shelf.narrowing_columns(lake) == []


def test_columns_that_name_single_songs_or_have_one_value_do_not_narrow(lake):
    lake.clips.add(clip_rows(120, 1).with_columns(
        code=pl.col("track"), mood=pl.lit("calm"), tempo=pl.lit(1.5), fold=pl.col("year") % 2,
    ))
    assert shelf.narrowing_columns(lake) == ["artist", "year", "tags", "fold"]
    assert shelf.is_range(lake, "year") and not shelf.is_range(lake, "fold")


def test_artists_and_albums_are_found_despite_a_typing_error(lake):
    lake.clips.add(clip_rows(3, 1).with_columns(
        artist=pl.Series(["Béla Fleck", "Johann Sebastian Bach", "Ada"]), album=pl.Series(["Drive", "Matthäus-Passion", None]),
    ))
    def first(typed):
        return [(one.column, one.value, one.songs) for one in shelf.match_values(lake, typed)][:1]

    assert first("bela flek") == [("artist", "Béla Fleck", 1)]
    assert first("bach") == [("artist", "Johann Sebastian Bach", 1)]
    assert first("Matthaus Pasion") == [("album", "Matthäus-Passion", 1)]
    assert shelf.match_values(lake, "Matthaus")[0].artist == "Johann Sebastian Bach"
    assert shelf.match_values(lake, "x") == [] == shelf.match_values(lake, "zzzzzzzz") == shelf.match_values(lake, "!!")


def test_words_are_answered_by_a_space_that_names_them(lake):
    fill(lake, 2, 1, 0)
    assert shelf.word_space(lake, "slow piano") is None
    space = fill(lake, 2, 1, 0, TagsEncoder)
    assert shelf.word_space(lake, "slow piano") == space and shelf.word_space(lake, "title 1") is None
