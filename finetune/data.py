"""Inputs of a training step: rows of a task -> cropped audio of clips, or stored frames of one layer.

A row's crop depends on the seed, the epoch and the row; outside training it is the centre crop.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from tonelake.embed import MIN_TAIL_S, place_windows
from tonelake.finetune.audio import Audio
from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.stem_mixing import MixPart, StemMixer
from tonelake.store import InputError, Lake, Space


class ClipSource(Protocol):
    """Reads inputs of `HeadModel.forward` for rows of a task."""

    def read(self, rows: np.ndarray, epoch: int | None) -> dict[str, Any]: ...


class ClipDataset(Dataset):
    """Rows of a task with their targets; `epoch` seeds the random crop, None uses the centre crop."""

    def __init__(self, source: ClipSource, rows: np.ndarray, targets: np.ndarray) -> None:
        self.source, self.rows, self.targets = source, rows, targets
        self.epoch: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> tuple[ClipDataset, int]:
        return self, item

    def batch(self, items: Sequence[int]) -> dict[str, Any]:
        """Return the keyword arguments of the model's `forward`."""
        rows = self.rows[list(items)]
        return {
            "labels": torch.from_numpy(self.targets[list(items)]), "rows": torch.from_numpy(rows),
            **self.source.read(rows, self.epoch),
        }


def collate(items: Sequence[tuple[ClipDataset, int]]) -> dict[str, Any]:
    """Read items of one data set as a batch."""
    return items[0][0].batch([item for _, item in items])


class AudioSource:
    """Decoded audio of clips; with a mixer, training clips are mixed with stems of training tracks."""

    def __init__(
        self, audio: Audio, ids: Sequence[str], config: FinetuneConfig, rate: int, mixer: StemMixer | None = None
    ) -> None:
        self.audio, self.ids, self.config, self.rate, self.mixer = audio, ids, config, rate, mixer

    def with_seed(self, seed: int) -> AudioSource:
        """Return a source of the same audio with other random crops and mixes."""
        mixer = self.mixer and self.mixer.with_seed(seed)
        return AudioSource(self.audio, self.ids, replace(self.config, seed=seed), self.rate, mixer)

    def use(self, setup: Any) -> None:
        """Take a setup without clips that cannot be read; nothing changes for audio alone."""

    def read(self, rows: np.ndarray, epoch: int | None) -> dict[str, Any]:
        return {"audio": [torch.from_numpy(self.sound(int(row), self.parts(int(row), epoch))) for row in rows]}

    def parts(self, row: int, epoch: int | None) -> list[MixPart]:
        """Return what is heard in place of a clip: itself, from the first sample of its crop on, or a mix."""
        clip, crop = self.ids[row], round(self.config.crop_s * self.rate)
        spare = max(self.audio.length(clip) - crop, 0)
        begin = spare // 2
        if epoch is not None and spare:
            begin = int(np.random.default_rng((self.config.seed, 1, epoch, row)).integers(spare + 1))
        if epoch is None or self.mixer is None:
            return [MixPart(clip, begin, 1.0)]
        return self.mixer.draw(clip, row, epoch, begin, crop, self.audio.length)

    def sound(self, row: int, parts: Sequence[MixPart]) -> np.ndarray:
        """Return (samples,) float32, the sum of parts at their gains; as long as the clip's own crop."""
        crop = round(self.config.crop_s * self.rate)
        if len(parts) == 1 and parts[0].gain == 1:
            return self.audio.read(parts[0].clip, parts[0].begin, crop)
        total = np.zeros(min(self.audio.length(self.ids[row]), crop), np.float32)
        for part in parts:
            own = self.audio.read(part.clip, part.begin, len(total))
            total[: len(own)] += np.float32(part.gain) * own
        return total


class FrameSource:
    """Stored frames of one layer, in the windows of the space.

    Exact if windows do not overlap: each was encoded alone, from its first frame to its last, so the blocks above get their
    usual input.  The remaining difference is that stored frames are float16.
    """

    def __init__(
        self, lake: Lake, space: Space, ids: Sequence[str], seconds: np.ndarray, config: FinetuneConfig,
        frames_of: Callable[[int], int],
    ) -> None:
        """`seconds`: (row,) the length of each clip; `frames_of`: samples -> number of frames of the encoder.

        Raises InputError if frames are missing or windows overlap.
        """
        if space.hop_s < space.window_s:
            raise InputError(
                f"space {space.name!r}: its windows overlap, and their frames are stored once. Train from the audio, or embed "
                "without --hop"
            )
        self.stored = lake.frames(space).reader(ids, config.above)
        self.seconds, self.config, self.frames_of = seconds, config, frames_of
        self.rate, self.window_s = space.sample_rate, space.window_s

    def use(self, setup: Any) -> None:
        """Take a setup without clips that cannot be read; nothing changes for stored frames."""

    def with_seed(self, seed: int) -> FrameSource:
        """Return a source of the same frames with other random crops."""
        other = copy.copy(self)
        other.config = replace(self.config, seed=seed)
        return other

    def read(self, rows: np.ndarray, epoch: int | None) -> dict[str, Any]:
        stored = self.stored(rows.tolist())
        return {"frames": [self.windows(frames, int(row), epoch) for frames, row in zip(stored, rows, strict=True)]}

    def windows(self, frames: np.ndarray, row: int, epoch: int | None) -> list[torch.Tensor]:
        """Return the frames of a clip's windows, as many windows as fit in a crop."""
        size = round(self.window_s * self.rate)
        samples = round(float(self.seconds[row]) * self.rate)
        windows = place_windows(samples, size, size, round(MIN_TAIL_S * self.rate))
        lengths = [self.frames_of(window.end - window.begin) for window in windows]
        lengths[-1] += len(frames) - sum(lengths)                    # decoding can give a few samples more or less
        ends = np.cumsum(lengths)
        parts = [frames[end - length : end] for length, end in zip(lengths, ends, strict=True)]
        spare = max(len(parts) - max(1, int(self.config.crop_s // self.window_s)), 0)
        begin = spare // 2
        if epoch is not None and spare:
            begin = int(np.random.default_rng((self.config.seed, 1, epoch, row)).integers(spare + 1))
        return [torch.from_numpy(np.array(part)) for part in parts[begin : len(parts) - spare + begin]]
