"""The chosen setting of one input (a layer, all layers, or a weighting): its fits, test scores and weights."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch

from tonelake.evaluate import METRICS_BY_KIND, top_hits
from tonelake.probes.experiment import Experiment
from tonelake.probes.grid import HISTORY
from tonelake.probes.grid_parts import preparation_from
from tonelake.probes.heads import Tensors
from tonelake.probes.inputs import InputSpec
from tonelake.probes.outputs import as_outputs, logits_of

MOST_TRAINING = 20_000                   # clips of a fold on which training figures are computed


class Chosen:
    """An input at its best setting, with the fits of every fold and seed."""

    def __init__(self, experiment: Experiment, spec: InputSpec, parts: list[Tensors]) -> None:
        self.experiment, self.spec, self.parts = experiment, spec, parts
        scores = np.stack([part["score"].numpy() for part in parts])             # (fold, seed, setting)
        means = np.where(np.isfinite(scores), scores, -np.inf).mean(axis=(0, 1))
        self.scores = means                              # (setting,) validation scores; minus infinity of diverged settings
        self.setting = int(means.argmax())
        self.score = float(means[self.setting])

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

    def state(self, fold: int, seed: int, setting: int | None = None) -> Tensors:
        """Return the weights of one fit, at the chosen or another setting."""
        names, k = self.experiment.shape(self.spec).sizes(), self.setting if setting is None else setting
        return {key: self.parts[fold][key][seed, k] for key in names}

    def test_scores(self, setting: int | None = None) -> list[np.ndarray]:
        """Return, for each seed, (judged clip, out) probabilities or values; each fold by its own fit, at the chosen or another
        setting."""
        experiment = self.experiment
        by_seed: list[list[np.ndarray]] = [[] for _ in range(experiment.config.seeds)]
        for fold, split in enumerate(experiment.splits):
            for own, logits in zip(by_seed, self.logits(fold, split.test, setting), strict=True):
                if experiment.config.average == "tracks":        # MARBLE v1 averages logits, v2 probabilities
                    own.append(self.outputs(experiment.mean_of_tracks(logits, fold), fold))
                else:
                    own.append(experiment.mean_of_tracks(self.outputs(logits, fold), fold))
        return [np.concatenate(own) for own in by_seed]

    def logits(self, fold: int, rows: np.ndarray, setting: int | None = None) -> list[np.ndarray]:
        """Return, for each seed, (clip, out) logits of clips by the fit of a fold."""
        experiment = self.experiment
        preparation = preparation_from(experiment.config, self.parts[fold], "")
        shape, device = experiment.shape(self.spec), experiment.config.device
        states = [self.state(fold, seed, setting) for seed in range(experiment.config.seeds)]
        parts: list[list[np.ndarray]] = [[] for _ in states]
        for block in experiment.inputs.blocks(self.spec, rows):
            vectors = preparation.apply(experiment.inputs.read_rows(self.spec, block))
            for own, state in zip(parts, states, strict=True):
                own.append(logits_of(shape, state, vectors, device))
        return [np.concatenate(own) for own in parts]

    def outputs(self, logits: np.ndarray, fold: int) -> np.ndarray:
        """Return (clip, out) probabilities, or values in the targets' own units."""
        experiment = self.experiment
        scale = experiment.target_scale(experiment.splits[fold]) if experiment.task.kind == "regression" else None
        return as_outputs(experiment.task.kind, logits, scale)

    def training_figures(self) -> dict[str, float]:
        """Return figures on the training clips without dropout: accuracy and top_5 of classes, map of tags, r2 of numbers.

        They are means over folds and seeds, on at most MOST_TRAINING clips of a fold.
        """
        task, found = self.experiment.task, list[dict[str, float]]()
        for fold, split in enumerate(self.experiment.splits):
            rows = np.sort(np.random.default_rng(fold).permutation(split.train)[:MOST_TRAINING])
            for logits in self.logits(fold, rows):
                found.append(training_figures(task.kind, task.targets[rows], self.outputs(logits, fold)))
        return {name: round(float(np.mean([one[name] for one in found])), 6) for name in found[0]}

    def history(self) -> pl.DataFrame:
        """Return a row a fit and epoch: the figures of `probes.grid.HISTORY`."""
        config, tables = self.experiment.config, []
        for fold, part in enumerate(self.parts):
            seeds, settings, *_ = part["history"].shape
            for seed, k in np.ndindex(seeds, settings):
                trained = int(part["epochs"][seed, k])
                figures = part["history"][seed, k, :trained].numpy()
                setting = config.settings[k]
                tables.append(pl.DataFrame(figures, schema=list(HISTORY)).select(
                    layer=pl.lit(self.spec.name), rate=pl.lit(setting.rate), decay=pl.lit(setting.decay),
                    seed=pl.lit(seed, pl.Int64), fold=pl.lit(fold, pl.Int64), chosen=pl.lit(k == self.setting),
                    epoch=pl.int_range(1, trained + 1, dtype=pl.Int64), rate_now=pl.col("rate"),
                    **{name: pl.col(name).fill_nan(None) for name in HISTORY if name != "rate"},
                ))
        return pl.concat(tables)

    def running_accuracy(self, setting: int | None = None) -> float | None:
        """Return the top-1 of the training batches at the kept epoch, the mean over folds and seeds; None without classes."""
        k, column, values = self.setting if setting is None else setting, HISTORY.index("train_top_1"), []
        for part in self.parts:
            for seed, epoch in enumerate(part["epoch"][:, k].tolist()):
                values.append(float(part["history"][seed, k, max(epoch - 1, 0), column]))
        mean = float(np.mean(values))
        return mean if np.isfinite(mean) else None

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


def training_figures(kind: str, targets: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return accuracy and top_5 of classes, map of tags, or r2 of numbers."""
    if kind == "multiclass":
        return {"accuracy": float(top_hits(targets, scores, 1).mean()), "top_5": float(top_hits(targets, scores, 5).mean())}
    name = "map" if kind == "multilabel" else "r2"
    return {name: float(METRICS_BY_KIND[kind](targets, scores, np.ones((1, len(targets))))[name][0])}
