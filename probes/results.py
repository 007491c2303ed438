"""Results of a trained grid: choose layer and setting, compute metrics, write the files of the run.

For each layer, the setting (learning rate, weight decay) with the best mean validation score is chosen, and the best layer is
chosen by the same score; test clips have no influence.  Figures are means over seeds, with jackknife intervals over the units
of the test set (`Experiment.units`).
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
    counted,
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
from tonelake.probes.marble import differences_of
from tonelake.probes.outputs import clip_losses, prediction_columns
from tonelake.probes.plots import draw_plots
from tonelake.probes.report import leak_warning, write_report
from tonelake.probes.review_clips import TRAINING_PREDICTIONS
from tonelake.probes.runs import WEIGHTS, read_tensors, write_table, write_tensors
from tonelake.probes.sweeps import DecaySweep, Judge, mark_tied, sweep_row
from tonelake.probes.training_clips import predict_training_clips, target_columns
from tonelake.store import METRICS_FILE, REPORT_FILE, Blobs, InputError

METRIC_NAMES = {"accuracy": "accuracy", "map": "mAP", "r2": "R²"}
MOST_HISTORY = 2_000_000                 # rows of the table of epochs; beyond it, only the chosen setting of each layer


def write_results(
    experiment: Experiment, name: str, files: Blobs, partial: Blobs, started: datetime, resumed: int
) -> None:
    """Choose layer and setting, evaluate on the test clips, and write a run's files, metrics last.

    Raises InputError if no fit has a finite loss.
    """
    task, config = experiment.task, experiment.config
    judge, sweep = Judge(experiment), DecaySweep()
    layer_rows, layer_figures, fits, histories, diverged, best = [], [], [], [], [], None
    best_scores: list[np.ndarray] = []
    for number, spec in enumerate(experiment.specs):
        parts = [read_tensors(partial, part_name(experiment, fold, spec), name) for fold in range(len(experiment.splits))]
        chosen = Chosen(experiment, spec, parts)
        fits.append(chosen.fits())
        history = chosen.history()
        histories.append(history if experiment.fits * config.epochs <= MOST_HISTORY else history.filter("chosen"))
        if not np.isfinite(chosen.score):
            diverged.append(spec.name)
            continue
        sweep.add(chosen)
        scores = chosen.test_scores()
        figures = judge.replicates(scores)
        layer_rows.append({"layer": number, "name": spec.name} | sweep_row(chosen, chosen.setting, figures))
        layer_figures.append(figures[judge.main])
        if best is None or chosen.score > best.score:
            best, best_scores = chosen, scores
    if best is None:
        raise InputError("no fit reached a finite loss. Lower the learning rates, or use --prepare standardise")
    notes = [f"no setting of layer {', '.join(diverged)} reached a finite loss; lower the learning rates"] if diverged else []
    if config.solver == "lbfgs":
        notes += convergence_notes(pl.concat(fits), config.epochs)
    layers = mark_tied(layer_rows, layer_figures).with_columns(best=pl.col("name") == best.spec.name)
    estimates = estimate_metrics(task.kind, judge.targets, best_scores, judge.units, names=task.names)
    baselines = compute_baselines(experiment, best)
    leaking = leaks(task, experiment.splits)
    tables = {
        "fits": pl.concat(fits), "history": pl.concat(histories), "layers": layers,
        "predictions": predictions(experiment, best_scores), TRAINING_PREDICTIONS: predict_training_clips(best),
        "split": split_table(experiment),
    }
    if len(set(config.decays)) > 1:
        tables["decays"] = sweep.table(judge, best)
    if task.kind != "regression":
        tables["classes"] = per_class(task.kind, task.names, judge.targets, best_scores)
    if task.kind == "multiclass":
        matrix = confusion(judge.targets, best_scores, len(task.names))
        columns = dict(zip(task.names, matrix.T, strict=True))
        tables["confusion"] = pl.DataFrame({unused_column_name(task.names): list(task.names)} | columns)
        average = np.mean(best_scores, axis=0)
        tables["calibration"] = reliability(average.max(axis=1), average.argmax(axis=1) == judge.targets)
    for key, table in tables.items():
        write_table(files, key, table)
    write_tensors(files, WEIGHTS, best.tensors(), {
        "head": json.dumps(asdict(experiment.shape(best.spec))), "layer": best.spec.name, "names": json.dumps(list(task.names)),
        "kind": task.kind, "columns": json.dumps(best.spec.columns), "fingerprint": experiment.space.fingerprint,
    })
    metrics: dict[str, Any] = {
        "run": name, "task": task.kind, "columns": list(task.columns), "space": experiment.space.name,
        "fingerprint": experiment.space.fingerprint, "layer": best.spec.name, "setting": str(config.settings[best.setting]),
        "fits": experiment.fits, "parameters": experiment.shape(best.spec).parameters(), "resumed": resumed,
        "clips": len(task), "judged": len(judge.targets), "judged_are": "tracks" if config.average != "none" else "clips",
        "outputs": len(task.names), "main": judge.main, "over": str(judge.units), "figures": estimates_as_dict(estimates),
        "training": best.training_figures(), "by_seed": main_metric_by_seed(judge, best_scores),
        "baselines": {key: estimates_as_dict(value) for key, value in baselines.estimates.items()},
        "protocol_differences": differences_of(config), "leaks": leaking.to_dicts(),
        "notes": [*experiment.notes, *notes, *baselines.notes],
        "weights_of_layers": layer_weights(best), "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    metrics["summary"] = summary(metrics, estimates, baselines.estimates)
    drawn = draw_plots(files, metrics, tables)
    files.put_text(REPORT_FILE, write_report(config, metrics, tables, experiment.splits, drawn))
    files.put_text(METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def convergence_notes(fits: pl.DataFrame, most: int) -> list[str]:
    """Return a note on fits that reached the limit of iterations; none if all converged before."""
    reached = fits.filter(pl.col("epochs") >= most)
    if not len(reached):
        return []
    decays = ", ".join(f"{decay:g}" for decay in reached["decay"].unique().sort())
    return [
        f"{len(reached)} of {counted(len(fits), 'fit')} (decay {decays}) did not converge in {most} iterations; raise --epochs"
    ]


def main_metric_by_seed(judge: Judge, scores: list[np.ndarray]) -> list[float | None]:
    """Return the value of the main metric for each seed."""
    values = [float(judge.replicates([own])[judge.main].value) for own in scores]
    return [round(value, 6) if np.isfinite(value) else None for value in values]


def layer_weights(best: Chosen) -> dict[str, float] | None:
    """Return each layer's share of a learned weighting, the mean over seeds and folds; None without a weighting."""
    if not best.spec.parts:
        return None
    shares = [
        torch.softmax(best.state(fold, seed)["mix"], dim=-1).numpy()
        for fold in range(len(best.parts)) for seed in range(best.experiment.config.seeds)
    ]
    means = np.mean(shares, axis=0)
    names = [best.experiment.space.layers[layer] for layer in dict.fromkeys(layer for layer, _ in best.spec.columns)]
    return {name: round(float(share), 4) for name, share in zip(names, means, strict=True)}


def predictions(experiment: Experiment, scores: list[np.ndarray]) -> pl.DataFrame:
    """Return a row a judged test clip: its target, the prediction by the mean over seeds, probabilities and loss."""
    task = experiment.task
    test = experiment.judged_rows()
    fold = np.searchsorted(np.cumsum(experiment.judged_counts()), np.arange(len(test)), side="right")
    first = pl.DataFrame({"clip_id": task.ids.gather(test), "fold": fold}).hstack(target_columns(task, test))
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
    others = ", ".join(f"{name} {figures[main].value:.3f}" for name, figures in baselines.items() if main in figures)
    text = (
        f"Layer {metrics['layer']} of {metrics['space']} predicts {', '.join(metrics['columns'])} with {METRIC_NAMES[main]} "
        f"{estimates[main]} {metrics['over']} on {counted(metrics['judged'], 'test ' + metrics['judged_are'])} "
        f"({metrics['setting']}; the best of {counted(metrics['fits'], 'fit')} on the validation clips, "
        f"{metrics['parameters']:,} parameters each). Baselines: {others}."
    )
    return text + leak_warning(metrics["leaks"])
