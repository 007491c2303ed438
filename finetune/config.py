"""Settings of a fine-tuning run: everything that decides its results, as stored in a run's config.yaml.

None means that the value follows from the size of the encoder or from the lake; it is resolved when a run begins, and stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from tonelake.evaluate import MAIN_METRIC, SHARES, VAL_SHARE, check_shares
from tonelake.finetune.recipes import recipe_settings
from tonelake.probes import PIANO
from tonelake.store import (
    Count,
    InputError,
    NonNegative,
    Positive,
    Settings,
    Share,
    Texts,
    frozen_settings,
    parse_settings,
)

# Version of the computation of a fine-tuning.  Raise it when equal settings and data give other results: model, augmentation,
# training, frozen baseline, metrics or intervals.  Finished runs are then trained again under another default name instead of
# being returned, and interrupted ones are not resumed.
FINETUNE_VERSION = 1
SCORE = "score"                          # of a fine-tuning on events: the main score of the task on the validation clips
Pitch = Annotated[int, Field(ge=0, le=127)]
Fraction = Annotated[float, Field(ge=0, le=1)]
TARGETS = ("q_proj", "v_proj")           # of an encoder that declares none
LARGE = 1024                             # width from which an encoder counts as large: MERT-v1-330M's
VALIDATION_METRICS = {                   # measured every epoch, besides the loss
    "multiclass": ("accuracy", "map"), "multilabel": ("map", "accuracy"), "regression": ("r2",),
}
LATER: dict[str, Any] = {                # settings of later releases, with the values of before
    "seeds": 1, "classes": None, "val_share": VAL_SHARE, "first_layer": None, "resume": None, "mix_stems": None,
    "mix_temperature": 1.0, "mix_drums": 0.5, "mix_one_track": 0.5, "mix_gain_db": -12.0, "warmup_steps": None,
    "cosine_floor": 0.0, "keep_every": None, "events": None, "source": None, "lowest": PIANO[0], "highest": PIANO[1],
    "head": "conv", "context": 9,
}


@frozen_settings
class FinetuneConfig(Settings):
    """One fine-tuning run.  The defaults are those by which WIKIMETER's models were trained."""

    column: str = Field(description="Label column to predict.")
    _: KW_ONLY
    events: Literal["notes", "onsets", "beats", "chords", "key"] | None = Field(
        default=None, description="Events to find at each frame, in place of a label column.",
    )
    source: str | None = Field(
        default=None, description="Source of the events, such as midi; default: the only one that is not a prediction.",
    )
    lowest: Pitch = Field(default=PIANO[0], description="Lowest MIDI pitch of notes.")
    highest: Pitch = Field(default=PIANO[1], description="Highest MIDI pitch of notes.")
    space: str | None = Field(
        default=None, description="Space whose encoder is fine-tuned; default: the default space of the lake."
    )
    task: Literal["multiclass", "multilabel", "regression"] | None = Field(
        default=None, description="Kind of task; default: by the type of the column."
    )
    where: str | None = Field(default=None, description="SQL filter over clip columns.")
    classes: Texts | None = Field(
        default=None, description="Known classes, in the order of the outputs: of a list column, other labels are dropped; of "
        "another column, clips of other classes; default: all.",
    )

    rank: Count = Field(default=16, description="Rank of the LoRA updates B · A, with A (rank, in) and B (out, rank).")
    alpha: Positive = Field(default=32.0, description="Scale of the updates, which are multiplied by alpha / rank.")
    lora_dropout: Share = Field(default=0.05, description="Dropout before each update.")
    targets: Texts | None = Field(
        default=None, description="Linear layers of each block that are adapted, such as q_proj, k_proj, v_proj, out_proj; "
        "default: those that project queries and values, for MERT-v2 query_proj,value_proj, for MuQ linear_q,linear_v.",
    )
    above: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Only blocks above this layer are trained; the head weights the layers from this one on."
    )
    first_layer: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="First layer that the head weights, such as 1 to leave out layer 0; default: that of `above`."
    )

    head: Literal["linear", "context", "mlp", "conv", "gru"] = Field(
        default="conv", description="Kind of head on the frames, with --events; context: linear over several frames."
    )
    context: Count = Field(default=9, description="Frames that the heads context and conv see around each frame; odd.")
    hidden: Count = Field(default=256, description="Hidden units of the head.")
    dropout: Share = Field(default=0.4, description="Dropout of the head.")

    window_s: Annotated[float, Field(ge=1, le=120)] = Field(
        default=5.0, description="Seconds encoded and pooled at once (5 as in MERT's training)."
    )
    crop_s: float = Field(
        default=30.0, description="Maximum seconds of a clip: a random crop in training, the centre crop in evaluation."
    )
    frames: bool = Field(
        default=False, description="Train from the stored frames of layer `above`; nothing below it is computed."
    )

    class_weights: Literal["none", "balanced"] = Field(
        default="balanced", description="Weights of tags and events in the loss; balanced: rare ones weigh more (pos_weight)."
    )
    label_smoothing: Share = Field(
        default=0.1, description="Label smoothing of absent tags: an absent tag may still apply."
    )

    noise: NonNegative = Field(default=0.0, description="Augmentation: standard deviation of white noise, such as 0.01.")
    shift_s: NonNegative = Field(
        default=0.0, description="Augmentation: maximum circular shift in seconds, either way, such as 0.5."
    )
    gain: Share = Field(default=0.0, description="Augmentation: maximum change of loudness as a share, such as 0.2.")
    pitch: NonNegative = Field(
        default=0.0, description="Augmentation: maximum pitch shift in semitones, up or down, such as 2."
    )
    mix: Share = Field(default=0.0, description="Augmentation: share of clips mixed with a stem of another track, such as 0.5.")
    mix_stems: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Maximum number of stems in a mix, drums apart: stems of training tracks are drawn by class, "
        "no class twice, for the share `mix` of clips; default: one stem of another track from the same batch.",
    )
    mix_temperature: Positive = Field(
        default=1.0, description="How evenly stem classes are drawn for a mix: 1 in proportion to their clips, higher more "
        "evenly.",
    )
    mix_drums: Fraction = Field(
        default=0.5, description="Share of mixes with drums, which are drawn apart from the other stems."
    )
    mix_one_track: Fraction = Field(
        default=0.5, description="Share of mixes whose stems are all of one track; in the others each stem may be of any track."
    )
    mix_gain_db: Annotated[float, Field(ge=-60, le=0)] = Field(
        default=-12.0, description="Lowest gain of a stem in a mix in dB; gains are drawn between it and 0, so stems are "
        "attenuated only.",
    )

    head_rate: Positive | None = Field(
        default=None, description="Learning rate of the head; default: 1e-3, for a large encoder 5e-4."
    )
    lora_rate: Positive = Field(default=5e-5, description="Learning rate of the updates.")
    decay: NonNegative = Field(default=1e-4, description="Weight decay.")
    schedule: Literal["plateau", "cosine"] = Field(
        default="plateau",
        description="Learning-rate schedule; plateau halves the rates after `wait` epochs without improvement.",
    )
    wait: Count = Field(default=5, description="Epochs without improvement before the plateau schedule halves the rates.")
    lowest_rate: NonNegative = Field(default=1e-6, description="Lower bound of the rates of the plateau schedule.")
    cosine_floor: NonNegative = Field(
        default=0.0, description="Lower bound of the rates of the cosine schedule, such as 1e-6; after warm-up they fall to it."
    )
    warmup: Share = Field(default=0.05, description="Share of the steps that warm up the cosine schedule.")
    warmup_steps: Count | None = Field(
        default=None, description="Optimizer steps that warm up the cosine schedule, in place of the share `warmup`."
    )
    clip_norm: Positive = Field(default=1.0, description="Maximum norm of the gradient.")
    batch: Count | None = Field(default=None, description="Clips in a batch; default: 8, for a large encoder 4.")
    together: Count = Field(default=32, description="Clips in an optimizer step, accumulated over several batches.")
    epochs: Count = Field(default=50, description="Maximum number of epochs.")
    patience: Count = Field(default=15, description="Epochs without improvement after which training stops.")
    monitor: Literal["auto", "accuracy", "map", "r2", "loss"] = Field(
        default="auto", description="Validation metric that steers the schedule, stops training and selects the epoch; "
        "accuracy of a list column is that of the label listed first; auto: accuracy of classes, map of lists, r2 of numbers, "
        "the main score of events (of notes F1 of onsets, by thresholds chosen on the same clips).",
    )

    keep_every: Count | None = Field(
        default=None, description="Keep the weights of every nth epoch, for `tonelake adapters RUN --epoch N`; the last and "
        "the best epoch are kept in any case.",
    )

    split: str = Field(
        default="by:track",
        description="Split into training, validation and test set: by:COLUMN, column:COLUMN, column:COLUMN+GROUP, "
        "random, or run:NAME for the split of another run.",
    )
    shares: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        default=SHARES, description="Shares of the training, validation and test set."
    )
    val_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=VAL_SHARE, description="Validation share, for column:COLUMN: of the clips that +GROUP adds; of train if the "
        "column has no valid.",
    )
    split_seed: int = Field(default=0, description="Random seed of the split.")
    seed: int = Field(default=0, description="Random seed of the initial weights, the order of clips and the augmentation.")
    seeds: Count = Field(
        default=1, description="Number of seeds to train, from `seed` on; figures are means over them, and the adapter of the "
        "best on validation is kept."
    )

    start: str | None = Field(
        default=None, description="Run or checkpoint file whose weights initialise the model where they fit."
    )
    resume: str | None = Field(
        default=None, description="Run, checkpoint folder or checkpoint file whose training continues, up to `epochs` in all: "
        "weights, epoch and optimizer, and of a run or folder its schedule."
    )
    checkpointing: bool | None = Field(
        default=None, description="Gradient checkpointing: less memory, more time; default: for large encoders only."
    )
    device: str = Field(default="auto", description="Device: auto, cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Precision of training; auto: bfloat16 where the device has it."
    )
    recipe: str = Field(
        default="", description="Settings of a published experiment, which other options override: beatmeter."
    )

    def __post_init__(self) -> None:
        check_shares(self.shares)
        recipe_settings(self.recipe)
        if self.events:
            self.check_events()
        if self.first_layer is not None and self.first_layer < self.above:
            raise InputError(
                f"setting 'first_layer': {self.first_layer} is below layer {self.above}, where training begins. Give at least "
                f"{self.above}, or lower `above`"
            )
        if self.shares[1] <= 0:
            raise InputError("setting 'shares': leave no validation set, which early stopping needs. Give valid more than 0")
        if self.batch is not None and self.batch > self.together:
            raise InputError(
                f"setting 'batch': {self.batch} exceeds the {self.together} clips of a step. Give at most {self.together}, or "
                "raise `together`"
            )
        if self.schedule != "cosine" and (self.warmup_steps or self.cosine_floor):
            name = "warmup_steps" if self.warmup_steps else "cosine_floor"
            raise InputError(
                f"setting {name!r}: belongs to the cosine schedule, not to {self.schedule}. Add --schedule cosine, or leave it "
                "out"
            )
        if self.mix_stems is not None and not self.mix:
            raise InputError(
                "setting 'mix_stems': has no effect, because no clip is mixed. Give the share of clips by --mix, such as 0.5"
            )
        if self.crop_s < self.window_s:
            raise InputError(
                f"setting 'crop_s': {self.crop_s:g} s is shorter than the window of {self.window_s:g} s. Give a crop at least "
                "as long as window_s"
            )
        if self.frames and self.augments:
            raise InputError(
                f"settings {', '.join(self.augments)}: change the audio, but stored frames are of the unchanged audio. Leave "
                "them out, or leave --frames out"
            )

    def check_events(self) -> None:
        """Raise InputError if settings do not fit a fine-tuning on events."""
        if self.column != self.events:
            raise InputError(
                f"--events {self.events}: takes no label column, and {self.column!r} is given. Leave out one of them"
            )
        moved = [name for name in ("shift_s", "pitch") if getattr(self, name) > 0]
        if self.mix and self.mix_stems is None:
            moved.append("mix")
        if moved:
            raise InputError(
                f"settings {', '.join(moved)}: change the audio, but not its events. Leave them out"
                + (", or give --mix-stems with --mix" if "mix" in moved else "")
            )
        if self.mix_stems and self.events in ("beats", "chords", "key") and self.mix_one_track < 1:
            raise InputError(
                f"setting 'mix_stems': joins stems of different tracks, whose {self.events} differ. Add --mix-one-track 1, or "
                "leave it out"
            )
        if self.frames:
            raise InputError("--frames: trains on a label column. Leave it out with --events")
        if self.monitor not in ("auto", "loss"):
            raise InputError(f"--monitor {self.monitor}: is a metric of label columns. Choose auto or loss with --events")
        if self.lowest > self.highest:
            raise InputError(f"pitches {self.lowest} to {self.highest}: the range is empty. Give --lowest below --highest")
        if self.context % 2 == 0:
            raise InputError(f"context {self.context}: is even, so it has no centre. Give an odd number of frames")

    def identity(self) -> dict[str, Any]:
        """Return the values that the digest covers.

        Settings that earlier releases lacked are left out at their defaults, and the recipe's name always: its values count.
        `targets` has a value, as it had in earlier releases; a run's own are resolved.
        """
        values = {key: value for key, value in self.as_dict().items() if key not in LATER or value != LATER[key]}
        if self.monitor in ("auto", MAIN_METRIC.get(str(self.task))):
            del values["monitor"]
        del values["recipe"]
        return values | {"targets": values["targets"] or list(TARGETS)}

    @property
    def monitored(self) -> str:
        """Return the validation metric that steers training."""
        if self.events:
            return SCORE if self.monitor == "auto" else self.monitor
        return MAIN_METRIC[str(self.task)] if self.monitor == "auto" else self.monitor

    @property
    def higher_is_better(self) -> bool:
        """Return whether the monitored metric improves upwards."""
        return self.monitored != "loss"

    @property
    def first(self) -> int:
        """Return the first layer that the head weights."""
        return self.above if self.first_layer is None else self.first_layer

    @property
    def recipe_changes(self) -> list[str]:
        """Return the settings that differ from those of the recipe, in words."""
        return [
            f"{key} {getattr(self, key)} instead of {value}" for key, value in recipe_settings(self.recipe).items()
            if getattr(self, key) != value
        ]

    @property
    def all_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    @property
    def augments(self) -> list[str]:
        """Names of the enabled augmentations."""
        return [name for name in ("noise", "shift_s", "gain", "pitch", "mix") if getattr(self, name) > 0]

    def resolved(
        self, width: int, precision: str, device: str, space: str, task: str, targets: tuple[str, ...]
    ) -> FinetuneConfig:
        """Return a copy with every None and `auto` resolved for an encoder of this width, with these `targets` by default."""
        large = width >= LARGE
        changes: dict[str, Any] = {
            "space": space, "task": task, "device": device, "precision": precision, "targets": self.targets or targets,
            "head_rate": self.head_rate or (5e-4 if large else 1e-3),
            "batch": self.batch or min(4 if large else 8, self.together),
            "checkpointing": large if self.checkpointing is None else self.checkpointing,
        }
        return replace(self, **changes)

    @property
    def accumulated(self) -> int:
        """Number of batches in an optimizer step."""
        return max(1, round(self.together / (self.batch or self.together)))


def merge_settings(
    config: str | Path | FinetuneConfig | None, column: str | None, settings: Mapping[str, Any]
) -> FinetuneConfig:
    """Return settings from a YAML file or a FinetuneConfig, with `settings` replaced.  Raises InputError without a column.

    A recipe among `settings` changes what `config` says.  A recipe that a file names is changed by the file's other lines.
    """
    base: dict[str, Any] = {}
    if isinstance(config, str | Path):
        path = Path(config).expanduser()
        FinetuneConfig.from_file(path)               # checks the file by itself
        base, _ = parse_settings(path.read_text(encoding="utf-8"), str(path))
        base = recipe_settings(str(base.get("recipe") or "")) | base
    elif config is not None:
        base = config.as_dict()
    given = base | recipe_settings(str(settings.get("recipe") or "")) | dict(settings) | ({"column": column} if column else {})
    if settings.get("events") and not column:
        given["column"] = settings["events"]
    if "column" not in given:
        given["column"] = given.get("events")
    if not given["column"]:
        raise InputError(
            "label column: is required. Name it: tonelake finetune COLUMN, or name events: tonelake finetune --events notes"
        )
    return FinetuneConfig.from_dict(given)
