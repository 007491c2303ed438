"""The ways of an encoder that `bench.encoders` compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Way = Callable[[list[np.ndarray]], list[np.ndarray]]                 # clips -> one vector each, to compare


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The ways of one encoder, each of which encodes clips; and what is known of its work."""

    ways: dict[str, Way]
    precisions: dict[str, str]           # by way
    baseline: tuple[str, ...]            # ways of plain PyTorch, the first in float32; empty if nothing is published
    clips: dict[str, int]                # in a round, by way
    gflop: float | None                  # of the published forward pass, for a second of audio
    about: str                           # the weights, and what else has to be said
    seconds: float = 30.0                # of a clip
    rounds: int | None = None            # at most; a large encoder needs fewer
