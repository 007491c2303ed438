"""The cost, before you pay: a few steps are taken and thrown away, and the run reckoned from them."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tonelake.embed import ReadClips
from tonelake.finetune.config import FinetuneConfig
from tonelake.store import Lake

STEPS = 3                                # measured, after one that warms up


@dataclass(frozen=True)
class FinetunePlan:
    """What a fine-tuning would take on this machine."""

    encoder: str
    trainable: int                       # numbers that learn
    trainable_lora: int
    total: int                           # numbers of the encoder
    memory_bytes: int                    # at the highest, measured: of the GPU, or of this process
    steps: int                           # an epoch
    epochs: int                          # at most
    step_s: float                        # measured
    judged_s: float                      # an epoch's validation, reckoned
    disk_bytes: int                      # of decoded audio and checkpoints, while it runs
    device: str
    price: float                         # of an hour of this machine

    @property
    def seconds(self) -> float:
        """How long all epochs take."""
        return self.epochs * (self.steps * self.step_s + self.judged_s)

    @property
    def cost(self) -> float:
        return self.seconds / 3600 * self.price

    def __str__(self) -> str:
        epoch = self.steps * self.step_s + self.judged_s
        text = (
            f"{self.encoder} on {self.device}: {self.trainable:,} parameters learn ({self.trainable_lora:,} of LoRA), "
            f"{self.trainable / self.total:.2%} of the encoder's {self.total:,}\n"
            f"memory  {self.memory_bytes / 1e9:,.1f} GB at the highest, measured here\n"
            f"steps   {self.steps:,} an epoch of {self.step_s:.2f} s each, at most {self.epochs} epochs\n"
            f"time    {timedelta(seconds=round(epoch))} an epoch, {timedelta(seconds=round(self.seconds))} at most "
            "(it stops earlier where nothing gets better)\n"
            f"disk    {self.disk_bytes / 1e9:,.2f} GB while it runs"
        )
        return text + (f"\ncost    {self.cost:,.2f} at {self.price:g} an hour, at most" if self.price else "")


def plan_finetune(
    lake: Lake, config: FinetuneConfig, read: ReadClips, *, workers: int | None = None, price: float = 0.0
) -> FinetunePlan:
    """Measure a few steps on the longest clips; nothing is stored.  Raises InputError as `finetune`."""
    import torch

    from tonelake.finetune.data import collate
    from tonelake.finetune.results import count
    from tonelake.finetune.setup import make_setup
    from tonelake.finetune.trainer import Finetuner
    from tonelake.finetune.tuning import Watch, make_clips, make_model, make_source

    setup = make_setup(lake, config)
    batch = int(setup.config.batch or 1)
    long_first = setup.split.train[np.argsort(-setup.task.clips["duration_s"].to_numpy()[setup.split.train], kind="stable")]
    sampled = np.sort(long_first[: min(len(long_first), 2 * batch)])
    small = setup_of(setup, sampled)
    encoder = small.load_encoder()
    with TemporaryDirectory() as folder:
        source, _ = make_source(small, encoder, read, Path(folder), workers, Watch())
        model = make_model(small, encoder)
        clips = make_clips(source, small, "train")
        clips.epoch = 0
        trainer = Finetuner(model, small.config, clips, clips, small.task.track, Path(folder))
        trainer.create_optimizer_and_scheduler(1)
        trainer.current_gradient_accumulation_steps = setup.config.accumulated
        if setup.config.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        places = [(clips, i % len(clips)) for i in range(batch)]
        forward: list[float] = []
        taken: list[float] = []
        for _ in range(STEPS + 1):
            began = time.perf_counter()
            for _ in range(setup.config.accumulated):
                trainer.training_step(trainer.model.train(), collate(places))
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            synchronize(setup.config.device)
            taken.append(time.perf_counter() - began)
            began = time.perf_counter()
            judge_batch(trainer, collate(places))
            forward.append(time.perf_counter() - began)
        memory = peak_memory(setup.config.device)
    task, split = setup.task, setup.split
    audio = 0.0 if setup.config.frames else float(task.clips["duration_s"].sum()) * encoder.sample_rate * 2
    trainable = count(model, lora=None)
    return FinetunePlan(
        setup.space.encoder, trainable, count(model, lora=True), sum(p.numel() for p in model.peft.parameters()), memory,
        -(-len(split.train) // (batch * setup.config.accumulated)), setup.config.epochs, float(np.median(taken[1:])),
        float(np.median(forward[1:])) * -(-len(split.valid) // batch), round(audio + 2 * 3 * 4 * trainable),
        setup.config.device, price,
    )


def setup_of(setup: Any, rows: np.ndarray) -> Any:
    """A setup of these clips alone, on every side."""
    from dataclasses import replace

    from tonelake.evaluate import Split

    task = setup.task.subset(rows)
    everything = np.arange(len(rows))
    return replace(setup, task=task, split=Split(everything, everything, everything))


def judge_batch(trainer: Any, inputs: dict[str, Any]) -> None:
    trainer.prediction_step(trainer.model.eval(), inputs, prediction_loss_only=False)
    synchronize(trainer.config.device)


def synchronize(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def peak_memory(device: str) -> int:
    """Bytes at the highest: of the GPU, or of this process."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
