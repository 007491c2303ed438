"""Runs of frame probes: results, resuming, posteriors, predicted events, and the commands."""

from __future__ import annotations

import json

import mido
import numpy as np
import polars as pl
import pytest
from framed_notes import SECONDS, roll
from typer.testing import CliRunner

from tonelake import Lake, views
from tonelake.cli import app
from tonelake.evaluate import score_events
from tonelake.probes import FrameRun, Run, compare_probes, named_run
from tonelake.probes.frames import training
from tonelake.probes.frames.event_prediction import own_parts
from tonelake.probes.frames.experiment import FrameExperiment
from tonelake.render import show_table
from tonelake.store import InputError, SpaceMismatch

QUICK = {
    "lowest": 60, "highest": 65, "layers": ("each",), "head": "conv", "context": 5, "hidden": 32, "rates": (3e-2,),
    "epochs": 18, "segment_s": 2.0, "dropout": 0.0,
}


@pytest.fixture(scope="module")
def probed(noted, tmp_path_factory):
    """A lake of notes with a run, and the run.  Do not change it."""
    import shutil

    lake = Lake(tmp_path_factory.mktemp("framed") / "lake")
    shutil.copytree(noted.uri, lake.uri, dirs_exist_ok=True)
    lake = Lake(lake.uri)
    return lake, lake.probe_frames("notes", hold_out="timbre", name="first", **QUICK)


def test_notes_that_the_states_show_are_found(probed):
    _, run = probed
    figures = run.metrics["figures"]
    assert figures["onset_f1"]["value"] > 0.95 and figures["frame_f1"]["value"] > 0.95
    assert figures["onset_f1"]["low"] < figures["onset_f1"]["value"] <= figures["onset_f1"]["high"]
    assert run.metrics["layer"] == "notes" and run.metrics["over"].startswith("over 9 tracks")
    layers = {row["name"]: row for row in run.table("layers").to_dicts()}
    assert layers["noise"]["onset_f1"] < 0.3 and layers["notes"]["best"] and not layers["noise"]["tied"]
    assert "finds notes with onset f1" in run.summary()


def test_results_are_given_by_group_octave_and_instrument(probed):
    _, run = probed
    groups = run.table("groups")
    assert set(groups["by"]) == {"seen or held out", "timbre", "octave", "instrument"}
    assert set(groups.filter(pl.col("by") == "seen or held out")["group"]) == {"seen", "held out"}
    clips, split = run.table("clips"), run.table("split")
    assert clips["held_out"].sum() == split.filter((pl.col("side") == "test") & pl.col("held_out"))["clip_id"].len() > 0
    for text in ("## Seen and held out", "## By timbre", "| notes * |", "held out: "):
        assert text in run.report()


def test_equal_settings_return_the_finished_run_and_other_settings_are_another_run(probed, monkeypatch):
    lake, run = probed
    monkeypatch.setattr(FrameExperiment, "fit", lambda *_: pytest.fail("trained again"))
    assert lake.probe_frames("notes", hold_out="timbre", name="first", **QUICK).metrics == run.metrics
    with pytest.raises(InputError, match=r"run 'first': holds another experiment, with head 'conv' instead of 'linear'"):
        lake.probe_frames("notes", hold_out="timbre", name="first", **QUICK | {"head": "linear"})


def test_a_run_that_was_killed_resumes_after_the_last_finished_input(noted, own_notes, monkeypatch):
    wanted = {"head": "linear", "layers": ("each",), "epochs": 2}
    fit, trained = FrameExperiment.fit, []

    def fail_at_second(self, spec, step=lambda: None):
        if trained == ["noise"]:
            raise KeyboardInterrupt
        trained.append(spec.name)
        return fit(self, spec, step)

    monkeypatch.setattr(FrameExperiment, "fit", fail_at_second)
    with pytest.raises(KeyboardInterrupt):
        own_notes.probe_frames("key", **QUICK | wanted)
    assert not FrameRun.all(own_notes)
    trained.append("interrupted")
    run = own_notes.probe_frames("key", **QUICK | wanted)
    assert trained == ["noise", "interrupted", "notes"] and run.metrics["resumed"] == 1
    monkeypatch.setattr(FrameExperiment, "fit", fit)
    whole = own_notes.probe_frames("key", name="whole", **QUICK | wanted)
    assert whole.table("fits").equals(run.table("fits")) and whole.metrics["figures"] == run.metrics["figures"]
    assert not own_notes.files(f"probes/{run.name}/partial").names(".safetensors")


def test_posteriors_decode_to_the_predictions_of_the_run(probed):
    from tonelake.probes import decode

    lake, run = probed
    clip = run.table("clips")["clip_id"][0]
    found = next(run.posteriors(lake, [clip]))
    assert found.probabilities.shape == (300, 18) and found.probabilities.dtype == np.float32
    again = decode(run.task, found.probabilities, found.frame_s, run.decoding)
    stored = run.table("predictions").filter(pl.col("clip_id") == clip).drop("clip_id")
    assert again.equals(stored)


def test_predicted_events_are_stored_and_written(own_notes, tmp_path):
    run = own_notes.probe_frames("notes", **QUICK | {"layers": ("notes",)})
    found = own_notes.predict_events(run, save=True, midi=tmp_path / "midi", jams=tmp_path / "jams", where="track < 'track05'")
    assert len(found.recordings) == 5 and found.source == f"predicted:{run.name}"
    recording = found.recordings["recording"][0]
    stored = own_notes.events.read(recordings=[recording], source=found.source)
    assert len(stored) == len(found.events.filter(pl.col("recording") == recording)) > 5
    reference = own_notes.events.read(recordings=[recording], kinds=["note"], source="midi")
    assert score_events("notes", reference, stored, SECONDS)["onset_f1"] > 0.9
    own_notes.predict_events(run, save=True, where="track < 'track05'")
    assert own_notes.events.read(recordings=[recording], source=found.source).equals(stored)
    files = sorted((tmp_path / "midi").iterdir())
    assert len(files) == 5 and sum(1 for message in mido.MidiFile(files[0]) if message.type == "note_on") > 5
    written = [json.loads(file.read_text())["annotations"] for file in (tmp_path / "jams").iterdir()]
    assert len(written) == 5 and {part["namespace"] for parts in written for part in parts} == {"note_midi"}
    with pytest.raises(InputError, match="no clip where track = 'x' has stored frames"):
        own_notes.predict_events(run, where="track = 'x'")


def test_overlapping_clips_are_divided_and_notes_across_borders_joined(own_notes):
    run = own_notes.probe_frames("notes", **QUICK | {"layers": ("notes",)})
    recording = "9" * 32
    own_notes.clips.add(pl.DataFrame({
        "clip_id": ["a" * 20, "b" * 20], "recording": [recording] * 2, "track": ["long"] * 2, "source": ["made:long"] * 2,
        "digest": ["9" * 32] * 2, "start_s": [0.0, 4.0], "duration_s": [6.0, 6.0], "cut": ["6s/4s"] * 2,
    }))
    from tonelake.store import FrameStates

    notes = pl.DataFrame({"start_s": [1.0, 4.2, 7.0], "end_s": [1.8, 5.9, 8.0], "pitch": [60.0, 62.0, 64.0]})
    frame_s = (np.arange(500) + 0.5) * 0.02
    states = np.zeros((500, 20), np.float16)
    states[:, :18] = roll(notes, frame_s)
    for clip, first in (("a" * 20, 0), ("b" * 20, 200)):
        part = slice(first, first + 300)
        own = (frame_s[part] - first * 0.02).astype(np.float32)
        own_notes.frames("notes").add([FrameStates(clip, 1, own, states[part])])
    found = own_notes.predict_events(run, where="track = 'long'").events
    assert found["pitch"].to_list() == [60.0, 62.0, 64.0]
    np.testing.assert_allclose(found["start_s"], [1.0, 4.2, 7.0], atol=0.03)
    np.testing.assert_allclose(found["end_s"], [1.8, 5.9, 8.0], atol=0.05)
    first, last = own_parts(np.array([0.0, 4.0, 12.0]), np.array([6.0, 10.0, 18.0]))
    assert first.tolist() == [0, 5, 12] and last.tolist() == [5, 10, 18]


def test_a_run_of_a_space_that_has_changed_is_not_applied(probed, monkeypatch):
    lake, run = probed
    other = FrameRun(run.name, run.files, run.config, run.metrics | {"fingerprint": "0"})
    with pytest.raises(SpaceMismatch, match="space 'notes' has changed since it was trained"):
        next(other.posteriors(lake, lake.clips.ids()[:1].to_list()))


def test_runs_of_both_kinds_are_listed_and_named_apart(probed):
    lake, _ = probed
    assert Run.all(lake) == [] and [one.name for one in FrameRun.all(lake)] == ["first"]
    assert isinstance(named_run(lake, "first"), FrameRun)
    row = compare_probes(lake).to_dicts()[0]
    assert (row["run"], row["columns"], row["figure"]) == ("first", "notes", "onset_f1")
    with pytest.raises(InputError, match="run 'first': was trained on frames"):
        lake.predict("first")
    with pytest.raises(InputError, match="run 'first': was trained on frames"):
        lake.review("first")


def call(lake, *words):
    return CliRunner().invoke(app, [*words, "--lake", lake.uri])


def test_the_commands_train_show_and_apply_a_run(probed, tmp_path, capsys):
    lake, run = probed
    given = ["--lowest", "60", "--highest", "65", "--layers", "each", "--context", "5", "--hidden", "32", "--rates", "3e-2",
             "--epochs", "18", "--segment-s", "2", "--dropout", "0", "--hold-out", "timbre", "--name", "first"]
    done = call(lake, "probe", "notes", "--frames", *given, "--json")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows] == ["noise", "notes"] and "run first: tonelake probes first" in done.stderr
    assert "# notes, from frames of notes" in call(lake, "probes", "first", "--report").stdout
    assert "onset_f1" in call(lake, "probes", "first", "--json").stdout
    assert call(lake, "probes", "--csv").stdout.splitlines()[1].startswith("first,notes")
    found = call(lake, "predict", "first", "--where", "track = 'track01'", "--midi", str(tmp_path / "midi"))
    assert found.exit_code == 0 and "written to" in found.stderr and len(list((tmp_path / "midi").iterdir())) == 1
    for view, table in ((views.frame_layers, run.table("layers")), (views.found_events, lake.predict_events(run).events)):
        show_table(view(table))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(("words", "message"), [
    (("probe", "artist", "--frames"), "'artist' is not a choice. Choose notes, onsets, beats, chords or key"),
    (("probe", "--frames"), "no task given"),
    (("probe", "timbre", "--segment-s", "2"), "--segment-s: goes with --frames. Add --frames"),
    (("probe", "timbre", "--head", "conv"), "--head conv: goes with --frames. Choose linear, mlp"),
    (("probe", "notes", "--frames", "--input", "max"), "--input: goes without --frames. Leave one of them out"),
    (("probe", "notes", "--frames", "--protocol", "marble-v1"), "--frames: takes one of notes"),
    (("predict", "first", "--out", "x.csv"), "--out: is for runs on vectors"),
])
def test_options_of_the_other_kind_of_probe_are_refused(probed, words, message):
    done = call(probed[0], *words)
    assert done.exit_code != 0
    text = " ".join((str(done.exception) + done.output).replace("│", " ").split())
    assert message in text


def test_progress_counts_epochs_that_early_stopping_saves(noted):
    seen = []

    class Small:
        config = type("Config", (), {"epochs": 4})
        specs = ("a", "b")
        fits = 2
        lake = type("Lake", (), {"progress": staticmethod(lambda items, total, label: seen.append(total) or iter(items))})

    epochs = training.Epochs(Small)
    epochs.step()
    epochs.next_input()
    assert (seen, epochs.done) == ([8], 4)
    epochs.next_input()
    epochs.close()
    assert epochs.done == 8
