"""A run on disk: one folder below `probes/` of the lake, readable without tonelake.

    config.yaml            every setting, resolved; written first
    partial/               the fits done so far, while it runs
    weights.safetensors    the chosen fits: every seed and fold, and what is done to vectors before
    fits.parquet           every fit of the grid: layer, rate, decay, seed, fold, epochs, score, loss
    layers.parquet         each layer at its best setting, with figures and intervals
    classes.parquet        each class or tag
    predictions.parquet    each judged clip
    split.parquet          which clip stood on which side of which fold
    confusion.parquet      of classes
    report.md, *.png       for people
    metrics.json           figures, baselines, leaks; written last, so its presence means done
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import polars as pl

from tonelake.probes.config import ProbeConfig
from tonelake.store import Blobs, FinishedRun, LakeError

if TYPE_CHECKING:
    from tonelake.probes.heads import Tensors

WEIGHTS = "weights.safetensors"


class Run(FinishedRun[ProbeConfig]):
    """A finished run."""

    kind, noun, maker, settings = "probes", "run", "tonelake probe COLUMN", ProbeConfig
    types: ClassVar[dict[str, type]] = {
        "main": str, "task": str, "space": str, "figures": dict, "baselines": dict, "clips": int, "fits": int,
    }

    def weights(self) -> Tensors:
        """Named `<fold>.<seed>.<parameter>`, and `<fold>.prepare.mean` and `.scale`."""
        return read_tensors(self.files, WEIGHTS, self.name)


def write_table(files: Blobs, name: str, table: pl.DataFrame) -> None:
    def write(path: Path) -> None:
        table.write_parquet(path)

    files.put(f"{name}.parquet", write)


def write_tensors(files: Blobs, name: str, tensors: Tensors, about: dict[str, str] | None = None) -> None:
    from safetensors.torch import save_file

    def write(path: Path) -> None:
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, path, metadata=about)

    files.put(name, write)


def read_tensors(files: Blobs, name: str, run: str) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with files.fetched(name) as path:
        if path is None:
            raise LakeError(f"run {run!r} has no {name}: run it again")
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise LakeError(f"{name} of run {run!r} cannot be read ({error}): run it again") from error


def compare_runs(runs: Sequence[Run]) -> pl.DataFrame:
    """A row a run: what it learned, its main figure with interval, and the best baseline's."""
    rows = []
    for run in runs:
        metrics, config = run.metrics, run.config
        figure = metrics["figures"][metrics["main"]]
        beside = {name: found[metrics["main"]]["value"] for name, found in metrics["baselines"].items()}
        strongest = max((name for name in beside if beside[name] is not None), key=lambda name: beside[name], default=None)
        rows.append({
            "run": run.name, "columns": ", ".join(config.columns), "space": metrics["space"], "head": config.head,
            "split": config.split, "layer": metrics["layer"], "figure": metrics["main"], **figure,
            "baseline": strongest, "baseline_value": beside[strongest] if strongest else None, "clips": metrics["clips"],
            "fits": metrics["fits"], "protocol": config.protocol or None, "finished": metrics["finished"],
        })
    schema = {
        "run": pl.String, "columns": pl.String, "space": pl.String, "head": pl.String, "split": pl.String, "layer": pl.String,
        "figure": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "baseline": pl.String,
        "baseline_value": pl.Float64, "clips": pl.Int64, "fits": pl.Int64, "protocol": pl.String, "finished": pl.String,
    }
    return pl.DataFrame(rows, schema=schema)
