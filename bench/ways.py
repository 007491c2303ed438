"""The ways of an encoder that `bench.encoders` compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonelake.embed.kernels.threads import single_threads

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


def as_embedded(encoder: Any) -> Way:
    """Encode clips as one window each, as `tonelake embed` does: several at once on a thread each if the encoder asks for it.

    The vector is that of the last layer.
    """
    def encode(clip: np.ndarray) -> np.ndarray:
        vector: np.ndarray = encoder.encode(clip[None]).mean[-1][0]
        return vector

    def run(clips: list[np.ndarray]) -> list[np.ndarray]:
        encoder.prepare(len(clips[0]))
        if encoder.clips_in_parallel == 1:
            return [encode(clip) for clip in clips]
        with single_threads(encoder.clips_in_parallel, "encode") as pool:
            return list(pool.map(encode, clips))

    return run
