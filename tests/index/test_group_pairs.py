"""The list of pairs of groups agrees with the matrix of groups and with the neighbours of each group."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from commands import rows, run
from fakes import clip_rows

from tonelake import index, views
from tonelake.cli import analysis
from tonelake.index.separation import group_pairs
from tonelake.store import InputError, Lake, Space


def made_lake(folder, bands: int, tracks: int, dim: int = 12):
    """Return a lake of bands with directions of their own, one clip a track; track 0 is by the bands 0 and 1."""
    lake = Lake(folder)
    names = [[f"a{t // tracks:04d}"] for t in range(bands * tracks)]
    names[0] = ["a0000", "a0001"]
    singers = [["x", "y"] if t < len(names) / 2 else ["z"] for t in range(len(names))]
    table = clip_rows(len(names), 1).with_columns(band=pl.Series(names), singer=pl.Series(singers))
    lake.clips.add(table)
    space = lake.spaces.make(Space(
        name="made", revision="1", sample_rate=24_000, layers=("a",), dims=(dim,), window_s=30.0, hop_s=30.0,
        precision="float32",
    ))
    rng = np.random.default_rng(2)
    vectors = np.repeat(rng.standard_normal((bands, dim)), tracks, axis=0) + rng.standard_normal((len(names), dim))
    vectors = vectors.astype(np.float32)
    lake.vectors(space).add(table["clip_id"].to_list(), [vectors], [vectors], [1] * len(names))
    return lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    return made_lake(tmp_path_factory.mktemp("pairs") / "lake", bands=7, tracks=4)


@pytest.mark.parametrize("choice", [{}, {"measure": "chamfer"}, {"hubs": "corrected", "centre": False}])
def test_every_pair_is_listed_once_with_the_figures_of_groups_and_of_the_matrix(lake, choice):
    found = index.group_pairs(lake, "band", **choice)
    matrix = index.group_matrix(lake, "band", **choice)
    assert found.columns == [
        "rank", "band", "other", "similarity", "low", "high", "tracks", "other_tracks", "clips", "other_clips"
    ]
    assert found["rank"].to_list() == list(range(1, 22)) and found["similarity"].is_sorted(descending=True)
    assert {frozenset(pair) for pair in found.select("band", "other").rows()} == {
        frozenset((a, b)) for a in matrix["band"] for b in matrix["band"] if a != b
    }
    near = {name: index.groups(lake, "band", name, **choice) for name in matrix["band"][:2]}
    for row in found.filter(pl.col("band").is_in(list(near))).rows(named=True):
        assert row["similarity"] == pytest.approx(matrix.filter(band=row["band"])[row["other"]][0], abs=1e-9)
        one = near[row["band"]].filter(band=row["other"]).row(0, named=True)
        assert [row[name] for name in ("low", "high")] == pytest.approx([one["low"], one["high"]], abs=1e-9)
        assert (row["other_tracks"], row["other_clips"]) == (one["tracks"], one["clips"])
    sizes = dict(found.select("band", "tracks").rows()) | dict(found.select("other", "other_tracks").rows())
    assert sizes == {"a0000": 4, "a0001": 5} | {f"a{i:04d}": 4 for i in range(2, 7)}


def test_the_first_pairs_are_the_same_however_many_are_held_at_once(lake, monkeypatch):
    whole = index.group_pairs(lake, "band")
    monkeypatch.setattr(group_pairs, "HELD_PAIRS", 3)
    assert index.group_pairs(lake, "band", k=5).equals(whole.head(5))
    for choice in ({"measure": "chamfer"}, {"hubs": "corrected", "centre": False}):
        for k in (1, 5, 20):             # intervals of few pairs are computed for their groups alone
            assert index.group_pairs(lake, "band", k=k, **choice).equals(index.group_pairs(lake, "band", **choice).head(k))
    with pytest.raises(InputError, match="-k 0: must be at least 1"):
        index.group_pairs(lake, "band", k=0)


def test_pairs_of_groups_that_share_all_their_tracks_have_no_similarity_and_are_left_out(lake):
    found = index.group_pairs(lake, "singer", min_tracks=1)
    assert {frozenset(pair) for pair in found.select("singer", "other").rows()} == {frozenset("xz"), frozenset("yz")}
    assert found["low"].null_count() == 0


def test_the_command_prints_all_pairs_to_a_pipe_and_the_first_to_a_terminal(lake, monkeypatch):
    found = index.group_pairs(lake, "band")
    assert rows(run("groups", "band", "--pairs", lake=lake.uri)) == found.to_dicts()
    assert len(run("groups", "band", "--pairs", "-k", 3, "--csv", lake=lake.uri).stdout.splitlines()) == 4
    refused = run("groups", "band", "a0000", "--pairs", lake=lake.uri)
    assert refused.returncode == 2 and "--pairs lists every pair of groups" in refused.stderr
    monkeypatch.setattr(analysis, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    monkeypatch.setattr(analysis, "PAIRS_SHOWN", 4)
    cut = run("groups", "band", "--pairs", lake=lake.uri)
    assert rows(cut) == found.head(4).to_dicts()
    assert "the first 4 of 21 pairs; -k shows more, and --csv or --json writes all" in cut.stderr


def test_pairs_fit_into_a_terminal(lake):
    shown = views.pairs(index.group_pairs(lake, "band", k=1))
    assert shown.columns == ["rank", "band", "other", "similarity (95 %)", "tracks"]
    assert re.fullmatch(r"0\.\d\d \(-?\d\.\d\d(-| to )\d\.\d\d\)", shown["similarity (95 %)"][0])
