"""Scores of notes: onsets with pitch, offsets, and what sounds at each moment.

    onset         an estimated note is right if a reference note of its pitch (within 50 cents) begins within 50 ms of it
    onset+offset  and ends within 50 ms, or within 20 % of the reference note's length if that is more
    frame         pitches that sound at moments 10 ms apart, counted over all of a clip's moments; for whole pitches these are
                  the counts of mir_eval.multipitch
    triad recall  share of beats with a triad (major, minor, diminished or augmented) in the middle of which the estimate has
                  all three pitch classes; triad class recall is the share of the three that it has.  Needs reference beats

Each reference note is matched with at most one estimated note, by the largest possible matching (mir_eval.transcription; Bay,
Ehmann and Downie 2009, ISMIR).  Unisons are merged in the reference (`merge_unisons`).  A note held over from before the clip
(`begins` false) has no onset to find: it counts in frames alone, and an estimated note of its pitch within the first 50 ms is
neither right nor wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from tonelake.evaluate.unisons import merge_unisons

ONSET_S = 0.05
OFFSET_RATIO = 0.2
FRAME_S = 0.01
NO_LENGTH_S = 1e-6                       # given to notes of no length, which mir_eval refuses
TRIADS = ((0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 8))


class MatchedNotes(NamedTuple):
    """Notes of one clip and which of them belong together."""

    reference: pl.DataFrame              # notes to find: merged, without those held over from before the clip
    estimate: pl.DataFrame               # estimated notes, without those at the beginning of a held note
    pairs: np.ndarray                    # (match, 2) rows of reference and estimate: onset and pitch agree
    complete: np.ndarray                 # (match, 2) likewise, offsets agree as well


def match_notes(reference: pl.DataFrame, estimate: pl.DataFrame) -> MatchedNotes:
    """Match the notes of one clip.  Both have start_s, end_s and pitch; the reference optionally begins and ends."""
    merged = merge_unisons(reference)
    held = merged.filter(~pl.col("begins"))
    sought, found = merged.filter(pl.col("begins")), estimate.sort("start_s", "pitch", maintain_order=True)
    pairs = best_matching(sought, found, offsets=False)
    complete = best_matching(sought, found, offsets=True)
    early = np.flatnonzero(found["start_s"].to_numpy() <= ONSET_S)
    if len(held) and len(early):
        near = np.abs(found["pitch"].to_numpy()[early, None] - held["pitch"].to_numpy()[None, :]) <= 0.5
        excused = np.setdiff1d(early[near.any(axis=1)], np.concatenate([pairs[:, 1], complete[:, 1]]))
        kept = np.setdiff1d(np.arange(len(found)), excused)
        number = np.full(len(found), -1)
        number[kept] = np.arange(len(kept))
        found = found[kept]
        pairs, complete = (np.stack([each[:, 0], number[each[:, 1]]], axis=1) for each in (pairs, complete))
    return MatchedNotes(sought, found, pairs, complete)


def best_matching(reference: pl.DataFrame, estimate: pl.DataFrame, *, offsets: bool) -> np.ndarray:
    """Return (match, 2) rows of reference and estimate, sorted: a largest matching of notes that agree.

    Whole pitches are matched pitch by pitch, so that the matrices of distances stay small.
    """
    from mir_eval.transcription import match_notes as match
    from mir_eval.util import midi_to_hz

    spans = [table.select("start_s", "end_s").to_numpy().astype(np.float64).reshape(-1, 2) for table in (reference, estimate)]
    for each in spans:
        each[:, 1] = np.maximum(each[:, 1], each[:, 0] + NO_LENGTH_S)
    pitches = [table["pitch"].to_numpy().astype(np.float64) for table in (reference, estimate)]
    whole = all((each == np.round(each)).all() for each in pitches)
    pairs: list[tuple[int, int]] = []
    for pitch in np.intersect1d(pitches[0], pitches[1]) if whole else [None]:
        rows = [np.arange(len(each)) if pitch is None else np.flatnonzero(each == pitch) for each in pitches]
        if not all(map(len, rows)):
            continue
        found = match(
            spans[0][rows[0]], midi_to_hz(pitches[0][rows[0]]), spans[1][rows[1]], midi_to_hz(pitches[1][rows[1]]),
            onset_tolerance=ONSET_S, offset_ratio=OFFSET_RATIO if offsets else None, offset_min_tolerance=ONSET_S,
        )
        pairs += [(int(rows[0][a]), int(rows[1][b])) for a, b in found]
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def note_scores(reference: pl.DataFrame, estimate: pl.DataFrame, duration_s: float) -> dict[str, float]:
    """Return the scores and counts of one clip; NaN where a score is undefined.

    `reference` and `estimate` have kind, start_s, end_s and pitch; beats in the reference give triad recalls.  Errors are
    estimated minus reference onsets of matched notes: median_error_s shows a shift, median_absolute_error_s the spread.
    """
    notes, found = (table.filter(pl.col("kind") == "note") for table in (reference, estimate))
    matched = match_notes(notes, found)
    counts = {
        "matched": len(matched.pairs), "matched_offsets": len(matched.complete),
        "reference": len(matched.reference), "estimated": len(matched.estimate),
    }
    error = onset_errors(matched)
    scores = {
        **rates("onset", counts["matched"], counts["reference"], counts["estimated"]),
        **rates("onset_offset", counts["matched_offsets"], counts["reference"], counts["estimated"]),
        "median_error_s": float(np.median(error)) if len(error) else np.nan,
        "median_absolute_error_s": float(np.median(np.abs(error))) if len(error) else np.nan,
    }
    played, sounding = (piano_roll(table, duration_s) for table in (notes, found))
    frames = {
        "frames_matched": int((played & sounding).sum()), "frames_reference": int(played.sum()),
        "frames_estimated": int(sounding.sum()),
    }
    scores |= rates("frame", *frames.values())
    beats = beat_times(reference)
    if len(beats) > 1:
        scores["triad_recall"], scores["triad_class_recall"] = triad_recalls(notes, found, beats)
    return {**scores, **{name: float(count) for name, count in {**counts, **frames}.items()}}


def rates(name: str, matched: int, reference: int, estimated: int) -> dict[str, float]:
    """Return F1, precision and recall; NaN where the denominator is zero, so F1 only where there is nothing on either side."""
    def share(part: float, whole: float) -> float:
        return part / whole if whole else np.nan

    return {
        f"{name}_f1": share(2 * matched, reference + estimated), f"{name}_precision": share(matched, estimated),
        f"{name}_recall": share(matched, reference),
    }


def onset_errors(matched: MatchedNotes) -> np.ndarray:
    """Return (match,) estimated minus reference onsets in seconds."""
    rows, found = matched.pairs.T
    return matched.estimate["start_s"].to_numpy()[found] - matched.reference["start_s"].to_numpy()[rows]


def piano_roll(notes: pl.DataFrame, duration_s: float) -> np.ndarray:
    """Return (moment, pitch) bool: what sounds at 0, 10, 20, … ms up to the clip's end.  Pitches are rounded to semitones."""
    def moment(times: np.ndarray | float) -> np.ndarray:
        """Number of the first moment at or after each time."""
        return np.ceil(np.asarray(times, np.float64) / FRAME_S - 1e-6).astype(np.int64)

    count = int(moment(duration_s))
    change = np.zeros((count + 1, 128), np.int16)
    first, last = (np.clip(moment(notes[name].to_numpy()), 0, count) for name in ("start_s", "end_s"))
    pitch = np.clip(notes["pitch"].to_numpy().round(), 0, 127).astype(int)
    np.add.at(change, (first, pitch), 1)
    np.add.at(change, (np.maximum(first, last), pitch), -1)
    return np.cumsum(change, axis=0, dtype=np.int16, out=change)[:-1] > 0


def beat_times(events: pl.DataFrame) -> np.ndarray:
    """Return the increasing times of beats, downbeats included; times within 1 ms of each other are one beat."""
    times = np.sort(events.filter(pl.col("kind").is_in(["beat", "downbeat"]))["start_s"].to_numpy())
    return times[np.diff(times, prepend=-np.inf) > 1e-3] if len(times) else times


def triad_recalls(reference: pl.DataFrame, estimate: pl.DataFrame, beats: np.ndarray) -> tuple[float, float]:
    """Return which shares of the reference's triads, at the middles of beats, and of their pitch classes the estimate has.

    NaN without a triad.
    """
    middles = (beats[1:] + beats[:-1]) / 2
    sought = [frozenset(classes) for classes in sounding_classes(reference, middles)]
    known = {frozenset((root + step) % 12 for step in triad) for triad in TRIADS for root in range(12)}
    common = [
        len(wanted & had) for wanted, had in zip(sought, sounding_classes(estimate, middles), strict=True) if wanted in known
    ]
    return (float(np.mean([found == 3 for found in common])), float(np.mean(common)) / 3) if common else (np.nan, np.nan)


def sounding_classes(notes: pl.DataFrame, times: np.ndarray) -> list[set[int]]:
    """Return the pitch classes that sound at each time."""
    start, end = notes["start_s"].to_numpy(), notes["end_s"].to_numpy()
    classes = notes["pitch"].to_numpy().round().astype(int) % 12
    return [set(classes[(start <= time) & (time < end)].tolist()) for time in times]


def octave_name(pitch: float) -> str:
    """Return the octave of a MIDI pitch, as a group of notes.

    >>> octave_name(60), octave_name(47.6), octave_name(21)
    ('C4 to B4', 'C3 to B3', 'C0 to B0')
    """
    octave = round(pitch) // 12 - 1
    return f"C{octave} to B{octave}"


def count_notes_by(matched: MatchedNotes, by: str) -> pl.DataFrame:
    """Return the matched, reference and estimated notes of one clip by group: group, matched, reference, estimated.

    `by`: "octave", or "value" (instrument, voice or stem of the reference; estimated is null).
    """
    def groups(notes: pl.DataFrame) -> pl.Series:
        return notes["pitch"].map_elements(octave_name, return_dtype=pl.String) if by == "octave" else notes["value"]

    hits = np.zeros(len(matched.reference), bool)
    hits[matched.pairs[:, 0]] = True
    table = pl.DataFrame({"group": groups(matched.reference), "hit": hits}).drop_nulls().group_by("group").agg(
        pl.col("hit").sum().cast(pl.Int64).alias("matched"), pl.len().cast(pl.Int64).alias("reference")
    )
    if by != "octave":
        return table.with_columns(pl.lit(None, pl.Int64).alias("estimated")).sort("group")
    found = groups(matched.estimate).value_counts(name="estimated").rename({"pitch": "group"})
    joined = table.join(found.cast({"estimated": pl.Int64}), on="group", how="full", coalesce=True)
    return joined.with_columns(pl.col("matched", "reference", "estimated").fill_null(0)).sort("group")
