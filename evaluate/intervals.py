"""A figure with its 95 % interval.  Intervals come from a jackknife over whole units (`evaluate.jackknife`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def estimates_as_dict(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | None]]:
    """Estimates for JSON, which has no NaN: rounded to 6 digits, None for values that are not finite."""
    def plain(value: float) -> float | None:
        return round(value, 6) if np.isfinite(value) else None

    return {name: {"value": plain(e.value), "low": plain(e.low), "high": plain(e.high)} for name, e in estimates.items()}
