"""Train one seed: the fine-tuning and its frozen baseline, both with their scores of the test clips.

A finished seed is one file in the run's work folder, so that a killed run of several seeds does not train it again:

    seed-<n>.safetensors     trained weights, scores of the clips, and as metadata the history of both trainings
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tonelake.evaluate import MAIN_METRIC, METRICS_BY_KIND
from tonelake.finetune.checkpoint_file import CheckpointWeights
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.data import AudioSource, ClipDataset, ClipSource, FrameSource
from tonelake.finetune.foreign_checkpoint import begin_at_epoch
from tonelake.finetune.frozen import PooledSource, train_frozen_head
from tonelake.finetune.initial_weights import load_initial_weights
from tonelake.finetune.model import HeadModel, LoraModel
from tonelake.finetune.resolved import Setup
from tonelake.finetune.trainer import Finetuner, last_checkpoint, predict, probabilities, train_from_last_checkpoint
from tonelake.probes import TRAINING_SIDES

log = getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EpochHistory:
    """One training, with an entry an epoch."""

    history: Sequence[dict[str, float]]

    def best_valid(self, config: FinetuneConfig) -> float:
        """Return the best value of the monitored validation metric."""
        key = f"eval_{config.monitored}"
        best = max if config.higher_is_better else min
        return best((line[key] for line in self.history if key in line), default=float("nan"))


@dataclass(frozen=True, kw_only=True)
class Trained(EpochHistory):
    """One training: scores of the clips, the main metric on the training clips, and an entry an epoch."""

    test: np.ndarray                     # (clip, output) probabilities, or values in the targets' units
    training: dict[str, np.ndarray]      # likewise of the sides train and valid, by the final weights; of the fine-tuning only
    train: float | None


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """The fine-tuning and the frozen baseline of one seed."""

    seed: int
    tuned: Trained
    frozen: Trained
    weights: dict[str, torch.Tensor]     # trainable parameters of the fine-tuning, by name
    loaded: str                          # what was loaded from another run; empty without --start


def train_seed(
    setup: Setup, model: LoraModel, source: AudioSource | FrameSource, pooled: PooledSource, folder: Path,
    start: CheckpointWeights | None, is_main: bool,
) -> SeedResult | None:
    """Train the frozen baseline and the fine-tuning of `setup.config.seed`, each from its last checkpoint in `folder`.

    `model`: untrained, holds the weights of the best epoch afterwards.  Only the main process returns a result.
    """
    log.info("training the frozen baseline%s", seed_suffix(setup))
    frozen_model, frozen_history = train_frozen_head(setup, model.head, model.weights, pooled, folder / "frozen")
    names = setup.task.names if setup.task.kind != "regression" else ()
    report = load_initial_weights(model, start, names) if start else None
    loaded = str(report) if report else ""
    digest = frozen_digest(model)
    train, valid = (make_clips(source, setup, side) for side in ("train", "valid"))
    primary = setup.primary_class()[setup.split.valid]
    trainer = Finetuner(model, setup.config, train, valid, setup.task.track, folder, primary)
    if start and report and setup.config.resume:
        loaded += f"; {begin_at_epoch(trainer, start, report, folder, is_main)}"
    if loaded:
        log.info("%s", loaded)
    checkpoint = last_checkpoint(folder)
    log.info("%s%s", f"resuming from {checkpoint.name}" if checkpoint else "training", seed_suffix(setup))
    train_from_last_checkpoint(trainer, folder)
    if frozen_digest(model) != digest:
        raise RuntimeError("frozen weights of the encoder have changed during training")
    if not is_main:
        return None
    log.info("evaluating")
    return SeedResult(
        seed=setup.config.seed, tuned=evaluate(setup, model, source, trainer.state.log_history, TRAINING_SIDES),
        frozen=evaluate(setup, frozen_model, pooled, frozen_history, ("train",)), weights=model.trained(), loaded=loaded,
    )


def seed_suffix(setup: Setup) -> str:
    return f", seed {setup.config.seed}" if setup.config.seeds > 1 else ""


def make_clips(source: ClipSource, setup: Setup, side: str) -> ClipDataset:
    rows = getattr(setup.split, side)
    return ClipDataset(source, rows, setup.labels[rows])


def evaluate(
    setup: Setup, model: HeadModel, source: ClipSource, history: Sequence[dict[str, float]], sides: Sequence[str]
) -> Trained:
    """Score the centre crops of the test clips and of `sides`, the training clips among them, in evaluation mode."""
    test, *others = (scores_of(setup, model, source, side) for side in ("test", *sides))
    training = dict(zip(sides, others, strict=True))
    targets = setup.task.targets[setup.split.train]
    return Trained(
        test=test, training=training, train=main_metric(setup.task.kind, targets, training["train"]), history=history
    )


def scores_of(setup: Setup, model: HeadModel, source: ClipSource, side: str) -> np.ndarray:
    """Return (clip, output) probabilities, or values in the targets' units, of one set."""
    device = str(next(model.parameters()).device)
    logits = predict(model, make_clips(source, setup, side), device, int(setup.config.batch or 1))
    scores = probabilities(setup.task.kind, logits)
    if setup.task.kind == "regression":
        mean, spread = setup.scale()
        return scores * spread + mean
    return scores


def main_metric(kind: str, targets: np.ndarray, scores: np.ndarray) -> float | None:
    value = float(METRICS_BY_KIND[kind](targets, scores, np.ones((1, len(scores))))[MAIN_METRIC[kind]][0])
    return value if np.isfinite(value) else None


def frozen_digest(model: torch.nn.Module) -> str:
    """Return a digest of every frozen weight, equal before and after training."""
    import hashlib

    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# -- finished seeds on disk


def seed_file(work: Path, seed: int) -> Path:
    return work / f"seed-{seed}.safetensors"


def write_seed_file(work: Path, seed: int, tensors: dict[str, torch.Tensor], key: str, described: dict[str, Any]) -> None:
    """Write tensors, with `described` as JSON under `key` in the header; the file appears complete."""
    from safetensors.torch import save_file

    path = seed_file(work, seed)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={key: json.dumps(described)})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def read_seed_file(work: Path, seed: int, key: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Read what `write_seed_file` wrote; None if the seed is not finished."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(seed_file(work, seed), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[key])  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def write_seed(work: Path, result: SeedResult) -> None:
    """Write a finished seed; the file appears complete."""
    tensors = {f"weights.{name}": tensor for name, tensor in result.weights.items()}
    described: dict[str, Any] = {"seed": result.seed, "loaded": result.loaded}
    for key, trained in (("tuned", result.tuned), ("frozen", result.frozen)):
        tensors[key] = torch.from_numpy(np.ascontiguousarray(trained.test))
        for side, scores in trained.training.items():
            tensors[f"{key}.{side}"] = torch.from_numpy(np.ascontiguousarray(scores))
        described[key] = {"train": trained.train, "history": list(trained.history)}
    write_seed_file(work, result.seed, tensors, "result", described)


def read_seed(work: Path, seed: int) -> SeedResult | None:
    """Read a finished seed; None if it is not finished."""
    stored = read_seed_file(work, seed, "result")
    if stored is None:
        return None
    tensors, described = stored
    tuned, frozen = (
        Trained(
            test=tensors[key].numpy(), train=described[key]["train"], history=described[key]["history"],
            training={side: tensors[f"{key}.{side}"].numpy() for side in TRAINING_SIDES if f"{key}.{side}" in tensors},
        )
        for key in ("tuned", "frozen")
    )
    weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")}
    return SeedResult(seed=described["seed"], tuned=tuned, frozen=frozen, weights=weights, loaded=described["loaded"])


def with_seed(setup: Setup, seed: int) -> Setup:
    return replace(setup, config=replace(setup.config, seed=seed))
