"""Comparison of two spaces, and of neighbour lists with a reference, checked against independent implementations."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.index.separation.overlap import read_reference
from tonelake.store import InputError, Lake, Space

DIM = 24


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Spaces a and b of three layers each: b's first layer is a's rotated, its second separates artists better, its third is
    unrelated; and a space of five layers with a third of the clips."""
    lake = Lake(tmp_path_factory.mktemp("two") / "lake")
    rows = clip_rows(24, 10)
    lake.clips.add(rows)
    ids, artist = rows["clip_id"].to_list(), np.repeat(np.arange(6), 40)
    rng = np.random.default_rng(4)

    def draw(strength):
        return (strength * rng.standard_normal((6, DIM))[artist] + rng.standard_normal((240, DIM))).astype(np.float32)

    rotation, _ = np.linalg.qr(rng.standard_normal((DIM, DIM)))
    first, weak, strong = draw(0.5), draw(0.3), draw(1.0)
    spaces = {"a": [first, weak, draw(0)], "b": [first @ rotation.astype(np.float32), strong, draw(0)]}
    for name, layers in spaces.items():
        space = lake.spaces.make(Space(
            name=name, revision=name, sample_rate=24_000, layers=("x", "y", "z"), dims=(DIM,) * 3,
            window_s=30.0, hop_s=30.0, precision="float32"
        ))
        lake.vectors(space).add(ids, layers, layers, [1] * 240)
    deep = lake.spaces.make(Space(
        name="deep", revision="deep", sample_rate=24_000, layers=tuple("pqrst"), dims=(DIM,) * 5,
        window_s=30.0, hop_s=30.0, precision="float32"
    ))
    few = [draw(0.2)[:80] for _ in range(5)]
    lake.vectors(deep).add(ids[::-1][:80], few, few, [1] * 80)
    return lake


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_rotated_copy_agrees_and_noise_does_not(two):
    table = index.compare(two, "a", "b")
    assert table["layer_a"].to_list() == ["x", "y", "z"]
    same, _, noise = table.to_dicts()
    assert same["agreement"] > 0.97 and same["cka"] == pytest.approx(1, abs=1e-3)
    assert noise["agreement"] < 0.1 and noise["cka"] < 0.4


def test_agreement_cka_and_map_equal_their_definitions(two):
    row = index.compare(two, "a", "b", "artist").row(1, named=True)
    x, y = (unit(two.vectors(space).layer("y").vectors) for space in "ab")
    clips = two.clips.read(["artist", "track"])
    artist, track = clips["artist"].to_numpy(), clips["track"].to_numpy()
    lists = []
    for vectors in (x, y):
        cosines = vectors @ vectors.T
        np.fill_diagonal(cosines, -2)
        lists.append(np.argsort(-cosines, axis=1)[:, :10])
    overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(*lists, strict=True)])
    assert row["agreement"] == pytest.approx(overlap, abs=0.003)
    k, m = ((v - v.mean(axis=0)) @ (v - v.mean(axis=0)).T for v in (x, y))
    assert row["cka"] == pytest.approx((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()), abs=1e-4)
    for name, vectors in (("map_a", x), ("map_b", y)):
        precision = []
        for i in range(240):
            others = track != track[i]
            precision.append(average_precision_score(artist[others] == artist[i], vectors[others] @ vectors[i]))
        assert row[name] == pytest.approx(np.mean(precision), abs=1e-4)
    assert row["gain"] == pytest.approx(row["map_b"] - row["map_a"])
    assert 0 < row["gain_low"] < row["gain"] < row["gain_high"]
    assert (row["over"], row["left_out"]) == ("over 24 tracks", "pairs of one track")
    for figure, vectors in (("matrix_span_a", x), ("matrix_span_b", y)):
        parts = [vectors[artist == name] for name in np.unique(artist)]
        means = [np.mean(one @ other.T) for i, one in enumerate(parts) for other in parts[:i]]
        assert row[figure] == pytest.approx(max(means) - min(means), abs=1e-5)
    wide = index.compare(two, "a", "b", "artist", across="none", over="artist").row(1, named=True)
    assert (wide["over"], wide["left_out"]) == ("over 6 artists", "pairs that share audio")


def test_spaces_of_different_depth_and_coverage(two):
    table = index.compare(two, "a", "deep", "artist", where="start_s > 5")
    assert list(zip(table["layer_a"], table["layer_b"], strict=True)) == [
        ("x", "p"), ("x", "q"), ("y", "r"), ("z", "s"), ("z", "t"),
    ]


def test_spaces_that_cannot_be_compared_are_refused(two):
    with pytest.raises(InputError, match="a is compared with itself"):
        index.compare(two, "a", "a")
    with pytest.raises(InputError, match=r"share 0 clips\. Embed the lake into both"):
        index.compare(two, "a", "deep", where="track = 'track000'")


# -- against a reference


def order_of(lake, name, **how):
    return index.groups(lake, "artist", name, k=10, space="a", **how)["artist"].to_list()


def test_our_own_order_agrees_with_itself_and_reversed_disagrees(two):
    rows = [(f"Artist {a}", n, i + 1) for a in range(6) for i, n in enumerate(order_of(two, f"Artist {a}"))]
    own = pl.DataFrame(rows, schema=["artist", "similar", "rank"], orient="row").sample(fraction=1, shuffle=True, seed=1)
    found = index.overlap_with(two, "artist", own, k=3, space="a")
    assert found.overlap[0] == 1 and found.tau[0] == pytest.approx(1)
    assert found.chance == pytest.approx(3 / 5)
    back = index.overlap_with(two, "artist", own.with_columns(score=pl.col("rank")).drop("rank"), k=3, space="a")
    assert back.tau[0] == pytest.approx(-1)
    assert back.overlap[0] == pytest.approx(1 / 3)       # the first three of five, and the last three, share one


def test_a_list_that_names_a_group_itself_or_a_neighbour_twice_counts_as_without(two):
    orders = {f"Artist {a}": order_of(two, f"Artist {a}") for a in range(6)}

    def compared(change):
        rows = [(group, name, i) for group, near in orders.items() for i, name in enumerate(change(group, near))]
        found = index.overlap_with(two, "artist", pl.DataFrame(rows, schema=["a", "b", "rank"], orient="row"), k=3, space="a")
        return found.overlap[0], found.tau[0], found.unknown

    plain = compared(lambda group, near: near)
    assert plain == (1.0, pytest.approx(1), ())
    assert compared(lambda group, near: [group, *near]) == compared(lambda group, near: [near[0], *near]) == plain
    assert compared(lambda group, near: [name.upper() for name in near]) == plain
    cased = pl.DataFrame({"a": ["Artist 0", "ARTIST 0"], "b": orders["Artist 0"][:2]})     # one group, in two spellings
    assert index.overlap_with(two, "artist", cased, space="a").table["compared"].to_list() == [2]


def test_random_lists_agree_by_chance(two):
    rng = np.random.default_rng(0)
    overlaps, taus = [], []
    for _ in range(40):
        rows = [
            (f"Artist {a}", f"artist {b}") for a in range(6) for b in rng.permutation([b for b in range(6) if b != a])
        ]
        found = index.overlap_with(two, "artist", pl.DataFrame(rows, schema=["a", "b"], orient="row"), k=2, space="a")
        overlaps.append(found.overlap[0])
        taus.append(found.tau[0])
    assert np.mean(overlaps) == pytest.approx(0.4, abs=0.05)
    assert np.mean(taus) == pytest.approx(0, abs=0.08)


def test_tau_equals_scipy_and_unknown_names_are_reported(two):
    from scipy.stats import kendalltau

    listed = ["Artist 4", "Artist 1", "nobody", "Artist 3", "Artist 5"]
    table = pl.DataFrame({"artist": ["ARTIST 0"] * 5 + ["stranger"], "like": [*listed, "Artist 1"]})
    found = index.overlap_with(two, "artist", table, k=4, space="a")
    similarity = dict(index.groups(two, "artist", "Artist 0", space="a").select("artist", "similarity").iter_rows())
    known = [name for name in listed if name != "nobody"]
    assert found.table["tau"][0] == pytest.approx(kendalltau([4, 3, 2, 1], [similarity[name] for name in known]).statistic)
    assert found.table["compared"][0] == 4
    assert found.unknown == ("nobody", "stranger")
    assert "not compared: nobody, stranger" in str(found)


def test_many_unknown_names_are_cut_and_counted(two):
    table = pl.DataFrame({"artist": ["Artist 0"] * 9, "like": ["Artist 1", *(f"stranger {i}" for i in range(8))]})
    assert "stranger 4 and 3 more. 6 groups" in str(index.overlap_with(two, "artist", table, space="a"))
    assert "stranger 4. 6 groups" in str(index.overlap_with(two, "artist", table.head(6), space="a"))


def test_a_reference_that_cannot_be_used_is_named(two, tmp_path):
    for text, message in [
        ("artist\nx\n", "has 1 columns"), ("a,b,rank\nArtist 1,Artist 2,first\n", "values of column 'rank' are not numbers"),
        ("a,b\nx,y\n", "no artist of the reference"),
    ]:
        (tmp_path / "r.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            index.overlap_with(two, "artist", tmp_path / "r.csv", space="a")
    with pytest.raises(InputError):
        index.overlap_with(two, "artist", tmp_path / "absent.csv", space="a")
    table = read_reference(pl.DataFrame({"A": ["x", "x"], "B": ["p", "q"], "Score": [1, 2]}))
    assert table["neighbour"].to_list() == ["q", "p"]


def test_the_interval_of_overlap_is_over_the_groups_with_a_list(two):
    rng = np.random.default_rng(2)
    rows = [(f"Artist {a}", f"Artist {b}") for a in range(6) for b in rng.permutation([b for b in range(6) if b != a])]
    found = index.overlap_with(two, "artist", pl.DataFrame(rows, schema=["a", "b"], orient="row"), k=2, space="a")
    for figure, least, most in (("overlap", 0, 1), ("tau", -1, 1)):
        value, low, high = getattr(found, figure)
        error = found.table[figure].std() / np.sqrt(6)
        half = 2.5706 * error                                        # t quantile with five degrees
        expected = (found.table[figure].mean(), max(value - half, least), min(value + half, most))
        assert (value, low, high) == pytest.approx(expected, abs=1e-4)
    assert "intervals over groups. 6 groups of artist compared over tracks, as if each had 4" in str(found)


def test_the_commands(two, tmp_path):
    run = CliRunner().invoke(app, ["compare", "a", "b", "artist", "--lake", two.uri])
    assert run.exit_code == 0, run.output
    assert {"agreement", "cka", "map_a", "gain_low"} <= set(json.loads(run.stdout.splitlines()[0]))
    (tmp_path / "r.csv").write_text("artist;similar\nArtist 1;Artist 2\nArtist 2;Artist 1\n")
    run = CliRunner().invoke(app, ["overlap", "artist", str(tmp_path / "r.csv"), "-k", "2", "--space", "a", "--lake", two.uri])
    assert run.exit_code == 0, run.output
    assert "by chance 0.400" in run.stderr
    run = CliRunner().invoke(app, ["layers", "artist", "--effects", "--space", "a", "--lake", two.uri, "--csv"])
    assert run.exit_code == 0, run.output
    assert len(run.stdout.splitlines()) == 1 + 3 * 4
    picture = tmp_path / "layers.png"
    run = CliRunner().invoke(app, ["layers", "artist", "--picture", str(picture), "--space", "a", "--lake", two.uri])
    assert run.exit_code == 0, run.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "nearest clip is of the same artist in" in run.stderr
