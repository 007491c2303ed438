"""MERT-v2: (batch, samples) float32 at 24 kHz -> mean and max over time of every layer, in one pass.

Layer 0 enters the first conformer block, layer i leaves block i.  (The published model counts from block 1: its
`hidden_states[0]` is layer 1 here.)  Checkpoints are read from the hub's files without remote code: `config.json` and one
`model.safetensors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tonelake.embed.encoders.checkpoint import fill_model, is_count, read_json, read_weights, state_digest
from tonelake.embed.encoders.conformer_encoder import ConformerEncoder
from tonelake.embed.errors import CheckpointError

# `config.json` -> `network.Sizes`
SETTINGS = {
    "hidden": "hidden_size", "inner": "intermediate_size", "blocks": "num_hidden_layers", "heads": "num_attention_heads",
    "bands": "num_mel_bins", "fft": "n_fft", "window": "win_length", "hop": "hop_length", "channels": "subsampling_channels",
    "depths": "subsampling_depths", "kernel": "conv_depthwise_kernel_size", "rotary_base": "rotary_embedding_base",
    "eps": "layer_norm_eps", "stage_eps": "subsampling_layer_norm_eps",
}
# The layer for genre in the model card's guide, by variant, else the last; a starting point, `tonelake layers` measures.
DEFAULT_LAYERS = {"30s": 23}


class Mert2Encoder(ConformerEncoder):
    """An encoder loaded from a checkpoint folder of MERT-v2."""

    lora_targets = ("query_proj", "value_proj")
    cast_parts = ("subsampling_module.", "layers.")

    def __init__(self, folder: Path, *, name: str | None = None, location: str | None = None, device: str = "cpu") -> None:
        """Load in float32; see `at`.  Raises CheckpointError if the folder is not exactly such a checkpoint."""
        self.name = name or folder.name
        self.location = location or str(folder.absolute())
        config = read_json(folder, "config.json")
        self.sample_rate = int(config.get("sampling_rate") or 0)
        if not 4_000 <= self.sample_rate <= 192_000:
            raise CheckpointError(f"{folder}/config.json: has no usable sampling_rate. Fetch the checkpoint again")
        network, self.revision = load_network(folder, config)
        self._place(network, device)
        self._declare(network.sizes, network.sizes.fft)
        blocks = network.sizes.blocks
        self.default_layer = min(DEFAULT_LAYERS.get(str(config.get("variant")), blocks), blocks)
        # Mel frame i is centred at i · hop; a frame here is made of four of them, the first 4 i.
        self.frame_offset = (self.frame_samples - network.sizes.hop) // 2

    def frames_of(self, samples: int) -> int:
        """Number of frames that the encoder makes of a window."""
        return samples // self.frame_samples


def load_network(folder: Path, config: dict[str, Any]) -> tuple[Any, str]:
    """(network in eval mode, digest of weights and configuration).  Raises CheckpointError."""
    import torch

    from tonelake.embed.encoders.mert2.network import Mert2Network

    sizes = read_sizes(folder, config)
    state = read_weights(folder)
    with torch.device("meta"):
        network = Mert2Network(sizes)
    fill_model(folder, network, state)
    network.eval().requires_grad_(False)
    return network, state_digest(state, config)


def read_sizes(folder: Path, config: dict[str, Any]) -> Any:
    """The sizes in a configuration.  Raises CheckpointError if one is absent or not usable."""
    from tonelake.embed.encoders.mert2.network import STRIDES, Sizes

    values: dict[str, Any] = {}
    for field, setting in SETTINGS.items():
        value = config.get(setting)
        kind = Sizes.__annotations__[field]
        if kind.startswith("tuple"):
            value = tuple(value) if isinstance(value, list) else ()
            usable = len(value) == len(STRIDES) and all(is_count(part) for part in value)
        elif kind == "int":
            usable = is_count(value)
        else:
            usable = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
        if not usable:
            raise CheckpointError(f"{folder}/config.json: {setting} is {config.get(setting)!r}. Fetch the checkpoint again")
        values[field] = value
    sizes = Sizes(**values)
    problem = None
    if sizes.channels[-1] != sizes.hidden:
        problem = f"the last of subsampling_channels is {sizes.channels[-1]}, but hidden_size is {sizes.hidden}"
    elif sizes.hidden % (2 * sizes.heads):
        problem = f"hidden_size {sizes.hidden} does not divide into {sizes.heads} heads of even width"
    elif not sizes.kernel % 2:
        problem = f"conv_depthwise_kernel_size is {sizes.kernel}, and only odd kernels are implemented"
    elif sizes.window > sizes.fft:
        problem = f"win_length {sizes.window} is longer than n_fft {sizes.fft}"
    if problem:
        raise CheckpointError(f"{folder}/config.json: {problem}. Fetch the checkpoint again")
    return sizes
