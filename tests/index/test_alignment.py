"""Alignment: planted stretches are found, and the best diagonal and warp equal exhaustive search."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.index.search.alignment import average_frames, best_diagonal, best_warp, match
from tonelake.store import FrameStates, InputError, Space

RATE, DIM = 75, 16


def random_states(seconds, seed):
    """Return (frame, dim) states that change a few times a second and never repeat."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((int(seconds * 4) + 2, DIM))
    at = np.arange(round(seconds * RATE)) / RATE * 4
    left = at.astype(int)
    return points[left] + (at - left)[:, None] * (points[left + 1] - points[left])


def stretched(states, factor):
    """Stretch states to `factor` times their length."""
    at = np.arange(int((len(states) - 1) * factor)) / factor
    left = at.astype(int)
    return states[left] + (at - left)[:, None] * (states[left + 1] - states[left])


@pytest.fixture
def sung(lake):
    """Four clips with frames: six seconds occur in clip 0 from 3 s, in 1 from 12 s and, slower, in 2 from 5 s, but not in 3;
    a fifth clip has no frames."""
    rows = clip_rows(5, 1)
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="sung", revision="1", sample_rate=24_000, layers=("a", "b"), dims=(DIM, DIM),
        window_s=30.0, hop_s=30.0, precision="float32"
    ))
    motif = random_states(6, seed=99)
    clips = [random_states(seconds, seed) for seed, seconds in enumerate((14, 20, 18, 16))]
    clips[0][3 * RATE : 9 * RATE] = motif
    clips[1][12 * RATE : 18 * RATE] = motif
    slow = stretched(motif, 1.4)
    clips[2][5 * RATE : 5 * RATE + len(slow)] = slow
    ids = rows["clip_id"].to_list()
    rng = np.random.default_rng(0)
    lake.frames(space).add([
        FrameStates(clip, 1, ((np.arange(len(s)) + 0.5) / RATE).astype(np.float32),
                    (3 + s + 0.05 * rng.standard_normal(s.shape)).astype(np.float16))
        for clip, s in zip(ids, clips, strict=False)
    ])
    vectors = [np.stack([*(s.mean(axis=0) for s in clips), np.ones(DIM)]).astype(np.float32)] * 2
    lake.vectors(space).add(ids, vectors, vectors, [1] * 5)
    return lake, ids


def test_the_stretch_two_clips_share_is_found(sung):
    lake, ids = sung
    found = index.align(lake, ids[0], ids[1], seconds=5)
    assert found.score > 0.95
    assert 2.9 <= found.start_s <= 4.1
    assert found.other_start_s - found.start_s == pytest.approx(9, abs=0.11)
    assert found.end_s - found.start_s == found.other_end_s - found.other_start_s == pytest.approx(5)
    assert index.align(lake, ids[0], ids[3], seconds=5).score < 0.5
    whole = index.align(lake, ids[0], ids[0], seconds=600)            # at most the clip's length
    assert (whole.start_s, whole.end_s, whole.other_start_s) == (0, 14, 0)
    assert whole.score == pytest.approx(1, abs=1e-5)


def test_a_slower_copy_is_found_when_time_may_warp(sung):
    lake, ids = sung
    found = index.align(lake, ids[0], ids[2], seconds=5, warp=True)
    assert found.score > 0.9 > index.align(lake, ids[0], ids[2], seconds=5).score + 0.2
    assert (found.other_end_s - found.other_start_s) / (found.end_s - found.start_s) == pytest.approx(1.4, abs=0.15)
    assert found.other_start_s == pytest.approx(5 + 1.4 * (found.start_s - 3), abs=0.4)


def test_hits_get_the_times_of_their_best_match(sung):
    lake, ids = sung
    hits = index.similar(lake, ids[0], k=10, clips=True)
    found = index.add_parts(lake, hits, ids[0], seconds=5)
    assert found["clip_id"].to_list() == hits["clip_id"].to_list()
    row = {clip: found.filter(clip_id=clip).row(0, named=True) for clip in ids[1:]}
    assert row[ids[1]]["hit_at_s"] - row[ids[1]]["query_at_s"] == pytest.approx(9, abs=0.11)
    assert row[ids[4]]["part_score"] is None
    assert len(index.add_parts(lake, hits.head(0), ids[0])) == 0


def test_frames_are_averaged_by_slots_and_an_empty_slot_repeats_the_one_before():
    times = np.array([0.55, 0.6, 1.1, 1.9, 1.95, 3.01], np.float32)
    states = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float16)
    slot = np.floor(times * index.search.alignment.RATE).astype(int)
    means = {s: states[slot == s].astype(float).mean(axis=0) for s in set(slot)}
    wanted = [means[max([s for s in means if s <= now], default=min(means))] for now in range(slot[-1] + 1)]
    found = average_frames(FrameStates("clip", 1, times, states))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_silence_has_no_best_match_and_does_not_hide_the_other_hits(sung):
    lake, ids = sung
    rows = clip_rows(7, 1)[5:]
    lake.clips.add(rows)
    quiet = rows["clip_id"].to_list()
    states = np.full((40, DIM), 2.0, np.float16)
    lake.frames("sung").add([FrameStates(clip, 1, np.arange(40, dtype=np.float32) / RATE, states) for clip in quiet])
    with pytest.raises(InputError, match="all their frames are alike, as in silence"):
        index.align(lake, *quiet)
    broken = FrameStates("x", 1, np.arange(40, dtype=np.float32) / RATE, np.where(np.arange(40)[:, None] == 7, np.nan, states))
    with pytest.raises(InputError, match="x: its frames hold NaN"):
        match(broken, broken, 2.0, False)
    hits = index.add_parts(lake, pl.DataFrame({"clip_id": [quiet[1], ids[1]]}), quiet[0], seconds=2)
    assert hits["part_score"].is_null().to_list() == [True, False]


@pytest.mark.parametrize("length", [1, 4, 9])
def test_the_best_diagonal_equals_trying_all(length):
    cosines = np.random.default_rng(length).uniform(-1, 1, (9, 14))
    means = {
        (i, j): np.mean([cosines[i + t, j + t] for t in range(length)])
        for i in range(9 - length + 1) for j in range(14 - length + 1)
    }
    row, column, score = best_diagonal(cosines, length)
    assert (row, column) == max(means, key=means.get)
    assert score == pytest.approx(max(means.values()))


def test_the_best_warp_equals_dynamic_programming():
    cosines = np.random.default_rng(2).uniform(0, 1, (6, 15))
    cost = 1 - cosines
    total = np.full((6, 15), np.inf)
    total[0] = cost[0]
    for i in range(1, 6):
        for j in range(1, 15):
            steps = [total[i - 1, j - 1]]
            if j > 1:
                steps.append(total[i - 1, j - 2])
            if i > 1:
                steps.append(total[i - 2, j - 1])
            total[i, j] = cost[i, j] + min(steps)
    assert best_warp(cosines)[1] == int(total[-1].argmin()) + 1


def test_clips_without_frames_are_named(sung, filled):
    lake, ids = sung
    with pytest.raises(InputError, match=f"clip {ids[4]}: has no stored frames of layer b"):
        index.align(lake, ids[0], ids[4])
    with pytest.raises(InputError, match="has no stored frames of layer a"):
        index.align(lake, ids[0], ids[1], layer="a")
    with pytest.raises(InputError, match="embed --space fake --frames high"):
        index.align(filled, "0000", "0001")
    with pytest.raises(InputError, match="must be positive"):
        index.align(lake, ids[0], ids[1], seconds=0)


def test_the_commands(sung):
    lake, ids = sung
    run = CliRunner().invoke(app, ["align", ids[0], ids[1], "--lake", lake.uri])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["score"] > 0.9
    run = CliRunner().invoke(app, ["similar", ids[0], "--parts", "5", "--lake", lake.uri, "--json"])
    assert {"query_at_s", "hit_at_s", "part_s", "part_score"} <= set(json.loads(run.stdout.splitlines()[0]))
    assert CliRunner().invoke(app, ["similar", ids[0], ids[1], "--parts", "5", "--lake", lake.uri]).exit_code == 2
