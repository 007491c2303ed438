"""Songs: which clips belong together, over the whole lake; and filters that are not what they look like."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows

from tonelake.store import FilterError, Lake, read_songs, track_numbers


def test_songs_are_tracks_joined_by_duplicates(lake):
    lake.clips.add(clip_rows(6, 3))
    assert len(np.unique(read_songs(lake.clips).numbers)) == 6
    ids = lake.clips.ids()
    lake.clips.set_labels(pl.DataFrame({"clip_id": [ids[0], ids[9]], "same_as": [ids[0]] * 2}))
    songs = read_songs(lake.clips)       # read again, because clips have changed
    assert len(np.unique(songs.of(ids))) == 5 and songs.of([ids[1]])[0] == songs.of([ids[11]])[0]
    assert songs.dense([ids[17], ids[2], ids[10]]).tolist() == [1, 0, 0]
    assert (songs.of(ids) == track_numbers(lake.clips.take(ids.to_list()))).all()
    strange = songs.of(["f" * 20, ids[0], "e" * 20])
    assert strange[0] < 0 and strange[2] < 0 and strange[0] != strange[2] and strange[1] >= 0
    assert len(read_songs(Lake(lake.uri + "-empty").clips).of([])) == 0


def test_a_name_that_labels_gave_holds_in_one_data_set_and_a_recording_in_all(lake):
    def clip(number: int, dataset: str | None, recording: str, labelled: list[str] | None, **more) -> dict:
        return {"clip_id": f"{number:020x}", "track": "1", "source": f"/{recording}", "digest": recording, "start_s": 0.0,
                "duration_s": 10.0, "recording": recording, "dataset": dataset, "labelled": labelled} | more

    lake.clips.add(pl.DataFrame([
        clip(0, "a", "r0", ["track"]), clip(1, "a", "r1", ["track"]),    # two recordings of one track of set a
        clip(2, "b", "r2", ["track"]),                                   # a track of that name in set b
        clip(3, "c", "r2", ["track"]),                                   # and a clip of its recording, from another run
        clip(4, None, "r4", None), clip(5, "b", "r4", None),             # named after a path
        clip(6, "c", "s", ["track"], separated_from=f"{2:020x}"), clip(7, None, "t", ["track"], separated_from=f"{4:020x}"),
    ], infer_schema_length=None))
    songs = read_songs(lake.clips).dense(lake.clips.ids())
    assert [sorted(np.flatnonzero(songs == number).tolist()) for number in dict.fromkeys(songs.tolist())] == [
        [0, 1], [2, 3, 6], [4, 5, 7]
    ]
    assert (songs == read_songs(Lake(lake.uri).clips).dense(lake.clips.ids())).all()


@pytest.fixture
def typed(lake):
    rows = clip_rows(6, 1).drop("year")
    lake.clips.add(rows.with_columns(
        year=pl.Series(["850", "999", "1850", "1991", "2005", "c. 1720"]), plays=pl.Series([5, 20, 100, 325, 7, 1000]),
        order=pl.Series(range(6)), live=pl.Series([True, False] * 3), sizes=pl.Series([[3, 4]] * 3 + [[5]] * 3),
    ))
    return lake


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("\"artist\" = 'Artist 0'", 4), ("\"artist\" != 'Artist 0'", 2), ("\"Artist\" = 'Artist 0'", 4), ('"plays" > 100', 2),
        ("\"artist\" IS NULL", 0), ("\"year\" IN ('850', '1991')", 2), ("`artist` != 'Artist 0'", 2), ("order > 2", 3),
        ("title = 'a \"quoted\" name'", 0), ("title != 'it''s \"artist\"'", 6), ("TRY_CAST(year AS double) > 1900", 2),
        ("\"artist\" = 'Artist 0' AND \"plays\" > 50", 2), ("`Artist` != 'Artist 0'", 2),
        ("lower(\"artist\") LIKE '%1'", 2), ("\"artist\" NOT LIKE 'Artist%'", 0), ('"plays" BETWEEN 7 AND 100', 3),
        ('NOT ("plays" IN (5, 7))', 4), ("array_has(\"tags\", 'odd')", 3), ('array_has("sizes", 5)', 3),
        ("coalesce(\"album\", 'none') = 'none'", 6), ('"live" AND "added_at" > date \'2026-01-01\'', 3),
        ("title = 'a;b'", 0), ("plays + 1 > '100'", 3), ("CAST(plays AS double) > 99.5", 3),
    ],
)
def test_a_name_in_double_quotes_is_the_column(typed, where, count):
    assert len(typed.clips.read(where=where)) == count


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ('artist = "Artist 0"', "write text in single quotes: 'Artist 0'"),
        ('"artst" != \'X\'', "clips have no such column"),
        ("year > 1900", "1900 is a number, and the column holds text"),
        ("plays = '5'", "is text, and the column holds numbers"),
        ("plays > 99.5", "99.5 is a decimal number, and the column holds whole ones"),
        ("CAST(year AS double) > 1900", "Cannot cast string 'c. 1720'.* Write TRY_CAST"),
        ("year BETWEEN 900 AND 1900", "900 is a number, and the column holds text"),
        ("plays IN (5, '20')", "'20' is text, and the column holds numbers; leave out the quotes"),
        ("live = 1", "1 is a number, and the column holds true or false"),
        ("live = 'True'", "'True' is text, and the column holds true or false"),
        ("artist = true", "true is a truth value, and the column holds text"),
        ("added_at > '2026-01-01'", "'2026-01-01' is text, and the column holds times; write timestamp"),
        ("added_at > 2026", "2026 is a number, and the column holds times"),
        ("added_at > year", "'850' is not a time"),
        ("plays LIKE '5%'", "the column holds whole numbers; write CAST"),
        ("tags LIKE '%odd%'", "a column of lists has no single value"), ("sizes > 3", "a column of lists has no single value"),
        ("live = plays", "true or false cannot be compared with whole numbers"), ("tags = artist", "a column of lists"),
        ("array_has(sizes, '3')", "the lists hold whole numbers, and the value is text"),
        ("array_has(artist, 'x')", "array_has takes a column of lists, and the column holds text"),
        ("array_length(plays) > 1", "array_length takes a column of lists"), ("lower(plays) = '5'", "write CAST"),
        ("plays / 0 > 1", "divides by zero"), ("count(*) > 1", "no value for a single clip"),
        ("plays > ?", "write the value itself"), ("plays IN (SELECT 1)", "is not supported in filters"),
        ('"a;b" = 1', "clips have no such column"),
    ],
)
def test_a_comparison_of_unlike_things_is_explained(typed, where, words):
    with pytest.raises(FilterError, match=f"(?i){words}"):
        typed.clips.read(where=where)
