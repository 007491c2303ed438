"""Probabilities at frames to events, and the choice of how on validation clips.

`decode` is used with the settings that `choose_decoding` returns: thresholds for notes, onsets and beats, a decoder for beats,
transitions for chords and keys.  See `note_decoding`, `beat_decoding` and `transitions` for the methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import log

import numpy as np
import polars as pl

from tonelake.evaluate import beat_times, key_scores, onset_times, score_events
from tonelake.probes.frames.beat_decoding import beat_decoders, decode_beats, decode_onsets
from tonelake.probes.frames.decode_settings import Decoder, DecodeSettings
from tonelake.probes.frames.note_decoding import decode_notes
from tonelake.probes.frames.note_thresholds import (
    LEAST_SEPARATION_S,
    LONGEST_S,
    MOST_CLIPS,
    MOST_DECODED,
    DecodedClip,
    choose_notes,
    evenly_spaced,
    is_refinement_better,
    without_shift,
)
from tonelake.probes.frames.peaks import frames_within, local_maxima, median_period
from tonelake.probes.frames.targets import frame_targets
from tonelake.probes.frames.tasks import FrameTask
from tonelake.probes.frames.threshold_search import SAME_F1, Axes, ClipPeaks, Optimum, grid_f1, mean_f1, search, search_line
from tonelake.probes.frames.transitions import decode_classes, learn_changes, transition_matrix, viterbi
from tonelake.store import InputError

DECODERS = {
    "notes": decode_notes, "onsets": decode_onsets, "beats": decode_beats, "chords": decode_classes, "key": decode_classes,
}
ONSET_S, BEAT_S = 0.05, 0.07             # tolerances of scores
TIGHTNESS = (25.0, 50.0, 100.0, 200.0, 400.0)
Column = tuple[np.ndarray, np.ndarray, np.ndarray]          # (frame,) probabilities and centres, (time,) reference
STAYS_S = tuple(0.125 * 2.0**n for n in range(7))        # 0.125 to 8 seconds


def decode(task: FrameTask, probabilities: np.ndarray, frame_s: np.ndarray, settings: DecodeSettings) -> pl.DataFrame:
    """Return the events of one clip: kind, start_s, end_s (seconds from the clip's start), value, pitch, velocity.

    `probabilities`: (frame, output) of `task.outputs`; `frame_s`: (frame,) centres of the frames.  Velocities are null.
    Raises InputError if the shapes do not match.
    """
    wanted = (len(frame_s), len(task.outputs))
    if np.shape(probabilities) != wanted:
        raise InputError(
            f"probabilities of {task.name}: have shape {np.shape(probabilities)} instead of {wanted}. Give a row for each "
            "frame and a column for each output"
        )
    if not len(frame_s):
        probabilities, frame_s = np.zeros((1, len(task.outputs))), np.zeros(1)
        return DECODERS[task.name](task, probabilities, frame_s, settings).clear()
    return DECODERS[task.name](task, probabilities, frame_s, settings)


def choose_decoding(
    task: FrameTask, clips: Sequence[DecodedClip], *, training: Sequence[pl.DataFrame] = (),
    decoders: Sequence[Decoder] | None = None,
) -> DecodeSettings:
    """Return the settings that score best on validation clips; the defaults without clips.

    `clips`: (probabilities, frame_s, reference events, duration_s) of each.  `training`: events of training clips, from which
    transitions of chords and keys are learned; used if they score better.  `decoders`: decoders of beats to choose from;
    default: all that are installed.  Scores are means over clips: onset F1 of notes, F1 of onsets and beats, share of frames
    with the right chord, key score.
    """
    if not len(clips):
        return DecodeSettings()
    if task.name == "notes":
        return choose_notes(task, clips)
    if task.name == "onsets":
        return choose_onsets(task, clips)
    if task.name == "beats":
        return choose_beats(task, clips, beat_decoders() if decoders is None else decoders)
    return choose_transitions(task, clips, training)


def choose_separation(columns: Sequence[Column], window_s: float) -> tuple[float, Optimum]:
    """Return the best separation of peaks and its best threshold; of equally good separations, the least."""
    optima = {LEAST_SEPARATION_S: choose_threshold(columns, window_s, LEAST_SEPARATION_S)}
    while True:
        top = max(optimum.score for optimum in optima.values())
        best = min(one for one, optimum in optima.items() if not optimum.score < top - SAME_F1)
        longer = min(2 * best, LONGEST_S)
        if longer in optima or best < max(optima):
            return best, optima[best]
        optima[longer] = choose_threshold(columns, window_s, longer)


def choose_threshold(columns: Sequence[Column], window_s: float, separation_s: float) -> Optimum:
    """Return the best threshold of the peaks of clips."""
    found = []
    for p, frame_s, wanted in columns:
        peaks = np.flatnonzero(local_maxima(p[:, None], frames_within(separation_s, median_period(frame_s)))[:, 0])
        none = np.zeros(len(peaks), np.int64)
        found.append(ClipPeaks(
            time_s=np.asarray(frame_s, np.float64)[peaks], pitch=none, onset=np.asarray(p, np.float32)[peaks],
            support=np.ones(len(peaks), np.float32), wanted_s=wanted, wanted_pitch=np.zeros(len(wanted), np.int64),
            excused=np.zeros(len(peaks), bool),
        ))

    def evaluate(axes: Axes) -> tuple[np.ndarray, np.ndarray]:
        scores = mean_f1([grid_f1(clip, axes, window_s) for clip in found])
        return scores, np.zeros(scores.shape)

    return search(evaluate, supports=False)


def choose_onsets(task: FrameTask, clips: Sequence[DecodedClip]) -> DecodeSettings:
    """Return the threshold and separation of onsets with the best mean F1."""
    chosen = [clips[number] for number in evenly_spaced(clips, MOST_CLIPS)]
    columns = [(clip[0][:, 0], clip[1], onset_times(clip[2])) for clip in chosen]
    separation, optimum = choose_separation(columns, ONSET_S)
    settings = DecodeSettings(onset_threshold=optimum.onset, separation_s=separation)
    return refined_if_better(task, chosen[:MOST_DECODED], settings)


def choose_beats(task: FrameTask, clips: Sequence[DecodedClip], decoders: Sequence[Decoder]) -> DecodeSettings:
    """Return the decoder with the best mean F1 of beats; of decoders that are equally good, the first of `decoders`."""
    chosen = [clips[number] for number in evenly_spaced(clips, MOST_CLIPS)]
    few = [clips[number] for number in evenly_spaced(clips, MOST_DECODED)]
    beat, downbeat = (task.groups[name].start for name in ("beat", "downbeat"))
    candidates = []
    for decoder in decoders:
        settings = DecodeSettings(decoder=decoder)
        if decoder == "peaks":
            columns = [(clip[0][:, beat], clip[1], beat_times(clip[2])) for clip in chosen]
            first = [
                (clip[0][:, downbeat], clip[1], beat_times(clip[2].filter(pl.col("kind") == "downbeat"))) for clip in chosen
            ]
            separation, optimum = choose_separation(columns, BEAT_S)
            settings = replace(
                settings, onset_threshold=optimum.onset, separation_s=separation,
                downbeat_threshold=choose_threshold(first, BEAT_S, separation).onset,
            )
            settings = refined_if_better(task, few, settings)
        elif decoder == "dp":
            def with_tightness(value: float, settings: DecodeSettings = settings) -> float:
                return mean_score(task, few, replace(settings, tightness=float(np.exp(value))))

            value, _ = search_line(with_tightness, np.log(TIGHTNESS), (log(1.0), log(5000.0)))
            settings = replace(settings, tightness=float(np.exp(value)))
        candidates.append((mean_score(task, few, settings), settings))
    top = max(score for score, _ in candidates)
    return next(settings for score, settings in candidates if score >= top - SAME_F1)


def mean_score(task: FrameTask, clips: Sequence[DecodedClip], settings: DecodeSettings) -> float:
    """Return the mean F1 of onsets or beats over the clips for which it is defined; 0 if there are none."""
    scores = [
        score_events(task.name, reference, decode(task, p, frame_s, settings), duration)["f1"]
        for p, frame_s, reference, duration in clips
    ]
    known = [score for score in scores if np.isfinite(score)]
    return float(np.mean(known)) if known else 0.0


def refined_if_better(task: FrameTask, clips: Sequence[DecodedClip], settings: DecodeSettings) -> DecodeSettings:
    """Return the settings with refined times if these have clearly smaller errors."""
    times_of = beat_times if task.name == "beats" else onset_times
    window = BEAT_S if task.name == "beats" else ONSET_S
    found = []
    for candidate in (settings, replace(settings, refine=True)):
        errors = []
        for p, frame_s, reference, _ in clips:
            wanted, had = times_of(reference), times_of(decode(task, p, frame_s, candidate))
            if len(wanted) and len(had):
                nearest = had[np.abs(had[None, :] - wanted[:, None]).argmin(axis=1)] - wanted
                errors.append(nearest[np.abs(nearest) <= window])
        found.append((mean_score(task, clips, candidate), without_shift(errors)))
    return replace(settings, refine=True) if is_refinement_better(*found) else settings


def choose_transitions(task: FrameTask, clips: Sequence[DecodedClip], training: Sequence[pl.DataFrame]) -> DecodeSettings:
    """Return the expected stay, with fixed or learned changes, with the best mean score of labelled frames."""
    learned = learn_changes(task, training)
    options = [(), learned] if learned else [()]
    prepared = []
    for number in evenly_spaced(clips, MOST_DECODED):
        p, frame_s, reference, _ = clips[number]
        target = frame_targets(task, reference, frame_s, period_s=median_period(frame_s))
        if (target >= 0).any():
            prepared.append((np.asarray(p, np.float32), median_period(frame_s), target))
    if not prepared:
        return DecodeSettings()
    points = key_scores(task.outputs) if task.name == "key" else np.eye(len(task.outputs))
    assert points is not None

    def score(changes: Sequence[float], log_stay: float) -> float:
        values = []
        for p, period, target in prepared:
            path = viterbi(p, transition_matrix(len(task.outputs), 2.0**log_stay, period, changes))
            values.append(points[target, path][target >= 0].mean())
        return float(np.mean(values))

    best: tuple[float, DecodeSettings] | None = None
    for changes in options:
        value, reached = search_line(partial(score, changes), np.log2(STAYS_S), (-6.0, 14.0))
        if best is None or reached > best[0] + SAME_F1:
            best = reached, DecodeSettings(stay_s=2.0**value, changes=changes)
    assert best is not None
    return best[1]
