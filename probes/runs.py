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

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from probes.config import ProbeConfig
from store import InputError, Lake, LakeError
from store.files import LakeFiles
from store.runs import METRICS, choose_run, read_run_table, run_folder

if TYPE_CHECKING:
    from probes.heads import Tensors

CONFIG, WEIGHTS, REPORT = "config.yaml", "weights.safetensors", "report.md"


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    files: LakeFiles
    config: ProbeConfig
    metrics: dict[str, Any]

    def table(self, name: str) -> pl.DataFrame:
        """fits, layers, classes, predictions, split, … as its files are called.  Raises InputError where it has no such one."""
        return read_run_table(self.files, self.name, name)

    def weights(self) -> Tensors:
        """Named `<fold>.<seed>.<parameter>`, and `<fold>.prepare.mean` and `.scale`."""
        return read_tensors(self.files, WEIGHTS, self.name)

    def summary(self) -> str:
        return str(self.metrics["summary"])

    def report(self) -> str:
        return self.files.read(REPORT) or ""


def folder_of(lake: Lake, name: str) -> LakeFiles:
    """Raises InputError for a name that is no name of a run."""
    return run_folder(lake, "probes", name)


def all_runs(lake: Lake) -> list[Run]:
    """The finished runs of a lake, oldest first.  Folders that hold no finished run are left out."""
    found = []
    for name in lake.files("probes").folders():
        run = find_run(lake, name)
        if run is not None:
            found.append(run)
    return sorted(found, key=lambda run: (run.metrics.get("finished", ""), run.name))


def read_run(lake: Lake, name: str) -> Run:
    """A run by its name, or by a part of it that only one run has.  Raises InputError where there is none."""
    chosen = choose_run(lake, "probes", name, absent=f"no run {name!r} in this lake", maker="tonelake probe COLUMN")
    run = find_run(lake, chosen)
    assert run is not None
    return run


def find_run(lake: Lake, name: str) -> Run | None:
    """A finished run, or None where there is none of that name, or only a begun one."""
    files = folder_of(lake, name)
    metrics = files.read(METRICS)
    if metrics is None:
        return None
    config, _ = read_config(files, name)
    try:
        return Run(name, files, config, json.loads(metrics))
    except ValueError as error:
        raise LakeError(f"{METRICS} of run {name!r} cannot be read ({error}): delete its folder and run it again") from error


def read_config(files: LakeFiles, name: str) -> tuple[ProbeConfig, str]:
    """A run's settings, and the digest of settings and data."""
    import yaml

    text = files.read(CONFIG)
    if text is None:
        raise LakeError(f"run {name!r} has no {CONFIG}: delete its folder")
    try:
        values = yaml.safe_load(text)
        digest = values.pop("digest", "")
        return ProbeConfig.from_dict(values, f"{CONFIG} of run {name!r}"), digest
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise LakeError(f"{CONFIG} of run {name!r} cannot be read: {error}") from error


def config_from_file(path: Path) -> ProbeConfig:
    """Settings from any YAML file, as of a run.  Raises InputError."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings: each line is one, as `columns: [artist]`")
    values.pop("digest", None)
    return ProbeConfig.from_dict(values, str(path))


def config_text(values: Mapping[str, Any], digest: str) -> str:
    """A run's settings as YAML, with the digest of settings and data."""
    import yaml

    return yaml.safe_dump({**values, "digest": digest}, sort_keys=False, allow_unicode=True, default_flow_style=None)


def write_table(files: LakeFiles, name: str, table: pl.DataFrame) -> None:
    def write(path: Path) -> None:
        table.write_parquet(path)

    files.put(f"{name}.parquet", write)


def write_tensors(files: LakeFiles, name: str, tensors: Tensors, about: dict[str, str] | None = None) -> None:
    from safetensors.torch import save_file

    def write(path: Path) -> None:
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, path, metadata=about)

    files.put(name, write)


def read_tensors(files: LakeFiles, name: str, run: str) -> Tensors:
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
