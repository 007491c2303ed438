"""Fine-tuning on events: times of frames, targets of crops and mixes, the model, whole runs.  Random checkpoint, real audio."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from quick import QUICK
from sounds import melody

from tonelake.embed import encode_clips, load_encoder
from tonelake.finetune import FinetuneConfig, finetune
from tonelake.finetune.config import merge_settings
from tonelake.finetune.data import AudioSource
from tonelake.finetune.frames.model import FrameModel, FrozenFrameModel
from tonelake.finetune.frames.setup import ClipEvents, cut_events
from tonelake.finetune.frames.source import EventSource, FrameClock, onsets_of
from tonelake.finetune.setup import make_setup
from tonelake.finetune.stem_mixing import MixPart
from tonelake.probes import frame_targets
from tonelake.store import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

NOTES = replace(
    QUICK, column="notes", events="notes", split="by:track", lowest=55, highest=82, hidden=16, dropout=0.0, label_smoothing=0.0
)
RATE, DATA = 24_000, Path(__file__).parents[1] / "data"


def melody_notes(seed):
    """The notes of `sounds.melody`: one each quarter of a second."""
    pitches = 57 + np.random.default_rng(seed).integers(0, 24, 10_001)[:21]
    start = np.arange(21) * 0.25
    return pl.DataFrame({"start_s": start, "end_s": np.minimum(start + 0.25, 5.2), "pitch": pitches.astype(np.float32)})


@pytest.fixture(scope="module")
def scored(sung, tmp_path_factory):
    """The lake `sung` with the notes of its melodies as events.  Do not change it."""
    import tonelake

    folder = tmp_path_factory.mktemp("scored")
    shutil.copytree(sung.uri, folder / "lake")
    lake = tonelake.open(folder / "lake", create=False, progress=False)
    clips = lake.clips.read(["recording", "source"])
    lake.events.replace(pl.concat([
        melody_notes(int(Path(source).stem)).with_columns(
            recording=pl.lit(recording), kind=pl.lit("note"), source=pl.lit("midi"), value=pl.lit("lead")
        ) for recording, source in clips.select("recording", "source").iter_rows()
    ]))
    return lake


@pytest.fixture(scope="module")
def prepared(scored):
    """Setup, encoder, and a source whose audio is made up: each sample of a clip is its number."""
    setup = make_setup(scored, NOTES)
    encoder = setup.load_encoder()
    ids = setup.task.ids.to_list()
    return setup, encoder, EventSource(
        AudioSource(Ramps(ids), ids, setup.config, RATE), setup, FrameClock(encoder, setup.config.window_s)
    )


class Ramps:
    """Decoded clips of 5.2 seconds."""

    def __init__(self, ids):
        self.number = {clip: i for i, clip in enumerate(ids)}

    def length(self, clip):
        return round(5.2 * RATE)

    def read(self, clip, begin=0, count=None):
        end = self.length(clip) if count is None else min(begin + count, self.length(clip))
        rng = np.random.default_rng(self.number[clip])
        return 0.1 * rng.standard_normal(self.length(clip)).astype(np.float32)[begin:end]


# -- times and targets


def test_frames_have_the_times_that_embed_stores(scored, prepared):
    setup, _, source = prepared
    frames = scored.frames(setup.space)
    clip = setup.task.ids[0]
    stored = frames.read(clip, 1)
    samples = source.audio.audio.length(clip)
    np.testing.assert_allclose(source.clock.centres(samples), stored.frame_s, atol=1e-5)
    (whole,) = source.whole(np.array([0]))
    np.testing.assert_allclose(whole.frame_s, stored.frame_s, atol=1e-5)
    assert len(whole.pieces) == 2 and sum(map(len, whole.pieces)) == samples             # crops of 4 s, windows of 2 s
    pieces = np.concatenate([source.clock.centres(len(piece)) for piece in whole.pieces])
    assert len(pieces) == len(stored.frame_s)


@pytest.mark.parametrize("folder", ["mert/330M-tiny", "mert2/tiny", "muq/tiny"])
def test_frames_of_a_training_pass_are_those_that_embed_computes(folder):
    import torch
    from torch.nn import functional

    encoder = load_encoder(str(DATA / folder))
    wave = melody(5.2, seed=4, rate=encoder.sample_rate)[:, 0]
    expected = encode_clips(encoder, [wave], 2.0, frames=[1])[0]
    config = replace(NOTES, task="multilabel", checkpointing=False)
    model = FrameModel(encoder, config, 84, torch.ones(84), None).eval()
    with torch.no_grad():
        (states,) = model.states([torch.from_numpy(wave)])
    stored = np.asarray(expected.frames[0], np.float32)
    assert states[1].shape == stored.shape
    np.testing.assert_allclose(FrameClock(encoder, 2.0).centres(len(wave)), expected.frame_s, atol=1e-5)
    scaled = functional.layer_norm(torch.from_numpy(stored), stored.shape[1:])
    torch.testing.assert_close(states[1], scaled, atol=5e-3, rtol=5e-3)


def test_events_of_a_crop_are_those_that_the_lake_gives_for_such_a_clip(scored, prepared):
    setup, _, _ = prepared
    row = setup.task.clips.row(3, named=True)
    for begin, length in ((0.0, 4.0), (0.55, 4.0), (1.25, 2.5), (4.9, 0.3)):
        part = pl.DataFrame({
            "clip_id": [row["clip_id"]], "recording": [row["recording"]], "start_s": [row["start_s"] + begin],
            "duration_s": [length],
        })
        expected = scored.events.of_clips(part, ["note"]).sort("start_s", "pitch")
        found = setup.events.heard(row["clip_id"], begin, length).sort("start_s", "pitch")
        assert found.select("pitch", "begins", "ends").equals(expected.select("pitch", "begins", "ends"))
        for name in ("start_s", "end_s"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-9)
    instant = pl.DataFrame({"start_s": [1.0, 2.0], "end_s": [1.0, 2.0], "begins": [True] * 2, "ends": [True] * 2})
    assert cut_events(instant, 1.0, 1.0)["start_s"].to_list() == [0.0]                    # an instant at the end is of the next


def test_targets_of_a_mix_are_the_union_or_those_of_the_stem_that_is_learned(prepared):
    setup, _, source = prepared
    ids, samples = source.audio.ids, 4 * RATE
    parts = [MixPart(ids[0], 0, 0.5), MixPart(ids[1], RATE // 2, 0.7), MixPart(ids[2], 0, 0.3)]
    own = [source.targets(i, [part], samples) for i, part in enumerate(parts)]
    union = source.targets(0, parts, samples)
    onset = setup.frame_task.groups["onset"]
    np.testing.assert_array_equal(union[:, onset], np.max(own, axis=0)[:, onset])
    assert union[:, onset].sum() > own[0][:, onset].sum() > 0
    only = EventSource(source.audio, source.setup, source.clock)
    only.one_stem = True
    np.testing.assert_array_equal(only.targets(0, parts, samples), own[0])
    drums = EventSource(source.audio, source.setup, source.clock)
    drums.silent = frozenset([ids[1], ids[2]])
    np.testing.assert_array_equal(drums.targets(0, parts, samples), own[0])
    np.testing.assert_array_equal(drums.targets(1, parts[1:2], samples), own[1])          # alone, drums are what is learned
    audio = source.audio.sound(0, parts[:2])
    expected = 0.5 * source.audio.audio.read(ids[0], 0, samples) + 0.7 * source.audio.audio.read(ids[1], RATE // 2, samples)
    np.testing.assert_allclose(audio, expected, rtol=1e-5, atol=1e-7)


def test_onsets_of_drums_and_of_notes_can_be_joined():
    columns = {"value": [None] * 3, "velocity": [90] * 3}
    notes = pl.DataFrame({
        "kind": ["note"] * 3, "start_s": [0.0, 0.5, 1.0], "end_s": [0.4, 0.9, 1.5], "begins": [False, True, True], **columns
    })
    drums = notes.with_columns(kind=pl.lit("onset"), end_s=pl.col("start_s"))
    assert onsets_of(notes)["start_s"].to_list() == [0.5, 1.0] and set(onsets_of(notes)["kind"]) == {"onset"}
    assert onsets_of(drums).equals(drums)


def test_stems_decide_whether_a_mix_is_read_whole(prepared):
    setup, _, _ = prepared
    for stems, one in ((["bass"] * 12, True), (["mix"] * 12, False), (["bass", "piano"] * 6, False), ([None] * 12, False)):
        clips = setup.task.clips.with_columns(stem=pl.Series(stems, dtype=pl.String))
        assert replace(setup, task=replace(setup.task, clips=clips)).reads_one_stem == one


def test_weights_balance_positives_and_negatives_of_each_group(prepared):
    setup, _, source = prepared
    weights, bias = source.balance()
    targets = np.concatenate([source.targets(row, source.audio.parts(row, None), 4 * RATE) for row in setup.split.train])
    for group in setup.frame_task.groups.values():
        positive = targets[:, group].sum()
        np.testing.assert_allclose(weights[group], (targets[:, group].size - positive) / positive, rtol=1e-5)
        np.testing.assert_allclose(bias[group], 0, atol=1e-4)                             # weighted, both weigh the same


# -- the model


def test_before_training_frames_equal_the_stored_ones(scored, prepared):
    """Up to their scaling, and to the float16 in which they are stored."""
    import torch
    from torch.nn import functional

    setup, encoder, source = prepared
    wave = source.audio.audio.read(setup.task.ids[0])
    expected = encode_clips(encoder, [wave], 2.0, frames=[0, 1, 3])[0].frames
    model = FrameModel(setup.load_encoder(), setup.config, 84, torch.ones(84), None).eval()
    with torch.no_grad():
        (states,) = model.states([torch.from_numpy(wave)])
    assert states.shape[0] == 4
    for layer, stored in zip((0, 1, 3), expected, strict=True):
        scaled = functional.layer_norm(torch.from_numpy(np.asarray(stored, np.float32)), stored.shape[1:])
        torch.testing.assert_close(states[layer], scaled, atol=5e-3, rtol=5e-3)


def test_loss_and_frozen_baseline_of_the_frame_model(prepared):
    import torch

    setup, _, source = prepared
    torch.manual_seed(0)
    weights, bias = source.balance()
    model = FrameModel(setup.load_encoder(), setup.config, len(weights), torch.from_numpy(weights), bias + 0.25).eval()
    batch = source.read(np.array([0, 5]), 1)
    found = model(**batch)
    x, y = (torch.cat(parts).detach().double().numpy() for parts in (found["logits"], batch["labels"]))
    p = 1 / (1 + np.exp(-x))
    expected = -(weights * y * np.log(p) + (1 - y) * np.log(1 - p)).mean()
    assert float(found["loss"].detach()) == pytest.approx(expected, rel=1e-4)
    last = [module for module in model.head.modules() if isinstance(module, torch.nn.Conv1d)][-1]
    np.testing.assert_allclose(last.bias.detach(), bias + 0.25, rtol=1e-5)
    baseline = FrozenFrameModel(model)
    assert float(baseline(**batch)["loss"].detach()) == pytest.approx(expected, rel=1e-4)          # LoRA begins as zero
    baseline(**batch)["loss"].backward()
    assert all(p.grad is None for p in model.parameters()) and all(p.grad is not None for p in baseline.parameters())
    assert {name for name, _ in baseline.parameters_of(lora=False)} == set(baseline.trained())
    classes = torch.tensor([0, -1, 2])
    model.weights = torch.tensor([1.0, 2.0, 3.0])
    logits = torch.randn(3, 3)
    logged = -torch.log_softmax(logits, dim=1)
    expected = (logged[0, 0] + 3 * logged[2, 2]) / 4
    assert float(model.frame_loss([logits], [classes]).detach()) == pytest.approx(float(expected), rel=1e-5)
    assert float(model.frame_loss([logits], [torch.full((3,), -1)]).detach()) == 0


def test_what_fits_of_a_foreign_frame_head_is_loaded(prepared, tmp_path):
    """Linear layers over one frame fit convolutions of one frame; layers are matched in order."""
    import torch

    from tonelake.finetune.initial_weights import load_initial_weights, read_initial_weights

    setup, _, _ = prepared
    config = replace(setup.config, head="mlp")
    model = FrameModel(setup.load_encoder(), config, 84, torch.ones(84), None)
    width = model.head.head.layers[0].in_channels
    theirs = {
        "model.frame_head.0.weight": torch.randn(16, width), "model.frame_head.0.bias": torch.randn(16),
        "model.frame_head.3.weight": torch.randn(84, 16), "model.frame_head.3.bias": torch.randn(84),
        "model.layer_weights": torch.randn(4), "criterion.pos_weight": torch.ones(4),
    }
    torch.save({"state_dict": theirs, "epoch": 1, "pytorch-lightning_version": "2.4.0"}, tmp_path / "best.ckpt")
    report = load_initial_weights(model, read_initial_weights(setup.lake, str(tmp_path / "best.ckpt")))
    assert report.skipped == ["criterion.pos_weight (not in this model)"] and len(report.loaded) == 5
    torch.testing.assert_close(model.head.head.layers[0].weight[:, :, 0].detach(), theirs["model.frame_head.0.weight"])
    torch.testing.assert_close(model.head.head.layers[1].bias.detach(), theirs["model.frame_head.3.bias"])
    torch.testing.assert_close(model.head.mix.detach(), theirs["model.layer_weights"])


# -- settings


@pytest.mark.parametrize(("settings", "said"), [
    ({"shift_s": 0.5}, "shift_s: change the audio, but not its events"), ({"pitch": 2.0}, "pitch: change the audio"),
    ({"mix": 0.5}, "or give --mix-stems"), ({"frames": True}, "--frames: trains on a label column"),
    ({"column": "kind"}, "takes no label column"), ({"monitor": "map"}, "--monitor map: is a metric of label columns"),
    ({"lowest": 90}, "pitches 90 to 82: the range is empty"), ({"context": 4}, "context 4: is even"),
    ({"events": "beats", "column": "beats", "mix": 0.5, "mix_stems": 2}, "whose beats differ. Add --mix-one-track 1"),
    ({"where": "track = 'none'"}, "the lake has no clips"), ({"source": "jams"}, "no clip has note events from source 'jams'"),
    ({"events": "beats", "column": "beats"}, "has beat or downbeat events.*tonelake ingest events"),
])
def test_settings_that_do_not_fit_events_are_refused(scored, settings, said):
    with pytest.raises(InputError, match=said):
        make_setup(scored, replace(NOTES, **settings))


def test_events_take_the_place_of_a_column():
    assert merge_settings(None, None, {"events": "notes"}).column == "notes"
    assert merge_settings(NOTES, None, {"events": "beats"}).column == "beats"
    assert merge_settings(NOTES, None, {"rank": 8}).column == "notes"
    with pytest.raises(InputError, match=r"label column: is required.*--events notes"):
        merge_settings(None, None, {"rank": 8})
    with pytest.raises(InputError, match="'meter' is given"):
        merge_settings(None, "meter", {"events": "notes"})
    config = FinetuneConfig("meter", task="multiclass")
    assert not {"events", "source", "lowest", "highest", "head", "context"} & config.identity().keys()
    assert NOTES.monitored == "score" and replace(NOTES, monitor="loss").monitored == "loss"


def test_changed_events_make_another_run(scored, tmp_path):
    import tonelake

    before = make_setup(scored, NOTES).manifest()
    shutil.copytree(scored.uri, tmp_path / "lake")
    lake = tonelake.open(tmp_path / "lake", create=False, progress=False)
    recording = lake.clips.read(["recording"])["recording"][0]
    rows = lake.events.read(recordings=[recording])
    lake.events.replace(rows.with_columns(pitch=pl.col("pitch") + 1))
    after = make_setup(lake, NOTES).manifest()
    assert after.changed_parts(before) == ["the events"] and after.digest != before.digest
    lake.events.forget([recording])
    notes = make_setup(lake, NOTES).notes
    assert notes == ["1 clips of recordings without note events are left out"]


def test_events_of_a_clip_are_found_without_copying_all():
    rows = pl.DataFrame({"clip_id": ["b", "a", "b"], "start_s": [0.0, 1.0, 2.0]})
    events = ClipEvents(rows)
    assert events.of("b")["start_s"].to_list() == [0.0, 2.0] and events.of("a")["start_s"].to_list() == [1.0]
    assert not len(events.of("c")) and events.of("c").schema == rows.schema


# -- runs


@pytest.mark.slow
def test_a_killed_run_on_events_resumes_and_its_epochs_can_be_evaluated(scored, tmp_path, monkeypatch):
    import tonelake
    from tonelake.evaluate import score_events

    config, runs = replace(NOTES, epochs=3, noise=0.01, gain=0.2, keep_every=1, window_s=2.0, crop_s=4.0), []
    for name in ("whole", "killed"):
        shutil.copytree(scored.uri, tmp_path / name)
        lake = tonelake.open(tmp_path / name, create=False, progress=False)
        if name == "killed":
            seen = []

            def stop(line, seen=seen):
                seen.append(line)
                if len(seen) == 2:
                    raise KeyboardInterrupt

            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr("tonelake.finetune.trainer.epoch_line", stop)
                finetune(lake, config=config, name="run")
        runs.append(finetune(lake, config=config, name="run"))
        assert not (tmp_path / name / "adapters" / "run" / "work").exists()
    whole, killed = runs
    assert whole.table("history").drop("rate").equals(killed.table("history").drop("rate"))
    assert whole.table("events").equals(killed.table("events"))
    for name, tensor in whole.head().items():
        np.testing.assert_array_equal(tensor.numpy(), killed.head()[name].numpy())

    # Scores are those of the stored events against the lake's, by mir_eval.
    scores = whole.table("scores").filter(model="tuned")
    found = whole.table("events").partition_by("clip_id", as_dict=True)
    clips = lake.clips.take(scores["clip_id"].to_list(), ["recording", "start_s", "duration_s"])
    for row, clip in zip(scores.to_dicts(), clips.to_dicts(), strict=True):
        reference = lake.events.of_clips(pl.DataFrame([clip]), ["note"])
        own = score_events("notes", reference, found[clip["clip_id"],], clip["duration_s"])
        assert row["onset_f1"] == pytest.approx(own["onset_f1"], nan_ok=True)
    main = whole.metrics["figures"]["onset_f1"]["value"]
    assert whole.metrics["main"] == "onset_f1" and main == pytest.approx(scores["onset_f1"].mean())
    best = whole.metrics["best_epoch"]
    history = whole.table("history")
    assert history["valid"].equals(history["valid_score"]) and history["epoch"][int(history["valid"].arg_max())] == best
    table = lake.evaluate_epoch("run", best).filter(figure="onset_f1")
    assert table["value"].item() == pytest.approx(main, abs=1e-6) and table["away"].item() == pytest.approx(0, abs=1e-6)
    other = lake.evaluate_epoch("run", 1 if best != 1 else 2)
    assert set(other["figure"]) == set(whole.metrics["figures"])
    listed = lake.list_finetunes().row(0, named=True)
    assert (listed["column"], listed["figure"]) == ("notes", "onset_f1") and listed["value"] == pytest.approx(main)
    longer = lake.finetune(resume="run", epochs=4, name="longer")
    assert longer.table("history")["epoch"].to_list() == [1, 2, 3, 4]
    assert longer.table("history").head(3).drop("rate").equals(history.drop("rate"))
    plan = lake.plan_finetune(config=config)
    assert plan.audio_s == pytest.approx(12 * 5.2) and plan.tracks == 12 and "(measured here)" in str(plan)
    assert frame_targets(make_setup(lake, config).frame_task, found[scores["clip_id"][0],].with_columns(
        begins=True, ends=True), np.arange(0, 5, 0.02), period_s=0.02).any()
    lake.embed(adapter="run", space="tuned", device="cpu", window=2.0)
    tuned = lake.spaces.get("tuned")
    assert tuned.adapter == whole.metrics["adapter"] and len(lake.vectors(tuned).ids()) == 12
