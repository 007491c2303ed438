"""Clips of superseded recordings are in no answer; missing ones are, with their state."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import fill

import tonelake
from tonelake.embed.work import find_work
from tonelake.evaluate import read_labelled, read_targets
from tonelake.store import FrameStates


@pytest.fixture
def lake(tmp_path):
    """Sixteen tracks of four clips; those of one are superseded and those of another missing."""
    found = tonelake.open(tmp_path / "lake", progress=False)
    space = fill(found, tracks=16, clips_a_track=4, seed=3)
    ids = found.clips.ids().to_list()
    rng = np.random.default_rng(0)
    found.frames(space).add([
        FrameStates(clip, 1, np.arange(5, dtype=np.float32), rng.standard_normal((5, 6)).astype(np.float16)) for clip in ids
    ])
    states = {"track001": "superseded", "track002": "missing"}
    clips = found.clips.read(["clip_id", "track"])
    state = pl.col("track").replace_strict(states, default=None, return_dtype=pl.String)
    found.clips.update(clips.select("clip_id", state=state))
    return found


@pytest.fixture
def old(lake):
    return set(lake.clips.superseded())


def test_reading_leaves_them_out_unless_they_are_asked_for(lake, old):
    assert len(old) == 4 and lake.clips.count() == 60 and lake.clips.count(superseded=True) == 64
    assert lake.clips.count("track = 'track001'") == 0 and len(lake.clips.ids(superseded=True)) == 64
    assert not old & set(lake.clips.ids()) and not old & set(lake.clips.read()["clip_id"])
    assert not old & set(lake.clips.ids("duration_s > 0")) and lake.clips.count("state = 'missing'") == 4
    assert set(lake.clips.take(sorted(old))["clip_id"]) == old and lake.clips.find(min(old))["state"] == "superseded"
    assert lake.status().clips == 60 and len(find_work(lake, lake.spaces.get(None)).rows) == 0


def test_status_does_not_count_their_vectors(lake):
    space = lake.list_spaces().row(0, named=True)
    assert (space["embedded"], space["missing"]) == (60, 0) and lake.vectors("fake").count() == 64


def test_searches_leave_them_out(lake, old):
    query = lake.vectors("fake").take([min(old)], "high").vectors[0]
    hits = lake.similar(query, layer="high", k=64, clips=True)
    assert len(hits) == 60 and not old & set(hits["clip_id"])
    assert len(set(hits["clip_id"]) & set(lake.clips.ids("state = 'missing'"))) == 4
    assert hits.filter(pl.col("state") == "missing").height == 4
    assert not old & set(lake.duplicates(layer="high", cosine=-1.0, confirm=False, clips=True)["clip_id"])


def test_an_index_leaves_out_clips_that_are_superseded_after_it_was_built(tmp_path):
    lake = tonelake.open(tmp_path / "lake", progress=False)
    fill(lake, tracks=260, clips_a_track=4, seed=3)
    lake.build_indexes(["high"], kind="hnsw")
    query = lake.clips.ids("track = 'track100'")[0]
    late = lake.similar(query, layer="high", k=5, clips=True)["clip_id"]
    lake.clips.update(pl.DataFrame({"clip_id": late, "state": ["superseded"] * 5}))
    hits = lake.similar(query, layer="high", k=20, clips=True)["clip_id"]
    assert len(hits) == 20 and not set(late) & set(hits)


def test_maps_groups_and_layer_reports_leave_them_out(lake, old):
    assert not old & set(lake.map("high", method="pca").points["clip_id"])
    assert lake.groups("artist", layer="high").filter(pl.col("artist") == "Artist 0")["clips"].item() == 12
    assert not old & set(lake.typical("artist", "Artist 0", layer="high", k=50, clips=True)["clip_id"])
    assert lake.layers("artist") is not None
    assert not old & set(read_labelled(lake, lake.spaces.get(None), "artist").ids)
    assert not old & set(read_targets(lake, lake.spaces.get(None), ["artist"]).ids)


def test_tokens_leave_them_out(lake, old):
    lake.fit_vocabulary(k=4, layer="high", name="v")
    lake.apply_vocabulary("v")
    query = lake.clips.ids()[0]
    assert not old & set(lake.similar_by_tokens(query, "v", k=64)["clip_id"])
