"""Probes from labels to a finished run: files, repetition, resumption, and errors for invalid inputs."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from fakes import FakeEncoder, clip_rows, fill

from tonelake.embed.settings import describe_space
from tonelake.probes import (
    ProbeConfig,
    Run,
    count_saved,
    predict,
    probe,
    save_predictions,
    stages_of,
    write_predictions,
)
from tonelake.probes.experiment import Experiment
from tonelake.store import InputError, Lake, LakeError, SpaceMismatch

QUICK = {"rates": (1e-2,), "decays": (0.0,), "seeds": 2, "epochs": 12, "patience": 4}


def quick(*columns: str, **settings) -> ProbeConfig:
    return ProbeConfig(tuple(columns or ("artist",)), **(QUICK | settings))


@pytest.fixture
def own(filled, tmp_path):
    """A copy of the filled lake that a test may write to."""
    shutil.copytree(filled.uri, tmp_path / "own", ignore=shutil.ignore_patterns("probes"))
    return Lake(tmp_path / "own")


@pytest.fixture(scope="module")
def artists(tmp_path_factory):
    """A lake and a run of two rates on it.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("probed") / "lake")
    fill(lake, tracks=24, clips_a_track=10, seed=1)
    return lake, probe(lake, quick(rates=(1e-4, 1e-2)))


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


def test_the_files_of_a_run_agree_with_each_other(artists):
    lake, run = artists
    predictions, split, fits, layers, classes = (
        run.table(name) for name in ("predictions", "split", "fits", "layers", "classes")
    )
    tested = split.filter(pl.col("side") == "test")["clip_id"]
    assert set(tested) == set(predictions["clip_id"])
    right = (predictions["target"] == predictions["predicted"]).mean()
    assert run.metrics["by_seed"] == pytest.approx([right] * 2, abs=0.2)
    artist_of = dict(lake.clips.read(["clip_id", "artist"]).iter_rows())
    assert [artist_of[c] for c in predictions["clip_id"]] == predictions["target"].to_list()
    assert len(fits) == 8
    assert set(fits.filter("chosen", layer="high")["rate"]) == {1e-2}
    best = layers.filter("best").row(0, named=True)
    assert best["accuracy"] == pytest.approx(run.metrics["figures"]["accuracy"]["value"], abs=1e-6)
    assert classes["support"].sum() == len(predictions)
    report = run.report()
    for words in ("## Layers", "layers.png", "| majority |", "## Overlap between training and test", "## Cautions", "--config"):
        assert words.strip("| ") in report
    assert {"layers.png", "confusion.png", "calibration.png", "history.png"} <= set(run.files.names(".png"))
    assert not lake.files(f"probes/{run.name}/partial").names(".safetensors")


def test_repeating_an_experiment_returns_its_run_and_retraining_gives_equal_results(artists):
    lake, run = artists
    config = quick(rates=(1e-4, 1e-2))
    again = probe(lake, config)
    assert again.metrics == run.metrics
    retrained = probe(lake, config, again=True)
    assert retrained.metrics["finished"] != run.metrics["finished"]
    assert retrained.metrics["figures"] == run.metrics["figures"]
    assert retrained.table("predictions").equals(run.table("predictions"))


def test_a_run_repeats_from_its_config(artists, tmp_path):
    lake, run = artists
    text = run.files.read("config.yaml")
    (tmp_path / "again.yaml").write_text(text)
    config = ProbeConfig.from_file(tmp_path / "again.yaml")
    assert config == run.config
    assert probe(lake, config).name == run.name              # resolved settings have the digest of the experiment
    other = probe(lake, config.with_(seeds=1))
    assert other.name != run.name


def test_a_killed_grid_resumes_from_its_finished_parts(own, monkeypatch):
    config = quick(split="folds:3:track")
    whole = probe(own, config, name="whole")
    real, calls = Experiment.fit, []

    def dies(self, fold, slots):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append((fold, [slot.name for slot in slots]))
        return real(self, fold, slots)

    monkeypatch.setattr(Experiment, "fit", dies)
    with pytest.raises(KeyboardInterrupt):
        probe(own, config, name="killed")
    assert [run.name for run in Run.all(own)] == ["whole"]  # an unfinished run is not listed
    calls.clear()
    monkeypatch.setattr(Experiment, "fit", lambda self, *a: calls.append(a) or real(self, *a))
    done = probe(own, config, name="killed")
    assert len(calls) < len(done.table("layers")) * 3
    assert done.metrics["resumed"] > 0
    assert done.metrics["figures"] == whole.metrics["figures"]


def test_a_second_process_cannot_train_the_same_run(own, monkeypatch):
    config, real, inside, go = quick(), Experiment.fit, threading.Event(), threading.Event()

    def slow(self, *part, **more):
        inside.set()
        assert go.wait(60)
        return real(self, *part, **more)

    monkeypatch.setattr(Experiment, "fit", slow)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(probe, own, config, name="twin")
        assert inside.wait(60)
        with pytest.raises(InputError, match="run 'twin': is being trained by another process"):
            probe(own, config, name="twin")
        go.set()
        done = first.result()
    assert probe(own, config, name="twin").metrics == done.metrics


def test_predictions_of_test_clips_equal_those_of_the_run(artists):
    lake, run = artists
    ours = predict(lake, run.name[:14]).table
    stored = run.table("predictions")
    joined = stored.join(ours, on="clip_id", suffix=" now")
    assert len(joined) == len(stored)
    assert (joined["predicted"] == joined["predicted now"]).all()
    np.testing.assert_allclose(joined["probability"], joined["probability now"], atol=1e-6)


def test_predictions_cover_clips_added_later(own):
    run = probe(own, quick())
    space = own.spaces.get()
    late = clip_rows(30, 4).filter(pl.col("track") == "track025")
    own.clips.add(late.with_columns(artist=pl.lit(None, pl.String)))
    known = own.vectors(space).take([f"{0:020x}"] * 4, "high").vectors           # a copy of artist 0's first clip
    own.vectors(space).add(late["clip_id"].to_list(), [known[:, :4], known], [known[:, :4], known], [1] * 4)
    found = predict(own, run, where="artist IS NULL")
    assert found.table["clip_id"].to_list() == late["clip_id"].to_list()
    first = predict(own, run, where=f"clip_id = '{0:020x}'").table
    assert set(found.table["predicted"]) == set(first["predicted"])
    save_predictions(own, found)
    labels = own.clips.read(["clip_id", "artist", "artist_predicted", "artist_probability"])
    written = labels.drop_nulls("artist_predicted")
    assert written["clip_id"].to_list() == late["clip_id"].to_list()
    np.testing.assert_allclose(written["artist_probability"], found.table["probability"], atol=1e-6)
    assert labels["artist"].null_count() == 4                # stored labels are unchanged


def test_each_saved_prediction_names_its_run(own, caplog):
    first, second = (probe(own, quick(seeds=1, epochs=2, split_seed=seed, layers=("high",))) for seed in (0, 1))
    with caplog.at_level("INFO", "tonelake.probes"):
        predict(own, first, save=True)
    assert count_saved(own, "artist") == {first.name: 240} and "predictions of" not in caplog.text
    with caplog.at_level("INFO", "tonelake.probes"):
        found = predict(own, second, where="artist = 'Artist 1'", save=True)
    assert count_saved(own, "artist") == {first.name: 200, second.name: 40}
    assert f"column artist_predicted holds predictions of 2 runs: 200 by {first.name}, 40 by {second.name} (" in caplog.text
    labels = own.clips.read(["clip_id", "artist_predicted"], where=f"artist_predicted_by = '{second.name}'")
    assert labels.sort("clip_id").equals(found.as_labels().select("clip_id", "artist_predicted").sort("clip_id"))
    clips = own.clips.read(["clip_id"]).with_columns(artist_predicted_by=pl.lit(None, pl.String))
    own.clips.update(clips[:5])                              # as an earlier release saved them
    assert count_saved(own, "artist")["an unnamed run"] == 5 and count_saved(own, "album") == {}


def test_predictions_are_written_to_files(artists, tmp_path):
    lake, run = artists
    found = predict(lake, run)
    write_predictions(found, tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").equals(found.table)
    write_predictions(found, tmp_path / "out.csv")
    row = pl.read_csv(tmp_path / "out.csv").row(0, named=True)
    assert json.loads(row["likeliest"])[0] == row["predicted"]
    with pytest.raises(InputError, match=r"\.parquet or \.csv"):
        write_predictions(found, tmp_path / "out.xlsx")
    with pytest.raises(InputError, match="cannot be written"):
        write_predictions(found, tmp_path / "none" / "out.csv")


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


# -- invalid inputs


def labelled(lake: Lake, **columns) -> Lake:
    lake.clips.set_labels(pl.DataFrame({"clip_id": lake.clips.ids()} | columns))
    return lake


@pytest.mark.parametrize(
    ("make", "config", "why"),
    [
        (lambda n: {"mood": ["calm"] * n}, quick("mood"), "a probe needs two or more classes"),
        (lambda n: {}, quick("nowhere"), "no column 'nowhere'"),
        (lambda n: {}, quick("album"), "no clip has a value in 'album'"),
        (lambda n: {}, quick(where="year > 3000"), "no clips where year > 3000"),
        (lambda n: {}, quick(where="yeer > 3000"), "filter 'yeer > 3000': cannot be used"),
        (lambda n: {"x": [1.5] * n}, quick("x"), "all 240 clips have x 1.5"),
        (lambda n: {"x": [float("inf")] * n}, quick("x"), "no clip has a finite number"),
        (lambda n: {"x": [float("nan")] * n}, quick("x"), "no clip has a value in 'x'"),     # stored as null
        (lambda n: {}, quick("artist", task="regression"), "does not hold numbers"),
        (lambda n: {}, quick("tags", task="multiclass"), "its task is multilabel"),
        (lambda n: {}, quick("artist", task="multilabel"), "Ingest it with --multi"),
        (lambda n: {}, quick("artist", "title"), "Name one column|does not hold numbers"),
        (lambda n: {}, quick("title"), "use --split random"),
        (lambda n: {}, quick(layers=("17",)), "no layer '17'"),
        (lambda n: {}, quick(space="other"), "no space 'other'"),
        (lambda n: {"mood": [str(i) for i in range(n)]}, quick("mood", split="random"), "--split random"),
    ],
)
def test_columns_that_cannot_be_learned_are_refused(own, make, config, why):
    before = labelled(own, **make(240)).clips.read() if make(240) else own.clips.read()
    with pytest.raises(InputError, match=why):
        probe(own, config)
    assert own.clips.read().equals(before)
    assert not own.files("probes").folders()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"head": "cnn"}, "Choose linear or mlp"), ({"rates": ()}, "one or more"), ({"rates": (-1.0,)}, "above 0"),
        ({"decays": (-1.0,)}, "from 0 to"), ({"epochs": 0}, "1 or more"), ({"dropout": 1.0}, "from 0 to below 1"),
        ({"shares": (0.5, 0.6, 0.1)}, "sum to 1"), ({"prepare": "whiten"}, "Choose raw"),
        ({"task": "ranking"}, "Choose multiclass"), ({"seeds": 10**7}, "fewer rates or seeds"),
        ({"input": "median"}, "Choose mean"), ({"optimizer": "lion"}, "Choose adam"),
    ],
)
def test_invalid_settings_are_refused(settings, why):
    with pytest.raises(InputError, match=why):
        quick(**settings)


def test_missing_labels_are_reported_and_rare_classes_are_only_trained_on(own):
    moods = ["calm" if i % 3 else "wild" for i in range(240)]
    moods[:30] = [None] * 30
    moods[77] = "once"
    run = probe(labelled(own, mood=moods), quick("mood", split="random"))
    assert run.metrics["clips"] == 210
    assert any("30 clips without a label" in note for note in run.metrics["notes"])
    once = run.table("split").filter(pl.col("clip_id") == own.clips.ids()[77])
    assert once["side"].to_list() == ["train"]               # a class of one clip can only be in the training set


def test_a_diverging_setting_does_not_affect_the_others(own):
    huge = quick(rates=(500.0,), optimizer="sgd", decays=(500.0,), batch=8)      # infinite before the first epoch ends
    with pytest.raises(InputError, match=r"no fit reached a finite loss\. Lower the learning rates"):
        probe(own, huge)
    run = probe(own, huge.with_(decays=(500.0, 0.0)))
    assert run.metrics["setting"] == "rate 500, decay 0"


def test_a_label_never_seen_in_training_counts_as_wrong(own):
    sides = ["test" if i % 5 == 0 or i >= 200 else "valid" if i % 5 == 1 else "train" for i in range(240)]
    run = probe(labelled(own, part=sides), quick(split="column:part"))
    unseen = [note for note in run.metrics["notes"] if "without training clips" in note]
    assert len(unseen) == 1 and "these count as wrong" in unseen[0]
    wrong = run.table("predictions").filter(pl.col("target") == "Artist 5")
    assert (wrong["predicted"] != "Artist 5").all()


def test_vectors_that_are_not_finite_are_reported(own):
    """Written by another program, since tonelake refuses to store such vectors."""
    import lance
    import pyarrow as pa

    table = f"{own.uri}/emb_fake.lance"
    stored = lance.dataset(table).to_table()
    values = stored.column("mean_01").combine_chunks().flatten().to_numpy().copy()
    values[5 * 6] = np.nan
    broken = pa.FixedSizeListArray.from_arrays(pa.array(values), 6)
    lance.write_dataset(stored.set_column(stored.schema.get_field_index("mean_01"), "mean_01", broken), table, mode="overwrite")
    with pytest.raises(InputError, match="space 'fake': 1 of 240 vectors of layer high hold NaN"):
        probe(Lake(own.uri), quick(layers=("high",), shares=(0.7, 0.1, 0.2), split="random"))


def test_a_name_belongs_to_one_experiment(own):
    probe(own, quick(), name="mine")
    with pytest.raises(InputError, match="holds another experiment"):
        probe(own, quick(seeds=1), name="mine")
    for name in ("../out", "", ".hidden", "a/b", "a\nb"):
        with pytest.raises(InputError, match="not a valid name"):
            probe(own, quick(), name=name)
    with pytest.raises(InputError, match="no run 'other' in this lake: it has mine"):
        Run.named(own, "other")


def test_a_run_is_not_applied_to_another_way_of_embedding(own):
    run = probe(own, quick())
    metrics = json.loads(run.files.read("metrics.json"))
    metrics["fingerprint"] = "0" * 32
    run.files.put("metrics.json", lambda path: path.write_text(json.dumps(metrics)))
    with pytest.raises(SpaceMismatch, match="a different way of embedding"):
        predict(own, run.name)


@pytest.mark.parametrize(("file", "damage"), [("weights.safetensors", b"torn"), ("metrics.json", b"{"), ("config.yaml", b"[")])
def test_a_damaged_run_is_reported_by_name(own, file, damage):
    run = probe(own, quick(), name="mine")
    run.files.put(file, lambda path: path.write_bytes(damage))
    with pytest.raises((LakeError, InputError), match="mine"):
        predict(own, "mine")


@pytest.mark.parametrize("text", [
    "columns: [artist]\nhead: cnn\n", "nothing: 1\ncolumns: [a]\n", "- 1\n", "columns: [a]\nepochs: two\n", "head: mlp\n",
    "columns: [a]\nepochs: 1.5\n",
])
def test_an_invalid_settings_file_is_refused(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError):
        ProbeConfig.from_file(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        ProbeConfig.from_file(tmp_path / "absent.yaml")


def test_hostile_labels_are_harmless(own, rendered_plots):
    names = ["a|b", "../../x", "true", "\x1b[31mred", "x" * 300, "Ünïcode"]
    moods = [names[int(row["artist"][-1])] for row in own.clips.read(["artist"]).to_dicts()]
    run = probe(labelled(own, mood=moods), quick("mood"))
    assert sorted(run.table("confusion")[:, 0]) == sorted(names)
    assert "a\\|b" in run.report()
    assert predict(own, run).table["predicted"].is_in(names).all()
