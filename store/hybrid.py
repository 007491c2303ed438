"""A hybrid: a space whose vectors are those of several layers, of one or more other spaces, side by side.

Each part is scaled to unit length and multiplied by the square root of its weight; the weights sum to one.  A hybrid's vectors
therefore have unit length, and the cosine of two is the weighted mean of their cosines in the parts: no part counts more
because its vectors are longer or wider.  A zero vector, as of silence, stays zero.

Frames are joined likewise, at the rate of the slowest part: each of its frames with the frame of every other part that is
nearest in time.  The parts are written in the space's own file, as `hybrid:mert-v1-95m/7:0.5,musicnn/2:0.5` (numbers of
layers); the identity is a hash of their fingerprints, layers and weights.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tonelake.store.compaction import MANY_FRAGMENTS, trim_quietly
from tonelake.store.errors import InputError, LakeError, SpaceMismatch
from tonelake.store.frames import FrameStates
from tonelake.store.projection import is_projection
from tonelake.store.space import HYBRID, STATS, Space, is_hybrid

if TYPE_CHECKING:
    from tonelake.store.lake import Lake

LAYER = "hybrid"                         # name of the one layer
BLOCK = 4096                             # clips whose vectors are joined at a time
FRAME_BLOCK = 8                          # clips whose frames are joined at a time: 50 MB of 30 s of two layers 768 wide
COMMIT_FRAME_BYTES = 128 << 20           # of joined frames that wait
SAME_RATE = 0.01                         # relative difference of frame rates that counts as none


@dataclass(frozen=True, kw_only=True)
class HybridPart:
    """One layer of a space, with its weight."""

    space: Space
    layer: int
    weight: float

    @property
    def layer_name(self) -> str:
        """`space/layer`, as it is given to commands."""
        return f"{self.space.name}/{self.space.layers[self.layer]}"


@dataclass(frozen=True, kw_only=True)
class Hybrid:
    """The parts of a hybrid, two or more; their weights sum to one."""

    parts: tuple[HybridPart, ...]

    @property
    def width(self) -> int:
        return sum(part.space.dims[part.layer] for part in self.parts)

    @property
    def digest(self) -> str:
        """Hash of fingerprints, layers and weights."""
        text = "\n".join(f"{part.space.fingerprint} {part.layer} {part.weight:g}" for part in self.parts)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """(row, dim) vectors of each part -> (row, width) float32."""
        scaled = []
        for part, found in zip(self.parts, parts, strict=True):
            vectors = np.asarray(found, np.float32)
            length = np.linalg.norm(vectors, axis=1, keepdims=True)
            scaled.append(vectors * (np.sqrt(np.float32(part.weight)) / np.where(length > 0, length, np.float32(1))))
        return np.concatenate(scaled, axis=1)

    def rejoin(self, vectors: np.ndarray) -> np.ndarray:
        """(row, width) -> the same with every part at its length again, which a mean over joined frames has changed."""
        ends = np.cumsum([part.space.dims[part.layer] for part in self.parts])
        return self.join(np.split(vectors, ends[:-1], axis=1))

    def describe(self, name: str) -> Space:
        """The space that it makes; audio settings that parts may differ in are those of the first one."""
        first = self.parts[0].space
        listed = ",".join(f"{part.space.name}/{part.layer}:{part.weight:g}" for part in self.parts)
        return Space(
            name=name, revision=self.digest, sample_rate=first.sample_rate, layers=(LAYER,), dims=(self.width,),
            window_s=first.window_s, hop_s=first.hop_s, precision=first.precision, device=first.device,
            encoder=" + ".join(dict.fromkeys(part.space.encoder for part in self.parts)), location=f"{HYBRID}:{listed}",
            learned=any(part.space.learned for part in self.parts),
        )

    def __str__(self) -> str:
        weights = {part.weight for part in self.parts}
        if len(weights) == 1:
            return " and ".join(part.layer_name for part in self.parts)
        return " and ".join(f"{part.layer_name} ({part.weight:.3g})" for part in self.parts)


def rounded_weights(weights: Sequence[float]) -> list[float]:
    """Weights that sum to one, in the six digits that a space's file holds.

    >>> rounded_weights([2, 1]), rounded_weights([1, 1])
    ([0.666667, 0.333333], [0.5, 0.5])
    """
    total = sum(weights)
    if abs(total - 1) < 1e-5:            # they are such weights already, and stay the same
        total = 1.0
    return [float(f"{weight / total:g}") for weight in weights]


def read_hybrid(lake: Lake, space: Space) -> Hybrid:
    """The parts of a hybrid space.

    Raises LakeError if its file does not name them, SpaceNotFound if a part is no longer in the lake, SpaceMismatch if one has
    other settings than when the hybrid was made.
    """
    parts = []
    try:
        for text in space.location.removeprefix(f"{HYBRID}:").split(","):
            name, layer, weight = text.replace("/", ":").split(":")
            parts.append((name, int(layer), float(weight)))
    except ValueError as error:
        raise LakeError(
            f"spaces/{space.name}.json: location {space.location!r} does not name the parts of a hybrid. Restore it from a copy"
        ) from error
    found = Hybrid(parts=tuple(
        HybridPart(space=lake.spaces.get(name), layer=layer, weight=weight) for name, layer, weight in parts
    ))
    if any(not 0 <= part.layer < len(part.space.layers) for part in found.parts) or found.digest != space.revision:
        raise SpaceMismatch(
            f"space {space.name!r}: was made from spaces {' and '.join(sorted({name for name, *_ in parts}))} with other "
            "settings than the lake's. Make it again under another --space name"
        )
    return found


def extend_hybrid(lake: Lake, space: Space) -> int:
    """Join the vectors of clips that every part has and the hybrid lacks; return their number.  Resumes if interrupted.

    Means are joined means, maxima joined maxima.
    """
    hybrid = read_hybrid(lake, space)
    target = lake.vectors(space)
    due = shared_ids([lake.vectors(part.space).ids() for part in hybrid.parts], target.ids())
    starts = range(0, len(due), BLOCK)
    for start in lake.progress(starts, len(starts), f"joining vectors into {space.name}"):
        block = due[start : start + BLOCK].to_list()
        mean, maximum = (
            [hybrid.join([lake.vectors(part.space).take(block, part.layer, stat=stat).vectors for part in hybrid.parts])]
            for stat in STATS
        )
        target.add(block, mean, maximum, [0] * len(block))
    return len(due)


def shared_ids(sources: Sequence[pl.Series], known: pl.Series) -> pl.Series:
    """Ids that all sources have and `known` lacks, in the order of the first source."""
    first, *others = sources
    due = first.filter(~first.is_in(known.implode())).unique(maintain_order=True)
    for other in others:
        due = due.filter(due.is_in(other.implode()))
    return due


def check_hybrid_parts(lake: Lake, hybrid: Hybrid) -> None:
    """Raise InputError if a part lacks vectors of clips that another part has.

    Clips whose audio is missing, or could not be embedded there, are left out of the hybrid and need no vector.
    """
    embedded = {part.space.name: lake.vectors(part.space).ids() for part in hybrid.parts}
    clips, silent = lake.clips.ids(), lake.clips.without_audio()
    wanted = clips.filter(clips.is_in(pl.concat(embedded.values()).implode()) & ~clips.is_in(silent.implode()))
    for part in hybrid.parts:
        lacking = wanted.filter(~wanted.is_in(embedded[part.space.name].implode()))
        failed = lake.failures.read(f"embed:{part.space.name}")["clip_id"] if len(lacking) else lacking
        lacking = lacking.filter(~lacking.is_in(failed.implode()))
        if len(lacking):
            raise InputError(
                f"space {part.space.name!r}: {len(lacking):,} of {len(wanted):,} clips that the other parts have are not "
                f"embedded, such as {lacking[0]}. Run `{extend_command(part.space)}`"
            )


def extend_arguments(space: Space) -> list[str]:
    """The arguments of `tonelake` that add vectors of later clips to a space."""
    if is_projection(space):
        return ["metric", "--extend", space.name]
    if is_hybrid(space):
        return ["embed", "--hybrid", space.location.removeprefix(f"{HYBRID}:"), "--space", space.name]
    return ["embed", "--space", space.name]


def extend_command(space: Space) -> str:
    """The command that adds vectors of later clips to a space, as it is typed."""
    return shlex.join(["tonelake", *extend_arguments(space)])


# -- frames


def extend_hybrid_frames(lake: Lake, space: Space) -> int:
    """Join the frames of clips that every part stores and the hybrid lacks; return their number.  Resumes if interrupted."""
    hybrid = read_hybrid(lake, space)
    stored = lake.frames(space)
    due = shared_ids([lake.frames(part.space).complete([part.layer]) for part in hybrid.parts], stored.complete([0])).to_list()
    waiting: list[FrameStates] = []
    starts = range(0, len(due), FRAME_BLOCK)
    for start in lake.progress(starts, len(starts), f"joining frames into {space.name}"):
        block = due[start : start + FRAME_BLOCK]
        parts = [{one.clip_id: one for one in lake.frames(part.space).each(block, part.layer)} for part in hybrid.parts]
        for clip_id in block:
            frame_s, states = join_frames(
                hybrid, [part[clip_id].frame_s for part in parts], [part[clip_id].states for part in parts]
            )
            waiting.append(FrameStates(clip_id, 0, frame_s.astype(np.float32), states.astype(np.float16)))
        if start == starts[-1] or sum(one.states.nbytes for one in waiting) > COMMIT_FRAME_BYTES:
            stored.add(waiting)
            waiting = []
    if due:
        trim_quietly(stored.table, MANY_FRAGMENTS)
    return len(due)


def join_frames(
    hybrid: Hybrid, times: Sequence[np.ndarray], states: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(frame,) seconds and (frame, dim) states of each part -> those of the hybrid, on the grid of the slowest part.

    No frames if a part has none.
    """
    if not all(len(found) for found in times):
        return np.empty(0, np.float32), np.empty((0, hybrid.width), np.float32)
    grid = times[slowest([spacing_s(found) for found in times])]
    return grid, hybrid.join([found[nearest(at, grid)] for at, found in zip(times, states, strict=True)])


def spacing_s(frame_s: np.ndarray) -> float:
    """Seconds from frame to frame; infinite for a single frame."""
    return float(np.median(np.diff(frame_s))) if len(frame_s) > 1 else np.inf


def slowest(spacings_s: Sequence[float]) -> int:
    """The part with the largest spacing of frames, the first of nearly equal ones.

    >>> slowest([1 / 75, 1 / 50, 1 / 50.2])
    1
    """
    largest = max(spacings_s)
    return next(i for i, spacing in enumerate(spacings_s) if spacing == largest or spacing * (1 + SAME_RATE) >= largest)


def nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each wanted time, the index of the nearest of some increasing times, the earlier of two equally near ones.

    >>> nearest(np.array([0.0, 1.0, 2.0]), np.array([-1.0, 0.5, 0.6, 9.0])).tolist()
    [0, 0, 1, 2]
    """
    after = np.searchsorted(times, wanted).clip(0, len(times) - 1)
    before = (after - 1).clip(0)
    return np.where(np.abs(wanted - times[before]) <= np.abs(times[after] - wanted), before, after)
