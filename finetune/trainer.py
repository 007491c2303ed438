"""The training loop: transformers' Trainer, which provides several GPUs, gradient accumulation, checkpoints and resumption.

Added here: two learning rates, augmentation on the device, checkpoints of the trained parameters only (a checkpoint of the
whole model would be a hundred times as large), and skipping of checkpoints whose writing was interrupted.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import EvalPrediction
from transformers.utils import logging

from tonelake.evaluate import METRICS_BY_KIND
from tonelake.finetune.augment import augment
from tonelake.finetune.config import VALIDATION_METRICS, FinetuneConfig
from tonelake.finetune.data import ClipDataset, collate
from tonelake.finetune.model import HeadModel

WEIGHTS, STATE = "model.safetensors", "trainer_state.json"       # transformers' names; the latter is written last
BOARD = "TENSORBOARD_LOGGING_DIR"                                # the folder of the log, for transformers

log = getLogger(__name__)


class Finetuner(Trainer):
    """Trainer of one run, or of its frozen baseline."""

    def __init__(
        self, model: HeadModel, config: FinetuneConfig, train: ClipDataset, valid: ClipDataset, tracks: np.ndarray, work: Path,
        primary: np.ndarray, *, quiet: bool = False,
    ) -> None:
        """`tracks`: (row,) int of the whole task.  `primary`: (validation clip,) int, the class, or the tag listed first.
        `quiet`: log no epochs."""
        logging.set_verbosity_error()
        os.environ[BOARD] = str(work / "tensorboard")
        self.config, self.tracks, self.rate = config, tracks, getattr(model, "rate", 0)
        self.optimizer_state: dict[str, Any] | None = None           # of a checkpoint file of another project
        super().__init__(
            model=model, args=training_arguments(config, work, board=not quiet), train_dataset=train, eval_dataset=valid,
            data_collator=collate,
            compute_metrics=lambda found: validation_metrics(config, found, primary),
            callbacks=[
                EarlyStoppingCallback(config.patience), CropSchedule(train), *([] if quiet else [EpochLog()]),
                *([CheckpointKeeper(config.keep_every)] if config.keep_every and not quiet else []),
            ],
        )
        self.remove_callback(PrinterCallback)                        # epochs are logged

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create AdamW with separate learning rates for adapter, if there is one, and head."""
        if getattr(self, "optimizer", None) is None:
            tuned: Any = self.model if model is None else model
            rates = ((True, self.config.lora_rate), (False, float(self.config.head_rate or 1e-3)))
            groups = [{"params": [p for _, p in tuned.parameters_of(lora=lora)], "lr": rate} for lora, rate in rates]
            self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=self.config.decay)
            if self.optimizer_state is not None:
                self.optimizer.load_state_dict(self.optimizer_state)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Create the learning-rate schedule: that of transformers, or cosine with a floor."""
        if getattr(self, "lr_scheduler", None) is None and self.config.schedule == "cosine" and self.config.cosine_floor:
            chosen = self.optimizer if optimizer is None else optimizer
            assert chosen is not None
            warmup = self.args.get_warmup_steps(num_training_steps)
            self.lr_scheduler = cosine_schedule(chosen, warmup, num_training_steps, self.config.cosine_floor)
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        if self.config.augments and "audio" in inputs:
            inputs = self._prepare_inputs(inputs)
            rows = inputs["rows"].tolist()
            epoch = int(self.state.epoch or 0)
            inputs["audio"] = augment(inputs["audio"], rows, self.tracks, self.config, self.rate, epoch)
        return super().training_step(model, inputs, num_items_in_batch)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.accelerator.unwrap_model(self.model).trained(), folder / WEIGHTS)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        trainable = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        mismatched = sorted(trainable & set(load_result.missing_keys)) + sorted(load_result.unexpected_keys)
        if mismatched:
            raise RuntimeError(f"a checkpoint of this run does not fit its model: {', '.join(mismatched[:3])}")


class CropSchedule(TrainerCallback):
    """Sets the epoch of the training clips, so that each epoch has other crops."""

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clips.epoch = round(state.epoch or 0)


class CheckpointKeeper(TrainerCallback):
    """Deletes checkpoints except the last, the best, and the weights of every `every`th epoch.

    Of those of every `every`th epoch only the weights and the state are left, which `adapters --epoch` needs.
    """

    def __init__(self, every: int) -> None:
        self.every = every

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        last = f"checkpoint-{state.global_step}"
        best = Path(str(state.best_model_checkpoint)).name
        for folder in Path(args.output_dir).glob("checkpoint-*"):
            if folder.name in (last, best):
                continue
            try:
                epoch = round(float(json.loads((folder / STATE).read_text(encoding="utf-8"))["epoch"]))
            except (OSError, ValueError, KeyError):
                epoch = -1                                           # incomplete
            if epoch <= 0 or epoch % self.every:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            for path in folder.iterdir():
                if path.name not in (WEIGHTS, STATE):
                    path.unlink()


class EpochLog(TrainerCallback):
    """Logs the metrics of each epoch."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        log.info(epoch_line(latest_metrics(state.log_history)))


def epoch_line(figures: dict[str, float]) -> str:
    """Describe the metrics of an epoch.

    >>> epoch_line({"epoch": 3.0, "loss": 1.25, "eval_loss": 1.5, "eval_accuracy": 0.75, "eval_runtime": 2.0})
    'epoch 3: loss 1.250, validation loss 1.500, accuracy 0.750'
    """
    names = {
        "loss": "loss", "eval_loss": "validation loss", "eval_accuracy": "accuracy", "eval_map": "mAP", "eval_r2": "R²",
        "eval_score": "score",
    }
    shown = ", ".join(f"{name} {figures[key]:.3f}" for key, name in names.items() if key in figures)
    return f"epoch {round(figures.get('epoch', 0))}: {shown}"


def latest_metrics(history: list[dict[str, float]]) -> dict[str, float]:
    """Merge the last entries of a history: loss, learning rates and metrics of one epoch."""
    found: dict[str, float] = {}
    for line in history[-2:]:
        found |= line
    return found


def validation_metrics(config: FinetuneConfig, found: EvalPrediction, primary: np.ndarray) -> dict[str, float]:
    """Return the metrics of an epoch, among them the one that steers training, as 0 if it is undefined.

    Classes: accuracy, and the mean over classes of average precision.  Lists: mAP, and the accuracy of the tag listed first.
    """
    kind = str(config.task)
    scores = probabilities(kind, np.asarray(found.predictions))
    figures = METRICS_BY_KIND[kind](np.asarray(found.label_ids), scores, np.ones((1, len(scores))))
    values = {name: float(figures[name][0]) for name in VALIDATION_METRICS[kind] if name in figures}
    if kind == "multilabel":
        has_primary = primary >= 0
        hits = scores.argmax(axis=1)[has_primary] == primary[has_primary]
        values["accuracy"] = float(hits.mean()) if len(hits) else float("nan")
    undefined = {} if config.monitored == "loss" else {config.monitored: 0.0}
    return undefined | {name: value for name, value in values.items() if np.isfinite(value)}


def probabilities(kind: str, logits: np.ndarray) -> np.ndarray:
    """Return (clip, output) probabilities, or values for regression, as metrics expect them."""
    exact = torch.from_numpy(np.asarray(logits, np.float32))
    if kind == "multiclass":
        return exact.softmax(dim=1).numpy()
    return exact.sigmoid().numpy() if kind == "multilabel" else exact.numpy()


def cosine_schedule(optimizer: torch.optim.Optimizer, warmup: int, steps: int, floor: float) -> LambdaLR:
    """Return a schedule: linear warm-up over `warmup` steps, then half a cosine down to `floor` at the last step.

    The floor is a rate, not a share of each: a group whose rate is lower keeps its rate after warm-up.  transformers'
    `cosine_with_min_lr` would scale the floor of all groups by the rate of one.
    """
    def factor(step: int, lowest: float) -> float:
        if step < warmup:
            return step / max(1, warmup)
        done = min(1.0, (step - warmup) / max(1, steps - warmup))
        return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * done))

    shares = [min(1.0, floor / group["lr"]) for group in optimizer.param_groups]
    return LambdaLR(optimizer, [partial(factor, lowest=share) for share in shares])


def training_arguments(config: FinetuneConfig, work: Path, board: bool = True) -> TrainingArguments:
    """Translate the settings to transformers' TrainingArguments; `board`: write a log for TensorBoard."""
    plateau = config.schedule == "plateau"
    warmup = config.warmup if config.warmup_steps is None else config.warmup_steps               # below 1: a share of all steps
    how: dict[str, Any] = {"lr_scheduler_type": "cosine", "warmup_steps": warmup}
    mode = "max" if config.higher_is_better else "min"
    if plateau:
        how = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {
            "mode": mode, "factor": 0.5, "patience": config.wait, "min_lr": config.lowest_rate,
        }}
    return TrainingArguments(
        output_dir=str(work), num_train_epochs=config.epochs, per_device_train_batch_size=int(config.batch or 1),
        per_device_eval_batch_size=int(config.batch or 1), gradient_accumulation_steps=config.accumulated,
        max_grad_norm=config.clip_norm, weight_decay=config.decay, learning_rate=float(config.head_rate or 1e-3),
        eval_strategy="epoch", save_strategy="epoch", logging_strategy="epoch",
        save_total_limit=None if config.keep_every and board else 2,         # else `CheckpointKeeper` decides
        load_best_model_at_end=True, metric_for_best_model=config.monitored, greater_is_better=config.higher_is_better,
        restore_callback_states_from_checkpoint=True, seed=config.seed, data_seed=config.seed,
        bf16=config.precision == "bfloat16", use_cpu=config.device == "cpu", remove_unused_columns=False,
        label_names=["labels"], report_to=["tensorboard"] if board else "none", disable_tqdm=True, dataloader_pin_memory=False,
        log_level="error",
        average_tokens_across_devices=False, **how,
    )


def train_from_last_checkpoint(trainer: Finetuner, work: Path) -> Path | None:
    """Train to the end from the last checkpoint in `work`, if there is one, and return it.

    A training that had stopped early is not continued: its best state is loaded.
    """
    checkpoint = last_checkpoint(work)
    if checkpoint is not None:
        state = TrainerState.load_from_json(str(checkpoint / STATE))
        stopping = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
        counter = stopping["attributes"]["early_stopping_patience_counter"] if isinstance(stopping, dict) else 0
        best = Path(state.best_model_checkpoint or checkpoint)
        if counter >= trainer.config.patience and (best / WEIGHTS).is_file():
            trainer.state = state
            trainer.accelerator.unwrap_model(trainer.model).load_state_dict(load_file(best / WEIGHTS), strict=False)
            return checkpoint
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return checkpoint


def last_checkpoint(work: Path, *, remove: bool = True) -> Path | None:
    """Return the newest complete checkpoint of a run; `remove`: delete incomplete ones."""
    found = []
    for folder in work.glob("checkpoint-*"):
        number = folder.name.removeprefix("checkpoint-")
        if number.isdecimal():
            found.append((int(number), folder))
    for _, folder in sorted(found, reverse=True):
        try:
            json.loads((folder / STATE).read_text(encoding="utf-8"))
            load_file(folder / WEIGHTS)
            return folder
        except (OSError, ValueError, SafetensorError):
            if remove:
                shutil.rmtree(folder, ignore_errors=True)
    return None


def predict(model: HeadModel, clips: ClipDataset, device: str, batch: int) -> np.ndarray:
    """Return (clip, output) float32 logits of all clips, in their order."""
    def move(value: Any) -> Any:
        return [move(part) for part in value] if isinstance(value, list) else value.to(device)

    model.eval()
    parts = []
    kind = torch.device(device).type
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=model.settings.precision == "bfloat16"):
        for begin in range(0, len(clips), batch):
            inputs = clips.batch(range(begin, min(begin + batch, len(clips))))
            moved = {key: move(value) for key, value in inputs.items() if key in ("audio", "frames", "pooled")}
            parts.append(model(**moved)["logits"].float().cpu().numpy())
    return np.concatenate(parts)
