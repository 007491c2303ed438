"""What a trained grid came to: the choice of layer and setting, its figures, and the files of the run.

For each layer the setting (learning rate, weight decay) with the best mean score on the validation clips is taken, and among
layers that with the best one; the clips to judge on decide nothing.  What is told of a layer is the mean over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
import torch

from tonelake.evaluate import MAIN_METRIC, SIDES, Figure, confusion, figure_as_dict, figures, leaks, per_class, reliability
from tonelake.probes import baselines, plots, runs
from tonelake.probes.chosen import Chosen
from tonelake.probes.experiment import Experiment
from tonelake.probes.grid_parts import part_name
from tonelake.probes.outputs import losses, prediction_columns, readable_targets
from tonelake.probes.report import write_report
from tonelake.store import METRICS_FILE, REPORT_FILE, Blobs, InputError

LAYER_DRAWS = 200                        # of the bootstrap, for each layer; the chosen one gets more


def conclude(
    experiment: Experiment, name: str, files: Blobs, partial: Blobs, started: datetime, resumed: int
) -> None:
    """Choose, judge, and write a run's files, metrics last."""
    task, config = experiment.task, experiment.config
    judged = experiment.judged()
    targets, track = task.targets[judged], task.track[judged]
    layer_rows, fits, diverged, best = [], [], [], None
    best_scores: list[np.ndarray] = []
    for number, slot in enumerate(experiment.slots):
        parts = [runs.read_tensors(partial, part_name(experiment, fold, slot), name) for fold in range(len(experiment.splits))]
        chosen = Chosen(experiment, slot, parts)
        fits.append(chosen.fits())
        if not np.isfinite(chosen.score):
            diverged.append(slot.name)
            continue
        scores = chosen.scores_of_judged()
        found = figures(task.kind, targets, scores, track, draws=LAYER_DRAWS)
        setting = config.settings[chosen.setting]
        layer_rows.append(
            {"layer": number, "name": slot.name, "rate": setting.rate, "decay": setting.decay, "valid": chosen.score}
            | {f"{key}{end}": getattr(figure, part) for key, figure in found.items()
               for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))}
        )
        if best is None or chosen.score > best.score:
            best, best_scores = chosen, scores
    if best is None:
        raise InputError("no fit came to a finite loss: lower the learning rates, or prepare with standardise")
    lost = [f"no setting of layer {', '.join(diverged)} came to a finite loss: lower the learning rates"] if diverged else []
    layers = pl.DataFrame(layer_rows).with_columns(best=pl.col("name") == best.slot.name)
    found = figures(task.kind, targets, best_scores, track)
    beside = baselines.all_of(experiment, best, draws=LAYER_DRAWS)
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
        tables["confusion"] = pl.DataFrame({first_column(task.names): list(task.names)} | columns)
        average = np.mean(best_scores, axis=0)
        tables["calibration"] = reliability(average.max(axis=1), average.argmax(axis=1) == targets)
    for key, table in tables.items():
        runs.write_table(files, key, table)
    shape = experiment.shape(best.slot)
    runs.write_tensors(files, runs.WEIGHTS, best.tensors(), {
        "head": json.dumps(shape._asdict()), "layer": best.slot.name, "names": json.dumps(list(task.names)), "kind": task.kind,
        "columns": json.dumps(best.slot.columns), "fingerprint": experiment.space.fingerprint,
    })
    metrics: dict[str, Any] = {
        "run": name, "task": task.kind, "columns": list(task.columns), "space": experiment.space.name,
        "fingerprint": experiment.space.fingerprint, "layer": best.slot.name, "setting": str(config.settings[best.setting]),
        "fits": experiment.fits, "resumed": resumed, "clips": len(task), "judged": len(judged),
        "outputs": len(task.names), "main": MAIN_METRIC[task.kind], "figures": figure_as_dict(found),
        "by_seed": by_seed(experiment, targets, best_scores, track),
        "baselines": {key: figure_as_dict(value) for key, value in beside.figures.items()},
        "leaks": leaking.to_dicts(), "notes": [*experiment.notes, *lost, *beside.notes],
        "weights_of_layers": layer_weights(best), "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    metrics["summary"] = summary(metrics, found, beside.figures)
    drawn = plots.draw(files, metrics, tables)
    files.put_text(REPORT_FILE, write_report(config, metrics, tables, experiment.splits, drawn))
    files.put_text(METRICS_FILE, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def by_seed(experiment: Experiment, targets: np.ndarray, scores: list[np.ndarray], track: np.ndarray) -> list[float | None]:
    """The main figure of each seed."""
    kind = experiment.task.kind
    return [figure_as_dict(figures(kind, targets, [own], track, draws=1))[MAIN_METRIC[kind]]["value"] for own in scores]


def layer_weights(best: Chosen) -> dict[str, float] | None:
    """Of a learned weighting: each layer's share, the mean over seeds and folds."""
    if not best.slot.parts:
        return None
    shares = [
        torch.softmax(best.state(fold, seed)["mix"], dim=-1).numpy()
        for fold in range(len(best.parts)) for seed in range(best.experiment.config.seeds)
    ]
    means = np.mean(shares, axis=0)
    return {name: round(float(share), 4) for name, share in zip(best.experiment.space.layers, means, strict=True)}


def predictions(experiment: Experiment, scores: list[np.ndarray]) -> pl.DataFrame:
    """Each judged clip: what it is, what was predicted by the mean over seeds, and how sure."""
    task = experiment.task
    judged = experiment.judged()
    fold = np.repeat(np.arange(len(experiment.splits)), [len(split.test) for split in experiment.splits])
    first = pl.DataFrame({"clip_id": task.ids.gather(judged), "fold": fold})
    if task.kind == "regression":
        first = first.with_columns(pl.Series(f"target_{c}", task.targets[judged, i]) for i, c in enumerate(task.columns))
    else:
        first = first.with_columns(readable_targets(task.kind, task.names, task.targets[judged]))
    mean = np.mean(scores, axis=0)
    lost = pl.DataFrame({"loss": losses(task.kind, task.targets[judged], mean)})
    return pl.concat([first, prediction_columns(task.kind, task.names, mean), lost], how="horizontal")


def split_table(experiment: Experiment) -> pl.DataFrame:
    """Which clip stood on which side of which fold."""
    parts = []
    for fold, split in enumerate(experiment.splits):
        for side, rows in zip(SIDES, (split.train, split.valid, split.test), strict=True):
            parts.append(pl.DataFrame({"clip_id": experiment.task.ids.gather(rows)}).with_columns(
                fold=pl.lit(fold, pl.Int64), side=pl.lit(side)
            ))
    return pl.concat(parts)


def first_column(names: Sequence[str]) -> str:
    """`true`, or, where a class is called that, the like that no class is called."""
    name = "true"
    while name in names:
        name += " "
    return name


def summary(metrics: dict[str, Any], found: dict[str, Figure], beside: dict[str, dict[str, Figure]]) -> str:
    """The finding in a few sentences."""
    main = MAIN_METRIC[metrics["task"]]
    others = ", ".join(f"{name} {figure[main].value:.3f}" for name, figure in beside.items())
    text = (
        f"Layer {metrics['layer']} of {metrics['space']} tells {', '.join(metrics['columns'])} with {LONG[main]} {found[main]} "
        f"on {metrics['judged']:,} clips held out ({metrics['setting']}; the best of {metrics['fits']:,} fits on the "
        f"validation clips); beside it: {others}."
    )
    serious = [leak for leak in metrics["leaks"] if leak["clips"] and leak["column"] in ("track", "duplicate", "audio")]
    if serious:
        said = ", ".join(f"{leak['share']:.0%} by {leak['column']}" for leak in serious)
        text += f"  This flatters: of the clips judged, some stand on the other side as well ({said})."
    return text


LONG = {"accuracy": "accuracy", "map": "mAP", "r2": "R²"}
