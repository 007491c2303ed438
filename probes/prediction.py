"""Predictions of a run for any clips: probabilities of its fits, averaged over seeds and folds.

For the test clips of a run with one split, this equals its predictions.parquet.  With folds it does not: there each clip is
predicted by the fits that were not trained on it, here by all fits.

Saved predictions are label columns: `<column>_predicted`, `<column>_probability`, and `<column>_predicted_by`, the run of each.
A second run replaces the predictions of the clips that it is applied to; those of other clips keep their run.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from tonelake.probes.runs import WEIGHTS, Run
from tonelake.store import Added, InputError, Lake, LakeError, SpaceMismatch, is_list

log = logging.getLogger(__name__)

MADE_BY = "_predicted_by"                # end of the name of the column that names the run of each prediction
UNNAMED = "an unnamed run"               # of predictions that an earlier release saved
BLOCK = 8192                             # clips read at a time


@dataclass(frozen=True)
class Predictions:
    """Predictions of a run by clip."""

    run: str
    columns: tuple[str, ...]
    table: pl.DataFrame                  # clip_id and the columns of `probes.outputs.prediction_columns`

    def as_labels(self) -> pl.DataFrame:
        """Return predictions as label columns: `<column>_predicted_by` (the run), `<column>_predicted`, and for classes
        `<column>_probability`."""
        made_by = [pl.lit(self.run).alias(f"{column}{MADE_BY}") for column in self.columns]
        if "predicted" not in self.table.columns:
            values = [pl.col(f"predicted_{c}").alias(f"{c}_predicted") for c in self.columns]
            return self.table.select("clip_id", *made_by, *values)
        column = self.columns[0]
        chosen = [pl.col("clip_id"), *made_by, pl.col("predicted").alias(f"{column}_predicted")]
        if "probability" in self.table.columns:
            chosen.append(pl.col("probability").cast(pl.Float64).alias(f"{column}_probability"))
        return self.table.select(chosen)


def predict(
    lake: Lake, run: str | Run, *, where: str | None = None, save: bool = False, out: str | Path | None = None
) -> Predictions:
    """Apply a run to every embedded clip of its space, or to those that match an SQL filter.

    `save`: also write them to the clips as label columns; `out`: also write them to a Parquet or CSV file.
    Raises InputError if the run does not exist or no clip matches, SpaceMismatch if the space now embeds in a different way.
    """
    from tonelake.probes.grid_parts import preparation_from
    from tonelake.probes.heads import Shape
    from tonelake.probes.inputs import Inputs, InputSpec
    from tonelake.probes.outputs import prediction_columns, probabilities

    found = run if isinstance(run, Run) else Run.named(lake, run)
    config, metrics = found.config, found.metrics
    space = lake.spaces.get(config.space)
    if space.fingerprint != metrics["fingerprint"]:
        raise SpaceMismatch(
            f"run {found.name!r}: was trained on a different way of embedding than space {space.name!r} has now. Train it again"
        )
    tensors, metadata = found.weights(), read_metadata(found)
    shape = Shape(**json.loads(metadata["head"]))
    columns = tuple((int(layer), str(stat)) for layer, stat in json.loads(metadata["columns"]))
    spec = InputSpec(metadata["layer"], columns=columns, parts=shape.mixed, width=shape.width)
    names, kind = tuple(json.loads(metadata["names"])), metadata["kind"]
    ids = lake.vectors(space).ids().unique(maintain_order=True)
    ids = ids.filter(ids.is_in(lake.clips.ids(where).implode()))
    if not len(ids):
        chosen = f" where {where}" if where else ""
        raise InputError(f"no clip{chosen} is embedded in space {space.name!r}. Run `tonelake embed`")
    inputs = Inputs(lake, space, ids)
    folds = []                           # preparation, scale of the targets, and states by seed
    for fold in sorted({int(key.split(".")[0]) for key in tensors}):
        states = []
        for seed in range(config.seeds):
            prefix = f"{fold}.{seed}."
            states.append({key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)})
        folds.append((preparation_from(config, tensors, f"{fold}."), stored_target_scale(tensors, fold), states))
    parts = []
    for start in range(0, len(ids), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(ids)))
        stored = inputs.read_rows(spec, rows)
        total = np.zeros((len(rows), shape.outputs))
        for preparation, scale, states in folds:
            vectors = preparation.apply(stored.copy())
            for state in states:
                total += probabilities(kind, shape, state, vectors, "cpu", scale)
        parts.append(prediction_columns(kind, names, total / (len(folds) * config.seeds)))
    table = pl.concat([pl.DataFrame({"clip_id": ids}), pl.concat(parts)], how="horizontal")
    predictions = Predictions(found.name, config.columns, table)
    if save:
        save_predictions(lake, predictions)
    if out is not None:
        write_predictions(predictions, Path(out).expanduser())
    return predictions


def stored_target_scale(tensors: dict, fold: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and spread of a regression's training targets of a fold, or None."""
    if f"{fold}.target.mean" not in tensors:
        return None
    return tensors[f"{fold}.target.mean"].numpy(), tensors[f"{fold}.target.scale"].numpy()


def read_metadata(run: Run) -> dict[str, str]:
    """Read the metadata of weights.safetensors.  Raises LakeError if it is missing or damaged."""
    from safetensors import SafetensorError, safe_open

    with run.files.fetched(WEIGHTS) as path:
        try:
            if path is not None:
                with safe_open(path, framework="numpy") as file:
                    metadata = file.metadata() or {}
                if {"head", "layer", "names", "kind", "columns"} <= metadata.keys():
                    return metadata
        except (SafetensorError, OSError) as error:
            raise LakeError(f"run {run.name!r}: {WEIGHTS} cannot be read ({error}). Train it again with --again") from error
    raise LakeError(f"run {run.name!r}: {WEIGHTS} is missing or has no description. Train it again with --again")


def save_predictions(lake: Lake, predictions: Predictions) -> Added:
    """Write predictions to label columns of their clips, where they replace those of other runs; other clips are unchanged.

    Logs which runs the columns then hold predictions of, if there are several.
    """
    added = lake.clips.set_labels(predictions.as_labels())
    for sentence in describe_saved(lake, predictions.columns):
        log.info("%s", sentence)
    return added


def count_saved(lake: Lake, column: str) -> dict[str, int]:
    """Return the number of saved predictions of a label column by run, most first; empty if there are none.

    Predictions that an earlier release saved count under UNNAMED.
    """
    predicted, made_by = f"{column}_predicted", f"{column}{MADE_BY}"
    known = lake.clips.columns()
    if predicted not in known:
        return {}
    clips = lake.clips.read([predicted, *([made_by] if made_by in known else [])]).drop_nulls(predicted)
    run = pl.col(made_by).fill_null(UNNAMED) if made_by in clips.columns else pl.lit(UNNAMED)
    counts = clips.group_by(run.alias("run")).len().sort("len", "run", descending=[True, False])
    return dict(counts.iter_rows())


def describe_saved(lake: Lake, columns: Sequence[str]) -> list[str]:
    """Return a sentence for each column of saved predictions that holds those of several runs."""
    counted = {column: count_saved(lake, column) for column in columns}
    return [
        f"column {column}_predicted holds predictions of {len(runs)} runs: "
        + ", ".join(f"{clips:,} by {run}" for run, clips in runs.items()) + f" (column {column}{MADE_BY})"
        for column, runs in counted.items() if len(runs) > 1
    ]


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a Parquet or CSV file, by its suffix; in CSV, lists become JSON.  Raises InputError if it cannot be written."""
    try:
        if path.suffix == ".parquet":
            predictions.table.write_parquet(path)
        elif path.suffix == ".csv":
            lists = [name for name, kind in predictions.table.schema.items() if is_list(kind)]
            as_text = [
                pl.Series(name, [json.dumps(value, ensure_ascii=False) for value in predictions.table[name].to_list()])
                for name in lists
            ]
            predictions.table.with_columns(as_text).write_csv(path)
        else:
            raise InputError(f"{path}: unknown file type. Use .parquet or .csv")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
