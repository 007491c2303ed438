"""An experiment made ready: which clips, targets, folds and vectors, on which device, and its grid trained part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tonelake.embed import EmbedSettings, cpu_has_bfloat16, settle_device
from tonelake.evaluate import Split, Targets, make_splits, read_targets
from tonelake.probes.config import ProbeConfig, data_digest
from tonelake.probes.grid import Fitted, Schedule, Sides, train
from tonelake.probes.heads import Shape, Tensors
from tonelake.probes.inputs import Inputs, Preparation, Slot, slots_of
from tonelake.probes.losses import Loss, balanced_weights
from tonelake.probes.streaming import StreamedSides
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
    slots: list[Slot]
    inputs: Inputs
    notes: list[str]

    @property
    def digest(self) -> str:
        """Of settings and data."""
        return self.config.digest(data_digest(self.task.targets, self.task.ids.to_list(), self.space.fingerprint))

    @property
    def fits(self) -> int:
        """How many the grid has."""
        return len(self.slots) * len(self.config.settings) * self.config.seeds * len(self.splits)

    def shape(self, slot: Slot) -> Shape:
        """The head over a slot."""
        return Shape(self.config.head, slot.width, len(self.task.names), self.config.hidden, slot.parts)

    def working_type(self, slot: Slot) -> torch.dtype:
        """The type of the products; what it is for a fit does not depend on what runs beside it."""
        if self.config.precision != "bfloat16" or self.shape(slot).parameters() < LARGE_HEAD:
            return torch.float32
        return torch.bfloat16

    def parts(self) -> list[tuple[int, list[Slot]]]:
        """The grid in parts that are trained at once: a fold, and slots of one shape that fit the cache or the GPU."""
        most = parameters_at_once(self.config.device)
        fits = len(self.config.settings) * self.config.seeds
        found: list[tuple[int, list[Slot]]] = []
        for fold, split in enumerate(self.splits):
            part: list[Slot] = []
            for slot in self.slots:
                alike = not part or self.shape(part[0]) == self.shape(slot)
                cells = fits * self.shape(slot).parameters() * (len(part) + 1)
                room = self.inputs.bytes_of(slot, len(split.train) + len(split.valid)) * (len(part) + 1)
                if part and not (alike and cells <= most and room <= MEMORY_SHARE * memory_of(self.config.device)):
                    found.append((fold, part))
                    part = []
                part.append(slot)
            found.append((fold, part))
        return found

    def streams(self, slot: Slot, split: Split) -> bool:
        """Whether a slot's vectors are more than memory should hold, so that they are read as they are needed."""
        return self.inputs.bytes_of(slot, len(split.train) + len(split.valid)) > MEMORY_SHARE * memory_of(self.config.device)

    def fit(self, fold: int, slots: Sequence[Slot]) -> tuple[Fitted, list[Preparation]]:
        """Train one part; the preparations are those of its slots."""
        split, config = self.splits[fold], self.config
        shape, kind = self.shape(slots[0]), self.working_type(slots[0])
        targets, valid_targets = (self.model_targets(rows, split) for rows in (split.train, split.valid))
        preparations = []
        if len(slots) == 1 and self.streams(slots[0], split):
            made = self.inputs.preparation(slots[0], config.prepare, split.train)
            preparations.append(made)
            sides: Sides = StreamedSides(
                self.inputs, slots[0], made, split, targets, valid_targets, torch.device(config.device), kind
            )
        else:
            loaded: dict[str, list[torch.Tensor]] = {"train": [], "valid": []}
            for slot in slots:
                vectors = self.inputs.whole(slot, np.concatenate([split.train, split.valid]))
                made = self.inputs.preparation(slot, config.prepare, split.train, vectors[: len(split.train)])
                preparations.append(made)
                ready = torch.from_numpy(made.apply(vectors)).to(config.device, kind)
                loaded["train"].append(ready[: len(split.train)])
                loaded["valid"].append(ready[len(split.train) :])
            sides = Sides(
                joined(loaded["train"]), targets.to(config.device), joined(loaded["valid"]), valid_targets.to(config.device)
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

    def judged(self) -> np.ndarray:
        """Rows of the clips that are judged, fold after fold."""
        return np.concatenate([split.test for split in self.splits])


def joined(parts: list[torch.Tensor]) -> torch.Tensor:
    """(slot, clip, …) without a copy where there is one slot."""
    return parts[0][None] if len(parts) == 1 else torch.stack(parts)


def make_experiment(lake: Lake, config: ProbeConfig, given: Sequence[Split] | None = None) -> Experiment:
    """Resolve settings against a lake; `given`: splits from elsewhere, for which `config.split` is but a name.

    Raises InputError where they cannot be met.
    """
    space = lake.spaces.get(config.space)
    slots = slots_of(space, config.layers, config.input)
    task = read_targets(lake, space, config.columns, kind=config.task, where=config.where)
    if given is None:
        splits, notes = make_splits(task, config.split, seed=config.split_seed, shares=config.shares)
    else:
        splits, notes = list(given), []
    device = settle_device(EmbedSettings(device=config.device), None)
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if device.startswith("cuda") or (device == "cpu" and cpu_has_bfloat16()) else "float32"
    resolved = config.with_(space=space.name, task=task.kind, device=device, precision=precision)
    return Experiment(lake, space, resolved, task, splits, slots, Inputs(lake, space, task.ids), [*task.notes, *notes])


def memory_of(device: str) -> float:
    """Bytes that vectors may be held in."""
    if device.startswith("cuda"):
        return float(torch.cuda.mem_get_info(device)[0])
    return float(memory_bytes())


def parameters_at_once(device: str) -> float:
    """How many parameters a part may have; on a GPU each with two moments, a gradient, a best state and a copy."""
    return memory_of(device) / 2 / 24 if device.startswith("cuda") else PARAMETERS_AT_ONCE


def states_of(fitted: Fitted, slot: int) -> Tensors:
    """(seed, setting, …) of one slot of a part."""
    return {name: value[slot] for name, value in fitted.states.items()}


