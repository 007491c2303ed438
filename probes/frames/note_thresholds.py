"""Thresholds of note assembly, chosen on validation clips by the mean onset F1 (50 ms, with pitch).

Onset and frame thresholds are searched together for each shortest length and separation; of thresholds whose mean F1 is within
0.002 of the best, the one with the best F1 of frames.  Gaps, another frame threshold for the length of notes, offsets and the
refinement of times are used only where they were measured to be better on the same clips: refinement by the median absolute
error of matched onsets, the others by onset+offset F1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from tonelake.evaluate import MatchedNotes, match_notes, merge_unisons
from tonelake.probes.frames.decode_settings import DecodeSettings
from tonelake.probes.frames.note_decoding import decode_notes, note_peaks
from tonelake.probes.frames.peaks import median_period
from tonelake.probes.frames.targets import frame_targets
from tonelake.probes.frames.tasks import FrameTask
from tonelake.probes.frames.threshold_search import (
    LIMIT,
    SAME_F1,
    STEP,
    Axes,
    ClipPeaks,
    Optimum,
    grid_f1,
    logit,
    mean_f1,
    search,
    search_line,
    sigmoid,
)

ONSET_S = 0.05
SHORTEST = (0.0, 0.03, 0.06)             # seconds
LEAST_SEPARATION_S = 0.03                # doubled as long as that is better
SHORTEST_GAP_S = 0.03                    # doubled as long as that is better
LONGEST_S = 0.25                         # of a separation or shortest length
MOST_CLIPS = 400                         # evenly spaced, for the thresholds
MOST_DECODED = 24                        # for gaps, offsets and refinement, which are decoded many times
BETTER_ERROR = 0.95                      # refined times must have at most this share of the median error
FINE = 0.05                              # logits; bins of the histogram of frame probabilities

DecodedClip = tuple[np.ndarray, np.ndarray, pl.DataFrame, float]       # probabilities, frame_s, reference, duration_s


def evenly_spaced(clips: Sequence[DecodedClip], most: int) -> list[int]:
    """Return the numbers of at most `most` clips, spread over all."""
    return np.unique(np.linspace(0, len(clips) - 1, min(most, len(clips))).round().astype(int)).tolist() if len(clips) else []


def choose_notes(task: FrameTask, clips: Sequence[DecodedClip]) -> DecodeSettings:
    """Return the settings with the best mean onset F1 over clips (probabilities, frame_s, reference events, duration_s)."""
    chosen = evenly_spaced(clips, MOST_CLIPS)
    histograms = [FrameHistogram(task, *clips[number][:3]) for number in chosen]
    optima: dict[tuple[float, float], Optimum] = {}

    def find(choice: tuple[float, float]) -> None:
        found = [peaks_of_clip(task, *clips[number][:3], *choice) for number in chosen]

        def evaluate(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
            scores = mean_f1([grid_f1(clip, axes, ONSET_S) for clip in found])
            frames = mean_f1([histogram.f1(axes.support) for histogram in histograms])
            return scores, np.broadcast_to(frames, scores.shape)

        optima[choice] = search(evaluate)

    pending = [(LEAST_SEPARATION_S, shortest) for shortest in SHORTEST]
    while pending:
        for choice in pending:
            find(choice)
        separation, shortest = best_choice(optima)
        # While the best is the largest that was tried, the next larger one is tried as well.
        further = [(min(2 * separation, LONGEST_S), shortest), (separation, min(2 * shortest, LONGEST_S))]
        at_end = [separation == max(one for one, _ in optima), shortest == max(one for _, one in optima)]
        pending = [choice for choice, end in zip(further, at_end, strict=True) if end and choice not in optima]
    best = optima[separation, shortest]
    settings = DecodeSettings(
        onset_threshold=best.onset, frame_threshold=best.support, separation_s=separation, shortest_s=shortest
    )
    return with_measured_options(task, [clips[number] for number in evenly_spaced(clips, MOST_DECODED)], settings)


def best_choice(optima: dict[tuple[float, float], Optimum]) -> tuple[float, float]:
    """Return the separation and shortest length with the best score; of equally good ones, the least separation."""
    top = max(optimum.score for optimum in optima.values())
    near = [choice for choice, optimum in optima.items() if not optimum.score < top - SAME_F1]
    return max(near, key=lambda choice: (-choice[0], optima[choice].second, -choice[1]))


def peaks_of_clip(
    task: FrameTask, probabilities: np.ndarray, frame_s: np.ndarray, reference: pl.DataFrame, separation_s: float,
    shortest_s: float,
) -> ClipPeaks:
    """Return the onset peaks of one clip and the onsets to find."""
    onsets, frames = (np.asarray(probabilities[:, task.groups[name]], np.float32) for name in ("onset", "frame"))
    peaks = note_peaks(onsets, frames, frame_s, separation_s=separation_s, shortest_s=shortest_s)
    notes = merge_unisons(reference.filter(pl.col("kind") == "note"))
    wanted, held = notes.filter(pl.col("begins")), notes.filter(~pl.col("begins"))
    time_s, number = np.asarray(frame_s, np.float64)[peaks.frame], peaks.pitch + task.pitches.start
    return ClipPeaks(
        time_s=time_s, pitch=number, onset=peaks.onset, support=peaks.support, wanted_s=wanted["start_s"].to_numpy(),
        wanted_pitch=wanted["pitch"].to_numpy().round().astype(np.int64),
        excused=(time_s <= ONSET_S) & np.isin(number, held["pitch"].to_numpy().round().astype(np.int64)),
    )


class FrameHistogram:
    """Counts of frame probabilities of one clip, for the F1 of frames at any threshold."""

    def __init__(self, task: FrameTask, probabilities: np.ndarray, frame_s: np.ndarray, reference: pl.DataFrame) -> None:
        group = task.groups["frame"]
        wanted = frame_targets(task, reference, frame_s, period_s=median_period(frame_s))[:, group] > 0
        bins = np.clip(((logit(probabilities[:, group]) + LIMIT) / FINE).astype(np.int64), 0, int(2 * LIMIT / FINE))
        size = int(2 * LIMIT / FINE) + 1
        self.positive = np.bincount(bins[wanted], minlength=size)[::-1].cumsum()[::-1]
        self.all = np.bincount(bins.ravel(), minlength=size)[::-1].cumsum()[::-1]

    def f1(self, thresholds: np.ndarray) -> np.ndarray:
        """Return (threshold,) F1 at thresholds given as logits."""
        at = np.clip(((thresholds + LIMIT) / FINE).round().astype(np.int64), 0, len(self.all) - 1)
        with np.errstate(invalid="ignore"):
            return 2 * self.positive[at] / (self.all[at] + self.positive[0])


def with_measured_options(task: FrameTask, clips: Sequence[DecodedClip], settings: DecodeSettings) -> DecodeSettings:
    """Return the settings with offsets and refined times where they are better on these clips."""
    def matched_with(candidate: DecodeSettings) -> list[MatchedNotes]:
        return [match_notes(notes_of(clip[2]), decode_notes(task, clip[0], clip[1], candidate)) for clip in clips]

    chosen, score, gap = settings, offset_f1(matched_with(settings)), SHORTEST_GAP_S
    while gap <= max(2 * chosen.gap_s, 2 * SHORTEST_GAP_S) and gap <= 2 * LONGEST_S:
        candidate = replace(settings, gap_s=gap)
        reached = offset_f1(matched_with(candidate))
        if reached > score + SAME_F1:
            chosen, score = candidate, reached
        gap *= 2
    base, support = chosen, settings.frame_threshold

    def with_frames(threshold: float) -> float:
        return offset_f1(matched_with(with_frame_threshold(base, float(sigmoid(threshold)), support)))

    around = float(logit(support)) + STEP * np.arange(-2, 3)
    value, reached = search_line(with_frames, around, (-LIMIT, LIMIT))
    if reached > score + SAME_F1:
        base = chosen = with_frame_threshold(base, float(sigmoid(value)), support)
        score = reached

    def with_offsets(threshold: float) -> float:
        return offset_f1(matched_with(replace(base, offset_threshold=float(sigmoid(threshold)))))

    if not any(clip[0][:, task.groups["offset"]].any() for clip in clips):       # a model without offsets
        return refined_if_better(matched_with, base)
    value, reached = search_line(with_offsets, np.linspace(logit(0.02), logit(0.95), 7), (-LIMIT, LIMIT))
    if reached > score + SAME_F1:
        chosen = replace(base, offset_threshold=float(sigmoid(value)))
    return refined_if_better(matched_with, chosen)


def with_frame_threshold(settings: DecodeSettings, threshold: float, support: float) -> DecodeSettings:
    """Return the settings with another threshold for the length of notes; which onsets are notes stays as it is."""
    return replace(settings, frame_threshold=threshold, support_threshold=support)


def refined_if_better(matched_with: Callable[[DecodeSettings], list[MatchedNotes]], settings: DecodeSettings) -> DecodeSettings:
    """Return the settings with refined times if these are clearly nearer to the reference."""
    refined = replace(settings, refine=True)
    plain, again = matched_with(settings), matched_with(refined)
    better = is_refinement_better((onset_f1(plain), all_errors(plain)), (onset_f1(again), all_errors(again)))
    return refined if better else settings


def notes_of(reference: pl.DataFrame) -> pl.DataFrame:
    return reference.filter(pl.col("kind") == "note")


def offset_f1(matched: Sequence[MatchedNotes]) -> float:
    return mean_defined([2 * len(one.complete) / max(len(one.reference) + len(one.estimate), 1) for one in matched])


def onset_f1(matched: Sequence[MatchedNotes]) -> float:
    return mean_defined([2 * len(one.pairs) / max(len(one.reference) + len(one.estimate), 1) for one in matched])


def mean_defined(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def all_errors(matched: Sequence[MatchedNotes]) -> np.ndarray:
    """Return the absolute errors of all matched onsets in seconds, without their common shift."""
    return without_shift([
        one.estimate["start_s"].to_numpy()[one.pairs[:, 1]] - one.reference["start_s"].to_numpy()[one.pairs[:, 0]]
        for one in matched
    ])


def without_shift(errors: Sequence[np.ndarray]) -> np.ndarray:
    """Return absolute differences from the median error, over all clips."""
    together = np.concatenate(errors) if errors else np.empty(0)
    return np.abs(together - np.median(together)) if len(together) else together


def is_refinement_better(plain: tuple[float, np.ndarray], refined: tuple[float, np.ndarray]) -> bool:
    """Whether refined times have a clearly smaller median error, and no lower F1.  Arguments: (F1, absolute errors)."""
    if not len(plain[1]) or not len(refined[1]) or refined[0] < plain[0] - SAME_F1:
        return False
    return bool(np.median(refined[1]) < BETTER_ERROR * np.median(plain[1]))
