"""GiantSteps, Meter2800 and WikiMeter, each as a tiny folder in its own layout with real audio."""

from __future__ import annotations

import pytest
from dataset_files import DATA, rows_of, sound, text

from tonelake import ingest
from tonelake.store import InputError


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
    assert report.notes == ("2 events (2 key) of 2 recordings from 2 label files",)


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
    assert report.notes == (
        "left out 2 files without a single key or a tempo", "3 events (3 key) of 3 recordings from 3 label files",
    )


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
