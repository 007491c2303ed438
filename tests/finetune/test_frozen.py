"""The frozen baseline and several seeds: equal training, paired differences, resumption, and the files of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from quick import QUICK

from tonelake.finetune import FinetuneConfig, FinetuneRun, finetune, list_finetunes
from tonelake.finetune.frozen import PooledSource, append_pooled, count_complete
from tonelake.store import InputError, LakeError, silent_progress

pytestmark = pytest.mark.usefixtures("one_thread")

STILL = replace(QUICK, lora_rate=1e-30, lora_dropout=0.0, clip_norm=1e9)     # an adapter that stays at zero


def scores_of(run, column):
    return np.array(run.table("scores")[column].to_list())


@pytest.mark.parametrize("settings", [
    {}, pytest.param({"above": 1, "frames": True}, marks=pytest.mark.slow),
    pytest.param({"column": "tags"}, marks=pytest.mark.slow),
])
def test_the_frozen_baseline_equals_a_fine_tuning_whose_adapter_stays_at_zero(mine, settings):
    """Same head, initial weights, layers, pooling, batches and training: the adapter is the one difference."""
    run = mine.finetune(config=replace(STILL, crop_s=6.0), **settings)
    np.testing.assert_allclose(scores_of(run, "frozen"), scores_of(run, "scores"), atol=1e-5)
    metrics, main = run.metrics, run.metrics["main"]
    assert metrics["frozen"]["figures"][main] == metrics["figures"][main]
    assert metrics["difference"][main]["value"] == 0
    assert metrics["difference"][main]["low"] < 0 < metrics["difference"][main]["high"]      # three clips prove little
    assert metrics["frozen"]["train"] == metrics["train"]
    assert not mine.files("probes").folders()


def test_figures_of_several_seeds_are_means_and_the_best_on_validation_is_kept(mine):
    run = mine.finetune(config=replace(QUICK, epochs=1, crop_s=6.0), name="both", seeds=2)
    seeds, metrics = run.table("seeds"), run.metrics
    assert seeds["seed"].to_list() == [0, 1] and seeds["kept"].sum() == 1
    kept = seeds.row(by_predicate=pl.col("kept"), named=True)
    assert kept["valid"] == seeds["valid"].max() and metrics["kept_seed"] == kept["seed"]
    assert metrics["figures"]["accuracy"]["value"] == pytest.approx(seeds["test"].mean(), abs=1e-6)
    assert metrics["frozen"]["figures"]["accuracy"]["value"] == pytest.approx(seeds["frozen"].mean(), abs=1e-6)
    assert metrics["difference"]["accuracy"]["value"] == pytest.approx(seeds["difference"].mean(), abs=1e-6)
    assert metrics["over"] == "over 3 tracks and 2 seeds" and metrics["baselines"]["chance"]["accuracy"]["value"] == 0.5
    predictions, scores = run.table("predictions"), run.table("scores")
    assert predictions["scores"].to_list() == scores.filter(seed=kept["seed"])["scores"].to_list()
    assert f"those of seed {kept['seed']}" in run.report() and "over 3 tracks and 2 seeds" in run.report()
    assert f"The adapter is that of seed {kept['seed']}" in run.summary()
    listed = mine.list_finetunes().row(0, named=True)
    assert (listed["seeds"], listed["difference"], listed["over"], listed["chance"]) == (
        2, metrics["difference"]["accuracy"]["value"], metrics["over"], 0.5,
    )
    with pytest.raises(InputError, match="holds another fine-tuning"):
        mine.finetune(config=replace(QUICK, epochs=1, crop_s=6.0), name="both")


@pytest.mark.slow
def test_several_seeds_resume_and_equal_single_ones(mine, monkeypatch):
    config = replace(QUICK, crop_s=6.0)
    seen = []

    def stop(line):
        seen.append(line)
        if len(seen) == 3:                                   # in the second seed
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("tonelake.finetune.trainer.epoch_line", stop)
        finetune(mine, config=config, name="both", seeds=2)
    work = Path(mine.uri) / "adapters" / "both" / "work"
    assert (work / "seed-0.safetensors").is_file() and not (work / "seed-1.safetensors").exists()
    trained = []
    with monkeypatch.context() as patch:
        patch.setattr("tonelake.finetune.trainer.epoch_line", lambda line: trained.append(line) or "")
        both = finetune(mine, config=config, name="both", seeds=2)
    assert len(trained) <= 2 and not work.exists()           # the first seed is not trained again
    single = finetune(mine, config=config, seed=1, split="run:both")
    table = both.table("scores")
    for column in ("scores", "frozen"):
        ours = np.array(table.filter(seed=1).sort("clip_id")[column].to_list())
        alone = np.array(single.table("scores").sort("clip_id")[column].to_list())
        np.testing.assert_allclose(ours, alone, atol=1e-5)
    if both.metrics["kept_seed"] == 1:
        for name, tensor in both.head().items():
            np.testing.assert_allclose(tensor.numpy(), single.head()[name].numpy(), atol=1e-6)
    assert mine.compare_finetunes(["both", single.name])["seeds"].to_list() == [2, 1]


def test_crops_that_vary_are_used_in_turn():
    source = PooledSource(4)
    for version in range(3):                                 # the centre, and two crops of the rows 1 and 3
        order = np.arange(4) if version == 0 else np.array([3, 1])
        stored = np.stack([np.full((2, 5), 10.0 * version + row, np.float32) for row in order])
        source.add([stored[0::2], stored[1::2]], order)
    read = {epoch: source.read(np.array([1, 3]), epoch)["pooled"][:, 0, 0].tolist() for epoch in (None, 0, 1, 2)}
    assert read == {None: [1, 3], 0: [11, 13], 1: [21, 23], 2: [11, 13]}


@pytest.mark.parametrize("end", [0, 39, 40, 100, 200, "zeros"])
def test_pooling_resumes_after_the_last_complete_clip(tmp_path, end):
    path, order, encoded = tmp_path / "pooled.bin", np.array([4, 2, 0, 1, 3]), []

    def encode(rows):
        encoded.extend(rows)
        return np.stack([np.full((2, 5), row + 1, np.float32) for row in rows])

    append_pooled(path, order, (2, 5), 2, encode, silent_progress)
    whole = path.read_bytes()
    assert len(whole) == 5 * 40 and encoded == order.tolist()
    path.write_bytes(whole[:80] + bytes(120) if end == "zeros" else whole[:end])
    encoded.clear()
    append_pooled(path, order, (2, 5), 2, encode, silent_progress)
    assert path.read_bytes() == whole
    assert encoded == order[{0: 0, 39: 0, 40: 0, 100: 2, 200: 5, "zeros": 2}[end]:].tolist()
    assert count_complete(path, (2, 5)) == 5


def test_a_full_disk_is_reported_while_pooling(tmp_path):
    def full(rows):
        raise OSError(28, "No space left on device")

    with pytest.raises(LakeError, match=r"cannot store the pooled layers, 0\.0 GB \(No space left on device\)\. Free some"):
        append_pooled(tmp_path / "pooled.bin", np.arange(3), (2, 5), 1, full, silent_progress)


def test_a_single_seed_keeps_the_identity_of_earlier_releases():
    assert "seeds" not in FinetuneConfig("kind").identity()
    assert FinetuneConfig("kind", seeds=3).identity()["seeds"] == 3
    assert FinetuneConfig("kind").digest(b"x") != FinetuneConfig("kind", seeds=2).digest(b"x")


def test_a_run_of_an_earlier_release_still_opens(filled):
    """As release 0.1.0 wrote it: the frozen encoder judged by a linear probe, no seeds, no difference, no songs."""
    import json

    files = FinetuneRun.folder(filled, "old")
    files.put_text("config.yaml", "column: artist\ntask: multiclass\nspace: fake\ndigest: abc\n")
    figures = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
    files.put_text("metrics.json", json.dumps({
        "main": "accuracy", "space": "fake", "figures": figures, "clips": 10, "trainable": 5, "epochs": 2, "task": "multiclass",
        "frozen": {"run": "artist-fake", "figures": figures, "train": 0.7}, "summary": "s", "finished": "2026-01-01",
    }))
    try:
        row = list_finetunes(filled).row(0, named=True)
    finally:
        for name in ("metrics.json", "config.yaml"):
            files.remove(name)
    assert (row["run"], row["value"], row["seeds"]) == ("old", 0.5, 1)
    assert row["frozen"] is None and row["difference"] is None           # another head: not comparable
