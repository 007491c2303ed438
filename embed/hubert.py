"""MERT, HuBERT and wav2vec 2.0: (batch, samples) float32 -> mean and max over time of every layer, in one pass.

Layer 0 enters the first transformer block, layer i leaves block i, the last one after the final norm where there is one
(330M).  Layers are pooled by hooks as they leave their block, so no more than one is ever held, and `output_hidden_states`,
whose last entry changed meaning between releases, is not used.  MERT: arXiv 2306.00107.
"""

from __future__ import annotations

import copy
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from embed import attention
from embed.checkpoint import check_state, read_config, read_json, read_state, state_digest
from embed.encoder import Pooled
from embed.errors import CheckpointError, EncoderError

# Best layer for genre in MARBLE: 7 of 95M's 12 blocks, 10 of 330M's 24; a start, `tonelake layers` finds one's own.
DEFAULT_LAYERS = {12: 7, 24: 10}


class HubertEncoder:
    """A checkpoint folder, loaded."""

    def __init__(self, folder: Path, *, name: str | None = None, location: str | None = None,
                 precision: str = "float32", device: str = "cpu") -> None:
        """Raises CheckpointError where the folder is not exactly such a checkpoint."""
        self.name = name or folder.name
        self.location = location or str(folder.absolute())
        self.precision = precision
        self.device = device
        self._model, raw, self.revision = load_model(folder)
        self._model.to(device)
        preprocessor = read_json(folder, "preprocessor_config.json")
        self._normalize = bool(preprocessor.get("do_normalize", True))
        self.sample_rate = int(preprocessor.get("sampling_rate") or raw.get("sample_rate") or 0)
        if not 4_000 <= self.sample_rate <= 192_000:
            raise CheckpointError(f"{folder}/preprocessor_config.json gives no usable sampling_rate")
        blocks = len(self._model.encoder.layers)
        self.layers = tuple(str(i) for i in range(blocks + 1))
        self.dims = (self._model.config.hidden_size,) * (blocks + 1)
        self.default_layer = DEFAULT_LAYERS.get(blocks, round(0.6 * blocks))
        # On a CPU batching gains nothing, and a clip that goes alone cannot depend on its neighbours.
        self.clips_at_once = 1 if device == "cpu" else 16
        self._taps = LayerTaps(self._model)

    def encode(self, windows: np.ndarray) -> Pooled:
        """(batch, samples) of one length at `sample_rate` -> every layer, pooled.  At least 400 samples for MERT."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(windows, np.float32)).to(self.device)
        if self._normalize:
            batch = normalize(batch)
        kind = torch.device(self.device).type
        half = getattr(torch, self.precision)
        precision: Any = nullcontext() if self.precision == "float32" else torch.autocast(kind, dtype=half)
        with torch.inference_mode(), precision:
            pooled, n_frames = self._taps.run(batch, pool)
        mean, maximum = zip(*pooled, strict=True)
        return Pooled([m.cpu().numpy() for m in mean], [m.cpu().numpy() for m in maximum], n_frames)

    def at(self, precision: str) -> HubertEncoder:
        """The same loaded model, run in another precision."""
        other = copy.copy(self)
        other.precision = precision
        return other

    def hidden_states(self, window: np.ndarray) -> np.ndarray:
        """(samples,) -> (layer, frame, dim) float32: the unpooled states of one window."""
        import torch

        batch = torch.from_numpy(np.ascontiguousarray(window, np.float32))[None].to(self.device)
        if self._normalize:
            batch = normalize(batch)
        with torch.inference_mode():
            states, _ = self._taps.run(batch, lambda hidden: hidden[0].float().cpu().numpy())
        return np.stack(states)


def normalize(batch: Any) -> Any:
    """Zero mean and unit variance for each window, as the checkpoints' preprocessor does: (x - mean) / sqrt(var + 1e-7)."""
    centred = batch - batch.mean(dim=1, keepdim=True)
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-7).sqrt()


def pool(hidden: Any) -> tuple[Any, Any]:
    """(batch, frame, dim) -> mean and max over frames, (batch, dim) float32 each."""
    hidden = hidden.float()
    return hidden.mean(dim=1), hidden.amax(dim=1)


class LayerTaps:
    """Hooks on a model that hand every layer to a function as soon as it exists."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._reduce: Any = None
        self._found: list[Any] = []
        self._n_frames = 0
        blocks = model.encoder.layers
        blocks[0].register_forward_pre_hook(lambda _, args, kwargs: self._take(_first(args, kwargs)), with_kwargs=True)
        final_norm = model.config.do_stable_layer_norm               # then the last layer is what leaves the norm
        taps = [*blocks[:-1], model.encoder.layer_norm if final_norm else blocks[-1]]
        for module in taps:
            module.register_forward_hook(lambda _, __, output: self._take(output))
        self._expected = len(blocks) + 1

    def run(self, batch: Any, reduce: Any) -> tuple[list[Any], int]:
        """One forward pass: what `reduce` made of each layer's (batch, frame, dim), and the number of frames."""
        self._reduce, self._found = reduce, []
        self._model(batch)
        found, self._found, self._reduce = self._found, [], None
        if len(found) != self._expected:
            raise EncoderError(
                f"the model gave {len(found)} layers instead of {self._expected}: this transformers is not supported"
            )
        return found, self._n_frames

    def _take(self, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        self._n_frames = hidden.shape[1]
        self._found.append(self._reduce(hidden))


def _first(args: tuple, kwargs: dict) -> Any:
    return args[0] if args else kwargs["hidden_states"]


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
    return model.eval().requires_grad_(False), raw, revision
