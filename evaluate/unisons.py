"""Notes of several voices as notes of one sound: unisons are one note, and a pitch struck again begins a new one."""

from __future__ import annotations

import numpy as np
import polars as pl

UNISON_S = 0.05                          # onsets closer than the tolerance of note scores cannot be scored apart


def merge_unisons(notes: pl.DataFrame) -> pl.DataFrame:
    """Return the notes that can be heard apart, sorted by start_s and pitch.

    `notes`: start_s, end_s, pitch, and any other columns; `begins` and `ends` (bool; added as true where missing) are false for
    a note that is cut at its clip's start or end.  Notes of one pitch that overlap are

        one note, with the earliest onset, the latest end and the highest velocity, if their onsets are at most 50 ms apart
        two notes otherwise: the earlier one ends where the later one begins, which lasts until both have ended

    Notes of equal onset count as overlapping even if one has no length.  A merged note keeps the `value` of its earliest part.
    """
    for name in ("begins", "ends"):
        if name not in notes.columns:
            notes = notes.with_columns(pl.lit(True).alias(name))
    notes = notes.sort("pitch", "start_s", "end_s", maintain_order=True)
    pitch, start = notes["pitch"].to_numpy(), notes["start_s"].to_numpy()
    same = pitch[1:] == pitch[:-1]
    reach = notes.select(pl.col("end_s").cum_max().over("pitch"))["end_s"].to_numpy()
    if not (same & ((start[1:] < reach[:-1]) | (start[1:] == start[:-1]))).any():
        return notes.sort("start_s", "pitch", maintain_order=True)
    end, begins, ends = (notes[name].to_numpy().copy() for name in ("end_s", "begins", "ends"))
    velocity = notes["velocity"].to_list() if "velocity" in notes.columns else None
    kept = np.ones(len(notes), bool)
    last = 0                             # the note of the same pitch that began last
    for row in range(1, len(notes)):
        if not same[row - 1] or (start[row] >= end[last] and start[row] != start[last]):
            last = row
            continue
        if end[last] > end[row]:
            end[row], ends[row] = end[last], ends[last]
        if begins[row] == begins[last] and start[row] - start[last] <= UNISON_S:
            kept[row] = False
            end[last], ends[last] = end[row], ends[row]
            if velocity is not None and velocity[row] is not None:
                velocity[last] = max(velocity[row], velocity[last] or 0)
            continue
        end[last], ends[last] = start[row], True
        kept[last] = begins[last] or start[last] < start[row]
        last = row
    changed = [pl.Series("end_s", end), pl.Series("begins", begins), pl.Series("ends", ends)]
    if velocity is not None:
        changed.append(pl.Series("velocity", velocity, dtype=notes["velocity"].dtype))
    return notes.with_columns(changed).filter(pl.Series(kept)).sort("start_s", "pitch", maintain_order=True)
