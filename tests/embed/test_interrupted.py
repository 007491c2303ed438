"""Embedding that is killed, and two that run at once: each clip once, with the same vectors."""

from __future__ import annotations

import random
import shutil
import time

import numpy as np
import pytest
import warm
from sounds import melody, write

from tonelake.embed import EmbedSettings, embed_clips, open_space
from tonelake.ingest import Cut, ingest_folder, read_clips
from tonelake.store import Lake


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    """A lake with 96 clips of twelve tracks.  Do not change it."""
    folder = tmp_path_factory.mktemp("ingested")
    for number in range(12):
        write(folder / "music" / f"{number}.wav", melody(40, seed=number, rate=24_000), rate=24_000)
    lake = Lake(folder / "lake")
    ingest_folder(lake, folder / "music", Cut(5.0))
    return lake


@pytest.fixture
def tracks(ingested, tmp_path):
    """Its copy."""
    return Lake(shutil.copytree(ingested.uri, tmp_path / "tracks"))


@pytest.fixture(scope="module")
def undisturbed(ingested, tmp_path_factory, checkpoints):
    """The same clips, embedded in one go."""
    lake = Lake(shutil.copytree(ingested.uri, tmp_path_factory.mktemp("undisturbed") / "lake"))
    space, encoder = open_space(lake, EmbedSettings(str(checkpoints / "95M-tiny"), precision="float32", device="cpu"))
    assert embed_clips(lake, space, encoder, read_clips).failed == 0
    return lake


def assert_same_vectors(lake: Lake, reference: Lake) -> None:
    mine, theirs = lake.vectors(), reference.vectors()
    assert mine.space.fingerprint == theirs.space.fingerprint
    assert mine.count() == mine.ids().n_unique() == reference.clips.count()
    ids = reference.clips.read(["clip_id"])["clip_id"].to_list()
    for layer in range(len(mine.space.layers)):
        for stat in ("mean", "max"):
            np.testing.assert_array_equal(mine.take(ids, layer, stat=stat).vectors, theirs.take(ids, layer, stat=stat).vectors)


def test_ten_kills_leave_each_clip_embedded_once_with_the_same_vectors(tracks, checkpoints, undisturbed):
    encoder = str(checkpoints / "95M-tiny")
    rng = random.Random(7)
    kills = met_work = 0
    while kills < 10:
        process = warm.start(warm.embed_in_small_commits, tracks.uri, encoder)
        before = count(tracks)
        deadline = time.monotonic() + 60
        # Wait until this run has stored something, then kill it at a random moment of its work; every third one earlier.
        while kills % 3 and count(tracks) == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.25) if kills % 3 else rng.uniform(0.5, 3.0))
        process.kill()
        process.join()
        kills += 1
        met_work += 0 < count(tracks) < tracks.clips.count()
    assert met_work >= 3                 # the kills met a run that was at work, not one that was done
    last = warm.start(warm.embed_in_small_commits, tracks.uri, encoder)
    last.join(480)
    assert last.exitcode == 0
    assert_same_vectors(tracks, undisturbed)


def count(lake: Lake) -> int:
    spaces = lake.spaces.all()
    return lake.vectors(spaces[0]).count() if spaces else 0


def test_two_runs_at_once_embed_each_clip_once(tracks, checkpoints, undisturbed):
    encoder = str(checkpoints / "95M-tiny")
    runs = [warm.start(warm.embed_in_small_commits, tracks.uri, encoder) for _ in range(2)]
    try:
        for run in runs:
            run.join(480)
            assert run.exitcode == 0
    finally:
        for run in runs:
            run.kill()
    assert_same_vectors(tracks, undisturbed)
