"""A run on disk: one folder below `probes/` of the lake, readable without tonelake.

    config.yaml            every setting, resolved; written first
    manifest.json          digests of the data that decide the results: clips, sets, class names, tracks, … (`store.manifest`)
    partial/               finished fits, while the run trains
    weights.safetensors    the chosen fits for every seed and fold, with the preparation of their vectors
    fits.parquet           every fit of the grid: layer, rate, decay, seed, fold, epochs, score, loss
    history.parquet        each epoch of each fit: loss, top-1 and top-5 on the training batches and the validation clips
    layers.parquet         each layer at its best setting, with metrics and intervals
    decays.parquet         each weight decay at its best layer and rate, if several were tried
    classes.parquet        each class or tag
    predictions.parquet    each test clip
    training_predictions.parquet   each training and validation clip, by the final weights
    split.parquet          the set (train, valid, test) of each clip in each fold
    confusion.parquet      confusion of classes
    report.md, *.png       report and plots
    metrics.json           metrics, baselines, leaks; written last, so its presence marks the run as finished
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import polars as pl

from tonelake.probes.config import ProbeConfig
from tonelake.store import CONFIG_FILE, Blobs, FinishedRun, InputError, Lake, LakeError

if TYPE_CHECKING:
    from tonelake.probes.heads import Tensors

WEIGHTS = "weights.safetensors"


class Run(FinishedRun[ProbeConfig]):
    """A finished probe on pooled vectors.  Runs on frames are `frames.run.FrameRun`, in the same folder."""

    kind, noun, maker, settings = "probes", "run", "tonelake probe COLUMN", ProbeConfig
    types: ClassVar[dict[str, type]] = {
        "main": str, "task": str, "space": str, "figures": dict, "baselines": dict, "clips": int, "fits": int,
    }

    @classmethod
    def find(cls, lake: Lake, name: str) -> Self | None:
        """The finished run of exactly that name, or None.  Raises InputError for a run on frames."""
        if is_on_frames(cls.folder(lake, name)):
            raise InputError(f"run {name!r}: was trained on frames. Use it with frame_run, probe_frames and predict_events")
        return super().find(lake, name)

    @classmethod
    def all(cls, lake: Lake) -> list[Self]:
        """All finished runs on pooled vectors, oldest first."""
        names = [name for name in lake.files(cls.kind).folders() if not is_on_frames(cls.folder(lake, name))]
        found = [run for run in (cls.find(lake, name) for name in names) if run is not None]
        return sorted(found, key=lambda run: (run.metrics["finished"], run.name))

    def weights(self) -> Tensors:
        """Return tensors by name: `<fold>.<seed>.<parameter>`, `<fold>.prepare.mean` and `<fold>.prepare.scale`."""
        return read_tensors(self.files, WEIGHTS, self.name)


def is_on_frames(files: Blobs) -> bool:
    """Return whether a run, started or finished, is a frame probe: its settings name the segments of frames."""
    stored = files.read(CONFIG_FILE)
    return stored is not None and any(line.startswith("segment_s:") for line in stored.splitlines())


def check_kind(files: Blobs, name: str, *, on_frames: bool) -> None:
    """Raise InputError if a run of that name exists and is of the other kind."""
    if files.read(CONFIG_FILE) is not None and is_on_frames(files) != on_frames:
        raise InputError(f"run {name!r}: is a probe on {'pooled vectors' if on_frames else 'frames'}. Choose another --name")


def write_table(files: Blobs, name: str, table: pl.DataFrame) -> None:
    def write(path: Path) -> None:
        table.write_parquet(path)

    files.put(f"{name}.parquet", write)


def write_tensors(files: Blobs, name: str, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    from safetensors.torch import save_file

    def write(path: Path) -> None:
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, path, metadata=metadata)

    files.put(name, write)


def read_tensors(files: Blobs, name: str, run: str) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with files.fetched(name) as path:
        if path is None:
            raise LakeError(f"run {run!r}: {name} is missing. Train it again with --again")
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise LakeError(f"run {run!r}: {name} cannot be read ({error}). Train it again with --again") from error
