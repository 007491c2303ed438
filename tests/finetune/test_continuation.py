"""Continuing a training: of a finished run, of a checkpoint folder, and of a checkpoint file of another project."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from quick import QUICK, tuned

from tonelake.finetune import FinetuneRun, finetune
from tonelake.finetune.checkpoint_file import read_checkpoint_file
from tonelake.finetune.foreign_checkpoint import match_optimizer
from tonelake.finetune.initial_weights import load_initial_weights
from tonelake.store import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

STEADY = replace(QUICK, crop_s=6.0, patience=9)


def same_training(one: FinetuneRun, other: FinetuneRun) -> None:
    """Assert that two runs have the same epochs, weights and scores."""
    assert one.table("history").equals(other.table("history"))
    assert one.table("scores").equals(other.table("scores"))
    for name, tensor in one.head().items():
        np.testing.assert_array_equal(tensor.numpy(), other.head()[name].numpy())


@pytest.mark.slow
def test_a_finished_run_continues_to_the_result_of_one_long_training(mine, tmp_path):
    """Fine-tuning and frozen baseline alike; settings and column are the run's, and both runs stay."""
    whole = finetune(mine, config=STEADY, name="whole", epochs=4)
    finetune(mine, config=STEADY, name="short")
    longer = finetune(mine, resume="short", epochs=4, name="long")
    same_training(whole, longer)
    assert longer.config.column == "kind" and longer.config.resume == "short"
    assert any("training continues that of short after 2 epochs" in note for note in longer.metrics["notes"])
    assert finetune(mine, resume="short", epochs=4, name="long").metrics["finished"] == longer.metrics["finished"]
    with pytest.raises(InputError, match="Give --epochs above 4"):
        finetune(mine, resume="long", epochs=4, name="longer")
    with pytest.raises(InputError, match="made 2 steps an epoch, here there are 3"):
        finetune(mine, resume="short", epochs=4, together=2)
    with pytest.raises(InputError, match="Keep its sides with --split run:short"):
        finetune(mine, resume="short", epochs=4, split_seed=3)
    with pytest.raises(InputError, match="has no seed 1"):
        finetune(mine, resume="short", epochs=4, seeds=2)
    # A checkpoint folder, as an interrupted run leaves one: here the kept one of the finished run.
    kept = Path(mine.uri) / "adapters" / "short" / "checkpoints" / "seed-0"
    index = json.loads((kept / "index.json").read_text())
    for training, part in (("tuned", "work"), ("frozen", "work/frozen")):
        for name, _ in index[training]:
            shutil.copytree(kept / training / name, tmp_path / part / name)
    folder = tmp_path / "work" / index["tuned"][0][0]
    same_training(whole, finetune(mine, config=STEADY, resume=str(folder / "model.safetensors"), epochs=4, name="folder"))
    (folder / "optimizer.pt").write_bytes(b"\x80\x02cos\nsystem\n(X\x04\x00\x00\x00truetR.")
    with pytest.raises(InputError, match="refused, because it holds os"):
        finetune(mine, config=STEADY, resume=str(folder), epochs=5)
    shutil.rmtree(kept.parent)
    with pytest.raises(InputError, match="Begin from its weights with --start short"):
        finetune(mine, resume="short", epochs=5)


@pytest.mark.slow
def test_a_run_that_stopped_early_continues_with_more_patience(mine):
    settings = replace(STEADY, lora_rate=1e-30, head_rate=1e-30, patience=1, epochs=6)
    stopped = finetune(mine, config=settings, name="stopped")
    assert stopped.metrics["epochs"] == 2
    with pytest.raises(InputError, match="stopped early, after 1 epochs without improvement"):
        finetune(mine, resume="stopped")
    same_training(finetune(mine, config=settings, patience=3), finetune(mine, resume="stopped", patience=3))


def foreign_file(model, path, **more):
    """Write a checkpoint as another project does, after two steps of its AdamW; return its tensors by name."""
    torch.manual_seed(2)
    lora = {n.removeprefix("peft."): torch.nn.Parameter(torch.randn_like(p)) for n, p in model.parameters_of(lora=True)}
    head = {n.removeprefix("head."): torch.nn.Parameter(torch.randn_like(p)) for n, p in model.parameters_of(lora=False)}
    groups = [{"params": list(head.values()), "lr": 1e-3}, {"params": list(lora.values()), "lr": 2e-4}]
    optimizer = torch.optim.AdamW(groups)
    for _ in range(2):
        sum((p ** 2).sum() for p in [*lora.values(), *head.values()]).backward()
        optimizer.step()
    content = {
        "head_state_dict": {n: p.detach() for n, p in head.items()},
        "lora_state_dict": {n: p.detach() for n, p in lora.items()},
        "epoch": 1, "best_val_acc": np.float64(0.5), "optimizer_state_dict": optimizer.state_dict(),
    }
    torch.save(content | more, path)
    return lora, head, optimizer


def test_the_optimizer_of_another_project_is_matched_by_order_and_shape(sung, tmp_path):
    model, _ = tuned(sung, QUICK)
    lora, head, theirs = foreign_file(model, tmp_path / "best.pt")
    weights = read_checkpoint_file(tmp_path / "best.pt")
    report = load_initial_weights(model, weights)
    ours = torch.optim.AdamW([{"params": [p for _, p in model.parameters_of(lora=lora)]} for lora in (True, False)])
    state, problem = match_optimizer(weights, report, model, ours)
    assert problem == "" and [group["lr"] for group in state["param_groups"]] == [2e-4, 1e-3]
    ours.load_state_dict(state)
    mine = dict(model.named_parameters())
    for prefix, parameters in (("peft.", lora), ("head.", head)):
        for name, parameter in parameters.items():
            for key in ("exp_avg", "exp_avg_sq", "step"):
                torch.testing.assert_close(ours.state[mine[prefix + name]][key], theirs.state[parameter][key])
    for other, said in (({"state": {}}, "not that of AdamW"), ({"state": {}, "param_groups": []}, "not those of the file")):
        assert match_optimizer(replace(weights, optimizer=other), report, model, ours)[1].endswith(said)
    assert match_optimizer(replace(weights, optimizer={}), report, model, ours) == (None, "it has none")
    skipped = report._replace(sources={})
    assert "not all parameters" in match_optimizer(weights, skipped, model, ours)[1]


@pytest.mark.slow
def test_a_checkpoint_file_continues_after_its_epochs(mine, tmp_path):
    model, _ = tuned(mine, QUICK)
    foreign_file(model, tmp_path / "best.pt")
    run = finetune(mine, config=STEADY, resume=str(tmp_path / "best.pt"), epochs=3)
    assert run.table("history")["epoch"].to_list() == [2, 3] and run.metrics["epochs"] == 2
    assert run.metrics["started_from"].endswith("training continues after 1 epochs, with the state of its optimizer")
    assert run.table("history")["rate"].head(1).item() == pytest.approx(2e-4)             # of the file, not of the settings
    assert run.table("seeds")["frozen_epochs"].item() == 3
    foreign_file(model, tmp_path / "bare.pt", epoch=None, optimizer_state_dict=None)
    run = finetune(mine, config=STEADY, resume=str(tmp_path / "bare.pt"), epochs=1)
    assert run.metrics["started_from"].endswith("begins at the first, without the state of its optimizer (it has none)")
    with pytest.raises(InputError, match="Give --epochs above 1"):
        finetune(mine, config=STEADY, resume=str(tmp_path / "best.pt"), epochs=1)


@pytest.mark.parametrize(("settings", "said"), [
    ({"resume": "none"}, "no fine-tuning 'none'"), ({"resume": "a.pt", "start": "b"}, "both name initial weights"),
    ({"resume": "a.pt", "seeds": 2}, "holds one seed"), ({"resume": "a.pt", "schedule": "cosine"}, "Use --schedule plateau"),
    ({"resume": "a.pt"}, "a.pt: cannot be read"),
])
def test_settings_that_cannot_continue_are_refused(sung, settings, said):
    with pytest.raises(InputError, match=said):
        finetune(sung, config=QUICK, **settings)
