"""The work that bench.chaos kills: six kinds, the lakes they use, and the child process that does them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonelake.embed import Encoder, Pooled

HOME = Path(__file__).resolve().parent.parent
TINY = HOME / "tests" / "data" / "mert" / "95M-tiny"
WIDE_ROWS, WIDE_DIM = 1_200, 32


class Tones(Encoder):
    """A fast encoder for tests with two layers: band energies of frames of 100 samples."""

    name, revision, location = "tones", "1", "tones"
    sample_rate, layers, dims, default_layer = 8_000, ("0", "1"), (8, 16), 1
    frame_samples, frame_offset = 100, 50

    def encode(self, windows: np.ndarray, keep: Any = None, frames: Sequence[int] = ()) -> Any:
        time.sleep(0.002)                # so that a kill can occur between two clips
        cut = windows[:, : windows.shape[1] // 100 * 100].reshape(len(windows), -1, 100)
        spectra = np.abs(np.fft.rfft(cut, axis=2))
        states = [spectra[:, :, 1 : dim + 1].astype(np.float32) for dim in self.dims]
        return Pooled([s.mean(axis=1) for s in states], [s.max(axis=1) for s in states], np.full(len(windows), cut.shape[1]))


# -- the work, done by the child and again by its parent


def ingest_work(home: Path) -> None:
    from tonelake.ingest import ingest_folder
    from tonelake.store import Lake

    ingest_folder(Lake(home / "lake"), home / "music", seconds=1.0, workers=1)


def embed_work(home: Path) -> None:
    embed_into(home / "lake")


def embed_into(path: Path) -> None:
    from tonelake.embed.pipeline import embed_clips
    from tonelake.embed.settings import describe_space
    from tonelake.ingest import read_clips
    from tonelake.store import Lake

    lake, encoder = Lake(path), Tones()
    embed_clips(lake, lake.spaces.make(describe_space(encoder, "tones", 30.0)), encoder, read_clips, workers=1)


def index_work(home: Path) -> None:
    from tonelake.index import build_index
    from tonelake.store import Lake

    lake = Lake(home / "wide")
    build_index(lake, lake.spaces.get("wide"), 0, kind="hnsw")


def probe_work(home: Path) -> None:
    import tonelake

    lake = tonelake.open(home / "wide", create=False)
    lake.probe(
        "artist", epochs=30, seeds=2, layers=("0",), rates=(1e-2, 1e-3), decays=(0.0,), split="random", again=True,
        name=name_of_probe(lake),
    )


def name_of_probe(lake: Any) -> str:
    """Return a run name for the present set of clips: one name must mean one set."""
    return f"chaos-{lake.clips.count()}"


def finetune_work(home: Path) -> None:
    import tonelake

    tonelake.open(home / "tune", create=False).finetune(
        "artist", space="tiny", epochs=2, split="random", device="cpu", name="chaos", again=True, workers=1
    )


WORK: dict[str, Callable[[Path], None]] = {
    "ingest": ingest_work, "embed": embed_work, "two writers": embed_work, "index": index_work, "probe": probe_work,
    "finetune": finetune_work,
}


def child(kind: str, home: Path) -> None:
    """Import the modules that the work needs, report readiness, and start on a signal."""
    if kind in ("probe", "finetune"):
        import torch  # noqa: F401
    if kind == "index":
        import faiss  # noqa: F401
    import tonelake  # noqa: F401

    print("ready", flush=True)
    sys.stdin.readline()
    WORK[kind](home)
    print("done", flush=True)


# -- the lakes


def make_home(home: Path) -> None:
    """Make three lakes: one that grows, one with many vectors, one to fine-tune on."""
    import tonelake
    from tonelake.store import Lake, Space

    add_music(home, 6, seed=0)
    lake = Lake(home / "wide")
    rng = np.random.default_rng(0)
    number = np.arange(WIDE_ROWS)
    lake.clips.add(wide_rows(number))
    space = lake.spaces.make(Space(
        name="wide", revision="1", sample_rate=8_000, layers=("0",), dims=(WIDE_DIM,),
        window_s=1.0, hop_s=1.0, precision="float32"
    ))
    add_vectors(lake, space, number, rng)
    tune = tonelake.open(home / "tune", progress=False)
    add_music(home / "tuned", 12, seed=9)
    tune.ingest_folder(home / "tuned" / "music", seconds=1.0)
    tune.embed(str(TINY), space="tiny", precision="float32", device="cpu")


def wide_rows(number: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({
        "clip_id": [f"{n:020x}" for n in number], "track": [f"t{n // 4}" for n in number], "source": "made:x", "digest": "00",
        "start_s": (number % 4).astype(float), "duration_s": 1.0, "cut": "1s", "artist": [f"a{n // 4 % 5}" for n in number],
    })


def add_vectors(lake: Any, space: Any, number: np.ndarray, rng: np.random.Generator) -> None:
    vectors = (rng.standard_normal((len(number), WIDE_DIM)) + (number // 4 % 5)[:, None]).astype(np.float32)
    lake.vectors(space).add([f"{n:020x}" for n in number], [vectors], [vectors], [1] * len(number))


def add_music(home: Path, files: int, seed: int) -> None:
    """Write files of noise, a few seconds long, by two artists."""
    import soundfile

    folder = home / "music"
    known = len(list(folder.rglob("*.wav"))) if folder.is_dir() else 0
    rng = np.random.default_rng((seed, known))           # all files differ: copies would be one clip
    for n in range(known, known + files):
        path = folder / f"artist{n % 2}" / f"f{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        time_s = np.arange(round(8_000 * rng.uniform(2, 6))) / 8_000
        sound = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 900) * time_s) + 0.05 * rng.standard_normal(len(time_s))
        with soundfile.SoundFile(path, "w", 8_000, 1, subtype="PCM_16") as file:
            file.artist = f"Artist {n % 2}"
            file.write(sound)


def prepare(kind: str, home: Path, turn: int) -> None:
    """Add input for the work."""
    if kind in ("ingest", "embed", "two writers"):
        add_music(home, 3, seed=100 + turn)
        if kind != "ingest":
            ingest_work(home)
    elif kind == "index":
        from tonelake.store import Lake

        lake = Lake(home / "wide")
        number = np.arange(lake.clips.count(), lake.clips.count() + 40)
        lake.clips.add(wide_rows(number))
        add_vectors(lake, lake.spaces.get("wide"), number, np.random.default_rng((1, turn)))
