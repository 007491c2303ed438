"""A lake stays sound and small: its format, old versions, and what `verify` finds and mends."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from fakes import FakeEncoder, clip_rows, fill

import embed.writer
import store.format
import store.table
import store.upkeep
import tonelake
from embed.settings import describe_space
from embed.windows import ClipVectors
from embed.work import find_work
from embed.writer import Writer
from ingest import Cut, ingest_folder
from store import FrameStates, Lake, LakeError
from store.upkeep import fragments_of, optimize, spare_share, tidy, trim
from tonelake.verify import verify

RELEASE = Path(__file__).parent / "data" / "lake-1"                   # a lake as the first release writes it


# -- the format


def test_a_new_lake_says_its_format_and_an_older_one_is_the_first(tmp_path):
    lake = Lake(tmp_path / "lake")
    assert json.loads((tmp_path / "lake" / "lake.json").read_text())["format"] == store.format.known()
    (tmp_path / "lake" / "lake.json").unlink()
    lake.clips.add(clip_rows(1, 1))
    assert Lake(tmp_path / "lake", create=False).clips.count() == 1


def test_a_lake_of_a_newer_program_is_refused(tmp_path):
    Lake(tmp_path / "lake").clips.add(clip_rows(1, 1))
    (tmp_path / "lake" / "lake.json").write_text('{"format": 99}')
    with pytest.raises(LakeError, match="has format 99, and this tonelake knows formats up to"):
        Lake(tmp_path / "lake")
    for damaged in ("", "{", '{"format": "x"}', "[]", '{"format": 0}'):
        (tmp_path / "lake" / "lake.json").write_text(damaged)
        with pytest.raises(LakeError, match="cannot be read"):
            Lake(tmp_path / "lake", create=False)


def test_an_older_lake_is_brought_up_by_a_command(tmp_path, monkeypatch):
    """Two steps, of which the second is cut short once; no other command touches the lake before."""
    from typer.testing import CliRunner

    from tonelake.cli import app

    Lake(tmp_path / "lake").clips.add(clip_rows(1, 1))
    steps: list[int] = []

    def second(lake: Lake) -> None:
        steps.append(2)
        lake.clips.set_flag(lake.clips.ids().to_list(), "brought up")

    def third(lake: Lake) -> None:
        steps.append(3)
        if steps.count(3) == 1:
            raise LakeError("no space left")

    monkeypatch.setitem(store.format.UPGRADES, 2, second)
    monkeypatch.setitem(store.format.UPGRADES, 3, third)
    path, run = str(tmp_path / "lake"), CliRunner()
    with pytest.raises(LakeError, match=r"has format 1: bring it to 3 by `tonelake verify --repair`"):
        Lake(path)
    told = run.invoke(app, ["verify", "--json", "--lake", path])
    assert told.exit_code == 1 and [json.loads(line)["what"] for line in told.stdout.splitlines()] == ["format"]
    assert not steps
    assert run.invoke(app, ["verify", "--repair", "--lake", path]).exit_code != 0
    assert json.loads((tmp_path / "lake" / "lake.json").read_text())["format"] == 2
    assert run.invoke(app, ["verify", "--repair", "--lake", path]).exit_code == 0
    assert steps == [2, 3, 3] and Lake(path).clips.read()["flag"].to_list() == ["brought up"]
    assert run.invoke(app, ["verify", "--lake", path]).exit_code == 0
    Lake(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "lake.json").read_text())["format"] == 3


def test_a_lake_on_an_object_store_says_its_format_too(s3):
    lake = Lake(f"{s3}/lake")
    assert json.loads(lake.files("").read("lake.json") or "")["format"] == store.format.known()
    lake.clips.add(clip_rows(1, 1))
    lake.files("").put_text("lake.json", '{"format": 99}')
    with pytest.raises(LakeError, match="has format 99"):
        Lake(f"{s3}/lake", create=False)


def test_the_lake_of_the_first_release_opens_and_answers(tmp_path):
    shutil.copytree(RELEASE, tmp_path / "lake")
    lake = tonelake.open(tmp_path / "lake", create=False)
    assert lake.clips().height == 24 and lake.spaces()["name"].to_list() == ["fake"]
    hits = lake.similar(lake.clips()["clip_id"][0], layer="high", k=5)
    assert len(hits) == 5 and hits["artist"][0] == "Artist 0"
    assert lake.map("high", method="pca").done == "as it was"
    assert verify(lake.lake)["what"].to_list() in ([], ["format"])


# -- small


def test_old_versions_and_small_pieces_go_and_rows_stay(lake):
    for track in range(40):
        lake.clips.add(clip_rows(track + 1, 2).tail(2))
    fill(lake, 40, 2, seed=0)
    before = lake.clips.read().sort("clip_id")
    assert fragments_of(lake.clips.table) > 30
    size = disk(lake)
    found = {one.table: one for one in optimize(lake, keep_minutes=0)}
    assert found["clips"].fragments == 1 and found["clips"].versions_removed > 30
    assert lake.clips.read().sort("clip_id").equals(before)
    assert lake.vectors("fake").count() == 80
    assert disk(lake) < size
    again = trim(lake.clips.table, 0)
    assert again.bytes_removed == 0 or again.versions_removed <= 1


def disk(lake: Lake) -> int:
    return sum(path.stat().st_size for path in Path(lake.uri).rglob("*") if path.is_file())


def test_disk_use_stays_near_the_live_data(lake):
    """Rewritten again and again, a table takes little more than what it holds, once old versions may go."""
    space = fill(lake, 60, 20, seed=0)
    table = lake.vectors(space).table
    optimize(lake, keep_minutes=0)
    live = disk(lake)
    rows = table.read()
    for _ in range(12):
        table.upsert(rows)
    assert disk(lake) > 3 * live
    optimize(lake, keep_minutes=0)
    assert disk(lake) < 1.3 * live


def test_a_young_version_stays_for_its_readers(lake):
    lake.clips.add(clip_rows(5, 2))
    snapshot = lake.clips.table.snapshot()
    Lake(lake.uri).clips.set_flag([lake.clips.ids()[0]], "odd")
    optimize(Lake(lake.uri))
    assert snapshot.dataset.count_rows() == 10 and snapshot.dataset.to_table().num_rows == 10


def test_what_is_read_from_a_version_that_has_gone_is_the_same(lake):
    """Whole columns, rows, clips and frames, for whoever began before the table was tidied."""
    space = fill(lake, 12, 3, seed=0)
    ids = lake.clips.ids()
    when = np.arange(4, dtype=np.float32)
    frames = [FrameStates(clip_id, 1, when, np.full((4, 6), i, np.float16)) for i, clip_id in enumerate(ids)]
    for some in (frames[:20], frames[20:]):
        lake.frames(space).add(some)
    vectors, clips = lake.vectors(space), lake.clips
    of_vectors, of_clips = vectors.table.snapshot(), clips.table.snapshot()
    rows = np.array([30, 2, 2, 17])
    reader = lake.frames(space).reader(ids.to_list(), 1)

    def everything() -> list[np.ndarray]:
        return [
            vectors.read(of_vectors, 1), vectors.read_rows(of_vectors, rows, 1), vectors.read(of_vectors, 0, stat="max"),
            clips.read_rows(of_clips, rows, ["clip_id", "title"]).to_numpy(), np.stack(reader([3, 25, 3])),
        ]

    before = everything()
    other = Lake(lake.uri)
    for table in (other.vectors(space).table, other.clips.table, other.frames(space).table):
        whole = table.read()
        table.upsert(whole.take(np.random.default_rng(0).permutation(len(whole))))       # in another order, in new files
    optimize(other, keep_minutes=0)
    for one, again in zip(before, everything(), strict=True):
        assert np.array_equal(one, again)
    other.vectors(space).table.delete(f"clip_id = '{ids[2]}'")
    optimize(other, keep_minutes=0)
    with pytest.raises(LakeError, match="1 rows of table 'emb_fake' were deleted while they were being read"):
        vectors.read_rows(of_vectors, np.array([2, 5]), 1)


def made_up(dims: tuple[int, ...], rng: np.random.Generator, frames: int = 0) -> ClipVectors:
    layers = [rng.standard_normal(dim).astype(np.float32) for dim in dims]
    states = [rng.standard_normal((frames, dim)).astype(np.float16) for dim in dims] if frames else []
    return ClipVectors(layers, layers, max(frames, 1), states, np.arange(frames, dtype=np.float32))


@pytest.fixture
def small_commits(lake, monkeypatch):
    """A writer into a wide space that commits every 20 clips and merges ten such pieces, and ids for it."""
    monkeypatch.setattr(embed.writer, "COMMIT_CLIPS", 20)
    monkeypatch.setattr(store.table, "ROWS_PER_FRAGMENT", 190)
    monkeypatch.setattr(embed.writer, "MANY_PIECES", 9)
    rows = clip_rows(200, 5)
    lake.clips.add(rows)
    wide = replace(describe_space(FakeEncoder(), "wide", 30.0), dims=(4000, 4000))
    writer = Writer(lake, lake.spaces.make(wide))
    writer.expect(lake.clips.read())
    return writer, rows["clip_id"].to_list()


def take(writer: Writer, ids: list[str]) -> None:
    rng = np.random.default_rng(0)
    for clip_id in ids:
        layers = [rng.standard_normal(4000).astype(np.float32) for _ in range(2)]
        writer.take(clip_id, ClipVectors(layers, layers, 1, [], np.empty(0)))


def test_a_long_embedding_takes_little_more_disk_than_it_stores(lake, small_commits, monkeypatch):
    """By itself: pieces are merged as it goes, and what they were merged from is let go of."""
    monkeypatch.setattr(store.upkeep, "SHORT_MINUTES", 0.0)
    writer, ids = small_commits
    table, seen = lake.vectors("wide").table, []
    for start in range(0, 1000, 200):
        take(writer, ids[start : start + 200])
        seen.append(spare_share(table))
    writer.flush()
    writer.tidy()
    assert max(seen) < 0.3 and spare_share(table) < 0.3
    assert fragments_of(table) < 10 and lake.vectors("wide").count() == 1000


def test_what_a_merge_left_goes_when_its_time_has_come(lake, small_commits, monkeypatch):
    """Not at the next merge only, which may be half an hour away."""
    for module in (embed.writer, store.upkeep):
        monkeypatch.setattr(module, "SHORT_MINUTES", 0.02)
    writer, ids = small_commits
    take(writer, ids[:200])
    merged = spare_share(lake.vectors("wide").table)
    time.sleep(1.3)
    take(writer, ids[200:220])
    assert merged > 0.9 and spare_share(lake.vectors("wide").table) < 0.3


def test_the_last_pieces_of_an_embedding_are_left_to_the_next(lake, small_commits):
    """Merged, they would stand on the disk twice until somebody writes again."""
    writer, ids = small_commits
    table = lake.vectors("wide").table
    for start, stop, pieces in ((0, 90, 5), (90, 160, 9), (160, 180, 1)):
        take(writer, ids[start:stop])
        writer.flush()
        writer.tidy()
        assert fragments_of(table) == pieces and (spare_share(table) < 0.3 or pieces == 1)
    assert lake.vectors("wide").count() == 180


def test_frames_in_large_pieces_are_never_written_again(lake, monkeypatch):
    """They are most of a lake: each embedding would copy all of them."""
    monkeypatch.setattr(store.table, "BYTES_OF_LONG_ROWS", 40_000)
    rows = clip_rows(4, 5)
    lake.clips.add(rows)
    space, rng = fill(lake, 1, 1, seed=0), np.random.default_rng(0)
    frames, table = lake.frames(space), lake.frames(space).table

    def add(some: list[str]) -> set[str]:
        when = np.arange(600, dtype=np.float32)
        frames.add([FrameStates(i, 1, when, rng.standard_normal((600, 6)).astype(np.float16)) for i in some])
        return files_of(table)

    ids = rows["clip_id"].to_list()
    large = add(ids[:5])
    large |= add(ids[5:10])
    add(ids[10:11])
    add(ids[11:12])
    assert len(table.pieces()) == 2
    trim(table, 0)
    assert large < files_of(table) and fragments_of(table) == 3


def files_of(table) -> set[str]:
    return {file.path for fragment in table.dataset().get_fragments() for file in fragment.data_files()}


def test_an_embedding_goes_on_when_its_version_of_the_clips_has_gone(lake):
    lake.clips.add(clip_rows(6, 3))
    space = fill(lake, 1, 1, seed=0)
    work = find_work(lake, space)
    expected = work.due()
    other = Lake(lake.uri)
    for clip_id in other.clips.ids():
        other.clips.set_flag([clip_id], "odd")
    optimize(other, keep_minutes=0)
    found = pl.concat(work.slices())
    assert found["clip_id"].to_list() == expected["clip_id"].to_list()
    assert found["source"].to_list() == expected["source"].to_list()


def test_a_large_write_tidies_up_after_itself(lake):
    for track in range(49):
        lake.clips.add(clip_rows(track + 1, 1).tail(1))
    assert fragments_of(lake.clips.table) == 49
    tidy(lake.clips.table)
    assert fragments_of(lake.clips.table) == 1 and lake.clips.count() == 49


# -- sound


@pytest.fixture
def sound(lake, music, tmp_path):
    """A lake of a few files, embedded, mapped and indexed."""
    shutil.copytree(music, tmp_path / "m")
    ingest_folder(lake, tmp_path / "m", Cut(3.0))
    opened = tonelake.open(lake.uri, progress=False)
    opened.embed("spectral")
    opened.map("chroma", method="pca")
    return lake


def problems(lake: Lake, **settings) -> dict[str, str]:
    return {row["what"]: row["problem"] for row in verify(lake, **settings).iter_rows(named=True)}


def test_a_sound_lake_has_no_findings(sound):
    assert not len(verify(sound, digests=True))


def test_files_that_are_gone_or_changed_are_told(sound, tmp_path):
    (tmp_path / "m" / "Ada" / "song0.wav").unlink()
    assert "1 files are gone" in problems(sound)["sources"]
    with (tmp_path / "m" / "Ada" / "song3.ogg").open("ab") as file:
        file.write(b"more")
    found = verify(sound, digests=True)
    assert any("1 files have changed" in text and "song3.ogg" in text for text in found["problem"])
    assert not problems(sound, sources=False)


def test_vectors_of_no_clip_and_of_no_number_go_and_come_again(sound):
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
def test_a_lost_or_cut_data_file_is_a_sentence(lake, left):
    fill(lake, 60, 20, seed=0)
    file = next((Path(lake.uri) / "emb_fake.lance" / "data").glob("*.lance"))
    file.unlink() if left is None else os.truncate(file, left)
    again = Lake(lake.uri)
    for use in (lambda: again.vectors("fake").layer(1), again.vectors("fake").table.read,
                lambda: list(again.vectors("fake").table.batches(["mean_01"]))):
        with pytest.raises(LakeError, match="table 'emb_fake' cannot be read"):
            use()
    assert "cannot be read" in verify(again)["problem"][0]
    assert again.clips.count() == 1200 and len(again.clips.read()) == 1200


def test_rows_that_stand_twice_lose_their_copies(lake):
    lake.clips.add(clip_rows(4, 3))
    rows = lake.clips.table.read()
    lance.write_dataset(rows.slice(2, 4), lake.clips.table.dataset().uri, mode="append")
    assert lake.clips.count() == 16
    assert "4 keys stand twice" in problems(lake)["rows"]
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
    assert not len(verify(lake)) and not list(home.glob("indexes/fake/*")) and opened.indexes().is_empty()
    opened.build_indexes(["high"], kind="hnsw")
    assert opened.map("high", method="pca").done == "made"


def index_cache() -> None:
    from index import saved

    saved._loaded.clear()


def test_an_edited_space_and_a_damaged_run_are_told(sound):
    home = Path(sound.uri)
    text = (home / "spaces" / "spectral.json").read_text()
    (home / "spaces" / "spectral.json").write_text(text.replace('"window_s": 30.0', '"window_s": 5.0'))
    (home / "probes" / "half").mkdir(parents=True)
    (home / "probes" / "torn").mkdir()
    (home / "probes" / "torn" / "metrics.json").write_text("{")
    found = verify(sound)
    assert "the file was edited" in found.filter(pl.col("what") == "space")["problem"][0]
    runs = found.filter(pl.col("what") == "run")
    assert runs["problem"].to_list()[0] == "was begun and not finished" and "cannot be read" in runs["problem"][1]


def test_half_written_files_of_yesterday_go_and_those_of_today_stay(sound):
    folder = Path(sound.uri) / "maps" / "spectral"
    old, young = folder / ".01.parquet.123.tmp", folder / ".02.parquet.124.tmp"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 90_000,) * 2)
    assert "1 half-written files" in problems(sound)["file"]
    verify(sound, repair=True)
    assert not old.exists() and young.exists()


def test_the_commands_say_what_they_did(sound):
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


def test_optimizing_beside_writers_and_readers_loses_and_doubles_nothing(lake):
    """Two writers, a reader and a compaction at once, each with its own handle."""
    import threading

    wrong: list[str] = []
    done = threading.Event()

    def write(first: int) -> None:
        own = Lake(lake.uri)
        for track in range(first, 24, 2):
            own.clips.add(clip_rows(track + 1, 3).tail(3))

    def read() -> None:
        own, before = Lake(lake.uri), 0
        while not done.is_set():
            ids = own.clips.ids()
            if ids.n_unique() != len(ids) or len(ids) < before:
                wrong.append(f"{len(ids)} ids, {ids.n_unique()} different, {before} before")
            before = len(ids)

    def compact() -> None:
        while not done.is_set():
            optimize(Lake(lake.uri))

    def guarded(work, *arguments):
        try:
            work(*arguments)
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")

    lake.clips.add(clip_rows(1, 1))
    writers = [threading.Thread(target=guarded, args=(write, first)) for first in (0, 1)]
    others = [threading.Thread(target=guarded, args=(work,)) for work in (read, compact)]
    for thread in (*writers, *others):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    assert not wrong
    assert sorted(lake.clips.ids()) == sorted(clip_rows(24, 3)["clip_id"])
