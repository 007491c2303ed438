"""Results of a fine-tuning: each seed and its frozen baseline judged on the test clips, written as the files of the run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from tonelake.embed import ADAPTER_CONFIG as PEFT_CONFIG
from tonelake.embed import ADAPTER_WEIGHTS, read_adapter
from tonelake.evaluate import MAIN_METRIC, SIDES, estimates_as_dict, leaks
from tonelake.finetune.baselines import exact_baselines
from tonelake.finetune.config import VALIDATION_METRICS, FinetuneConfig
from tonelake.finetune.evaluation import HeldOut, class_tables, judge
from tonelake.finetune.model import LoraModel
from tonelake.finetune.report import format_difference, write_report
from tonelake.finetune.resolved import Setup
from tonelake.finetune.runs import HEAD
from tonelake.finetune.seeds import SeedResult, Trained, main_metric
from tonelake.probes import (
    TRAINING_PREDICTIONS,
    clip_losses,
    draw_confusion,
    draw_weights,
    format_interval,
    leak_warning,
    prediction_columns,
    predictions_of_side,
    readable_targets,
    save_plot,
    write_table,
    write_tensors,
)
from tonelake.store import METRICS_FILE, REPORT_FILE, Blobs

SAME_HEAD = "same head, pooling, layers and training; encoder frozen"


def write_results(
    setup: Setup, results: Sequence[SeedResult], model: LoraModel, name: str, files: Blobs, started: datetime
) -> None:
    """Judge every seed on the test clips and write a run's files, metrics last.  `model`: receives the kept weights."""
    task, config, split = setup.task, setup.config, setup.split
    main = MAIN_METRIC[task.kind]
    kept = best_seed(results, config)
    model.load_state_dict(kept.weights, strict=False)
    test = HeldOut(
        kind=task.kind, names=task.names, targets=task.targets[split.test], primary=setup.primary_class()[split.test],
        track=task.track[split.test],
    )
    tuned, frozen = [result.tuned.test for result in results], [result.frozen.test for result in results]
    figures = judge(test, tuned, frozen)
    tables = class_tables(test, tuned, frozen)
    tables["history"] = history_table(kept.tuned.history, config)
    tables["seeds"] = seeds_table(test, results, kept, config)
    names = setup.space.layers[config.first :]
    shares = {layer: round(float(share), 4) for layer, share in zip(names, model.layer_weights(), strict=True)}
    tables["layers"] = pl.DataFrame({"layer": list(shares), "share": list(shares.values())})
    tables["predictions"] = predictions(setup, kept.tuned.test)
    training = [
        predictions_of_side(task, side, getattr(split, side), scores) for side, scores in kept.tuned.training.items()
    ]
    if training:                         # a seed that an earlier release finished has none
        tables[TRAINING_PREDICTIONS] = pl.concat(training).rename({f"target_{config.column}": "target"}, strict=False)
    tables["scores"] = scores_table(setup, results)
    tables["split"] = split_table(setup)
    for key, table in tables.items():
        write_table(files, key, table)
    write_adapter(files, model, setup)
    write_head(files, model, setup)
    best = tables["seeds"].row(by_predicate=pl.col("kept"), named=True)
    metrics: dict[str, Any] = {
        "run": name, "task": task.kind, "columns": [config.column], "space": setup.space.name,
        "fingerprint": setup.space.fingerprint, "encoder": setup.space.encoder, "revision": setup.space.revision,
        "adapter": read_adapter(f"{files.uri}/adapter").digest,
        "clips": sum(len(side) for side in (split.train, split.valid, split.test)), "judged": len(split.test),
        "outputs": len(task.names), "main": main, "figures": estimates_as_dict(figures.tuned),
        "train": mean_train([result.tuned for result in results]),
        "frozen": {
            "head": SAME_HEAD, "figures": estimates_as_dict(figures.frozen),
            "train": mean_train([result.frozen for result in results]),
        },
        "difference": estimates_as_dict(figures.difference), "over": intervals_over(test, config),
        "baselines": {
            key: estimates_as_dict(found) for key, found in exact_baselines(test, task.targets[split.train]).items()
        },
        "seeds": list(config.all_seeds), "kept_seed": kept.seed,
        "trainable": count_trainable(model, lora=None), "trainable_lora": count_trainable(model, lora=True),
        "epochs": best["epochs"], "best_epoch": best["best_epoch"],
        "leaks": leaks(task, [split]).to_dicts(), "notes": setup.notes, "weights_of_layers": shares,
        "started_from": kept.loaded or None, "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    metrics["summary"] = summary(metrics)
    pictures = {"weights.png": draw_weights(metrics)}
    if "confusion" in tables:
        pictures["confusion.png"] = draw_confusion(metrics, tables["confusion"])
    for file, figure in pictures.items():
        save_plot(files, file, figure)
    files.put_text(REPORT_FILE, write_report(config, metrics, tables, split, list(pictures)))
    files.put_text(METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def best_seed(results: Sequence[SeedResult], config: FinetuneConfig) -> SeedResult:
    """Return the seed with the best validation score, the first of equal ones; test clips have no influence."""
    sign = 1 if config.higher_is_better else -1
    return max(results, key=lambda result: np.nan_to_num(sign * result.tuned.best_valid(config), nan=-np.inf))


def mean_train(trained: Sequence[Trained]) -> float | None:
    """Return the mean over seeds of the main metric on the training clips."""
    values = [one.train for one in trained if one.train is not None]
    return float(np.mean(values)) if values else None


def intervals_over(test: HeldOut, config: FinetuneConfig) -> str:
    """Return what the intervals cover: "over 120 tracks", or "over 120 tracks and 5 seeds"."""
    return str(test.units) + (f" and {config.seeds} seeds" if config.seeds > 1 else "")


def seeds_table(
    test: HeldOut, results: Sequence[SeedResult], kept: SeedResult, config: FinetuneConfig
) -> pl.DataFrame:
    """Return a row a seed: best validation score, main metric on the test clips, tuned and frozen, and the epochs."""
    rows = []
    for result in results:
        histories = {
            key: history_table(one.history, config) for key, one in (("tuned", result.tuned), ("frozen", result.frozen))
        }
        after, before = (main_metric(test.kind, test.targets, one.test) for one in (result.tuned, result.frozen))
        rows.append({
            "seed": result.seed, "kept": result is kept, "valid": result.tuned.best_valid(config), "test": after,
            "frozen": before, "difference": None if after is None or before is None else after - before,
            "epochs": len(histories["tuned"]), "best_epoch": best_epoch(histories["tuned"], config),
            "frozen_epochs": len(histories["frozen"]), "frozen_best_epoch": best_epoch(histories["frozen"], config),
        })
    return pl.DataFrame(rows, infer_schema_length=None)


def best_epoch(history: pl.DataFrame, config: FinetuneConfig) -> int:
    """Return the epoch with the best validation score, the first of equal ones."""
    best = max if config.higher_is_better else min
    return int(best(history.to_dicts(), key=lambda line: line["valid"])["epoch"])


def history_table(history: Sequence[dict[str, float]], config: FinetuneConfig) -> pl.DataFrame:
    """Return a row an epoch: training loss; on validation the loss, the monitored metric (`valid`) and each metric by its
    name; and the adapter's rate."""
    return history_rows(history, config.monitored, VALIDATION_METRICS[str(config.task)])


def history_rows(history: Sequence[dict[str, float]], monitored: str, names: Sequence[str]) -> pl.DataFrame:
    """Return a row an epoch, with the monitored metric as `valid` and the metrics `names`."""
    rows: list[dict[str, Any]] = []
    pending: dict[str, float] = {}
    for line in history:
        pending |= line
        if f"eval_{monitored}" in line:
            rows.append({
                "epoch": round(line["epoch"]), "loss": pending.get("loss"), "valid_loss": line.get("eval_loss"),
                "valid": line[f"eval_{monitored}"],
                **{f"valid_{name}": line.get(f"eval_{name}") for name in names}, "rate": pending.get("learning_rate"),
            })
            pending = {}
    columns = ("loss", "valid_loss", "valid", *(f"valid_{name}" for name in names), "rate")
    return pl.DataFrame(rows, schema={"epoch": pl.Int64} | dict.fromkeys(columns, pl.Float64))


def predictions(setup: Setup, scores: np.ndarray) -> pl.DataFrame:
    """Return a row a test clip: its target, the prediction of the kept seed with scores, and the loss.

    `track` is the track's name; which clips belong together is `store.read_songs`'s answer, as `song` gives it (numbers of
    this run).
    """
    task, rows = setup.task, setup.split.test
    first = clips_table(setup, rows)
    if task.kind == "regression":
        first = first.with_columns(target=pl.Series(task.targets[rows][:, 0]))
    else:
        first = first.with_columns(readable_targets(task.kind, task.names, task.targets[rows]))
    loss = clip_losses(task.kind, task.targets[rows], scores)
    scored = pl.DataFrame({"loss": loss, "scores": score_lists("scores", scores)})
    return pl.concat([first, prediction_columns(task.kind, task.names, scores), scored], how="horizontal")


def clips_table(setup: Setup, rows: np.ndarray) -> pl.DataFrame:
    """Return clip_id, track (its name) and song (its number) of some rows."""
    task = setup.task
    return pl.DataFrame({
        "clip_id": task.ids.gather(rows), "track": task.clips["track"].gather(rows), "song": task.track[rows],
    })


def score_lists(name: str, scores: np.ndarray) -> pl.Series:
    return pl.Series(name, scores.astype(np.float32)).cast(pl.List(pl.Float32))


def scores_table(setup: Setup, results: Sequence[SeedResult]) -> pl.DataFrame:
    """Return a row a seed and test clip: the scores of the fine-tuning and of its frozen baseline."""
    ids = setup.task.ids.gather(setup.split.test)
    return pl.concat([
        pl.DataFrame({
            "clip_id": ids, "seed": np.full(len(ids), result.seed), "scores": score_lists("scores", result.tuned.test),
            "frozen": score_lists("frozen", result.frozen.test),
        }) for result in results
    ])


def split_table(setup: Setup) -> pl.DataFrame:
    """Return a row a clip with its set: train, valid or test."""
    split = setup.split
    sides = zip(SIDES, (split.train, split.valid, split.test), strict=True)
    return pl.concat([clips_table(setup, rows).with_columns(side=pl.lit(side)) for side, rows in sides])


def write_adapter(files: Blobs, model: LoraModel, setup: Setup) -> None:
    """Write the adapter in PEFT's form.  PEFT's `save_pretrained` would first ask the network for the encoder."""
    from peft import get_peft_model_state_dict

    inside = Blobs(f"{files.uri}/adapter")
    write_tensors(inside, ADAPTER_WEIGHTS, get_peft_model_state_dict(model.peft, save_embedding_layers=False), {"format": "pt"})
    config = model.peft.peft_config["default"]
    config.base_model_name_or_path, config.inference_mode = setup.space.encoder, True
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        inside.put_text(PEFT_CONFIG, (Path(folder) / PEFT_CONFIG).read_text(encoding="utf-8"))


def write_head(files: Blobs, model: LoraModel, setup: Setup) -> None:
    tensors = {name: tensor.detach().clone() for name, tensor in model.head.state_dict().items()}
    if setup.task.kind == "regression":
        for key, value in zip(("mean", "scale"), setup.scale(), strict=True):
            tensors[f"target.{key}"] = torch.from_numpy(np.asarray(value, np.float32))
    write_tensors(files, HEAD, tensors, {
        "names": json.dumps(list(setup.task.names)), "kind": setup.task.kind, "column": setup.config.column,
        "above": str(setup.config.above), "first_layer": str(setup.config.first), "window_s": str(setup.config.window_s),
    })


def count_trainable(model: LoraModel, lora: bool | None) -> int:
    """Return the number of trainable parameters of the adapter, of the head, or of both (None)."""
    sides = (True, False) if lora is None else (lora,)
    return sum(parameter.numel() for side in sides for _, parameter in model.parameters_of(side))


METRIC_NAMES = {"accuracy": "accuracy", "map": "mAP", "r2": "R²"}


def summary(metrics: dict[str, Any]) -> str:
    """Describe the result in a few sentences."""
    main = metrics["main"]
    several = len(metrics["seeds"]) > 1
    seeds = f" (mean of {len(metrics['seeds'])} seeds)" if several else ""
    kept = f" The adapter is that of seed {metrics['kept_seed']}, the best on validation." if several else ""
    return (
        f"{metrics['encoder']} with LoRA predicts {metrics['columns'][0]} with {METRIC_NAMES[main]} "
        f"{format_interval(metrics['figures'][main])}{seeds} on {metrics['judged']:,} test clips, after "
        f"{metrics['best_epoch']} of {metrics['epochs']} epochs; the same head on the frozen encoder reaches "
        f"{format_interval(metrics['frozen']['figures'][main])}, a difference of "
        f"{format_difference(metrics['difference'][main])}, paired, {metrics['over']}. {metrics['trainable']:,} parameters are "
        f"trained.{kept}{leak_warning(metrics['leaks'])}"
    )
