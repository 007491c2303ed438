"""Results of a trained grid: choose layer and setting, compute metrics, write the files of the run.

For each layer, the setting (learning rate, weight decay) with the best mean validation score is chosen, and the best layer is
chosen by the same score; test clips have no influence.  Metrics of a layer are means over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import torch

from tonelake.evaluate import (
    MAIN_METRIC,
    SIDES,
    Estimate,
    confusion,
    estimate_metrics,
    estimates_as_dict,
    leaks,
    per_class,
    reliability,
)
from tonelake.probes.baselines import compute_baselines
from tonelake.probes.chosen import Chosen
from tonelake.probes.experiment import Experiment
from tonelake.probes.grid_parts import part_name
from tonelake.probes.outputs import clip_losses, prediction_columns, readable_targets
from tonelake.probes.plots import draw_plots
from tonelake.probes.report import leak_warning, write_report
from tonelake.probes.runs import WEIGHTS, read_tensors, write_table, write_tensors
from tonelake.store import METRICS_FILE, REPORT_FILE, Blobs, InputError

LAYER_DRAWS = 200                        # bootstrap draws for each layer; the chosen layer gets more
METRIC_NAMES = {"accuracy": "accuracy", "map": "mAP", "r2": "R²"}


def write_results(
    experiment: Experiment, name: str, files: Blobs, partial: Blobs, started: datetime, resumed: int
) -> None:
    """Choose layer and setting, evaluate on the test clips, and write a run's files, metrics last.

    Raises InputError if no fit has a finite loss.
    """
    task, config = experiment.task, experiment.config
    test = experiment.test_rows()
    targets, track = task.targets[test], task.track[test]
    layer_rows, fits, diverged, best = [], [], [], None
    best_scores: list[np.ndarray] = []
    for number, spec in enumerate(experiment.specs):
        parts = [read_tensors(partial, part_name(experiment, fold, spec), name) for fold in range(len(experiment.splits))]
        chosen = Chosen(experiment, spec, parts)
        fits.append(chosen.fits())
        if not np.isfinite(chosen.score):
            diverged.append(spec.name)
            continue
        scores = chosen.test_scores()
        estimates = estimate_metrics(task.kind, targets, scores, track, draws=LAYER_DRAWS)
        setting = config.settings[chosen.setting]
        layer_rows.append(
            {"layer": number, "name": spec.name, "rate": setting.rate, "decay": setting.decay, "valid": chosen.score}
            | {f"{key}{end}": getattr(estimate, part) for key, estimate in estimates.items()
               for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))}
        )
        if best is None or chosen.score > best.score:
            best, best_scores = chosen, scores
    if best is None:
        raise InputError("no fit reached a finite loss. Lower the learning rates, or use --prepare standardise")
    notes = [f"no setting of layer {', '.join(diverged)} reached a finite loss; lower the learning rates"] if diverged else []
    layers = pl.DataFrame(layer_rows).with_columns(best=pl.col("name") == best.spec.name)
    estimates = estimate_metrics(task.kind, targets, best_scores, track)
    baselines = compute_baselines(experiment, best, draws=LAYER_DRAWS)
    leaking = leaks(task, experiment.splits)
    tables = {
        "fits": pl.concat(fits), "layers": layers, "predictions": predictions(experiment, best_scores),
        "split": split_table(experiment),
    }
    if task.kind != "regression":
        tables["classes"] = per_class(task.kind, task.names, targets, best_scores)
    if task.kind == "multiclass":
        matrix = confusion(targets, best_scores, len(task.names))
        columns = dict(zip(task.names, matrix.T, strict=True))
        tables["confusion"] = pl.DataFrame({unused_column_name(task.names): list(task.names)} | columns)
        average = np.mean(best_scores, axis=0)
        tables["calibration"] = reliability(average.max(axis=1), average.argmax(axis=1) == targets)
    for key, table in tables.items():
        write_table(files, key, table)
    write_tensors(files, WEIGHTS, best.tensors(), {
        "head": json.dumps(asdict(experiment.shape(best.spec))), "layer": best.spec.name, "names": json.dumps(list(task.names)),
        "kind": task.kind, "columns": json.dumps(best.spec.columns), "fingerprint": experiment.space.fingerprint,
    })
    metrics: dict[str, Any] = {
        "run": name, "task": task.kind, "columns": list(task.columns), "space": experiment.space.name,
        "fingerprint": experiment.space.fingerprint, "layer": best.spec.name, "setting": str(config.settings[best.setting]),
        "fits": experiment.fits, "resumed": resumed, "clips": len(task), "judged": len(test),
        "outputs": len(task.names), "main": MAIN_METRIC[task.kind], "figures": estimates_as_dict(estimates),
        "by_seed": main_metric_by_seed(task.kind, targets, best_scores, track),
        "baselines": {key: estimates_as_dict(value) for key, value in baselines.estimates.items()},
        "leaks": leaking.to_dicts(), "notes": [*experiment.notes, *notes, *baselines.notes],
        "weights_of_layers": layer_weights(best), "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    metrics["summary"] = summary(metrics, estimates, baselines.estimates)
    drawn = draw_plots(files, metrics, tables)
    files.put_text(REPORT_FILE, write_report(config, metrics, tables, experiment.splits, drawn))
    files.put_text(METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def main_metric_by_seed(
    kind: str, targets: np.ndarray, scores: list[np.ndarray], track: np.ndarray
) -> list[float | None]:
    """Return the value of the main metric for each seed."""
    by_seed = [estimates_as_dict(estimate_metrics(kind, targets, [own], track, draws=1)) for own in scores]
    return [estimates[MAIN_METRIC[kind]]["value"] for estimates in by_seed]


def layer_weights(best: Chosen) -> dict[str, float] | None:
    """Return each layer's share of a learned weighting, the mean over seeds and folds; None without a weighting."""
    if not best.spec.parts:
        return None
    shares = [
        torch.softmax(best.state(fold, seed)["mix"], dim=-1).numpy()
        for fold in range(len(best.parts)) for seed in range(best.experiment.config.seeds)
    ]
    means = np.mean(shares, axis=0)
    return {name: round(float(share), 4) for name, share in zip(best.experiment.space.layers, means, strict=True)}


def predictions(experiment: Experiment, scores: list[np.ndarray]) -> pl.DataFrame:
    """Return a row a test clip: its target, the prediction by the mean over seeds, probabilities and loss."""
    task = experiment.task
    test = experiment.test_rows()
    fold = np.repeat(np.arange(len(experiment.splits)), [len(split.test) for split in experiment.splits])
    first = pl.DataFrame({"clip_id": task.ids.gather(test), "fold": fold})
    if task.kind == "regression":
        first = first.with_columns(pl.Series(f"target_{c}", task.targets[test, i]) for i, c in enumerate(task.columns))
    else:
        first = first.with_columns(readable_targets(task.kind, task.names, task.targets[test]))
    mean = np.mean(scores, axis=0)
    loss = pl.DataFrame({"loss": clip_losses(task.kind, task.targets[test], mean)})
    return pl.concat([first, prediction_columns(task.kind, task.names, mean), loss], how="horizontal")


def split_table(experiment: Experiment) -> pl.DataFrame:
    """Return a row a clip and fold: whether the clip was in the training, validation or test set."""
    parts = []
    for fold, split in enumerate(experiment.splits):
        for side, rows in zip(SIDES, (split.train, split.valid, split.test), strict=True):
            parts.append(pl.DataFrame({"clip_id": experiment.task.ids.gather(rows)}).with_columns(
                fold=pl.lit(fold, pl.Int64), side=pl.lit(side)
            ))
    return pl.concat(parts)


def unused_column_name(names: Sequence[str]) -> str:
    """Return `true`, with trailing spaces if needed to differ from every class name."""
    name = "true"
    while name in names:
        name += " "
    return name


def summary(
    metrics: dict[str, Any], estimates: dict[str, Estimate], baselines: dict[str, dict[str, Estimate]]
) -> str:
    """Describe the result in a few sentences."""
    main = MAIN_METRIC[metrics["task"]]
    others = ", ".join(f"{name} {estimate[main].value:.3f}" for name, estimate in baselines.items())
    text = (
        f"Layer {metrics['layer']} of {metrics['space']} predicts {', '.join(metrics['columns'])} with {METRIC_NAMES[main]} "
        f"{estimates[main]} on {metrics['judged']:,} test clips ({metrics['setting']}; the best of {metrics['fits']:,} fits on "
        f"the validation clips). Baselines: {others}."
    )
    return text + leak_warning(metrics["leaks"])
