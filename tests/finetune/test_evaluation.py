"""Figures of a fine-tuning beside its frozen baseline: against closed forms and scikit-learn, without training."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from scipy import stats

from tonelake.evaluate import jackknife_error, read_targets
from tonelake.finetune import FinetuneConfig, FinetuneRun, compare_finetunes
from tonelake.finetune.baselines import exact_baselines
from tonelake.finetune.evaluation import HeldOut, class_tables, judge, replicate_figures
from tonelake.finetune.runs import song_keys

NAMES = ("a", "b", "c", "d")


def held_out(kind="multiclass", clips=60, tracks=20, seed=0):
    rng = np.random.default_rng(seed)
    primary = rng.integers(0, 3, clips)                      # class d never occurs
    targets: np.ndarray = primary
    if kind == "multilabel":
        primary = np.where(rng.random(clips) < 0.2, -1, primary)
        targets = np.zeros((clips, 4), np.float32)
        targets[np.arange(clips), primary] = primary >= 0
        targets[:, 1] = np.maximum(targets[:, 1], rng.random(clips) < 0.3)
    return HeldOut(kind=kind, names=NAMES, targets=targets, primary=primary, track=np.arange(clips) % tracks)


def random_scores(test, seed, skill=0.0):
    rng = np.random.default_rng(seed)
    scores = rng.random((len(test.targets), len(test.names)))
    known = test.primary >= 0
    scores[known, test.primary[known]] += skill
    return scores / scores.sum(axis=1, keepdims=True)


def test_the_paired_difference_has_the_t_interval_of_the_tracks_differences():
    """Tracks of equally many clips: the jackknife is the t interval of the mean of 20 differences."""
    test = held_out()
    tuned, frozen = random_scores(test, 1, 0.6), random_scores(test, 2, 0.3)
    found = judge(test, [tuned], [frozen]).difference["accuracy"]
    hits = [(scores.argmax(axis=1) == test.targets).astype(float) for scores in (tuned, frozen)]
    by_track = np.array([(hits[0] - hits[1])[test.track == track].mean() for track in range(20)])
    low, high = stats.t.interval(0.95, 19, by_track.mean(), stats.sem(by_track))
    assert (found.value, found.low, found.high) == pytest.approx((by_track.mean(), low, high))


def test_the_interval_of_several_seeds_also_covers_the_seeds():
    test = held_out()
    seeds = [random_scores(test, seed, 0.2 * seed) for seed in range(4)]
    found = judge(test, seeds, [random_scores(test, 9)] * 4)
    values = np.array([(scores.argmax(axis=1) == test.targets).mean() for scores in seeds])
    assert found.tuned["accuracy"].value == pytest.approx(values.mean())
    runs = [replicate_figures(test, scores, test.units)["accuracy"].left_out for scores in seeds]
    tracks = float(jackknife_error(np.mean(runs, axis=0)))
    width = found.difference["accuracy"].high - found.difference["accuracy"].low
    assert width > 2 * 1.96 * np.hypot(tracks, values.std(ddof=1) / 2)
    one = judge(test, seeds[:1], [random_scores(test, 9)]).difference["accuracy"]
    assert width > one.high - one.low


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_accuracy_means_the_same_in_every_table_as_in_scikit_learn(kind):
    from sklearn.metrics import accuracy_score, recall_score

    test = held_out(kind)
    runs = {"tuned": [random_scores(test, 1, 0.5)], "frozen": [random_scores(test, 2, 0.1)]}
    classes, figures = class_tables(test, **runs)["classes"], judge(test, **runs)
    known = test.primary >= 0
    for key, column in (("tuned", "primary_accuracy"), ("frozen", "frozen_primary_accuracy")):
        likeliest = runs[key][0].argmax(axis=1)
        expected = recall_score(test.primary[known], likeliest[known], labels=[0, 1, 2], average=None)
        assert classes[column][:3].to_list() == pytest.approx(expected) and classes[column][3] is None
        overall = getattr(figures, key)["accuracy" if kind == "multiclass" else "primary_accuracy"].value
        assert overall == pytest.approx(accuracy_score(test.primary[known], likeliest[known]))
        assert overall == pytest.approx(np.average(expected, weights=np.bincount(test.primary[known])))
    assert "frozen_accuracy" not in classes.columns


def test_baselines_are_exact():
    from sklearn.dummy import DummyClassifier
    from sklearn.metrics import average_precision_score

    test, training = held_out(), np.array([0] * 10 + [1] * 30 + [2] * 5)
    found = exact_baselines(test, training)
    dummy = DummyClassifier(strategy="most_frequent").fit(training[:, None], training)
    assert found["chance"]["accuracy"].value == 1 / 4
    assert found["majority"]["accuracy"].value == pytest.approx(dummy.score(test.targets[:, None], test.targets))
    tags = held_out("multilabel")
    found = exact_baselines(tags, tags.targets)
    assert found["chance"]["primary_accuracy"].value == 1 / 4
    present = tags.targets.any(axis=0)
    assert found["majority"]["map"].value == pytest.approx(
        np.mean([average_precision_score(tags.targets[:, i], np.ones(60)) for i in np.flatnonzero(present)])
    )
    assert found["chance"]["map"].value > found["majority"]["map"].value         # a random order is better than no order
    numbers = HeldOut(
        kind="regression", names=("bpm",), targets=np.array([[1.0], [2.0], [6.0]]), primary=np.full(3, -1), track=np.arange(3)
    )
    assert exact_baselines(numbers, np.array([[2.0], [4.0]]))["majority"]["r2"].value == pytest.approx(0.0)


# -- comparison of runs


@pytest.fixture
def judged(lake):
    """A lake with eight clips of eight tracks and two runs that were judged on all of them."""
    from fakes import fill

    fill(lake, tracks=8, clips_a_track=1, seed=1)
    clips = lake.clips.read().sort("clip_id").select("clip_id", "track")
    rng = np.random.default_rng(0)
    for number, name in enumerate(("one", "two")):
        files = FinetuneRun.folder(lake, name)
        files.put_text("config.yaml", "column: kind\ntask: multiclass\nspace: fake\ndigest: abc\n")
        figures = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
        files.put_text("metrics.json", json.dumps({
            "main": "accuracy", "space": "fake", "figures": figures, "clips": 8, "trainable": 5, "epochs": 2,
            "task": "multiclass", "frozen": {"run": "kind-fake", "figures": figures, "train": 0.7}, "summary": "s",
            "finished": f"2026-01-0{number + 1}",
        }))
        predictions = clips.with_columns(
            target=pl.Series(["x", "y"] * 4), scores=pl.Series(rng.random((8, 2)).tolist(), dtype=pl.List(pl.Float32))
        )
        sides = clips.with_columns(side=pl.lit("test"))
        for table, frame in (("predictions", predictions), ("split", sides), ("classes", pl.DataFrame({"name": ["x", "y"]}))):
            files.put(f"{table}.parquet", frame.write_parquet)
    return lake


def test_duplicates_under_two_track_names_count_as_one_song(judged):
    assert compare_finetunes(judged, ["one", "two"])["tracks"].to_list() == [8, 8]
    ids = judged.clips.read().sort("clip_id")["clip_id"]
    judged.clips.set_labels(pl.DataFrame({"clip_id": [ids[0], ids[2]], "same_as": [ids[0], ids[0]]}))
    compared = compare_finetunes(judged, ["one", "two"])
    assert compared["tracks"].to_list() == [7, 7] and compared["over"][0] == "over 7 tracks"
    keys = song_keys(judged, judged.clips.read(["clip_id", "track"]).sort("clip_id"))
    assert keys[0] == keys[2] and keys.n_unique() == 7


def test_the_split_of_another_run_keeps_songs_together(judged):
    """A duplicate that was found later: a clip that shares a song with a training clip of the earlier run is not tested."""
    from tonelake.finetune.setup import make_split

    clips = judged.clips.read().sort("clip_id").select("clip_id", "track")
    judged.clips.set_labels(clips.select("clip_id").with_columns(kind=pl.Series(["x", "y"] * 4)))
    sides = ["train"] * 3 + ["valid"] + ["test"] * 4
    FinetuneRun.folder(judged, "one").put(
        "split.parquet", clips.with_columns(side=pl.Series(sides)).write_parquet
    )
    ids = clips["clip_id"]
    judged.clips.set_labels(pl.DataFrame({"clip_id": [ids[0], ids[4]], "same_as": [ids[0], ids[0]]}))
    task = read_targets(judged, judged.spaces.get("fake"), ("kind",))
    split, _ = make_split(judged, task, FinetuneConfig("kind", split="run:one"))
    assert set(task.ids.gather(split.train)) == {*ids[:3], ids[4]}
    assert set(task.ids.gather(split.test)) == set(ids[5:])


def test_clips_that_left_the_lake_are_known_by_the_name_of_their_track(judged):
    table = pl.DataFrame({"clip_id": ["gone", "gone too", "other"], "track": ["t", "t", "u"]})
    assert song_keys(judged, table).to_list() == ["track t", "track t", "track u"]


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_validation_metrics_of_an_epoch_equal_scikit_learns(kind):
    from sklearn.metrics import average_precision_score
    from transformers.trainer_utils import EvalPrediction

    from tonelake.finetune.trainer import validation_metrics

    test = held_out(kind)
    logits = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32)
    found = validation_metrics(FinetuneConfig("x", task=kind), EvalPrediction(logits, test.targets), test.primary)
    own = test.primary >= 0
    assert found["accuracy"] == pytest.approx((logits.argmax(axis=1) == test.primary)[own].mean())
    true = np.eye(4)[test.targets] if kind == "multiclass" else test.targets
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) if kind == "multiclass" else logits
    present = [number for number in range(4) if true[:, number].any()]
    assert found["map"] == pytest.approx(np.mean([average_precision_score(true[:, i], scores[:, i]) for i in present]))


def test_an_undefined_metric_steers_as_zero_and_is_left_out_otherwise():
    from transformers.trainer_utils import EvalPrediction

    from tonelake.finetune.trainer import validation_metrics

    empty = EvalPrediction(np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32))
    for monitor, expected in (("map", {"map": 0.0}), ("accuracy", {"accuracy": 0.0}), ("loss", {})):
        config = FinetuneConfig("x", task="multilabel", monitor=monitor)
        assert validation_metrics(config, empty, np.full(3, -1)) == expected
