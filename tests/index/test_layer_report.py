"""The layer report against scikit-learn and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import sklearn
from fakes import clip_rows
from scipy.stats import skew
from sklearn.metrics import average_precision_score, roc_auc_score

from tonelake import index
from tonelake.evaluate import read_labelled
from tonelake.index.separation.layer_report import measure_vectors
from tonelake.index.separation.pair_set import choose_pairs, default_across, excluded
from tonelake.index.separation.pairs import PAIR_FIGURES
from tonelake.store import InputError, Space


@pytest.mark.parametrize(("column", "where", "within"), [
    ("artist", None, None), ("track", None, None), ("tags", None, None), ("artist", None, "tags"),
    ("artist", "start_s < 10 AND track IN ('track000', 'track001', 'track004', 'track005')", None),    # fewer than ten
])
def test_the_layer_report_equals_brute_force(filled, column, where, within):
    """Check against loops over all pairs and scikit-learn's curves."""
    report = index.layers(filled, column, where=where, within=within)
    rows = filled.clips.read(where=where).to_dicts()
    across = column != "track"
    others, shared = [], []                              # of each row: the rows it is compared with, and which are alike
    for a in rows:
        compared = [
            j for j, b in enumerate(rows)
            if (a["track"] != b["track"] or (not across and abs(a["start_s"] - b["start_s"]) >= 10 - 1e-9))
            and (not within or set(a[within]) & set(b[within]))
        ]
        alike = [set(a["tags"]) & set(rows[j]["tags"]) if column == "tags" else a[column] == rows[j][column] for j in compared]
        others.append(compared)
        shared.append(np.array(alike, bool))
    for number in range(2):
        ids, vectors = filled.vectors().take([r["clip_id"] for r in rows], number)[:2]
        assert ids.to_list() == [r["clip_id"] for r in rows]
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        kinds, scores, precision, first, tenth, r_precision = [], [], [], [], [], []
        times = np.zeros(len(rows))
        for i, (other, same) in enumerate(zip(others, shared, strict=True)):
            score = unit[other] @ unit[i]
            order = np.argsort(-score, kind="stable")
            tenth.append(any(same[order[:10]]))
            r_precision.append(same[order[: sum(same)]].mean())
            times[np.array(other)[order[:10]]] += 1
            kinds += [*same]
            scores += [*score]
            with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
                precision.append(average_precision_score(same, score))
            first.append(same[int(np.argmax(score))])
        kinds, scores = np.array(kinds), np.array(scores)
        row = report.table.row(number, named=True)
        assert row["same"] == pytest.approx(scores[kinds].mean(), abs=1e-5)
        assert row["different"] == pytest.approx(scores[~kinds].mean(), abs=1e-5)
        assert row["span"] == pytest.approx(row["same"] - row["different"])
        assert row["auc"] == pytest.approx(roc_auc_score(kinds, scores), abs=1e-6)
        assert row["map"] == pytest.approx(np.mean(precision), abs=1e-4)
        assert row["recall_1"] == pytest.approx(np.mean(first), abs=1e-3)
        assert row["recall_10"] == pytest.approx(np.mean(tenth), abs=1e-3)
        assert row["r_precision"] == pytest.approx(np.mean(r_precision), abs=1e-3)
        assert row["anisotropy"] == pytest.approx(scores.mean(), abs=1e-5)
        assert row["hubness"] == pytest.approx(skew(times) if np.ptp(times) else 0, abs=1e-3)
        for figure in ("span", "auc", "recall_1", "recall_10", "r_precision", "map", "anisotropy", "hubness"):
            assert row[f"{figure}_low"] <= row[figure] <= row[f"{figure}_high"], figure
        drawn = report.histograms.filter(layer=number)
        assert drawn["same"].sum() == pytest.approx(1) == drawn["different"].sum()
        middle = (drawn["low"] + drawn["high"]) / 2
        assert (drawn["same"] * middle).sum() == pytest.approx(row["same"], abs=0.02)
    assert report.chances["recall_1"] == pytest.approx(kinds.mean(), abs=0.01)
    assert report.chance > report.chances["recall_1"]


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clusters(lake, mean, noise=0.7, tracks=24, clips=6, dim=24, seed=3):
    """A space of one layer in which tracks and artists are near, around a common mean vector; its rows and vectors."""
    rows = clip_rows(tracks, clips)
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name=f"c{mean}", revision="1", sample_rate=24_000, layers=("a",), dims=(dim,), window_s=30.0, hop_s=30.0,
        precision="float32",
    ))
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(tracks), clips)
    vectors = mean * np.eye(dim)[0] + rng.standard_normal((tracks // 4, dim))[track // 4] / 2
    vectors = vectors + rng.standard_normal((tracks, dim))[track] / 2 + noise * rng.standard_normal((len(rows), dim))
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors], [vectors], [1] * len(rows))
    return rows, lake.vectors(space).layer("a").vectors


@pytest.mark.parametrize("mean", [0, 200])
def test_the_area_equals_scikit_learns_at_a_mean_cosine_of_999(lake, mean):
    rows, vectors = clusters(lake, mean)
    row = index.layers(lake, "artist").table.row(0, named=True)
    cosines = unit(vectors.astype(np.float64)) @ unit(vectors.astype(np.float64)).T
    artist, track = rows["artist"].to_numpy(), rows["track"].to_numpy()
    counted = track[:, None] != track[None, :]
    same = (artist[:, None] == artist[None, :])[counted]
    assert row["anisotropy"] == pytest.approx(cosines[counted].mean(), abs=1e-8)
    assert (mean == 0) == (row["anisotropy"] < 0.999)
    assert row["auc"] == pytest.approx(roc_auc_score(same, cosines[counted]), abs=1e-6)
    assert row["span"] == pytest.approx(cosines[counted][same].mean() - cosines[counted][~same].mean(), abs=1e-8)


@pytest.mark.parametrize(("over", "named"), [("track", "track{:03d}"), ("artist", "Artist {}")])
def test_each_unit_is_left_out_of_every_figure_as_if_its_clips_were_gone(lake, over, named):
    """Every figure without a track, or an artist, equals that of a lake without it."""
    rows, vectors = clusters(lake, 1, tracks=12)
    space = lake.spaces.get("c1")
    pairs = choose_pairs(lake, read_labelled(lake, space, "artist"), over=over)
    whole = measure_vectors(vectors, replace(pairs, units=replace(pairs.units, strata=None)))
    for unit in (0, 2):
        labelled = read_labelled(lake, space, "artist", f"{over} != '{named.format(unit)}'")
        kept = rows["clip_id"].is_in(labelled.ids.implode()).to_numpy()
        without = measure_vectors(vectors[kept], choose_pairs(lake, labelled))
        for name in PAIR_FIGURES:
            exact = 3e-4 if name == "auc" else 1e-5
            assert whole.figures[name].left_out[unit] == pytest.approx(float(without.figures[name].value), abs=exact), name


def test_equal_layers_are_not_told_apart_and_nothing_is_without_intervals(filled):
    """One unit has no interval, so that no layer is distinguishable from the best."""
    report = index.layers(filled, "track", where="track IN ('track000', 'track001')", over="artist")
    assert report.units == "over 1 artists"
    assert report.table["map_low"].is_null().all() and report.table["map"].is_not_null().all()
    assert report.equals == ["low"] or report.equals == ["high"]


def test_the_matrix_span_is_the_range_of_mean_cosines_of_two_artists(filled):
    row = index.layers(filled, "artist").table.row(1, named=True)
    vectors = unit(filled.vectors().layer("high").vectors.astype(np.float64))
    artist = np.arange(240) // 40
    means = [(vectors[artist == a] @ vectors[artist == b].T).mean() for a in range(6) for b in range(a)]
    assert row["matrix_span"] == pytest.approx(max(means) - min(means), abs=1e-5)
    assert "matrix_span_low" not in row


def test_the_matrix_span_leaves_out_pairs_of_a_track_that_two_groups_share(filled):
    row = index.layers(filled, "tags").table.row(0, named=True)
    vectors = unit(filled.vectors().layer("low").vectors.astype(np.float64))
    clips = filled.clips.read(["tags", "track"])
    tags, track = clips["tags"].to_list(), clips["track"].to_numpy()
    cosines, apart = vectors @ vectors.T, track[:, None] != track[None, :]
    member = {name: np.array([name in t for t in tags]) for name in sorted({name for t in tags for name in t})}
    names = list(member)
    means = [cosines[np.outer(member[a], member[b]) & apart].mean() for i, a in enumerate(names) for b in names[:i]]
    assert row["matrix_span"] == pytest.approx(max(means) - min(means), abs=1e-5)


def test_what_is_left_out_is_part_of_the_report_and_follows_from_the_option(filled):
    plain = index.layers(filled, "artist")
    assert (plain.across, plain.left_out, plain.units) == ("track", "pairs of one track", "over 24 tracks")
    assert "Pairs of one track are left out by default; intervals over 24 tracks" in plain.summary()
    same = index.layers(filled, "artist", across="track")
    assert same.table.equals(plain.table) and ", the default" not in same.rule
    inside = index.layers(filled, "artist", across="none")
    assert inside.left_out == "pairs that share audio" and inside.table["map"][0] > plain.table["map"][0]
    years = index.layers(filled, "tags", across="artist")
    assert (years.left_out, years.units) == ("pairs of one artist or track", "over 6 artists")
    assert index.layers(filled, "artist", over="artist").units == "over 6 artists"
    assert index.layers(filled, "artist", over="tracks").units == "over 24 tracks"
    assert index.layers(filled, "track").units == "over 24 tracks"
    tagged = index.layers(filled, "artist", within="tags")
    assert tagged.left_out == "pairs of one track, and of two tags" and tagged.units == "over 24 tracks"
    with pytest.raises(InputError, match="--over tags: clips have several values"):
        index.layers(filled, "artist", over="tags")
    with pytest.raises(InputError, match="no column 'nothing'"):
        index.layers(filled, "artist", across="nothing")


def test_few_queries_are_pointed_out(filled):
    """Two tracks of one artist, and one track of each other artist."""
    report = index.layers(filled, "artist", where="year IN (1960, 1961, 1964, 1968, 1972, 1976)")
    assert "Only 20 of 60 clips have another clip of their artist to find. Leave out only pairs that" in report.summary()
    assert np.isnan(report.held_out.value) and "it is nan" not in report.summary()
    assert "too few tracks to choose the layer on half of them" in report.summary()


def test_the_held_out_figure_is_beside_the_plain_one(filled):
    """The lead over the mean layer by each half of every artist's tracks, on top of that mean by all of them."""
    report = index.layers(filled, "artist")
    halves = [index.layers(filled, "artist", where=f"year % 2 = {rest}") for rest in (0, 1)]
    assert [half.recommended for half in halves] == ["high", "high"]
    leads = [half.table["map"].max() - half.table["map"].mean() for half in halves]
    assert report.held_out.value == pytest.approx(report.table["map"].mean() + np.mean(leads))
    assert report.held_out.low < report.held_out.value < report.held_out.high < 1
    best = report.table.filter("best").row(0, named=True)                # both halves choose it, so its error is used
    low, high = (np.log(x / (1 - x)) for x in (best["map_low"], best["map_high"]))
    slope = best["map"] * (1 - best["map"]) / (report.held_out.value * (1 - report.held_out.value))
    held_low, held_high = (np.log(x / (1 - x)) for x in (report.held_out.low, report.held_out.high))
    assert held_high - held_low == pytest.approx((high - low) * slope)
    assert str(report.held_out) in report.summary() and "not distinguishable" not in report.summary()


def test_hubs_can_be_corrected_in_the_report(lake):
    from tonelake.index.hubness import neighbourhoods

    rows, vectors = clusters(lake, 2, noise=1.5)
    plain, corrected = (index.layers(lake, "artist", hubs=hubs).table for hubs in ("kept", "corrected"))
    assert corrected["hubness"][0] < plain["hubness"][0]
    cosines = unit(vectors) @ unit(vectors).T
    near = neighbourhoods(unit(vectors), np.repeat(np.arange(24), 6), rows["clip_id"])
    track = rows["track"].to_numpy()
    apart = track[:, None] != track[None, :]
    scores = cosines - (near[:, None] + near[None, :]) / 2
    assert corrected["anisotropy"][0] == pytest.approx(scores[apart].mean(), abs=1e-5)
    with pytest.raises(InputError, match="Choose a --prepare other than raw"):
        index.layers(lake, "artist", hubs="corrected", prepare="raw")
    table = index.effects(lake, "artist", hubs="corrected")
    assert table["hubs"].to_list() == ["kept"] * 4 + ["corrected"] * 3
    row = table.row(4, named=True)
    assert row["hubness_gain"] == pytest.approx(corrected["hubness"][0] - plain["hubness"][0])
    assert row["hubness_gain_low"] < row["hubness_gain"] < row["hubness_gain_high"]


def test_preparations_equal_their_definitions(filled):
    from tonelake.index.separation.preparations import PREPARATIONS

    vectors = filled.vectors().layer("high").vectors
    assert PREPARATIONS["raw"](vectors) is vectors
    np.testing.assert_allclose(np.linalg.norm(PREPARATIONS["l2"](vectors), axis=1), 1, atol=1e-6)
    away = vectors - vectors.mean(axis=0)
    np.testing.assert_allclose(PREPARATIONS["centred"](vectors), away / np.linalg.norm(away, axis=1, keepdims=True), atol=1e-6)
    many = (np.random.default_rng(0).standard_normal((20_000, 3)) * [1, 5, 0.2] + 4).astype(np.float32)
    white = PREPARATIONS["whitened"](many)
    inverse = np.linalg.inv(np.cov(many.T))                          # cosines there are Mahalanobis' inner products
    a, b = (many[i].astype(np.float64) - many.mean(axis=0) for i in (3, 8))
    mahalanobis = a @ inverse @ b / np.sqrt((a @ inverse @ a) * (b @ inverse @ b))
    assert white[3] @ white[8] == pytest.approx(mahalanobis, abs=0.01)


def test_effects_report_the_gain_of_each_preparation(lake):
    """All vectors share a large component, and artists differ in a small one: centring and whitening reveal it."""
    rows = clip_rows(24, 6)
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="lean", revision="1", sample_rate=24_000, layers=("a",), dims=(16,), window_s=30.0, hop_s=30.0, precision="float32"
    ))
    rng = np.random.default_rng(2)
    track = np.repeat(np.arange(24), 6)
    vectors = 8 + 3 * rng.standard_normal((144, 1)) * rng.standard_normal(16) + rng.standard_normal((6, 16))[track // 4]
    vectors = (vectors + 0.4 * rng.standard_normal((144, 16))).astype(np.float32)
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors], [vectors], [1] * 144)
    table = index.effects(lake, "artist")
    row = {r["prepared"]: r for r in table.to_dicts()}
    assert list(row) == ["l2", "raw", "centred", "whitened"]
    assert row["l2"]["gain"] == 0
    assert row["whitened"]["gain_low"] > 0.05
    assert (row["raw"]["over"], row["raw"]["left_out"]) == ("over 24 tracks", "pairs of one track")
    assert row["l2"]["anisotropy"] > 0.6 > 0.2 > abs(row["centred"]["anisotropy"])
    report = index.layers(lake, "artist", prepare="whitened")
    assert report.table["map"][0] == pytest.approx(row["whitened"]["map"])
    assert row["whitened"]["gain"] == pytest.approx(row["whitened"]["map"] - row["l2"]["map"])
    with pytest.raises(InputError, match="no preparation 'pca'"):
        index.layers(lake, "artist", prepare="pca")


def test_a_hub_raises_the_hubness(lake):
    """Some clips are near all others."""
    rows = clip_rows(40, 5)
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="hub", revision="1", sample_rate=24_000, layers=("even", "hub"), dims=(32, 32),
        window_s=30.0, hop_s=30.0, precision="float32"
    ))
    vectors = np.random.default_rng(2).standard_normal((200, 32)).astype(np.float32)
    hub = vectors.copy()
    hub[::20] = vectors.mean(axis=0)
    hub += 0.5
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors, hub], [vectors, hub], [1] * 200)
    even, with_hub = index.layers(lake, "artist").table["hubness"]
    assert with_hub > even + 1


def test_the_recommended_layer_is_the_one_that_encodes_the_column(filled):
    assert index.layers(filled, "artist").recommended == "high"
    assert index.layers(filled, "track").recommended == "low"


def test_pairs_that_would_inflate_the_figures_are_excluded(filled):
    artists, tracks = (read_labelled(filled, filled.spaces.get(), c) for c in ("artist", "track"))
    assert (default_across(artists), default_across(tracks)) == ("track", "none")
    assert excluded(artists, np.array([5]), "track")[0].sum() == 10              # its own track
    assert excluded(tracks, np.array([5]), "none")[0].nonzero()[0].tolist() == [4, 5, 6]     # 10 s every 5 s


def test_the_report_is_reproducible_and_samples_queries_of_many_clips(filled, monkeypatch):
    assert index.layers(filled, "artist").table.equals(index.layers(filled, "artist").table)
    whole = index.layers(filled, "artist")
    monkeypatch.setattr("tonelake.index.separation.pair_set.PAIR_BUDGET", 1)
    sampled = index.layers(filled, "artist")
    assert (whole.queries, sampled.queries) == (240, 200)
    assert abs(whole.table["map"][1] - sampled.table["map"][1]) < 0.05


def test_a_column_without_two_groups_to_compare_is_refused(filled, lake):
    with pytest.raises(InputError, match="layers cannot be compared by it"):
        index.layers(filled, "cut")
    with pytest.raises(InputError, match="layers cannot be compared by it"):
        index.layers(filled, "artist", where="start_s = 0 AND year IN (1960, 1964, 1968)")
