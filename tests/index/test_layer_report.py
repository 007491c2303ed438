"""The layer report against scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import clip_rows
from scipy.stats import skew
from sklearn.metrics import average_precision_score, roc_auc_score

from tonelake import index
from tonelake.evaluate.labelled import read_labelled
from tonelake.index.separation.layer_report import excluded, spans_tracks
from tonelake.store import InputError


@pytest.mark.parametrize(("column", "where"), [
    ("artist", None), ("track", None), ("tags", None),
    ("artist", "start_s < 10 AND track IN ('track000', 'track001', 'track004', 'track005')"),    # fewer than the nearest ten
])
def test_the_layer_report_equals_brute_force(filled, column, where):
    """Check against loops over all pairs and scikit-learn's curves."""
    report = index.layers(filled, column, where=where)
    rows = filled.clips.read(where=where).to_dicts()
    across = column != "track"
    for number in range(2):
        ids, vectors = filled.vectors().take([r["clip_id"] for r in rows], number)[:2]
        assert ids.to_list() == [r["clip_id"] for r in rows]
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        kinds, scores, precision, first, tenth, r_precision = [], [], [], [], [], []
        times = np.zeros(len(rows))
        for i, a in enumerate(rows):
            same, score, other = [], [], []
            for j, b in enumerate(rows):
                apart = abs(a["start_s"] - b["start_s"]) >= 10 - 1e-9
                if a["track"] == b["track"] and (across or not apart):
                    continue
                same.append(bool(set(a["tags"]) & set(b["tags"])) if column == "tags" else a[column] == b[column])
                score.append(float(unit[i] @ unit[j]))
                other.append(j)
            order = np.argsort(-np.array(score), kind="stable")
            tenth.append(any(np.array(same)[order[:10]]))
            r_precision.append(np.array(same)[order[: sum(same)]].mean())
            times[np.array(other)[order[:10]]] += 1
            kinds += same
            scores += score
            precision.append(average_precision_score(same, score))
            first.append(same[int(np.argmax(score))])
        kinds, scores = np.array(kinds), np.array(scores)
        row = report.table.row(number, named=True)
        assert row["same"] == pytest.approx(scores[kinds].mean(), abs=1e-5)
        assert row["different"] == pytest.approx(scores[~kinds].mean(), abs=1e-5)
        assert row["span"] == pytest.approx(row["same"] - row["different"])
        assert row["auc"] == pytest.approx(roc_auc_score(kinds, scores), abs=1e-4)
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
    assert report.chance == pytest.approx(kinds.mean(), abs=0.01)


def test_preparations_equal_their_definitions(filled):
    from tonelake.index.separation.pairs import PREPARATIONS

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
    from tonelake.store import Space

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
    assert row["whitened"]["gain_low"] > 0.1
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
    from tonelake.store import Space

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
    assert spans_tracks(artists)
    assert not spans_tracks(tracks)
    assert excluded(artists, np.array([5]), True)[0].sum() == 10                 # its own track
    assert excluded(tracks, np.array([5]), False)[0].nonzero()[0].tolist() == [4, 5, 6]      # 10 s every 5 s


def test_the_report_is_reproducible_and_samples_queries_of_many_clips(filled, monkeypatch):
    assert index.layers(filled, "artist").table.equals(index.layers(filled, "artist").table)
    whole = index.layers(filled, "artist")
    monkeypatch.setattr("tonelake.index.separation.layer_report.PAIR_BUDGET", 1)
    sampled = index.layers(filled, "artist")
    assert (whole.queries, sampled.queries) == (240, 200)
    assert abs(whole.table["map"][1] - sampled.table["map"][1]) < 0.05


def test_a_column_without_two_groups_to_compare_is_refused(filled, lake):
    with pytest.raises(InputError, match="layers cannot be compared by it"):
        index.layers(filled, "cut")
    with pytest.raises(InputError, match="layers cannot be compared by it"):
        index.layers(filled, "artist", where="start_s = 0 AND year IN (1960, 1964, 1968)")
