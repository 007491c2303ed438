"""A plan estimates the cost of an embedding, and changes nothing."""

from __future__ import annotations

import time

import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows

import tonelake
from tonelake.embed import Plan, make_plan
from tonelake.embed.settings import describe_space
from tonelake.ingest import ingest_folder, read_clips
from tonelake.store import InputError


class Slow(FakeEncoder):
    """Encodes two seconds of audio in a hundredth of a second."""

    def encode(self, windows, *how):
        time.sleep(windows.shape[1] / self.sample_rate / 200)
        return super().encode(windows, *how)


def test_a_plan_extrapolates_from_its_measurement_and_stores_nothing(lake, music):
    ingest_folder(lake, music, seconds=3.0)
    space = describe_space(Slow(), "slow", 30.0)
    plan = make_plan(lake, space, Slow(), read_clips, price=3.0)
    assert (plan.clips, plan.price) == (18, 3.0)
    assert plan.hours == pytest.approx(54 / 3600, rel=0.01)
    assert 0 < plan.speed < 200          # the encoder alone does 200
    assert plan.seconds == pytest.approx(54 / plan.speed, rel=0.01)
    assert plan.cost == pytest.approx(plan.seconds / 3600 * 3.0)
    assert plan.disk_bytes == 18 * (2 * 10 * 2 + 40)
    assert plan.sources == 6 and 50e6 < plan.memory_bytes < 64e9
    assert lake.spaces.all() == []
    assert lake.vectors(space).count() == 0


def test_a_plan_counts_only_clips_that_are_due(lake, music):
    opened = tonelake.open(lake.uri, progress=False)
    opened.ingest_folder(music, seconds=None)
    assert opened.plan("fakes:FakeEncoder").clips == 6
    opened.embed("fakes:FakeEncoder")
    done = opened.plan("fakes:FakeEncoder")
    assert (done.clips, done.seconds) == (0, 0.0)
    assert str(done) == "space fake: all clips are embedded, there is nothing to do"


def test_a_plan_of_unreadable_clips_is_an_error_with_the_reason(lake):
    lake.clips.add(clip_rows(1, 3).with_columns(source=pl.lit("/gone.wav")))
    with pytest.raises(InputError, match=r"none of 3 sampled clips could be read: gone\.wav: cannot be read"):
        make_plan(lake, describe_space(FakeEncoder(), "fake", 30.0), FakeEncoder(), read_clips)


def test_a_plan_is_printed_like_a_bill():
    plan = Plan(
        space="mert", precision="bfloat16", clips=100_000, sources=20_000, hours=833.3, speed=20.0, disk_bytes=3_997_600_000,
        memory_bytes=2_345_000_000, price=2.5,
    )
    assert str(plan) == (
        "space mert, bfloat16: 100,000 clips, 833.3 hours of audio\n"
        "time    1 day, 17:39:54 at 20.0 s of audio per second, measured here; 7.5 s a track, derived\n"
        "disk    4.00 GB, derived from the width of the vectors\n"
        "memory  2.35 GB peak, measured here\n"
        "cost    104.16 at 2.5 per hour, 0.0052 a track, derived from the time"
    )
