"""What waits to be stored is committed in time, and what commits leave behind is merged and removed at its time."""

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
    """The writer's clock, which stands still but where a test sets it forward."""
    now = SimpleNamespace(s=5_000.0)
    monkeypatch.setattr(writer, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


@pytest.fixture
def done(monkeypatch):
    """What was asked of the tables: to merge, to let go."""
    asked: list[str] = []
    monkeypatch.setattr(writer, "trim_quietly", lambda table, many: asked.append(f"merge beyond {many}"))
    monkeypatch.setattr(writer, "let_go_quietly", lambda table: asked.append("let go"))
    return asked


def make(lake, frames=(), total=None, clips=100):
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 30.0))
    found = writer.Writer(lake, space, frames, total=total)
    ids = [f"{number:020x}" for number in range(clips)]
    found.expect(pl.DataFrame({"clip_id": ids, "source": ids, "duration_s": [30.0] * clips}))
    return found, iter(ids)


def vectors(frames: int = 0) -> ClipVectors:
    statistics = [np.ones(4, np.float32), np.ones(6, np.float32)]
    return ClipVectors(
        statistics, statistics, 10, [np.ones((frames, 4), np.float16)] if frames else [], np.arange(frames, dtype=np.float32)
    )


def test_so_many_clips_are_a_commit(lake, clock, done, monkeypatch):
    monkeypatch.setattr(writer, "COMMIT_CLIPS", 3)
    taking, ids = make(lake)
    counts = []
    for _ in range(7):
        taking.take(next(ids), vectors())
        counts.append(lake.vectors().count())
    assert counts == [0, 0, 3, 3, 3, 6, 6]
    taking.flush()
    assert lake.vectors().count() == taking.stored == 7
    assert taking.seconds_of_audio == 210.0


def test_nothing_waits_longer_than_half_a_minute(lake, clock, done):
    taking, ids = make(lake)
    for later_s, stored in ((0, 0), (29, 0), (1, 0), (1, 4), (29, 4), (2, 6)):
        clock.s += later_s
        taking.take(next(ids), vectors())
        assert lake.vectors().count() == stored


def test_frames_wait_by_their_size(lake, clock, done, monkeypatch):
    assert writer.COMMIT_FRAME_BYTES == 134_217_728
    monkeypatch.setattr(writer, "COMMIT_FRAME_BYTES", 3 * 50 * 4 * 2)
    taking, ids = make(lake, frames=(0,))
    counts = []
    for _ in range(9):
        taking.take(next(ids), vectors(50))
        counts.append(lake.vectors().count())
    assert counts == [0, 0, 0, 4, 4, 4, 4, 8, 8]
    assert taking.framed == 8


def test_pieces_are_merged_as_often_as_they_make_a_whole_one_and_let_go_of_later(lake, clock, done, monkeypatch):
    monkeypatch.setattr(writer, "COMMIT_CLIPS", 2)
    monkeypatch.setattr(Table, "whole_rows", lambda table: 5)
    taking, ids = make(lake, frames=(0,))
    for _ in range(5):
        taking.take(next(ids), vectors(1))
    assert done == []
    taking.take(next(ids), vectors(1))   # the third commit: 6 of 5 rows
    assert done == [f"merge beyond {writer.MANY_PIECES}"] * 2        # of vectors and of frames
    clock.s += 60 * SHORT_MINUTES
    taking.flush()
    for _ in range(2):
        taking.take(next(ids), vectors(1))
    assert len(done) == 2                # somebody may still be reading what was merged
    clock.s += 1
    for _ in range(2):
        taking.take(next(ids), vectors(1))
    assert done[2:] == ["let go"] * 2
    for _ in range(2):
        taking.take(next(ids), vectors(1))
    assert done[4:] == [f"merge beyond {writer.MANY_PIECES}"] * 2    # the third commit again


@pytest.mark.parametrize(("after_s", "soon"), [(12.0, True), (14.0, False)])
def test_near_the_end_pieces_are_left_to_the_next(lake, clock, done, monkeypatch, after_s, soon):
    """A tenth done after 12 s leaves 108 s, and after 14 s 126: what a merge replaces stays for two minutes."""
    monkeypatch.setattr(writer, "COMMIT_CLIPS", 10)
    monkeypatch.setattr(Table, "whole_rows", lambda table: 5)
    taking, ids = make(lake, total=100)
    clock.s += after_s
    for _ in range(10):
        taking.take(next(ids), vectors())
    assert taking.ends_soon() == soon
    assert done == ([] if soon else [f"merge beyond {writer.MANY_PIECES}"])
    taking.tidy()
    assert done == ([f"merge beyond {writer.PIECES_AT_THE_END}"] if soon else [f"merge beyond {writer.MANY_PIECES}"])
