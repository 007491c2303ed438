"""Settings that turn probabilities at frames into events, as stored with a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tonelake.store import NonNegative, Positive, Settings, frozen_settings

Threshold = Annotated[float, Field(ge=0, le=1)]
Decoder = Literal["dbn", "dp", "peaks"]
Beats = Annotated[int, Field(ge=2, le=16)]


@frozen_settings
class DecodeSettings(Settings):
    """How probabilities become events.  `choose_decoding` chooses them on validation clips."""

    onset_threshold: Threshold = Field(default=0.5, description="Least probability of an onset, or of a beat by peaks.")
    frame_threshold: Threshold = Field(default=0.5, description="Least probability of a frame that belongs to a note.")
    support_threshold: Threshold | None = Field(
        default=None, description="Least probability of the first frames of a note; default: frame_threshold.",
    )
    offset_threshold: Threshold | None = Field(
        default=None, description="Least probability of an offset that ends a note; default: frames alone end it.",
    )
    shortest_s: NonNegative = Field(
        default=0.03, description="Seconds that a note's first frames must stay above their threshold; 0: an onset is enough.",
    )
    gap_s: NonNegative = Field(default=0.0, description="Seconds for which a note's frames may be below their threshold.")
    separation_s: Positive = Field(default=0.03, description="Seconds to both sides in which an onset or beat is the maximum.")
    refine: bool = Field(default=False, description="Move times between frames by a parabola through the peak.")

    decoder: Decoder = Field(
        default="peaks",
        description="Decoder of beats. dbn: bar-pointer model, by madmom-infer; dp: dynamic programming, by librosa; peaks: "
        "peaks above onset_threshold.",
    )
    downbeat_threshold: Threshold = Field(default=0.5, description="Least probability of a downbeat by peaks.")
    tightness: Positive = Field(default=100.0, description="Weight of a steady tempo in dp.")
    lowest_bpm: Positive = Field(default=55.0, description="Slowest tempo of dbn.")
    highest_bpm: Positive = Field(default=215.0, description="Fastest tempo of dbn.")
    beats_per_bar: Annotated[tuple[Beats, ...], Field(min_length=1, strict=False)] = Field(
        default=(3, 4), description="Numbers of beats that a bar can have, in dbn and dp.",
    )

    stay_s: Positive = Field(default=1.0, description="Expected seconds between changes of chord or key.")
    changes: Annotated[tuple[NonNegative, ...], Field(strict=False)] = Field(
        default=(), description="Learned probabilities of changes by mode and interval; default: all are equally probable.",
    )
