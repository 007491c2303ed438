"""A lake in memory, for simulations: made-up clips and vectors behind the few methods that the analyses call.

The analyses themselves are the real ones.  A lake on disk takes half a second to write, and thousands are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from tonelake.store import InputError, KeyRows, Space

_versions = count()


class MemoryClips:
    """The clips of a lake in memory."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame, self.table = frame, SimpleNamespace(version=next(_versions))

    def columns(self) -> list[str]:
        return self.frame.columns

    def check_column(self, column: str) -> None:
        if column not in self.frame.columns:
            raise InputError(f"clips: no column {column!r}")

    def group_columns(self) -> list[str]:
        return [name for name in self.frame.columns if name not in ("clip_id", "start_s", "duration_s")]

    def ids(self, where: str | None = None) -> pl.Series:
        assert where is None
        return self.frame["clip_id"]

    def key_rows(self) -> KeyRows:
        return KeyRows(self.frame["clip_id"])

    def read(self, columns: Sequence[str] | None = None, where: str | None = None) -> pl.DataFrame:
        assert where is None
        return self.frame if columns is None else self.frame.select(columns)

    def take(self, ids: Sequence[str], columns: Sequence[str]) -> pl.DataFrame:
        wanted = pl.DataFrame({"clip_id": list(ids)})
        return wanted.join(self.frame, on="clip_id", how="left", maintain_order="left").select(
            list(dict.fromkeys(["clip_id", *columns]))
        )


@dataclass(frozen=True)
class MemoryVectors:
    """The vectors of a space in memory."""

    clip_ids: pl.Series
    values: list[np.ndarray]             # of each layer: (clip, dim) float32
    table: Any = field(default_factory=lambda: SimpleNamespace(version=next(_versions)))

    def ids(self) -> pl.Series:
        return self.clip_ids

    def layer(self, layer: int, dtype: str = "float32") -> tuple[pl.Series, np.ndarray]:
        return self.clip_ids, self.values[layer].astype(dtype)

    def take(self, ids: Sequence[str], layer: int) -> Any:
        rows = pl.DataFrame({"clip_id": list(ids)}).join(
            pl.DataFrame({"clip_id": self.clip_ids}).with_row_index("row"), on="clip_id", how="left", maintain_order="left"
        )["row"]
        return SimpleNamespace(ids=pl.Series("clip_id", list(ids)), vectors=self.values[layer][rows.to_numpy()])


class MemoryLake:
    """Clips, and spaces with their vectors."""

    def __init__(self, frame: pl.DataFrame, spaces: dict[str, list[np.ndarray]]) -> None:
        self.clips, self.uri, self.identity = MemoryClips(frame), "memory", f"memory-{next(_versions)}"
        self.made = {
            name: Space(
                name=name, revision=name, sample_rate=24_000, layers=tuple(f"l{i}" for i in range(len(layers))),
                dims=tuple(layer.shape[1] for layer in layers), window_s=30.0, hop_s=30.0, precision="float32",
            ) for name, layers in spaces.items()
        }
        self.stored = {name: MemoryVectors(frame["clip_id"], layers) for name, layers in spaces.items()}
        self.spaces = SimpleNamespace(get=self.space, all=lambda: list(self.made.values()))

    def space(self, name: str | None = None) -> Space:
        return self.made[name] if name else next(iter(self.made.values()))

    def vectors(self, space: Space | str | None = None) -> MemoryVectors:
        return self.stored[space if isinstance(space, str) else self.space().name if space is None else space.name]

    def progress(self, steps: Iterable[Any], total: int, text: str) -> Iterable[Any]:
        return steps
