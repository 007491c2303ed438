"""Scores of the events of one clip against a reference, by mir_eval.

    notes     onset_f1, onset_offset_f1, frame_f1, each with precision and recall; median errors; triad_recall (`note_scores`)
    onsets    f1, precision, recall within 50 ms; median_error_s
    beats     f1 within 70 ms, cmlt and amlt (continuity; Hainsworth 2004), downbeat_f1.  The first five seconds count, which
              studies of whole recordings leave out, because clips are short.  Downbeats are beats as well
    chords    root and majmin: shares of the time whose chord has the right root, or is the right triad.  Time without a
              reference chord is left out, and for majmin time with a chord that has no major or minor triad (mir_eval.chord)
    key       key_score: MIREX's weighted score, weighted by time

A score is undefined (NaN), and the clip does not count in its mean, if there is nothing to find and nothing was found.  If only
the estimate or only the reference is empty, F1 is 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import polars as pl

from tonelake.evaluate.note_scores import ONSET_S, beat_times, note_scores, rates
from tonelake.evaluate.task_metrics import parse_key

BEAT_S = 0.07
EVENT_METRICS = {                        # the main score of each task, by which models are chosen
    "notes": "onset_f1", "onsets": "f1", "beats": "f1", "chords": "majmin", "key": "key_score",
}


def score_events(task: str, reference: pl.DataFrame, estimate: pl.DataFrame, duration_s: float) -> dict[str, float]:
    """Return the scores of one clip by name.

    `reference` and `estimate`: kind, start_s, end_s (seconds from the clip's start), value, pitch; other kinds than the task's
    are ignored.  The reference may have begins and ends (see `Events.of_clips`).  `duration_s`: length of the clip.
    """
    return SCORES[task](reference, estimate, duration_s)


def onset_scores(reference: pl.DataFrame, estimate: pl.DataFrame, duration_s: float) -> dict[str, float]:
    """Scores of onsets.  A reference without onsets has those of its notes."""
    sought, found = (onset_times(table) for table in (reference, estimate))
    return instant_scores(sought, found, ONSET_S, "")


def onset_times(events: pl.DataFrame) -> np.ndarray:
    """Return the increasing times of onsets: those that are given, else the beginnings of notes, each moment once."""
    onsets = events.filter(pl.col("kind") == "onset")
    if not len(onsets):
        onsets = events.filter(pl.col("kind") == "note")
        onsets = onsets.filter(pl.col("begins")) if "begins" in onsets.columns else onsets
    return np.unique(onsets["start_s"].to_numpy().astype(np.float64))


def instant_scores(sought: np.ndarray, found: np.ndarray, window_s: float, prefix: str) -> dict[str, float]:
    """Return F1, precision, recall, and median_error_s (estimate minus reference) of increasing times; counts as well."""
    from mir_eval.util import match_events

    pairs = np.array(match_events(sought, found, window_s), np.int64).reshape(-1, 2) if len(sought) and len(found) else (
        np.empty((0, 2), np.int64)
    )
    error = found[pairs[:, 1]] - sought[pairs[:, 0]]
    scores = {name.removeprefix("_"): value for name, value in rates(prefix, len(pairs), len(sought), len(found)).items()}
    named = f"{prefix}_" if prefix else ""
    return {
        **scores, f"{named}median_error_s": float(np.median(error)) if len(error) else np.nan,
        f"{named}matched": float(len(pairs)), f"{named}reference": float(len(sought)), f"{named}estimated": float(len(found)),
    }


def beat_scores(reference: pl.DataFrame, estimate: pl.DataFrame, duration_s: float) -> dict[str, float]:
    """Scores of beats and downbeats."""
    from mir_eval.beat import continuity

    sought, found = beat_times(reference), beat_times(estimate)
    scores = instant_scores(sought, found, BEAT_S, "")
    correct, any_level = np.nan, np.nan
    if len(sought) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                  # of fewer than two estimated beats: the scores are 0
            _, correct, _, any_level = continuity(sought, found)
    downbeats = [beat_times(table.filter(pl.col("kind") == "downbeat")) for table in (reference, estimate)]
    if len(downbeats[0]):                # a reference that names no downbeat says nothing about them
        scores["downbeat_f1"] = instant_scores(downbeats[0], downbeats[1], BEAT_S, "")["f1"]
    return {**scores, "cmlt": float(correct), "amlt": float(any_level)}


def chord_scores(reference: pl.DataFrame, estimate: pl.DataFrame, duration_s: float) -> dict[str, float]:
    """Scores of chords, weighted by time."""
    from mir_eval import chord

    spans = common_spans(labelled_spans(reference, "chord", duration_s), labelled_spans(estimate, "chord", duration_s))
    sought, found, seconds = [], [], []
    for start, end, wanted, had in spans:
        if wanted is not None:
            sought.append(valid_chord(wanted))
            found.append("N" if had is None else valid_chord(had))
            seconds.append(end - start)
    scores = {}
    for name in ("root", "majmin"):
        hits = getattr(chord, name)(sought, found) if sought else np.empty(0)
        known = hits >= 0
        weight = np.array(seconds)[known] if len(hits) else np.empty(0)
        scores[name] = float((hits[known] * weight).sum() / weight.sum()) if weight.sum() > 0 else np.nan
        scores[f"{name}_s"] = float(weight.sum())
    return scores


def valid_chord(label: str) -> str:
    """Return a chord label that mir_eval can read: X, which it leaves out, for other text."""
    from mir_eval.chord import InvalidChordException, encode

    try:
        encode(label)
    except InvalidChordException:
        return "X"
    return label


def key_time_scores(reference: pl.DataFrame, estimate: pl.DataFrame, duration_s: float) -> dict[str, float]:
    """MIREX's weighted key score, weighted by time.  Time without a readable reference key is left out."""
    from mir_eval.key import weighted_score

    total = seconds = 0.0
    for start, end, wanted, had in common_spans(
        labelled_spans(reference, "key", duration_s), labelled_spans(estimate, "key", duration_s)
    ):
        sought, found = parse_key(wanted or ""), parse_key(had or "")
        if sought is not None:
            seconds += end - start
            total += (end - start) * (weighted_score(sought, found) if found is not None else 0.0)
    return {"key_score": total / seconds if seconds > 0 else np.nan, "key_s": seconds}


Span = tuple[float, float, str | None]


def labelled_spans(events: pl.DataFrame, kind: str, duration_s: float) -> list[Span]:
    """Return spans (start, end, label) that cover a clip without overlap, in order of time; label None where there is none.

    Where events overlap, the one that starts later counts.
    """
    rows = events.filter(pl.col("kind") == kind).sort("start_s", maintain_order=True)
    start, end = (np.clip(rows[name].to_numpy().astype(np.float64), 0, duration_s) for name in ("start_s", "end_s"))
    labels = rows["value"].to_list()
    if not rows["value"].null_count() and (start[1:] == end[:-1]).all():
        inner: list[Span] = list(zip(start.tolist(), end.tolist(), labels, strict=True))
    else:
        edges = np.unique(np.concatenate([start, end]))
        owner = np.full(max(len(edges) - 1, 0), -1)
        first, last = np.searchsorted(edges, start), np.searchsorted(edges, end)
        for row, (a, b) in enumerate(zip(first, last, strict=True)):
            owner[a:b] = row
        inner = [
            (float(edges[i]), float(edges[i + 1]), None if row < 0 else labels[row]) for i, row in enumerate(owner)
        ]
    before = [(0.0, inner[0][0] if inner else duration_s, None)]
    after = [(inner[-1][1], duration_s, None)] if inner else []
    return [span for span in [*before, *inner, *after] if span[1] > span[0]]


def common_spans(one: list[Span], other: list[Span]) -> list[tuple[float, float, str | None, str | None]]:
    """Return spans (start, end, label of one, label of the other) of two coverings of the same time."""
    found, i, j, start = [], 0, 0, 0.0
    while i < len(one) and j < len(other):
        end = min(one[i][1], other[j][1])
        if end > start:
            found.append((start, end, one[i][2], other[j][2]))
        i, j, start = i + (one[i][1] <= end), j + (other[j][1] <= end), end
    return found


SCORES: dict[str, Callable[[pl.DataFrame, pl.DataFrame, float], dict[str, float]]] = {
    "notes": note_scores, "onsets": onset_scores, "beats": beat_scores, "chords": chord_scores, "key": key_time_scores,
}
