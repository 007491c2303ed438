"""Encoders that run a torch model over windows: batches, devices, precision, pooling and adapters, whatever the architecture.

A subclass loads the model and says how its layers are computed.  Each layer is pooled as soon as it is computed, so only one is
held at a time.
"""

from __future__ import annotations

import copy
import itertools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Self

import numpy as np

from tonelake.embed.batches import MOST_WINDOWS, Batches
from tonelake.embed.encoders.adapter import Adapter
from tonelake.embed.encoders.base import PRECISIONS, Encoder, FrameSpan, Pooled
from tonelake.embed.encoders.taps import LayerReached
from tonelake.embed.errors import EncoderError
from tonelake.embed.kernels import linear
from tonelake.embed.kernels.choice import APART, KernelChoice, Kernels, Sizes, threads_for_clips
from tonelake.embed.kernels.exact import inexact_modules, keep_float32
from tonelake.embed.measured import machine_key, recall, remember
from tonelake.embed.sample import sample_music

CHECK_S = 3.0                            # of music, on which the modules of a lower precision are compared with float32


class TorchEncoder(Encoder):
    """An encoder whose layers are the states of a torch model."""

    needs_torch = True
    precisions = PRECISIONS
    cast_parts: tuple[str, ...] = ()     # prefixes of the modules whose weights a lower precision casts once

    def _place(self, model: Any, device: str) -> None:
        """Take a loaded model, in eval mode and frozen, to a device.  `sample_rate` has to be set."""
        self._model = model.to(device)
        self.device = device
        # On a CPU batching clips gains nothing, and a clip encoded alone cannot depend on its neighbours.
        self.clips_at_once = 1 if device == "cpu" else 2 * MOST_WINDOWS
        self._batches = Batches(device, self.sample_rate)

    @abstractmethod
    def _run_layers(self, model: Any, batch: Any, reduce: Callable[[Any], Any]) -> list[Any]:
        """Apply `reduce` to each layer's (batch, frame, dim), in order, for (batch, samples)."""

    @abstractmethod
    def _run_up_to(self, model: Any, batch: Any, layer: int) -> Any:
        """(batch, frame, dim) of one layer, without those above it."""

    def _input(self, batch: Any) -> Any:
        """The windows as the model takes them; unchanged by default."""
        return batch

    def _own_model(self, samples: int) -> Any:
        """The model that this thread may use."""
        return self._model

    def _install(self, model: Any, kernels: Kernels) -> None:
        """Make the linear layers of a model in bfloat16 compute in a way."""
        linear.use(model, kernels.linear, self.cast_parts)

    def _use(self, choice: KernelChoice, sizes: Sizes) -> None:
        """Compute with the chosen kernels, clips together or apart."""
        self._install(self._model, choice.kernels)
        self.clips_in_parallel = threads_for_clips(sizes) if choice.kernels.clips == APART else 1
        self.kernels = choice

    def prepare(self, samples: int) -> None:
        """On CUDA, measure how many windows of this length fit into memory."""
        if self.device.startswith("cuda"):
            self._batches.measure(samples, lambda windows: self._run(windows, pool))

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) of one length at `sample_rate` -> every layer, pooled.

        Raises EncoderError if the device lacks memory for a single window.
        """
        def forward(batch: np.ndarray, rows: slice) -> tuple[Any, Any, list[list[Any]]]:
            spans = None if keep is None else [slice(*span) for span in keep[rows]]
            layer = itertools.count()

            def reduce(hidden: Any) -> tuple[Any, Any, list[Any]]:
                wanted = next(layer) in frames
                hidden = hidden[: rows.stop - rows.start]            # without the copies that fill the batch up
                mean, maximum = pool(hidden, spans)
                return mean, maximum, select_frames(hidden.half(), spans) if wanted else []

            means, maxima, states = zip(*self._run(batch, reduce), strict=True)
            mean, maximum = (torch.stack(layers).to("cpu", non_blocking=True) for layers in (means, maxima))
            return mean, maximum, [[state.to("cpu", non_blocking=True) for state in states[i]] for i in frames]

        import torch

        parts = self._batches.run(windows, forward)
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)                      # the last copies from the device
        means, maxima, states = zip(*parts, strict=True)
        mean, maximum = (torch.cat(tensors, dim=1).numpy() for tensors in (means, maxima))        # (layer, batch, dim)
        total = self.frames_of(windows.shape[1])
        counts = [len(range(total)[slice(*span)]) for span in keep or [(0, None)] * len(windows)]
        layers = [[state.numpy() for part in states for state in part[i]] for i in range(len(frames))]
        return Pooled(list(mean), list(maximum), np.array(counts), layers)

    def _run(self, windows: np.ndarray, reduce: Callable[[Any], Any]) -> list[Any]:
        """Apply `reduce` to each layer, in this encoder's precision.  The copy to CUDA overlaps with computation."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(windows, np.float32))
        if self.device.startswith("cuda"):
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        else:
            batch = batch.to(self.device)
        with torch.inference_mode(), self._autocast():
            return self._run_layers(self._own_model(windows.shape[1]), self._input(batch), reduce)

    def _autocast(self) -> Any:
        """The context of a forward pass in this encoder's precision."""
        import torch

        kind, dtype = torch.device(self.device).type, getattr(torch, self.precision)
        return torch.autocast(kind, dtype) if self.precision != "float32" else nullcontext()

    def states(self, window: np.ndarray, layer: int) -> np.ndarray:
        """(samples,) -> (frame, dim) float32 of one layer; the layers above it are not computed."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(window[None], np.float32)).to(self.device)
        with torch.inference_mode(), self._autocast():
            hidden = self._run_up_to(self._own_model(len(window)), self._input(batch), layer)
            return hidden[0].float().cpu().numpy()

    def states_of(self, window: np.ndarray, layers: Sequence[int]) -> list[np.ndarray]:
        """(samples,) -> (frame, dim) float32 of each of these layers by one pass, which ends with the highest of them."""
        if len(layers) == 1:
            return [self.states(window, layers[0])]
        found: dict[int, np.ndarray] = {}
        number = itertools.count()

        def take(hidden: Any) -> None:
            layer = next(number)
            if layer in layers:
                found[layer] = hidden[0].float().cpu().numpy()
            if layer == max(layers):
                raise LayerReached

        with suppress(LayerReached):
            self._run(window[None], take)
        return [found[layer] for layer in layers]

    def hidden_states(self, window: np.ndarray) -> np.ndarray:
        """(samples,) -> (layer, frame, dim) float32: the unpooled states of one window."""
        return np.stack(self._run(window[None], lambda hidden: hidden[0].float().cpu().numpy()))

    def at(self, precision: str) -> Self:
        """This encoder in another precision, sharing weights where possible.

        Raises EncoderError if this encoder is already in a lower precision, which has lost digits.
        """
        if precision == self.precision:
            return self
        if self.precision != "float32":
            raise EncoderError(f"{self.name} in {self.precision}: cannot go back to {precision}. Load it again")
        import torch

        exact = self.inexact_modules(precision)
        other = self._with_model(cast_weights(self._model, getattr(torch, precision), self.cast_parts, exact))
        keep_float32(other._model, exact)
        other.precision, other.float32_modules = precision, tuple(exact)
        return other

    def inexact_modules(self, precision: str) -> list[str]:
        """Names of the modules that `precision` computes wrongly on this device; measured once, in float32."""
        import torch

        key = machine_key() | {
            "what": "inexact modules", "revision": self.revision, "adapter": self.adapter, "precision": precision,
            "device": self.device,
        }
        kept = recall(key)
        if kept is None:
            window = torch.from_numpy(sample_music(self.sample_rate, CHECK_S))[None].to(self.device)
            kept = {"errors": inexact_modules(self._model, self._input(window), getattr(torch, precision))}
            remember(key, kept)
        return sorted(kept["errors"])

    def _with_model(self, model: Any) -> Self:
        """A copy of this encoder with another model."""
        other = copy.copy(self)
        other._model = model
        other._batches = Batches(self.device, self.sample_rate)
        return other

    def adapted(self, adapter: Adapter, location: str) -> Self:
        """This encoder with an adapter's updates added to its weights.

        Raises CheckpointError if they do not fit, EncoderError if the weights are already in a lower precision.
        """
        if self.precision != "float32":
            raise EncoderError(f"{self.name} in {self.precision}: cannot take an adapter. Load it in float32")
        other = self._with_model(copy.deepcopy(self._model, shared_tensors(self._model)))
        adapter.apply(other._model)
        other.name = f"{self.name} + {adapter.name}"
        other.adapter, other.adapter_location = adapter.digest, location
        return other

    def prepare_training(self, samples: int, precision: str, device: str) -> None:
        """Move the model, which stays in float32, to a device, and make it compute under autocast as `at(precision)` does.

        Modules that the precision computes wrongly stay float32.  Raises EncoderError if the precision cannot be used on the
        device.
        """
        from tonelake.embed.precision import checked_at

        self.device = device
        self._model.to(device)
        if precision != "float32":
            checked_at(self, precision)
            keep_float32(self._model, self.inexact_modules(precision))

    @property
    def model(self) -> Any:
        """The torch model, in eval mode, its parameters frozen."""
        return self._model


def pool(hidden: Any, spans: list[slice] | None = None) -> tuple[Any, Any]:
    """(batch, frame, dim) -> mean and max over all frames, or over a span of each window: (batch, dim) float32 each."""
    import torch

    if spans is None:
        hidden = hidden.float()
        return hidden.mean(dim=1), hidden.amax(dim=1)
    kept = [states.float() for states in select_frames(hidden, spans)]
    return torch.stack([s.mean(dim=0) for s in kept]), torch.stack([s.amax(dim=0) for s in kept])


def select_frames(hidden: Any, spans: list[slice] | None) -> list[Any]:
    """(batch, frame, dim) -> the frames of each window that count, (frame, dim) each."""
    return list(hidden) if spans is None else [window[span] for window, span in zip(hidden, spans, strict=True)]


def shared_tensors(model: Any) -> dict[int, Any]:
    """Memo for `copy.deepcopy` that lets the copy of a model share its weights."""
    return {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}


def cast_weights(model: Any, dtype: Any, parts: tuple[str, ...], exact: Sequence[str] = ()) -> Any:
    """A copy of a model whose linear layers and convolutions below `parts` hold `dtype`, as autocast casts them at each pass.

    All other weights, and those of the modules named in `exact`, are shared.
    """
    import torch

    other = copy.deepcopy(model, shared_tensors(model))
    for name, module in other.named_modules():
        kinds = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
        if name.startswith(parts) and name not in exact and isinstance(module, kinds):
            module.weight = torch.nn.Parameter(module.weight.to(dtype), requires_grad=False)
            if module.bias is not None:
                module.bias = torch.nn.Parameter(module.bias.to(dtype), requires_grad=False)
    return other
