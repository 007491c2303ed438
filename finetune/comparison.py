"""Runs beside each other on the tracks that all of them held out: does the bass alone tell the meter as the whole mix does?

A run's scores of a track's clips are averaged; a track counts once, whichever stem of it a run heard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.evaluate import MAIN_METRIC, METRICS_BY_KIND, resample_weights_of_clips
from tonelake.finetune.runs import FinetuneRun
from tonelake.store import InputError

DRAWS = 1_000


def compare_finetunes(runs: Sequence[FinetuneRun]) -> pl.DataFrame:
    """A row a run: its main figure on the common tracks, and how far it is from the first run's, with 95 % intervals.

    Raises InputError where runs learned different things, or held out no track in common.
    """
    first = runs[0]
    for run in runs:
        if run.config.column != first.config.column or run.metrics["task"] != first.metrics["task"]:
            raise InputError(f"runs {first.name} and {run.name} learned different things: compare those of one column")
    tables = [by_track(run) for run in runs]
    common = sorted(set.intersection(*(set(table["track"]) for table in tables)))
    if not common:
        raise InputError("the runs held out no track in common: train the second with --split run:NAME of the first")
    kind, main = str(first.metrics["task"]), str(first.metrics["main"])
    names = sorted({name for run in runs for name in class_names(run)})
    weights = np.concatenate([np.ones((1, len(common))), resample_weights_of_clips(np.arange(len(common)), DRAWS, seed=0)])
    values = []
    for run, table in zip(runs, tables, strict=True):
        own = table.filter(pl.col("track").is_in(common)).sort("track")
        targets, scores = aligned(run, own, names, kind)
        values.append(METRICS_BY_KIND[kind](targets, scores, weights)[MAIN_METRIC[kind]])
    rows = []
    for run, drawn_values in zip(runs, values, strict=True):
        away = drawn_values - values[0]
        low, high = np.nanpercentile(drawn_values[1:], [2.5, 97.5])
        less, more = np.nanpercentile(away[1:], [2.5, 97.5])
        rows.append({
            "run": run.name, "where": run.config.where, "tracks": len(common), "figure": main, "value": float(drawn_values[0]),
            "low": float(low), "high": float(high), "away": float(away[0]), "away_low": float(less), "away_high": float(more),
        })
    return pl.DataFrame(rows, infer_schema_length=None)


def by_track(run: FinetuneRun) -> pl.DataFrame:
    """track, target of its first clip, scores averaged over its clips."""
    table = run.table("predictions")
    scores = np.array(table["scores"].to_list(), np.float64)
    columns = [f"s{i}" for i in range(scores.shape[1])]
    wide = pl.concat([table.select("track", "target"), pl.DataFrame(scores, schema=columns)], how="horizontal")
    return wide.group_by("track", maintain_order=True).agg(pl.col("target").first(), *(pl.col(c).mean() for c in columns))


def class_names(run: FinetuneRun) -> list[str]:
    return run.table("classes")["name"].to_list() if run.metrics["task"] != "regression" else []


def aligned(run: FinetuneRun, table: pl.DataFrame, names: list[str], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Targets and scores over the classes of all runs; a class that a run does not know scores 0."""
    scores = table.select(pl.col("^s\\d+$")).to_numpy()
    if kind == "regression":
        return table["target"].to_numpy()[:, None], scores[:, :1]
    wide = np.zeros((len(table), len(names)))
    wide[:, [names.index(name) for name in class_names(run)]] = scores
    if kind == "multiclass":
        return np.array([names.index(name) for name in table["target"]]), wide
    return np.array([[float(name in tags) for name in names] for tags in table["target"].to_list()]), wide
