"""What is kept of a grid while it is trained: a file for each fold and layer, so that a killed run goes on where it stood."""

from __future__ import annotations

import numpy as np
import torch

from tonelake.probes.config import ProbeConfig
from tonelake.probes.experiment import Experiment, states_of
from tonelake.probes.grid import Fitted
from tonelake.probes.heads import Tensors
from tonelake.probes.inputs import Preparation, Slot

PARTIAL = ("score", "loss", "epoch", "epochs", "train_loss")


def part_name(experiment: Experiment, fold: int, slot: Slot) -> str:
    return f"{fold}-{experiment.slots.index(slot):03d}.safetensors"


def part_tensors(fitted: Fitted, number: int, made: Preparation) -> Tensors:
    """One slot of a part: states (seed, setting, …), what became of each fit, and what is done to vectors before."""
    tensors = {name: value.cpu() for name, value in states_of(fitted, number).items()}
    tensors |= {key: torch.from_numpy(getattr(fitted, key)[number]) for key in PARTIAL}
    for key in ("mean", "scale"):
        value = getattr(made, key)
        if value is not None:
            tensors[f"prepare.{key}"] = torch.from_numpy(np.asarray(value))
    return tensors


def preparation_from(config: ProbeConfig, tensors: Tensors, prefix: str) -> Preparation:
    """What is done to vectors, as kept beside weights."""
    mean, scale = (tensors.get(f"{prefix}prepare.{key}") for key in ("mean", "scale"))
    return Preparation(
        config.prepare.startswith("l2"), None if mean is None else mean.numpy(), None if scale is None else scale.numpy()
    )
