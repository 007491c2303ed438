"""A run on disk: one folder below `adapters/` of the lake, readable without tonelake.

    config.yaml            every setting, resolved; written first
    work/                  decoded audio, checkpoints, TensorBoard's log, while it runs (on this machine)
    adapter/               the LoRA weights, in PEFT's form
    head.safetensors       the head, with the names of its outputs
    history.parquet        each epoch
    layers.parquet         the share of each layer in the head's weighting
    classes.parquet, predictions.parquet, split.parquet, confusion.parquet
    report.md, *.png       report and plots
    tensorboard/           the log of the training
    metrics.json           metrics before and after; written last, so its presence marks the run as finished
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from tonelake.finetune.config import FinetuneConfig
from tonelake.probes import read_tensors
from tonelake.store import FinishedRun, Lake, cache_folder, is_local

HEAD = "head.safetensors"


class FinetuneRun(FinishedRun[FinetuneConfig]):
    """A finished fine-tuning."""

    kind, noun, maker, settings = "adapters", "fine-tuning", "tonelake finetune COLUMN", FinetuneConfig
    types: ClassVar[dict[str, type]] = {
        "main": str, "space": str, "figures": dict, "clips": int, "trainable": int, "epochs": int,
    }

    def head(self) -> dict[str, Any]:
        """Return the head's tensors by name."""
        return read_tensors(self.files, HEAD, self.name)

    @property
    def adapter(self) -> str:
        """Return the path of the adapter inside the lake."""
        return f"adapters/{self.name}/adapter"


def work_folder(lake: Lake, name: str) -> Path:
    """Return the folder for a run's files during training: beside the run, or on this machine for a lake in an object store."""
    if is_local(lake.uri):
        return Path(lake.uri) / "adapters" / name / "work"
    digest = hashlib.blake2b(f"{lake.uri}\0{name}".encode(), digest_size=8).hexdigest()
    return cache_folder() / "finetune" / digest / "work"


def list_finetunes(lake: Lake) -> pl.DataFrame:
    """A row a run: what it learned, its main figure with interval, and that of the frozen probe."""
    rows = []
    for run in FinetuneRun.all(lake):
        metrics = run.metrics
        frozen = (metrics.get("frozen") or {}).get("figures") or {}
        rows.append({
            "run": run.name, "column": run.config.column, "space": metrics["space"], "where": run.config.where,
            "split": run.config.split, "figure": metrics["main"], **metrics["figures"][metrics["main"]],
            "frozen": (frozen.get(metrics["main"]) or {}).get("value"), "clips": metrics["clips"],
            "trainable": metrics["trainable"], "epochs": metrics["epochs"], "finished": metrics["finished"],
        })
    schema = {
        "run": pl.String, "column": pl.String, "space": pl.String, "where": pl.String, "split": pl.String, "figure": pl.String,
        "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "frozen": pl.Float64, "clips": pl.Int64,
        "trainable": pl.Int64, "epochs": pl.Int64, "finished": pl.String,
    }
    return pl.DataFrame(rows, schema=schema)
