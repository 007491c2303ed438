"""Similarity measures of groups, and typical clips, against loops over all pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows
from scipy import sparse
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.evaluate import Labelled
from tonelake.index.separation import chamfer
from tonelake.index.separation.chamfer import TEMPERATURE
from tonelake.index.separation.group_similarity import MEASURES
from tonelake.index.separation.group_units import divide
from tonelake.index.separation.groups import Groups, read_groups
from tonelake.store import InputError, Lake, Space

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


def unit_means(vectors, track, clips):
    """Return the mean unit vector of each track of some clips."""
    v = unit(vectors)
    return [v[[i for i in clips if track[i] == t]].mean(axis=0) for t in sorted({track[i] for i in clips})]


def expected_length(means, size):
    """Return the root of the mean squared length of the mean of `size` of these vectors, over all subsets."""
    size = min(size, len(means))
    return np.sqrt(np.mean([np.square(np.mean(some, axis=0)).sum() for some in combinations(means, size)]))


def by_loops(measure, vectors, track, members, a, b, size):
    """Return one similarity at equal size by loops over units, clips and subsets; NaN if no pair can be compared."""
    v, ours, theirs = unit(vectors), members[a], members[b]
    if measure == "centroid" and a == b:
        return 1.0
    if measure != "chamfer":
        if a == b:
            means = unit_means(vectors, track, ours)
            products = [x @ y for i, x in enumerate(means) for j, y in enumerate(means) if i != j]
            return np.mean(products) if products else np.nan
        shared = {track[i] for i in ours} & {track[i] for i in theirs}
        sides = [[i for i in side if track[i] not in shared] for side in (ours, theirs)]
        if not all(sides):
            return np.nan
        left, right = (unit_means(vectors, track, side) for side in sides)
        lengths = [1, 1] if measure == "mean" else [expected_length(side, size) for side in (left, right)]
        return float(np.mean(left, axis=0) @ np.mean(right, axis=0) / lengths[0] / lengths[1])

    def one_way(here, there):
        soft = {}
        for i in here:
            found = []
            tracks = sorted({track[j] for j in there})
            for some in combinations(tracks, min(size, len(tracks))):
                cosines = np.array([v[i] @ v[j] for j in there if track[j] in some and track[j] != track[i]])
                if len(cosines):
                    weight = np.exp(cosines / TEMPERATURE)
                    found.append((weight * cosines).sum() / weight.sum())
            if found:
                soft.setdefault(track[i], []).append(np.mean(found))
        return np.mean([np.mean(values) for values in soft.values()]) if soft else np.nan

    return (one_way(ours, theirs) + one_way(theirs, ours)) / 2


@pytest.mark.parametrize("measure", index.MEASURES)
@pytest.mark.parametrize("smallest", [1, 3])
def test_measures_at_equal_size_equal_loops_over_all_subsets(duets, measure, smallest, monkeypatch):
    """At three tracks a group, s0 has one too many; with the guest, at one track a group, all but the guest have."""
    monkeypatch.setattr(chamfer, "SUBSETS", 500)
    lake, vectors, track, singers = duets
    table = index.group_matrix(lake, "singers", measure=measure, min_tracks=smallest)
    names = table["singers"].to_list()
    assert names == ["guest", "s0", "s1", "s2", "s3", "s4"][smallest > 1 :]
    members = {name: [i for i in range(len(track)) if name in singers[track[i]]] for name in names}
    compared = 0
    sampled = 0.02 if measure == "chamfer" else 2e-5                 # 500 random subsets instead of all
    for a in names:
        for b in names:
            expected = by_loops(measure, vectors, track, members, a, b, smallest)
            found = table.filter(singers=a)[b][0]
            if np.isnan(expected):
                assert found is None
            else:
                assert found == pytest.approx(expected, abs=sampled)
                compared += 1
    assert compared >= 25
    near = index.groups(lake, "singers", "s2", measure=measure, k=10, min_tracks=smallest)
    others = sorted((n for n in names if n != "s2"), key=lambda n: -(table.filter(singers="s2")[n][0]))
    assert near["singers"].to_list() == others


def test_chamfer_of_groups_of_one_size_is_exact(duets):
    lake, vectors, track, singers = duets
    table = index.group_matrix(lake, "singers", measure="chamfer", where="track != 'track000'")
    names = table["singers"].to_list()
    members = {name: [i for i in range(len(track)) if name in singers[track[i]] and track[i]] for name in names}
    for a in names:
        for b in names:
            expected = by_loops("chamfer", vectors, track, members, a, b, 3)
            assert table.filter(singers=a)[b][0] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("measure", index.MEASURES)
def test_leave_one_out_values_equal_similarities_without_the_track(duets, measure):
    """Size is kept while a track is left out, except for `chamfer`, whose changes are those of the whole groups."""
    lake, vectors, track, singers = duets
    names = ["s0", "s1", "s2", "s3", "s4"]
    found = read_groups(lake, "singers", measure=measure)
    units = found.units
    members = {name: [i for i in range(len(track)) if name in singers[track[i]]] for name in names}
    size = 3 if measure != "chamfer" else 99

    def similarity(a, b, left_out=None):
        kept = {name: [i for i in members[name] if track[i] != left_out] for name in (a, b)}
        if measure != "centroid":
            return by_loops(measure, vectors, track, kept, a, b, size)
        shared = set(track[members[a]]) & set(track[members[b]])
        sides = [unit_means(vectors, track, [i for i in kept[name] if track[i] not in shared]) for name in (a, b)]
        whole = [min(3, len(set(track[members[name]]) - shared)) for name in (a, b)]
        lengths = [expected_square(side, m) for side, m in zip(sides, whole, strict=True)]
        return np.mean(sides[0], axis=0) @ np.mean(sides[1], axis=0) / np.sqrt(lengths[0] * lengths[1])

    ids = {name: i for i, name in enumerate(found.names)}
    song = dict(zip(lake.vectors().ids(), units.labelled.track, strict=False))
    number = {int(song_number): int(t) for t, song_number in zip(track, [song[c] for c in units.labelled.ids], strict=True)}
    compared = 0
    for a, b in (("s0", "s1"), ("s0", "s3"), ("s3", "s0"), ("s2", "s4"), ("s1", "s3")):
        row = MEASURES[measure](units, ids[a])
        change = similarity(a, b) if measure == "chamfer" else row.values[ids[b]]
        for place, unit_row in enumerate(range(*units.rows(ids[a]).indices(len(units.group)))):
            left_out = number[int(units.track[unit_row])]
            if left_out in set(track[members[a]]) & set(track[members[b]]):      # `chamfer` leaves it out on one side only
                continue
            expected = similarity(a, b, left_out)
            if np.isfinite(expected) and np.isfinite(row.shared[place, ids[b]]):
                assert row.shared[place, ids[b]] - row.values[ids[b]] == pytest.approx(expected - change, abs=5e-5)
                compared += 1
        for unit_row in range(*units.rows(ids[b]).indices(len(units.group))):
            left_out = number[int(units.track[unit_row])]
            if left_out in set(track[members[a]]) & set(track[members[b]]):
                continue
            expected = similarity(a, b, left_out)
            if np.isfinite(expected) and np.isfinite(row.others[unit_row]):
                assert row.others[unit_row] - row.values[ids[b]] == pytest.approx(expected - change, abs=5e-5)
                compared += 1
    assert compared > 20


def expected_square(means, size):
    """Return the mean squared length of the mean of `size` vectors drawn from the population of these, unbiased."""
    own = np.mean([m @ m for m in means])
    cross = [x @ y for i, x in enumerate(means) for j, y in enumerate(means) if i != j]
    return own / size + (1 - 1 / size) * (np.mean(cross) if cross else np.nan)


def test_a_shared_track_does_not_make_groups_similar(duets):
    """s4 and the guest share one track, which is the guest's only one."""
    lake = duets[0]
    assert index.group_matrix(lake, "singers", min_tracks=1).filter(singers="guest")["s4"][0] is None
    near = index.groups(lake, "singers", "guest", min_tracks=1)
    assert "s4" not in near["singers"].to_list() and len(near) == 4
    assert near["low"].null_count() == 4 and near["tied"].all()      # one track has no spread to estimate


def made_lake(folder, vectors, artists):
    """Return a lake with one clip a track, and these vectors."""
    lake = Lake(folder)
    rows = clip_rows(len(vectors), 1).with_columns(artist=pl.Series(artists))
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="made", revision="1", sample_rate=24_000, layers=("a",), dims=(vectors.shape[1],), window_s=30.0, hop_s=30.0,
        precision="float32",
    ))
    vectors = vectors.astype(np.float32)
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors], [vectors], [1] * len(vectors))
    return lake


def nearest_by_size(measure, lakes=60):
    """Return the share of small groups whose most similar group is the large one, and of those with a nearest group.

    There is no structure: one group of 40 tracks beside five of 4.
    """
    rng = np.random.default_rng(5)
    artists = np.repeat(["large", *"abcde"], [40, 4, 4, 4, 4, 4])
    labelled = labelled_of(artists)
    large = named = total = 0
    for _ in range(lakes):
        units = divide(labelled, unit(rng.standard_normal((60, 16))).astype(np.float32), "track")
        found = Groups(units=units, measure=measure, corrected=False, note="", left_out=())
        for one in range(5):
            compared = found.compared(one)
            large += labelled.names[compared.order[0]] == "large"
            named += compared.tied.sum() == 1
            total += 1
    return large / total, named / total


def labelled_of(artists):
    """Return clips of one track each with these artists."""
    names, number = np.unique(artists, return_inverse=True)
    member = sparse.csr_array((np.ones(len(number), np.float32), (np.arange(len(number)), number)))
    zeros = np.zeros(len(number))
    return Labelled(
        column="artist", ids=pl.Series([f"{i:03}" for i in range(len(number))]), names=list(names), member=member,
        track=np.arange(len(number)), start_s=zeros, end_s=zeros + 10,
    )


@pytest.mark.parametrize("measure", index.MEASURES)
def test_without_structure_a_large_group_is_nearest_by_chance_at_most_and_none_is_named(measure):
    """A share of 300 groups has a standard error of .023 at chance, .2; by plain centroids it is .6."""
    large, named = nearest_by_size(measure)
    assert large < 0.2 + 2 * 0.023
    assert named < 0.07


def test_the_nearest_group_is_named_only_if_it_can_be_told_from_the_others(tmp_path):
    """b and c are equally near to a, and far from d and e, which are a pair."""
    rng = np.random.default_rng(0)
    artists = np.repeat(list("abcde"), 12)
    base = {"a": [1, 0, 0, 0], "b": [1, 0.6, 0, 0], "c": [1, -0.6, 0, 0], "d": [0, 0, 1, 0], "e": [0, 0, 1, 0.2]}
    vectors = np.stack([np.pad(base[name], (0, 8)) for name in artists]) + 0.3 * rng.standard_normal((60, 12))
    lake = made_lake(tmp_path / "lake", vectors, artists)
    rows = {row["artist"]: row for row in index.groups(lake, "artist").to_dicts()}
    assert rows["a"]["nearest"] is None and set(rows["a"]["tied"]) == {"b", "c"} and rows["a"]["ties"] == 2
    assert rows["b"]["nearest"] == "a" and rows["b"]["tied"] is None and rows["b"]["ties"] == 0
    assert rows["d"]["nearest"] == "e" and rows["d"]["low"] < rows["d"]["similarity"] < rows["d"]["high"]
    assert rows["d"]["cohesion_low"] < rows["d"]["cohesion"] < rows["d"]["cohesion_high"]
    near = index.groups(lake, "artist", "a")
    assert near["artist"].to_list()[:2] in (["b", "c"], ["c", "b"]) and near["tied"].to_list() == [True, True, False, False]


def test_groups_of_an_anisotropic_layer_are_centred_and_say_so(tmp_path, caplog):
    rng = np.random.default_rng(1)
    artists = np.repeat(list("abcdef"), 6)
    structure = np.repeat(rng.standard_normal((3, 20)), 12, axis=0)                  # a and b, c and d, e and f are pairs
    lake = made_lake(tmp_path / "lake", 8 + structure + 0.5 * rng.standard_normal((36, 20)), artists)
    with caplog.at_level("INFO"):
        found = index.groups(lake, "artist")
    assert found["nearest"].to_list() == ["b", "a", "d", "c", "f", "e"]
    assert "6 groups of artist compared over tracks, as if each had 6; centred, as the mean cosine of two" in caplog.text
    vectors = unit(lake.vectors().layer(0).vectors)
    centred = unit(vectors - vectors.mean(axis=0))
    means = np.stack([centred[artists == name].mean(axis=0) for name in "abcdef"])
    np.testing.assert_allclose(
        index.group_matrix(lake, "artist").drop("artist").to_numpy(), unit(means) @ unit(means).T, atol=1e-5
    )
    plain = index.group_matrix(lake, "artist", centre=False).drop("artist").to_numpy()
    assert plain.min() > 0.9


def test_hubs_among_groups_are_corrected_by_their_neighbours_similarity(duets):
    lake = duets[0]
    plain = index.group_matrix(lake, "singers", measure="mean").drop("singers").to_numpy().copy()
    found = index.group_matrix(lake, "singers", measure="mean", hubs="corrected").drop("singers").to_numpy()
    np.fill_diagonal(plain, np.nan)
    near = np.nanmean(plain, axis=1)                                  # of five groups, all four others are near
    apart = ~np.eye(5, dtype=bool)
    np.testing.assert_allclose(found[apart], (plain - (near[:, None] + near[None, :]) / 2)[apart], atol=1e-6)
    table = index.groups(lake, "singers", measure="mean", hubs="corrected")
    best = np.nanargmax(np.where(apart, found, np.nan), axis=1)
    listed = table.select(pl.coalesce("nearest", pl.col("tied").list.first()))["nearest"]
    assert listed.to_list() == [table["singers"][int(i)] for i in best]
    assert (table["low"] < table["similarity"]).all()


def test_pieces_are_compared_over_their_clips(filled, caplog):
    with caplog.at_level("INFO"):
        found = index.groups(filled, "track", "track000", layer="low", k=3)
    assert found["low"].null_count() == 0
    assert "24 groups of track compared over clips, as if each had 10 (clips of one track are not independent" in caplog.text
    with pytest.raises(InputError, match="0 of 24 groups of 'track' have 3 tracks or more"):
        index.groups(filled, "track", over="track")


def test_small_groups_can_be_left_out(duets):
    lake = duets[0]
    assert "guest" not in index.groups(lake, "singers", min_clips=6, min_tracks=1)["singers"].to_list()
    assert "guest" not in index.groups(lake, "singers")["singers"].to_list()
    with pytest.raises(InputError, match=r"singers 'guest': has fewer than 3 tracks\. Choose a smaller --min-tracks"):
        index.groups(lake, "singers", "Guest")
    with pytest.raises(InputError, match="0 of 6 groups of 'singers' have 9 tracks or more"):
        index.groups(lake, "singers", min_tracks=9)
    with pytest.raises(InputError, match="0 of 6 groups of 'singers' have 1000 clips or more"):
        index.groups(lake, "singers", min_clips=1000)
    with pytest.raises(InputError, match="measure 'nearest': unknown"):
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
    assert pl.read_csv(tmp_path / "m.csv").columns == ["singers", "s0", "s1", "s2", "s3", "s4"]
    run = CliRunner().invoke(app, ["typical", "singers", "s0", "-k", "2", "--lake", lake.uri, "--csv"])
    assert run.exit_code == 0, run.output
    assert len(run.stdout.splitlines()) == 5


def test_names_that_differ_by_case_are_groups_of_their_own(tmp_path):
    """In every answer that is asked for by name, and in a reference list."""
    rng = np.random.default_rng(0)
    names = ["LOW", "Low", "Björk", "Zoe"]
    lake = made_lake(tmp_path / "lake", rng.standard_normal((16, 6)), np.repeat(names, 4))
    for name in names:
        assert set(index.groups(lake, "artist", name)["artist"]) == set(names) - {name}
        assert set(index.typical(lake, "artist", name)["artist"]) == {name}
    assert set(index.groups(lake, "artist", "BJO\u0308RK")["artist"]) == {"LOW", "Low", "Zoe"}
    with pytest.raises(InputError, match="artist 'low': is 'LOW' or 'Low'"):
        index.groups(lake, "artist", "low")
    listed = pl.DataFrame({"artist": ["zoe", "zoe", "zoe", "Low"], "similar": ["Low", "LOW", "low", "Bjo\u0308rk"]})
    found = index.overlap_with(lake, "artist", listed)
    assert found.table.select("artist", "compared").rows() == [("Zoe", 2), ("Low", 1)] and found.unknown == ("low",)


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
        found = index.groups(lake, "marks", measure=measure, min_tracks=2)
        first = found.select(pl.coalesce("nearest", pl.col("tied").list.first())).to_series()
        most = dict(zip(found["marks"], first, strict=True))
        assert most["c"] in ("a", "b")
        matrix = index.group_matrix(lake, "marks", measure=measure, min_tracks=2)
        pair = matrix.filter(pl.col("marks") == "a")["b"][0]
        if pair is None:
            assert most["a"] == "c"
    shown = index.typical(lake, "marks", "c", k=2, clips=True)
    assert shown["kind"].to_list() == ["typical"] * 2 + ["unusual"] * 2 and set(shown["marks"]) == {"c"}
