"""Scores of many clips to estimates with intervals: all clips, groups of clips, groups of notes, and models in pairs.

A table of scores has one row a clip (`score_clips`).  Figures are means over the clips for which the score is defined, or of
pooled counts where the name says so; intervals are a jackknife over tracks (`evaluate.jackknife`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import polars as pl

from tonelake.evaluate.event_scores import EVENT_METRICS, score_events
from tonelake.evaluate.intervals import Estimate
from tonelake.evaluate.jackknife import Replicates, Units, replicate_means, replicate_sums, stack_replicates, sums_of_units
from tonelake.evaluate.multiple import max_t
from tonelake.evaluate.note_scores import count_notes_by, match_notes

SHARE = (0.0, 1.0)
COUNTS = (
    "matched", "matched_offsets", "reference", "estimated", "frames_matched", "frames_reference", "frames_estimated",
    "root_s", "majmin_s", "key_s",
)
POOLED = {                               # F1 over all notes of all clips: twice the matched of reference and estimated
    "pooled_onset_f1": ("matched", "reference", "estimated"),
    "pooled_onset_offset_f1": ("matched_offsets", "reference", "estimated"),
    "pooled_frame_f1": ("frames_matched", "frames_reference", "frames_estimated"),
}

ClipEvents = tuple[pl.DataFrame, pl.DataFrame, float]        # reference, estimate, duration in seconds


def score_clips(task: str, clips: Iterable[ClipEvents]) -> pl.DataFrame:
    """Return one row a clip with a column a score or count, NaN where it is undefined."""
    rows = [score_events(task, *clip) for clip in clips]
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name, np.nan) for row in rows] for name in names}
    return pl.DataFrame(columns, schema=dict.fromkeys(names, pl.Float64))


def score_names(scores: pl.DataFrame) -> list[str]:
    """Names of the columns that are scores, and not counts."""
    return [name for name in scores.columns if name not in COUNTS]


def replicate_scores(scores: pl.DataFrame, units: Units, name: str) -> Replicates:
    """Return the mean of a score over the clips for which it is defined, on all tracks and without each one."""
    return replicate_means(scores[name].to_numpy(), units)


def estimate_scores(scores: pl.DataFrame, units: Units) -> dict[str, Estimate]:
    """Return the mean of each score over clips, and F1 of pooled notes and frames, with 95 % intervals over `units`."""
    found = {}
    for name in score_names(scores):
        values = scores[name].to_numpy()
        known = np.flatnonzero(np.isfinite(values))          # tracks without a value are not units of this score
        if len(known):
            figure = replicate_means(values[known], units.take(known))
            found[name] = figure.estimate(None if name.endswith("_s") else SHARE)
        else:
            found[name] = Estimate(np.nan, np.nan, np.nan)
    for name, columns in POOLED.items():
        if all(column in scores.columns for column in columns):
            matched, reference, estimated = (scores[column].to_numpy() for column in columns)
            found[name] = pooled_f1(matched, reference, estimated, units).estimate(SHARE)
    return found


def pooled_f1(matched: np.ndarray, reference: np.ndarray, estimated: np.ndarray, units: Units) -> Replicates:
    """Return the F1 of (row,) counts added up over rows."""
    hits, both = (replicate_sums(sums_of_units(counts, units)) for counts in (2 * matched, reference + estimated))
    return hits / both


def estimates_by_clips(scores: pl.DataFrame, units: Units, groups: Sequence[str | None]) -> pl.DataFrame:
    """Return the estimates of groups of clips, such as timbres: group, clips, score, value, low, high.

    `groups`: the group of each clip; clips without one are left out.
    """
    labels = pl.Series(list(groups), dtype=pl.String)
    rows = []
    for group in labels.drop_nulls().unique().sort():
        own = np.flatnonzero((labels == group).fill_null(False).to_numpy())
        for name, estimate in estimate_scores(scores[own], units.take(own)).items():
            rows.append((group, len(own), name, estimate.value, estimate.low, estimate.high))
    return pl.DataFrame(rows, GROUP_SCHEMA, orient="row")


GROUP_SCHEMA = {
    "group": pl.String, "clips": pl.Int64, "score": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64,
}


def estimates_by_notes(clips: Sequence[ClipEvents], units: Units, by: str) -> pl.DataFrame:
    """Return onset scores of groups of notes, over pooled notes: group, clips (that have any), score, value, low, high.

    `by`: "octave" (F1 and recall) or "value" (instrument, voice or stem of the reference: recall).
    """
    tables = []
    for number, (reference, estimate, _) in enumerate(clips):
        matched = match_notes(*(table.filter(pl.col("kind") == "note") for table in (reference, estimate)))
        tables.append(count_notes_by(matched, by).with_columns(pl.lit(number).alias("clip")))
    counts = pl.concat(tables) if tables else pl.DataFrame(schema={"group": pl.String})
    rows = []
    for group in counts["group"].unique().sort():
        own = counts.filter(pl.col("group") == group)
        columns = {name: np.zeros(len(clips)) for name in ("matched", "reference", "estimated")}
        for name, values in columns.items():
            values[own["clip"].to_numpy()] = own[name].fill_null(0).to_numpy()
        having = int((columns["reference"] > 0).sum())
        figures = {"recall": pooled_f1(columns["matched"] / 2, columns["reference"], np.zeros(len(clips)), units)}
        if not own["estimated"].null_count():
            figures["f1"] = pooled_f1(columns["matched"], columns["reference"], columns["estimated"], units)
        for name, figure in figures.items():
            found = figure.estimate(SHARE)
            rows.append((group, having, name, found.value, found.low, found.high))
    return pl.DataFrame(rows, GROUP_SCHEMA, orient="row")


def compare_scores(models: Mapping[str, pl.DataFrame], units: Units, task: str, *, score: str | None = None) -> pl.DataFrame:
    """Compare models on the same clips with the best of them.

    Columns: model, value, low, high, lead, lead_low, p_value, distinguishable.  `models`: a table of scores of each model, with
    the same clips as rows.  `score`: the task's main score if not given.  Clips for which a model's score is undefined are left
    out for all.  `lead`: the best model's mean minus the model's, with a simultaneous lower bound; p-values are adjusted for
    the number of models (`max_t`).
    """
    name = EVENT_METRICS[task] if score is None else score
    values = np.stack([table[name].to_numpy() for table in models.values()], axis=1)            # (clip, model)
    known = np.flatnonzero(np.isfinite(values).all(axis=1))
    shared = units.take(known)
    figures = stack_replicates([replicate_means(column, shared) for column in values[known].T])
    found = max_t(figures)
    bounds = None if name.endswith("_s") else SHARE
    estimates = [figures[number].estimate(bounds) for number in range(len(models))]
    return pl.DataFrame({
        "model": list(models), "value": [each.value for each in estimates], "low": [each.low for each in estimates],
        "high": [each.high for each in estimates], "lead": found.lead, "lead_low": found.lead_low, "p_value": found.p_values,
        "distinguishable": found.distinguishable,
    })
