"""GTZAN, FMA, MTG-Jamendo and MagnaTagATune, each as a tiny folder in its own layout with real audio."""

from __future__ import annotations

import pytest
from dataset_files import rows_of, sound, text

from tonelake import ingest
from tonelake.store import InputError


def test_gtzan_has_genres_and_the_filtered_split_without_the_broken_file(lake, tmp_path):
    home = tmp_path / "set" / "genres_original"
    for number, name in enumerate(("jazz/jazz.00001", "jazz/jazz.00054", "rock/rock.00010", "rock/rock.00011")):
        sound(home / f"{name}.wav", number)
    sound(home / "notes.wav", 9)                             # not a clip of GTZAN's
    text(tmp_path / "set" / "train_filtered.txt", "jazz/jazz.00001.wav")
    text(tmp_path / "set" / "valid_filtered.txt", "rock/rock.00010.wav")
    text(tmp_path / "set" / "test_filtered.txt", "")
    report = ingest.ingest_dataset(lake, "gtzan", tmp_path / "set", workers=1)
    found = rows_of(lake)
    assert {track: (row["genre"], row["split"]) for track, row in found.items()} == {
        "jazz.00001": ("jazz", "train"), "rock.00010": ("rock", "valid"), "rock.00011": ("rock", None),
    }
    assert "jazz.00054" in report.notes[0] and {row["dataset"] for row in found.values()} == {"gtzan"}


def test_gtzan_without_its_lists_names_the_files_needed_for_a_split(lake, tmp_path):
    sound(tmp_path / "set" / "genres" / "pop" / "pop.00000.wav", 0)
    report = ingest.ingest_dataset(lake, "gtzan", tmp_path / "set", workers=1)
    assert "train_filtered.txt" in report.notes[0] and rows_of(lake)["pop.00000"]["split"] is None


@pytest.mark.parametrize("line", ["pop/pop.00000.wav", "pop\\pop.00000.au", "pop.00000", "./genres/pop/pop.00000.mp3\t7"])
def test_gtzans_lists_are_read_in_every_spelling(lake, tmp_path, line):
    sound(tmp_path / "set" / "genres" / "pop" / "pop.00000.wav", 0)
    text(tmp_path / "set" / "valid_filtered.txt", line)
    ingest.ingest_dataset(lake, "gtzan", tmp_path / "set", workers=1)
    assert rows_of(lake)["pop.00000"]["split"] == "valid"


def test_audio_that_a_set_does_not_list_is_counted(lake, tmp_path):
    sound(tmp_path / "set" / "genres" / "pop" / "pop.00000.wav", 0)
    sound(tmp_path / "set" / "genres" / "jazz" / "jazz.00054.wav", 1)                       # left out, with its own note
    sound(tmp_path / "set" / "genres" / "pop" / "copy of pop.wav", 2)
    text(tmp_path / "set" / "train_filtered.txt", "pop/pop.00000.wav")
    report = ingest.ingest_dataset(lake, "gtzan", tmp_path / "set", workers=1)
    assert report.notes == (
        "left out 1 file known not to decode (jazz.00054)",
        "passed over 1 audio files that the set does not list: copy of pop.wav",
    )


def test_fma_reads_its_table_with_two_header_rows(lake, tmp_path):
    home = tmp_path / "fma"
    for number, name in enumerate(("000/000002", "000/000005", "099/099134", "155/155066")):
        sound(home / "fma_small" / f"{name}.mp3", number)
    (home / "fma_small" / "000" / "000010.mp3").write_bytes(b"")                             # some are empty
    text(
        home / "fma_metadata" / "tracks.csv",
        ",album,artist,set,set,track,track,track", ",title,name,split,subset,genre_top,genres_all,title",
        "track_id,,,,,,,", '2,AWOL,AWOL,training,small,Hip-Hop,"[21, 4]",Food',
        '5,AWOL,"No one, really",validation,small,Rock,[4],This World', "10,X,Y,test,small,Rock,[4],Empty",
        "99134,X,Y,test,small,Rock,[4],Bad", "155066,Z,W,test,small,,[],Untitled", "7,Not,Here,training,small,Rock,[4],Absent",
    )
    text(home / "fma_metadata" / "genres.csv", "genre_id,#tracks,parent,title,top_level", "4,1,0,Rock,4", "21,2,0,Hip-Hop,21")
    report = ingest.ingest_dataset(lake, "fma", home, workers=1)
    found = rows_of(lake)
    assert sorted(found) == ["000002", "000005", "155066"] and report.failed == 1
    one = found["000002"]
    assert (one["artist"], one["title"], one["genre"], one["split"]) == ("AWOL", "Food", "Hip-Hop", "train")
    assert one["genres"] == ["Hip-Hop", "Rock"] and found["000005"]["artist"] == "No one, really"
    assert found["155066"]["genre"] is None and "099134" in report.notes[0]
    with pytest.raises(InputError, match="fma_metadata"):
        ingest.ingest_dataset(lake, "fma", home / "fma_small")


def test_jamendo_reads_any_number_of_tags_and_split_0(lake, tmp_path):
    home = tmp_path / "jamendo"
    sound(home / "48" / "948.low.mp3", 1)
    sound(home / "14" / "214.mp3", 2)
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    rows = (
        "track_0000948\tartist_000087\talbum_000149\t48/948.mp3\t212.7\tgenre---rock\tinstrument---voice\tmood/theme---epic",
        "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock\tgenre---rock",
        "track_0000999\tartist_000014\talbum_000031\t99/999.mp3\t124.6\tgenre---rock",
    )
    text(home / "data" / "autotagging.tsv", header, *rows)
    text(home / "data" / "splits" / "split-0" / "autotagging-train.tsv", header, rows[0])
    text(home / "data" / "splits" / "split-0" / "autotagging-validation.tsv", header, rows[1])
    text(home / "data" / "splits" / "split-1" / "autotagging-test.tsv", header, *rows)       # must not be read
    report = ingest.ingest_dataset(lake, "jamendo", home, workers=1)
    found = rows_of(lake)
    one, other = found["track_0000948"], found["track_0000214"]
    assert one["tags"] == ["genre---rock", "instrument---voice", "mood/theme---epic"] and one["split"] == "train"
    assert (one["genres"], one["instruments"], one["moods"]) == (["rock"], ["voice"], ["epic"])
    assert other["genres"] == ["punkrock", "rock"] and other["split"] == "valid" and other["instruments"] is None
    assert report.notes == ("1 of 3 listed files are missing: 999.mp3",)


def test_magnatagatune_has_tags_the_split_by_folder_and_songs_as_tracks(lake, tmp_path):
    home = tmp_path / "mtt"
    for number, path in enumerate(("0/ada-first-01-song-0-29.mp3", "0/ada-first-01-song-29-58.mp3", "c/bela-x-02-y-0-29.mp3")):
        sound(home / "mp3" / path, number)
    text(
        home / "annotations_final.csv", '"clip_id"\t"no voice"\t"singer"\t"mp3_path"',
        '"2"\t"1"\t"0"\t"0/ada-first-01-song-0-29.mp3"', '"6"\t"0"\t"1"\t"0/ada-first-01-song-29-58.mp3"',
        '"7"\t"1"\t"1"\t"c/bela-x-02-y-0-29.mp3"', '"9"\t"1"\t"0"\t"6/norine_braun-now_and_then-08-gently-117-146.mp3"',
    )
    report = ingest.ingest_dataset(lake, "magnatagatune", home, workers=1)
    clips = lake.clips.read().sort("source")
    assert clips["track"].to_list() == ["ada-first-01-song"] * 2 + ["bela-x-02-y"]
    assert clips["tags"].to_list() == [["no voice"], ["singer"], ["no voice", "singer"]]
    assert clips["split"].to_list() == ["train", "train", "valid"] and clips["artist"][2] == "bela"
    assert report.notes == ("left out 1 files known to be empty",)


def test_a_listed_file_that_was_converted_is_found_by_its_stem(lake, tmp_path):
    sound(tmp_path / "mtt" / "audio" / "c" / "bela-x-02-y-0-29.flac", 1)
    text(tmp_path / "mtt" / "annotations_final.csv", "clip_id\trock\tmp3_path", "7\t1\tc/bela-x-02-y-0-29.mp3")
    report = ingest.ingest_dataset(lake, "magnatagatune", tmp_path / "mtt", workers=1)
    assert rows_of(lake)["bela-x-02-y"]["split"] == "valid" and report.notes == ()
