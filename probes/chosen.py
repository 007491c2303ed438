"""The chosen setting of one input (a layer, all layers, or a weighting): its fits, test scores and weights."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from tonelake.probes.experiment import Experiment
from tonelake.probes.grid_parts import preparation_from
from tonelake.probes.heads import Tensors
from tonelake.probes.inputs import InputSpec
from tonelake.probes.outputs import probabilities


class Chosen:
    """An input at its best setting, with the fits of every fold and seed."""

    def __init__(self, experiment: Experiment, spec: InputSpec, parts: list[Tensors]) -> None:
        self.experiment, self.spec, self.parts = experiment, spec, parts
        scores = np.stack([part["score"].numpy() for part in parts])             # (fold, seed, setting)
        means = np.where(np.isfinite(scores), scores, -np.inf).mean(axis=(0, 1))
        self.setting = int(means.argmax())
        self.score = float(means[self.setting])          # minus infinity if every setting diverged

    def fits(self) -> pl.DataFrame:
        """Return a row a fit."""
        config = self.experiment.config
        rows = [
            (
                self.spec.name, setting.rate, setting.decay, seed, fold, k == self.setting,
                int(part["epochs"][seed, k]), int(part["epoch"][seed, k]), float(part["score"][seed, k]),
                float(part["loss"][seed, k]), float(part["train_loss"][seed, k]),
            )
            for fold, part in enumerate(self.parts) for seed in range(config.seeds) for k, setting in enumerate(config.settings)
        ]
        names = ["layer", "rate", "decay", "seed", "fold", "chosen", "epochs", "best_epoch", "score", "loss", "train_loss"]
        return pl.DataFrame(rows, schema=names, orient="row")

    def state(self, fold: int, seed: int) -> Tensors:
        """Return the weights of one fit."""
        names = self.experiment.shape(self.spec).sizes()
        return {key: self.parts[fold][key][seed, self.setting] for key in names}

    def test_scores(self) -> list[np.ndarray]:
        """Return, for each seed, (test clip, out) probabilities or values; each fold by its own fit."""
        by_seed: list[list[np.ndarray]] = [[] for _ in range(self.experiment.config.seeds)]
        for fold, split in enumerate(self.experiment.splits):
            preparation = preparation_from(self.experiment.config, self.parts[fold], "")
            for block in self.experiment.inputs.blocks(self.spec, split.test):
                vectors = preparation.apply(self.experiment.inputs.read_rows(self.spec, block))
                for seed, own in enumerate(by_seed):
                    own.append(self.outputs(vectors, fold, seed))
        return [np.concatenate(own) for own in by_seed]

    def outputs(self, vectors: np.ndarray, fold: int, seed: int) -> np.ndarray:
        """Return (clip, out) probabilities, or values in the targets' own units, for prepared vectors."""
        experiment = self.experiment
        scale = experiment.target_scale(experiment.splits[fold]) if experiment.task.kind == "regression" else None
        shape, state = experiment.shape(self.spec), self.state(fold, seed)
        return probabilities(experiment.task.kind, shape, state, vectors, experiment.config.device, scale)

    def tensors(self) -> Tensors:
        """Return the tensors of weights.safetensors."""
        tensors: Tensors = {}
        for fold, part in enumerate(self.parts):
            tensors |= {f"{fold}.{key}": value for key, value in part.items() if key.startswith("prepare.")}
            if self.experiment.task.kind == "regression":
                scale = self.experiment.target_scale(self.experiment.splits[fold])
                for key, value in zip(("mean", "scale"), scale, strict=True):
                    tensors[f"{fold}.target.{key}"] = torch.from_numpy(np.asarray(value, np.float32))
            for seed in range(self.experiment.config.seeds):
                tensors |= {f"{fold}.{seed}.{key}": value.clone() for key, value in self.state(fold, seed).items()}
        return tensors
