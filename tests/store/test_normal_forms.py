"""Unicode writes `é` as one character or two; disks, tags and tables differ, and names that look equal are treated as equal."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from sounds import melody, write

from tonelake.evaluate.labelled import find_group, read_labelled
from tonelake.ingest import ingest_dataset, ingest_folder, ingest_manifest
from tonelake.ingest.tables import label_name

ONE, TWO = (unicodedata.normalize(form, "Béla") for form in ("NFC", "NFD"))


def music(folder, *names, artist=None):
    for number, name in enumerate(names):
        write(folder / name, melody(2, seed=number), tags={"artist": artist or name.split("/")[0]})
    return folder


def test_tags_in_either_form_are_one_artist(lake, tmp_path):
    assert ONE != TWO
    ingest_folder(lake, music(tmp_path / "music", f"{ONE}/1.flac", f"{TWO}/2.flac"), seconds=None)
    clips = lake.clips.read()
    assert clips["artist"].to_list() == [ONE, ONE]
    assert {source.split("/")[-2] for source in clips["source"]} == {ONE, TWO}               # files keep their names
    again = ingest_folder(lake, tmp_path / "music", seconds=None)
    assert (again.added.known, again.added.changed) == (2, 0)


@pytest.mark.parametrize("disk", [ONE, TWO])
@pytest.mark.parametrize("table", [ONE, TWO])
@pytest.mark.parametrize("key", ["path", "stem", "track"])
def test_labels_match_their_file_in_either_form(lake, tmp_path, disk, table, key):
    folder = music(tmp_path / "music", f"{disk}.wav", "other.wav")
    name = {"path": str(folder / f"{table}.wav"), "stem": table, "track": f"{table}.wav"}[key]
    (tmp_path / "l.csv").write_text(f"{key},{table},tags\n{name},{table} 1,{table}|x\n", encoding="utf-8")
    report = ingest_folder(lake, folder, seconds=None, labels=tmp_path / "l.csv", multi=["tags"])
    assert report.notes == (f"l.csv: 1 of 1 rows matched by {key}",)
    (row,) = lake.clips.read(where=f"{ONE.lower()} IS NOT NULL").to_dicts()
    assert (row[ONE.lower()], row["tags"], row["track"]) == (f"{ONE} 1", [ONE, "x"], f"{ONE}.wav")


@pytest.mark.parametrize("disk", [ONE, TWO])
@pytest.mark.parametrize("table", [ONE, TWO])
def test_a_manifest_matches_its_files_in_either_form(lake, tmp_path, disk, table):
    music(tmp_path, f"{disk}/{disk}.wav")
    (tmp_path / "clips.csv").write_text(f"path,start,seconds\n{table}/{table}.wav,0,1\n", encoding="utf-8")
    report = ingest_manifest(lake, tmp_path / "clips.csv")
    assert (report.added.new, report.failed) == (1, 0)
    assert lake.clips.read()["source"].item() == str(tmp_path / disk / f"{disk}.wav")


def test_the_table_of_a_published_data_set_matches_its_files(lake, tmp_path):
    music(tmp_path, f"audio/{TWO}.wav")
    (tmp_path / "data_train_4_classes.csv").write_text(f"filename,label\n/A/{ONE}.mp3,three\n", encoding="utf-8")
    report = ingest_dataset(lake, "meter2800", tmp_path)
    assert report.added.new == 1 and lake.clips.read(["track", "label"]).rows() == [(ONE, "three")]


@pytest.mark.parametrize("stored", [ONE, TWO])           # the latter if labels are written without `ingest`
def test_a_group_is_found_in_either_form(filled, stored):
    labelled = replace(read_labelled(filled, filled.spaces.get(), "artist"), names=["Ada", stored])
    assert find_group(labelled, ONE) == find_group(labelled, TWO.upper()) == 1
    assert label_name(TWO) == label_name(ONE) == ONE.lower()
