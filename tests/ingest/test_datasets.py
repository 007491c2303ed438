"""Published data sets, each as a tiny folder in its own layout with real audio; and data sets of other packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sounds import encode, melody, write
from typer.testing import CliRunner

from tonelake import cli, ingest
from tonelake.store import InputError, MissingExtra

HOME = Path(__file__).parents[2]
DATA = HOME / "tests" / "data" / "datasets"


def sound(path, seed, seconds=2.0):
    """Write a short file that decodes."""
    (encode if path.suffix in (".mp3", ".m4a") else write)(path, melody(seconds, seed=seed))
    return path


def rows_of(lake, column="track"):
    """Rows of the lake's clips by the value of a column."""
    return {row[column]: row for row in lake.clips.read().to_dicts()}


def text(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


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


def test_a_jamendo_table_that_is_a_link_unpacked_as_text_is_named_and_split_0_is_read(lake):
    report = ingest.ingest_dataset(lake, "jamendo", DATA / "jamendo-link-as-text", workers=1)
    assert {track: (row["split"], row["tags"]) for track, row in rows_of(lake).items()} == {
        "track_0000948": ("train", ["genre---rock"]),
    }
    assert report.notes == (
        "autotagging.tsv: is a link to raw_30s_cleantags_50artists.tsv that was unpacked as text; that file is missing, so "
        "other tables are read",
    )


def test_a_jamendo_table_that_is_a_link_is_followed_to_its_target(lake, tmp_path):
    """The whole repository: the target has a track that no split has, in audio of low quality."""
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    sound(tmp_path / "audio-low" / "14" / "214.low.mp3", 2)
    text(
        tmp_path / "data" / "raw_30s_cleantags_50artists.tsv", header,
        "track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock",
    )
    (tmp_path / "data" / "autotagging.tsv").write_text("raw_30s_cleantags_50artists.tsv")
    report = ingest.ingest_dataset(lake, "jamendo", tmp_path, workers=1)
    assert rows_of(lake)["track_0000214"]["genres"] == ["punkrock"]
    assert report.notes == ("no split: put data/splits/split-0 into the folder",)


@pytest.mark.parametrize(("name", "table"), [
    ("fma", "tracks.csv"), ("magnatagatune", "annotations_final.csv"), ("jamendo", "autotagging.tsv"),
    ("meter2800", "data_train_4_classes.csv"), ("wikimeter", "data_wikimeter.tab"), ("slakh", "metadata.yaml"),
    ("nsynth", "examples.json"), ("gtzan", "train_filtered.txt"), ("giantsteps", "annotations.txt"),
])
def test_every_reader_names_a_table_that_is_a_link_unpacked_as_text(lake, tmp_path, name, table):
    sound(tmp_path / "pop.00000.wav", 1)
    (tmp_path / table).write_text(f"../elsewhere/real{Path(table).suffix}")
    with pytest.raises(InputError, match=rf"{table}: is a link to ../elsewhere/real\.\w+ that was unpacked as text"):
        ingest.ingest_dataset(lake, name, tmp_path)
    assert lake.clips.count() == 0


@pytest.mark.parametrize("content", ["loop.csv", "../../{name}/labels.csv", "/etc/labels.csv"])
def test_a_text_link_in_a_loop_or_out_of_the_folder_is_not_followed(lake, tmp_path, content):
    text(tmp_path.parent / "labels.csv", "filename,label,meter,alt_meter", "/FMA/1.wav,three,3,6")
    (tmp_path / "data_train_4_classes.csv").write_text(content.format(name=tmp_path.parent.name))
    (tmp_path / "loop.csv").write_text("data_train_4_classes.csv")
    with pytest.raises(InputError, match=r"data_train_4_classes\.csv: is a link to .* that was unpacked as text"):
        ingest.ingest_dataset(lake, "meter2800", tmp_path)


def test_audio_files_that_are_links_unpacked_as_text_are_named(lake, tmp_path):
    sound(tmp_path / "set" / "genres" / "pop" / "pop.00000.wav", 0)
    (tmp_path / "set" / "genres" / "pop" / "pop.00001.wav").write_text("../../store/pop.00001.wav")
    report = ingest.ingest_dataset(lake, "gtzan", tmp_path / "set", workers=1)
    assert (report.added.new, report.failed) == (1, 0)
    assert report.notes[-1].startswith(
        "1 audio files are links that were unpacked as text, such as pop.00001.wav to ../../store/pop.00001.wav"
    )
    (tmp_path / "set" / "genres" / "pop" / "pop.00000.wav").unlink()
    with pytest.raises(InputError, match="links that were unpacked as text"):
        ingest.ingest_dataset(lake, "gtzan", tmp_path / "set", workers=1)


def test_an_audio_file_of_a_folder_that_is_a_link_unpacked_as_text_is_named(lake, tmp_path):
    sound(tmp_path / "music" / "a.wav", 0)
    (tmp_path / "music" / "b.mp3").write_text("..\\store\\b.mp3\n")
    report = ingest.ingest_folder(lake, tmp_path / "music", workers=1)
    assert (report.added.new, report.failed) == (1, 1)
    assert "b.mp3: is a link to ../store/b.mp3 that was unpacked as text" in lake.failures.read()["error"][0]


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


@pytest.mark.parametrize("line", ["pop/pop.00000.wav", "pop\\pop.00000.au", "pop.00000", "./genres/pop/pop.00000.mp3\t7"])
def test_gtzans_lists_are_read_in_every_spelling(lake, tmp_path, line):
    sound(tmp_path / "set" / "genres" / "pop" / "pop.00000.wav", 0)
    text(tmp_path / "set" / "valid_filtered.txt", line)
    ingest.ingest_dataset(lake, "gtzan", tmp_path / "set", workers=1)
    assert rows_of(lake)["pop.00000"]["split"] == "valid"


def test_a_listed_file_that_was_converted_is_found_by_its_stem(lake, tmp_path):
    sound(tmp_path / "mtt" / "audio" / "c" / "bela-x-02-y-0-29.flac", 1)
    text(tmp_path / "mtt" / "annotations_final.csv", "clip_id\trock\tmp3_path", "7\t1\tc/bela-x-02-y-0-29.mp3")
    report = ingest.ingest_dataset(lake, "magnatagatune", tmp_path / "mtt", workers=1)
    assert rows_of(lake)["bela-x-02-y"]["split"] == "valid" and report.notes == ()


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


SETS = ("fma", "giantsteps", "gtzan", "jamendo", "magnatagatune", "meter2800", "musdb", "nsynth", "slakh", "wikimeter")
TABLES = {                               # sets with one audio file: its path, and the tables
    "gtzan": ("genres/pop/pop.00000.wav", {"train_filtered.txt": "pop/pop.00000.wav"}),
    "fma": ("000/000002.mp3", {
        "tracks.csv": ",album,artist,set,track,track,track\n,title,name,split,genre_top,genres_all,title\n"
                      "2,A,B,training,Rock,[4],C",
        "genres.csv": "genre_id,title\n4,Rock",
    }),
    "jamendo": ("48/948.mp3", {
        "autotagging.tsv": "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\nt1\ta1\tb1\t48/948.mp3\t9.0\tgenre---rock",
    }),
    "magnatagatune": ("0/ada-first-01-song-0-29.mp3", {
        "annotations_final.csv": "clip_id\trock\tmp3_path\n2\t1\t0/ada-first-01-song-0-29.mp3",
    }),
}


@pytest.fixture
def made(request, tmp_path):
    """Name, folder and tables of a set."""
    audio, tables = TABLES[request.param]
    sound(tmp_path / audio, 1)
    for name, rows in tables.items():
        text(tmp_path / name, rows)
    return request.param, tmp_path, [tmp_path / name for name in tables]


@pytest.mark.parametrize("made", TABLES, indirect=True)
def test_tables_are_read_in_any_unicode_encoding(made, lake):
    name, folder, tables = made
    for table in tables:
        table.write_text(table.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert ingest.ingest_dataset(lake, name, folder, workers=1).added.new == 1
    for table in tables:
        table.write_text(table.read_text(encoding="utf-8-sig"), encoding="utf-16")
    again = ingest.ingest_dataset(lake, name, folder, workers=1).added
    assert (again.new, again.known, again.changed) == (0, 1, 0) and "split" in lake.clips.read().columns


def latin(data):
    return data.replace(b"o", b"\xf3")


def short_row(data):
    return data.rstrip() + b"\n3\t,,\t,\t\n"


def long_field(data):
    return data.rstrip() + b"\n" + b"x" * 200_000


@pytest.mark.parametrize(("made", "damage", "message"), [
    *((name, latin, "is not UTF-8 text") for name in TABLES),
    *((name, bytes, "") for name in ("fma", "magnatagatune")),
    *((name, short_row, r"row \d: has 4 cells, the first \d") for name in ("fma", "magnatagatune")),
    *((name, long_field, r"row \d: has 1 cells, the first \d") for name in ("fma", "magnatagatune")),
], indirect=["made"])
def test_the_error_of_a_damaged_table_names_it_and_nothing_is_stored(made, damage, message, lake):
    name, folder, tables = made
    for table in tables:
        whole = table.read_bytes()
        table.write_bytes(b"" if damage is bytes else damage(whole))
        with pytest.raises(InputError, match=f"{table.name}.*{message}"):
            ingest.ingest_dataset(lake, name, folder)
        table.write_bytes(whole)
    assert lake.clips.count() == 0


def test_a_file_name_too_long_for_the_disk_is_a_missing_file(lake, tmp_path):
    long = f"0/{'x' * 300}.mp3"
    sound(tmp_path / "0" / "a-b-01-c-0-29.mp3", 1)
    text(tmp_path / "annotations_final.csv", "clip_id\trock\tmp3_path", "2\t1\t0/a-b-01-c-0-29.mp3", f"3\t1\t{long}")
    report = ingest.ingest_dataset(lake, "magnatagatune", tmp_path, workers=1)
    assert report.added.new == 1 and report.notes[0].startswith("1 of 2 listed files are missing: xxx")


def test_a_table_cannot_name_files_outside_its_folder(lake, tmp_path):
    secret = sound(tmp_path / "secret.mp3", 1)
    text(tmp_path / "mtt" / "annotations_final.csv", "clip_id\ttag\tmp3_path", "1\t1\t../secret.mp3", f"2\t1\t{secret}")
    with pytest.raises(InputError, match="secret"):
        ingest.ingest_dataset(lake, "magnatagatune", tmp_path / "mtt")
    assert lake.clips.count() == 0


def test_nsynth_has_notes_with_their_split(lake, tmp_path):
    for side, name, pitch in (("train", "bass_electronic_018-022-100", 22), ("valid", "guitar_acoustic_010-060-075", 60)):
        home = tmp_path / "nsynth" / f"nsynth-{side}"
        sound(home / "audio" / f"{name}.wav", pitch)
        note = {
            "pitch": pitch, "velocity": 100, "instrument_str": name.rsplit("-", 2)[0], "qualities_str": ["dark", "percussive"],
            "instrument_family_str": name.split("_")[0], "instrument_source_str": name.split("_")[1],
        }
        text(home / "examples.json", json.dumps({name: note}))
    ingest.ingest_dataset(lake, "nsynth", tmp_path / "nsynth", workers=1)
    found = rows_of(lake, "pitch")
    assert found[22]["split"] == "train" and found[60]["split"] == "valid" and found[60]["family"] == "guitar"
    assert found[22]["qualities"] == ["dark", "percussive"] and found[22]["track"] == "bass_electronic_018"


def test_giantsteps_keys_are_spelled_with_sharps(lake, tmp_path):
    home = tmp_path / "giantsteps-key-dataset"
    for number, (name, key) in enumerate((("10089", "D minor"), ("1004923", "Ab major"), ("1234", "none"))):
        sound(home / "audio" / f"{name}.LOFI.mp3", number)
        text(home / "annotations" / "key" / f"{name}.LOFI.key", key)
    ingest.ingest_dataset(lake, "giantsteps", home, workers=1)
    found = rows_of(lake)
    assert {track: row["key"] for track, row in found.items()} == {"10089": "D minor", "1004923": "G# major"}
    assert {row["split"] for row in found.values()} == {"test"}


def test_the_mtg_keys_are_training_data_though_they_have_a_file_for_each_key(lake):
    report = ingest.ingest_dataset(lake, "giantsteps", DATA / "mtg-keys", workers=1)
    assert {track: (row["key"], row["key_confidence"], row["split"]) for track, row in rows_of(lake).items()} == {
        "1001": ("D# minor", 2, "train"), "1002": ("A major", 2, "train"),
    }
    assert report.notes == ()


def test_each_file_gets_the_split_and_key_of_its_own_giantsteps_set(lake, tmp_path):
    """One folder with the three repositories; both sets of keys have a file 7, and the MTG keys one with two keys."""
    key, tempo = tmp_path / "giantsteps-key-dataset", tmp_path / "giantsteps-tempo-dataset"
    mtg = tmp_path / "giantsteps-mtg-key-dataset"
    for number, path in enumerate((
        key / "audio/7.LOFI.mp3", key / "audio/10089.LOFI.mp3", mtg / "audio/7.LOFI.mp3", mtg / "audio/8.LOFI.mp3",
        mtg / "audio/9.LOFI.mp3", tempo / "audio/11.LOFI.mp3", tempo / "audio/12.LOFI.mp3",
    )):
        sound(path, number)
    text(key / "annotations/key/7.LOFI.key", "E minor")
    text(key / "annotations/giantsteps/0010089.LOFI.key", "#@format: key\ttimestamp(float)\tkey(string)", "key 0 D major")
    text(key / "annotations/genre/7.LOFI.genre", "trance")
    text(mtg / "annotations/annotations.txt", "ID\tMANUAL KEY\tC", "7\tBb minor\t2", "8\tC minor / F# minor\t2", "9\t-\t0")
    text(mtg / "annotations/key/7.LOFI.key", "bb minor\t2\t")
    text(mtg / "annotations/key/8.LOFI.key", "c minor / f# minor\t2\t")
    text(mtg / "annotations/key/9.LOFI.key", "-\t0\tfrom 0:00 to 1.15, it seems to be d ?")
    text(tempo / "annotations/tempo/11.LOFI.bpm", "140")
    text(tempo / "annotations_v2/tempo/11.LOFI.bpm", "70.5")
    text(tempo / "annotations/tempo/12.LOFI.bpm", "128")
    text(tempo / "annotations_v2/tempo/12.LOFI.bpm", "0.0")                                 # no tempo, says the second
    report = ingest.ingest_dataset(lake, "giantsteps", tmp_path, workers=1)
    found = sorted(
        (row["track"], row["split"], row["key"], row["tempo"], row["genre"]) for row in lake.clips.read().to_dicts()
    )
    assert found == [
        ("10089", "test", "D major", None, None), ("11", "test", None, 70.5, None), ("12", "test", None, 128.0, None),
        ("7", "test", "E minor", None, "trance"), ("7", "train", "A# minor", None, None),
    ]
    assert report.notes == ("left out 2 files without a single key or a tempo",)


def test_audio_of_both_sets_of_keys_in_one_folder_is_test_where_both_list_it(lake, tmp_path):
    sound(tmp_path / "audio" / "7.LOFI.mp3", 1)
    sound(tmp_path / "audio" / "8.LOFI.mp3", 2)
    text(tmp_path / "mtg" / "annotations" / "annotations.txt", "7\tA minor\t2", "8\tB minor\t2")
    text(tmp_path / "gs" / "annotations" / "key" / "7.LOFI.key", "A minor")
    ingest.ingest_dataset(lake, "giantsteps", tmp_path, workers=1)
    assert {track: row["split"] for track, row in rows_of(lake).items()} == {"7": "test", "8": "train"}


@pytest.mark.parametrize("suffix", ["csv", "tab"])
def test_meter2800_keeps_both_splits_and_finds_audio_by_its_name(lake, tmp_path, suffix):
    home = tmp_path / "meter"
    for number, name in enumerate(("062182", "jazz.00001", "five")):
        sound(home / "audio" / ("FMA" if number == 0 else "GTZAN") / f"{name}.mp3", number)
    bar = "\t" if suffix == "tab" else ","

    def table(side, classes, *rows):
        lines = [bar.join(f'"{cell}"' for cell in row) for row in (("filename", "label", "meter", "alt_meter"), *rows)]
        text(home / f"data_{side}_{classes}_classes.{suffix}", *lines)

    table("train", 4, ("/FMA/062182.wav", "three", "3", "6"), ("/OWN/five.wav", "five", "5", "10"))
    table("val", 4, ("/GTZAN/jazz.00001.wav", "four", "4", "8"))
    table("test", 4, ("/GTZAN/absent.wav", "seven", "7", "14"))
    table("test", 2, ("/FMA/062182.wav", "three", "3", "6"))
    report = ingest.ingest_dataset(lake, "meter2800", home, workers=1)
    found = rows_of(lake)
    first = found["062182"]
    assert (first["label"], first["split"], first["label_2"], first["split_2"]) == ("three", "train", "three", "test")
    assert (first["meter"], first["alt_meter"], first["collection"]) == ("3", "6", "FMA")
    assert {track: row["meters"] for track, row in found.items()} == {"062182": ["3"], "jazz.00001": ["4"], "five": ["5"]}
    assert found["jazz.00001"]["split"] == "valid" and found["five"]["label_2"] is None
    assert report.notes == ("1 of 4 listed files are missing: absent.wav",)


def test_files_with_the_same_name_in_two_collections_of_meter2800_keep_their_own_labels(lake, tmp_path):
    home = tmp_path / "meter"
    for number, name in enumerate(("FMA/0001.mp3", "OWN/0001.mp3", "OWN/0002.mp3")):
        sound(home / "audio" / name, number)
    header = "filename,label,meter,alt_meter"
    text(home / "data_train_4_classes.csv", header, "/FMA/0001.wav,three,3,6", "/OWN/0002.wav,four,4,8")
    text(home / "data_test_4_classes.csv", header, "/OWN/0001.wav,five,5,10", "/MAG/0001.wav,seven,7,14")
    text(home / "data_train_2_classes.csv", header, "/FMA/0001.wav,three,3,6", "0002.wav,four,4,8")
    report = ingest.ingest_dataset(lake, "meter2800", home, workers=1)
    assert {track: (row["label"], row["split"], row["label_2"], row["collection"]) for track, row in rows_of(lake).items()} == {
        "FMA/0001": ("three", "train", "three", "FMA"), "OWN/0001": ("five", "test", None, "OWN"),
        "0002": ("four", "train", "four", "OWN"),
    }
    sources = {row["track"]: row["source"] for row in lake.clips.read().to_dicts()}
    assert sources["FMA/0001"].endswith("FMA/0001.mp3") and sources["OWN/0001"].endswith("OWN/0001.mp3")
    assert report.notes == ("1 of 4 listed files are missing: 0001.wav",)


def test_slakh_stems_are_clips_of_the_track_of_their_mix(lake, tmp_path):
    home = tmp_path / "slakh" / "train" / "Track00001"
    sound(home / "mix.flac", 0)
    sound(home / "stems" / "S00.flac", 1)
    sound(home / "stems" / "S01.flac", 2)
    text(
        home / "metadata.yaml", "UUID: 1", "stems:",
        "  S00: {audio_rendered: true, inst_class: Bass, is_drum: false, program_num: 33}",
        "  S01: {audio_rendered: true, inst_class: Drums, is_drum: true, program_num: 128}",
        "  S02: {audio_rendered: false, inst_class: Piano, is_drum: false, program_num: 0}",
    )
    report = ingest.ingest_dataset(lake, "slakh", tmp_path / "slakh", workers=1)
    found = rows_of(lake, "stem")
    assert sorted(found) == ["bass", "drums", "mix"] and {row["track"] for row in found.values()} == {"Track00001"}
    assert (found["bass"]["instrument"], found["bass"]["program"], found["bass"]["is_drum"]) == ("Bass", 33, False)
    assert {row["split"] for row in found.values()} == {"train"}
    assert report.notes == ("left out 1 stems that were never rendered",)


def test_babyslakhs_stems_are_clips_though_its_tables_say_that_they_were_not_rendered(lake):
    report = ingest.ingest_dataset(lake, "slakh", DATA / "babyslakh", workers=1)
    found = rows_of(lake, "stem")
    assert {stem: (row["program"], row["track"]) for stem, row in found.items()} == {
        "mix": (None, "Track00001"), "guitar": (30, "Track00001"), "bass": (33, "Track00001"),
    }
    assert report.notes == ()


def test_a_folder_of_wikimeter_is_read_as_it_is_with_songs_as_tracks(lake, tmp_path):
    home = tmp_path / "wikimeter"
    names = ("dave_brubeck_take_five_seg00", "dave_brubeck_take_five_seg01", "trad_kpanlogo_seg00", "meshuggah_bleed_seg00")
    for number, name in enumerate(names):
        sound(home / "audio" / f"{name}.mp3", number)
    text(
        home / "data_wikimeter.tab", "filename\tlabel\tmeter\talt_meter",
        '"/WIKIMETER/dave_brubeck_take_five_seg00.mp3"\t"five"\t5\t10',
        '"/dave_brubeck_take_five_seg01.mp3"\t"five"\t5\t10', '"/trad_kpanlogo_seg00.mp3"\t"three"\t3,4\t6',
        '"/meshuggah_bleed_seg00.wav"\t"four"\t5:0.5,4:0.9\t8', '"/gone_song_seg00.mp3"\t"seven"\t7\t14',
    )
    report = ingest.ingest_dataset(lake, "wikimeter", tmp_path, workers=1)
    rows = lake.clips.read().sort("track", "segment").to_dicts()
    assert [(row["track"], row["segment"], row["meters"], row["meter"], row["label"]) for row in rows] == [
        ("dave_brubeck_take_five", 0, ["5"], "5", "five"), ("dave_brubeck_take_five", 1, ["5"], "5", "five"),
        ("meshuggah_bleed", 0, ["4", "5"], "5:0.5,4:0.9", "four"), ("trad_kpanlogo", 0, ["3", "4"], "3,4", "three"),
    ]
    assert report.notes == ("1 of 5 listed files are missing: gone_song_seg00.mp3",)


def test_wikimeter_and_meter2800_in_one_folder_are_kept_apart_and_share_the_column_meters(lake, tmp_path):
    sound(tmp_path / "a_b_seg00.mp3", 1)
    sound(tmp_path / "FMA" / "062182.wav", 2)
    header = "filename,label,meter,alt_meter"
    text(tmp_path / "data_wikimeter.csv", header, '/a_b_seg00.mp3,three,"3,4",6')
    text(tmp_path / "data_train_4_classes.csv", header, "/FMA/062182.wav,four,4,8")
    ingest.ingest_dataset(lake, "wikimeter", tmp_path, workers=1)
    ingest.ingest_dataset(lake, "meter2800", tmp_path, workers=1)
    assert {track: (row["dataset"], row["meters"]) for track, row in rows_of(lake).items()} == {
        "a_b": ("wikimeter", ["3", "4"]), "062182": ("meter2800", ["4"]),
    }
    assert {track: row["split"] for track, row in rows_of(lake).items()} == {"a_b": None, "062182": "train"}
    assert str(lake.clips.table.schema.field("meters").type) == "list<item: string>"


def test_the_table_of_wikimeter_may_be_beside_its_folder_and_have_any_name_but_those_of_meter2800(lake, tmp_path):
    sound(tmp_path / "data_wikimeter" / "audio" / "a.b_c_seg00.mp3", 1)
    text(tmp_path / "data_wikimeter.tab", "filename\tlabel\tmeter\talt_meter", "/WIKIMETER/a.b_c_seg00.mp3\tfive\t5\t10")
    text(tmp_path / "data_train_4_classes.tab", "filename\tlabel\tmeter", "/FMA/1.mp3\tfour\t4")
    ingest.ingest_dataset(lake, "wikimeter", tmp_path / "data_wikimeter", workers=1)
    assert {track: row["meters"] for track, row in rows_of(lake).items()} == {"a.b_c": ["5"]}
    (tmp_path / "data_wikimeter.tab").rename(tmp_path / "data_wikimeter" / "data_test_songs.tab")
    assert ingest.ingest_dataset(lake, "wikimeter", tmp_path / "data_wikimeter", workers=1).added.known == 1


@pytest.mark.parametrize("cell", ["waltz", "0", "3:x", "3:0", "2.5", "65", "3,,4"])
def test_a_wikimeter_row_whose_meter_cannot_be_read_is_named(lake, tmp_path, cell):
    sound(tmp_path / "a_b_seg00.mp3", 1)
    text(tmp_path / "data_wikimeter.tab", "filename\tlabel\tmeter\talt_meter", f"/a_b_seg00.mp3\tx\t{cell}\t6")
    with pytest.raises(InputError, match=r"data_wikimeter\.tab, row 2: "):
        ingest.ingest_dataset(lake, "wikimeter", tmp_path)


def test_musdb_stems_have_the_same_names_as_slakhs(lake, tmp_path):
    for number, name in enumerate(("mixture", "drums", "bass", "other", "vocals")):
        sound(tmp_path / "musdb" / "test" / "Ada - A - Song" / f"{name}.wav", number)
    ingest.ingest_dataset(lake, "musdb", tmp_path / "musdb", workers=1)
    found = rows_of(lake, "stem")
    assert sorted(found) == ["bass", "drums", "mix", "other", "vocals"]
    assert (found["mix"]["artist"], found["mix"]["title"], found["mix"]["split"]) == ("Ada", "A - Song", "test")


def test_the_compressed_edition_of_musdb_is_refused_with_a_remedy(lake, tmp_path):
    (tmp_path / "musdb" / "train").mkdir(parents=True)
    (tmp_path / "musdb" / "train" / "A - B.stem.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="MUSDB18-HQ"):
        ingest.ingest_dataset(lake, "musdb", tmp_path / "musdb")


@pytest.mark.parametrize("name", list(ingest.known_datasets()))
def test_a_folder_without_the_set_is_refused_and_nothing_is_written(lake, tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        ingest.ingest_dataset(lake, name, tmp_path / "empty")
    with pytest.raises(InputError, match="not a folder"):
        ingest.ingest_dataset(lake, name, tmp_path / "absent")
    assert lake.clips.count() == 0


def test_the_error_of_a_table_with_wrong_fields_names_it(lake, tmp_path):
    text(tmp_path / "nsynth" / "nsynth-train" / "examples.json", '{"a": {"pitch": 1}}')
    with pytest.raises(InputError, match=r"examples\.json"):
        ingest.ingest_dataset(lake, "nsynth", tmp_path / "nsynth")
    text(tmp_path / "slakh" / "train" / "T" / "metadata.yaml", "stems: [1, 2]")
    with pytest.raises(InputError, match=r"metadata\.yaml"):
        ingest.ingest_dataset(lake, "slakh", tmp_path / "slakh")


def test_every_data_set_is_a_command(tmp_path):
    commands = CliRunner().invoke(cli.app, ["ingest", "--help"]).output
    assert all(name in commands for name in SETS)
    sound(tmp_path / "set" / "genres" / "pop" / "pop.00000.wav", 0, seconds=5.0)
    done = CliRunner().invoke(cli.app, [
        "ingest", "gtzan", str(tmp_path / "set"), "--lake", str(tmp_path / "lake"), "--seconds", "2", "--workers", "1",
    ])
    assert done.exit_code == 0, done.output
    wrong = CliRunner().invoke(cli.app, ["ingest", "fma", str(tmp_path / "set"), "--lake", str(tmp_path / "lake")])
    assert wrong.exit_code != 0


@pytest.mark.parametrize(("module", "call", "words"), [
    ("datasets", lambda lake, folder: ingest.ingest_hf(lake, folder), "Hugging Face data sets"),
    ("mirdata", lambda lake, folder: ingest.ingest_mirdata(lake, "gtzan_genre", folder), "data sets by mirdata"),
])
def test_a_library_that_is_not_installed_is_named_with_its_extra(lake, tmp_path, monkeypatch, module, call, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{words}: .* not installed\. Install with"):
        call(lake, tmp_path)


# -- found by discovery


def test_every_module_of_the_package_is_a_data_set_with_its_terms():
    found = ingest.known_datasets()
    assert tuple(found) == SETS
    for dataset in found.values():
        assert dataset.title and dataset.citation and dataset.licence and dataset.layout
        assert not dataset.title.endswith(".") and "20" in dataset.citation          # a year


MINI = """
from tonelake.ingest import DataSet, Listed, ListedFile, audio_below

def read(folder):
    return Listed([ListedFile(path, path.stem, {"mood": path.parent.name}) for path in audio_below(folder)])

DATASET = DataSet(
    title="Mini: moods", citation="Nobody 2026", licence="CC0", layout="calm/1.wav", read=read, seconds=2.0,
)
"""


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    """An installed package with four entry points: one data set, and three that cannot be used."""
    home = tmp_path / "site"
    text(home / "minisets" / "mini.py", MINI)
    text(home / "minisets" / "broken.py", "import no_such_module")
    text(home / "minisets" / "other.py", "DATASET = 7")
    text(home / "minisets" / "__init__.py", "")
    names = {"mini": "mini", "broken": "broken", "other": "other", "gtzan": "mini"}
    info = home / "minisets-1.0.dist-info"
    text(info / "METADATA", "Metadata-Version: 2.1", "Name: minisets", "Version: 1.0")
    text(info / "entry_points.txt", "[tonelake.datasets]", *(f"{name} = minisets.{at}:DATASET" for name, at in names.items()))
    monkeypatch.syspath_prepend(str(home))
    yield home
    for name in [name for name in sys.modules if name.startswith("minisets")]:
        del sys.modules[name]


def test_a_data_set_of_another_package_is_ingested_by_its_entry_point(lake, tmp_path, plugins):
    sound(tmp_path / "set" / "calm" / "1.wav", 1, seconds=4.0)
    sound(tmp_path / "set" / "wild" / "2.wav", 2)
    report = ingest.ingest_dataset(lake, "mini", tmp_path / "set", workers=1)
    assert (report.added.new, report.failed) == (3, 0)
    assert {row["mood"] for row in lake.clips.read().to_dicts()} == {"calm", "wild"}
    assert set(lake.clips.read()["dataset"]) == {"mini"}


def test_an_entry_point_that_cannot_be_loaded_is_named_and_does_not_break_the_others(lake, tmp_path, plugins, caplog):
    assert set(ingest.known_datasets()) == {*SETS, "mini"}
    warnings = "\n".join(record.getMessage() for record in caplog.records)
    assert "'broken': entry point minisets.broken:DATASET of minisets cannot be loaded (ModuleNotFoundError" in warnings
    assert "'other': entry point minisets.other:DATASET of minisets cannot be loaded (TypeError: is a int" in warnings
    assert "'gtzan': ignored entry point minisets.mini:DATASET" in warnings          # a name that is taken
    assert ingest.known_datasets()["gtzan"].title.startswith("GTZAN")
    with pytest.raises(InputError, match=r"data set 'broken': .* of minisets .*no_such_module.*Update or uninstall it"):
        ingest.ingest_dataset(lake, "broken", tmp_path)
    with pytest.raises(InputError, match=r"data set 'absent': is not known. Choose one of broken, fma, .*mini, "):
        ingest.ingest_dataset(lake, "absent", tmp_path)


def test_data_sets_of_other_packages_are_commands_and_heavy_libraries_stay_unloaded(plugins, tmp_path):
    broken = ["tonelake", "ingest", "broken", str(tmp_path), "--lake", str(tmp_path / "lake")]
    code = (
        "import sys\nfrom tonelake.cli import app, main\n"
        "try:\n    app(['ingest', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'polars', 'pyarrow', 'lancedb', 'torch', 'yaml'} & set(sys.modules)))\n"
        f"sys.argv = {broken!r}\nmain()\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HOME), str(plugins)])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert "Mini: moods" in done.stdout and "Cannot be loaded" in done.stdout and done.stdout.endswith("[]\n")
    assert done.returncode == 2 and "no_such_module" in done.stderr
