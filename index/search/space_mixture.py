"""Mixtures of spaces: layers of several spaces with weights, and the scale on which their cosines can be added.

Cosines of two spaces have different ranges, so each is standardised for every query: less the mean, divided by the standard
deviation, of the query's cosines to SAMPLE clips, the same ones for every query.  The score of a clip is the weighted sum of
these z-scores.  Means of ranks are not offered: on real music they retrieve less well than the better space alone.

Only clips that are embedded in every space of the mixture are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from tonelake.index.search.exact import cache_version
from tonelake.index.vectors import prepare, unit
from tonelake.store import InputError, Lake, Space, SpaceWeights, parse_parts

SAMPLE = 4_096                           # clips; a mean over them is within .016 standard deviations of that of all clips
SAMPLE_SEED = 0
CACHED = 4                               # entries of `_shared`: 13 MB a part at 768 dimensions
EXAMPLE = "Write for example musicnn:0.7,spectral:0.3, with a layer musicnn/penultimate:0.7"

_shared: dict[tuple, SharedClips] = {}


@dataclass(frozen=True, kw_only=True)
class MixturePart:
    """One layer of one space with its weight."""

    space: Space
    layer: int
    weight: float                        # the absolute weights of a mixture sum to one

    @property
    def layer_name(self) -> str:
        """`space/layer`."""
        return f"{self.space.name}/{self.space.layers[self.layer]}"


def parse_spaces(lake: Lake, spaces: SpaceWeights) -> list[MixturePart]:
    """Parse `A:0.7,B:0.3` or `A/LAYER:0.7,B/LAYER:0.3` (or a mapping of such names to weights) to parts of a mixture.

    Without a layer, a space's default layer is used; without any weights, all are equal.
    Raises InputError for fewer than two layers, a layer that is named twice, a weight that is missing, no number or not finite,
    or without a weight above zero; SpaceNotFound for an unknown space.
    """
    text, found = parse_parts(lake.spaces, spaces, option="--spaces", example=EXAMPLE)
    parts = [MixturePart(space=space, layer=layer, weight=weight) for space, layer, weight in found]
    total = sum(abs(part.weight) for part in parts)
    if not any(part.weight > 0 for part in parts):
        raise InputError(f"--spaces {text}: at least one weight must be above zero. {EXAMPLE}")
    kept = [
        MixturePart(space=part.space, layer=part.layer, weight=part.weight / total) for part in parts if part.weight
    ]
    if len(kept) < 2:
        one = kept[0].space.name
        raise InputError(f"--spaces {text}: a mixture needs two spaces or layers with a weight. Search one with --space {one}")
    return kept


def part_names(parts: Sequence[MixturePart]) -> list[str]:
    """Name each part by its space, or by space and layer if several are of one space."""
    names = [part.space.name for part in parts]
    return [part.layer_name if names.count(part.space.name) > 1 else part.space.name for part in parts]


def formula(parts: Sequence[MixturePart]) -> str:
    """Return a mixture as text.

    For example `0.7 × musicnn/penultimate + 0.3 × spectral/mel`.
    """
    first, *others = parts
    text = f"{first.weight:.3g} × {first.layer_name}"
    return text + "".join(f" {'-' if part.weight < 0 else '+'} {abs(part.weight):.3g} × {part.layer_name}" for part in others)


@dataclass(kw_only=True)
class SharedClips:
    """The clips of a lake that are embedded in every space of a mixture, and the sample that cosines are standardised by."""

    ids: pl.Series                       # in the order in which clips were added
    clips: int                           # of the lake
    missing: dict[str, int]              # by space: clips of the lake that are not embedded in it
    samples: list[np.ndarray]            # of each part: (sampled clip, dim) float32 unit vectors
    rows: dict[int, tuple[pl.Series, np.ndarray]] = field(default_factory=dict)          # by part: ids and rows of a scan

    @property
    def left_out(self) -> int:
        """Number of clips of the lake that are not embedded in every space."""
        return self.clips - len(self.ids)

    def coverage(self) -> str:
        """A sentence on how many clips are compared and how many are left out."""
        if not self.left_out:
            return f"all {self.clips:,} clips are embedded in every space"
        lacking = ", ".join(f"{count:,} in {name}" for name, count in self.missing.items() if count)
        return (
            f"{len(self.ids):,} of {self.clips:,} clips are compared; {self.left_out:,} are left out because they are not "
            f"embedded in every space (missing: {lacking})"
        )

    def standards(self, part: int, query: np.ndarray) -> tuple[float, float]:
        """Return the mean and the standard deviation of a (dim,) query's cosines to the sample.

        If the cosines do not differ, the deviation is infinite, so that every z-score is 0.
        """
        cosines = (self.samples[part] @ prepare(query[None], "cosine")[0]).astype(np.float64)
        spread = float(cosines.std())
        return float(cosines.mean()), spread if spread > 1e-7 else float("inf")


def shared_clips(lake: Lake, parts: Sequence[MixturePart]) -> SharedClips:
    """Return the clips that are embedded in every space of a mixture, cached until clips or vectors change.

    Raises InputError if there are fewer than two.
    """
    key = tuple((*cache_version(lake, part.space), part.layer) for part in parts)
    found = _shared.get(key)
    if found is not None:
        return found
    ids = every = lake.clips.ids()
    missing = {}
    for space in {part.space.name: part.space for part in parts}.values():
        embedded = lake.vectors(space).ids().implode()
        missing[space.name] = int((~every.is_in(embedded)).sum())
        ids = ids.filter(ids.is_in(embedded))
    if len(ids) < 2:
        names = ", ".join(missing)
        raise InputError(
            f"spaces {names}: {len(ids)} clips are embedded in all of them; at least 2 are needed. Run `tonelake embed --space "
            f"{max(missing, key=lambda name: missing[name])}`"
        )
    sample = sample_ids(ids)
    samples = [unit(lake.vectors(part.space).take(sample, part.layer).vectors) for part in parts]
    found = _shared[key] = SharedClips(ids=ids, clips=len(every), missing=missing, samples=samples)
    while len(_shared) > CACHED:
        _shared.pop(next(iter(_shared)), None)
    return found


def sample_ids(ids: pl.Series) -> list[str]:
    """Return SAMPLE clips drawn with a fixed seed, the same ones whatever the order of `ids`; all if there are fewer."""
    ordered = ids.sort()
    if len(ordered) > SAMPLE:
        ordered = ordered.gather(np.sort(np.random.default_rng(SAMPLE_SEED).choice(len(ordered), SAMPLE, replace=False)))
    return ordered.to_list()
