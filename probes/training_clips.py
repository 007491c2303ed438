"""Predictions for the clips that a probe was trained on and validated with, by its final weights, to clean labels.

They are kept apart from the table `predictions`, whose clips are test clips: these figures say nothing about new clips.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tonelake.evaluate import Targets
from tonelake.probes.chosen import Chosen
from tonelake.probes.outputs import clip_losses, prediction_columns, readable_targets
from tonelake.probes.review_clips import TRAINING_SIDES


def predict_training_clips(best: Chosen) -> pl.DataFrame:
    """Return a row a training clip and a row a validation clip, `side` says which: see `predictions_of_side`.

    Predictions are means over seeds and over the folds in which the clip was on that side, without dropout.
    """
    experiment = best.experiment
    task = experiment.task
    parts = []
    for side in TRAINING_SIDES:
        folds = [getattr(split, side) for split in experiment.splits]
        rows = np.unique(np.concatenate(folds))
        if not len(rows):
            continue
        total = np.zeros((len(rows), len(task.names)), np.float32)
        count = np.zeros((len(rows), 1), np.float32)
        for fold, own in enumerate(folds):
            if len(own):
                place = np.searchsorted(rows, own)
                total[place] += np.mean([best.outputs(logits, fold) for logits in best.logits(fold, own)], axis=0)
                count[place] += 1
        parts.append(predictions_of_side(task, side, rows, total / count))
    return pl.concat(parts)


def predictions_of_side(task: Targets, side: str, rows: np.ndarray, scores: np.ndarray) -> pl.DataFrame:
    """Return a row a clip: side, clip_id, the target, the prediction of (clip, out) scores, and the loss.

    It has the likeliest class with its probability, and none of the next ones.
    """
    first = pl.DataFrame({"side": np.full(len(rows), side), "clip_id": task.ids.gather(rows)})
    predicted = prediction_columns(task.kind, task.names, scores)
    if task.kind == "multiclass":
        predicted = predicted.select("predicted", "probability")
    loss = pl.DataFrame({"loss": clip_losses(task.kind, task.targets[rows], scores)})
    return pl.concat([first, target_columns(task, rows), predicted, loss], how="horizontal")


def target_columns(task: Targets, rows: np.ndarray) -> pl.DataFrame:
    """Return the targets of clips: `target`, or `target_<column>` for each regression target."""
    if task.kind == "regression":
        return pl.DataFrame({f"target_{name}": task.targets[rows, i] for i, name in enumerate(task.columns)})
    return readable_targets(task.kind, task.names, task.targets[rows]).to_frame()

