"""Resolve a fine-tuning's settings to a space, the clips with their targets, and the split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from tonelake.embed import (
    EmbedSettings,
    cpu_has_bfloat16,
    lora_targets_of,
    open_space,
    refuse_derived,
    resolve_device,
)
from tonelake.evaluate import SIDE_NAMES, Split, Targets, check_sides, check_val_share, make_splits, read_targets
from tonelake.finetune.config import TARGETS, VALIDATION_METRICS, FinetuneConfig
from tonelake.finetune.continuation import check_resume
from tonelake.finetune.frames.setup import make_frame_setup, read_event_clips
from tonelake.finetune.resolved import Setup, check_valid
from tonelake.finetune.runs import FinetuneRun, song_keys
from tonelake.finetune.stem_mixing import read_stem_pool
from tonelake.store import InputError, Lake, require_extra

DEVICES = ("auto", "cpu", "cuda", "mps")


def use_encoder(lake: Lake, config: FinetuneConfig, encoder: str | None) -> FinetuneConfig:
    """Return settings with a space of `encoder`; it is made, without vectors, if the lake has none.  None: as they are."""
    if encoder is None:
        return config
    space, _ = open_space(lake, EmbedSettings(
        encoder, space=config.space, window_s=config.window_s, device=config.device, precision=config.precision
    ))
    return replace(config, space=space.name)


def make_setup(lake: Lake, config: FinetuneConfig) -> Setup:
    """Resolve settings against a lake.  Raises InputError if they cannot be met."""
    for library in ("peft", "accelerate", "tensorboard"):
        require_extra(library, "finetune", "fine-tuning")
    space = lake.spaces.get(config.space)
    refuse_derived(space)
    if not space.learned:
        raise InputError(f"space {space.name!r}: {space.encoder} descriptors have no trainable weights. Embed with MERT")
    if space.adapter:
        raise InputError(
            f"space {space.name!r}: is itself of an adapter. Name the space that it was trained from, and continue from its "
            "run with --start RUN"
        )
    blocks = len(space.layers) - 1
    if config.above >= blocks:
        raise InputError(
            f"--above {config.above}: {space.encoder} has {blocks} blocks, and none above this layer. Choose 0 to {blocks - 1}"
        )
    if config.first > blocks:
        raise InputError(f"--first-layer {config.first}: {space.encoder} has layers 0 to {blocks}. Choose one of them")
    if config.frames:
        config = replace(config, window_s=space.window_s, crop_s=max(config.crop_s, space.window_s))
    frame_task = None
    if config.events:
        frame_task, task = read_event_clips(lake, config)
    else:
        task = read_targets(
            lake, space, (config.column,), kind=config.task, where=config.where, classes=config.classes
        )
    if not config.events and config.monitor not in ("auto", "loss", *VALIDATION_METRICS[task.kind]):
        raise InputError(
            f"--monitor {config.monitor}: is not a metric of {task.kind} tasks, which {config.column!r} is. Choose "
            f"{', '.join(VALIDATION_METRICS[task.kind])} or loss"
        )
    split, notes = make_split(lake, task, config)
    check_valid(split, config.split)
    check_resume(lake, config, split, task.ids)
    if config.device not in DEVICES:
        raise InputError(
            f"device {config.device!r}: unknown. Choose {', '.join(DEVICES)}; CUDA_VISIBLE_DEVICES selects the GPUs"
        )
    device = resolve_device(EmbedSettings(device=config.device), None)
    resolved = config.resolved(
        space.dims[-1], resolve_precision(config, device), device, space.name, frame_task.kind if frame_task else task.kind,
        lora_targets_of(space.location) or TARGETS,
    )
    setup = Setup(
        lake=lake, space=space, config=resolved, task=task, split=split, notes=[*task.notes, *notes],
        stems=None if config.mix_stems is None else read_stem_pool(lake, task, split),
    )
    return make_frame_setup(setup, frame_task) if frame_task is not None else setup


def resolve_precision(config: FinetuneConfig, device: str) -> str:
    """Return bfloat16 if the GPU or the processor supports it (by autocast; all weights stay float32), else float32."""
    if config.precision != "auto":
        return config.precision
    import torch

    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device == "cpu" and cpu_has_bfloat16() else "float32"


def make_split(lake: Lake, task: Targets, config: FinetuneConfig) -> tuple[Split, list[str]]:
    """Return the split, and notes for the report."""
    kind, _, rest = config.split.partition(":")
    if kind == "folds":
        raise InputError(
            f"--split {config.split}: fine-tuning uses one split. Choose by:COLUMN, column:COLUMN, random or run:NAME"
        )
    if kind != "run":
        splits, notes = make_splits(
            task, config.split, seed=config.split_seed, shares=config.shares, val_share=config.val_share
        )
        return splits[0], notes
    check_val_share(config.val_share, config.split)
    before = FinetuneRun.named(lake, rest)
    table = before.table("split")
    side = table["side"].replace_strict(SIDE_NAMES, default=None, return_dtype=pl.Int64)
    # A song of several sides counts as trained on, so that the test set stays unseen by the earlier run.
    sides = pl.DataFrame({"song": song_keys(lake, table), "side": side}).group_by("song").agg(pl.col("side").min())
    songs = song_keys(lake, task.clips.select("clip_id", "track"))
    known = songs.to_frame().join(sides, on="song", how="left", maintain_order="left")["side"]
    number = known.fill_null(-1).to_numpy()
    split = Split(*(np.flatnonzero(number == side) for side in range(3)))
    check_sides(task, split, config.split)
    left_out = int((number < 0).sum())
    notes = [f"{left_out:,} clips of tracks that are not in run {before.name} are left out"] if left_out else []
    return split, notes
