"""Inputs of probes: stored vectors of one layer, of all layers concatenated, or of all layers under a learned weighting.

`7`, `chroma`: that layer; `each`: one probe for every layer; `all`: all layers concatenated; `weighted`: all layers, with
weights that each fit learns; `blocks`: likewise without the first, the input of a transformer's first block, and starting from
random weights, as in MARBLE v1.  Each layer enters as its mean over time, its maximum, or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.store import InputError, Lake, Snapshot, Space, Vectors, rows_of

STATS = {"mean": ("mean",), "max": ("max",), "mean+max": ("mean", "max")}
PREPARATIONS = ("raw", "centre", "standardise", "l2", "l2+standardise")
BLOCK_BYTES = 64 << 20                   # read at a time when statistics are computed from the store


@dataclass(frozen=True)
class InputSpec:
    """The stored columns that a probe reads, concatenated or under a learned weighting."""

    name: str                            # name of a layer, `all`, `weighted` or `blocks`
    columns: tuple[tuple[int, str], ...] # (layer, statistic)
    parts: int                           # number of weighted layers; 0 if columns are concatenated
    width: int                           # of the head's input
    mix_start: float = 0.0               # see `Shape.mix_start`


def input_specs(space: Space, layers: Sequence[str | int], stat: str = "mean") -> list[InputSpec]:
    """Return the inputs for names of layers, `each`, `all`, `weighted` or `blocks`.  Raises InputError for unknown names.

    `all` concatenates the layers, unless the space has a layer of that name.
    """
    if stat not in STATS:
        raise InputError(f"input {stat!r}: unknown. Choose {', '.join(STATS)}")
    numbers = range(len(space.layers))
    found: list[InputSpec] = []
    for name in layers or ("each",):
        if name == "each":
            found += [layer_spec(space, number, stat) for number in numbers]
        elif name == "all" and name not in space.layers:
            columns = tuple((number, s) for number in numbers for s in STATS[stat])
            width = sum(space.dims[number] for number, _ in columns)
            found.append(InputSpec("all", columns=columns, parts=0, width=width))
        elif name in ("weighted", "blocks"):
            found.append(weighted_spec(space, name, stat))
        else:
            found.append(layer_spec(space, space.layer_index(name), stat))
    return list(dict.fromkeys(found))


def layer_spec(space: Space, number: int, stat: str) -> InputSpec:
    columns = tuple((number, s) for s in STATS[stat])
    return InputSpec(space.layers[number], columns=columns, parts=0, width=space.dims[number] * len(columns))


def weighted_spec(space: Space, name: str, stat: str) -> InputSpec:
    """Return the input of a learned weighting of all layers, or of all but the first.  Raises InputError if widths differ."""
    used = range(1 if name == "blocks" else 0, len(space.layers))
    widths = {space.dims[number] for number in used}
    if len(widths) > 1:
        raise InputError(
            f"space {space.name!r}: its layers are {min(widths)} to {max(widths)} wide and cannot be weighted. Use `all`, "
            "which concatenates them"
        )
    if not widths:
        raise InputError(f"space {space.name!r}: has {len(space.layers)} layers, too few for {name!r}. Name a layer instead")
    columns = tuple((number, s) for number in used for s in STATS[stat])
    start = 1.0 if name == "blocks" else 0.0
    return InputSpec(name, columns=columns, parts=len(used), width=widths.pop() * len(STATS[stat]), mix_start=start)


@dataclass(frozen=True)
class Preparation:
    """Normalisation of an input's vectors, fitted on the training clips.

    Shape: `mean` and `scale` (width,), or (part, width) for weighted layers; None for steps that are skipped.
    """

    l2: bool
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """Normalise (…, width) float32 vectors in place, and return them."""
        if self.l2:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
        if self.mean is not None:
            vectors -= self.mean
        if self.scale is not None:
            vectors /= self.scale
        return vectors


class Inputs:
    """Reader for the stored vectors of a task's clips, in the task's order, at one version of the table."""

    def __init__(self, lake: Lake, space: Space, ids: pl.Series) -> None:
        self.vectors: Vectors = lake.vectors(space)
        self.snapshot: Snapshot = self.vectors.table.snapshot()
        self.space = space
        stored = pl.Series("clip_id", self.snapshot.keys, dtype=pl.String)
        self.rows = rows_of(stored, ids)                 # (clip,) row numbers in the table
        if (self.rows < 0).any():
            missing = int((self.rows < 0).sum())
            raise InputError(f"{missing} clips are not embedded in space {space.name!r}. Run `tonelake embed`")

    def __len__(self) -> int:
        return len(self.rows)

    def byte_size(self, spec: InputSpec, clips: int) -> int:
        """Return the bytes that an input of `clips` clips takes as float32."""
        return 4 * clips * spec.width * max(spec.parts, 1)

    def read_columns(self, spec: InputSpec, clips: np.ndarray | None = None) -> np.ndarray:
        """Read whole columns, the faster way for most of the clips: (clip, width) float32, or (clip, part, width) if weighted.

        Raises InputError if vectors are not finite.
        """
        wanted = self.rows if clips is None else self.rows[clips]
        columns = []
        for layer, stat in spec.columns:
            stored = self.vectors.read(self.snapshot, layer, stat=stat, dtype=self.space.dtype)
            self._check(layer, np.isfinite(stored.sum(axis=1, dtype=np.float32))[self.rows])     # all clips of the task
            columns.append(stored[wanted].astype(np.float32))
        return join_columns(spec, columns)

    def read_rows(self, spec: InputSpec, clips: np.ndarray) -> np.ndarray:
        """Read the rows of some clips, in their order: (clip, width), or (clip, part, width) if weighted."""
        rows = self.rows[clips]
        read = self.vectors.read_rows
        columns = [read(self.snapshot, rows, layer, stat=stat) for layer, stat in spec.columns]
        for (layer, _), vectors in zip(spec.columns, columns, strict=True):
            self._check(layer, np.isfinite(vectors.sum(axis=1)))
        return join_columns(spec, columns)

    def _check(self, layer: int, finite: np.ndarray) -> None:
        """Raise InputError unless all vectors of a layer are finite."""
        if not finite.all():
            raise InputError(
                f"space {self.space.name!r}: {int((~finite).sum())} of {len(finite)} vectors of layer "
                f"{self.space.layers[layer]} hold NaN or infinity, so another program wrote them. Embed these clips into a "
                "new space"
            )

    def blocks(self, spec: InputSpec, clips: np.ndarray) -> list[np.ndarray]:
        """Divide clips into blocks that fit in memory one at a time."""
        most = max(BLOCK_BYTES // max(self.byte_size(spec, 1), 1), 1)
        return [clips[start : start + most] for start in range(0, len(clips), most)]

    def fit_preparation(self, spec: InputSpec, kind: str, clips: np.ndarray, loaded: np.ndarray | None = None) -> Preparation:
        """Fit a preparation (one of PREPARATIONS) to these clips, from `loaded` vectors or by reading the store."""
        l2 = kind.startswith("l2")
        if kind in ("raw", "l2"):
            return Preparation(l2)
        count, total, squares = 0, np.zeros(1), np.zeros(1)
        parts = [loaded] if loaded is not None else (self.read_rows(spec, block) for block in self.blocks(spec, clips))
        for part in parts:
            vectors = (Preparation(True).apply(part.copy()) if l2 else part).astype(np.float64)
            count, total, squares = count + len(vectors), total + vectors.sum(axis=0), squares + np.square(vectors).sum(axis=0)
        mean = total / count
        if kind == "centre":
            return Preparation(l2, mean.astype(np.float32))
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
        spread[spread < 1e-6 * np.maximum(np.abs(mean), 1e-6)] = 1               # constant dimensions stay constant
        return Preparation(l2, mean.astype(np.float32), spread.astype(np.float32))


def join_columns(spec: InputSpec, columns: list[np.ndarray]) -> np.ndarray:
    """Concatenate the columns of an input or, for a weighting, stack them layer by layer."""
    if not spec.parts:
        return columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
    each = len(columns) // spec.parts
    return np.stack([np.concatenate(columns[i : i + each], axis=1) for i in range(0, len(columns), each)], axis=1)


def check_preparation(kind: str) -> None:
    if kind not in PREPARATIONS:
        raise InputError(f"preparation {kind!r}: unknown. Choose {', '.join(PREPARATIONS)}")
