"""Similarity measures of groups, and typical clips, against loops over all pairs."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.index.separation.group_similarity import TEMPERATURE
from tonelake.store import InputError, Space

DIM = 12


@pytest.fixture
def duets(lake):
    """Six artists; tracks 3 and 8 are by two of them each, and one artist has only a shared track."""
    rows = clip_rows(14, 5)
    track = np.repeat(np.arange(14), 5)
    singers = [[f"s{t // 3}"] for t in range(14)]
    singers[3] = ["s0", "s1"]
    singers[8] = ["s2", "s4"]
    singers[13] = ["s4", "guest"]
    rows = rows.with_columns(singers=pl.Series([singers[t] for t in track]))
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="duets", revision="1", sample_rate=24_000, layers=("a",), dims=(DIM,),
        window_s=30.0, hop_s=30.0, precision="float32"
    ))
    rng = np.random.default_rng(8)
    vectors = rng.standard_normal((5, DIM))[track // 3] + rng.standard_normal((14, DIM))[track] * 0.8
    vectors = (vectors + 0.6 * rng.standard_normal((len(track), DIM))).astype(np.float32)
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors], [vectors], [1] * len(track))
    return lake, lake.vectors(space).layer(0).vectors, track, singers         # as stored, in float16


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def by_loops(measure, vectors, track, members, a, b):
    """Return one similarity by loops over clips; NaN if no pair can be compared."""
    v, ours, theirs = unit(vectors), members[a], members[b]
    if measure == "centroid":
        if a == b:
            return 1.0
        shared = {track[i] for i in ours} & {track[i] for i in theirs}
        sides = [[i for i in side if track[i] not in shared] for side in (ours, theirs)]
        if not all(sides):
            return np.nan
        return float(unit(v[sides[0]].sum(axis=0)) @ unit(v[sides[1]].sum(axis=0)))
    if measure == "mean":
        pairs = [v[i] @ v[j] for i in ours for j in theirs if track[i] != track[j]]
        return np.mean(pairs) if pairs else np.nan

    def one_way(here, there):
        soft = []
        for i in here:
            cosines = np.array([v[i] @ v[j] for j in there if track[i] != track[j]])
            if len(cosines):
                weight = np.exp(cosines / TEMPERATURE)
                soft.append((weight * cosines).sum() / weight.sum())
        return np.mean(soft) if soft else np.nan

    return (one_way(ours, theirs) + one_way(theirs, ours)) / 2


@pytest.mark.parametrize("measure", index.MEASURES)
def test_measures_equal_loops_over_all_pairs(duets, measure):
    lake, vectors, track, singers = duets
    table = index.group_matrix(lake, "singers", measure=measure)
    names = table["singers"].to_list()
    assert names == ["guest", "s0", "s1", "s2", "s3", "s4"]
    members = {name: [i for i in range(len(track)) if name in singers[track[i]]] for name in names}
    compared = 0
    for a in names:
        for b in names:
            expected = by_loops(measure, vectors, track, members, a, b)
            found = table.filter(singers=a)[b][0]
            if np.isnan(expected):
                assert found is None
            else:
                assert found == pytest.approx(expected, abs=2e-5)
                compared += 1
    assert compared > 30
    near = index.groups(lake, "singers", "s2", measure=measure, k=10)
    others = sorted((n for n in names if n != "s2"), key=lambda n: -by_loops(measure, vectors, track, members, "s2", n))
    assert near["singers"].to_list() == others


def test_a_shared_track_does_not_make_groups_similar(duets):
    """s4 and the guest share one track, which is the guest's only one."""
    lake = duets[0]
    assert index.group_matrix(lake, "singers").filter(singers="guest")["s4"][0] is None
    near = index.groups(lake, "singers", "guest")
    assert "s4" not in near["singers"].to_list() and len(near) == 4


def test_small_groups_can_be_left_out(duets):
    lake = duets[0]
    assert "guest" not in index.groups(lake, "singers", min_clips=6)["singers"].to_list()
    with pytest.raises(InputError, match="0 of 6 groups of 'singers' have 1000 clips or more"):
        index.groups(lake, "singers", min_clips=1000)
    with pytest.raises(InputError, match="no measure 'nearest'"):
        index.groups(lake, "singers", measure="nearest")


def test_typical_clips_are_near_the_other_tracks_of_their_group(filled):
    found = index.typical(filled, "artist", "Artist 2", layer="high", k=4, clips=True)
    vectors = unit(filled.vectors().layer("high").vectors)
    clips = filled.clips.read(["clip_id", "artist", "track"])
    mine = np.flatnonzero((clips["artist"] == "Artist 2").to_numpy())
    score = {}
    for i in mine:
        others = [j for j in mine if clips["track"][int(j)] != clips["track"][int(i)]]
        score[clips["clip_id"][int(i)]] = vectors[i] @ unit(vectors[others].sum(axis=0))
    order = sorted(score, key=lambda clip: -score[clip])
    assert found.filter(kind="typical")["clip_id"].to_list() == order[:4]
    assert found.filter(kind="unusual")["clip_id"].to_list() == order[::-1][:4]
    np.testing.assert_allclose(found["score"], [score[c] for c in found["clip_id"]], atol=1e-5)
    assert set(found["artist"]) == {"Artist 2"}


def test_a_wrong_label_is_the_most_unusual_clip(lake):
    from fakes import fill

    fill(lake, tracks=24, clips_a_track=10, seed=1)
    wrong = lake.clips.read(where="artist = 'Artist 5'").head(1)
    lake.clips.add(wrong.select("clip_id", "track", "source", "digest", "start_s", "duration_s", artist=pl.lit("Artist 1")))
    found = index.typical(lake, "artist", "Artist 1", layer="high", k=1).filter(kind="unusual").row(0, named=True)
    assert found["clip_id"] == wrong["clip_id"][0]
    assert found["nearest"] == "Artist 5"


def test_groups_of_one_track_have_nothing_typical(filled, duets):
    with pytest.raises(InputError, match="clips of one track only"):
        index.typical(filled, "track")
    with pytest.raises(InputError, match="singers 'guest' has clips of one track only"):
        index.typical(duets[0], "singers", "guest")


def test_the_commands(duets, tmp_path):
    lake = duets[0]
    run = CliRunner().invoke(
        app, ["groups", "singers", "--by", "chamfer", "--picture", str(tmp_path / "m.png"), "--matrix", str(tmp_path / "m.csv"),
              "--lake", lake.uri]
    )
    assert run.exit_code == 0, run.output
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
    assert pl.read_csv(tmp_path / "m.csv").columns == ["singers", "guest", "s0", "s1", "s2", "s3", "s4"]
    run = CliRunner().invoke(app, ["typical", "singers", "s0", "-k", "2", "--lake", lake.uri, "--csv"])
    assert run.exit_code == 0, run.output
    assert len(run.stdout.splitlines()) == 5


def test_a_heat_map_puts_similar_groups_side_by_side():
    from tonelake.charts import cluster_order

    kind = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    values = np.where(kind[:, None] == kind[None, :], 0.9, 0.1) + 0.01 * np.random.default_rng(0).uniform(size=(8, 8))
    values[0, 1] = np.nan
    assert np.abs(np.diff(kind[cluster_order(values)])).sum() == 1


def test_the_nearest_group_is_one_that_can_be_compared(lake):
    """Two groups with only shared tracks cannot be compared, so their nearest is another; two tracks suffice for `typical`."""
    rows = clip_rows(4, 3)
    tags = [["a", "b"]] * 6 + [["c"]] * 6
    lake.clips.add(rows.with_columns(marks=pl.Series(tags)))
    space = lake.spaces.make(Space(
        name="pairs", revision="1", sample_rate=24_000, layers=("a",), dims=(DIM,),
        window_s=30.0, hop_s=30.0, precision="float32"
    ))
    vectors = np.random.default_rng(0).standard_normal((12, DIM)).astype(np.float32)
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors], [vectors], [1] * 12)
    for measure in index.MEASURES:
        found = index.groups(lake, "marks", measure=measure)
        assert dict(zip(found["marks"], found["nearest"], strict=True))["c"] in ("a", "b")
        matrix = index.group_matrix(lake, "marks", measure=measure)
        pair = matrix.filter(pl.col("marks") == "a")["b"][0]
        if pair is None:
            assert dict(zip(found["marks"], found["nearest"], strict=True))["a"] == "c"
    shown = index.typical(lake, "marks", "c", k=2, clips=True)
    assert shown["kind"].to_list() == ["typical"] * 2 + ["unusual"] * 2 and set(shown["marks"]) == {"c"}
