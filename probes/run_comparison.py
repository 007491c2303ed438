"""Finished runs side by side: probes on vectors and on frames."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tonelake.probes.frames.run import FrameRun, named_run
from tonelake.probes.runs import Run
from tonelake.store import Lake


def compare_probes(lake: Lake, names: Sequence[str] = ()) -> pl.DataFrame:
    """Compare runs on vectors and on frames, by default all: a row a run with its columns, its main metric with its interval
    and the units of this (`over`, null for runs of earlier releases), and its best baseline."""
    runs: list[Run | FrameRun] = [named_run(lake, name) for name in names] if names else [*Run.all(lake), *FrameRun.all(lake)]
    runs = runs if names else sorted(runs, key=lambda run: (run.metrics["finished"], run.name))
    rows = []
    for run in runs:
        metrics, config = run.metrics, run.config
        figure = metrics["figures"][metrics["main"]]
        values = {name: baseline.get(metrics["main"], {}).get("value") for name, baseline in metrics["baselines"].items()}
        strongest = max((name for name in values if values[name] is not None), key=lambda name: values[name], default=None)
        rows.append({
            "run": run.name, "columns": ", ".join(metrics["columns"]), "space": metrics["space"], "head": config.head,
            "split": config.split, "layer": metrics["layer"], "figure": metrics["main"], **figure,
            "over": metrics.get("over"),
            "baseline": strongest, "baseline_value": values[strongest] if strongest else None, "clips": metrics["clips"],
            "fits": metrics["fits"], "protocol": getattr(config, "protocol", None) or None, "finished": metrics["finished"],
        })
    schema = {
        "run": pl.String, "columns": pl.String, "space": pl.String, "head": pl.String, "split": pl.String, "layer": pl.String,
        "figure": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "over": pl.String,
        "baseline": pl.String, "baseline_value": pl.Float64, "clips": pl.Int64, "fits": pl.Int64, "protocol": pl.String,
        "finished": pl.String,
    }
    return pl.DataFrame(rows, schema=schema)
