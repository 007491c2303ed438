"""Compare runs on the songs that all of them held out: does the bass alone predict the meter as well as the whole mix?

A run's scores are averaged over the clips of a song; a song counts once, whichever stem of it a run was given.  Runs that
learned events are compared by the main score of the task (of notes F1 of onsets), each by the events of its own clips.  Which
clips are one song is the lake's answer at the time of the comparison (`store.read_songs`), not the track names of when a run
was trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.evaluate import (
    Replicates,
    Units,
    make_units,
    max_t,
    mean_replicates,
    replicate_means,
    replicate_metrics,
    seeds_estimate,
    stack_replicates,
)
from tonelake.finetune.evaluation import WORD, difference_estimate, is_share
from tonelake.finetune.frames.scores import is_share_of_events, song_scores
from tonelake.finetune.runs import FinetuneRun, song_keys
from tonelake.store import InputError, Lake


def compare_finetunes(lake: Lake, names: Sequence[str]) -> pl.DataFrame:
    """Return a row a run: its main metric on the common songs, and its paired difference from the first run.

    95 % intervals are jackknifed over these songs, and cover the seeds of runs that have several (`over`).  `tied`: not
    distinguishable from the best run, by max-t over all runs and songs (seeds are taken as given).  Raises InputError if runs
    have different targets, or no common test song.
    """
    runs = [FinetuneRun.named(lake, name) for name in names]
    first = runs[0]
    for run in runs:
        if (run.config.events, run.config.column, run.metrics["task"]) != (
            first.config.events, first.config.column, first.metrics["task"]
        ):
            raise InputError(
                f"runs {first.name} and {run.name}: trained on different columns or events. Compare runs of the same ones"
            )
    events = bool(first.config.events)
    tables = [event_scores_by_song(lake, run) if events else scores_by_song(lake, run) for run in runs]
    common = sorted(set.intersection(*(set(table["song"]) for table in tables)))
    if not common:
        raise InputError("no test track in common. Train the second run with --split run:NAME of the first")
    kind, main = str(first.metrics["task"]), str(first.metrics["main"])
    share = is_share_of_events(main) if events else is_share(main)
    classes = [] if events else sorted({name for run in runs for name in class_names(run)})
    units = make_units(np.arange(len(common)), WORD)
    figures = []                                             # of each run, one a seed
    for run, table in zip(runs, tables, strict=True):
        by_seed = table.filter(pl.col("song").is_in(common)).sort("song").partition_by("seed", maintain_order=True)
        figures.append([
            replicate_means(one["value"].to_numpy(), units) if events
            else main_replicates(run, one, classes, kind, main, units) for one in by_seed
        ])
    together = max_t(stack_replicates([mean_replicates(seeds) for seeds in figures]))
    rows = []
    for number, (run, seeds) in enumerate(zip(runs, figures, strict=True)):
        own = seeds_estimate(seeds, share=share).estimate
        away = difference_estimate(differences(seeds, figures[0]), share=share)
        rows.append({
            "run": run.name, "where": run.config.where, "tracks": len(common), "seeds": len(seeds), "figure": main,
            "value": own.value, "low": own.low, "high": own.high, "away": away.value,
            "away_low": away.low if number else None, "away_high": away.high if number else None,
            "tied": bool(number == together.best or together.tied[number]),
            "over": str(units) + (" and seeds" if max(map(len, figures)) > 1 else ""),
        })
    return pl.DataFrame(rows, infer_schema_length=None)


def event_scores_by_song(lake: Lake, run: FinetuneRun) -> pl.DataFrame:
    """Return a row a seed and song: seed, song, and the main score averaged over its clips.

    Songs without a score, because there was nothing to find and nothing was found, are left out.
    """
    table = run.table("scores").filter(model="tuned")
    found = song_scores(table, song_keys(lake, table).to_list(), run.metrics["main"])
    undefined = found.filter(pl.col("value").is_nan())["song"]
    return found.filter(~pl.col("song").is_in(undefined.implode()))


def main_replicates(
    run: FinetuneRun, table: pl.DataFrame, classes: list[str], kind: str, main: str, units: Units
) -> Replicates:
    """Return the main metric of one seed over the classes of all runs."""
    targets, scores = align_classes(run, table, classes, kind)
    return replicate_metrics(kind, targets, [scores], units)[main]


def differences(runs: Sequence[Replicates], others: Sequence[Replicates]) -> list[Replicates]:
    """Return a run's seeds minus another run's: seed by seed if both have equally many, else each from the other's mean."""
    if len(runs) == len(others):
        return [one - other for one, other in zip(runs, others, strict=True)]
    if len(runs) > len(others):
        return [one - mean_replicates(others) for one in runs]
    return [mean_replicates(runs) - other for other in others]


def scores_by_song(lake: Lake, run: FinetuneRun) -> pl.DataFrame:
    """Return a row a seed and song: song, target of its first clip, and scores averaged over its clips."""
    table = run.table("predictions").select("clip_id", "track", "target", "scores")
    table = table.with_columns(song=song_keys(lake, table))
    if "scores.parquet" in run.files.names(".parquet"):
        table = run.table("scores").select("clip_id", "seed", "scores").join(
            table.drop("scores"), on="clip_id", how="left", maintain_order="left"
        )
    else:                                                    # of an earlier release: a single seed
        table = table.with_columns(seed=pl.lit(run.config.seed))
    scores = np.array(table["scores"].to_list(), np.float64)
    columns = [f"s{i}" for i in range(scores.shape[1])]
    wide = pl.concat([table.select("seed", "song", "target"), pl.DataFrame(scores, schema=columns)], how="horizontal")
    return wide.group_by("seed", "song", maintain_order=True).agg(
        pl.col("target").first(), *(pl.col(c).mean() for c in columns)
    )


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
