"""Links of a data set that were unpacked as text, as on a file system without links."""

from __future__ import annotations

from pathlib import Path

import pytest
from dataset_files import DATA, rows_of, sound, text

from tonelake import ingest
from tonelake.store import InputError


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
