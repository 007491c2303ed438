"""Compare runs on the tracks that all of them held out: does the bass alone predict the meter as well as the whole mix?

A run's scores are averaged over the clips of a track; a track counts once, whichever stem of it a run was given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.evaluate import DRAWS, MAIN_METRIC, METRICS_BY_KIND, percentile_interval, weights_with_original
from tonelake.finetune.runs import FinetuneRun
from tonelake.store import InputError, Lake


def compare_finetunes(lake: Lake, names: Sequence[str]) -> pl.DataFrame:
    """Return a row a run: its main metric on the common tracks, and the difference from the first run, with 95 % intervals.

    Raises InputError if runs have different targets, or no common test track.
    """
    runs = [FinetuneRun.named(lake, name) for name in names]
    first = runs[0]
    for run in runs:
        if run.config.column != first.config.column or run.metrics["task"] != first.metrics["task"]:
            raise InputError(f"runs {first.name} and {run.name}: trained on different columns. Compare runs of one column")
    tables = [scores_by_track(run) for run in runs]
    common = sorted(set.intersection(*(set(table["track"]) for table in tables)))
    if not common:
        raise InputError("no test track in common. Train the second run with --split run:NAME of the first")
    kind, main = str(first.metrics["task"]), str(first.metrics["main"])
    names = sorted({name for run in runs for name in class_names(run)})
    weights = weights_with_original(np.arange(len(common)), DRAWS, seed=0)
    values = []
    for run, table in zip(runs, tables, strict=True):
        own = table.filter(pl.col("track").is_in(common)).sort("track")
        targets, scores = align_classes(run, own, names, kind)
        values.append(METRICS_BY_KIND[kind](targets, scores, weights)[MAIN_METRIC[kind]])
    rows = []
    for run, own_values in zip(runs, values, strict=True):
        away = own_values - values[0]
        low, high = percentile_interval(own_values[1:])
        away_low, away_high = percentile_interval(away[1:])
        rows.append({
            "run": run.name, "where": run.config.where, "tracks": len(common), "figure": main, "value": float(own_values[0]),
            "low": low, "high": high, "away": float(away[0]), "away_low": away_low, "away_high": away_high,
        })
    return pl.DataFrame(rows, infer_schema_length=None)


def scores_by_track(run: FinetuneRun) -> pl.DataFrame:
    """Return a row a track: track, target of its first clip, and scores averaged over its clips."""
    table = run.table("predictions")
    scores = np.array(table["scores"].to_list(), np.float64)
    columns = [f"s{i}" for i in range(scores.shape[1])]
    wide = pl.concat([table.select("track", "target"), pl.DataFrame(scores, schema=columns)], how="horizontal")
    return wide.group_by("track", maintain_order=True).agg(pl.col("target").first(), *(pl.col(c).mean() for c in columns))


def class_names(run: FinetuneRun) -> list[str]:
    return run.table("classes")["name"].to_list() if run.metrics["task"] != "regression" else []


def align_classes(run: FinetuneRun, table: pl.DataFrame, names: list[str], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and scores over the classes of all runs; classes unknown to a run score 0."""
    scores = table.select(pl.col("^s\\d+$")).to_numpy()
    if kind == "regression":
        return table["target"].to_numpy()[:, None], scores[:, :1]
    wide = np.zeros((len(table), len(names)))
    wide[:, [names.index(name) for name in class_names(run)]] = scores
    if kind == "multiclass":
        return np.array([names.index(name) for name in table["target"]]), wide
    return np.array([[float(name in tags) for name in names] for tags in table["target"].to_list()]), wide
