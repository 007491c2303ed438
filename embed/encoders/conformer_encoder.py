"""Encoders whose model is a conformer: an encoder in bfloat16 on a CPU measures which kernels are the fastest here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tonelake.embed.encoders.base import FrameSpan, Pooled
from tonelake.embed.encoders.torch_encoder import TorchEncoder
from tonelake.embed.encoders.training import TrainingPass
from tonelake.embed.kernels import linear
from tonelake.embed.kernels.choice import Kernels, Sizes, choose_conformer_kernels
from tonelake.store import InputError


class ConformerEncoder(TorchEncoder):
    """A `TorchEncoder` whose model is a `embed.encoders.conformer.ConformerNetwork`."""

    trainable = True
    _least: int                          # samples of the shortest window
    _choosing = threading.Lock()         # clips that go apart come to the choice at the same time

    def _declare(self, sizes: Any, fft: int) -> None:
        """Set the layers and frames of a model: layer 0 enters the first block, layer i leaves block i."""
        self.layers = tuple(str(i) for i in range(sizes.blocks + 1))
        self.dims = (sizes.hidden,) * (sizes.blocks + 1)
        self.frame_samples = sizes.step
        self._least = fft // 2 + 1       # the reflection at the ends of the spectrogram needs that many
        self.frame_field = max(self.frame_samples, self._least)

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) of one length at `sample_rate` -> every layer, pooled.

        Raises InputError for windows that are too short, EncoderError if the device lacks memory for a single window.
        """
        self._check_length(windows.shape[1])
        return super().encode(windows, keep, frames)

    def states(self, window: np.ndarray, layer: int) -> np.ndarray:
        self._check_length(len(window))
        return super().states(window, layer)

    def states_of(self, window: np.ndarray, layers: Sequence[int]) -> list[np.ndarray]:
        self._check_length(len(window))
        return super().states_of(window, layers)

    def _check_length(self, samples: int) -> None:
        if samples < self._least:
            raise InputError(f"{self.name}: a window of {samples} samples is too short. Use {self._least:,} or more")

    def _run_layers(self, model: Any, batch: Any, reduce: Callable[[Any], Any]) -> list[Any]:
        return [reduce(states) for states in model.states(batch)]

    def _run_up_to(self, model: Any, batch: Any, layer: int) -> Any:
        return next(states for number, states in enumerate(model.states(batch)) if number == layer)

    def training_pass(self) -> ConformerPass:
        return ConformerPass(self._model, self._model.blocks)

    def prepare(self, samples: int) -> None:
        """Choose the kernels; on CUDA, measure how many windows of this length fit into memory."""
        self._own_model(samples)
        super().prepare(samples)

    def _own_model(self, samples: int) -> Any:
        """The model, once its kernels are chosen, for windows of the first length seen."""
        with self._choosing:
            if self.kernels is None and self.device == "cpu" and self.precision == "bfloat16":
                self._choose_kernels(samples)
        return self._model

    def _choose_kernels(self, samples: int) -> None:
        sizes = self._model.sizes
        found = Sizes(
            heads=sizes.heads, width=sizes.hidden // sizes.heads, hidden=sizes.hidden, inner=sizes.inner, channels=0,
            windows=self._batches.size(samples), frames=self.frames_of(samples), precision=self.precision,
        )
        self._use(choose_conformer_kernels(self._model, found, self._install), found)

    def _install(self, model: Any, kernels: Kernels) -> None:
        from tonelake.embed.encoders.conformer import Attending, Pointwise

        linear.use(model, kernels.linear, self.cast_parts, (Pointwise,))
        for module in model.modules():
            if isinstance(module, Attending):
                module.attention_way = kernels.attention


class ConformerPass(TrainingPass):
    """`model`: a `ConformerNetwork`; its spectrum is computed in float32, whatever the precision."""

    def first_layer(self, samples: Any) -> Any:
        return next(self.model.states(samples))

    def block_inputs(self, states: Any) -> tuple[Any, ...]:
        return (self.model.angles(states),)

    def last_layer(self, states: Any) -> Any:
        return self.model.last_layer(states)
