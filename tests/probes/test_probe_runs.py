"""Runs of a probe: their files, repetition, resumption, and predictions made with them."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
from fakes import clip_rows
from quick_probes import quick

from tonelake.probes import ProbeConfig, Run, count_saved, predict, probe, save_predictions, write_predictions
from tonelake.probes.experiment import Experiment
from tonelake.store import InputError, LakeError, SpaceMismatch


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
