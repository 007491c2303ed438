"""What a probe sees: stored vectors of one layer, of all of them side by side, or of all of them to be weighed.

`7`, `chroma`: that layer; `each`: every layer, a probe each; `all`: all layers concatenated; `weighted`: all layers, under
weights that each fit learns.  Each layer is given by its mean over time, its maximum, or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.store import InputError, Lake, Snapshot, Space, Vectors, rows_of

STATS = {"mean": ("mean",), "max": ("max",), "mean+max": ("mean", "max")}
PREPARATIONS = ("raw", "centre", "standardise", "l2", "l2+standardise")
BLOCK_BYTES = 64 << 20                   # read at a time where statistics are taken from the store


@dataclass(frozen=True)
class Slot:
    """One way of seeing a clip: columns of vectors, to be joined or to be weighed."""

    name: str                            # a layer's, all, or weighted
    columns: tuple[tuple[int, str], ...] # (layer, statistic)
    parts: int                           # that are weighed; 0 where they are joined
    width: int                           # of what a head sees


def slots_of(space: Space, layers: Sequence[str | int], stat: str = "mean") -> list[Slot]:
    """The slots that names stand for.  Raises InputError for what the space does not have."""
    if stat not in STATS:
        raise InputError(f"no input {stat!r}: choose {', '.join(STATS)}")
    numbers = range(len(space.layers))
    found: list[Slot] = []
    for name in layers or ("each",):
        if name == "each":
            found += [layer_slot(space, number, stat) for number in numbers]
        elif name == "all":
            columns = tuple((number, s) for number in numbers for s in STATS[stat])
            found.append(Slot("all", columns, 0, sum(space.dims[number] for number, _ in columns)))
        elif name == "weighted":
            if len(set(space.dims)) > 1:
                raise InputError(
                    f"the layers of space {space.name!r} are {min(space.dims)} to {max(space.dims)} wide and cannot be "
                    "weighed: take `all`, which puts them side by side"
                )
            columns = tuple((number, s) for number in numbers for s in STATS[stat])
            found.append(Slot("weighted", columns, len(space.layers), space.dims[0] * len(STATS[stat])))
        else:
            found.append(layer_slot(space, space.layer_index(name), stat))
    return list(dict.fromkeys(found))


def layer_slot(space: Space, number: int, stat: str) -> Slot:
    columns = tuple((number, s) for s in STATS[stat])
    return Slot(space.layers[number], columns, 0, space.dims[number] * len(columns))


@dataclass(frozen=True)
class Preparation:
    """What is done to a slot's vectors before a head sees them, learned from the clips that are learned from.

    Shape: `mean` and `scale` (width,), or (part, width) for weighed layers; None where nothing is done.
    """

    l2: bool
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """(…, width) float32, changed in place."""
        if self.l2:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        if self.mean is not None:
            vectors -= self.mean
        if self.scale is not None:
            vectors /= self.scale
        return vectors


class Inputs:
    """The stored vectors of a task's clips, in the task's order, at one version of the table."""

    def __init__(self, lake: Lake, space: Space, ids: pl.Series) -> None:
        self.vectors: Vectors = lake.vectors(space)
        self.snapshot: Snapshot = self.vectors.table.snapshot()
        self.space = space
        stored = pl.Series("clip_id", self.snapshot.keys, dtype=pl.String)
        self.rows = rows_of(stored, ids)                 # (clip,) places in the table
        if (self.rows < 0).any():
            missing = int((self.rows < 0).sum())
            raise InputError(f"{missing} clips are not embedded in space {space.name!r}: run `tonelake embed`")

    def __len__(self) -> int:
        return len(self.rows)

    def bytes_of(self, slot: Slot, clips: int) -> int:
        """What a slot of so many clips takes in memory as float32."""
        return 4 * clips * slot.width * max(slot.parts, 1)

    def whole(self, slot: Slot, clips: np.ndarray | None = None) -> np.ndarray:
        """(clip, width) float32, or (clip, part, width) of weighed layers, by whole columns: for most of the clips.

        Raises InputError where vectors are not finite.
        """
        wanted = self.rows if clips is None else self.rows[clips]
        columns = []
        for layer, stat in slot.columns:
            stored = self.vectors.read(self.snapshot, layer, stat=stat, dtype=self.space.dtype)
            self._check(layer, np.isfinite(stored.sum(axis=1, dtype=np.float32))[self.rows])     # of every clip of the task
            columns.append(stored[wanted].astype(np.float32))
        return joined(slot, columns)

    def some(self, slot: Slot, clips: np.ndarray) -> np.ndarray:
        """The same of some clips, in their order, read row by row."""
        rows = self.rows[clips]
        read = self.vectors.read_rows
        columns = [read(self.snapshot, rows, layer, stat=stat) for layer, stat in slot.columns]
        for (layer, _), vectors in zip(slot.columns, columns, strict=True):
            self._check(layer, np.isfinite(vectors.sum(axis=1)))
        return joined(slot, columns)

    def _check(self, layer: int, finite: np.ndarray) -> None:
        """Raise InputError unless all vectors of a layer are."""
        if not finite.all():
            raise InputError(
                f"{int((~finite).sum())} of {len(finite)} vectors of layer {self.space.layers[layer]} of space "
                f"{self.space.name!r} hold NaN or infinity, so another program wrote them: embed these clips again, into a "
                "new space"
            )

    def blocks(self, slot: Slot, clips: np.ndarray) -> list[np.ndarray]:
        """Clips in parts that can be read into memory one at a time."""
        most = max(BLOCK_BYTES // max(self.bytes_of(slot, 1), 1), 1)
        return [clips[start : start + most] for start in range(0, len(clips), most)]

    def preparation(self, slot: Slot, kind: str, clips: np.ndarray, loaded: np.ndarray | None = None) -> Preparation:
        """Learn a preparation (one of PREPARATIONS) from these clips, given as `loaded` vectors or read from the store."""
        l2 = kind.startswith("l2")
        if kind in ("raw", "l2"):
            return Preparation(l2)
        count, total, squares = 0, np.zeros(1), np.zeros(1)
        parts = [loaded] if loaded is not None else (self.some(slot, block) for block in self.blocks(slot, clips))
        for part in parts:
            vectors = (Preparation(True).apply(part.copy()) if l2 else part).astype(np.float64)
            count, total, squares = count + len(vectors), total + vectors.sum(axis=0), squares + np.square(vectors).sum(axis=0)
        mean = total / count
        if kind == "centre":
            return Preparation(l2, mean.astype(np.float32))
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
        spread[spread < 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1               # a constant stays constant
        return Preparation(l2, mean.astype(np.float32), spread.astype(np.float32))


def joined(slot: Slot, columns: list[np.ndarray]) -> np.ndarray:
    """A slot's columns side by side, or, where they are weighed, layer by layer."""
    if not slot.parts:
        return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
    each = len(columns) // slot.parts
    return np.stack([np.concatenate(columns[i : i + each], axis=1) for i in range(0, len(columns), each)], axis=1)


def check_preparation(kind: str) -> None:
    if kind not in PREPARATIONS:
        raise InputError(f"no preparation {kind!r}: choose {', '.join(PREPARATIONS)}")
