"""Problems that `verify` finds in a lake and mends."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from fakes import clip_rows, fill

import tonelake
from tonelake.ingest import ingest_folder
from tonelake.store import Lake, LakeError
from tonelake.verify import verify


@pytest.fixture
def sound(lake, music, tmp_path):
    """A lake of a few files, embedded, mapped and indexed."""
    shutil.copytree(music, tmp_path / "m")
    ingest_folder(lake, tmp_path / "m", seconds=3.0)
    opened = tonelake.open(lake.uri, progress=False)
    opened.embed("spectral")
    opened.map("chroma", method="pca")
    return lake


def problems(lake: Lake, **settings) -> dict[str, str]:
    return {row["what"]: row["problem"] for row in verify(lake, **settings).iter_rows(named=True)}


def test_a_sound_lake_has_no_findings(sound):
    assert not len(verify(sound, digests=True))


def test_missing_and_changed_files_are_found(sound, tmp_path):
    (tmp_path / "m" / "Ada" / "song0.wav").unlink()
    assert "1 files are missing" in problems(sound)["sources"]
    with (tmp_path / "m" / "Ada" / "song3.ogg").open("ab") as file:
        file.write(b"more")
    found = verify(sound, digests=True)
    assert any("1 files have changed" in text and "song3.ogg" in text for text in found["problem"])
    assert not problems(sound, sources=False)


def test_vectors_without_a_clip_and_vectors_with_nan_are_deleted_and_embedded_again(sound):
    table = sound.vectors("spectral").table
    ids = sound.clips.ids().to_list()
    rows = table.read()
    name = "mean_01"
    column = rows.column(name).combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(len(rows), -1).copy()
    values[3] = np.nan
    width = column.type.list_size
    bad = pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float16).ravel()), width)
    torn = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), bad)
    broken = rows.column("clip_id")[3].as_py()
    table.delete(f"clip_id = '{broken}'")
    lance.write_dataset(torn.slice(3, 1), table.dataset().uri, mode="append")     # as another program might
    sound.clips.table.delete(f"clip_id = '{ids[-1]}'")
    found = verify(sound)
    assert any(broken in text and "NaN" in text for text in found["problem"])
    assert any(ids[-1] in text and "not in the lake" in text for text in found["problem"])
    assert not found["mended"].any()
    mended = verify(sound, repair=True)
    assert mended.filter(pl.col("what") == "vectors")["mended"].all()
    assert not len(verify(sound).filter(pl.col("what") == "vectors"))
    report = tonelake.open(sound.uri, progress=False).embed("spectral")
    assert report.new == 1 and not len(verify(sound).filter(pl.col("what") == "vectors"))


@pytest.mark.parametrize("left", [None, 1_000, 0])
def test_a_missing_or_truncated_data_file_is_one_message(lake, left):
    fill(lake, 60, 20, seed=0)
    file = next((Path(lake.uri) / "emb_fake.lance" / "data").glob("*.lance"))
    file.unlink() if left is None else os.truncate(file, left)
    again = Lake(lake.uri)
    for use in (lambda: again.vectors("fake").layer(1), again.vectors("fake").table.read,
                lambda: list(again.vectors("fake").table.batches(["mean_01"]))):
        with pytest.raises(LakeError, match="table 'emb_fake': cannot be read"):
            use()
    assert "cannot be read" in verify(again)["problem"][0]
    assert again.clips.count() == 1200 and len(again.clips.read()) == 1200


def test_repeated_rows_lose_their_copies(lake):
    lake.clips.add(clip_rows(4, 3))
    rows = lake.clips.table.read()
    lance.write_dataset(rows.slice(2, 4), lake.clips.table.dataset().uri, mode="append")
    assert lake.clips.count() == 16
    assert "4 keys occur more than once" in problems(lake)["rows"]
    verify(lake, repair=True)
    assert lake.clips.read().sort("clip_id").equals(pl.from_arrow(rows).sort("clip_id"))


def test_damaged_maps_indexes_and_vocabularies_are_dropped(lake):
    opened = tonelake.open(lake.uri, progress=False)
    fill(lake, 60, 20, seed=0)
    opened.build_indexes(["high"], kind="hnsw")
    opened.map("high", method="pca")
    home = Path(lake.uri)
    (home / "vocabularies" / "fake").mkdir(parents=True)
    (home / "vocabularies" / "fake" / "x.safetensors").write_bytes(b"none")
    for path in (*home.glob("indexes/fake/*.faiss"), home / "maps" / "fake" / "01.parquet"):
        path.write_bytes(path.read_bytes()[:50])
    (home / "indexes" / "fake" / "stray.faiss").write_bytes(b"x")
    index_cache()
    found = problems(lake)
    assert {"index", "map", "vocabulary", "file"} <= found.keys()
    done = verify(lake, repair=True)
    assert done["mended"].all()
    assert not len(verify(lake)) and not list(home.glob("indexes/fake/*")) and opened.list_indexes().is_empty()
    opened.build_indexes(["high"], kind="hnsw")
    assert opened.map("high", method="pca").done == "made"


def index_cache() -> None:
    from tonelake.index.search import faiss_files

    faiss_files.loaded_indexes.clear()


def test_an_edited_space_and_a_damaged_run_are_found(sound):
    home = Path(sound.uri)
    text = (home / "spaces" / "spectral.json").read_text()
    (home / "spaces" / "spectral.json").write_text(text.replace('"window_s": 30.0', '"window_s": 5.0'))
    (home / "probes" / "half").mkdir(parents=True)
    (home / "probes" / "torn").mkdir()
    (home / "probes" / "torn" / "metrics.json").write_text("{")
    found = verify(sound)
    assert "it was edited" in found.filter(pl.col("what") == "space")["problem"][0]
    runs = found.filter(pl.col("what") == "run")
    assert runs["problem"].to_list()[0] == "begun and not finished" and "has no config.yaml" in runs["problem"][1]


def test_half_written_files_are_deleted_after_a_day(sound):
    folder = Path(sound.uri) / "maps" / "spectral"
    old, young = folder / ".01.parquet.123.tmp", folder / ".02.parquet.124.tmp"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    assert "1 half-written files" in problems(sound)["file"]
    verify(sound, repair=True)
    assert not old.exists() and young.exists()


def test_the_commands_report_and_set_the_exit_code(sound):
    from typer.testing import CliRunner

    from tonelake.cli import app

    run = CliRunner()
    assert run.invoke(app, ["verify", "--lake", sound.uri]).exit_code == 0
    (Path(sound.uri) / "maps" / "spectral" / "02.parquet").write_bytes(b"x")
    broken = run.invoke(app, ["verify", "--lake", sound.uri, "--json"])
    assert broken.exit_code == 1 and json.loads(broken.stdout.splitlines()[0])["what"] == "map"
    assert run.invoke(app, ["verify", "--repair", "--lake", sound.uri]).exit_code == 0
    trimmed = run.invoke(app, ["optimize", "--keep-minutes", "0", "--lake", sound.uri, "--json"])
    assert trimmed.exit_code == 0
    assert {json.loads(line)["table"] for line in trimmed.stdout.splitlines()} >= {"clips", "emb_spectral"}
