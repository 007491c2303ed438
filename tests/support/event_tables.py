"""Tables of events for tests, as `Events.of_clips` and `decode` return them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

SCHEMA = {
    "kind": pl.String, "start_s": pl.Float64, "end_s": pl.Float64, "value": pl.String, "pitch": pl.Float32,
    "velocity": pl.Int32, "begins": pl.Boolean, "ends": pl.Boolean,
}


def notes(*rows: Sequence, value: str | None = None) -> pl.DataFrame:
    """Notes from (start, end, pitch[, begins[, ends]])."""
    full = [(*row, *(True, True)[len(row) - 3:]) for row in rows]
    table = [("note", start, end, value, pitch, None, begins, ends) for start, end, pitch, begins, ends in full]
    return pl.DataFrame(table, SCHEMA, orient="row")


def instants(kind: str, times: Iterable[float]) -> pl.DataFrame:
    return pl.DataFrame([(kind, time, time, None, None, None, True, True) for time in times], SCHEMA, orient="row")


def spans(kind: str, *rows: tuple[float, float, str | None]) -> pl.DataFrame:
    """Chords or keys from (start, end, value)."""
    return pl.DataFrame([(kind, *row, None, None, True, True) for row in rows], SCHEMA, orient="row")


def random_notes(seed: int, count: int = 60, seconds: float = 10.0, lowest: int = 48, highest: int = 72) -> pl.DataFrame:
    """Notes that do not overlap within a pitch, at least 80 ms long and apart."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, float, int]] = []
    while len(rows) < count:
        start = float(rng.uniform(0.1, seconds - 0.5))
        end, pitch = min(start + float(rng.uniform(0.08, 1.0)), seconds), int(rng.integers(lowest, highest))
        if all(p != pitch or start > b + 0.08 or end < a - 0.08 for a, b, p in rows):
            rows.append((start, end, pitch))
    return notes(*sorted(rows))
