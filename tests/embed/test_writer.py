"""Waiting clips are committed in time, and fragments of earlier commits are merged and removed in time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder

from tonelake.embed import writer
from tonelake.embed.settings import describe_space
from tonelake.embed.windows import ClipVectors
from tonelake.store.compaction import SHORT_MINUTES
from tonelake.store.table import Table


@pytest.fixture
def clock(monkeypatch):
    """The writer's clock, which only the test moves forward."""
    now = SimpleNamespace(s=5_000.0)
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


@pytest.fixture
def calls(monkeypatch):
    """Calls to compact tables and to remove old versions."""
    made: list[str] = []
    monkeypatch.setattr(writer, "trim_quietly", lambda table, fragments: made.append(f"merge beyond {fragments}"))
    monkeypatch.setattr(writer, "release_versions_quietly", lambda table: made.append("release"))
    return made


def make(lake, frames=(), total=None, clips=100):
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    found = writer.Writer(lake, space, frames, total=total)
    ids = [f"{number:020x}" for number in range(clips)]
    found.expect(pl.DataFrame({"clip_id": ids, "source": ids, "duration_s": [30.0] * clips}))
    return found, iter(ids)


def vectors(frames: int = 0) -> ClipVectors:
    statistics = [np.ones(4, np.float32), np.ones(6, np.float32)]
    return ClipVectors(
        mean=statistics, max=statistics, n_frames=10, frames=[np.ones((frames, 4), np.float16)] if frames else [],
        frame_s=np.arange(frames, dtype=np.float32),
    )


def test_a_commit_follows_a_number_of_clips(lake, clock, calls, monkeypatch):
    monkeypatch.setattr(writer, "COMMIT_CLIPS", 3)
    store, ids = make(lake)
    counts = []
    for _ in range(7):
        store.add(next(ids), vectors())
        counts.append(lake.vectors().count())
    assert counts == [0, 0, 3, 3, 3, 6, 6]
    store.flush()
    assert lake.vectors().count() == store.stored == 7
    assert store.seconds_of_audio == 210.0


def test_a_commit_follows_after_half_a_minute(lake, clock, calls):
    store, ids = make(lake)
    for later_s, stored in ((0, 0), (29, 0), (1, 0), (1, 4), (29, 4), (2, 6)):
        clock.s += later_s
        store.add(next(ids), vectors())
        assert lake.vectors().count() == stored


def test_a_commit_follows_a_size_of_frames(lake, clock, calls, monkeypatch):
    assert writer.COMMIT_FRAME_BYTES == 134_217_728
    monkeypatch.setattr(writer, "COMMIT_FRAME_BYTES", 3 * 50 * 4 * 2)
    store, ids = make(lake, frames=(0,))
    counts = []
    for _ in range(9):
        store.add(next(ids), vectors(50))
        counts.append(lake.vectors().count())
    assert counts == [0, 0, 0, 4, 4, 4, 4, 8, 8]
    assert store.framed == 8


def test_fragments_are_merged_once_they_fill_a_whole_one_and_removed_later(lake, clock, calls, monkeypatch):
    monkeypatch.setattr(writer, "COMMIT_CLIPS", 2)
    monkeypatch.setattr(Table, "target_rows", lambda table: 5)
    store, ids = make(lake, frames=(0,))
    for _ in range(5):
        store.add(next(ids), vectors(1))
    assert calls == []
    store.add(next(ids), vectors(1))   # the third commit: 6 of 5 rows
    assert calls == [f"merge beyond {writer.MANY_FRAGMENTS}"] * 2        # of vectors and of frames
    clock.s += 60 * SHORT_MINUTES
    store.flush()
    for _ in range(2):
        store.add(next(ids), vectors(1))
    assert len(calls) == 2                # a reader may still use the merged fragments
    clock.s += 1
    for _ in range(2):
        store.add(next(ids), vectors(1))
    assert calls[2:] == ["release"] * 2
    for _ in range(2):
        store.add(next(ids), vectors(1))
    assert calls[4:] == [f"merge beyond {writer.MANY_FRAGMENTS}"] * 2    # the third commit again


@pytest.mark.parametrize(("after_s", "soon"), [(12.0, True), (14.0, False)])
def test_near_the_end_fragments_are_left_to_the_next_writer(lake, clock, calls, monkeypatch, after_s, soon):
    """A tenth done after 12 s leaves 108 s, and after 14 s 126 s; replaced fragments stay for two minutes."""
    monkeypatch.setattr(writer, "COMMIT_CLIPS", 10)
    monkeypatch.setattr(Table, "target_rows", lambda table: 5)
    store, ids = make(lake, total=100)
    clock.s += after_s
    for _ in range(10):
        store.add(next(ids), vectors())
    assert store.ends_soon() == soon
    assert calls == ([] if soon else [f"merge beyond {writer.MANY_FRAGMENTS}"])
    store.compact()
    assert calls == ([f"merge beyond {writer.FRAGMENTS_AT_THE_END}"] if soon else [f"merge beyond {writer.MANY_FRAGMENTS}"])
