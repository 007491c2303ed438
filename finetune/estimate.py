"""Estimate the cost of a run from a few steps whose result is discarded."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tonelake.embed import ReadClips, peak_memory
from tonelake.finetune.config import FinetuneConfig, merge_settings
from tonelake.ingest import read_clips
from tonelake.store import Lake, read_songs

STEPS = 3                                # measured, after one for warm-up


@dataclass(frozen=True, kw_only=True)
class FinetunePlan:
    """Memory, time, disk space and cost of a fine-tuning on this machine."""

    encoder: str
    trainable: int                       # parameters
    trainable_lora: int
    total: int                           # parameters of the encoder
    memory_bytes: int                    # measured peak, of the GPU or of this process
    steps: int                           # per epoch
    epochs: int                          # maximum
    step_s: float                        # measured
    validation_s: float                  # estimated, per epoch
    pooling_s: float                     # estimated: forward passes over all clips for the frozen baseline, once
    seeds: int
    disk_bytes: int                      # decoded audio, pooled layers and checkpoints while it runs
    device: str
    price: float                         # per hour of this machine

    @property
    def seconds(self) -> float:
        """Return the time of all epochs of all seeds, and of pooling for the frozen baseline."""
        return self.seeds * self.epochs * (self.steps * self.step_s + self.validation_s) + self.pooling_s

    @property
    def cost(self) -> float:
        return self.seconds / 3600 * self.price

    def __str__(self) -> str:
        epoch = self.steps * self.step_s + self.validation_s
        text = (
            f"{self.encoder} on {self.device}: {self.trainable:,} trainable parameters ({self.trainable_lora:,} of LoRA), "
            f"{self.trainable / self.total:.2%} of the encoder's {self.total:,}\n"
            f"memory  {self.memory_bytes / 1e9:,.1f} GB peak, measured here\n"
            f"steps   {self.steps:,} per epoch, {self.step_s:.2f} s each, at most {self.epochs} epochs"
            f"{f' of each of {self.seeds} seeds' if self.seeds > 1 else ''}\n"
            f"time    {timedelta(seconds=round(epoch))} per epoch, {timedelta(seconds=round(self.pooling_s))} for the frozen "
            f"baseline, {timedelta(seconds=round(self.seconds))} at most (less with early stopping)\n"
            f"disk    {self.disk_bytes / 1e9:,.2f} GB while it runs"
        )
        return text + (f"\ncost    {self.cost:,.2f} at {self.price:g} per hour, at most" if self.price else "")


def plan_finetune(
    lake: Lake, column: str | None = None, *, config: str | Path | FinetuneConfig | None = None, workers: int | None = None,
    price: float = 0.0, read: ReadClips = read_clips, **settings: Any,
) -> FinetunePlan:
    """Estimate memory, time and cost of the same `finetune`, measured on a few steps on the longest clips.

    `price`: of an hour of this machine.  Nothing is stored.  Raises InputError as `finetune`.
    """
    import torch

    from tonelake.finetune.data import collate
    from tonelake.finetune.frozen import clips_to_pool, pooled_bytes
    from tonelake.finetune.results import count_trainable
    from tonelake.finetune.seeds import make_clips
    from tonelake.finetune.setup import make_setup
    from tonelake.finetune.trainer import Finetuner
    from tonelake.finetune.tuning import continued_config, make_model, make_source

    setup = make_setup(lake, merge_settings(continued_config(lake, config, settings), column, settings))
    batch = int(setup.config.batch or 1)
    long_first = setup.split.train[np.argsort(-setup.task.clips["duration_s"].to_numpy()[setup.split.train], kind="stable")]
    sampled = np.sort(long_first[: min(len(long_first), 2 * batch)])
    small = subset_setup(setup, sampled)
    encoder = small.load_encoder()
    with TemporaryDirectory() as folder:
        source, _ = make_source(small, encoder, read, Path(folder), workers)
        model = make_model(small, encoder)
        clips = make_clips(source, small, "train")
        clips.epoch = 0
        trainer = Finetuner(model, small.config, clips, clips, small.task.track, Path(folder), small.primary_class())
        trainer.create_optimizer_and_scheduler(1)
        trainer.current_gradient_accumulation_steps = setup.config.accumulated
        if setup.config.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        items = [(clips, i % len(clips)) for i in range(batch)]
        forward: list[float] = []
        taken: list[float] = []
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            for _ in range(setup.config.accumulated):
                trainer.training_step(trainer.model.train(), collate(items))
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            synchronize(setup.config.device)
            taken.append(time.perf_counter() - began)
            began = time.perf_counter()
            validation_step(trainer, collate(items))
            forward.append(time.perf_counter() - began)
        memory = peak_memory(setup.config.device)
    task, split = setup.task, setup.split
    audio = 0.0 if setup.config.frames else float(task.clips["duration_s"].sum()) * encoder.sample_rate * 2
    trainable = count_trainable(model, lora=None)
    forward_s, pooled = float(np.median(forward[1:])), clips_to_pool(setup)
    return FinetunePlan(
        encoder=setup.space.encoder, trainable=trainable, trainable_lora=count_trainable(model, lora=True),
        total=sum(p.numel() for p in model.peft.parameters()), memory_bytes=memory,
        steps=-(-len(split.train) // (batch * setup.config.accumulated)), epochs=setup.config.epochs,
        step_s=float(np.median(taken[1:])), validation_s=forward_s * -(-len(split.valid) // batch),
        pooling_s=forward_s * -(-pooled // batch), seeds=setup.config.seeds,
        disk_bytes=round(audio + pooled * pooled_bytes(model) + setup.config.seeds * 2 * 3 * 4 * trainable),
        device=setup.config.device, price=price,
    )


def subset_setup(setup: Any, rows: np.ndarray) -> Any:
    """Return a setup with these clips only, as training, validation and test set."""
    from dataclasses import replace

    from tonelake.evaluate import Split

    task = setup.task.subset(rows)
    everything = np.arange(len(rows))
    stems = setup.stems and setup.stems.of_songs(read_songs(setup.lake.clips).of(task.ids).tolist())
    return replace(setup, task=task, split=Split(everything, everything, everything), stems=stems)


def validation_step(trainer: Any, inputs: dict[str, Any]) -> None:
    trainer.prediction_step(trainer.model.eval(), inputs, prediction_loss_only=False)
    synchronize(trainer.config.device)


def synchronize(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
