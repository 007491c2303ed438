"""Settings of a frame probe: everything that decides its results, as stored in a run's config.yaml."""

from __future__ import annotations

from dataclasses import KW_ONLY, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from tonelake.evaluate import DEFAULT_SPLIT, SHARES, check_shares
from tonelake.probes.config import MOST_FITS, Decay, LayerName, Rate, Setting
from tonelake.probes.frames.tasks import PIANO
from tonelake.store import Count, InputError, Positive, Settings, Share, frozen_settings

# Version of the computation of a frame probe.  Raise it when equal settings and data give other results.
FRAME_PROBE_VERSION = 1

Pitch = Annotated[int, Field(ge=0, le=127)]


@frozen_settings
class FrameProbeConfig(Settings):
    """One experiment on stored frames: what to detect, from which layers, with which head, judged on which clips."""

    task: Literal["notes", "onsets", "beats", "chords", "key"] = Field(description="Events to detect.")
    _: KW_ONLY
    space: str | None = Field(default=None, description="Space whose frames are used; default: the default space.")
    where: str | None = Field(default=None, description="SQL filter over clip columns.")
    source: str | None = Field(
        default=None, description="Source of the events, such as midi; default: the only one that is not a prediction.",
    )
    lowest: Pitch = Field(default=PIANO[0], description="Lowest MIDI pitch of notes.")
    highest: Pitch = Field(default=PIANO[1], description="Highest MIDI pitch of notes.")

    layers: Annotated[tuple[LayerName, ...], Field(min_length=1, strict=False)] = Field(
        default=("each",),
        description="Layers by number or name; each: one probe for each layer with frames; all: side by side; weighted: under "
        "learned weights.",
    )
    head: Literal["linear", "context", "mlp", "conv", "gru", "harmonic"] = Field(
        default="conv",
        description="Kind of head; context: linear over several frames; harmonic: shared over pitch, for vqt and cqt.",
    )
    context: Count = Field(default=9, description="Frames that the heads context and conv see around each frame; odd.")
    hidden: Count = Field(default=128, description="Width of the hidden layers of mlp, conv and gru.")
    dropout: Share = Field(default=0.1, description="Dropout of whole hidden channels.")
    class_weights: Literal["none", "balanced"] = Field(
        default="balanced",
        description="Weights in the loss; balanced: positives weigh as much as negatives in each group of outputs, and each "
        "class as much as any other.",
    )

    rates: Annotated[tuple[Rate, ...], Field(min_length=1, strict=False)] = Field(
        default=(3e-4, 1e-3, 3e-3), description="Learning rates to try; the validation set selects one."
    )
    decays: Annotated[tuple[Decay, ...], Field(min_length=1, strict=False)] = Field(
        default=(0.01,), description="Weight decays of AdamW to try; the validation set selects one."
    )
    batch: Count = Field(default=8, description="Segments in a batch.")
    segment_s: Positive = Field(default=4.0, description="Length of a segment in seconds.")
    epochs: Count = Field(default=60, description="Maximum number of epochs.")
    patience: Annotated[int, Field(ge=0)] = Field(
        default=8, description="Epochs without improvement after which training stops; 0: always train all epochs."
    )

    split: str = Field(
        default=DEFAULT_SPLIT,
        description="Split into training, validation and test set: random, by:COLUMN or column:COLUMN.",
    )
    hold_out: str | None = Field(
        default=None, description="Column, such as timbre: some of its groups are in the test set only, others in the "
        "validation set only.",
    )
    shares: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        default=SHARES, description="Shares of the training, validation and test set."
    )
    split_seed: int = Field(default=0, description="Random seed of the split.")
    seeds: Count = Field(default=1, description="Number of runs, which differ in initial weights and dropout.")

    device: str = Field(default="auto", description="Device: auto, cpu, cuda, cuda:1 or mps.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="Precision of matrix products; auto: bfloat16 where the processor has it."
    )

    def __post_init__(self) -> None:
        check_shares(self.shares)
        if self.lowest > self.highest:
            raise InputError(f"pitches {self.lowest} to {self.highest}: the range is empty. Give --lowest below --highest")
        if self.context % 2 == 0:
            raise InputError(f"context {self.context}: is even, so it has no centre. Give an odd number of frames")
        if self.split.startswith("folds"):
            raise InputError(f"--split {self.split}: frame probes have one test set. Give random, by:COLUMN or column:COLUMN")
        if len(self.settings) * self.seeds > MOST_FITS:
            raise InputError(f"settings: more than {MOST_FITS:,} fits a layer. Give fewer rates or seeds")

    @property
    def settings(self) -> list[Setting]:
        """Return every combination of learning rate and weight decay."""
        return [Setting(rate, decay) for decay in dict.fromkeys(self.decays) for rate in dict.fromkeys(self.rates)]

    def with_(self, **changes: Any) -> FrameProbeConfig:
        """Return a copy with `changes` applied; None keeps a setting."""
        return replace(self, **{key: value for key, value in changes.items() if value is not None})
