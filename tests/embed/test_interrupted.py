"""An embedding that is killed, and two that run at once: each clip once, with equal vectors."""

from __future__ import annotations

import random
import time

import pytest
import warm
from comparing import assert_equal_vectors

from tonelake.store import Lake

SLOW = "fakes:SlowFakeEncoder"           # 2.5 s for all clips


@pytest.mark.slow
@pytest.mark.parametrize("kills", [3, 10])
def test_kills_leave_each_clip_embedded_once_with_the_same_vectors(tracks, reference, kills):
    rng = random.Random(7)
    during_work = 0
    for kill in range(kills):
        process = warm.start(warm.embed_in_small_commits, tracks.uri, SLOW)
        before = count(tracks)
        deadline = time.monotonic() + 60
        # Wait until this run has stored something, then kill it at a random moment of its work; every third one earlier.
        while kill % 3 and count(tracks) == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.25) if kill % 3 else rng.uniform(0.2, 1.5))
        process.kill()
        process.join()
        during_work += 0 < count(tracks) < tracks.clips.count()
    assert during_work >= max(1, kills // 3)           # the kills hit a run at work, not one that was done
    last = warm.start(warm.embed_in_small_commits, tracks.uri, SLOW)
    last.join(480)
    assert last.exitcode == 0
    assert_equal_vectors(tracks, reference)


def count(lake: Lake) -> int:
    spaces = lake.spaces.all()
    return lake.vectors(spaces[0]).count() if spaces else 0


@pytest.mark.slow
def test_two_runs_at_once_embed_each_clip_once(tracks, reference):
    runs = [warm.start(warm.embed_in_small_commits, tracks.uri, SLOW) for _ in range(2)]
    try:
        for run in runs:
            run.join(480)
            assert run.exitcode == 0
    finally:
        for run in runs:
            run.kill()
    assert_equal_vectors(tracks, reference)
