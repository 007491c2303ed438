"""Paths for interfaces that count all songs of a path: with cosines of each song to the first one and to the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tonelake import Lake
from tonelake.serve.answers import Answers
from tonelake.serve.catalogue import Catalogue
from tonelake.serve.rows import SongRow
from tonelake.store import Space


class StepCosines(NamedTuple):
    """Cosines of a clip of a path; 1 for its first clip."""

    to_first: float
    to_previous: float


def path_with_steps(answers: Answers, start: str, end: str, count: int) -> tuple[list[SongRow], list[StepCosines]]:
    """Return at most `count` songs from one to another, at least these two, with their cosines.  Raises as `Answers.path`."""
    found = answers.path(start, end, steps=max(count - 2, 1))
    songs = [found[0], found[-1]] if count <= 2 else found

    def cosines(lake: Lake, catalogue: Catalogue) -> list[StepCosines]:
        return step_cosines(lake, *answers.default_layer(lake), [song.clip_id for song in songs])

    return songs, answers.read(cosines)


def step_cosines(lake: Lake, space: Space, layer: int, clip_ids: Sequence[str]) -> list[StepCosines]:
    """Return the cosines of clips of a path, in their order.  Raises ClipNotFound for a clip without a vector."""
    if not clip_ids:
        return []
    vectors = lake.vectors(space).take(list(clip_ids), layer).vectors.astype(np.float32)      # (clip, dim)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    to_first = vectors @ vectors[0]
    to_previous = np.concatenate([[1.0], (vectors[1:] * vectors[:-1]).sum(axis=1)])
    to_first[0] = 1.0
    return [StepCosines(float(first), float(previous)) for first, previous in zip(to_first, to_previous, strict=True)]
