"""What a step is given: rows of a task -> the audio of clips, or the stored frames of one layer, cut to what is heard.

A row's crop follows from the seed, the epoch and the row; where clips are judged it is the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from tonelake.embed import MIN_TAIL_S, place_windows
from tonelake.finetune.audio import Audio
from tonelake.finetune.config import FinetuneConfig
from tonelake.store import InputError, Lake, Space


class Clips(Dataset):
    """Rows of a task with their targets; `epoch` says by chance which crop is heard, None: the middle."""

    def __init__(self, source: Waves | States, rows: np.ndarray, targets: np.ndarray) -> None:
        self.source, self.rows, self.targets = source, rows, targets
        self.epoch: int | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[Clips, int]:
        return self, place

    def batch(self, places: Sequence[int]) -> dict[str, Any]:
        """What `Tuned.forward` takes."""
        rows = self.rows[list(places)]
        return {
            "labels": torch.from_numpy(self.targets[list(places)]), "rows": torch.from_numpy(rows),
            **self.source.read(rows, self.epoch),
        }


def collate(items: Sequence[tuple[Clips, int]]) -> dict[str, Any]:
    """Places of one data set, read together."""
    return items[0][0].batch([place for _, place in items])


class Waves:
    """Decoded audio."""

    def __init__(self, audio: Audio, ids: Sequence[str], config: FinetuneConfig, rate: int) -> None:
        self.audio, self.ids, self.config, self.rate = audio, ids, config, rate

    def read(self, rows: np.ndarray, epoch: int | None) -> dict[str, Any]:
        crop = round(self.config.crop_s * self.rate)
        waves = []
        for row in rows:
            clip = self.ids[row]
            spare = max(self.audio.length(clip) - crop, 0)
            begin = spare // 2
            if epoch is not None and spare:
                begin = int(np.random.default_rng((self.config.seed, 1, epoch, int(row))).integers(spare + 1))
            waves.append(torch.from_numpy(self.audio.read(clip, begin, crop)))
        return {"waves": waves}


class States:
    """The stored frames of one layer: windows of the space, as they were embedded.

    Exact where windows do not overlap: each was encoded alone, from its first frame to its last, so the blocks above see what
    they would see.  What is left is that stored frames are float16.
    """

    def __init__(
        self, lake: Lake, space: Space, ids: Sequence[str], seconds: np.ndarray, config: FinetuneConfig,
        frames_of: Callable[[int], int],
    ) -> None:
        """`seconds`: (row,) the length of each clip; `frames_of`: how many frames the encoder makes of so many samples.

        Raises InputError where frames are missing or windows overlap.
        """
        if space.hop_s < space.window_s:
            raise InputError(
                f"the windows of space {space.name!r} overlap, and their frames are stored once: train from the audio, or "
                "embed without --hop"
            )
        self.stored = lake.frames(space).reader(ids, config.above)
        self.seconds, self.config, self.frames_of = seconds, config, frames_of
        self.rate, self.window_s = space.sample_rate, space.window_s

    def read(self, rows: np.ndarray, epoch: int | None) -> dict[str, Any]:
        found = self.stored(rows.tolist())
        return {"states": [self.windows(states, int(row), epoch) for states, row in zip(found, rows, strict=True)]}

    def windows(self, states: np.ndarray, row: int, epoch: int | None) -> list[torch.Tensor]:
        """A clip's frames, cut where its windows were, and as many of these as a crop holds."""
        window = round(self.window_s * self.rate)
        samples = round(float(self.seconds[row]) * self.rate)
        places = place_windows(samples, window, window, round(MIN_TAIL_S * self.rate))
        lengths = [self.frames_of(place.end - place.begin) for place in places]
        lengths[-1] += len(states) - sum(lengths)                    # decoding may give a few samples more or less
        ends = np.cumsum(lengths)
        parts = [states[end - length : end] for length, end in zip(lengths, ends, strict=True)]
        spare = max(len(parts) - max(1, int(self.config.crop_s // self.window_s)), 0)
        begin = spare // 2
        if epoch is not None and spare:
            begin = int(np.random.default_rng((self.config.seed, 1, epoch, row)).integers(spare + 1))
        return [torch.from_numpy(np.array(part)) for part in parts[begin : len(parts) - spare + begin]]
