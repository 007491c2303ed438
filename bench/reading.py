"""Reading one layer of a lake, compared with reading the same bytes from a plain file; part of `bench.embed`."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report import table

if TYPE_CHECKING:
    from tonelake.store import Lake, Space

READ_ROWS, READ_DIM = 100_000, 768
ADDED = 20_000                           # clips whose vectors are added at once


def read_layer() -> dict[str, float]:
    """Return ms to read one layer of 100,000 clips from a lake, and by `np.fromfile` the same bytes; alternating, warm."""
    from tonelake.embed.encoders.spectral import SpectralEncoder
    from tonelake.embed.settings import describe_space
    from tonelake.store import Lake

    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        lake.clips.add(made_up_clips(READ_ROWS))
        shape: Any = SpectralEncoder()
        shape.layers, shape.dims, shape.default_layer = ("0", "1", "2"), (READ_DIM,) * 3, 1
        vectors = lake.vectors(lake.spaces.make(describe_space(shape, "bench", 30.0)))
        ids, rng = lake.clips.ids().to_list(), np.random.default_rng(0)
        for start in range(0, READ_ROWS, 5_000):
            layers = [rng.standard_normal((5_000, READ_DIM), dtype=np.float32) for _ in range(3)]
            vectors.add(ids[start : start + 5_000], layers, layers, [1] * 5_000)
        vectors.table.compact()
        plain = Path(folder) / "layer.bin"
        vectors.layer(1, dtype="float16").vectors.tofile(plain)
        scan = vectors.table.dataset()
        ways: dict[str, Callable[[], Any]] = {
            "np.fromfile": lambda: np.fromfile(plain, np.float16),
            "tonelake, float16": lambda: vectors.layer(1, dtype="float16"),
            "tonelake, float32": lambda: vectors.layer(1),
            "Lance scan to Arrow": lambda: scan.to_table(columns=["mean_01"]),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(22):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                if number > 1:
                    taken[name].append(1000 * (time.perf_counter() - started))
        return {name: statistics.median(times) for name, times in taken.items()}


def made_up_clips(count: int) -> Any:
    """Return rows of clips without audio."""
    import polars as pl

    number = pl.int_range(count, eager=True)
    return pl.DataFrame({
        "clip_id": number.map_elements(lambda n: f"{n:020x}", pl.String), "track": (number // 10).cast(pl.String),
        "source": "made:" + (number // 10).cast(pl.String), "digest": "00", "start_s": (number % 10) * 30.0,
        "duration_s": 30.0, "cut": "30s",
    }, strict=False)


def lake_of(uri: str | Path, vectors: np.ndarray) -> tuple[Lake, Space, list[str]]:
    """Make a lake of one layer with (clip, dim) vectors; return it, its space and the ids of its clips in their order."""
    from tonelake.store import Lake, Space

    lake = Lake(uri)
    lake.clips.add(made_up_clips(len(vectors)))
    space = lake.spaces.make(Space(
        name="bench", revision="1", sample_rate=24_000, layers=("0",), dims=(vectors.shape[1],), window_s=30.0, hop_s=30.0,
        precision="float32",
    ))
    ids = lake.clips.ids().to_list()
    for start in range(0, len(vectors), ADDED):
        part = vectors[start : start + ADDED].astype(np.float32)
        lake.vectors(space).add(ids[start : start + ADDED], [part], [part], [1] * len(part))
    return lake, space, ids


def reading_section() -> tuple[str, float]:
    """Return a Markdown section, and the speed of reading a layer relative to np.fromfile."""
    reading = read_layer()
    size = READ_ROWS * READ_DIM * 2
    rows = [[name, f"{ms:.1f}", f"{size / ms / 1e6:.1f}", f"{reading['np.fromfile'] / ms:.2f}"] for name, ms in reading.items()]
    text = (
        f"## Reading one layer of {READ_ROWS:,} clips ({size / 1e6:.0f} MB of float16), warm\n\n"
        + table(["way", "ms", "GB/s", "× np.fromfile"], rows)
        + "\nThe limit is memory bandwidth: each byte is copied once from the disk cache. float32 writes three times as much.\n"
    )
    return text, reading["np.fromfile"] / reading["tonelake, float16"]
