"""Results of a fine-tuning: evaluation on the test clips beside the frozen probe, written as the files of the run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from tonelake.embed import ADAPTER_CONFIG as PEFT_CONFIG
from tonelake.embed import ADAPTER_WEIGHTS
from tonelake.evaluate import MAIN_METRIC, METRICS_BY_KIND, SIDES, estimates_as_dict, leaks
from tonelake.finetune.data import AudioSource, ClipDataset, FrameSource
from tonelake.finetune.evaluation import evaluate_predictions
from tonelake.finetune.initial_weights import LoadReport
from tonelake.finetune.model import LoraModel
from tonelake.finetune.report import write_report
from tonelake.finetune.runs import HEAD
from tonelake.finetune.setup import Setup
from tonelake.finetune.trainer import predict, probabilities
from tonelake.probes import (
    ProbeConfig,
    clip_losses,
    draw_confusion,
    draw_weights,
    format_interval,
    leak_warning,
    prediction_columns,
    probe,
    readable_targets,
    save_plot,
    write_table,
    write_tensors,
)
from tonelake.probes import predict as predict_by_probe
from tonelake.store import METRICS_FILE, REPORT_FILE, Blobs


@dataclass(frozen=True, kw_only=True)
class FrozenProbe:
    """A probe on the stored vectors of the same space and clips: performance of the frozen encoder."""

    run: str
    metrics: dict[str, Any]
    train: float | None                  # main metric on the training clips
    classes: pl.DataFrame | None

    def as_dict(self) -> dict[str, Any]:
        return {"run": self.run, "figures": self.metrics, "train": self.train}


def train_frozen_probe(setup: Setup) -> FrozenProbe:
    """Train the frozen probe, or return the one with equal settings."""
    config = setup.config
    found = probe(
        setup.lake, ProbeConfig(
            (config.column,), space=setup.space.name, task=config.task, where=config.where, split=config.split,
            shares=config.shares, split_seed=config.split_seed, device=config.device if config.device != "mps" else "cpu",
        ), splits=[setup.split],
    )
    classes = None if config.task == "regression" else found.table("classes")
    return FrozenProbe(
        run=found.name, metrics=found.metrics["figures"], train=training_metric_of_probe(setup, found), classes=classes
    )


def training_metric_of_probe(setup: Setup, found: Any) -> float | None:
    """Return the probe's main metric on its training clips."""
    task, rows = setup.task, setup.split.train
    ids = pl.DataFrame({"clip_id": task.ids.gather(rows)})
    table = ids.join(predict_by_probe(setup.lake, found).table, on="clip_id", how="left", maintain_order="left")
    if task.kind == "multiclass":
        names = pl.Series(np.array(task.names, dtype=object)[task.targets[rows]].tolist(), dtype=pl.String)
        return float((table["predicted"] == names).mean() or 0.0)                # type: ignore[arg-type]
    if task.kind == "multilabel":
        scores = np.array(table["probabilities"].to_list(), np.float32)
    else:
        scores = table.select([f"predicted_{name}" for name in task.columns]).to_numpy()
    return main_metric(task.kind, task.targets[rows], scores)


def main_metric(kind: str, targets: np.ndarray, scores: np.ndarray) -> float | None:
    value = float(METRICS_BY_KIND[kind](targets, scores, np.ones((1, len(scores))))[MAIN_METRIC[kind]][0])
    return value if np.isfinite(value) else None


def write_results(
    setup: Setup, model: LoraModel, source: AudioSource | FrameSource, history: Sequence[dict[str, float]],
    frozen: FrozenProbe | None, loaded: LoadReport | None, name: str, files: Blobs, started: datetime,
) -> None:
    """Evaluate the weights of the best epoch and write a run's files, metrics last."""
    task, config, split = setup.task, setup.config, setup.split
    device = str(next(model.parameters()).device)
    scores = {side: scores_of(setup, model, source, side, device) for side in ("train", "test")}
    targets, track = task.targets[split.test], task.track[split.test]
    estimates, tables = evaluate_predictions(
        task.kind, task.names, targets, setup.primary_class()[split.test], scores["test"], track
    )
    if frozen is not None and frozen.classes is not None:
        before = frozen.classes.select("name", frozen_accuracy="recall", frozen_ap="ap")
        tables["classes"] = tables["classes"].join(before, on="name", how="left", maintain_order="left")
    tables["history"] = history_table(history, MAIN_METRIC[task.kind])
    names = setup.space.layers[config.above :]
    shares = {layer: round(float(share), 4) for layer, share in zip(names, model.layer_weights(), strict=True)}
    tables["layers"] = pl.DataFrame({"layer": list(shares), "share": list(shares.values())})
    tables["predictions"] = predictions(setup, scores["test"])
    tables["split"] = split_table(setup)
    for key, table in tables.items():
        write_table(files, key, table)
    write_adapter(files, model, setup)
    write_head(files, model, setup)
    best = max((line for line in tables["history"].to_dicts()), key=lambda line: line["valid"])
    metrics: dict[str, Any] = {
        "run": name, "task": task.kind, "columns": [config.column], "space": setup.space.name,
        "fingerprint": setup.space.fingerprint, "encoder": setup.space.encoder, "revision": setup.space.revision,
        "clips": sum(len(side) for side in (split.train, split.valid, split.test)), "judged": len(split.test),
        "outputs": len(task.names), "main": MAIN_METRIC[task.kind], "figures": estimates_as_dict(estimates),
        "train": main_metric(task.kind, task.targets[split.train], scores["train"]),
        "frozen": frozen.as_dict() if frozen else None, "trainable": count_trainable(model, lora=None),
        "trainable_lora": count_trainable(model, lora=True), "epochs": len(tables["history"]), "best_epoch": best["epoch"],
        "leaks": leaks(task, [split]).to_dicts(), "notes": setup.notes, "weights_of_layers": shares,
        "started_from": str(loaded) if loaded else None, "started": started.isoformat(timespec="seconds"),
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


def scores_of(setup: Setup, model: LoraModel, source: AudioSource | FrameSource, side: str, device: str) -> np.ndarray:
    """Return (clip, output) probabilities, or values in the targets' units, of one set, from the centre crop of each clip."""
    rows = getattr(setup.split, side)
    logits = predict(model, ClipDataset(source, rows, setup.labels[rows]), device, int(setup.config.batch or 1))
    scores = probabilities(setup.task.kind, logits)
    if setup.task.kind == "regression":
        mean, spread = setup.scale()
        return scores * spread + mean
    return scores


def history_table(history: Sequence[dict[str, float]], main: str) -> pl.DataFrame:
    """Return a row an epoch: training loss, validation loss, main metric on validation, and the adapter's rate."""
    rows: list[dict[str, Any]] = []
    pending: dict[str, float] = {}
    for line in history:
        pending |= line
        if f"eval_{main}" in line:
            rows.append({
                "epoch": round(line["epoch"]), "loss": pending.get("loss"), "valid_loss": line.get("eval_loss"),
                "valid": line[f"eval_{main}"], "rate": pending.get("learning_rate"),
            })
            pending = {}
    schema = {"epoch": pl.Int64, "loss": pl.Float64, "valid_loss": pl.Float64, "valid": pl.Float64, "rate": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def predictions(setup: Setup, scores: np.ndarray) -> pl.DataFrame:
    """Return a row a test clip: its target, the prediction with scores, and the loss."""
    task, rows = setup.task, setup.split.test
    first = pl.DataFrame({"clip_id": task.ids.gather(rows), "track": task.clips["track"].gather(rows)})
    if task.kind == "regression":
        first = first.with_columns(target=pl.Series(task.targets[rows][:, 0]))
    else:
        first = first.with_columns(readable_targets(task.kind, task.names, task.targets[rows]))
    loss = clip_losses(task.kind, task.targets[rows], scores)
    scored = pl.DataFrame({"loss": loss, "scores": pl.Series(scores.astype(np.float32)).cast(pl.List(pl.Float32))})
    return pl.concat([first, prediction_columns(task.kind, task.names, scores), scored], how="horizontal")


def split_table(setup: Setup) -> pl.DataFrame:
    """Return a row a clip with its set: train, valid or test."""
    task, split = setup.task, setup.split
    clips = pl.DataFrame({"clip_id": task.ids, "track": task.clips["track"]})
    sides = zip(SIDES, (split.train, split.valid, split.test), strict=True)
    return pl.concat([clips[rows].with_columns(side=pl.lit(side)) for side, rows in sides])


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
        "above": str(setup.config.above), "window_s": str(setup.config.window_s),
    })


def count_trainable(model: LoraModel, lora: bool | None) -> int:
    """Return the number of trainable parameters of the adapter, of the head, or of both (None)."""
    sides = (True, False) if lora is None else (lora,)
    return sum(parameter.numel() for side in sides for _, parameter in model.parameters_of(side))


METRIC_NAMES = {"accuracy": "accuracy", "map": "mAP", "r2": "R²"}


def summary(metrics: dict[str, Any]) -> str:
    """Describe the result in a few sentences."""
    main = metrics["main"]
    text = (
        f"{metrics['encoder']} with LoRA predicts {metrics['columns'][0]} with {METRIC_NAMES[main]} "
        f"{format_interval(metrics['figures'][main])} on "
        f"{metrics['judged']:,} test clips, after {metrics['best_epoch']} of {metrics['epochs']} epochs"
    )
    if metrics["frozen"]:
        text += f"; a probe on the frozen encoder reaches {format_interval(metrics['frozen']['figures'][main])}"
    text += f". {metrics['trainable']:,} parameters are trained."
    return text + leak_warning(metrics["leaks"])
