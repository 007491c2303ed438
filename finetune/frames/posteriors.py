"""Probabilities of a model at the frames of whole clips, kept on disk while settings of the decoder are chosen on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import polars as pl
import torch

from tonelake.finetune.config import FinetuneConfig
from tonelake.finetune.frames.source import EventSource, WholeClip

DecodedClip = tuple[np.ndarray, np.ndarray, pl.DataFrame, float]     # probabilities, frame_s, reference events, duration_s


class StoredPosteriors(Sequence[DecodedClip]):
    """Probabilities of clips in a file of float16, read one clip at a time, with frame times, events and lengths."""

    def __init__(self, path: Path, outputs: int) -> None:
        self.path, self.outputs = path, outputs
        self.clips: list[tuple[int, WholeClip]] = []         # first row in the file
        self.rows = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")

    def add(self, clip: WholeClip, probabilities: np.ndarray) -> None:
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(probabilities, "<f2").tobytes())
        self.clips.append((self.rows, clip._replace(pieces=[])))
        self.rows += len(probabilities)

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, number: int) -> DecodedClip: ...
    @overload
    def __getitem__(self, number: slice) -> list[DecodedClip]: ...

    def __getitem__(self, number: int | slice) -> DecodedClip | list[DecodedClip]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        first, clip = self.clips[number]
        shape = (len(clip.frame_s), self.outputs)
        stored = np.fromfile(self.path, "<f2", shape[0] * shape[1], offset=2 * first * self.outputs)
        return stored.reshape(shape).astype(np.float32), clip.frame_s, clip.events, clip.duration_s


def clip_logits(
    model: Any, source: EventSource, rows: np.ndarray, config: FinetuneConfig
) -> Iterator[tuple[WholeClip, torch.Tensor]]:
    """Yield whole clips with their (frame, output) float32 logits on the model's device, in evaluation mode."""
    device = next(model.parameters()).device
    mode = model.training
    model.eval()
    try:
        for clip in source.whole(rows):
            found = []
            for piece in clip.pieces:
                with (
                    torch.inference_mode(),
                    torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"),
                ):
                    (logits,) = model(audio=[torch.from_numpy(piece).to(device)])["logits"]
                found.append(logits.float())
            yield clip, torch.cat(found)
    finally:
        model.train(mode)


def probabilities(kind: str, logits: torch.Tensor) -> np.ndarray:
    """Return (frame, output) probabilities: of independent outputs, or of classes."""
    return (logits.softmax(dim=1) if kind == "multiclass" else logits.sigmoid()).cpu().numpy()
