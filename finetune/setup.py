"""Resolve a fine-tuning's settings to a space, its encoder, the clips with their targets, and the split."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake.embed import (
    EmbedSettings,
    cpu_has_bfloat16,
    encoder_of,
    load_encoder,
    lora_targets_of,
    open_space,
    refuse_projection,
    resolve_device,
)
from tonelake.evaluate import (
    SIDE_NAMES,
    Split,
    Targets,
    check_sides,
    check_val_share,
    make_manifest,
    make_splits,
    read_targets,
)
from tonelake.finetune.config import FINETUNE_VERSION, TARGETS, VALIDATION_METRICS, FinetuneConfig
from tonelake.finetune.continuation import check_resume, digest_of_resume
from tonelake.finetune.runs import FinetuneRun, digest_of_start, song_keys
from tonelake.finetune.stem_mixing import StemMixer, StemPool, read_stem_pool
from tonelake.probes import balanced_weights
from tonelake.store import InputError, Lake, Manifest, Space, read_songs, require_extra

if TYPE_CHECKING:
    from tonelake.embed import Encoder

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(kw_only=True)
class Setup:
    """Resolved settings and data: nothing in `config` is auto or None, except `where`, `classes`, `start` and `resume`."""

    lake: Lake
    space: Space
    config: FinetuneConfig
    task: Targets
    split: Split
    notes: list[str]
    fixed_scale: tuple[np.ndarray, np.ndarray] | None = None         # in place of that of the training targets
    stems: StemPool | None = None        # that mixes are made of; None without `mix_stems`

    def manifest(self) -> Manifest:
        """Return the manifest of the run: settings, and a digest of each part of the data and of the initial weights."""
        more = {}
        if self.task.kind == "multilabel" and not self.config.events:
            # A clip's own class is its first tag, which the targets do not show.
            more["primary"] = hashlib.blake2b(self.primary_class().astype(np.int64).tobytes(), digest_size=16).hexdigest()
        if self.stems is not None:
            more["stems"] = self.stems.digest()
        if self.config.start:
            more["start"] = digest_of_start(self.lake, self.config.start)
        if self.config.resume:
            more["resume"] = digest_of_resume(self.lake, self.config.resume)
        return make_manifest(
            self.config.identity(), FINETUNE_VERSION, self.space.fingerprint, self.task, [self.split], more=more
        )

    @property
    def labels(self) -> np.ndarray:
        """Return (clip,) int64 or (clip, output) float32 as the loss expects them; regression targets are scaled."""
        if self.task.kind != "regression":
            return self.task.targets
        mean, spread = self.scale()
        return ((self.task.targets - mean) / spread).astype(np.float32)

    def scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (target,) mean and spread of the training targets."""
        if self.fixed_scale is not None:
            return self.fixed_scale
        training = self.task.targets[self.split.train]
        spread = training.std(axis=0)
        return training.mean(axis=0), np.where(spread > 0, spread, 1).astype(np.float32)

    def class_weights(self) -> np.ndarray | None:
        """Return `pos_weight` of tags: clips without the tag divided by clips with it; None for other tasks."""
        if self.config.class_weights == "none" or self.task.kind != "multilabel":
            return None
        return balanced_weights(self.task.kind, self.task.targets[self.split.train], len(self.task.names))

    def primary_class(self) -> np.ndarray:
        """Return (clip,) int: the class of each clip; for tags, the one listed first, -1 without tags."""
        if self.task.kind == "multiclass":
            return self.task.targets
        if self.task.kind == "regression":
            return np.full(len(self.task), -1)
        number = {name: i for i, name in enumerate(self.task.names)}
        lists = self.task.clips[self.config.column].cast(pl.List(pl.String)).to_list()
        return np.array([number.get(tags[0], -1) if tags else -1 for tags in lists])

    def without_clips(self, clips: set[str], why: str) -> Setup:
        """Return a setup without clips that cannot be read.  Raises InputError if a set becomes empty."""
        clips = clips & set(self.task.ids)       # stems of mixes that cannot be read are only not drawn
        if not clips:
            return self
        bad = self.task.ids.is_in(list(clips)).to_numpy()
        split = Split(*(rows[~bad[rows]] for rows in (self.split.train, self.split.valid, self.split.test)))
        check_sides(self.task, split, self.config.split)
        check_valid(split, self.config.split)
        return replace(self, split=split, notes=[*self.notes, f"{len(clips):,} clips are left out: {why}"])

    def mixer(self, failed: set[str]) -> StemMixer:
        """Return what mixes training clips with stems, except those that cannot be read."""
        assert self.stems is not None
        songs = read_songs(self.lake.clips).of(self.task.ids)
        return StemMixer(self.stems.without(failed), self.task.clips, songs, self.config, whole=False)

    def load_encoder(self) -> Encoder:
        """Load the space's encoder in float32, ready to compute in the precision of the run.

        Raises InputError if it cannot be trained with these settings, EncoderError if it has changed, or if the device cannot
        compute it right in that precision.
        """
        encoder = encoder_of(self.space, device="cpu", home=self.lake.uri)
        if encoder.precision != "float32":
            encoder = load_encoder(self.space.location, device="cpu")
        if not encoder.trainable:
            raise InputError(f"space {self.space.name!r}: {encoder.name} cannot be fine-tuned. Embed with MERT")
        check_targets(encoder, self.config)
        encoder.prepare_training(
            round(float(self.config.window_s) * encoder.sample_rate), self.config.precision, self.config.device
        )
        return encoder


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
    refuse_projection(space)
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
        from tonelake.finetune.frames.setup import make_frame_setup, read_event_clips

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


def check_targets(encoder: Encoder, config: FinetuneConfig) -> None:
    """Raise InputError unless each of `targets` names a linear layer of the encoder's blocks."""
    linear = encoder.training_pass().linear_layers()
    absent = [one for one in config.targets or () if not any(f".{name}".endswith(f".{one}") for name in linear)]
    if absent:
        raise InputError(
            f"--targets {','.join(absent)}: {encoder.name} has no such linear layers. Choose among "
            f"{', '.join(dict.fromkeys(name.rpartition('.')[2] for name in linear))}"
        )


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


def check_valid(split: Split, how: str) -> None:
    if not len(split.valid):
        raise InputError(f"--split {how}: the validation set is empty. Give valid a share, or a value in the split column")
