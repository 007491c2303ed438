"""Probabilities of a frame head for one clip: what runs give, and decoders take."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Posteriors(NamedTuple):
    """Probabilities of one clip over time."""

    clip_id: str
    frame_s: np.ndarray                  # (frame,) centres, seconds from the clip's start
    probabilities: np.ndarray            # (frame, output) float32
