"""Estimate the cost of a run from a few steps whose result is discarded."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from tonelake.embed import ReadClips, peak_memory
from tonelake.finetune.config import FinetuneConfig, merge_settings
from tonelake.ingest import read_clips
from tonelake.store import InputError, Lake, can_group, in_list, is_list, read_songs

STEPS = 3                                # measured, after one for warm-up


@dataclass(frozen=True, kw_only=True)
class FinetunePlan:
    """Data, memory, time, disk space and cost of a fine-tuning on this machine."""

    encoder: str
    clips: int
    tracks: int
    audio_s: float                       # of all clips
    trainable: int                       # parameters
    trainable_lora: int
    total: int                           # parameters of the encoder
    memory_bytes: int                    # measured peak, of the GPU or of this process
    steps: int                           # per epoch
    epochs: int                          # maximum
    step_s: float                        # measured
    validation_s: float                  # derived from measured forward passes, per epoch
    pooling_s: float                     # likewise: forward passes of the unchanged encoder for the frozen baseline, in all
    seeds: int
    disk_bytes: int                      # decoded audio, pooled layers and checkpoints while it runs
    device: str
    price: float                         # per hour of this machine

    @property
    def seconds(self) -> float:
        """Return the time of all epochs of all seeds, and of the forward passes for the frozen baseline."""
        return self.seeds * self.epochs * (self.steps * self.step_s + self.validation_s) + self.pooling_s

    @property
    def cost(self) -> float:
        return self.seconds / 3600 * self.price

    def __str__(self) -> str:
        epoch = self.steps * self.step_s + self.validation_s
        text = (
            f"{self.encoder} on {self.device}: {self.trainable:,} trainable parameters ({self.trainable_lora:,} of LoRA), "
            f"{self.trainable / self.total:.2%} of the encoder's {self.total:,}\n"
            f"data    {self.clips:,} clips of {self.tracks:,} tracks, {self.audio_s / 3600:,.2f} hours (counted in the lake)\n"
            f"memory  {self.memory_bytes / 1e9:,.1f} GB peak (measured here)\n"
            f"steps   {self.steps:,} per epoch (derived from the clips), {self.step_s:.2f} s each (measured here), at most "
            f"{self.epochs} epochs{f' of each of {self.seeds} seeds' if self.seeds > 1 else ''}\n"
            f"time    {timedelta(seconds=round(epoch))} per epoch, {timedelta(seconds=round(self.pooling_s))} for the frozen "
            f"baseline, {timedelta(seconds=round(self.seconds))} at most, less with early stopping (derived from the steps)\n"
            f"disk    {self.disk_bytes / 1e9:,.2f} GB while it runs (derived from clips and parameters)"
        )
        return text + (f"\ncost    {self.cost:,.2f} at {self.price:g} per hour, at most" if self.price else "")


@dataclass(frozen=True, kw_only=True)
class MeasuredSteps:
    """A few training steps on this machine, whose result is discarded."""

    trainable: int
    trainable_lora: int
    total: int
    memory_bytes: int
    step_s: float                        # of an optimizer step
    forward_s: float                     # of a batch in validation
    pooled_bytes: int                    # of a clip's pooled layers; 0 for events
    sample_rate: int


def plan_finetune(
    lake: Lake, column: str | None = None, *, config: str | Path | FinetuneConfig | None = None, workers: int | None = None,
    price: float = 0.0, encoder: str | None = None, read: ReadClips = read_clips, **settings: Any,
) -> FinetunePlan:
    """Estimate memory, time and cost of the same `finetune`, measured on a few steps on the longest clips.

    `price`: of an hour of this machine.  Nothing is stored but a space of `encoder`, if it is given.  Raises InputError as
    `finetune`.
    """
    from tonelake.finetune.setup import make_setup, use_encoder
    from tonelake.finetune.tuning import continued_config

    merged = merge_settings(continued_config(lake, config, settings), column, settings)
    setup = make_setup(lake, use_encoder(lake, merged, encoder))
    return derive_plan(setup, measure_steps(setup, read, workers), price)


def plan_finetunes(
    lake: Lake, column: str | None = None, *, by: str = "stem", config: str | Path | FinetuneConfig | None = None,
    workers: int | None = None, price: float = 0.0, encoder: str | None = None, read: ReadClips = read_clips, **settings: Any,
) -> pl.DataFrame:
    """Estimate a fine-tuning for each value of a column, such as one adapter a stem, and their total.

    Columns: the value, clips, tracks, audio_hours, memory_gb, step_s, hours, disk_gb, cost, and `how`: what was measured here
    and what derived.  Steps are measured once, on the value with the most audio, since crops have one length.  `how` gives the
    reason for a value that cannot be learned.  Raises InputError if none can.
    """
    from tonelake.finetune.setup import make_setup, use_encoder
    from tonelake.finetune.tuning import continued_config

    merged = use_encoder(lake, merge_settings(continued_config(lake, config, settings), column, settings), encoder)
    lake.clips.check_column(by)
    clips = lake.clips.read([by, "duration_s"], where=merged.where).drop_nulls(by)
    if not can_group(clips[by].dtype) or is_list(clips[by].dtype):
        raise InputError(f"--by {by}: does not hold one name or whole number a clip. Choose a column such as stem")
    order = clips.group_by(by).agg(pl.col("duration_s").sum()).sort("duration_s", by, descending=[True, False])
    measured: MeasuredSteps | None = None
    rows, source = [], ""
    for value in order[by]:
        where = f"{by} = {int(value)}" if isinstance(value, int) else in_list(by, [str(value)])
        where = f"({merged.where}) AND {where}" if merged.where else where
        row: dict[str, Any] = {by: str(value)}
        try:
            setup = make_setup(lake, replace(merged, where=where))
            own = measured is None
            if measured is None:
                measured, source = measure_steps(setup, read, workers), str(value)
            plan = derive_plan(setup, measured, price)
        except InputError as error:
            rows.append(row | {"how": str(error)})
            continue
        basis = "measured here" if own else f"those of {source}, measured here"
        rows.append(row | plan_row(plan) | {"how": f"memory and step: {basis}; clips counted; hours and disk derived"})
    if measured is None:
        raise InputError(f"--by {by}: no value can be learned. {rows[0]['how'] if rows else 'No clip has one'}")
    table = pl.DataFrame(rows, infer_schema_length=None)
    total = table.select(
        pl.lit("in all").alias(by), *(pl.col(name).sum() for name in ("clips", "audio_hours", "hours", "cost")),
        pl.col("memory_gb").max(), pl.col("disk_gb").max(),
        pl.lit("one after another: the sum of hours, the maximum of memory and disk").alias("how"),
    )
    return pl.concat([table, total], how="diagonal")


def plan_row(plan: FinetunePlan) -> dict[str, Any]:
    """Return the figures of a plan as columns."""
    return {
        "clips": plan.clips, "tracks": plan.tracks, "audio_hours": plan.audio_s / 3600, "memory_gb": plan.memory_bytes / 1e9,
        "step_s": plan.step_s, "hours": plan.seconds / 3600, "disk_gb": plan.disk_bytes / 1e9, "cost": plan.cost,
    }


def measure_steps(setup: Any, read: ReadClips, workers: int | None) -> MeasuredSteps:
    """Train a few steps on the longest training clips."""
    import torch

    from tonelake.finetune.data import collate
    from tonelake.finetune.frozen import pooled_bytes
    from tonelake.finetune.inputs import make_model, make_source
    from tonelake.finetune.results import count_trainable
    from tonelake.finetune.seed_steps import make_trainer

    batch = int(setup.config.batch or 1)
    long_first = setup.split.train[np.argsort(-setup.task.clips["duration_s"].to_numpy()[setup.split.train], kind="stable")]
    sampled = np.sort(long_first[: min(len(long_first), 2 * batch)])
    small = subset_setup(setup, sampled)
    encoder = small.load_encoder()
    with TemporaryDirectory() as folder:
        source, failed = make_source(small, encoder, read, Path(folder), workers)
        small = small.without_clips(set(failed), "; ".join(sorted(set(failed.values()))[:3]))
        source.use(small)
        model = make_model(small, encoder, source)
        trainer = make_trainer(small, model, source, Path(folder))
        clips = trainer.train_dataset
        clips.epoch = 0
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
    return MeasuredSteps(
        trainable=count_trainable(model, lora=None), trainable_lora=count_trainable(model, lora=True),
        total=sum(p.numel() for p in model.peft.parameters()), memory_bytes=memory, step_s=float(np.median(taken[1:])),
        forward_s=float(np.median(forward[1:])), pooled_bytes=0 if setup.config.events else pooled_bytes(model),
        sample_rate=encoder.sample_rate,
    )


def derive_plan(setup: Any, measured: MeasuredSteps, price: float) -> FinetunePlan:
    """Return the plan of a run whose steps take as long as those that were measured."""
    from tonelake.finetune.frozen import clips_to_pool

    config, task, split = setup.config, setup.task, setup.split
    batch, seconds = int(config.batch or 1), float(task.clips["duration_s"].sum())
    valid = -(-len(split.valid) // batch)
    if config.events:                    # the frozen baseline encodes the clips again each epoch, without gradients
        pooled, passes = 0, config.seeds * config.epochs * (-(-len(split.train) // batch) + valid)
        posteriors = 2 * len(setup.frame_task.outputs) * setup.frames_of(max(len(split.valid), len(split.test)))
    else:
        pooled = clips_to_pool(setup)
        passes, posteriors = -(-pooled // batch), 0
    audio = 0.0 if config.frames else seconds * measured.sample_rate * 2
    checkpoints = 2 + (config.epochs // config.keep_every if config.keep_every else 0) / 3       # kept ones are weights alone
    return FinetunePlan(
        encoder=setup.space.encoder, clips=len(task), tracks=len(np.unique(task.track)), audio_s=seconds,
        trainable=measured.trainable, trainable_lora=measured.trainable_lora, total=measured.total,
        memory_bytes=measured.memory_bytes, steps=-(-len(split.train) // (batch * config.accumulated)), epochs=config.epochs,
        step_s=measured.step_s, validation_s=measured.forward_s * valid, pooling_s=measured.forward_s * passes,
        seeds=config.seeds,
        disk_bytes=round(
            audio + pooled * measured.pooled_bytes + posteriors + config.seeds * checkpoints * 3 * 4 * measured.trainable
        ),
        device=config.device, price=price,
    )


def subset_setup(setup: Any, rows: np.ndarray) -> Any:
    """Return a setup with these clips only, as training, validation and test set."""
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
