"""An experiment made ready: which clips, targets, folds and vectors, on which device, and its grid trained part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tonelake.embed import EmbedSettings, cpu_has_bfloat16, resolve_device
from tonelake.evaluate import Split, Targets, make_splits, read_targets
from tonelake.probes.config import ProbeConfig, data_digest
from tonelake.probes.grid import GridResults, Schedule, GridData, train
from tonelake.probes.heads import Shape, Tensors
from tonelake.probes.inputs import Inputs, Preparation, InputSpec, input_specs
from tonelake.probes.losses import Loss, balanced_weights
from tonelake.probes.streaming import StreamedGridData
from tonelake.store import Lake, Space, memory_bytes

MEMORY_SHARE = 0.35                      # of the machine's memory that vectors of one part may take; beyond it they stream
PARAMETERS_AT_ONCE = 600_000             # on a CPU: with their moments and gradients, what its cache holds of a part
LARGE_HEAD = 4_096                       # parameters of a fit from which its products are worth bfloat16


@dataclass
class Experiment:
    """Everything resolved: nothing in `config` is auto or None any more, but for `where`."""

    lake: Lake
    space: Space
    config: ProbeConfig
    task: Targets
    splits: list[Split]
    specs: list[InputSpec]
    inputs: Inputs
    notes: list[str]

    @property
    def digest(self) -> str:
        """Of settings and data."""
        return self.config.digest(data_digest(self.task.targets, self.task.ids.to_list(), self.space.fingerprint))

    @property
    def fits(self) -> int:
        """How many the grid has."""
        return len(self.specs) * len(self.config.settings) * self.config.seeds * len(self.splits)

    def shape(self, spec: InputSpec) -> Shape:
        """The head over a spec."""
        return Shape(self.config.head, spec.width, len(self.task.names), self.config.hidden, spec.parts)

    def compute_dtype(self, spec: InputSpec) -> torch.dtype:
        """The type of the products; what it is for a fit does not depend on what runs beside it."""
        if self.config.precision != "bfloat16" or self.shape(spec).parameters() < LARGE_HEAD:
            return torch.float32
        return torch.bfloat16

    def parts(self) -> list[tuple[int, list[InputSpec]]]:
        """The grid in parts that are trained at once: a fold, and specs of one shape that fit the cache or the GPU."""
        most = max_parameters_per_part(self.config.device)
        fits = len(self.config.settings) * self.config.seeds
        found: list[tuple[int, list[InputSpec]]] = []
        for fold, split in enumerate(self.splits):
            part: list[InputSpec] = []
            for spec in self.specs:
                alike = not part or self.shape(part[0]) == self.shape(spec)
                cells = fits * self.shape(spec).parameters() * (len(part) + 1)
                room = self.inputs.byte_size(spec, len(split.train) + len(split.valid)) * (len(part) + 1)
                if part and not (alike and cells <= most and room <= MEMORY_SHARE * available_memory(self.config.device)):
                    found.append((fold, part))
                    part = []
                part.append(spec)
            found.append((fold, part))
        return found

    def streams(self, spec: InputSpec, split: Split) -> bool:
        """Whether a spec's vectors are more than memory should hold, so that they are read as they are needed."""
        return self.inputs.byte_size(spec, len(split.train) + len(split.valid)) > MEMORY_SHARE * available_memory(self.config.device)

    def fit(self, fold: int, specs: Sequence[InputSpec]) -> tuple[GridResults, list[Preparation]]:
        """Train one part; the preparations are those of its specs."""
        split, config = self.splits[fold], self.config
        shape, kind = self.shape(specs[0]), self.compute_dtype(specs[0])
        targets, valid_targets = (self.model_targets(rows, split) for rows in (split.train, split.valid))
        preparations = []
        if len(specs) == 1 and self.streams(specs[0], split):
            made = self.inputs.fit_preparation(specs[0], config.prepare, split.train)
            preparations.append(made)
            sides: GridData = StreamedGridData(
                self.inputs, specs[0], made, split, targets, valid_targets, torch.device(config.device), kind
            )
        else:
            loaded: dict[str, list[torch.Tensor]] = {"train": [], "valid": []}
            for spec in specs:
                vectors = self.inputs.read_columns(spec, np.concatenate([split.train, split.valid]))
                made = self.inputs.fit_preparation(spec, config.prepare, split.train, vectors[: len(split.train)])
                preparations.append(made)
                ready = torch.from_numpy(made.apply(vectors)).to(config.device, kind)
                loaded["train"].append(ready[: len(split.train)])
                loaded["valid"].append(ready[len(split.train) :])
            sides = GridData(
                stack_specs(loaded["train"]), targets.to(config.device), stack_specs(loaded["valid"]), valid_targets.to(config.device)
            )
        schedule = Schedule(
            config.optimizer, config.batch, config.epochs, config.patience, config.dropout if config.head == "mlp" else 0.0
        )
        return train(sides, shape, self.loss(split), config.settings, range(config.seeds), fold, schedule), preparations

    def loss(self, split: Split) -> Loss:
        """The loss, with weights learned from what is learned from."""
        weights = None
        if self.config.class_weights == "balanced":
            found = balanced_weights(self.task.kind, self.task.targets[split.train], len(self.task.names))
            weights = None if found is None else torch.from_numpy(found).to(self.config.device)
        return Loss(self.task.kind, weights, self.config.label_smoothing)

    def target_scale(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """(target,) mean and spread of what is learned from, by which a regression's targets are scaled."""
        learned = self.task.targets[split.train]
        spread = learned.std(axis=0)
        return learned.mean(axis=0), np.where(spread > 0, spread, 1).astype(np.float32)

    def model_targets(self, rows: np.ndarray, split: Split) -> torch.Tensor:
        """Targets as the loss takes them."""
        targets = self.task.targets[rows]
        if self.task.kind == "regression":
            mean, spread = self.target_scale(split)
            targets = (targets - mean) / spread
        return torch.from_numpy(targets)

    def test_rows(self) -> np.ndarray:
        """Rows of the clips that are judged, fold after fold."""
        return np.concatenate([split.test for split in self.splits])


def stack_specs(parts: list[torch.Tensor]) -> torch.Tensor:
    """(spec, clip, …) without a copy where there is one spec."""
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def make_experiment(lake: Lake, config: ProbeConfig, given: Sequence[Split] | None = None) -> Experiment:
    """Resolve settings against a lake; `given`: splits from elsewhere, for which `config.split` is but a name.

    Raises InputError where they cannot be met.
    """
    space = lake.spaces.get(config.space)
    specs = input_specs(space, config.layers, config.input)
    task = read_targets(lake, space, config.columns, kind=config.task, where=config.where)
    if given is None:
        splits, notes = make_splits(task, config.split, seed=config.split_seed, shares=config.shares)
    else:
        splits, notes = list(given), []
    device = resolve_device(EmbedSettings(device=config.device), None)
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if device.startswith("cuda") or (device == "cpu" and cpu_has_bfloat16()) else "float32"
    resolved = config.with_(space=space.name, task=task.kind, device=device, precision=precision)
    return Experiment(lake, space, resolved, task, splits, specs, Inputs(lake, space, task.ids), [*task.notes, *notes])


def available_memory(device: str) -> float:
    """Bytes that vectors may be held in."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    return float(memory_bytes())


def max_parameters_per_part(device: str) -> float:
    """How many parameters a part may have; on a GPU each with two moments, a gradient, a best state and a copy."""
    return available_memory(device) / 2 / 24 if device.startswith("cuda") else PARAMETERS_AT_ONCE


def states_of(fitted: GridResults, spec: int) -> Tensors:
    """(seed, setting, …) of one spec of a part."""
    return {name: value[spec] for name, value in fitted.states.items()}


