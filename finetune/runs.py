"""A run on disk: one folder below `adapters/` of the lake, readable without tonelake.

    config.yaml            every setting, resolved; written first
    manifest.json          digests of the data that decide the results: clips, sets, class names, tracks, … (`store.manifest`)
    work/                  decoded audio, pooled layers, checkpoints, TensorBoard's log, while it runs (on this machine)
    adapter/               the LoRA weights, in PEFT's form
    head.safetensors       the head, with the names of its outputs
    history.parquet        each epoch
    seeds.parquet          each seed: its scores, and whether it is the one whose adapter and head are kept
    layers.parquet         the share of each layer in the head's weighting
    scores.parquet         each seed's scores of the test clips, tuned and frozen
    training_predictions.parquet   each training and validation clip, by the kept weights
    classes.parquet, predictions.parquet, split.parquet, confusion.parquet
    report.md, *.png       report and plots
    tensorboard/           the log of the training
    metrics.json           metrics before and after; written last, so its presence marks the run as finished
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from tonelake.embed import ADAPTER_CONFIG as PEFT_CONFIG
from tonelake.embed import ADAPTER_WEIGHTS
from tonelake.finetune.config import FinetuneConfig
from tonelake.probes import read_tensors
from tonelake.store import Blobs, FinishedRun, Lake, cache_folder, is_local, read_songs

HEAD = "head.safetensors"
BASELINES = ("chance", "majority")       # of `finetune.baselines`


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


def claim_work(work: Path, digest: str) -> None:
    """Make the work folder that of the run with this digest: files that another run left there are deleted."""
    owner = work / "digest"
    if not (owner.is_file() and owner.read_text(encoding="utf-8") == digest):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        partial = owner.with_suffix(".partial")
        partial.write_text(digest, encoding="utf-8")
        partial.replace(owner)


def digest_of_start(lake: Lake, start: str) -> str:
    """Return a digest of the weights that `--start` names: a checkpoint file, a folder in PEFT's form, or a run of the lake.

    Raises InputError if it is a run that does not exist.
    """
    from tonelake.finetune.checkpoint_file import WEIGHT_SUFFIXES

    hasher, path = hashlib.blake2b(digest_size=16), Path(start).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hasher).hexdigest()
    if path.suffix in WEIGHT_SUFFIXES:
        return "absent"                  # reading the weights raises the error
    if (path / PEFT_CONFIG).is_file():
        found = [(Blobs(str(path)), name) for name in (PEFT_CONFIG, ADAPTER_WEIGHTS)]
    else:
        run = FinetuneRun.named(lake, start)
        inside = Blobs(f"{run.files.uri}/adapter")
        found = [(inside, PEFT_CONFIG), (inside, ADAPTER_WEIGHTS), (run.files, HEAD)]
    for files, name in found:
        with files.fetched(name) as local:
            hasher.update(b"absent" if local is None else local.read_bytes())
    return hasher.hexdigest()


def song_keys(lake: Lake, table: pl.DataFrame) -> pl.Series:
    """Return a key of each clip's song in the lake, for a run's table with `clip_id` and `track`.

    Clips that have left the lake are known by the name of their track.
    """
    songs = read_songs(lake.clips).of(table["clip_id"])
    names = zip(songs.tolist(), table["track"], strict=True)
    return pl.Series("song", [f"song {song}" if song >= 0 else f"track {track}" for song, track in names], dtype=pl.String)


def has_same_head(metrics: dict[str, Any]) -> bool:
    """Return whether a run's frozen baseline has its head; earlier releases trained a linear probe on one layer instead."""
    return bool((metrics.get("frozen") or {}).get("head"))


def list_finetunes(lake: Lake) -> pl.DataFrame:
    """Return a row a run: what it learned, its main metric, that of the frozen baseline, and their paired difference.

    `frozen` and the difference are null for runs of earlier releases, whose frozen encoder was judged with another head.
    """
    rows = []
    for run in FinetuneRun.all(lake):
        metrics, main = run.metrics, run.metrics["main"]
        same = has_same_head(metrics)
        away = (metrics.get("difference") or {}).get(main) or {}
        rows.append({
            "run": run.name, "column": run.config.column, "space": metrics["space"], "where": run.config.where,
            "split": run.config.split, "figure": main, **metrics["figures"][main],
            "frozen": metrics["frozen"]["figures"][main]["value"] if same else None, "difference": away.get("value"),
            "difference_low": away.get("low"), "difference_high": away.get("high"), "over": metrics.get("over"),
            **{name: metrics.get("baselines", {}).get(name, {}).get(main, {}).get("value") for name in BASELINES},
            "seeds": len(metrics.get("seeds") or [0]), "clips": metrics["clips"], "trainable": metrics["trainable"],
            "epochs": metrics["epochs"], "finished": metrics["finished"],
        })
    schema = {
        "run": pl.String, "column": pl.String, "space": pl.String, "where": pl.String, "split": pl.String, "figure": pl.String,
        "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "frozen": pl.Float64, "difference": pl.Float64,
        "difference_low": pl.Float64, "difference_high": pl.Float64, "over": pl.String,
        **dict.fromkeys(BASELINES, pl.Float64), "seeds": pl.Int64, "clips": pl.Int64, "trainable": pl.Int64,
        "epochs": pl.Int64, "finished": pl.String,
    }
    return pl.DataFrame(rows, schema=schema)
