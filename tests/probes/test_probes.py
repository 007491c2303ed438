"""Probes: the layer, metrics, baselines and weightings that a run reports."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows, fill
from quick_probes import labelled, quick

from tonelake.embed.settings import describe_space
from tonelake.probes import ProbeConfig, predict, probe, save_predictions, stages_of
from tonelake.store import InputError, Lake


def test_a_run_reports_the_better_layer_and_its_metrics(artists):
    _, run = artists
    metrics = run.metrics
    assert metrics["layer"] == "high"                        # where clips of an artist are close
    accuracy = metrics["figures"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert accuracy["value"] > metrics["baselines"]["majority"]["accuracy"]["value"] + 0.3
    assert metrics["fits"] == 2 * 2 * 2
    assert all(leak["clips"] == 0 for leak in metrics["leaks"])
    assert metrics["setting"] == "rate 0.01, decay 0"
    assert "Layer high of fake predicts artist with accuracy" in run.summary()


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("columns", [("tags",), ("year",), ("year", "loud")])
def test_tags_and_numbers_can_be_predicted(own, head, columns):
    """Reference: scikit-learn's metric of the stored predictions."""
    from sklearn import metrics as theirs

    if "loud" in columns:
        ids = own.clips.ids()
        vectors = own.vectors().take(ids.to_list(), "high").vectors
        own.clips.set_labels(pl.DataFrame({"clip_id": ids, "loud": vectors[:, 0].astype(float) * 40 - 100}))
    task = "regression" if columns != ("tags",) else None
    run = probe(own, quick(
        *columns, task=task, head=head, hidden=16, input="mean+max", split="random", class_weights="balanced", seeds=1,
        label_smoothing=0.05, epochs=80, patience=20,
    ))
    predictions = run.table("predictions")
    if columns == ("tags",):
        names = run.table("classes")["name"].to_list()
        true = np.array([[name in row for name in names] for row in predictions["target"]])
        scores = np.array(predictions["probabilities"].to_list())
        assert run.metrics["figures"]["map"]["value"] == pytest.approx(theirs.average_precision_score(true, scores), abs=1e-4)
        assert run.metrics["figures"]["map"]["value"] > run.metrics["baselines"]["majority"]["map"]["value"]
    else:
        true = predictions.select(f"target_{c}" for c in columns).to_numpy()
        scores = predictions.select(f"predicted_{c}" for c in columns).to_numpy()
        assert run.metrics["figures"]["r2"]["value"] == pytest.approx(theirs.r2_score(true, scores), abs=1e-4)
        if "loud" in columns:
            assert run.metrics["figures"]["r2_1"]["value"] > 0.8         # it is a coordinate of the vectors
    applied = predict(own, run)
    save_predictions(own, applied)
    assert f"{columns[0]}_predicted" in own.clips.label_columns()


def test_a_run_records_training_by_epoch_and_counts_parameters(artists):
    """Top-1 and top-5 on both sides, for each epoch that a fit was trained."""
    _, run = artists
    history, fits = run.table("history"), run.table("fits")
    keys = ["layer", "rate", "decay", "seed", "fold"]
    counted = history.group_by(keys).agg(pl.len().alias("trained"))
    joined = fits.join(counted, on=keys)
    assert joined["epochs"].to_list() == joined["trained"].to_list()
    kept = fits.join(history, left_on=[*keys, "best_epoch"], right_on=[*keys, "epoch"], suffix=" then")
    np.testing.assert_allclose(kept["score"], kept["valid_top_1"], atol=1e-6)
    assert (history["train_top_5"] >= history["train_top_1"]).all()
    first, last = history.filter(epoch=1)["train_top_1"].mean(), history.filter(epoch=10)["train_top_1"].mean()
    assert last > first + 0.1
    assert run.metrics["parameters"] == 6 * 6 + 6
    assert run.metrics["training"]["accuracy"] > run.metrics["figures"]["accuracy"]["value"] - 0.1
    report = run.report()
    for words in ("42 parameters", "## Training", "history.png", "top-5, validation", "over 6 tracks"):
        assert words in report


def test_each_weight_decay_of_a_sweep_has_a_test_figure(own):
    run = probe(own, quick(decays=(0.0, 0.01, 300.0), rates=(1e-3, 1e-2)))
    decays = run.table("decays")
    assert decays["decay"].to_list() == [0.0, 0.01, 300.0]
    best = decays.filter("chosen").row(0, named=True)
    assert best["accuracy"] == pytest.approx(run.metrics["figures"]["accuracy"]["value"], abs=1e-6)
    assert (best["away"], best["decay"]) == (0.0, run.table("layers").filter("best")["decay"].item())
    worst = decays.filter(decay=300.0).row(0, named=True)
    assert worst["accuracy"] < best["accuracy"] - 0.2
    assert worst["away"] == pytest.approx(worst["accuracy"] - best["accuracy"])
    assert worst["away_low"] < worst["away"] < worst["away_high"] < 0
    assert "minus the selected" in run.report()
    assert "decays" not in [name.removesuffix(".parquet") for name in probe(own, quick()).files.names(".parquet")]


def test_layers_are_compared_over_the_units_that_the_split_holds_out(own):
    """Two layers with the same vectors are not distinguishable; by whole groups, intervals are over the groups."""
    run = probe(labelled(own, mood=["calm" if i % 20 < 10 else "wild" for i in range(240)]), quick("mood", split="by:artist"))
    assert run.metrics["over"].endswith(" artists")
    folds = probe(own, quick("artist", split="folds:4:track"))
    assert folds.metrics["over"] == "over 24 tracks"
    trained, counts = folds.table("training_predictions"), folds.table("predictions")["clip_id"].n_unique()
    assert trained.group_by("side").len().sort("side").rows() == [("train", counts), ("valid", counts)]      # once a side
    assert trained.filter(side="train")["loss"].mean() < folds.table("predictions")["loss"].mean()
    layers = probe(own, quick()).table("layers")
    assert layers.filter("best")["tied"].to_list() == [True]
    assert layers.filter(name="low")["tied"].to_list() == [False]


def test_chance_is_exact_and_has_no_interval(artists):
    baseline = artists[1].metrics["baselines"]["chance"]
    assert baseline["accuracy"] == {"value": pytest.approx(1 / 6, abs=1e-6), "low": None, "high": None}
    assert baseline["top_5"]["value"] == pytest.approx(5 / 6, abs=1e-6)
    assert "chance 0.167" in artists[1].summary()
    assert "random" not in artists[1].metrics["baselines"]


def test_a_column_of_keys_is_judged_by_mirexs_score(own):
    keys = ["C major", "G major", "A minor", "c minor", "F# major", "Eb major"]
    artist = own.clips.read(["artist"])["artist"].str.tail(1).cast(pl.Int64)
    run = probe(labelled(own, key=[keys[i] for i in artist]), quick("key", monitor="key_score"))
    figures, report = run.metrics["figures"], run.report()
    assert figures["accuracy"]["value"] <= figures["key_score"]["value"] <= 1
    assert "| MIREX key score |" in report
    assert "of the validation MIREX key score" in report


def test_a_learned_weighting_finds_the_informative_layer(tmp_path, rendered_plots):
    """Three layers of one width; only the second depends on the artist."""
    lake = Lake(tmp_path / "lake")
    rows = clip_rows(24, 10)
    lake.clips.add(rows)

    class Three(FakeEncoder):
        layers, dims = ("a", "b", "c"), (8, 8, 8)

    space = lake.spaces.make(describe_space(Three(), "three", 30.0))
    rng = np.random.default_rng(0)
    artist = np.repeat(np.arange(24) // 4, 10)
    noise = [rng.standard_normal((240, 8)).astype(np.float32) for _ in range(3)]
    layers = [noise[0], (rng.standard_normal((6, 8))[artist] * 1.5 + noise[1]).astype(np.float32), noise[2]]
    lake.vectors(space).add(rows["clip_id"].to_list(), layers, layers, [1] * 240)
    run = probe(lake, quick(layers=("weighted",), epochs=60, patience=0, rates=(3e-2,)))
    shares = run.metrics["weights_of_layers"]
    assert max(shares, key=shares.get) == "b"
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert "weights.png" in run.files.names(".png")
    assert predict(lake, run).table["predicted"].null_count() == 0
    with pytest.raises(InputError, match="4 to 6 wide and cannot be weighted"):
        probe(fill_other(tmp_path), quick(layers=("weighted",)))


def fill_other(tmp_path):
    lake = Lake(tmp_path / "other")
    fill(lake, tracks=8, clips_a_track=3, seed=0)
    return lake


def test_a_spectral_space_of_the_same_clips_is_a_baseline(own):
    class Spectral(FakeEncoder):
        name = "spectral"

    space = own.spaces.make(describe_space(Spectral(), "spectral", 30.0))
    ids = own.clips.ids()
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((len(ids), dim)).astype(np.float32) for dim in space.dims]
    run = probe(own, quick(space="fake"))
    assert "spectral" not in run.metrics["baselines"]        # the space exists, but lacks these clips
    assert any("not embedded in space 'spectral'" in note for note in run.metrics["notes"])
    own.vectors(space).add(ids.to_list(), layers, layers, [1] * len(ids))
    run = probe(own, quick(space="fake"), again=True)
    spectral = run.metrics["baselines"]["spectral"]["accuracy"]["value"]
    assert spectral < run.metrics["figures"]["accuracy"]["value"] - 0.3


def test_protocols_have_the_settings_of_their_studies(artists):
    stages = {stage.name: stage.config for stage in stages_of("chorales", ProbeConfig(("piece",)))}
    first = stages["linear"]
    assert (first.optimizer, first.rates, first.batch, first.class_weights) == ("adam", (1e-3,), 256, "balanced")
    assert set(first.decays) == {1e-4, 1e-6, 0.0}
    assert stages["sgd"].optimizer == "sgd"
    assert (stages["by piece"].columns, stages["by piece"].split) == (("tune",), "by:piece")
    assert stages["by tune"].split == "by:tune"
    with pytest.raises(InputError, match="Choose marble-v1, marble-v2, chorales"):
        stages_of("other", ProbeConfig(("artist",)))
