"""Hugging Face data sets: folders of `save_to_disk`, parquet, arrow and the caches, with audio inside tables or beside them."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sounds import encode, melody, write
from typer.testing import CliRunner

from tonelake import ingest
from tonelake.cli import app
from tonelake.store import InputError

datasets = pytest.importorskip("datasets", reason="the extra `hf`")


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Any connection fails the test; the caches are empty folders of the test."""
    def refuse(*address):
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    yield
    assert constants.HF_HUB_OFFLINE == datasets.config.HF_HUB_OFFLINE


def features(**more):
    from datasets import Audio, ClassLabel, Features, List, Value

    return Features({
        "audio": Audio(sampling_rate=44_100), "genre": ClassLabel(names=["rock", "jazz"]),
        "moods": List(ClassLabel(names=["calm", "wild", "sad"])), "tags": List(Value("string")), "year": Value("int32"),
        "vector": List(Value("float32")), "Source": Value("string"), **more,
    })


def sounds(tmp_path, *seeds, suffix=".wav"):
    """Paths of short files."""
    make = write if suffix in (".wav", ".flac") else encode
    return [make(tmp_path / "files" / f"{seed}{suffix}", melody(2.0, seed=seed)) for seed in seeds]


def table(paths, kinds=None, *, embedded=True, names=None, **columns):
    """A `datasets.Dataset` with a row for each file: made of arrow, since `datasets` encodes audio by torchcodec only."""
    kinds = kinds or features()
    names = names or [path.name for path in paths]
    rows = {
        "audio": [
            {"bytes": path.read_bytes() if embedded else None, "path": name if embedded else str(path)}
            for path, name in zip(paths, names, strict=True)
        ],
        "genre": [i % 2 for i in range(len(paths))], "moods": [[0, 2]] * len(paths), "tags": [["a", "b c"]] * len(paths),
        "year": [1990 + i for i in range(len(paths))], "vector": [[0.5, 0.25]] * len(paths), "Source": ["tape"] * len(paths),
    } | columns
    arrow = pa.table({name: rows[name] for name in kinds}, schema=kinds.arrow_schema)
    return datasets.Dataset(datasets.table.InMemoryTable(arrow), info=datasets.DatasetInfo(features=kinds))


def rows_of(lake, column="track"):
    return {row[column]: row for row in lake.clips.read().to_dicts()}


def test_a_folder_of_save_to_disk_keeps_splits_class_names_and_lists(lake, tmp_path):
    one, two, three = sounds(tmp_path, 1, 2, 3)
    datasets.DatasetDict({"train": table([one, two]), "validation": table([three])}).save_to_disk(tmp_path / "songs")
    report = ingest.ingest_hf(lake, tmp_path / "songs", workers=1)
    found = rows_of(lake)
    assert {track: (row["split"], row["genre"], row["year"]) for track, row in found.items()} == {
        "1": ("train", "rock", 1990), "2": ("train", "jazz", 1991), "3": ("valid", "rock", 1990),
    }
    assert found["1"]["moods"] == ["calm", "sad"] and found["1"]["tags"] == ["a", "b c"]
    assert found["1"]["source_label"] == "tape" and found["1"]["dataset"] == "songs"
    assert report.notes[1] == "columns that cannot be labels: vector" and (report.added.new, report.failed) == (3, 0)


def test_audio_inside_tables_is_read_again_by_embed_and_written_once(lake, tmp_path):
    (path,) = sounds(tmp_path, 7, suffix=".mp3")
    table([path]).save_to_disk(tmp_path / "songs")
    report = ingest.ingest_hf(lake, tmp_path / "songs", workers=1)
    row = lake.clips.read().row(0, named=True)
    stored = Path(row["source"])
    assert stored.parent == Path(lake.uri) / "audio" / "songs" and stored.read_bytes() == path.read_bytes()
    assert str(stored.parent) in report.notes[0] and row["split"] is None
    path.unlink()
    ((clip, samples),) = ingest.read_clips(lake.clips.read(), 24_000, workers=1)             # as `embed` reads it
    assert clip == row["clip_id"] and len(samples) / 24_000 == pytest.approx(row["duration_s"], abs=0.01)
    assert np.abs(samples).max() > 0.05
    written = stored.stat().st_mtime_ns
    again = ingest.ingest_hf(lake, tmp_path / "songs", workers=1)
    assert (again.added.new, again.added.known) == (0, 1) and stored.stat().st_mtime_ns == written


def test_parquet_files_are_read_by_split_and_a_folder_without_splits_has_none(lake, tmp_path):
    one, two, three = sounds(tmp_path, 1, 2, 3)
    (tmp_path / "repo" / "data").mkdir(parents=True)
    table([one, two]).to_parquet(tmp_path / "repo" / "data" / "train-00000-of-00001.parquet")
    table([three]).to_parquet(tmp_path / "repo" / "data" / "test-00000-of-00001.parquet")
    ingest.ingest_hf(lake, tmp_path / "repo", workers=1)
    assert {track: (row["split"], row["genre"]) for track, row in rows_of(lake).items()} == {
        "1": ("train", "rock"), "2": ("train", "jazz"), "3": ("test", "rock"),
    }
    (tmp_path / "plain").mkdir()
    (four,) = sounds(tmp_path, 4)
    table([four]).to_parquet(tmp_path / "plain" / "part.parquet")
    ingest.ingest_hf(lake, tmp_path / "plain", workers=1)
    ingest.ingest_hf(lake, tmp_path / "repo" / "data" / "test-00000-of-00001.parquet", dataset="one file", workers=1)
    assert rows_of(lake)["4"]["split"] is None


def test_a_readme_decides_splits_and_configurations(lake, tmp_path):
    one, two = sounds(tmp_path, 1, 2)
    (tmp_path / "repo").mkdir()
    table([one]).to_parquet(tmp_path / "repo" / "a.parquet")
    table([two]).to_parquet(tmp_path / "repo" / "b.parquet")
    (tmp_path / "repo" / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files:\n  - split: validation\n    path: a.parquet\n"
        "- config_name: large\n  data_files:\n  - split: test\n    path: b.parquet\n---\n"
    )
    ingest.ingest_hf(lake, tmp_path / "repo", config="large", workers=1)
    assert {track: row["split"] for track, row in rows_of(lake).items()} == {"2": "test"}
    with pytest.raises(InputError, match=r"small.*large"):
        ingest.ingest_hf(lake, tmp_path / "repo", workers=1)


@pytest.mark.parametrize(("file", "readme", "split"), [
    ("data/train-00000-of-00001.parquet", "", "train"), ("train/a.parquet", "", "train"), ("a.parquet", "", None),
    ("a.parquet", "---\nconfigs:\n- config_name: x\n  data_files:\n  - split: train\n    path: a.parquet\n---\n", "train"),
])
def test_a_set_that_has_only_a_training_split_says_so_itself(lake, tmp_path, monkeypatch, file, readme, split):
    (path,) = sounds(tmp_path, 1)
    (tmp_path / "trainset" / file).parent.mkdir(parents=True)
    table([path]).to_parquet(tmp_path / "trainset" / file)
    if readme:
        (tmp_path / "trainset" / "README.md").write_text(readme)
    monkeypatch.chdir(tmp_path)
    ingest.ingest_hf(lake, "trainset", workers=1)
    assert rows_of(lake)["1"]["split"] == split


def test_audio_beside_the_tables_is_read_in_place_and_missing_files_are_counted(lake, tmp_path):
    one, two, three = sounds(tmp_path, 1, 2, 3)
    (tmp_path / "repo" / "wav").mkdir(parents=True)
    three.rename(tmp_path / "repo" / "wav" / "3.wav")
    rows = table([one, two, Path("wav/3.wav"), Path("wav/4.wav")], embedded=False)
    pq.write_table(rows.data.table, tmp_path / "repo" / "rows.parquet")
    two.unlink()
    report = ingest.ingest_hf(lake, tmp_path / "repo", workers=1)
    assert {row["source"] for row in lake.clips.read().to_dicts()} == {str(one), str(tmp_path / "repo" / "wav" / "3.wav")}
    assert f"2 of 4 rows name a file that is missing, such as {two}" in report.notes
    pq.write_table(table([Path("../files/1.wav")], embedded=False).data.table, tmp_path / "repo" / "rows.parquet")
    with pytest.raises(InputError, match="outside the folder"):
        ingest.ingest_hf(lake, tmp_path / "repo", workers=1)


def test_files_of_one_name_are_different_tracks_and_shared_audio_is_counted(lake, tmp_path):
    one, two, three = sounds(tmp_path, 1, 2, 3)
    names = ["audio.wav", "audio.wav"]
    datasets.DatasetDict({
        "train": table([one, two], names=names), "test": table([three, one], names=names),
    }).save_to_disk(tmp_path / "songs")
    report = ingest.ingest_hf(lake, tmp_path / "songs", workers=1)
    clips = lake.clips.read()
    assert clips["track"].n_unique() == 3 and all(track.startswith("audio-") for track in clips["track"])
    assert report.notes[1:3] == (
        "1 of 4 rows have the audio of an earlier row, whose labels are kept",
        "1 of 4 rows of these are in another split than that row, so the splits share audio",
    )


def test_a_column_names_the_track(lake, tmp_path):
    from datasets import Value

    paths = sounds(tmp_path, 1, 2)
    kinds = features(song=Value("int64"), track_id=Value("string"))
    table(paths, kinds, song=[5, 5], track_id=["x", "y"]).save_to_disk(tmp_path / "songs")
    ingest.ingest_hf(lake, tmp_path / "songs", workers=1)
    assert set(lake.clips.read()["track"]) == {"x", "y"}
    ingest.ingest_hf(lake, tmp_path / "songs", track="song", workers=1)
    assert set(lake.clips.read()["track"]) == {"5"}
    with pytest.raises(InputError, match="no column 'singer' for --track"):
        ingest.ingest_hf(lake, tmp_path / "songs", track="singer")


def test_a_data_set_in_the_cache_is_found_by_its_name(lake, tmp_path):
    one, two = sounds(tmp_path, 1, 2)
    folder = tmp_path / "cache" / "datasets" / "owner___songs" / "default" / "0.0.0" / "abc123"
    folder.mkdir(parents=True)
    for split, path in (("train", one), ("test", two)):
        rows = table([path])
        with pa.OSFile(str(folder / f"songs-{split}.arrow"), "wb") as sink, pa.ipc.new_stream(sink, rows.data.schema) as out:
            out.write_table(rows.data.table)
    (folder / "dataset_info.json").write_text(json.dumps({
        "features": features().to_dict(), "builder_name": "parquet", "dataset_name": "songs", "config_name": "default",
        "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
        "splits": {
            split: {"name": split, "num_bytes": 1, "num_examples": 1, "dataset_name": "songs"} for split in ("train", "test")
        },
    }))
    ingest.ingest_hf(lake, "owner/songs", workers=1)
    assert {track: (row["split"], row["dataset"]) for track, row in rows_of(lake).items()} == {
        "1": ("train", "songs"), "2": ("test", "songs"),
    }


def test_a_data_set_in_the_cache_of_the_hub_is_found_by_its_name(lake, tmp_path):
    (one,) = sounds(tmp_path, 1)
    home = tmp_path / "cache" / "hub" / "datasets--owner--songs"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("a" * 40)
    (home / "snapshots" / ("a" * 40)).mkdir(parents=True)
    table([one]).to_parquet(home / "snapshots" / ("a" * 40) / "test-00000-of-00001.parquet")
    ingest.ingest_hf(lake, "owner/songs", workers=1)
    assert rows_of(lake)["1"]["split"] == "test" and rows_of(lake)["1"]["dataset"] == "songs"


def test_a_set_that_is_not_on_this_machine_is_not_looked_for_elsewhere(lake, tmp_path):
    with pytest.raises(InputError, match="owner/absent: cannot be read as a Hugging Face data set"):
        ingest.ingest_hf(lake, "owner/absent")
    with pytest.raises(InputError, match="does not exist"):
        ingest.ingest_hf(lake, tmp_path / "absent")
    assert lake.clips.count() == 0


def test_folders_that_cannot_be_read_are_refused_with_a_remedy(lake, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"ingest folder.*metadata\.csv"):
        ingest.ingest_hf(lake, tmp_path / "empty")
    (tmp_path / "text").mkdir()
    kinds = datasets.Features({"line": datasets.Value("string")})
    datasets.Dataset.from_dict({"line": ["a"]}, features=kinds).to_parquet(tmp_path / "text" / "a.parquet")
    with pytest.raises(InputError, match="has no audio column, but line"):
        ingest.ingest_hf(lake, tmp_path / "text")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.parquet").write_bytes(b"PAR1" + bytes(200))
    with pytest.raises(InputError, match="broken: cannot be read as a Hugging Face data set"):
        ingest.ingest_hf(lake, tmp_path / "broken")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "code.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(InputError, match="holds no parquet or arrow files"):
        ingest.ingest_hf(lake, tmp_path / "code")


def test_labels_that_are_not_set_are_empty(lake, tmp_path):
    paths = sounds(tmp_path, 1, 2)
    table(paths, genre=[-1, 1], tags=[[], None], year=[None, 2000], Source=["", "x"]).save_to_disk(tmp_path / "songs")
    report = ingest.ingest_hf(lake, tmp_path / "songs", workers=1)
    found = rows_of(lake)
    assert [found["1"].get(name) for name in ("genre", "tags", "year", "source_label")] == [None] * 4
    assert found["2"]["genre"] == "jazz" and "genre" not in report.notes[1]


def test_the_command_takes_a_name_for_the_data_set_and_a_folder_for_the_audio(tmp_path):
    table(sounds(tmp_path, 1)).save_to_disk(tmp_path / "songs")
    done = CliRunner().invoke(app, [
        "ingest", "hf", str(tmp_path / "songs"), "--lake", str(tmp_path / "lake"), "--out", str(tmp_path / "out"),
        "--dataset", "mine", "--whole", "--workers", "1",
    ])
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out").glob("*.wav"))) == 1
