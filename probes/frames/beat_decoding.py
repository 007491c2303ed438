"""Beats and downbeats from their probabilities at frames, by one of three decoders that the settings name.

    peaks    local maxima that reach a threshold, downbeats likewise; no model of tempo
    dp       beats by dynamic programming (Ellis 2007; librosa.beat.beat_track) on the beat probability; the number of beats in
             a bar and the first downbeat are those under which downbeats have the highest downbeat probability
    dbn      a bar-pointer model with tempo and bar length as hidden states (Böck, Krebs and Widmer 2016), by the package
             madmom-infer of the extra `beats`: madmom itself cannot be installed on current versions of Python

A downbeat is returned twice, as a beat and as a downbeat.  `value` of a beat is its number in the bar, null by peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import polars as pl

from tonelake.embed import load_librosa
from tonelake.probes.frames.decode_settings import Decoder, DecodeSettings
from tonelake.probes.frames.note_decoding import EVENT_SCHEMA
from tonelake.probes.frames.peaks import frames_within, local_maxima, median_period, refined_times
from tonelake.probes.frames.tasks import FrameTask
from tonelake.store import explain_unwritable_cache, import_extra

DBN_HZ = 50.0                            # most frames a second of the dbn, whose time grows with their square
SHORTEST_S = 2.0                         # a tempo cannot be found in less


def beat_decoders() -> tuple[Decoder, ...]:
    """Return the names of the decoders that are installed."""
    return ("peaks", "dp", "dbn") if find_spec("madmom_infer") else ("peaks", "dp")


def decode_beats(task: FrameTask, probabilities: np.ndarray, frame_s: np.ndarray, settings: DecodeSettings) -> pl.DataFrame:
    """Return the beats and downbeats of (frame, output) probabilities: kind, start_s, end_s, value, pitch, velocity."""
    p = np.asarray(probabilities, np.float32)
    beat, downbeat = p[:, task.groups["beat"]][:, 0], p[:, task.groups["downbeat"]][:, 0]
    if settings.decoder == "peaks" or len(p) * median_period(frame_s) < SHORTEST_S:
        times = peak_times(beat, frame_s, settings.onset_threshold, settings)
        first = peak_times(downbeat, frame_s, settings.downbeat_threshold, settings)
        return beat_events(times, [None] * len(times), first)
    times, numbers = (by_dbn if settings.decoder == "dbn" else by_dp)(beat, downbeat, frame_s, settings)
    return beat_events(times, [str(number) for number in numbers], times[numbers == 1])


def decode_onsets(task: FrameTask, probabilities: np.ndarray, frame_s: np.ndarray, settings: DecodeSettings) -> pl.DataFrame:
    """Return the onsets of (frame, 1) probabilities: peaks that reach the onset threshold."""
    times = peak_times(np.asarray(probabilities, np.float32)[:, 0], frame_s, settings.onset_threshold, settings)
    return instants("onset", times, [None] * len(times))


def peak_times(p: np.ndarray, frame_s: np.ndarray, threshold: float, settings: DecodeSettings) -> np.ndarray:
    """Return the times of peaks of (frame,) probabilities that reach a threshold."""
    column = p[:, None]
    found = local_maxima(column, frames_within(settings.separation_s, median_period(frame_s))) & (column >= threshold)
    frames, outputs = np.nonzero(found)
    return refined_times(column, frame_s, frames, outputs) if settings.refine else np.asarray(frame_s, np.float64)[frames]


def beat_events(times: np.ndarray, numbers: Sequence[str | None], downbeats: np.ndarray) -> pl.DataFrame:
    found = pl.concat([instants("beat", times, numbers), instants("downbeat", downbeats, ["1"] * len(downbeats))])
    return found.sort("start_s", "kind", maintain_order=True)


def instants(kind: str, times: np.ndarray, values: Sequence[str | None]) -> pl.DataFrame:
    """Return events without length."""
    return pl.DataFrame({
        "kind": [kind] * len(times), "start_s": times, "end_s": times, "value": list(values), "pitch": [None] * len(times),
        "velocity": [None] * len(times),
    }, schema=EVENT_SCHEMA)


def regular(p: np.ndarray, frame_s: np.ndarray, period_s: float) -> tuple[np.ndarray, float]:
    """Return (step,) values on a regular grid, and the time of its first step.  No frame's value is lost between steps."""
    centres = np.asarray(frame_s, np.float64)
    start = float(centres[0])
    count = round(float(centres[-1] - start) / period_s) + 1
    grid = start + period_s * np.arange(count)
    values = np.interp(grid, centres, p)
    np.maximum.at(values, np.clip(np.round((centres - start) / period_s).astype(int), 0, count - 1), p)
    return values, start


def by_dp(
    beat: np.ndarray, downbeat: np.ndarray, frame_s: np.ndarray, settings: DecodeSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return (beat,) times and (beat,) int numbers in the bar."""
    period = median_period(frame_s)
    values, start = regular(beat, frame_s, period)
    if not values.any():
        return np.empty(0), np.empty(0, np.int64)
    with explain_unwritable_cache():
        _, frames = load_librosa().beat.beat_track(
            onset_envelope=values, sr=1 / period, hop_length=1, tightness=settings.tightness, trim=False
        )
    times = start + period * np.asarray(frames, np.float64)
    strength = nearby_maximum(downbeat, frame_s, times)
    return times, numbers_in_bar(strength, settings.beats_per_bar)


def nearby_maximum(p: np.ndarray, frame_s: np.ndarray, times: np.ndarray, reach_s: float = 0.07) -> np.ndarray:
    """Return (time,) the highest probability of the frames within `reach_s` of each time; 0 where there is none."""
    first, last = (np.searchsorted(frame_s, times + side, "left") for side in (-reach_s, reach_s))
    return np.array([p[a:b].max(initial=0.0) for a, b in zip(first, last, strict=True)])


def numbers_in_bar(strength: np.ndarray, beats_per_bar: tuple[int, ...]) -> np.ndarray:
    """Return (beat,) int numbers from 1: the bar length and first downbeat whose downbeats are strongest on average.

    `strength`: (beat,) downbeat probabilities.  Compared is the mean strength of downbeats less that of the other beats.
    """
    best, chosen = -np.inf, np.arange(len(strength)) % beats_per_bar[0]
    for beats in beats_per_bar:
        for phase in range(min(beats, len(strength))):
            numbers = (np.arange(len(strength)) - phase) % beats
            others = strength[numbers != 0]
            contrast = float(strength[numbers == 0].mean() - (others.mean() if len(others) else 0.0))
            if contrast > best + 1e-9:
                best, chosen = contrast, numbers
    return chosen + 1


def by_dbn(
    beat: np.ndarray, downbeat: np.ndarray, frame_s: np.ndarray, settings: DecodeSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return (beat,) times and (beat,) int numbers in the bar.  Raises MissingExtra if madmom-infer is not installed."""
    downbeats = import_extra("madmom_infer.features.downbeats", "beats", "the decoder dbn")
    period = max(median_period(frame_s), 1 / DBN_HZ)
    values, start = regular(beat, frame_s, period)
    first, _ = regular(downbeat, frame_s, period)
    first = np.clip(first, 1e-6, 1 - 1e-6)
    # The model's two classes exclude each other: a beat that is not a downbeat, and a downbeat.
    activations = np.stack([np.clip(values - first, 1e-6, 1 - 1e-6), first], axis=1)
    activations /= np.maximum(activations.sum(axis=1, keepdims=True) / (1 - 1e-6), 1)
    tracker = downbeats.DBNDownBeatTrackingProcessor(
        list(settings.beats_per_bar), min_bpm=settings.lowest_bpm, max_bpm=settings.highest_bpm, fps=1 / period
    )
    found = np.asarray(tracker(activations), np.float64).reshape(-1, 2)
    return strongest_frames(np.maximum(beat, downbeat), frame_s, start + found[:, 0], period), found[:, 1].astype(np.int64)


def strongest_frames(p: np.ndarray, frame_s: np.ndarray, times: np.ndarray, period_s: float) -> np.ndarray:
    """Return the centre of the frame with the highest probability within half a step of each time, else the time."""
    centres = np.asarray(frame_s, np.float64)
    first, last = (np.searchsorted(centres, times + side * period_s / 2) for side in (-1, 1))
    return np.array([
        centres[a + int(p[a:b].argmax())] if b > a else time for a, b, time in zip(first, last, times, strict=True)
    ])
