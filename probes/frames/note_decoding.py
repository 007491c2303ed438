"""Note assembly as in Onsets and Frames (Hawthorne et al. 2018, arXiv 1710.11153), from probabilities of each pitch.

A note begins at a peak of its onset probability that reaches the onset threshold.  It lasts while its frame probability
reaches the frame threshold, except for gaps of at most `gap_s`; frames may rise up to LAG_S after the onset, because an encoder
shows an attack late.  The next onset of the pitch ends it, and so does an offset if there is an offset threshold.  An onset
whose frames do not stay up for the shortest length, above the support threshold if there is one, is not a note; if that length
is 0, an onset without frames is a note of one frame.

Times: an onset is at its frame's centre (or refined by a parabola), an end by frames half-way to the first frame below the
threshold, an end by offset at the offset's centre.  Velocity is null: heads do not learn it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.probes.frames.decode_settings import DecodeSettings
from tonelake.probes.frames.peaks import boundaries, frames_within, local_maxima, median_period, refined_times
from tonelake.probes.frames.tasks import FrameTask

LAG_S = 0.05
EVENT_SCHEMA = {
    "kind": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "value": pl.String, "pitch": pl.Float32,
    "velocity": pl.Int32,
}


@dataclass(frozen=True, kw_only=True)
class NotePeaks:
    """Onset peaks of one clip with what decides whether they are notes.  Peaks are sorted by pitch, then by time."""

    frame: np.ndarray                    # (peak,) int
    pitch: np.ndarray                    # (peak,) int: number of the output in its group
    onset: np.ndarray                    # (peak,) float32: onset probability
    support: np.ndarray                  # (peak,) float32: a note if the frame threshold is at most this


def note_peaks(
    onsets: np.ndarray, frames: np.ndarray, frame_s: np.ndarray, *, separation_s: float, shortest_s: float
) -> NotePeaks:
    """Return the onset peaks of (frame, pitch) probabilities."""
    period = median_period(frame_s)
    pitch, frame = np.nonzero(local_maxima(onsets, frames_within(separation_s, period)).T)
    held = held_minimum(frames, shortest_frames(shortest_s, period))
    support = np.ones(len(frame), np.float32) if shortest_s == 0 else np.zeros(len(frame), np.float32)
    if shortest_s > 0:
        for step in range(frames_within(LAG_S, period) + 1):
            inside = frame + step < len(held)
            support[inside] = np.maximum(support[inside], held[frame[inside] + step, pitch[inside]])
    return NotePeaks(frame=frame, pitch=pitch, onset=np.asarray(onsets, np.float32)[frame, pitch], support=support)


def shortest_frames(shortest_s: float, period_s: float) -> int:
    """Return the least number of frames of a note; at least 1."""
    return max(1, round(shortest_s / period_s))


def held_minimum(frames: np.ndarray, length: int) -> np.ndarray:
    """Return (frame, pitch) float32: the lowest probability of `length` frames from each one on, fewer at the end."""
    lowest = np.array(frames, np.float32)
    for step in range(1, min(length, len(lowest))):
        lowest[:-step] = np.minimum(lowest[:-step], frames[step:])
    return lowest


def decode_notes(task: FrameTask, probabilities: np.ndarray, frame_s: np.ndarray, settings: DecodeSettings) -> pl.DataFrame:
    """Return the notes of (frame, output) probabilities: kind, start_s, end_s, value, pitch, velocity."""
    p = np.asarray(probabilities, np.float32)
    onsets, frames, offsets = (p[:, task.groups[name]] for name in ("onset", "frame", "offset"))
    peaks = note_peaks(onsets, frames, frame_s, separation_s=settings.separation_s, shortest_s=settings.shortest_s)
    support = settings.frame_threshold if settings.support_threshold is None else settings.support_threshold
    kept = peaks.onset >= settings.onset_threshold
    if settings.shortest_s > 0:
        kept &= peaks.support >= support
    frame, pitch = peaks.frame[kept], peaks.pitch[kept]
    if not len(frame):
        return pl.DataFrame(schema=EVENT_SCHEMA)
    start = refined_times(onsets, frame_s, frame, pitch) if settings.refine else np.asarray(frame_s, np.float64)[frame]
    end = note_ends(frames, offsets, frame_s, frame, pitch, settings)
    again = np.flatnonzero(pitch[1:] == pitch[:-1])
    end[again] = np.minimum(end[again], start[again + 1])
    order = np.lexsort((pitch, start))
    return pl.DataFrame({
        "kind": ["note"] * len(frame), "start_s": start[order], "end_s": np.maximum(end, start)[order],
        "value": [None] * len(frame), "pitch": (pitch + task.pitches.start)[order], "velocity": [None] * len(frame),
    }, schema=EVENT_SCHEMA, strict=False)


def note_ends(
    frames: np.ndarray, offsets: np.ndarray, frame_s: np.ndarray, frame: np.ndarray, pitch: np.ndarray, settings: DecodeSettings
) -> np.ndarray:
    """Return (note,) ends in seconds of notes with an onset at `frame` and `pitch`, whatever notes follow."""
    period, count = median_period(frame_s), len(frames)
    length = shortest_frames(settings.shortest_s, period) if settings.support_threshold is None else 1
    sounding = held_minimum(frames, length) >= settings.frame_threshold
    rise = next_true(sounding)[frame, pitch]
    late = rise > frame + frames_within(LAG_S, period)
    rise = np.where(late, frame, rise)                       # no frames: the onset's own
    gap = frames_within(settings.gap_s, period) + 1
    below = next_true(-held_minimum(-frames, gap) < settings.frame_threshold)       # (frame + 1, pitch)
    last = np.maximum(below[np.minimum(rise, count), pitch], frame + 1)
    end = boundaries(frame_s)[np.minimum(last, count)]
    if settings.offset_threshold is not None:
        found = local_maxima(offsets, frames_within(settings.separation_s, period)) & (offsets >= settings.offset_threshold)
        ended = next_true(found)[np.minimum(frame + 1, count), pitch]
        centres = np.append(np.asarray(frame_s, np.float64), np.inf)
        end = np.minimum(end, centres[ended])
    return end


def next_true(found: np.ndarray) -> np.ndarray:
    """Return (frame + 1, output) int: the first frame from each one on where (frame, output) `found` holds.

    The number of frames where there is none.
    """
    count = len(found)
    numbers = np.full((count + 1, found.shape[1]), count, np.int32)
    np.copyto(numbers[:-1], np.arange(count, dtype=np.int32)[:, None], where=found)
    return np.minimum.accumulate(numbers[::-1], axis=0)[::-1]
