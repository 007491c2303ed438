"""Two processes at once on one lake: ingests, embeddings, index builds, searches and the app, each with its own Lake."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from app_pages import PAGES, page
from fakes import FakeEncoder, clip_rows, fill

import tonelake
from tonelake.embed.settings import describe_space
from tonelake.ingest import ingest_folder
from tonelake.store import Lake
from tonelake.verify import verify

HOME = Path(__file__).resolve().parents[2]


def command(*words: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "from tonelake.cli import main; main()", *map(str, words)],
        cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def finish(*running: subprocess.Popen) -> list[str]:
    """The output of each process; all have to succeed."""
    outputs = [process.communicate(timeout=300) for process in running]
    for process, (_, err) in zip(running, outputs, strict=True):
        assert process.returncode == 0, err
    return [out + err for out, err in outputs]


def repeat_during(work: Callable[[], object], read: Callable[[], object]) -> None:
    """Call `read` repeatedly while `work` runs, and once more.  An error of either fails the test."""
    problems: list[BaseException] = []
    done = threading.Event()

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)
        finally:
            done.set()

    worker = threading.Thread(target=guarded)
    worker.start()
    try:
        while not done.is_set():
            read()
    finally:
        worker.join()
    assert not problems, problems
    read()


@pytest.fixture
def library(music, tmp_path):
    """The music, with a file that is not audio, and labels."""
    shutil.copytree(music, tmp_path / "m")
    (tmp_path / "m" / "broken.mp3").write_bytes(b"this is no music")
    (tmp_path / "m.csv").write_text("stem,meter\n" + "".join(f"song{i},{3 + i % 2}\n" for i in range(6)))
    return tmp_path / "m"


@pytest.mark.slow
def test_two_ingests_of_one_folder_add_each_clip_and_failure_once(tmp_path, library):
    lake, alone = tmp_path / "lake", Lake(tmp_path / "alone")
    words = ("ingest", "folder", library, "--seconds", 3, "--labels", library.with_suffix(".csv"), "--lake", lake)
    finish(command(*words), command(*words))
    ingest_folder(alone, library, seconds=3.0)
    found = Lake(lake)
    clips = found.clips.read()
    assert clips["clip_id"].n_unique() == len(clips) and set(clips["clip_id"]) == set(alone.clips.ids())
    assert sorted(clips["meter"].unique()) == [3, 4] and not clips["meter"].null_count()
    assert len(found.failures.read()) == 1
    assert verify(found).is_empty()


@pytest.mark.slow
def test_two_ingests_of_two_folders_lose_neither_rows_nor_columns(tmp_path, library):
    """Each adds a label column that the other does not have."""
    other = shutil.copytree(library / "Ada", tmp_path / "other")
    shutil.rmtree(library / "Ada")
    (tmp_path / "other.csv").write_text("stem,mood\nsong0,calm\nsong3,wild\n")
    lake = tmp_path / "lake"
    finish(*(
        command("ingest", "folder", folder, "--seconds", 3, "--labels", tmp_path / f"{folder.name}.csv", "--lake", lake)
        for folder in (library, other)
    ))
    clips = Lake(lake).clips.read()
    assert len(clips) == 18 and {"meter", "mood"} <= set(clips.columns)
    assert clips["meter"].null_count() == 6 and clips["mood"].null_count() == 12


def test_search_beside_an_embedding_answers_from_stored_vectors(lake):
    """Clips are added by small commits and merged; every answer is complete and contains embedded clips only."""
    rows = clip_rows(60, 5)
    lake.clips.add(rows)
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((300, dim)).astype(np.float32) for dim in space.dims]
    ids = rows["clip_id"].to_list()

    def embed(first: int, last: int) -> None:
        part = [layer[first:last] for layer in layers]
        Lake(lake.uri).vectors("fake").add(ids[first:last], part, part, [1] * (last - first))

    embed(0, 20)
    opened = tonelake.open(lake.uri, progress=False)
    counts = [20]

    def search() -> None:
        hits = opened.similar(ids[3], layer="low", k=10, clips=True)
        assert len(hits) == 10 and hits["clip_id"].is_in(ids).all() and hits["clip_id"].n_unique() == 10
        rare = opened.similar(ids[3], layer="high", k=3, where="year = 1961", clips=True)
        assert set(rare["track"]) == {"track001"} and len(rare) == 3
        counts.append(opened.vectors("fake").layer("low").vectors.shape[0])

    def work() -> None:
        for first in range(20, 300, 10):
            embed(first, first + 10)
            if first % 50 == 0:
                Lake(lake.uri).vectors("fake").table.compact()

    repeat_during(work, search)
    assert counts == sorted(counts)
    last = opened.similar(ids[3], layer="low", k=295, clips=True)
    unit = layers[0].astype(np.float16).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = np.argsort(-(unit @ unit[3]), kind="stable")
    assert [ids[i] for i in expected if i != 3][:50] == last["clip_id"].head(50).to_list()


def test_two_index_builds_beside_a_growing_lake_leave_one_complete_index(lake):
    fill(lake, 40, 30, seed=0)
    opened = tonelake.open(lake.uri, progress=False)
    ids = lake.clips.ids().to_list()

    def build() -> None:
        tonelake.open(lake.uri, progress=False).build_indexes(["high"], kind="hnsw")

    def work() -> None:
        other = threading.Thread(target=build)
        other.start()
        fill(Lake(lake.uri), 42, 30, seed=0)
        build()
        other.join()

    def search() -> None:
        assert len(opened.similar(ids[7], layer="high", k=5, clips=True)) == 5

    repeat_during(work, search)
    build()
    assert opened.list_indexes()["state"].to_list() == ["up to date"]
    assert verify(Lake(lake.uri)).filter(pl.col("what") != "file").is_empty()


@pytest.mark.slow
def test_the_pages_of_the_app_beside_an_embedding_show_no_error(lake, library, monkeypatch):
    """While clips are ingested and embedded, and tables are optimized."""
    ingest_folder(lake, library / "Ada", seconds=3.0)
    opened = tonelake.open(lake.uri, progress=False)
    opened.embed("spectral")
    opened.map("chroma", method="pca")
    views = cycle([page(name, lake, monkeypatch) for name in PAGES])

    def work() -> None:
        mine = tonelake.open(lake.uri, progress=False)
        ingest_folder(mine, library, seconds=3.0)
        mine.embed("spectral")
        mine.optimize(keep_minutes=0)

    def look() -> None:
        view = next(views).run()
        assert not view.exception, view.exception

    repeat_during(work, look)
    for _ in PAGES:
        look()
