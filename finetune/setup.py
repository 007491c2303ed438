"""A fine-tuning made ready: the space to start from, its encoder, the clips and their targets, and the sides of the split."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake.embed import EmbedSettings, cpu_has_bfloat16, encoder_of, load_encoder, refuse_projection, resolve_device
from tonelake.evaluate import SIDE_NAMES, Split, Targets, check_sides, make_splits, read_targets
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.runs import FinetuneRun
from tonelake.probes import balanced_weights, data_digest
from tonelake.store import InputError, Lake, Space, require_extra

if TYPE_CHECKING:
    from tonelake.embed import HubertEncoder

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass
class Setup:
    """Everything resolved: nothing in `config` is auto or None any more, but for `where` and `start`."""

    lake: Lake
    space: Space
    config: FinetuneConfig
    task: Targets
    split: Split
    notes: list[str]

    @property
    def digest(self) -> str:
        """Of settings and data."""
        return self.config.digest(data_digest(self.task.targets, self.task.ids.to_list(), self.space.fingerprint))

    @property
    def labels(self) -> np.ndarray:
        """(clip,) int64 or (clip, output) float32, as the loss takes them: a regression's are scaled."""
        if self.task.kind != "regression":
            return self.task.targets
        mean, spread = self.scale()
        return ((self.task.targets - mean) / spread).astype(np.float32)

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """(target,) mean and spread of what is learned from."""
        learned = self.task.targets[self.split.train]
        spread = learned.std(axis=0)
        return learned.mean(axis=0), np.where(spread > 0, spread, 1).astype(np.float32)

    def class_weights(self) -> np.ndarray | None:
        """Of a tag's positives, `pos_weight`: clips without it by clips with it; of classes none."""
        if self.config.class_weights == "none" or self.task.kind != "multilabel":
            return None
        return balanced_weights(self.task.kind, self.task.targets[self.split.train], len(self.task.names))

    def primary(self) -> np.ndarray:
        """(clip,) int: the class of each clip; of tags that which is named first, -1 where there is none."""
        if self.task.kind == "multiclass":
            return self.task.targets
        if self.task.kind == "regression":
            return np.full(len(self.task), -1)
        number = {name: i for i, name in enumerate(self.task.names)}
        lists = self.task.clips[self.config.column].cast(pl.List(pl.String)).to_list()
        return np.array([number.get(tags[0], -1) if tags else -1 for tags in lists])

    def without(self, clips: set[str], why: str) -> Setup:
        """The same without some clips, that cannot be read.  Raises InputError where a side is left empty."""
        if not clips:
            return self
        bad = self.task.ids.is_in(list(clips)).to_numpy()
        split = Split(*(rows[~bad[rows]] for rows in (self.split.train, self.split.valid, self.split.test)))
        check_sides(self.task, split, self.config.split)
        check_valid(split, self.config.split)
        return replace(self, split=split, notes=[*self.notes, f"{len(clips):,} clips are left out: {why}"])

    def load_encoder(self) -> HubertEncoder:
        """The space's encoder in float32, on the CPU.  Raises EncoderError where it is another one by now."""
        encoder = encoder_of(self.space, device="cpu", home=self.lake.uri)
        if encoder.precision != "float32":
            encoder = load_encoder(self.space.location, device="cpu")
        if not hasattr(encoder, "model"):
            raise InputError(f"space {self.space.name!r} is of {encoder.name}, which has no weights to learn: embed with MERT")
        return encoder                                               # type: ignore[return-value]


def make_setup(lake: Lake, config: FinetuneConfig) -> Setup:
    """Resolve settings against a lake.  Raises InputError where they cannot be met."""
    for library in ("peft", "accelerate", "tensorboard"):
        require_extra(library, "finetune", "fine-tuning")
    space = lake.spaces.get(config.space)
    refuse_projection(space)
    if space.location == "spectral":
        raise InputError(f"space {space.name!r} is of spectral descriptors, which have no weights to learn: embed with MERT")
    if space.adapter:
        raise InputError(
            f"space {space.name!r} is itself of an adapter: name the space that it was trained from, and go on from it with "
            "--start RUN"
        )
    blocks = len(space.layers) - 1
    if config.above >= blocks:
        raise InputError(
            f"above layer {config.above} lies no block of {space.encoder}, which has {blocks}: choose 0 to {blocks - 1}"
        )
    if config.frames:
        config = replace(config, window_s=space.window_s, crop_s=max(config.crop_s, space.window_s))
    task = read_targets(lake, space, (config.column,), kind=config.task, where=config.where)
    split, notes = sides_of(lake, task, config)
    check_valid(split, config.split)
    if config.device not in DEVICES:
        raise InputError(f"no device {config.device!r}: choose {', '.join(DEVICES)}; CUDA_VISIBLE_DEVICES says which GPUs")
    device = resolve_device(EmbedSettings(device=config.device), None)
    resolved = config.resolved(space.dims[-1], settled_precision(config, device), device, space.name, task.kind)
    return Setup(lake, space, resolved, task, split, [*task.notes, *notes])


def settled_precision(config: FinetuneConfig, device: str) -> str:
    """bfloat16 where the GPU or the processor computes in it: autocast, weights and what learns staying float32."""
    if config.precision != "auto":
        return config.precision
    import torch

    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if device == "cpu" and cpu_has_bfloat16() else "float32"


def sides_of(lake: Lake, task: Targets, config: FinetuneConfig) -> tuple[Split, list[str]]:
    """The split, and what is to be said of it."""
    kind, _, rest = config.split.partition(":")
    if kind == "folds":
        raise InputError("a fine-tuning has one split, and folds are many: choose by:COLUMN, column:COLUMN, random or run:NAME")
    if kind != "run":
        splits, notes = make_splits(task, config.split, seed=config.split_seed, shares=config.shares)
        return splits[0], notes
    before = FinetuneRun.named(lake, rest)
    sides = before.table("split").group_by("track").agg(pl.col("side").first())
    known = pl.DataFrame({"track": task.clips["track"]}).join(sides, on="track", how="left", maintain_order="left")["side"]
    number = known.replace_strict(SIDE_NAMES, default=-1, return_dtype=pl.Int64).fill_null(-1).to_numpy()
    split = Split(*(np.flatnonzero(number == side) for side in range(3)))
    check_sides(task, split, config.split)
    lost = int((number < 0).sum())
    notes = [f"{lost:,} clips of tracks that run {before.name} does not have are left out"] if lost else []
    return split, notes


def check_valid(split: Split, how: str) -> None:
    if not len(split.valid):
        raise InputError(f"--split {how} leaves no clip to stop by: give valid a share, or a value in the split column")
