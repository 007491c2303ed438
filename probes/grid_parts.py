"""Partial results of a grid while it is trained: one file per fold and layer, from which a killed run resumes."""

from __future__ import annotations

import numpy as np
import torch

from tonelake.probes.config import ProbeConfig
from tonelake.probes.experiment import Experiment, states_of
from tonelake.probes.grid import GridResults
from tonelake.probes.heads import Tensors
from tonelake.probes.inputs import InputSpec, Preparation

PARTIAL = ("score", "loss", "epoch", "epochs", "train_loss", "history")


def part_name(experiment: Experiment, fold: int, spec: InputSpec) -> str:
    """Return the file of a part.  Files of earlier releases have another name, since they lack the figures by epoch."""
    return f"epochs-{fold}-{experiment.specs.index(spec):03d}.safetensors"


def part_tensors(results: GridResults, number: int, preparation: Preparation) -> Tensors:
    """Return the tensors to store for one spec of a part: states (seed, setting, …), results of each fit, and preparation."""
    tensors = {name: value.cpu() for name, value in states_of(results, number).items()}
    tensors |= {key: torch.from_numpy(getattr(results, key)[number]) for key in PARTIAL}
    for key in ("mean", "scale"):
        value = getattr(preparation, key)
        if value is not None:
            tensors[f"prepare.{key}"] = torch.from_numpy(np.asarray(value))
    return tensors


def preparation_from(config: ProbeConfig, tensors: Tensors, prefix: str) -> Preparation:
    """Rebuild the preparation stored beside weights."""
    mean, scale = (tensors.get(f"{prefix}prepare.{key}") for key in ("mean", "scale"))
    return Preparation(
        config.prepare.startswith("l2"), None if mean is None else mean.numpy(), None if scale is None else scale.numpy()
    )
