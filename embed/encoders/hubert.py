"""MERT, HuBERT and wav2vec 2.0: (batch, samples) float32 -> mean and max over time of every layer, in one pass.

Layer 0 enters the first transformer block, layer i leaves block i, the last one after the final norm if the model has one
(330M).  Hooks pool each layer as it leaves its block, so only one is held at a time, and `output_hidden_states`,
whose last entry changed meaning between releases, is not used.  MERT: arXiv 2306.00107.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tonelake.embed.encoders.checkpoint import fill_model, read_config, read_json, read_state, state_digest
from tonelake.embed.encoders.live_pass import LivePass
from tonelake.embed.encoders.taps import run_tapped, run_up_to
from tonelake.embed.encoders.torch_encoder import TorchEncoder, shared_tensors
from tonelake.embed.encoders.training import TrainingPass
from tonelake.embed.errors import CheckpointError
from tonelake.embed.kernels import attention, convolutions, hubert_blocks
from tonelake.embed.kernels.choice import APART, Sizes, choose_kernels, install, threads_for_clips

# Best layer for genre in MARBLE: 7 of 95M's 12 blocks, 10 of 330M's 24; a starting point, `tonelake layers` measures.
DEFAULT_LAYERS = {12: 7, 24: 10}


class HubertEncoder(TorchEncoder):
    """An encoder loaded from a checkpoint folder."""

    trainable = True
    lora_targets = ("q_proj", "v_proj")
    cast_parts = ("encoder.", "feature_projection.")

    def __init__(self, folder: Path, *, name: str | None = None, location: str | None = None, device: str = "cpu") -> None:
        """Load in float32; see `at`.  Raises CheckpointError if the folder is not exactly such a checkpoint."""
        self.name = name or folder.name
        self.location = location or str(folder.absolute())
        model, raw, self.revision = load_model(folder)
        preprocessor = read_json(folder, "preprocessor_config.json")
        self.normalizes = bool(preprocessor.get("do_normalize", True))
        self.sample_rate = int(preprocessor.get("sampling_rate") or raw.get("sample_rate") or 0)
        if not 4_000 <= self.sample_rate <= 192_000:
            raise CheckpointError(f"{folder}/preprocessor_config.json: has no usable sampling_rate. Fetch the checkpoint again")
        self._place(model, device)
        blocks = len(model.encoder.layers)
        self.layers = tuple(str(i) for i in range(blocks + 1))
        self.dims = (model.config.hidden_size,) * (blocks + 1)
        self.default_layer = DEFAULT_LAYERS.get(blocks, round(0.6 * blocks))
        self.frame_samples, self.frame_field = frame_geometry(model.config)
        self.frame_offset = self.frame_field // 2
        self._copies = threading.local()                             # of the model, one for each thread
        self._prepared_samples = 0

    def prepare(self, samples: int) -> None:
        """Choose the kernels for this length; on CUDA, compile the blocks and measure how many such windows fit into memory."""
        if self.device == "cpu" and (self.kernels is None or samples != self._prepared_samples):
            self._choose_kernels(samples)
        if self.device.startswith("cuda"):
            compile_blocks(self._model, self.frames_of(samples))
            try:
                super().prepare(samples)
            except Exception:            # compilers fail in many ways (no C compiler, no Triton); plain blocks run anywhere
                uncompile_blocks(self._model)
                super().prepare(samples)

    def _choose_kernels(self, samples: int) -> None:
        self._prepared_samples = samples
        self._copies = threading.local()                             # copies would keep weights in the order of before
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

    def _with_model(self, model: Any) -> HubertEncoder:
        """A copy of this encoder with another model, whose kernels are not chosen yet."""
        other = super()._with_model(model)
        other.kernels, other.clips_in_parallel, other._copies = None, 1, threading.local()
        return other

    def _run_layers(self, model: Any, batch: Any, reduce: Callable[[Any], Any]) -> list[Any]:
        return run_tapped(model, batch, reduce)

    def _run_up_to(self, model: Any, batch: Any, layer: int) -> Any:
        return run_up_to(model, batch, layer)

    def _input(self, batch: Any) -> Any:
        return normalize(batch) if self.normalizes else batch

    def live_pass(self, layers: Sequence[int], drift: float) -> LivePass:
        from tonelake.embed.encoders.hubert_live import HubertLivePass, can_stream

        if not can_stream(self):
            return super().live_pass(layers, drift)
        return HubertLivePass(self, layers, drift, self._sizes(self._prepared_samples))

    def frames_of(self, samples: int) -> int:
        """Number of frames that the encoder makes of a window."""
        return int(self._model._get_feat_extract_output_lengths(samples))

    def prepare_training(self, samples: int, precision: str, device: str) -> None:
        """Prepare the model as `TorchEncoder` does, and choose the kernels for windows of this length."""
        sizes = self._sizes(samples)
        super().prepare_training(samples, precision, device)
        if device == "cpu":
            self.kernels = choose_kernels(self._model, replace(sizes, precision=precision))
            install(self._model, self.kernels.kernels)

    def training_pass(self) -> HubertPass:
        return HubertPass(self._model, self._model.encoder.layers, self.normalizes)


class HubertPass(TrainingPass):
    """`model`: transformers' HuBERT or wav2vec 2.0. The last layer includes the norm after the last block."""

    def __init__(self, model: Any, blocks: Any, normalizes: bool) -> None:
        super().__init__(model, blocks)
        self.normalizes = normalizes

    def first_layer(self, samples: Any) -> Any:
        model = self.model
        features = model.feature_extractor(normalize(samples) if self.normalizes else samples).transpose(1, 2)
        hidden = model.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden              # wav2vec 2.0 also returns its features
        hidden = hidden + model.encoder.pos_conv_embed(hidden)
        return hidden if model.config.do_stable_layer_norm else model.encoder.layer_norm(hidden)

    def last_layer(self, states: Any) -> Any:
        return self.model.encoder.layer_norm(states) if self.model.config.do_stable_layer_norm else states


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
    fill_model(folder, model, state)
    fold_weight_norm(model)
    model.eval().requires_grad_(False)
    convolutions.install(model)
    hubert_blocks.fuse_activations(model)
    return model, raw, state_digest(state, raw)


def fold_weight_norm(model: Any) -> None:
    """Compute the positional convolution's weight, stored as directions and lengths, once instead of at each pass."""
    from torch.nn.utils import parametrize

    conv = model.encoder.pos_conv_embed.conv
    if parametrize.is_parametrized(conv, "weight"):
        parametrize.remove_parametrizations(conv, "weight")
