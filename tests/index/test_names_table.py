"""The table of names stays in step with the lake."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from named_songs import SONGS, clip_id, found, lake_of, rows_of, taken
from sounds import melody, write

from tonelake import index
from tonelake.index.names import table as names_table
from tonelake.index.names.find import match_songs
from tonelake.index.names.folded import fold_song, shown_texts, stored_text
from tonelake.index.names.songs import clips_of_song, read_song_names
from tonelake.ingest import ingest_folder
from tonelake.store import InputError, Lake, LakeError


def equals_the_clips(lake: Lake) -> bool:
    """Whether the stored names are those of the clips."""
    stored, songs = names_table.current_names(lake).read().sort("song"), read_song_names(lake).sort("song")
    expected = [stored_text(fold_song(row), text) for row, text in zip(songs.to_dicts(), shown_texts(songs), strict=True)]
    return stored["song"].equals(songs["song"]) and stored["text"].to_list() == expected


def test_names_follow_labels_new_clips_and_deleted_ones(tmp_path):
    lake = lake_of(tmp_path, SONGS, clips=2)
    assert taken(lake, "love theme") == "Love Theme"
    ids = lake.clips.ids("title = 'Love Theme'")
    lake.clips.set_labels(pl.DataFrame({"clip_id": ids, "title": ["Nocturne in Blue"] * 2}))
    assert taken(lake, "nocturne in blue") == "Nocturne in Blue" and "Love Theme" not in found(lake, "love theme")
    lake.clips.add(rows_of([("Brand New Day", "Dua", None, "31.mp3")]))
    assert taken(lake, "brand new dai") == "Brand New Day"
    lake.clips.table.delete("title = 'Nocturne in Blue'")
    assert taken(lake, "nocturne in blue") is None and equals_the_clips(lake)
    other = Lake(lake.uri)
    assert taken(other, "brand new day") == "Brand New Day" and equals_the_clips(other)


def test_names_are_not_written_again_while_nothing_changes(tmp_path):
    lake = lake_of(tmp_path, SONGS)
    match_songs(lake, "love theme")
    before = names_table.current_names(lake).version
    other = Lake(lake.uri)
    for _ in range(3):
        match_songs(lake, "love theme")
        match_songs(other, "love theme")
    assert names_table.current_names(Lake(lake.uri)).version == before


def test_confirmed_duplicates_are_one_song(tmp_path):
    lake = lake_of(tmp_path, [("Song", "Ada", "One", "1.mp3"), ("Song", "Ada", "Two", "2.mp3")], clips=2)
    assert taken(lake, "song ada") is None and len(found(lake, "song ada")) == 2
    ids = lake.clips.ids()
    lake.clips.set_labels(pl.DataFrame({"clip_id": ids, "same_as": [ids[0]] * len(ids)}))
    song = index.find_named(lake, "song ada")
    assert set(song.tracks) == {"t/1.mp3", "t/2.mp3"}


def test_found_songs_have_every_path_and_are_marked_if_all_of_them_are_missing(tmp_path):
    lake = Lake(tmp_path / "lake")
    music = tmp_path / "music"
    for number, name in enumerate(("Harbour.wav", "Meadow.wav")):
        write(music / name, melody(1.2, seed=number, rate=8_000), 8_000)
    shutil.copy(music / "Harbour.wav", music / "Again.wav")
    ingest_folder(lake, music, seconds=None)
    (music / "Meadow.wav").unlink()
    (music / "Harbour.wav").rename(music / "Harbour Moved.wav")
    ingest_folder(lake, music, seconds=None)
    song, gone = (index.find_songs(lake, words, k=1).row(0, named=True) for words in ("again", "meadow"))
    assert (song["paths"], song["state"]) == ([str(music / "Again.wav"), str(music / "Harbour Moved.wav")], None)
    assert (gone["paths"], gone["state"], gone["clips"]) == ([str(music / "Meadow.wav")], "missing", 1)
    assert index.find_songs(lake_of(tmp_path / "b", SONGS), "déjà vu", k=1)["paths"].to_list() == [["/music/01.flac"]]


def test_a_name_of_two_data_sets_is_two_songs(tmp_path):
    rows = rows_of([("Minuet", "Ada", None, "1.mp3"), ("Gavotte", "Bea", None, "2.mp3")], clips=2)
    lake = Lake(tmp_path / "lake")
    lake.clips.add(rows.with_columns(
        track=pl.lit("1"), dataset=pl.Series(["a", "a", "b", "b"]), labelled=pl.Series([["track"]] * 4)
    ))
    for words, artist in (("minuet", "Ada"), ("gavotte", "Bea")):
        song = index.find_named(lake, words)
        assert song.artist == artist and len(clips_of_song(lake, song)) == 2
        assert index.find_songs(lake, words, k=1)["clips"].to_list() == [2]


@pytest.mark.parametrize("fault", [
    "no stamp", "damaged stamp", "rows of another writer", "no index", "damaged index", "grams of another version", "no table",
])
def test_a_table_that_is_stale_or_damaged_is_mended_by_the_next_search(tmp_path, fault, monkeypatch):
    lake = lake_of(tmp_path, SONGS)
    match_songs(lake, "love theme")
    folder = Path(lake.uri)
    if fault == "no stamp":
        (folder / "names" / "built.json").unlink()
        lake.clips.set_labels(pl.DataFrame({"clip_id": [clip_id("26.mp3")], "title": ["Goodbye Now"]}))
    elif fault == "damaged stamp":
        (folder / "names" / "built.json").write_text("{")
    elif fault == "rows of another writer":
        table = names_table.current_names(lake).table
        rows = pl.from_arrow(table.read(where="text LIKE '%Love Theme%'"))
        table.upsert(rows.with_columns(text=pl.col("text").str.replace_all("(?i)love theme", "Old Name")).to_arrow())
    elif fault == "no index":
        table = names_table.current_names(lake).table.dataset()
        table.drop_index(table.describe_indices()[0].name)
    elif fault == "damaged index":
        shutil.rmtree(folder / "names.lance" / "_indices")
    elif fault == "grams of another version":
        monkeypatch.setattr(names_table, "VERSION", 99)
    else:
        shutil.rmtree(folder / "names.lance")
    other = Lake(lake.uri)
    assert taken(other, "love theme") == "Love Theme" and taken(other, "gruppa krovi") == "Группа крови"
    assert equals_the_clips(other)
    assert (folder / "names.lance").is_dir()


def test_a_lake_that_cannot_be_written_is_answered_and_followed_all_the_same(tmp_path, monkeypatch):
    lake = lake_of(tmp_path, SONGS)

    def refuse(*_: object) -> None:
        raise LakeError("no permission")

    monkeypatch.setattr(names_table, "write_stamp", refuse)
    assert taken(lake, "love teme") == "Love Theme"
    lake.clips.set_labels(pl.DataFrame({"clip_id": [clip_id("26.mp3")], "title": ["Goodbye Now"]}))
    assert taken(lake, "goodbye now") == "Goodbye Now"
    assert not (Path(lake.uri) / "names.lance").exists()


def test_a_lake_on_an_object_store_is_searched_by_name(s3):
    lake = Lake(f"{s3}/lake")
    lake.clips.add(rows_of(SONGS[:6]))
    assert taken(lake, "love teme") == "Love Theme"
    lake.clips.set_labels(pl.DataFrame({"clip_id": [clip_id(SONGS[0][3])], "title": ["Goodbye Now"]}))
    other = Lake(f"{s3}/lake")
    assert taken(other, "goodbye now") == "Goodbye Now" and equals_the_clips(other)


def test_an_empty_lake_has_no_songs(lake):
    assert match_songs(lake, "love") == [] and len(index.find_songs(lake, "love")) == 0
    lake.clips.add(rows_of(SONGS[:2]))
    assert taken(lake, "love theme") == "Love Theme"


def test_an_index_that_lance_would_never_finish_is_refused(tmp_path, monkeypatch):
    """With one thread for reading, Lance waits for ever while it builds a text index."""
    lake = lake_of(tmp_path, SONGS[:2])
    monkeypatch.setenv("LANCE_IO_THREADS", "1")
    with pytest.raises(InputError, match="LANCE_IO_THREADS=1"):
        match_songs(lake, "love theme")


@pytest.mark.slow
def test_processes_that_search_and_rename_at_once_leave_the_names_of_the_clips(tmp_path):
    lake = lake_of(tmp_path, [(f"Song {n} of many", f"Artist {n % 7}", None, f"{n}.mp3") for n in range(300)])
    code = """
import sys; import polars as pl
from tonelake.store import Lake
from tonelake.index.names.find import match_songs
from tonelake.index.names.folded import FoldedSong, fold_song, shown_texts, stored_text
lake, mine = Lake(sys.argv[1]), int(sys.argv[2])
ids = lake.clips.ids()
for step in range(6):
    one = ids[mine * 50 + step]
    lake.clips.set_labels(pl.DataFrame({"clip_id": [one], "title": [f"Renamed {mine} at {step}"]}))
    songs = match_songs(lake, f"renamed {mine} at {step}")
    assert songs and songs[0].title == f"Renamed {mine} at {step}", songs[:2]
"""
    running = [subprocess.Popen([sys.executable, "-c", code, lake.uri, str(n)], stderr=subprocess.PIPE) for n in range(3)]
    for one in running:
        _, errors = one.communicate(timeout=300)
        assert one.returncode == 0, errors.decode()[-2000:]
    assert equals_the_clips(Lake(lake.uri))
    assert names_table.current_names(lake).table.count() == 300
