"""MERT, HuBERT and wav2vec 2.0: (batch, samples) float32 -> mean and max over time of every layer, in one pass.

Layer 0 enters the first transformer block, layer i leaves block i, the last one after the final norm where there is one
(330M).  Layers are pooled by hooks as they leave their block, so no more than one is ever held, and `output_hidden_states`,
whose last entry changed meaning between releases, is not used.  MERT: arXiv 2306.00107.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed.batches import MOST_WINDOWS, Batches
from tonelake.embed.encoders import attention, convolutions
from tonelake.embed.encoders.adapter import Adapter
from tonelake.embed.encoders.base import FrameSpan, Pooled
from tonelake.embed.encoders.checkpoint import check_state, read_config, read_json, read_state, state_digest
from tonelake.embed.errors import CheckpointError, EncoderError

# Best layer for genre in MARBLE: 7 of 95M's 12 blocks, 10 of 330M's 24; a start, `tonelake layers` finds one's own.
DEFAULT_LAYERS = {12: 7, 24: 10}


class HubertEncoder:
    """A checkpoint folder, loaded."""

    def __init__(self, folder: Path, *, name: str | None = None, location: str | None = None, device: str = "cpu") -> None:
        """In float32; see `at`.  Raises CheckpointError where the folder is not exactly such a checkpoint."""
        self.name = name or folder.name
        self.location = location or str(folder.absolute())
        self.device = device
        self._model, raw, self.revision = load_model(folder)
        self._model.to(device)
        self.adapter = self.adapter_location = ""
        preprocessor = read_json(folder, "preprocessor_config.json")
        self._normalize = bool(preprocessor.get("do_normalize", True))
        self.sample_rate = int(preprocessor.get("sampling_rate") or raw.get("sample_rate") or 0)
        if not 4_000 <= self.sample_rate <= 192_000:
            raise CheckpointError(f"{folder}/preprocessor_config.json gives no usable sampling_rate")
        blocks = len(self._model.encoder.layers)
        self.layers = tuple(str(i) for i in range(blocks + 1))
        self.dims = (self._model.config.hidden_size,) * (blocks + 1)
        self.default_layer = DEFAULT_LAYERS.get(blocks, round(0.6 * blocks))
        self.frame_samples, self.frame_field = frame_geometry(self._model.config)
        self.frame_offset = self.frame_field // 2
        # On a CPU batching clips gains nothing, and a clip that goes alone cannot depend on its neighbours.
        self.clips_at_once = 1 if device == "cpu" else 2 * MOST_WINDOWS
        self._batches = Batches(device, self.sample_rate)
        self.precision = "float32"

    def prepare(self, samples: int) -> None:
        """On CUDA: compile the blocks for this length, and measure how many such windows fit."""
        if self.device.startswith("cuda"):
            def forward(windows: np.ndarray) -> Any:
                return self._run(windows, pool)

            compile_blocks(self._model, self.frames_of(samples))
            try:
                self._batches.measure(samples, forward)
            except Exception:            # compilers fail in many ways (no C compiler, no Triton), and plain blocks run anywhere
                plain_blocks(self._model)
                self._batches.measure(samples, forward)

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) of one length at `sample_rate` -> every layer, pooled.  At least 400 samples for MERT.

        Raises EncoderError where the device has not the memory for a single window.
        """
        def forward(batch: np.ndarray, rows: slice) -> tuple[Any, Any, list[list[Any]]]:
            places = None if keep is None else [slice(*place) for place in keep[rows]]
            layer = itertools.count()

            def reduce(hidden: Any) -> tuple[Any, Any, list[Any]]:
                wanted = next(layer) in frames
                hidden = hidden[: rows.stop - rows.start]            # without what only fills the batch up
                mean, maximum = pool(hidden, places)
                return mean, maximum, cut(hidden.half(), places) if wanted else []

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
        counts = [len(range(total)[slice(*place)]) for place in keep or [(0, None)] * len(windows)]
        layers = [[state.numpy() for part in states for state in part[i]] for i in range(len(frames))]
        return Pooled(list(mean), list(maximum), np.array(counts), layers)

    def _run(self, windows: np.ndarray, reduce: Callable[[Any], Any]) -> list[Any]:
        """What `reduce` made of each layer, in this encoder's precision.  The copy to CUDA runs beside what is computed."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(windows, np.float32))
        if self.device.startswith("cuda"):
            batch = batch.pin_memory().to(self.device, non_blocking=True)
        else:
            batch = batch.to(self.device)
        kind, dtype = torch.device(self.device).type, getattr(torch, self.precision)
        with torch.inference_mode(), torch.autocast(kind, dtype) if self.precision != "float32" else nullcontext():
            return run_tapped(self._model, normalize(batch) if self._normalize else batch, reduce)

    def frames_of(self, samples: int) -> int:
        """How many frames the encoder makes of a window."""
        return int(self._model._get_feat_extract_output_lengths(samples))

    def at(self, precision: str) -> HubertEncoder:
        """The same loaded model, run in another precision.

        Raises EncoderError where this one was loaded in a lower precision, which has lost the digits of another.
        """
        if precision == self.precision:
            return self
        if self.precision != "float32":
            raise EncoderError(f"a model in {self.precision} cannot go back to {precision}: load it again")
        import torch

        other = copy.copy(self)
        other.precision = precision
        other._model = lower(self._model, getattr(torch, precision))
        other._batches = Batches(self.device, self.sample_rate)
        return other

    def adapted(self, adapter: Adapter, location: str) -> HubertEncoder:
        """This encoder with an adapter's updates added to its weights.

        Raises CheckpointError where they do not fit, and EncoderError where the weights are in a lower precision already.
        """
        if self.precision != "float32":
            raise EncoderError(f"a model in {self.precision} cannot take an adapter: load it in float32")
        other = copy.copy(self)
        shared = {id(tensor): tensor for tensor in (*self._model.parameters(), *self._model.buffers())}
        other._model = copy.deepcopy(self._model, shared)
        adapter.apply(other._model)
        other._batches = Batches(self.device, self.sample_rate)
        other.name = f"{self.name} + {adapter.name}"
        other.adapter, other.adapter_location = adapter.digest, location
        return other

    @property
    def model(self) -> Any:
        """The transformers model, in eval mode, its parameters frozen."""
        return self._model

    @property
    def normalizes(self) -> bool:
        """Whether each window is brought to zero mean and unit variance before the model hears it; see `normalize`."""
        return self._normalize

    def states(self, window: np.ndarray, layer: int) -> np.ndarray:
        """(samples,) -> (frame, dim) float32 of one layer; the layers above it are not computed."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(window[None], np.float32)).to(self.device)
        kind, dtype = torch.device(self.device).type, getattr(torch, self.precision)
        with torch.inference_mode(), torch.autocast(kind, dtype) if self.precision != "float32" else nullcontext():
            hidden = run_up_to(self._model, normalize(batch) if self._normalize else batch, layer)
            return hidden[0].float().cpu().numpy()

    def hidden_states(self, window: np.ndarray) -> np.ndarray:
        """(samples,) -> (layer, frame, dim) float32: the unpooled states of one window."""
        return np.stack(self._run(window[None], lambda hidden: hidden[0].float().cpu().numpy()))


def frame_geometry(config: Any) -> tuple[int, int]:
    """Samples from frame to frame, and samples that one frame sees: 320 and 400 for MERT, HuBERT and wav2vec 2.0."""
    step, field = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return step, field


def normalize(batch: Any) -> Any:
    """Zero mean and unit variance for each window, as the checkpoints' preprocessor does: (x - mean) / sqrt(var + 1e-7)."""
    centred = batch - batch.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()


def pool(hidden: Any, places: list[slice] | None = None) -> tuple[Any, Any]:
    """(batch, frame, dim) -> mean and max over all frames, or over those of each window: (batch, dim) float32 each."""
    import torch

    if places is None:
        hidden = hidden.float()
        return hidden.mean(dim=1), hidden.amax(dim=1)
    kept = [states.float() for states in cut(hidden, places)]
    return torch.stack([s.mean(dim=0) for s in kept]), torch.stack([s.amax(dim=0) for s in kept])


def cut(hidden: Any, places: list[slice] | None) -> list[Any]:
    """(batch, frame, dim) -> the frames of each window that count, (frame, dim) each."""
    return list(hidden) if places is None else [window[place] for window, place in zip(hidden, places, strict=True)]


def run_tapped(model: Any, batch: Any, reduce: Callable[[Any], Any]) -> list[Any]:
    """One forward pass: what `reduce` made of each layer's (batch, frame, dim), handed over as soon as it exists.

    Raises EncoderError where this transformers does not pass through the layers as we know them.
    """
    found: list[Any] = []

    def take(output: Any) -> None:
        found.append(reduce(output[0] if isinstance(output, tuple) else output))

    blocks = model.encoder.layers
    final_norm = model.config.do_stable_layer_norm                   # then the last layer is what leaves the norm
    taps = [*blocks[:-1], model.encoder.layer_norm if final_norm else blocks[-1]]
    hooks = [
        blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: take(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
        *(module.register_forward_hook(lambda _, __, output: take(output)) for module in taps),
    ]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if len(found) != len(blocks) + 1:
        raise EncoderError(
            f"the model gave {len(found)} layers instead of {len(blocks) + 1}: this transformers is not supported"
        )
    return found


class Enough(Exception):
    """Raised inside a forward pass when what was asked for has been computed."""


def run_up_to(model: Any, batch: Any, layer: int) -> Any:
    """(batch, frame, dim) of one layer, as `run_tapped` has it, by a pass that ends there."""
    found: list[Any] = []

    def take(output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        raise Enough

    blocks = model.encoder.layers
    if layer == 0:
        hook = blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: take(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
    else:
        last = layer == len(blocks) and model.config.do_stable_layer_norm
        module = model.encoder.layer_norm if last else blocks[layer - 1]
        hook = module.register_forward_hook(lambda _, __, output: take(output))
    try:
        model(batch)
    except Enough:
        return found[0]
    finally:
        hook.remove()
    raise EncoderError(f"the model did not pass through layer {layer}: this transformers is not supported")


def lower(model: Any, dtype: Any) -> Any:
    """A model whose linear layers and positional convolution hold `dtype`, as autocast would cast them at each pass; all else
    is shared."""
    import torch

    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    other = copy.deepcopy(model, shared)
    for module in (*other.encoder.modules(), *other.feature_projection.modules()):
        if isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
            module.weight = torch.nn.Parameter(module.weight.to(dtype), requires_grad=False)
            if module.bias is not None:
                module.bias = torch.nn.Parameter(module.bias.to(dtype), requires_grad=False)
    return other


def compile_blocks(model: Any, frames: int, backend: str = "inductor") -> None:
    """Let each transformer block run compiled for sequences of this length, and as it was for others.

    Blocks are compiled one by one, so that the hooks between them stay plain Python; they share the compiled code.
    """
    import torch

    if getattr(model.encoder.layers[0].forward, "compiled_for", None) == frames:
        return
    plain_blocks(model)
    for block in model.encoder.layers:
        plain = block.forward
        compiled = torch.compile(plain, backend=backend, dynamic=False)

        def forward(hidden: Any, *args: Any, plain: Any = plain, compiled: Any = compiled, **kwargs: Any) -> Any:
            return (compiled if hidden.shape[1] == frames else plain)(hidden, *args, **kwargs)

        forward.plain, forward.compiled_for = plain, frames          # type: ignore[attr-defined]
        block.forward = forward


def plain_blocks(model: Any) -> None:
    """Undo `compile_blocks`."""
    for block in model.encoder.layers:
        block.forward = getattr(block.forward, "plain", block.forward)


def load_model(folder: Path) -> tuple[Any, dict[str, Any], str]:
    """(model in eval mode, config.json, digest of weights and configuration)."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2Model

    config, raw = read_config(folder)
    state = read_state(folder)
    config._attn_implementation = attention.register()
    with torch.device("meta"):           # no random initialisation: every tensor comes from the file, or we refuse
        model = (HubertModel if isinstance(config, HubertConfig) else Wav2Vec2Model)(config)
    expected = model.state_dict()
    check_state(folder, state, expected)
    revision = state_digest(state, raw)
    # Copied, so that a weights file that is replaced while it is mapped cannot change or crash a running encoder.
    tensors = {name: state[name].to(torch.float32, copy=True) for name in expected}
    model.load_state_dict(tensors, strict=True, assign=True)
    left = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if left:
        raise EncoderError(f"{', '.join(left[:3])} were not filled: this transformers is not supported")
    settle_weight_norm(model)
    model.eval().requires_grad_(False)
    convolutions.install(model)
    return model, raw, revision


def settle_weight_norm(model: Any) -> None:
    """Compute the positional convolution's weight, which is stored as directions and lengths, once instead of at each pass."""
    from torch.nn.utils import parametrize

    conv = model.encoder.pos_conv_embed.conv
    if parametrize.is_parametrized(conv, "weight"):
        parametrize.remove_parametrizations(conv, "weight")
