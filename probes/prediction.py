"""What a run says of clips: the probabilities of its fits, averaged over seeds and folds.

For the clips that a run judged on one split, that is what its predictions.parquet holds.  With folds, where each clip was
judged by the fits that had not seen it, it is not: here every fit has its say.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.probes.runs import WEIGHTS, Run
from tonelake.store import Added, InputError, Lake, LakeError, SpaceMismatch

BLOCK = 8192                             # clips read at a time


@dataclass(frozen=True)
class Predictions:
    """Clips with what a run says of them."""

    run: str
    columns: tuple[str, ...]
    table: pl.DataFrame                  # clip_id and the columns of `probes.outputs.prediction_columns`

    def as_labels(self) -> pl.DataFrame:
        """The same as label columns: `<column>_predicted`, and of classes `<column>_probability`."""
        if "predicted" not in self.table.columns:
            return self.table.select("clip_id", *(pl.col(f"predicted_{c}").alias(f"{c}_predicted") for c in self.columns))
        column = self.columns[0]
        chosen = [pl.col("clip_id"), pl.col("predicted").alias(f"{column}_predicted")]
        if "probability" in self.table.columns:
            chosen.append(pl.col("probability").cast(pl.Float64).alias(f"{column}_probability"))
        return self.table.select(chosen)


def predict(lake: Lake, run: str | Run, *, where: str | None = None) -> Predictions:
    """Apply a run to every embedded clip of its space, or to those that an SQL filter keeps.

    Raises InputError where there is no such run or no clip, SpaceMismatch where its space is another one by now.
    """
    from tonelake.probes.grid_parts import preparation_from
    from tonelake.probes.heads import Shape
    from tonelake.probes.inputs import Inputs, Slot
    from tonelake.probes.outputs import prediction_columns, probabilities

    found = run if isinstance(run, Run) else Run.named(lake, run)
    config, metrics = found.config, found.metrics
    space = lake.spaces.get(config.space)
    if space.fingerprint != metrics["fingerprint"]:
        raise SpaceMismatch(f"run {found.name!r} was trained on another way of embedding than space {space.name!r} holds now")
    tensors, about = found.weights(), read_about(found)
    shape = Shape(**json.loads(about["head"]))
    columns = tuple((int(layer), str(stat)) for layer, stat in json.loads(about["columns"]))
    slot = Slot(about["layer"], columns, shape.mixed, shape.width)
    names, kind = tuple(json.loads(about["names"])), about["kind"]
    ids = lake.vectors(space).ids().unique(maintain_order=True)
    ids = ids.filter(ids.is_in(lake.clips.ids(where).implode()))
    if not len(ids):
        raise InputError(f"no clip{f' where {where}' if where else ''} is embedded in space {space.name!r}: nothing to predict")
    inputs = Inputs(lake, space, ids)
    folds = []                           # what each does to vectors, its targets' scale, and the states of its seeds
    for fold in sorted({int(key.split(".")[0]) for key in tensors}):
        states = []
        for seed in range(config.seeds):
            prefix = f"{fold}.{seed}."
            states.append({key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)})
        folds.append((preparation_from(config, tensors, f"{fold}."), target_scale(tensors, fold), states))
    parts = []
    for start in range(0, len(ids), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(ids)))
        stored = inputs.some(slot, rows)
        total = np.zeros((len(rows), shape.outputs))
        for made, scale, states in folds:
            vectors = made.apply(stored.copy())
            for state in states:
                total += probabilities(kind, shape, state, vectors, "cpu", scale)
        parts.append(prediction_columns(kind, names, total / (len(folds) * config.seeds)))
    table = pl.concat([pl.DataFrame({"clip_id": ids}), pl.concat(parts)], how="horizontal")
    return Predictions(found.name, config.columns, table)


def target_scale(tensors: dict, fold: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and spread of a regression's targets, as a fold learned them."""
    if f"{fold}.target.mean" not in tensors:
        return None
    return tensors[f"{fold}.target.mean"].numpy(), tensors[f"{fold}.target.scale"].numpy()


def read_about(run: Run) -> dict[str, str]:
    """What weights.safetensors says of itself."""
    from safetensors import SafetensorError, safe_open

    with run.files.fetched(WEIGHTS) as path:
        try:
            if path is not None:
                with safe_open(path, framework="numpy") as file:
                    about = file.metadata() or {}
                if {"head", "layer", "names", "kind", "columns"} <= about.keys():
                    return about
        except (SafetensorError, OSError) as error:
            raise LakeError(f"{WEIGHTS} of run {run.name!r} cannot be read ({error}): run it again") from error
    raise LakeError(f"{WEIGHTS} of run {run.name!r} is missing or does not say what it holds: run it again")


def save_predictions(lake: Lake, predictions: Predictions) -> Added:
    """Write predictions to the clips as label columns; what other runs wrote of the same column is replaced."""
    return lake.clips.set_labels(predictions.as_labels())


def write_predictions(predictions: Predictions, path: Path) -> None:
    """A Parquet or CSV file, by its ending; in CSV lists stand as JSON.  Raises InputError where it cannot be written."""
    try:
        if path.suffix == ".parquet":
            predictions.table.write_parquet(path)
        elif path.suffix == ".csv":
            lists = [name for name, kind in predictions.table.schema.items() if isinstance(kind, pl.List)]
            as_text = [
                pl.Series(name, [json.dumps(value, ensure_ascii=False) for value in predictions.table[name].to_list()])
                for name in lists
            ]
            predictions.table.with_columns(as_text).write_csv(path)
        else:
            raise InputError(f"{path}: predictions are written to .parquet or .csv")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
