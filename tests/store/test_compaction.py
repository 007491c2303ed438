"""Compaction: old versions and small fragments are removed, rows are kept."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows, fill

from tonelake import embed, store
from tonelake.embed.settings import describe_space
from tonelake.embed.windows import ClipVectors
from tonelake.embed.work import find_work
from tonelake.embed.writer import Writer
from tonelake.store import FrameStates, Lake, LakeError
from tonelake.store.compaction import count_fragments, optimize, spare_share, tidy, trim


@pytest.mark.slow
def test_old_versions_and_small_fragments_are_removed_and_rows_kept(lake):
    for track in range(40):
        lake.clips.add(clip_rows(track + 1, 2).tail(2))
    fill(lake, 40, 2, seed=0)
    before = lake.clips.read().sort("clip_id")
    assert count_fragments(lake.clips.table) > 30
    size = disk(lake)
    found = {row["table"]: row for row in optimize(lake, keep_minutes=0).iter_rows(named=True)}
    assert found["clips"]["fragments"] == 1 and found["clips"]["versions_removed"] > 30
    assert lake.clips.read().sort("clip_id").equals(before)
    assert lake.vectors("fake").count() == 80
    assert disk(lake) < size
    again = trim(lake.clips.table, 0)
    assert again.bytes_removed == 0 or again.versions_removed <= 1


def disk(lake: Lake) -> int:
    return sum(path.stat().st_size for path in Path(lake.uri).rglob("*") if path.is_file())


def test_disk_use_stays_near_the_live_data(lake):
    """A table that is rewritten many times takes little more than its data once old versions may be removed."""
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


def test_a_recent_version_is_kept_for_its_readers(lake):
    lake.clips.add(clip_rows(5, 2))
    snapshot = lake.clips.table.snapshot()
    Lake(lake.uri).clips.set_flag([lake.clips.ids()[0]], "odd")
    optimize(Lake(lake.uri))
    assert snapshot.dataset.count_rows() == 10 and snapshot.dataset.to_table().num_rows == 10


def test_reads_from_a_removed_version_give_the_same_data(lake):
    """Whole columns, rows, clips and frames, for a reader that began before the compaction."""
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
    with pytest.raises(LakeError, match="table 'emb_fake': 1 rows were deleted while being read"):
        vectors.read_rows(of_vectors, np.array([2, 5]), 1)


def random_vectors(dims: tuple[int, ...], rng: np.random.Generator, frames: int = 0) -> ClipVectors:
    layers = [rng.standard_normal(dim).astype(np.float32) for dim in dims]
    states = [rng.standard_normal((frames, dim)).astype(np.float16) for dim in dims] if frames else []
    return ClipVectors(
        mean=layers, max=layers, n_frames=max(frames, 1), frames=states, frame_s=np.arange(frames, dtype=np.float32)
    )


@pytest.fixture
def small_commits(lake, monkeypatch):
    """A writer into a wide space that commits every 20 clips and merges ten such fragments, and clip ids for it."""
    monkeypatch.setattr(embed.writer, "COMMIT_CLIPS", 20)
    monkeypatch.setattr(store.table, "ROWS_PER_FRAGMENT", 190)
    monkeypatch.setattr(embed.writer, "MANY_FRAGMENTS", 9)
    rows = clip_rows(200, 5)
    lake.clips.add(rows)
    wide = replace(describe_space(FakeEncoder(), "wide", 30.0), dims=(4000, 4000))
    writer = Writer(lake, lake.spaces.make(wide))
    writer.expect(lake.clips.read())
    return writer, rows["clip_id"].to_list()


def write_clips(writer: Writer, ids: list[str]) -> None:
    rng = np.random.default_rng(0)
    for clip_id in ids:
        layers = [rng.standard_normal(4000).astype(np.float32) for _ in range(2)]
        writer.add(clip_id, ClipVectors(mean=layers, max=layers, n_frames=1, frames=[], frame_s=np.empty(0)))


def test_a_long_embedding_takes_little_more_disk_than_it_stores(lake, small_commits, monkeypatch):
    """Without `optimize`: fragments are merged during the run, and their old versions removed."""
    monkeypatch.setattr(store.compaction, "SHORT_MINUTES", 0.0)
    writer, ids = small_commits
    table, seen = lake.vectors("wide").table, []
    for start in range(0, 1000, 200):
        write_clips(writer, ids[start : start + 200])
        seen.append(spare_share(table))
    writer.flush()
    writer.compact()
    assert max(seen) < 0.3 and spare_share(table) < 0.3
    assert count_fragments(table) < 10 and lake.vectors("wide").count() == 1000


def test_old_versions_of_a_merge_are_removed_when_retention_ends(lake, small_commits, monkeypatch):
    """Not only at the next merge, which may be half an hour later."""
    for module in (embed.writer, store.compaction):
        monkeypatch.setattr(module, "SHORT_MINUTES", 0.02)
    writer, ids = small_commits
    write_clips(writer, ids[:200])
    merged = spare_share(lake.vectors("wide").table)
    time.sleep(1.3)
    write_clips(writer, ids[200:220])
    assert merged > 0.9 and spare_share(lake.vectors("wide").table) < 0.3


def test_the_last_fragments_of_an_embedding_are_left_to_the_next(lake, small_commits):
    """If merged, they would take their disk space twice until the next write."""
    writer, ids = small_commits
    table = lake.vectors("wide").table
    for start, stop, fragments in ((0, 90, 5), (90, 160, 9), (160, 180, 1)):
        write_clips(writer, ids[start:stop])
        writer.flush()
        writer.compact()
        assert count_fragments(table) == fragments and (spare_share(table) < 0.3 or fragments == 1)
    assert lake.vectors("wide").count() == 180


def test_large_fragments_of_frames_are_never_rewritten(lake, monkeypatch):
    """They make up most of a lake: each embedding would copy all of them."""
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
    assert len(table.small_fragments()) == 2
    trim(table, 0)
    assert large < files_of(table) and count_fragments(table) == 3


def files_of(table) -> set[str]:
    return {file.path for fragment in table.dataset().get_fragments() for file in fragment.data_files()}


def test_an_embedding_continues_after_its_version_of_the_clips_was_removed(lake):
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


@pytest.mark.slow
def test_tidy_merges_the_fragments_of_a_large_write(lake):
    for track in range(49):
        lake.clips.add(clip_rows(track + 1, 1).tail(1))
    assert count_fragments(lake.clips.table) == 49
    tidy(lake.clips.table)
    assert count_fragments(lake.clips.table) == 1 and lake.clips.count() == 49


def test_optimizing_beside_writers_and_readers_neither_loses_nor_duplicates_rows(lake):
    """Two writers, a reader and a compaction at once, each with a Lake of its own."""
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
