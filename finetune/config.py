"""The settings of a fine-tuning: everything that decides what comes out, in one place, as it stands in a run's config.yaml.

None means: by the size of the encoder, or by what the lake holds; it is resolved when a run begins, and kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tonelake.evaluate import SHARES, TARGET_KINDS, check_shares
from tonelake.store import InputError, Settings

SCHEDULES = ("plateau", "cosine")
PRECISIONS = ("auto", "float32", "bfloat16")
LARGE = 1024                             # width from which an encoder counts as large: MERT-v1-330M's


@dataclass(frozen=True)
class FinetuneConfig(Settings):
    """One fine-tuning.  The defaults are those by which WIKIMETER's models were trained."""

    learned: ClassVar[str] = "column"

    column: str                                      # the label column
    space: str | None = None                         # of the encoder to start from; needed where the lake has several
    task: str | None = None                          # multiclass, multilabel or regression; by the column's type
    where: str | None = None                         # SQL over clip columns

    rank: int = 16                                   # of the updates: B · A with A (rank, in), B (out, rank)
    alpha: float = 32.0                              # they are scaled by alpha / rank
    lora_dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")  # linear layers of each block
    above: int = 0                                   # blocks above this layer learn; the layers from it on are weighted

    hidden: int = 256                                # of the head
    dropout: float = 0.4                             # of the head

    window_s: float = 5.0                            # what MERT was trained on, and what is pooled at once
    crop_s: float = 30.0                             # of a longer clip: by chance in training, its middle when judged
    frames: bool = False                             # train from the stored frames of layer `above`

    class_weights: str = "balanced"                  # of tags: `pos_weight`; none, or balanced
    label_smoothing: float = 0.1                     # of tags where they are absent: a tag that nobody gave may still hold

    noise: float = 0.0                               # augmentation: standard deviation of white noise
    shift_s: float = 0.0                             # … a circular shift of up to so much, either way
    gain: float = 0.0                                # … louder or softer by up to this share
    pitch: float = 0.0                               # … semitones up or down
    mix: float = 0.0                                 # … share of clips into which a stem of another track is mixed

    head_rate: float | None = None                   # learning rates: 1e-3, for a large encoder 5e-4
    lora_rate: float = 5e-5
    decay: float = 1e-4
    schedule: str = "plateau"                        # halve after `wait` epochs without a better one; or cosine
    wait: int = 5
    lowest_rate: float = 1e-6
    warmup: float = 0.05                             # share of the steps, of cosine
    clip_norm: float = 1.0
    batch: int | None = None                         # clips at once: 8, for a large encoder 4
    together: int = 32                               # clips a step, gathered over several batches
    epochs: int = 50
    patience: int = 15                               # epochs without a better one

    split: str = "by:track"                          # as for probes, and run:NAME, the sides of another run
    shares: tuple[float, ...] = SHARES
    split_seed: int = 0
    seed: int = 0

    start: str | None = None                         # a run, or a checkpoint file, whose weights are taken up where they fit
    checkpointing: bool | None = None                # less memory for a third more time: for a large encoder
    device: str = "auto"
    precision: str = "auto"                          # bfloat16 where the device has it

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TARGET_KINDS:
            raise InputError(f"no task {self.task!r}: choose {', '.join(TARGET_KINDS)}")
        for name, choices in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("class_weights", ("none", "balanced"))):
            if getattr(self, name) not in choices:
                raise InputError(f"no {name.replace('_', ' ')} {getattr(self, name)!r}: choose {', '.join(choices)}")
        check_shares(self.shares)
        if self.shares[1] <= 0:
            raise InputError("a fine-tuning is stopped by clips of its own: give valid a share")
        for name in ("rank", "hidden", "together", "epochs", "wait", "patience"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: at least 1")
        for name in ("lora_dropout", "dropout", "label_smoothing", "gain", "mix", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name):g}: from 0 to below 1")
        for name in ("noise", "shift_s", "pitch", "decay", "lowest_rate"):
            if getattr(self, name) < 0:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name):g}: 0 or more")
        for name in ("alpha", "lora_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name.replace('_', ' ')} {getattr(self, name):g}: above 0")
        if self.batch is not None and not 1 <= self.batch <= self.together:
            raise InputError(f"batch {self.batch}: from 1 to the {self.together} clips of a step")
        if not 1 <= self.window_s <= 120 or self.crop_s < self.window_s:
            raise InputError(
                f"a window of {self.window_s:g} s in crops of {self.crop_s:g} s: a window lasts 1 s or more, a crop no less"
            )
        if not self.targets:
            raise InputError("name the linear layers to adapt: q_proj, v_proj")
        if self.above < 0:
            raise InputError(f"above layer {self.above}: 0 or more")
        if self.frames and self.augments:
            raise InputError(
                f"{', '.join(self.augments)} change the audio, and stored frames are of the audio as it is: leave them out, or "
                "leave --frames out"
            )

    @property
    def augments(self) -> list[str]:
        """Names of the augmentations that are on."""
        return [name for name in ("noise", "shift_s", "gain", "pitch", "mix") if getattr(self, name) > 0]

    def resolved(self, width: int, precision: str, device: str, space: str, task: str) -> FinetuneConfig:
        """With nothing left open, for an encoder of this width."""
        large = width >= LARGE
        return replace(
            self, space=space, task=task, device=device, precision=precision,
            head_rate=self.head_rate or (5e-4 if large else 1e-3),
            batch=self.batch or min(4 if large else 8, self.together),
            checkpointing=large if self.checkpointing is None else self.checkpointing,
        )

    @property
    def accumulated(self) -> int:
        """Batches a step."""
        return max(1, round(self.together / (self.batch or self.together)))


def settle(config: str | Path | FinetuneConfig | None, column: str | None, settings: Mapping[str, Any]) -> FinetuneConfig:
    """Settings from a file or as they are, changed by those given one by one.  Raises InputError where no column is named."""
    if isinstance(config, str | Path):
        config = FinetuneConfig.from_file(Path(config).expanduser())
    given = dict(settings) | ({"column": column} if column else {})
    if config is not None:
        return FinetuneConfig.from_dict(config.as_dict() | given, "settings")
    if "column" not in given:
        raise InputError("name the label column to learn: tonelake finetune COLUMN")
    return FinetuneConfig.from_dict(given, "settings")
