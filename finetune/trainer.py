"""The training loop: transformers' Trainer, which brings several GPUs, accumulation, checkpoints and going on from them.

What is ours: two learning rates, augmentation on the device, checkpoints of what learns alone (a checkpoint of the whole
model would be a hundred times as large), and that a checkpoint which was being written when the run died is passed over.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalPrediction
from transformers.utils import logging

from tonelake.evaluate import MAIN_METRIC, METRICS_BY_KIND
from tonelake.finetune.augment import augment
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.data import Clips, collate
from tonelake.finetune.model import Tuned

WEIGHTS, STATE = "model.safetensors", "trainer_state.json"       # transformers' names; the latter is written last
BOARD = "TENSORBOARD_LOGGING_DIR"                                # by which transformers is told where


class Finetuner(Trainer):
    """One run's Trainer."""

    def __init__(
        self, model: Tuned, config: FinetuneConfig, train: Clips, valid: Clips, tracks: np.ndarray, work: Path,
        told: Callable[[dict[str, float]], None] = lambda line: None,
    ) -> None:
        """`tracks`: (row,) int of the whole task; `told` is given each epoch's figures."""
        logging.set_verbosity_error()
        os.environ[BOARD] = str(work / "tensorboard")
        self.config, self.tracks, self.rate = config, tracks, model.rate
        super().__init__(
            model=model, args=arguments(config, work), train_dataset=train, eval_dataset=valid, data_collator=collate,
            compute_metrics=lambda found: {MAIN_METRIC[str(config.task)]: main_figure(str(config.task), found)},
            callbacks=[EarlyStoppingCallback(config.patience), Crops(train), Told(told)],
        )
        self.remove_callback(PrinterCallback)                        # epochs are `told`

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW; the adapter and the head learn at rates of their own."""
        if getattr(self, "optimizer", None) is None:
            tuned: Any = self.model if model is None else model
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": [p for _, p in tuned.parameters_of(lora=lora)], "lr": rate}
                    for lora, rate in ((True, self.config.lora_rate), (False, float(self.config.head_rate or 1e-3)))
                ],
                weight_decay=self.config.decay,
            )
        return self.optimizer

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        if self.config.augments:
            inputs = self._prepare_inputs(inputs)
            rows = inputs["rows"].tolist()
            epoch = int(self.state.epoch or 0)
            inputs["waves"] = augment(inputs["waves"], rows, self.tracks, self.config, self.rate, epoch)
        return super().training_step(model, inputs, num_items_in_batch)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.accelerator.unwrap_model(self.model).trained(), folder / WEIGHTS)

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        learns = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        lost = sorted(learns & set(load_result.missing_keys)) + sorted(load_result.unexpected_keys)
        if lost:
            raise RuntimeError(f"a checkpoint of this run does not fit its model: {', '.join(lost[:3])}")


class Crops(TrainerCallback):
    """Tells the clips that are learned from which epoch it is: another crop is heard in each."""

    def __init__(self, clips: Clips) -> None:
        self.clips = clips

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.clips.epoch = round(state.epoch or 0)


class Told(TrainerCallback):
    """Hands each epoch's figures on."""

    def __init__(self, told: Callable[[dict[str, float]], None]) -> None:
        self.told = told

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.told(latest(state.log_history))


def latest(history: list[dict[str, float]]) -> dict[str, float]:
    """The last entries of a history put together: loss, rates and figures of one epoch."""
    found: dict[str, float] = {}
    for line in history[-2:]:
        found |= line
    return found


def main_figure(kind: str, found: EvalPrediction) -> float:
    """The figure by which a run is stopped and its best state chosen."""
    scores = probabilities(kind, np.asarray(found.predictions))
    figures = METRICS_BY_KIND[kind](np.asarray(found.label_ids), scores, np.ones((1, len(scores))))
    value = float(figures[MAIN_METRIC[kind]][0])
    return value if np.isfinite(value) else 0.0


def probabilities(kind: str, logits: np.ndarray) -> np.ndarray:
    """(clip, output) as metrics take them."""
    exact = torch.from_numpy(np.asarray(logits, np.float32))
    if kind == "multiclass":
        return exact.softmax(dim=1).numpy()
    return exact.sigmoid().numpy() if kind == "multilabel" else exact.numpy()


def arguments(config: FinetuneConfig, work: Path) -> TrainingArguments:
    """The settings in transformers' words."""
    plateau = config.schedule == "plateau"
    how: dict[str, Any] = {"lr_scheduler_type": "cosine", "warmup_steps": config.warmup}         # below 1: a share of all
    if plateau:
        how = {"lr_scheduler_type": "reduce_lr_on_plateau", "lr_scheduler_kwargs": {
            "mode": "max", "factor": 0.5, "patience": config.wait, "min_lr": config.lowest_rate,
        }}
    return TrainingArguments(
        output_dir=str(work), num_train_epochs=config.epochs, per_device_train_batch_size=int(config.batch or 1),
        per_device_eval_batch_size=int(config.batch or 1), gradient_accumulation_steps=config.accumulated,
        max_grad_norm=config.clip_norm, weight_decay=config.decay, learning_rate=float(config.head_rate or 1e-3),
        eval_strategy="epoch", save_strategy="epoch", logging_strategy="epoch", save_total_limit=2,
        load_best_model_at_end=True, metric_for_best_model=MAIN_METRIC[str(config.task)], greater_is_better=True,
        restore_callback_states_from_checkpoint=True, seed=config.seed, data_seed=config.seed,
        bf16=config.precision == "bfloat16", use_cpu=config.device == "cpu", remove_unused_columns=False,
        label_names=["labels"], report_to=["tensorboard"], disable_tqdm=True, dataloader_pin_memory=False, log_level="error",
        average_tokens_across_devices=False, **how,
    )


def last_checkpoint(work: Path) -> Path | None:
    """The newest whole checkpoint of a run; those that were cut off while they were written are removed."""
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
            shutil.rmtree(folder, ignore_errors=True)
    return None


def predict(model: Tuned, clips: Clips, device: str, batch: int) -> np.ndarray:
    """(clip, output) logits float32 of all clips, in their order."""
    model.eval()
    parts = []
    kind = torch.device(device).type
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=model.settings.precision == "bfloat16"):
        for begin in range(0, len(clips), batch):
            inputs = clips.batch(range(begin, min(begin + batch, len(clips))))
            moved = {
                key: [[part.to(device) for part in parts] for parts in value] if key == "states"
                else [wave.to(device) for wave in value]
                for key, value in inputs.items() if key in ("waves", "states")
            }
            parts.append(model(**moved)["logits"].float().cpu().numpy())
    return np.concatenate(parts)
