"""Grids of frame heads: equal to single fits, in memory and streamed; splits with held-out groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tonelake.probes.frames import experiment as experiments
from tonelake.probes.frames import frame_data
from tonelake.probes.frames.config import FrameProbeConfig
from tonelake.probes.frames.experiment import make_frame_experiment
from tonelake.probes.frames.frame_data import fit_standardisation, make_segments
from tonelake.store import InputError

QUICK = {
    "lowest": 60, "highest": 65, "layers": ("notes",), "head": "linear", "context": 5, "hidden": 16, "rates": (3e-2,),
    "epochs": 6, "segment_s": 1.1, "precision": "float32",
}


def config(task="notes", **settings) -> FrameProbeConfig:
    return FrameProbeConfig(task, **(QUICK | settings))


def test_a_fit_in_a_grid_equals_the_same_fit_alone(noted):
    grid = make_frame_experiment(noted, config(head="conv", rates=(1e-2, 3e-2), decays=(0.0, 0.1), seeds=2, epochs=3))
    results, _ = grid.fit(grid.specs[0])
    assert results.score.shape == (8,)
    alone = make_frame_experiment(noted, config(head="conv", rates=(3e-2,), decays=(0.1,), seeds=2, epochs=3))
    single, _ = alone.fit(alone.specs[0])
    for name, value in single.states.items():                # seed · settings + setting
        np.testing.assert_allclose(results.states[name][[3, 7]], value, atol=1e-4)
    np.testing.assert_allclose(results.history[[3, 7]], single.history, rtol=1e-3)
    assert not np.allclose(results.score[3], results.score[7])


def test_streamed_frames_give_the_results_of_frames_in_memory(noted, monkeypatch):
    monkeypatch.setattr(frame_data, "STRETCH_S", 31.0)       # about five clips
    experiment = make_frame_experiment(noted, config(rates=(1e-2, 3e-2), epochs=2))
    held, _ = experiment.fit(experiment.specs[0])
    monkeypatch.setattr(experiments, "MEMORY_SHARE", 0.0)
    assert not experiment.fits_memory(experiment.specs[0])
    streamed, _ = experiment.fit(experiment.specs[0])
    for name, value in held.states.items():
        assert streamed.states[name].equal(value)
    np.testing.assert_array_equal(streamed.history, held.history)


def test_states_are_standardised_by_the_training_frames_each_dimension_or_jointly(noted):
    experiment = make_frame_experiment(noted, config())
    reader, train = experiment.clips.reader(experiment.specs[0]), experiment.split.split.train
    together = np.concatenate([part.astype(np.float64) for part in reader(train)])
    each, jointly = (fit_standardisation(reader, train, jointly=way) for way in (False, True))
    np.testing.assert_allclose(each.mean, together.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(each.scale, together.std(axis=0), rtol=1e-4)
    np.testing.assert_allclose(jointly.mean, np.full(20, together.mean()), atol=1e-5)
    np.testing.assert_allclose(jointly.scale, np.full(20, together.std()), rtol=1e-4)


def test_every_frame_is_judged_once():
    lengths = np.array([100, 30, 55, 110])
    segments = make_segments(lengths, np.array([3, 1, 0]), 55)
    seen = {clip: np.zeros(lengths[clip], int) for clip in (3, 1, 0)}
    for clip, start, length, judged in zip(segments.clip, segments.start, segments.length, segments.judged, strict=True):
        assert start + length <= lengths[clip]
        seen[clip][start + judged : start + length] += 1
    assert all((count == 1).all() for count in seen.values())


@pytest.mark.parametrize(("task", "head"), [("beats", "conv"), ("key", "mlp"), ("onsets", "mlp")])
def test_each_task_is_learned(noted, task, head):
    experiment = make_frame_experiment(noted, config(task, head=head, epochs=12, segment_s=2.0))
    results, _ = experiment.fit(experiment.specs[0])
    assert results.score.max() > 0.9


def test_class_weights_raise_the_probabilities_of_rare_events(noted):
    means = {}
    for kind in ("none", "balanced"):
        experiment = make_frame_experiment(noted, config(class_weights=kind, layers=("noise",), epochs=2))
        results, _ = experiment.fit(experiment.specs[0])
        means[kind] = float(results.states["layers.0.bias"][0, :6].mean())       # of onsets
    assert means["none"] < -3 < -1 < means["balanced"]


def test_layers_are_weighted_and_joined(noted):
    experiment = make_frame_experiment(noted, config(layers=("weighted", "all"), rates=(3e-2,), epochs=8, segment_s=2.0))
    weighted, joined = (experiment.fit(spec)[0] for spec in experiment.specs)
    assert weighted.states["mix"][0, 1] > weighted.states["mix"][0, 0] + 0.2     # layer `notes` shows the notes
    assert min(weighted.score.max(), joined.score.max()) > 0.9


def test_held_out_groups_are_in_one_set_only_and_tracks_too(noted):
    experiment = make_frame_experiment(noted, config(hold_out="timbre"))
    split, clips = experiment.split.split, experiment.targets.clips
    timbres = {name: set(clips["timbre"].gather(rows)) for name, rows in vars(split).items()}
    held = {name: {clips["timbre"][int(row)] for row in rows if experiment.split.held_out[row]}
            for name, rows in vars(split).items()}
    assert not held["train"] and len(held["valid"]) == len(held["test"]) == 1 and held["valid"] != held["test"]
    assert timbres["train"] >= timbres["valid"] - held["valid"] and timbres["train"] >= timbres["test"] - held["test"]
    assert timbres["valid"] > held["valid"] and timbres["test"] > held["test"]
    rows = np.concatenate([split.train, split.valid, split.test])
    assert len(set(rows.tolist())) == len(rows)
    assert len(experiment.valid_parts()) == 2


def test_clips_of_a_track_with_several_timbres_never_carry_it_into_another_set(own_notes):
    import polars as pl

    ids = own_notes.clips.ids()
    own_notes.clips.set_labels(pl.DataFrame({"clip_id": ids, "piece": [f"piece{i // 5}" for i in range(len(ids))]}))
    experiment = make_frame_experiment(own_notes, config(hold_out="timbre", split="by:piece"))
    split, clips = experiment.split.split, experiment.targets.clips
    pieces = [set(clips["piece"].gather(rows)) for rows in vars(split).values()]
    assert not (pieces[0] & pieces[1] or pieces[0] & pieces[2] or pieces[1] & pieces[2])
    assert any("would carry" in note for note in experiment.notes)
    assert experiment.split.held_out[split.test].any() and experiment.split.held_out[split.valid].any()


@pytest.mark.parametrize(("settings", "message"), [
    ({"layers": ("nowhere",)}, "has no layer 'nowhere'"),
    ({"where": "track = 'x'"}, "the lake has no clips where track = 'x'"),
    ({"source": "jams"}, "has note events from source 'jams'. Run `tonelake ingest events`"),
    ({"hold_out": "clip"}, "--hold-out clip: no such column"),
    ({"where": "timbre <> 'piano' AND timbre <> 'choir' AND timbre <> 'flute'", "hold_out": "timbre"}, "has 2 groups"),
    ({"where": "track = 'track01'"}, "cannot fill 3 sets"),
    ({"context": 4}, "context 4: is even"), ({"split": "folds:5"}, "frame probes have one test set"),
    ({"lowest": 70}, "the range is empty"), ({"shares": (0.8, 0.0, 0.2)}, "leave no validation clip"),
])
def test_settings_that_cannot_be_met_are_refused_with_the_remedy(noted, settings, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        make_frame_experiment(noted, config(**settings))


def test_a_space_without_frames_names_the_command_that_stores_them(tmp_path):
    from fakes import fill

    from tonelake.store import Lake

    lake = Lake(tmp_path / "lake")
    fill(lake, tracks=4, clips_a_track=1, seed=0)
    with pytest.raises(InputError, match=r"has no stored frames. Run `tonelake embed --space fake --frames high`"):
        make_frame_experiment(lake, replace(config(), layers=("each",)))
