"""Resolve a probe's settings to clips, targets, folds, vectors and device, and train its grid part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from tonelake.embed import EmbedSettings, cpu_has_bfloat16, products_preserved, resolve_device
from tonelake.evaluate import (
    LEAK_COLUMNS,
    MOST_FOLDS,
    Split,
    Targets,
    Units,
    closed_groups,
    key_scores,
    make_manifest,
    make_splits,
    make_units,
    plural,
    read_targets,
)
from tonelake.probes.blocks import train_in_blocks
from tonelake.probes.config import PROBE_VERSION, ProbeConfig
from tonelake.probes.convergence import fit_to_convergence
from tonelake.probes.grid import GridData, GridResults, Schedule
from tonelake.probes.heads import Shape, Tensors
from tonelake.probes.inputs import Inputs, InputSpec, Preparation, input_specs
from tonelake.probes.losses import Loss, balanced_weights
from tonelake.probes.monitors import Monitor
from tonelake.probes.streaming import StreamedGridData
from tonelake.store import InputError, Lake, Manifest, Space, memory_bytes

MEMORY_SHARE = 0.35                      # of the machine's memory for the vectors of one part; beyond it, vectors stream
PARAMETERS_AT_ONCE = 600_000             # on a CPU: with moments and gradients, what its cache holds of a part
PARAMETERS_OF_BLOCK = 1_000_000          # on a CPU, of one input's fits: smaller blocks lose more by calls than by the cache
MAX_CELLS = 400_000_000                  # jackknife folds × test clips × classes × seeds, above which there are fewer folds
FEWEST_FOLDS = 40                        # t quantile at 39 degrees: 2.023
LARGE_HEAD = 4_096                       # parameters of a fit above which bfloat16 products pay off


@dataclass(kw_only=True)
class Experiment:
    """Resolved settings and data: nothing in `config` is auto or None, except `where`."""

    lake: Lake
    space: Space
    config: ProbeConfig
    task: Targets
    splits: list[Split]
    specs: list[InputSpec]
    inputs: Inputs
    notes: list[str]

    def manifest(self) -> Manifest:
        """Return the manifest of the run: settings, and a digest of each part of the data."""
        held_out = held_out_column(self.config.split)
        groups = [*LEAK_COLUMNS, held_out] if held_out else LEAK_COLUMNS
        return make_manifest(
            self.config.identity(), PROBE_VERSION, self.space.fingerprint, self.task, self.splits, groups=groups
        )

    @property
    def fits(self) -> int:
        """Return the number of fits in the grid."""
        return len(self.specs) * len(self.config.settings) * self.config.seeds * len(self.splits)

    def shape(self, spec: InputSpec) -> Shape:
        """Return the architecture of the head for an input."""
        return Shape(
            kind=self.config.head, width=spec.width, outputs=len(self.task.names), hidden=self.config.hidden, mixed=spec.parts,
            mix_start=spec.mix_start,
        )

    def compute_dtype(self, spec: InputSpec) -> torch.dtype:
        """Return the type of the products; for one fit it does not depend on the other fits."""
        shape, device = self.shape(spec), self.config.device
        if self.config.precision != "bfloat16" or shape.parameters() < LARGE_HEAD:
            return torch.float32
        outer = shape.hidden if shape.kind == "mlp" else shape.outputs
        return torch.bfloat16 if products_preserved(device, shape.width, outer) else torch.float32

    def parts(self) -> list[tuple[int, list[InputSpec]]]:
        """Divide the grid into parts trained at once: a fold, and inputs of one shape that fit the cache or the GPU."""
        most = max_parameters_per_part(self.config.device)
        fits = len(self.config.settings) * self.config.seeds
        found: list[tuple[int, list[InputSpec]]] = []
        for fold, split in enumerate(self.splits):
            part: list[InputSpec] = []
            for spec in self.specs:
                alike = not part or self.shape(part[0]) == self.shape(spec)
                cells = fits * self.shape(spec).parameters() * (len(part) + 1)
                size = self.inputs.byte_size(spec, len(split.train) + len(split.valid)) * (len(part) + 1)
                if part and not (alike and cells <= most and size <= MEMORY_SHARE * available_memory(self.config.device)):
                    found.append((fold, part))
                    part = []
                part.append(spec)
            found.append((fold, part))
        return found

    def streams(self, spec: InputSpec, split: Split) -> bool:
        """Return whether an input's vectors exceed the memory for them, so that they are read as needed."""
        size = self.inputs.byte_size(spec, len(split.train) + len(split.valid))
        return size > MEMORY_SHARE * available_memory(self.config.device)

    def fit(self, fold: int, specs: Sequence[InputSpec]) -> tuple[GridResults, list[Preparation]]:
        """Train one part; return its results and the preparation of each input."""
        split, config = self.splits[fold], self.config
        shape, kind = self.shape(specs[0]), self.compute_dtype(specs[0])
        targets, valid_targets = (self.model_targets(rows, split) for rows in (split.train, split.valid))
        preparations = []
        if len(specs) == 1 and self.streams(specs[0], split):
            preparation = self.inputs.fit_preparation(specs[0], config.prepare, split.train)
            preparations.append(preparation)
            data: GridData = StreamedGridData(
                self.inputs, specs[0], preparation, split, targets, valid_targets, torch.device(config.device), kind
            )
        else:
            loaded: dict[str, list[torch.Tensor]] = {"train": [], "valid": []}
            for spec in specs:
                vectors = self.inputs.read_columns(spec, np.concatenate([split.train, split.valid]))
                preparation = self.inputs.fit_preparation(spec, config.prepare, split.train, vectors[: len(split.train)])
                preparations.append(preparation)
                ready = torch.from_numpy(preparation.apply(vectors)).to(config.device, kind)
                loaded["train"].append(ready[: len(split.train)])
                loaded["valid"].append(ready[len(split.train) :])
            data = GridData(
                stack_specs(loaded["train"]), targets.to(config.device), stack_specs(loaded["valid"]),
                valid_targets.to(config.device),
            )
        if config.average == "tracks":
            data.average_tracks(self.task.track[split.train], self.task.track[split.valid])
        if config.solver == "lbfgs":
            loss, monitor = self.loss(split), self.monitor()
            return fit_to_convergence(data, shape, loss, config.settings, config.epochs, monitor), preparations
        schedule = Schedule(
            optimizer=config.optimizer, batch=config.batch, epochs=config.epochs, patience=config.patience,
            rate_patience=config.rate_patience, dropout=config.dropout if config.head == "mlp" else 0.0, keep=config.keep,
        )
        most = max(max_parameters_per_part(config.device), PARAMETERS_OF_BLOCK)
        most = np.inf if data.streamed else most                 # streamed vectors are read once an epoch for all fits
        workers = torch.get_num_threads() if config.device == "cpu" and not data.streamed else 1
        results = train_in_blocks(
            data, shape, self.loss(split), config.settings, range(config.seeds), fold, schedule, self.monitor(), most, workers
        )
        return results, preparations

    def monitor(self) -> Monitor:
        """Return the validation score."""
        credit = key_scores(self.task.names) if self.config.monitor == "key_score" else None
        return Monitor(
            name=self.config.monitor,
            credit=None if credit is None else torch.from_numpy(credit.astype(np.float32)).to(self.config.device),
        )

    def loss(self, split: Split) -> Loss:
        """Return the loss, with class weights from the training set."""
        weights = None
        if self.config.class_weights == "balanced":
            found = balanced_weights(self.task.kind, self.task.targets[split.train], len(self.task.names))
            weights = None if found is None else torch.from_numpy(found).to(self.config.device)
        return Loss(self.task.kind, weights, self.config.label_smoothing)

    def target_scale(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Return (target,) mean and spread of the training targets, which scale a regression's targets."""
        training = self.task.targets[split.train]
        spread = training.std(axis=0)
        return training.mean(axis=0), np.where(spread > 0, spread, 1).astype(np.float32)

    def model_targets(self, rows: np.ndarray, split: Split) -> torch.Tensor:
        """Return targets as the loss expects them."""
        targets = self.task.targets[rows]
        if self.task.kind == "regression":
            mean, spread = self.target_scale(split)
            targets = (targets - mean) / spread
        return torch.from_numpy(targets)

    def test_rows(self) -> np.ndarray:
        """Return the rows of the test clips, fold after fold."""
        return np.concatenate([split.test for split in self.splits])

    def judged(self, fold: int) -> np.ndarray | None:
        """Return (test clip,) the number of the track, from 0, whose clips are averaged; None where each clip counts."""
        if self.config.average == "none":
            return None
        return number_tracks(self.task.track[self.splits[fold].test])

    def judged_rows(self) -> np.ndarray:
        """Return the rows of the judged test clips, fold after fold: all, or the first of each track if these are averaged."""
        found = []
        for fold, split in enumerate(self.splits):
            tracks = self.judged(fold)
            found.append(split.test if tracks is None else split.test[np.unique(tracks, return_index=True)[1]])
        return np.concatenate(found)

    def judged_counts(self) -> list[int]:
        """Return the number of judged test clips or tracks of each fold."""
        tracks = [self.judged(fold) for fold in range(len(self.splits))]
        return [
            len(split.test) if own is None else int(own.max()) + 1 for split, own in zip(self.splits, tracks, strict=True)
        ]

    def mean_of_tracks(self, scores: np.ndarray, fold: int) -> np.ndarray:
        """Average (test clip, out) over the clips of each track, if tracks are judged."""
        tracks = self.judged(fold)
        if tracks is None:
            return scores
        total = np.zeros((int(tracks.max()) + 1, scores.shape[1]))
        np.add.at(total, tracks, scores)
        return (total / np.bincount(tracks)[:, None]).astype(scores.dtype)

    def units(self) -> Units:
        """Return the jackknife units of the judged test clips: the groups that the split holds out, else tracks."""
        column = held_out_column(self.config.split)
        values = self.task.track
        if column not in (None, "track") and column in self.task.clips.columns:
            values = closed_groups(self.task, column)
        else:
            column = "track"
        rows = self.judged_rows()
        most = MAX_CELLS // max(len(rows) * len(self.task.names) * self.config.seeds, 1)
        return make_units(values[rows], plural(column), most=int(np.clip(most, FEWEST_FOLDS, MOST_FOLDS)))


def number_tracks(track: np.ndarray) -> np.ndarray:
    """Return (clip,) the number of each clip's track among the tracks of these clips, in the order of their first clips."""
    _, first, number = np.unique(track, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[number.ravel()]


def held_out_column(split: str) -> str | None:
    """Return the column whose groups a split holds out as a whole, or None.

    >>> [held_out_column(split) for split in ("by:album", "folds:5:artist", "folds:5", "random", "column:split")]
    ['album', 'artist', None, None, None]
    """
    kind, _, rest = split.partition(":")
    if kind == "by":
        return rest
    return rest.partition(":")[2] or None if kind == "folds" else None


def check_averaging(task: Targets, average: str) -> None:
    """Raise InputError if clips of a track are to be averaged but have different targets."""
    if average == "none":
        return
    rows = pl.DataFrame({"track": task.track, "target": pl.Series(task.targets.tolist())})
    mixed = int((rows.group_by("track").agg(pl.col("target").n_unique())["target"] > 1).sum())
    if mixed:
        raise InputError(
            f"--average {average}: the clips of {mixed:,} tracks have different values of {task.title!r}. Use --average none"
        )


def check_monitor(task: Targets, monitor: str) -> None:
    """Raise InputError if the validation metric does not suit the task."""
    suits = {
        "accuracy": task.kind == "multiclass", "auroc": task.kind != "regression", "r2": task.kind == "regression",
        "key_score": task.kind == "multiclass" and key_scores(task.names) is not None,
    }
    if not suits.get(monitor, True):
        needed = {"accuracy": "classes", "auroc": "classes or tags", "r2": "numbers", "key_score": "keys, such as 'C# minor'"}
        raise InputError(
            f"--monitor {monitor}: needs {needed[monitor]}, which {task.title!r} does not hold. Use --monitor auto"
        )


def stack_specs(parts: list[torch.Tensor]) -> torch.Tensor:
    """Stack to (spec, clip, …), without a copy for a single input."""
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def make_experiment(lake: Lake, config: ProbeConfig, given: Sequence[Split] | None = None) -> Experiment:
    """Resolve settings against a lake; `given`: splits from elsewhere, for which `config.split` is only a name.

    Raises InputError if they cannot be met.
    """
    space = lake.spaces.get(config.space)
    specs = input_specs(space, config.layers, config.input)
    task = read_targets(lake, space, config.columns, kind=config.task, where=config.where, classes=config.classes)
    check_averaging(task, config.average)
    check_monitor(task, config.monitor)
    if given is None:
        splits, notes = make_splits(
            task, config.split, seed=config.split_seed, shares=config.shares, val_share=config.val_share
        )
    else:
        splits, notes = list(given), []
    device = resolve_device(EmbedSettings(device=config.device), None)
    precision = config.precision
    if precision == "auto":
        has_bfloat16 = device.startswith("cuda") or (device == "cpu" and cpu_has_bfloat16())
        precision = "bfloat16" if has_bfloat16 and config.solver == "batches" else "float32"
    seeds = 1 if config.solver == "lbfgs" else None          # its minimum does not depend on the start
    resolved = config.with_(space=space.name, task=task.kind, device=device, precision=precision, seeds=seeds)
    return Experiment(
        lake=lake, space=space, config=resolved, task=task, splits=splits, specs=specs,
        inputs=Inputs(lake, space, task.ids), notes=[*task.notes, *notes],
    )


def available_memory(device: str) -> float:
    """Return the bytes of memory available for vectors."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    return float(memory_bytes())


def max_parameters_per_part(device: str) -> float:
    """Return the most parameters of a part; on a GPU each has two moments, a gradient, a best state and a copy."""
    return available_memory(device) / 2 / 24 if device.startswith("cuda") else PARAMETERS_AT_ONCE


def states_of(results: GridResults, spec: int) -> Tensors:
    """Return the states (seed, setting, …) of one input of a part."""
    return {name: value[spec] for name, value in results.states.items()}
