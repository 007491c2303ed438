"""Resolved settings and data of a fine-tuning, and what follows from them: identity, class weights, the encoder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake.embed import encoder_of, load_encoder
from tonelake.evaluate import Split, Targets, check_sides, make_manifest
from tonelake.finetune.config import FINETUNE_VERSION, FinetuneConfig
from tonelake.finetune.continuation import digest_of_resume
from tonelake.finetune.runs import digest_of_start
from tonelake.finetune.stem_mixing import StemMixer, StemPool
from tonelake.probes import balanced_weights
from tonelake.store import InputError, Lake, Manifest, Space, read_songs

if TYPE_CHECKING:
    from tonelake.embed import Encoder


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


def check_targets(encoder: Encoder, config: FinetuneConfig) -> None:
    """Raise InputError unless each of `targets` names a linear layer of the encoder's blocks."""
    linear = encoder.training_pass().linear_layers()
    absent = [one for one in config.targets or () if not any(f".{name}".endswith(f".{one}") for name in linear)]
    if absent:
        raise InputError(
            f"--targets {','.join(absent)}: {encoder.name} has no such linear layers. Choose among "
            f"{', '.join(dict.fromkeys(name.rpartition('.')[2] for name in linear))}"
        )


def check_valid(split: Split, how: str) -> None:
    if not len(split.valid):
        raise InputError(f"--split {how}: the validation set is empty. Give valid a share, or a value in the split column")
