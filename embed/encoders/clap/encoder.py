"""CLAP: (batch, samples) float32 at 48 kHz -> the stages of HTSAT and the joint space of sounds and words.

The model takes 10 s at once.  A window is cut into parts of 10 s, evenly spaced from its beginning to its end: three for a
window of 30 s, overlapping for one of 25 s.  A rest of less than a second adds no part.  A sound shorter than 10 s is repeated
until it fills a part; it is never padded with silence, and nothing is cut at random, as transformers' own preprocessor does.
Each part has its share of the window: the mean of a layer is the mean over parts.  CLAP: arXiv 2211.06687.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed.encoders.base import FrameSpan, Pooled, check_frames
from tonelake.embed.encoders.clap.checkpoint import AUDIO, read_front_end, read_side
from tonelake.embed.encoders.torch_encoder import TorchEncoder
from tonelake.embed.errors import CheckpointError
from tonelake.embed.kernels.choice import Sizes, choose_block_kernels
from tonelake.store import InputError

JOINT = "joint"
MIN_REST_S = 1.0                         # a shorter rest of a window adds no part


class ClapEncoder(TorchEncoder):
    """An encoder loaded from a checkpoint folder of an unfused CLAP model."""

    text_layer = JOINT
    has_frames = False
    cast_parts = ("audio_model.", "audio_projection.")

    def __init__(self, folder: Path, *, name: str | None = None, location: str | None = None, device: str = "cpu") -> None:
        """Load the audio side in float32; see `at`.  Raises CheckpointError if the folder is not exactly such a checkpoint."""
        from tonelake.embed.encoders.clap.network import ClapAudio

        self.name = name or folder.name
        self.location = location or str(folder.absolute())
        self._folder, front = folder, read_front_end(folder)
        self.sample_rate, self._part = front.sampling_rate, front.samples
        model, self.revision = read_side(folder, AUDIO)
        audio = model.config.audio_config
        if audio.num_mel_bins != front.feature_size:
            raise CheckpointError(
                f"{folder}: its spectrogram has {front.feature_size} bands, its model takes {audio.num_mel_bins}. Fetch the "
                "checkpoint again"
            )
        if front.samples // front.hop_length + 1 > audio.spec_size * (audio.spec_size // audio.num_mel_bins):
            raise CheckpointError(
                f"{folder}: {front.max_length_s:g} s are longer than its model takes. Fetch the checkpoint again"
            )
        self._place(ClapAudio(front, model).eval(), device)
        stages = len(audio.depths)
        self.layers = (*(f"stage{number}" for number in range(1, stages + 1)), JOINT)
        self.dims = (*(audio.patch_embeds_hidden_size * 2**stage for stage in range(stages)), model.config.projection_dim)
        self.default_layer = stages
        self.text_scale = float(model.logit_scale_a.exp())
        self.frame_samples = front.hop_length
        self._text: list[Any] = []       # the text side, once words are used; shared by `at`
        self._reading, self._choosing = threading.Lock(), threading.Lock()

    def frames_of(self, samples: int) -> int:
        """Number of frames of the spectrogram, by which parts are weighed; they are not states of their own."""
        return max(1, samples // self.frame_samples)

    def prepare(self, samples: int) -> None:
        """Choose the kernels; on CUDA, measure how many windows of this length fit into memory."""
        self._own_model(samples)
        if self.device.startswith("cuda"):
            self._batches.measure(samples, lambda windows: self._run(windows, unchanged))

    def _own_model(self, samples: int) -> Any:
        """The model, once its kernels are chosen, for windows of the first length seen."""
        with self._choosing:
            if self.kernels is None and self.device == "cpu" and self.precision == "bfloat16":
                model, audio = self._model, self._model.audio_model.config
                stage = model.deepest
                height, width = model.grid(stage)
                hidden, heads = self.dims[stage], audio.num_attention_heads[stage]
                sizes = Sizes(
                    heads=heads, width=hidden // heads, hidden=hidden, inner=round(audio.mlp_ratio * hidden), channels=0,
                    windows=len(self._starts(samples)), frames=height * width, precision=self.precision,
                )
                self._use(choose_block_kernels(model, sizes, self._install), sizes)
        return self._model

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) of one length -> every layer, pooled over the parts that `keep` touches, by their shares of it.

        Raises EncoderError if the device lacks memory for a single window.
        """
        check_frames(self, frames)
        total, parts = self.frames_of(windows.shape[1]), len(self._starts(windows.shape[1]))
        counted = [slice(*span).indices(total)[:2] for span in keep or [(0, None)] * len(windows)]
        bounds = np.linspace(0, total, parts + 1)
        shares = np.array([np.clip(last, bounds[:-1], bounds[1:]) - np.clip(first, bounds[:-1], bounds[1:])
                           for first, last in counted])[:, :, None]              # (window, part, 1) frames
        every = [
            [pair[: (rows.stop - rows.start) * parts].cpu().numpy().reshape(-1, parts, pair.shape[-1]) for pair in pairs]
            for rows, pairs in self._batches.run(
                windows, lambda batch, rows: (rows, [side for pair in self._run(batch, unchanged) for side in pair])
            )
        ]
        layers = [np.concatenate(chunk) for chunk in zip(*every, strict=True)]   # mean and maximum of each layer, in turn
        counts = shares.sum(axis=1)
        means = [((layer * shares).sum(axis=1) / np.maximum(counts, 1)).astype(np.float32) for layer in layers[0::2]]
        maxima = [np.where(shares > 0, layer, -np.inf).max(axis=1).astype(np.float32) for layer in layers[1::2]]
        return Pooled(means, maxima, counts[:, 0].astype(np.int64))

    def encode_text(self, prompts: Sequence[str]) -> np.ndarray:
        """(prompt, dim) float32 of unit length, comparable with layer `joint`; always computed in float32.

        Raises InputError for a prompt that is longer than those of the training, CheckpointError if the folder's tokenizer or
        text model is refused.
        """
        from tonelake.embed.encoders.clap.text import ClapText

        with self._reading:
            if not self._text:
                self._text.append(ClapText(self._folder, self.revision, self.device))
        return self._text[0].encode(prompts)

    def _starts(self, samples: int) -> list[int]:
        """First samples of the parts of a window, after a short one was repeated."""
        samples = max(samples, self._part)
        rest = samples - round(MIN_REST_S * self.sample_rate)
        count = max(1, -(-rest // self._part))
        if count == 1:
            return [(samples - self._part) // 2]
        return [int(start) for start in np.linspace(0, samples - self._part, count).round()]

    def _input(self, batch: Any) -> Any:
        """(window, samples) -> (window · part, samples of a part), the parts of a window in order of time."""
        import torch

        if batch.shape[1] < self._part:
            batch = batch.repeat(1, -(-self._part // batch.shape[1]))[:, : self._part]
        starts = self._starts(batch.shape[1])
        return torch.stack([batch[:, start : start + self._part] for start in starts], dim=1).flatten(0, 1)

    def _run_layers(self, model: Any, batch: Any, reduce: Callable[[Any], Any]) -> list[Any]:
        return [reduce(pair) for pair in model(batch)]

    def _run_up_to(self, model: Any, batch: Any, layer: int) -> Any:
        raise InputError(f"encoder {self.name!r}: has no frames. Choose an encoder that has, such as small")


def unchanged(pair: Any) -> Any:
    """A layer's mean and maximum as they are."""
    return pair
