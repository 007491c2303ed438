"""Find values that are more frequent in a part than elsewhere, beyond chance (Monroe et al. 2008, "Fightin' Words", 3.5.1)."""

from __future__ import annotations

import numpy as np


def log_odds(
    own: np.ndarray, own_total: np.ndarray | float, others: np.ndarray, others_total: np.ndarray | float, prior: np.ndarray,
    mass: np.ndarray | float,
) -> np.ndarray:
    """Return z-scores of the log odds ratio of counts in a part and elsewhere, with an informative prior; 0 where undefined.

    `own` of `own_total` in the part, `others` of `others_total` elsewhere; `prior` of `mass` are pseudo-counts added to both.
    All arguments have one shape, or are numbers.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.log((own + prior) / (own_total + mass - own - prior))
        second = np.log((others + prior) / (others_total + mass - others - prior))
        scores = (first - second) / np.sqrt(1 / (own + prior) + 1 / (others + prior))
    return np.nan_to_num(scores, nan=0.0, posinf=0.0, neginf=0.0)
