"""The frozen baseline: the head of a fine-tuning, trained in the same way on the pooled layers of the unchanged encoder.

Head, initial weights, layers, pooling, loss, optimizer, schedule, batches, early stopping and seed equal the fine-tuning's; the
one difference is that the encoder has no adapter.  So the layers of a clip are pooled once and read from a file afterwards:

    pooled-<version>-….bin     (clip, layer, 2 · dim) float32, in the run's work folder

Version 0 is the centre crop.  Where crops or augmentation vary from epoch to epoch, training clips have VERSIONS more, those of
the fine-tuning's first epochs, which the epochs of the baseline use in turn.  A killed process resumes after the last clip.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from tonelake.finetune.augment import augment
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.data import AudioSource, ClipDataset, FrameSource
from tonelake.finetune.model import FrozenModel, Head, LoraModel
from tonelake.finetune.resolved import Setup
from tonelake.finetune.trainer import Finetuner, train_from_last_checkpoint
from tonelake.store import LakeError, Progress

VERSIONS = 4


class PooledSource:
    """Pooled layers of clips, read from files: a source of `ClipDataset`."""

    def __init__(self, count: int) -> None:
        """`count`: rows of the whole task."""
        self.versions: list[list[np.ndarray]] = []                   # the shards of each version
        self.places: list[np.ndarray] = []                           # (row,) index of a row in each version, -1 without
        self.count = count

    def add(self, shards: list[np.ndarray], order: np.ndarray) -> None:
        """Add a version: `order` (clip,) rows; clip i of it is in shard i % len(shards)."""
        place = np.full(self.count, -1)
        place[order] = np.arange(len(order))
        self.versions.append(shards)
        self.places.append(place)

    def read(self, rows: np.ndarray, epoch: int | None) -> dict[str, Any]:
        version = 0 if epoch is None or len(self.versions) == 1 else 1 + epoch % (len(self.versions) - 1)
        shards, places = self.versions[version], self.places[version][rows]
        return {"pooled": torch.from_numpy(np.stack([shards[i % len(shards)][i // len(shards)] for i in places]))}


def pool_clips(setup: Setup, model: LoraModel, source: AudioSource | FrameSource, work: Path) -> PooledSource:
    """Pool the layers of every clip of the split by the encoder without its adapter, and return them.

    Processes of one machine share the work.  Raises LakeError if the disk is full.
    """
    config, split = setup.config, setup.split
    state = PartialState(cpu=config.device == "cpu")
    shards, shard = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(state.local_process_index)
    model.to(state.device).eval()
    pooled = PooledSource(len(setup.task))
    rng = np.random.default_rng((config.seed, 3))
    versions: list[tuple[int | None, np.ndarray]] = [(None, np.sort(np.concatenate([split.train, split.valid, split.test])))]
    if varies(setup):
        versions += [(epoch, rng.permutation(split.train)) for epoch in range(min(VERSIONS, config.epochs))]
    for number, (epoch, order) in enumerate(versions):
        digest = hashlib.blake2b(np.ascontiguousarray(order, np.int64).tobytes(), digest_size=6).hexdigest()
        names = [work / f"pooled-{number}-{i}-{shards}-{digest}.bin" for i in range(shards)]
        mine = order[shard::shards]
        shape = pooled_shape(model)

        def encode(rows: np.ndarray, epoch: int | None = epoch) -> np.ndarray:
            return pool_batch(model, source, rows, epoch, setup, state.device)

        append_pooled(names[shard], mine, shape, int(config.batch or 1), encode, setup.lake.progress)
        state.wait_for_everyone()
        pooled.add([np.memmap(name, "<f4", "r").reshape(-1, *shape) if name.stat().st_size else np.zeros((0, *shape), "<f4")
                    for name in names], order)
    return pooled


def varies(setup: Setup) -> bool:
    """Return whether a training clip differs between epochs: by augmentation, or by a random crop."""
    seconds = setup.task.clips["duration_s"].to_numpy()[setup.split.train]
    return bool(setup.config.augments) or bool(seconds.max(initial=0.0) > setup.config.crop_s)


def clips_to_pool(setup: Setup) -> int:
    """Return how many clips `pool_clips` encodes, each version of a clip counted."""
    split, versions = setup.split, min(VERSIONS, setup.config.epochs) if varies(setup) else 0
    return len(split.train) * (1 + versions) + len(split.valid) + len(split.test)


def pooled_bytes(model: LoraModel) -> int:
    """Return the size of a clip's pooled layers."""
    return 4 * int(np.prod(pooled_shape(model)))


def pooled_shape(model: LoraModel) -> tuple[int, int]:
    """Return (layer, width) of a clip's pooled layers."""
    return len(model.head.layer_scores), int(model.head.norm.normalized_shape[0])


def append_pooled(
    path: Path, order: np.ndarray, shape: tuple[int, int], batch: int, encode: Callable[[np.ndarray], np.ndarray],
    progress: Progress,
) -> None:
    """Append the pooled layers of those rows in `order` that the file does not hold yet."""
    size = 4 * shape[0] * shape[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        begin = count_complete(path, shape)
        if begin < len(order):
            begin -= begin % batch               # augmentation can mix the clips of a batch

        def batches() -> Iterator[np.ndarray]:
            for first in range(begin, len(order), batch):
                yield encode(order[first : first + batch])

        with path.open("r+b") as file:
            file.truncate(begin * size)
            file.seek(0, os.SEEK_END)
            for part in progress(batches(), -(-(len(order) - begin) // batch), "pooling for the frozen baseline"):
                file.write(np.ascontiguousarray(part, "<f4").tobytes())
                file.flush()
    except OSError as error:
        raise LakeError(
            f"{path.parent}: cannot store the pooled layers, {len(order) * size / 1e9:.1f} GB ({error.strerror or error}). "
            "Free some space, run again"
        ) from error


def count_complete(path: Path, shape: tuple[int, int]) -> int:
    """Return the number of clips in a file before the first that is cut off, or zero after a loss of power."""
    whole = path.stat().st_size // (4 * shape[0] * shape[1])
    if not whole:
        return 0
    stored = np.memmap(path, "<f4", "r", shape=(whole, *shape))
    zero = np.array([not clip.any() for clip in stored])
    return int(zero.argmax()) if zero.any() else whole


def pool_batch(
    model: LoraModel, source: AudioSource | FrameSource, rows: np.ndarray, epoch: int | None, setup: Setup, device: torch.device
) -> np.ndarray:
    """Return (clip, layer, 2 · dim) float32 of clips, cropped and augmented as in an epoch of training (None: centre crops)."""
    config = setup.config
    inputs = source.read(rows, epoch)
    audio = [samples.to(device) for samples in inputs.get("audio", ())]
    frames = [[part.to(device) for part in windows] for windows in inputs.get("frames", ())]
    with (
        torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"),
        model.peft.disable_adapter(),
    ):
        if epoch is not None and config.augments:
            audio = augment(audio, rows.tolist(), setup.task.track, config, model.rate, epoch)
        return model.pooled(audio, frames).float().cpu().numpy()


def train_frozen_head(
    setup: Setup, head: Head, weights: torch.Tensor | None, pooled: PooledSource, work: Path
) -> tuple[FrozenModel, list[dict[str, float]]]:
    """Train a copy of an untrained head on pooled layers as the fine-tuning is trained; return it with its history."""
    config: FinetuneConfig = setup.config
    model = FrozenModel(copy.deepcopy(head).cpu(), config, None if weights is None else weights.detach().cpu().clone())
    train, valid = (
        ClipDataset(pooled, rows, setup.labels[rows]) for rows in (setup.split.train, setup.split.valid)
    )
    primary = setup.primary_class()[setup.split.valid]
    trainer = Finetuner(model, config, train, valid, setup.task.track, work, primary, quiet=True)
    train_from_last_checkpoint(trainer, work)
    return model, trainer.state.log_history
