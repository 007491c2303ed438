"""A run on disk: one folder below `adapters/` of the lake, readable without tonelake.

    config.yaml            every setting, resolved; written first
    work/                  decoded audio, checkpoints, TensorBoard's log, while it runs (on this machine)
    adapter/               what the encoder gained, in PEFT's form
    head.safetensors       the head, and what its outputs are called
    history.parquet        each epoch
    layers.parquet         the share of each layer in the head's weighting
    classes.parquet, predictions.parquet, split.parquet, confusion.parquet
    report.md, *.png       for people
    tensorboard/           the log of the training
    metrics.json           figures, before and after; written last, so its presence means done
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from finetune.config import FinetuneConfig
from probes.runs import read_tensors
from store import InputError, Lake, LakeError
from store.files import LakeFiles, is_local
from store.runs import METRICS, choose_run, read_run_table, run_folder

CONFIG, HEAD, REPORT = "config.yaml", "head.safetensors", "report.md"


@dataclass(frozen=True)
class Tuning:
    """A finished run."""

    name: str
    files: LakeFiles
    config: FinetuneConfig
    metrics: dict[str, Any]

    def table(self, name: str) -> pl.DataFrame:
        """history, layers, classes, predictions, split, … as its files are called.  Raises InputError for another name."""
        return read_run_table(self.files, self.name, name)

    def head(self) -> dict[str, Any]:
        """The head's tensors by name."""
        return read_tensors(self.files, HEAD, self.name)

    @property
    def adapter(self) -> str:
        """Where its adapter lies, inside the lake."""
        return f"adapters/{self.name}/adapter"

    def summary(self) -> str:
        return str(self.metrics["summary"])

    def report(self) -> str:
        return self.files.read(REPORT) or ""


def folder_of(lake: Lake, name: str) -> LakeFiles:
    """Raises InputError for a name that is no name of a run."""
    return run_folder(lake, "adapters", name)


def work_folder(lake: Lake, name: str) -> Path:
    """Where a run keeps what it needs while it trains: beside it, or on this machine where the lake is an object store."""
    if is_local(lake.uri):
        return Path(lake.uri) / "adapters" / name / "work"
    place = hashlib.blake2b(f"{lake.uri}\0{name}".encode(), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"tonelake-{place}" / "work"


def all_tunings(lake: Lake) -> list[Tuning]:
    """The finished runs of a lake, oldest first."""
    found = [find_tuning(lake, name) for name in lake.files("adapters").folders()]
    return sorted((run for run in found if run is not None), key=lambda run: (run.metrics.get("finished", ""), run.name))


def read_tuning(lake: Lake, name: str) -> Tuning:
    """A run by its name, or by a part of it that only one run has.  Raises InputError where there is none."""
    absent = f"no fine-tuning {name!r} in this lake"
    chosen = choose_run(lake, "adapters", name, absent=absent, maker="tonelake finetune COLUMN")
    run = find_tuning(lake, chosen)
    assert run is not None
    return run


def find_tuning(lake: Lake, name: str) -> Tuning | None:
    """A finished run, or None where there is none of that name, or only a begun one."""
    files = folder_of(lake, name)
    metrics = files.read(METRICS)
    if metrics is None:
        return None
    config, _ = read_config(files, name)
    try:
        return Tuning(name, files, config, json.loads(metrics))
    except ValueError as error:
        raise LakeError(f"{METRICS} of run {name!r} cannot be read ({error}): delete its folder and run it again") from error


def read_config(files: LakeFiles, name: str) -> tuple[FinetuneConfig, str]:
    """A run's settings, and the digest of settings and data."""
    text = files.read(CONFIG)
    if text is None:
        raise LakeError(f"run {name!r} has no {CONFIG}: delete its folder")
    values = parsed(text, f"{CONFIG} of run {name!r}")
    digest = str(values.pop("digest", ""))
    return FinetuneConfig.from_dict(values, f"{CONFIG} of run {name!r}"), digest


def config_from_file(path: Path) -> FinetuneConfig:
    """Settings from any YAML file, as of a run.  Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}") from error
    values = parsed(text, str(path))
    values.pop("digest", None)
    return FinetuneConfig.from_dict(values, str(path))


def parsed(text: str, where: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{where} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{where} holds no settings: each line is one, as `column: meter`")
    return values


def list_tunings(runs: Sequence[Tuning]) -> pl.DataFrame:
    """A row a run: what it learned, its main figure with interval, and that of the frozen probe."""
    rows = []
    for run in runs:
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
