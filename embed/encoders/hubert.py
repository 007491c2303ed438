"""MERT, HuBERT and wav2vec 2.0: (batch, samples) float32 -> mean and max over time of every layer, in one pass.

Layer 0 enters the first transformer block, layer i leaves block i, the last one after the final norm if the model has one
(330M).  Hooks pool each layer as it leaves its block, so only one is held at a time, and `output_hidden_states`,
whose last entry changed meaning between releases, is not used.  MERT: arXiv 2306.00107.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed.batches import MOST_WINDOWS, Batches
from tonelake.embed.encoders.adapter import Adapter
from tonelake.embed.encoders.base import PRECISIONS, Encoder, FrameSpan, Pooled
from tonelake.embed.encoders.checkpoint import check_state, read_config, read_json, read_state, state_digest
from tonelake.embed.encoders.taps import run_tapped, run_up_to
from tonelake.embed.errors import CheckpointError, EncoderError
from tonelake.embed.kernels import attention, convolutions
from tonelake.embed.kernels.choice import APART, Sizes, choose_kernels, install, threads_for_clips
from tonelake.embed.kernels.exact import inexact_modules, keep_float32
from tonelake.embed.measured import machine_key, recall, remember
from tonelake.embed.precision import checked_at
from tonelake.embed.sample import sample_music

# Best layer for genre in MARBLE: 7 of 95M's 12 blocks, 10 of 330M's 24; a starting point, `tonelake layers` measures.
DEFAULT_LAYERS = {12: 7, 24: 10}
CHECK_S = 3.0                            # of music, on which the modules of a lower precision are compared with float32


class HubertEncoder(Encoder):
    """An encoder loaded from a checkpoint folder."""

    needs_torch = True
    precisions = PRECISIONS
    lora_targets = ("q_proj", "v_proj")

    def __init__(self, folder: Path, *, name: str | None = None, location: str | None = None, device: str = "cpu") -> None:
        """Load in float32; see `at`.  Raises CheckpointError if the folder is not exactly such a checkpoint."""
        self.name = name or folder.name
        self.location = location or str(folder.absolute())
        self.device = device
        self._model, raw, self.revision = load_model(folder)
        self._model.to(device)
        self.adapter = self.adapter_location = ""
        preprocessor = read_json(folder, "preprocessor_config.json")
        self.normalizes = bool(preprocessor.get("do_normalize", True))
        self.sample_rate = int(preprocessor.get("sampling_rate") or raw.get("sample_rate") or 0)
        if not 4_000 <= self.sample_rate <= 192_000:
            raise CheckpointError(f"{folder}/preprocessor_config.json: has no usable sampling_rate. Fetch the checkpoint again")
        blocks = len(self._model.encoder.layers)
        self.layers = tuple(str(i) for i in range(blocks + 1))
        self.dims = (self._model.config.hidden_size,) * (blocks + 1)
        self.default_layer = DEFAULT_LAYERS.get(blocks, round(0.6 * blocks))
        self.frame_samples, self.frame_field = frame_geometry(self._model.config)
        self.frame_offset = self.frame_field // 2
        # On a CPU batching clips gains nothing, and a clip encoded alone cannot depend on its neighbours.
        self.clips_at_once = 1 if device == "cpu" else 2 * MOST_WINDOWS
        self.clips_in_parallel = 1
        self._batches = Batches(device, self.sample_rate)
        self.precision = "float32"
        self._copies = threading.local()                             # of the model, one for each thread
        self._prepared_samples = 0

    def prepare(self, samples: int) -> None:
        """Choose the kernels for this length; on CUDA, compile the blocks and measure how many such windows fit into memory."""
        if self.device == "cpu" and (self.kernels is None or samples != self._prepared_samples):
            self._choose_kernels(samples)
        if self.device.startswith("cuda"):
            def forward(windows: np.ndarray) -> Any:
                return self._run(windows, pool)

            compile_blocks(self._model, self.frames_of(samples))
            try:
                self._batches.measure(samples, forward)
            except Exception:            # compilers fail in many ways (no C compiler, no Triton); plain blocks run anywhere
                uncompile_blocks(self._model)
                self._batches.measure(samples, forward)

    def _choose_kernels(self, samples: int) -> None:
        self._prepared_samples = samples
        self.kernels = choose_kernels(self._model, self._sizes(samples))
        install(self._model, self.kernels.kernels)
        self.clips_in_parallel = threads_for_clips(self._sizes(samples)) if self.kernels.kernels.clips == APART else 1
        self._copies = threading.local()

    def _sizes(self, samples: int) -> Sizes:
        config = self._model.config
        return Sizes(
            heads=config.num_attention_heads, width=config.hidden_size // config.num_attention_heads, hidden=config.hidden_size,
            inner=config.intermediate_size, channels=config.conv_dim[-1], windows=self._batches.size(samples),
            frames=self.frames_of(samples), precision=self.precision,
        )

    def _own_model(self, samples: int) -> Any:
        """The model for this thread.  Hooks hang on a model during a pass, so clips that go apart need a copy each."""
        if self.kernels is None and self.device == "cpu":
            self._choose_kernels(samples)
        if self.kernels is None or self.kernels.kernels.clips != APART:
            return self._model
        if not hasattr(self._copies, "model"):
            self._copies.model = copy.deepcopy(self._model, shared_tensors(self._model))
        return self._copies.model

    def encode(self, windows: np.ndarray, keep: Sequence[FrameSpan] | None = None, frames: Sequence[int] = ()) -> Pooled:
        """(batch, samples) of one length at `sample_rate` -> every layer, pooled.  At least 400 samples for MERT.

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
        kind, dtype = torch.device(self.device).type, getattr(torch, self.precision)
        with torch.inference_mode(), torch.autocast(kind, dtype) if self.precision != "float32" else nullcontext():
            return run_tapped(self._own_model(windows.shape[1]), normalize(batch) if self.normalizes else batch, reduce)

    def frames_of(self, samples: int) -> int:
        """Number of frames that the encoder makes of a window."""
        return int(self._model._get_feat_extract_output_lengths(samples))

    def at(self, precision: str) -> HubertEncoder:
        """This encoder in another precision, sharing weights where possible.

        Raises EncoderError if this encoder is already in a lower precision, which has lost digits.
        """
        if precision == self.precision:
            return self
        if self.precision != "float32":
            raise EncoderError(f"{self.name} in {self.precision}: cannot go back to {precision}. Load it again")
        import torch

        exact = self.inexact_modules(precision)
        other = self._with_model(cast_weights(self._model, getattr(torch, precision), exact))
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
            batch = normalize(window) if self.normalizes else window
            kept = {"errors": inexact_modules(self._model, batch, getattr(torch, precision))}
            remember(key, kept)
        return sorted(kept["errors"])

    def prepare_training(self, samples: int, precision: str, device: str) -> None:
        """Move the model, which stays in float32, to a device, and make it compute under autocast as `at(precision)` does.

        Modules that the precision computes wrongly stay float32, and kernels are chosen for windows of this length.  Raises
        EncoderError if the precision cannot be used on the device.
        """
        self.device = device
        self._model.to(device)
        sizes = self._sizes(samples)
        if precision != "float32":
            checked_at(self, precision)
            keep_float32(self._model, self.inexact_modules(precision))
        if device == "cpu":
            self.kernels = choose_kernels(self._model, replace(sizes, precision=precision))
            install(self._model, self.kernels.kernels)

    def _with_model(self, model: Any) -> HubertEncoder:
        """A copy of this encoder with another model, whose kernels are not chosen yet."""
        other = copy.copy(self)
        other._model = model
        other._batches = Batches(self.device, self.sample_rate)
        other.kernels, other.clips_in_parallel, other._copies = None, 1, threading.local()
        return other

    def adapted(self, adapter: Adapter, location: str) -> HubertEncoder:
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

    @property
    def model(self) -> Any:
        """The transformers model, in eval mode, its parameters frozen."""
        return self._model

    def states(self, window: np.ndarray, layer: int) -> np.ndarray:
        """(samples,) -> (frame, dim) float32 of one layer; the layers above it are not computed."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(window[None], np.float32)).to(self.device)
        kind, dtype = torch.device(self.device).type, getattr(torch, self.precision)
        with torch.inference_mode(), torch.autocast(kind, dtype) if self.precision != "float32" else nullcontext():
            hidden = run_up_to(self._own_model(len(window)), normalize(batch) if self.normalizes else batch, layer)
            return hidden[0].float().cpu().numpy()

    def hidden_states(self, window: np.ndarray) -> np.ndarray:
        """(samples,) -> (layer, frame, dim) float32: the unpooled states of one window."""
        return np.stack(self._run(window[None], lambda hidden: hidden[0].float().cpu().numpy()))


def frame_geometry(config: Any) -> tuple[int, int]:
    """Samples from frame to frame, and samples that one frame depends on: 320 and 400 for MERT, HuBERT and wav2vec 2.0."""
    step, field = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (kernel - 1) * step
        step *= stride
    return step, field


def normalize(batch: Any) -> Any:
    """Zero mean and unit variance for each window, as the checkpoints' preprocessor does: (x - mean) / sqrt(var + 1e-7)."""
    centred = batch - batch.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()


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


def cast_weights(model: Any, dtype: Any, exact: Sequence[str] = ()) -> Any:
    """A copy of a model whose linear layers and positional convolution hold `dtype`, as autocast would cast them at each pass;
    all other weights, and those of the modules named in `exact`, are shared."""
    import torch

    other = copy.deepcopy(model, shared_tensors(model))
    for name, module in other.named_modules():
        inside = name.startswith(("encoder.", "feature_projection."))
        if inside and name not in exact and isinstance(module, torch.nn.Linear | torch.nn.Conv1d):
            module.weight = torch.nn.Parameter(module.weight.to(dtype), requires_grad=False)
            if module.bias is not None:
                module.bias = torch.nn.Parameter(module.bias.to(dtype), requires_grad=False)
    return other


def compile_blocks(model: Any, frames: int, backend: str = "inductor") -> None:
    """Compile each transformer block for sequences of this length; other lengths run uncompiled.

    Blocks are compiled one by one, so that the hooks between them stay plain Python; they share the compiled code.
    """
    import torch

    if getattr(model.encoder.layers[0].forward, "compiled_for", None) == frames:
        return
    uncompile_blocks(model)
    for block in model.encoder.layers:
        plain = block.forward
        compiled = torch.compile(plain, backend=backend, dynamic=False)

        def forward(hidden: Any, *args: Any, plain: Any = plain, compiled: Any = compiled, **kwargs: Any) -> Any:
            return (compiled if hidden.shape[1] == frames else plain)(hidden, *args, **kwargs)

        forward.plain, forward.compiled_for = plain, frames          # type: ignore[attr-defined]
        block.forward = forward


def uncompile_blocks(model: Any) -> None:
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
        raise EncoderError(f"weights {', '.join(left[:3])}: not filled. Install a supported release of transformers")
    fold_weight_norm(model)
    model.eval().requires_grad_(False)
    convolutions.install(model)
    return model, raw, revision


def fold_weight_norm(model: Any) -> None:
    """Compute the positional convolution's weight, stored as directions and lengths, once instead of at each pass."""
    from torch.nn.utils import parametrize

    conv = model.encoder.pos_conv_embed.conv
    if parametrize.is_parametrized(conv, "weight"):
        parametrize.remove_parametrizations(conv, "weight")
