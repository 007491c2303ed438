"""Fine-tuning: the model, its training and its settings.  Random checkpoints, real audio."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from quick import QUICK, tuned
from sounds import melody

from tonelake.embed import encode_clips, load_encoder
from tonelake.finetune import FinetuneConfig, FinetuneRun, finetune, plan_finetune, tuning
from tonelake.finetune.config import merge_settings
from tonelake.finetune.kept_epochs import kept_epochs
from tonelake.finetune.model import Head, LoraModel
from tonelake.store import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


# -- the model


def test_the_head_equals_its_formula_in_numpy():
    import torch
    from scipy.special import erf

    torch.manual_seed(3)
    head = Head(layers=4, width=10, outputs=3, hidden=6, dropout=0.4).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_()
        given = torch.randn(5, 4, 10)
        found = head(given).numpy()
    p = {name: tensor.numpy().astype(np.float64) for name, tensor in head.state_dict().items()}
    weights = np.exp(p["layer_scores"]) / np.exp(p["layer_scores"]).sum()
    mixed = np.tensordot(weights, given.numpy().astype(np.float64), axes=([0], [1]))
    normed = (mixed - mixed.mean(1, keepdims=True)) / np.sqrt(mixed.var(1, keepdims=True) + 1e-5)
    inner = (normed * p["norm.weight"] + p["norm.bias"]) @ p["inner.weight"].T + p["inner.bias"]
    expected = (inner * (1 + erf(inner / np.sqrt(2))) / 2) @ p["outer.weight"].T + p["outer.bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", ["95M-tiny", "330M-tiny"])
def test_before_training_pooled_layers_equal_the_stored_vectors(checkpoints, variant):
    """LoRA starts as zero: the head's inputs are the vectors of `embed`, mean and maximum, for every layer."""
    import torch

    config = replace(QUICK, task="multiclass", checkpointing=False)
    wave = melody(5.2, seed=4, rate=24_000)[:, 0]
    expected = encode_clips(load_encoder(str(checkpoints / variant)), [wave], 2.0)[0]
    model = LoraModel(load_encoder(str(checkpoints / variant)), config, 2).eval()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = model.pooled([torch.from_numpy(wave), torch.from_numpy(wave[:60_000])])[0].detach().numpy()
        dim = found.shape[1] // 2
        for layer, (mean, maximum) in enumerate(zip(expected.mean, expected.max, strict=True)):
            scale = np.abs(maximum).max()
            np.testing.assert_allclose(found[layer, :dim], mean, atol=2e-5 * scale)
            np.testing.assert_allclose(found[layer, dim:], maximum, atol=2e-5 * scale)


def test_gradient_checkpointing_does_not_change_gradients(mine):
    import torch

    grads = []
    for checkpointing in (False, True):
        model, _ = tuned(mine, replace(QUICK, checkpointing=checkpointing, lora_dropout=0.0, dropout=0.0))
        wave = torch.from_numpy(melody(2.0, seed=1, rate=24_000)[:, 0])
        model.train()(torch.tensor([1]), [wave])["loss"].backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() and any(".lora_B" in name for name in grads[0])
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("variant", "expected"), [("95M", 589_824), ("330M", 1_572_864)])
def test_the_number_of_trainable_parameters_of_mert_matches_the_literature(checkpoints, variant, expected):
    import torch
    from transformers import HubertModel

    from tonelake.embed.encoders.checkpoint import read_config
    from tonelake.embed.encoders.hubert import HubertPass

    config, _ = read_config(checkpoints / "hub_configs" / variant)
    with torch.device("meta"):
        backbone = HubertModel(config).requires_grad_(False)
        encoder = type("Encoder", (), {
            "model": backbone, "layers": tuple(range(config.num_hidden_layers + 1)), "dims": (config.hidden_size,),
            "sample_rate": 24_000, "lora_targets": ("q_proj", "v_proj"),
            "training_pass": lambda: HubertPass(backbone, backbone.encoder.layers, True),
        })
        model = LoraModel(encoder, FinetuneConfig("kind", task="multiclass"), 10)
    names = [name for name, _ in model.parameters_of(lora=True)]
    assert sum(p.numel() for _, p in model.parameters_of(lora=True)) == expected
    assert len(names) == 4 * config.num_hidden_layers                # A and B of q_proj and v_proj
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        *names, *(name for name, _ in model.parameters_of(lora=False))
    }


# -- training


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_result_of_an_undisturbed_one(sung, tmp_path, monkeypatch, caplog):
    """With dropout, random crops and augmentation, after a checkpoint whose writing was interrupted."""
    import tonelake

    config = replace(QUICK, epochs=3, crop_s=3.0, noise=0.01, shift_s=0.2, gain=0.2)
    runs = []
    for name in ("whole", "killed"):
        shutil.copytree(sung.uri, tmp_path / name)
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
            work = tmp_path / name / "adapters" / "run" / "work"
            steps = sorted(int(f.name.split("-")[1]) for f in work.glob("checkpoint-*"))
            shutil.copytree(work / f"checkpoint-{steps[-1]}", work / "checkpoint-999")
            (work / "checkpoint-999" / "model.safetensors").write_bytes(b"cut o")
            with pytest.raises(InputError, match="no fine-tuning"):
                FinetuneRun.named(lake, "run")
        caplog.clear()
        with caplog.at_level("INFO", "tonelake.finetune"):
            runs.append(finetune(lake, config=config, name="run"))
        assert any("resuming from checkpoint" in message for message in caplog.messages) == (name == "killed")
        assert not (tmp_path / name / "adapters" / "run" / "work").exists()
    whole, killed = runs
    assert whole.table("history").drop("rate").equals(killed.table("history").drop("rate"))
    for name, tensor in whole.head().items():
        np.testing.assert_array_equal(tensor.numpy(), killed.head()[name].numpy())
    saved = [tmp_path / name / "adapters/run/adapter/adapter_model.safetensors" for name in ("whole", "killed")]
    assert saved[0].read_bytes() == saved[1].read_bytes()


@pytest.mark.slow
def test_a_finished_run_is_returned_and_its_name_is_protected(mine):
    run = mine.finetune(config=QUICK, name="first")
    stamp = run.metrics["finished"]
    trained = mine.review("first", side="train", k=None)                         # by the kept weights, without dropout
    assert (trained["target"] == trained["predicted"]).mean() == pytest.approx(run.metrics["train"])
    sides = mine.review("first", side="all", k=None).join(run.table("split"), on="clip_id")
    assert len(sides) == 12 and (sides["side"] == sides["side_right"]).all()
    assert mine.finetune(config=QUICK, name="first").metrics["finished"] == stamp
    with pytest.raises(InputError, match="holds another fine-tuning"):
        mine.finetune(config=QUICK, name="first", seed=1)
    assert mine.finetune(config=QUICK, name="first", again=True).metrics["finished"] != stamp
    again = FinetuneConfig.from_file(Path(mine.uri) / "adapters" / "first" / "config.yaml")
    assert mine.finetune(config=again, name="first").name == "first"


def test_frozen_weights_stay_and_trainable_ones_change(mine, monkeypatch):
    import torch

    model, _ = tuned(mine, QUICK)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    kept, real = {}, tuning.make_model
    monkeypatch.setattr(tuning, "make_model", lambda *given: kept.setdefault("model", real(*given)))
    mine.finetune(config=QUICK)
    for name, parameter in kept["model"].named_parameters():
        same = torch.equal(parameter.detach(), before[name])
        assert same == (not parameter.requires_grad), name


@pytest.mark.slow
def test_training_from_stored_frames_equals_training_from_audio_with_frozen_lower_blocks(mine):
    """Up to the rounding of stored frames to float16."""
    runs = [
        mine.finetune(config=QUICK, name=name, above=1, frames=frames, crop_s=6.0, lora_dropout=0.0, dropout=0.0, epochs=3)
        for name, frames in (("heard", False), ("stored", True))
    ]
    heard, stored = (run.table("history") for run in runs)
    np.testing.assert_allclose(heard["loss"], stored["loss"], rtol=2e-3)
    np.testing.assert_allclose(heard["valid_loss"], stored["valid_loss"], rtol=2e-3)
    assert runs[0].metrics["trainable_lora"] == runs[1].metrics["trainable_lora"] == 2 * 2 * 2 * 2 * 48
    assert list(runs[1].metrics["weights_of_layers"]) == ["1", "2", "3"]


@pytest.mark.slow
@pytest.mark.parametrize("frames", [False, True])
def test_bfloat16_results_are_close_to_float32s(mine, frames):
    runs = [
        mine.finetune(config=QUICK, precision=precision, frames=frames, epochs=1, lora_dropout=0.0, dropout=0.0, crop_s=6.0)
        for precision in ("float32", "bfloat16")
    ]
    exact, coarse = (run.table("history") for run in runs)
    np.testing.assert_allclose(exact["loss"], coarse["loss"], rtol=0.05)
    assert exact["loss"].to_list() != coarse["loss"].to_list()


def test_missing_stored_frames_are_reported_with_the_remedy(mine):
    with pytest.raises(InputError, match=r"layer 2: 12 of 12 clips have no stored frames.*--frames 2"):
        mine.finetune(config=QUICK, above=2, frames=True)
    with pytest.raises(InputError, match="change the audio"):
        mine.finetune(config=QUICK, frames=True, noise=0.1)


def test_multilabel_metrics_cover_all_tags_and_the_primary_one(mine, rendered_plots):
    from sklearn.metrics import average_precision_score, f1_score

    run = mine.finetune(config=QUICK, column="tags", monitor="accuracy")
    history, seeds = run.table("history"), run.table("seeds")
    assert run.config.monitor == "accuracy" and history["valid"].equals(history["valid_accuracy"])
    (log,) = (Path(mine.uri) / "adapters" / run.name / "tensorboard").glob("events.out.*")
    assert {tag for tag in (b"eval/accuracy", b"eval/map", b"eval/loss") if log.read_bytes().count(tag) >= 2} == {
        b"eval/accuracy", b"eval/map", b"eval/loss",
    }
    assert history["valid_map"].is_between(0, 1).all() and history["valid_map"].to_list() != history["valid"].to_list()
    assert seeds["best_epoch"].item() == history["epoch"][int(history["valid"].arg_max())]
    assert seeds["valid"].item() == history["valid"].max() and run.metrics["main"] == "map"
    predictions, classes = run.table("predictions"), run.table("classes")
    scores = np.array(predictions["scores"].to_list())
    names = classes["name"].to_list()
    true = np.array([[name in tags for name in names] for tags in predictions["target"].to_list()])
    figures = run.metrics["figures"]
    present = true.any(axis=0)
    macro = f1_score(true[:, present], scores[:, present] >= 0.5, average="macro", zero_division=0)
    assert figures["macro_f1_present"]["value"] == pytest.approx(macro, abs=1e-6)
    expected = np.mean([average_precision_score(true[:, i], scores[:, i]) for i in np.flatnonzero(present)])
    assert figures["map"]["value"] == pytest.approx(expected, abs=1e-6)
    first = [tags[0] for tags in predictions["target"].to_list()]
    hits = [names[i] == tag for i, tag in zip(scores.argmax(axis=1), first, strict=True)]
    assert figures["primary_accuracy"]["value"] == pytest.approx(np.mean(hits), abs=1e-6)
    ordered = np.sort(scores, axis=1)
    assert figures["confidence_gap"]["value"] == pytest.approx((ordered[:, -1] - ordered[:, -2]).mean(), abs=1e-6)
    assert {"frozen_primary_accuracy", "frozen_ap", "primary_accuracy"} <= set(classes.columns)
    assert "primary accuracy" in run.report() and "frozen" in run.report() and "weights.png" in run.files.names(".png")


def test_regression_predicts_in_the_targets_own_units_and_any_kept_epoch_can_be_evaluated(mine):
    run = mine.finetune(
        config=QUICK, column="speed", monitor="loss", epochs=3, keep_every=2, schedule="cosine", warmup_steps=1,
        cosine_floor=1e-3,
    )
    assert run.metrics["main"] == "r2" and "rmse" in run.metrics["figures"]
    history, seeds = run.table("history"), run.table("seeds")
    assert history["valid"].equals(history["valid_loss"]) and history["valid_r2"].null_count() == 0
    assert seeds["valid"].item() == history["valid_loss"].min()                  # the lowest loss is the best
    assert seeds["best_epoch"].item() == history["epoch"][int(history["valid_loss"].arg_min())]
    assert run.table("predictions")["predicted_speed"].is_finite().all()
    best = seeds["best_epoch"].item()
    assert set(kept_epochs(run)) == {2, 3, best}                                 # every second, the last and the best
    rate = 1e-3 + (QUICK.lora_rate - 1e-3) * 0.5 * (1 + np.cos(0.8 * np.pi))     # of the last of 6 steps, one of them warm-up
    assert history["rate"][-1] == pytest.approx(rate)
    chosen, other = (mine.evaluate_epoch(run.name, epoch) for epoch in (best, 2 if best == 3 else 3))
    for row in chosen.to_dicts():
        own = run.metrics["figures"][row["figure"]]
        assert row["value"] == pytest.approx(own["value"], rel=1e-4) and row["best_epoch"] == best
        assert row["low"] == (None if own["low"] is None else pytest.approx(own["low"], rel=1e-4, abs=1e-6))
        assert row["away"] is None or row["away"] == pytest.approx(0, abs=1e-6)
    assert chosen["figure"].to_list() == other["figure"].to_list()
    assert other["value"].to_list() != pytest.approx(chosen["value"].to_list(), rel=1e-4)
    assert other["away"].drop_nulls().to_list() == pytest.approx(
        (other["value"] - chosen["value"]).filter(other["away"].is_not_null()).to_list(), abs=1e-6
    )
    with pytest.raises(InputError, match=r"has not kept the weights of epoch 4\. Kept are .*2, 3.*--keep-every"):
        mine.evaluate_epoch(run.name, 4)
    with pytest.raises(InputError, match="has no seed 5"):
        mine.evaluate_epoch(run.name, 2, seed=5)


def test_the_multilabel_loss_equals_its_formula(mine):
    import torch

    model, _ = tuned(mine, replace(QUICK, column="tags", label_smoothing=0.1), outputs=3)
    model.weights = torch.tensor([2.0, 0.5, 1.0])
    logits, labels = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    p = 1 / (1 + np.exp(-logits.numpy()))
    wanted = np.array([[1.0, 0.1, 0.1]])
    expected = -(model.weights.numpy() * wanted * np.log(p) + (1 - wanted) * np.log(1 - p)).mean()
    assert float(model.loss(logits, labels)) == pytest.approx(expected, rel=1e-5)


def test_the_cosine_schedule_warms_up_in_steps_and_ends_at_its_floor():
    """A group whose rate is below the floor keeps its rate."""
    import torch

    from tonelake.finetune.trainer import cosine_schedule, training_arguments

    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    rates = (1e-3, 2e-5, 5e-7)
    optimizer = torch.optim.AdamW([{"params": [p], "lr": rate} for p, rate in zip(parameters, rates, strict=True)])
    schedule = cosine_schedule(optimizer, warmup=4, steps=24, floor=1e-6)
    seen = [schedule.get_last_lr()]
    for _ in range(30):
        optimizer.step()
        schedule.step()
        seen.append(schedule.get_last_lr())
    found = np.array(seen)
    np.testing.assert_allclose(found[:5], np.outer(np.arange(5) / 4, rates))
    half = 0.5 * (1 + np.cos(np.pi * np.arange(21) / 20))
    for column, rate in enumerate(rates[:2]):
        np.testing.assert_allclose(found[4:25, column], 1e-6 + (rate - 1e-6) * half)
    np.testing.assert_allclose(found[24:], np.tile([1e-6, 1e-6, 5e-7], (7, 1)))
    np.testing.assert_allclose(found[4:, 2], 5e-7)
    config = replace(QUICK, task="multiclass", schedule="cosine", warmup_steps=7)
    assert training_arguments(config, Path("x"), board=False).get_warmup_steps(1_000) == 7
    assert training_arguments(replace(config, warmup_steps=None), Path("x"), board=False).get_warmup_steps(1_000) == 50


# -- settings


def test_added_clips_extend_a_benchmark_without_changing_its_test_set(mine):
    from tonelake.finetune.setup import make_setup

    clips = mine.clips.read().sort("source")
    sides = ["train", "train", "test", "test", "valid", "train"] + [None] * 6
    mine.clips.set_labels(clips.select("clip_id").with_columns(fold=pl.Series(sides)))
    setup = make_setup(mine, replace(QUICK, split="column:fold+track"))
    folds = setup.task.clips["fold"]
    assert set(folds.gather(setup.split.test)) == {"test"} and len(setup.split.test) == 2
    assert len(setup.split.train) + len(setup.split.valid) == 10
    assert folds.gather(setup.split.train).null_count() >= 4
    assert any("6 clips are added to train and valid" in note for note in setup.notes)


def test_a_benchmark_and_added_clips_share_known_classes_and_a_validation_share(mine):
    from tonelake.finetune.setup import make_setup

    clips = mine.clips.read().sort("source")
    sides = ["train", "valid", "test", "test"] + [None] * 8
    meters = [["4"], ["3"], ["4"], ["3"], ["5", "13"], ["13"], ["5"], ["4", "3"], ["3"], ["4"], ["5"], ["3"]]
    mine.clips.set_labels(clips.select("clip_id").with_columns(fold=pl.Series(sides), meters=pl.Series(meters)))
    wanted = {"column": "meters", "split": "column:fold+track", "val_share": 0.4, "classes": ("3", "4", "5")}
    setup = make_setup(mine, replace(QUICK, **wanted))
    assert setup.task.names == ("3", "4", "5") and len(setup.task) == 12 and len(setup.split.test) == 2
    assert setup.task.clips["fold"].gather(setup.split.valid).null_count() == 3          # 0.4 of 8
    assert any("2 labels other than 3, 4, 5 are dropped from 2 clips; 1 of these keep no label" in n for n in setup.notes)
    tags = dict(zip(setup.task.clips["clip_id"], setup.primary_class(), strict=True))
    assert [tags[clip] for clip in clips["clip_id"]] == [1, 0, 1, 0, 2, -1, 2, 1, 0, 1, 2, 0]


def test_the_head_can_leave_out_the_first_layers(mine):
    """Layer 0 has no weight, but blocks from 1 on are adapted as before."""
    import torch

    wave = [torch.from_numpy(melody(2.0, seed=1, rate=24_000)[:, 0])]
    (every, _), (later, _) = (tuned(mine, replace(QUICK, first_layer=first)) for first in (None, 1))
    with torch.no_grad():
        torch.testing.assert_close(later.eval().pooled(wave), every.eval().pooled(wave)[:, 1:])
    assert len(later.layer_weights()) == len(every.layer_weights()) - 1
    assert [n for n, _ in later.parameters_of(lora=True)] == [n for n, _ in every.parameters_of(lora=True)]


def test_a_recipe_sets_what_options_and_its_own_file_do_not(tmp_path):
    config = merge_settings(None, "meters", {"recipe": "beatmeter", "epochs": 3})
    assert (config.epochs, config.noise, config.shift_s, config.first) == (3, 0.01, 0.5, 1)
    assert config.recipe_changes == ["epochs 3 instead of 80"]
    (tmp_path / "my.yaml").write_text("column: meters\nrecipe: beatmeter\nnoise: 0\nclasses: [3, 4]\n")
    config = merge_settings(tmp_path / "my.yaml", None, {"rank": 8})
    assert (config.epochs, config.noise, config.rank, config.classes) == (80, 0.0, 8, ("3", "4"))
    assert merge_settings(QUICK, None, {"recipe": "beatmeter"}).epochs == 80
    (tmp_path / "bad.yaml").write_text("column: meters\nrecipe: beatmetre\n")
    with pytest.raises(InputError, match="--recipe beatmetre: unknown"):
        merge_settings(tmp_path / "bad.yaml", None, {})


def test_settings_of_later_releases_keep_the_digest_of_earlier_runs():
    config = FinetuneConfig("meter")
    assert not {"classes", "val_share", "first_layer", "recipe", "seeds", "monitor"} & config.identity().keys()
    tags = replace(config, task="multilabel")
    assert replace(tags, monitor="map").digest(b"") == tags.digest(b"") != replace(tags, monitor="accuracy").digest(b"")
    assert config.digest(b"") == replace(config, recipe="beatmeter").digest(b"")
    changed = [replace(config, **one) for one in ({"classes": ("3",)}, {"val_share": 0.1}, {"first_layer": 1})]
    assert len({config.digest(b""), *(one.digest(b"") for one in changed)}) == 4
    resolved = config.resolved(768, "float32", "cpu", "mert", "multiclass", ("q_proj", "v_proj"))
    assert resolved.digest(b"") == "cda5368f48843973aa2727ea1b18eeb4"            # of the release whose default these were


@pytest.mark.parametrize(("settings", "said"), [
    ({"val_share": 0.2}, "Use --shares"), ({"recipe": "x"}, "unknown. Choose beatmeter"),
    ({"monitor": "r2"}, "Choose accuracy, map or loss"),
    ({"first_layer": 4}, "has layers 0 to 3"), ({"first_layer": 0, "above": 1}, "below layer 1"),
    ({"rank": 0}, "'rank': 0 is out of range"), ({"schedule": "linear"}, "Choose plateau or cosine"),
    ({"window_s": 0.1}, "'window_s': 0.1 is out of range"),
    ({"batch": 64}, "'batch': 64 exceeds"), ({"above": 3}, "3 blocks, and none above this layer"),
    ({"device": "tpu"}, "device 'tpu': unknown"),
    ({"warmup_steps": 10}, "'warmup_steps': belongs to the cosine schedule"), ({"mix_gain_db": 3.0}, "'mix_gain_db': 3.0"),
    ({"cosine_floor": 1e-6}, "'cosine_floor': belongs to"), ({"mix_stems": 3}, "no clip is mixed"),
    ({"split": "folds:3"}, "uses one split"), ({"split": "run:none"}, "no fine-tuning 'none'"),
    ({"column": "nothing"}, "nothing"), ({"shares": (0.8, 0.0, 0.2)}, "leave no validation set"),
])
def test_invalid_settings_are_refused(mine, settings, said):
    with pytest.raises(InputError, match=said):
        mine.finetune(config=QUICK, **settings)


@pytest.mark.slow
def test_spectral_descriptors_cannot_be_fine_tuned(mine):
    mine.embed("spectral")
    with pytest.raises(InputError, match="no trainable weights"):
        mine.finetune(config=QUICK, space="spectral")


def test_settings_are_read_from_yaml_by_type(tmp_path):
    (tmp_path / "my.yaml").write_text("column: meter\nlora_rate: 1e-4\ntargets: [q_proj, k_proj]\nshares: [0.6, 0.2, 0.2]\n")
    config = FinetuneConfig.from_file(tmp_path / "my.yaml")
    assert (config.lora_rate, config.targets, config.shares) == (1e-4, ("q_proj", "k_proj"), (0.6, 0.2, 0.2))
    assert merge_settings(config, None, {"rank": 8}).rank == 8
    (tmp_path / "bad.yaml").write_text("column: meter\nlearning: fast\n")
    with pytest.raises(InputError, match="setting 'learning': does not exist"):
        FinetuneConfig.from_file(tmp_path / "bad.yaml")


def test_every_setting_is_a_command_line_option():
    from dataclasses import fields

    import typer

    from tonelake.cli import app

    options = {param.name for param in typer.main.get_command(app).commands["finetune"].params}
    assert {f.name for f in fields(FinetuneConfig)} <= options


def test_a_plan_measures_without_storing_anything(mine):
    before = sorted(mine.files("adapters").folders())
    plan = plan_finetune(mine, config=QUICK, price=2.0)
    assert plan.steps == 2 and plan.epochs == 2 and plan.step_s > 0 and plan.trainable_lora == 3 * 2 * 2 * 2 * 48
    assert plan.cost == pytest.approx(2 * plan.seconds / 3600) and "cost" in str(plan)
    assert sorted(mine.files("adapters").folders()) == before


def test_unreadable_clips_are_left_out_and_reported(mine):
    sources = mine.clips.read().sort("source")["source"]
    moved = Path(sources[0]).with_suffix(".gone")
    Path(sources[0]).rename(moved)
    try:
        run = mine.finetune(config=QUICK, epochs=1)
    finally:
        moved.rename(Path(sources[0]))
    assert run.metrics["clips"] == 11
    assert any("1 clips are left out" in note for note in run.metrics["notes"])
