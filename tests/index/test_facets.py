"""Facets: learned maps against scikit-learn and SciPy, and search through them against NumPy."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows
from typer.testing import CliRunner

from tonelake import index
from tonelake.cli import app
from tonelake.evaluate.labelled import read_labelled
from tonelake.index.search.facets import learn_facets
from tonelake.store import InputError, Lake, Space

TRACKS, CLIPS, DIM = 48, 8, 32
METERS = ("2/4", "3/4", "4/4")


@pytest.fixture(scope="module")
def factors(tmp_path_factory):
    """Clips whose vectors are sums of artist (strong), meter of the track (weak) and noise; every artist plays all meters."""
    lake = Lake(tmp_path_factory.mktemp("factors") / "lake")
    track = np.repeat(np.arange(TRACKS), CLIPS)
    meter = track % 3
    rows = clip_rows(TRACKS, CLIPS).with_columns(
        meter=pl.Series([METERS[m] for m in meter]), tempo=pl.Series(60.0 + track)
    )
    lake.clips.add(rows)
    space = lake.spaces.make(Space(
        name="factors", revision="1", sample_rate=24_000, layers=("a", "b"), dims=(DIM, DIM),
        window_s=30.0, hop_s=30.0, precision="float32"
    ))
    rng = np.random.default_rng(5)
    layers = []
    for strength in (0.0, 1.0):          # layer a does not encode meters
        artists, meters = rng.standard_normal((TRACKS // 4, DIM)), strength * rng.standard_normal((3, DIM))
        noise = 0.6 * rng.standard_normal((len(track), DIM))
        layers.append((artists[track // 4] * 1.5 + meters[meter] + noise + 2.0).astype(np.float32))
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, layers, [1] * len(track))
    return lake


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def mapped(lake, layer, like=None, unlike=None):
    """Return (clip, direction) vectors mapped by facets, by explicit formulas."""
    values = unit(lake.vectors().layer(layer).vectors)
    for step in learn_facets(lake, lake.spaces.get(None), layer, like=like, unlike=unlike).steps:
        values = (values - step.centre) @ step.matrix.astype(np.float64)
    return unit(values)


@pytest.mark.parametrize(("like", "unlike"), [("meter", None), (None, "artist"), ("meter", "artist")])
def test_search_through_facets_equals_brute_force(factors, like, unlike):
    ids = factors.vectors().ids().to_list()
    for row in (0, 100):
        hits = index.similar(factors, ids[row], layer="b", like=like, unlike=unlike, k=15, where="year > 1965", clips=True)
        space = mapped(factors, 1, like, unlike)
        scores = space @ space[row]
        kept = set(factors.clips.read(["clip_id"], where="year > 1965")["clip_id"]) - {ids[row]}
        order = [r for r in np.argsort(-scores, kind="stable") if ids[r] in kept][:15]
        assert hits["clip_id"].to_list() == [ids[r] for r in order]
        np.testing.assert_allclose(hits["score"], scores[order], atol=2e-5)


def test_facets_work_in_mixtures_of_layers(factors):
    ids = factors.vectors().ids().to_list()
    hits = index.similar(factors, ids[5], layers="a:0.3,b:0.7", like="meter", k=12, clips=True)
    scores = sum(w * mapped(factors, layer, "meter") @ mapped(factors, layer, "meter")[5] for layer, w in ((0, 0.3), (1, 0.7)))
    order = [r for r in np.argsort(-scores, kind="stable") if r != 5][:12]
    assert hits["clip_id"].to_list() == [ids[r] for r in order]


def test_facets_find_the_same_meter_by_other_artists(factors):
    """Plain neighbours share the artist; neighbours through the facets share the meter, with any artist."""
    clips = factors.clips.read(["clip_id", "artist", "meter"])

    def agree(column, **how):
        shares = []
        for row in range(0, len(clips), 34):
            hits = index.similar(factors, clips["clip_id"][row], layer="b", k=10, not_same="track", **how, clips=True)
            found = hits.select("clip_id").join(clips, on="clip_id", how="left")
            shares.append((found[column] == clips[column][row]).mean())
        return np.mean(shares)

    assert agree("artist") > 0.5
    assert agree("meter") < 0.8
    assert agree("meter", like="meter", unlike="artist") > 0.95
    assert agree("artist", like="meter", unlike="artist") < 0.2


def test_no_linear_classifier_finds_an_erased_label(factors):
    from sklearn.linear_model import LogisticRegression

    space = factors.spaces.get(None)
    labelled = read_labelled(factors, space, "artist")
    raw = unit(factors.vectors().layer(1).vectors)
    artist = labelled.member.indices
    (step,) = learn_facets(factors, space, 1, unlike="artist").steps
    erased = step.apply(raw)
    means = np.stack([erased[artist == a].mean(axis=0) for a in range(len(labelled.names))])
    assert np.abs(means).max() < 1e-5                                # all groups have one mean
    assert LogisticRegression(max_iter=2000).fit(raw, artist).score(raw, artist) > 0.9
    assert LogisticRegression(max_iter=2000).fit(erased, artist).score(erased, artist) < 0.15
    assert step.auc_before > 0.9 > 0.7 > step.auc_after


def test_the_directions_are_those_of_linear_discriminant_analysis(factors):
    from scipy.linalg import subspace_angles
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    space = factors.spaces.get(None)
    raw = unit(factors.vectors().layer(1).vectors)
    meter = read_labelled(factors, space, "meter").member.indices
    (step,) = learn_facets(factors, space, 1, like="meter").steps
    assert step.matrix.shape == (DIM, 2)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(raw, meter).scalings_[:, :2]
    assert subspace_angles(step.matrix.astype(float), theirs).max() < 0.1            # ours is slightly shrunk
    assert step.auc_after > 0.9 > step.auc_before


def test_a_facet_that_a_layer_does_not_encode_has_an_auc_near_one_half(factors):
    report = index.facet_report(factors, like="meter")
    assert report["layer"].to_list() == ["a", "b"]
    a, b = report["auc_after"]
    assert abs(a - 0.5) < 0.15
    assert b > 0.9


def test_facets_work_on_a_multi_label_column(factors):
    hits = index.similar(factors, factors.vectors().ids()[0], layer="b", unlike="tags", k=5, clips=True)
    assert len(hits) == 5


def test_a_facet_that_cannot_be_learned_gives_the_reason(factors):
    clip = factors.vectors().ids()[0]
    for how, message in [
        ({"like": "track"}, "two groups with clips of two tracks"),
        ({"like": "meter", "unlike": "meter"}, "cancel each other"),
        ({"like": "colour"}, "no column 'colour'"),
        ({"like": "tempo"}, "decimal numbers"),
        ({"like": "meter", "metric": "l2"}, "compares by cosine"),
    ]:
        with pytest.raises(InputError, match=message):
            index.similar(factors, clip, layer="b", **how, clips=True)
    with pytest.raises(InputError, match="--like, --unlike"):
        index.facet_report(factors)


def test_many_groups_of_two_tracks_are_evaluated_on_held_out_groups(lake):
    """Twelve keys of one or two tracks are evaluated on held-out keys; with too few tracks the AUC is null."""
    rows = clip_rows(20, 4)
    key = [f"key {t if t < 4 else 4 + (t - 4) // 2}" for t in range(20)]
    lake.clips.add(rows.with_columns(key=pl.Series([key[t] for t in np.repeat(np.arange(20), 4)])))
    space = lake.spaces.make(Space(
        name="keys", revision="1", sample_rate=24_000, layers=("a",), dims=(DIM,),
        window_s=30.0, hop_s=30.0, precision="float32"
    ))
    rng = np.random.default_rng(3)
    named = {name: rng.standard_normal(DIM) for name in sorted(set(key))}
    vectors = np.stack([named[key[t]] for t in np.repeat(np.arange(20), 4)]) + rng.standard_normal((80, DIM))
    lake.vectors(space).add(rows["clip_id"].to_list(), [vectors.astype(np.float32)], [vectors.astype(np.float32)], [1] * 80)
    (found,) = index.facet_report(lake, like="key").to_dicts()
    assert found["auc_after"] > 0.5 and found["auc_before"] > 0.5
    few = lake.clips.read(["clip_id", "track", "source", "digest", "start_s", "duration_s"]).with_columns(
        pair=pl.col("track").replace_strict(
            {f"track{t:03d}": f"pair {t // 2}" for t in range(6)}, default=None, return_dtype=pl.String
        )
    )
    lake.clips.add(few)
    (found,) = index.facet_report(lake, like="pair").to_dicts()
    assert found["auc_after"] is None                    # one track of each pair to learn from, and one to evaluate on
    assert len(index.similar(lake, rows["clip_id"][0], like="pair", k=3, clips=True)) == 3


def test_new_clips_and_labels_update_the_facets(tmp_path, factors):
    import shutil

    shutil.copytree(factors.uri, tmp_path / "lake")
    lake = Lake(tmp_path / "lake")
    clip = lake.vectors().ids()[0]
    before = index.similar(lake, clip, layer="b", like="meter", k=5, clips=True)
    rows = clip_rows(TRACKS, CLIPS).with_columns(meter=pl.Series(np.random.default_rng(0).permutation(METERS * 128).tolist()))
    lake.clips.add(rows)
    after = index.similar(lake, clip, layer="b", like="meter", k=5, clips=True)
    assert before["clip_id"].to_list() != after["clip_id"].to_list()


def test_the_commands(factors):
    clip = factors.vectors().ids()[0]
    run = CliRunner().invoke(
        app, ["similar", clip, "--like", "meter", "--unlike", "artist", "--layer", "b", "-k", "3", "--lake", factors.uri]
    )
    assert run.exit_code == 0, run.output
    assert len(run.stdout.splitlines()) == 3
    assert "compares by meter" in run.stderr and "ignores artist" in run.stderr
    run = CliRunner().invoke(app, ["facets", "--like", "meter", "--lake", factors.uri, "--csv"])
    assert run.stdout.splitlines()[0] == "layer,facet,column,auc_before,auc_after"
