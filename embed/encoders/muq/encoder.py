"""MuQ, and MusicFM in its form: (batch, samples) float32 at 24 kHz -> mean and max over time of every layer, in one pass.

Layer 0 enters the first conformer block, layer i leaves block i, the last one after the final layer norm: the published
`hidden_states`.  Checkpoints are read from the hub's files without remote code: `config.json`, a plain dictionary without a
`model_type`, and one weights file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tonelake.embed.encoders.checkpoint import fill_model, is_count, read_json, read_weights, state_digest
from tonelake.embed.encoders.conformer_encoder import ConformerEncoder
from tonelake.embed.errors import CheckpointError

SAMPLE_RATE = 24_000                     # the configuration has none
# `config.json` -> `network.Sizes`.  The depth and width in `w2v2_config` are overruled by those outside it.
SETTINGS = {"hidden": "encoder_dim", "blocks": "encoder_depth", "bands": "n_mels", "hop": "hop_length", "channels": "conv_dim"}
NESTED = {"inner": "intermediate_size", "heads": "num_attention_heads", "kernel": "conv_depthwise_kernel_size"}
IMPLEMENTED = {"hidden_act": ("swish", "silu"), "position_embeddings_type": ("rotary",)}
STATISTICS = ("melspec_2048_mean", "melspec_2048_std")
# Parts of pre-training, a positional convolution that no forward pass uses, and constants of the front end.
UNUSED = ("quantizer_", "linear.", "cls_token", "mask_emb", "rvq.", "conformer.pos_conv_embed.", "preprocessor_melspec_2048.")
COUNTERS = ".num_batches_tracked"        # of batch norms, for training


class MuqEncoder(ConformerEncoder):
    """An encoder loaded from a checkpoint folder of MuQ or MusicFM."""

    lora_targets = ("linear_q", "linear_v")
    cast_parts = ("conv.", "conformer.")

    def __init__(self, folder: Path, *, name: str | None = None, location: str | None = None, device: str = "cpu") -> None:
        """Load in float32; see `at`.  Raises CheckpointError if the folder is not exactly such a checkpoint."""
        self.name = name or folder.name
        self.location = location or str(folder.absolute())
        self.sample_rate = SAMPLE_RATE
        network, self.revision = load_network(folder, read_json(folder, "config.json"))
        self._place(network, device)
        self._declare(network.sizes, network.feature_extractor.fft)
        self.default_layer = round(0.6 * network.sizes.blocks)       # a starting point, `tonelake layers` measures
        self.frame_offset = 0                                        # both strides of 2 keep the first frame's centre

    def frames_of(self, samples: int) -> int:
        """Number of frames that the encoder makes of a window."""
        return math.ceil(samples // self._model.sizes.hop * self._model.sizes.hop / self.frame_samples)


def load_network(folder: Path, config: dict[str, Any]) -> tuple[Any, str]:
    """(network in eval mode, digest of weights and configuration).  Raises CheckpointError."""
    import torch

    from tonelake.embed.encoders.mel import htk_bands
    from tonelake.embed.encoders.muq.network import FFT, MuqNetwork, fold_batch_norms

    sizes = read_sizes(folder, config)
    mean, std = read_statistics(folder, config)
    weights = read_weights(folder)
    with torch.device("meta"):
        network = MuqNetwork(sizes)
    state = encoder_tensors(weights) | {
        "feature_extractor.mel_mean": torch.full((sizes.bands,), mean),
        "feature_extractor.mel_std": torch.full((sizes.bands,), std),
        "feature_extractor.spectrogram.window": torch.hann_window(FFT),
        "feature_extractor.mel_scale.fb": htk_bands(sizes.bands, FFT, SAMPLE_RATE),
    } | {name: torch.zeros(()) for name in network.state_dict() if name.endswith(COUNTERS)}
    fill_model(folder, network, state)
    network.eval().requires_grad_(False)
    fold_batch_norms(network)
    return network, state_digest(weights, config)


def encoder_tensors(weights: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the encoder, without those of pre-training."""
    inner = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    return {name: tensor for name, tensor in inner.items() if not (name.startswith(UNUSED) or name.endswith(COUNTERS))}


def read_sizes(folder: Path, config: dict[str, Any]) -> Any:
    """The sizes in a configuration.  Raises CheckpointError if one is absent or not usable."""
    from tonelake.embed.encoders.muq.network import REDUCTION, Sizes

    nested = config.get("w2v2_config")
    if not isinstance(nested, dict):
        raise CheckpointError(f"{folder}/config.json: w2v2_config is not a dictionary. Fetch the checkpoint again")
    values: dict[str, Any] = {}
    for settings, names in ((config, SETTINGS), (nested, NESTED)):
        for field, setting in names.items():
            values[field] = settings.get(setting)
            if not is_count(values[field]):
                raise CheckpointError(f"{folder}/config.json: {setting} is {values[field]!r}. Fetch the checkpoint again")
    eps = nested.get("layer_norm_eps", 1e-5)
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 < eps < 1:
        raise CheckpointError(f"{folder}/config.json: layer_norm_eps is {eps!r}. Fetch the checkpoint again")
    for setting, allowed in IMPLEMENTED.items():
        if nested.get(setting) not in allowed:
            raise CheckpointError(
                f"{folder}/config.json: {setting} is {nested.get(setting)!r}, and only {allowed[0]} is implemented. "
                "Fetch the checkpoint again"
            )
    sizes = Sizes(**values, eps=eps)
    problem = None
    if sizes.hidden % (2 * sizes.heads):
        problem = f"encoder_dim {sizes.hidden} does not divide into {sizes.heads} heads of even width"
    elif not sizes.kernel % 2:
        problem = f"conv_depthwise_kernel_size is {sizes.kernel}, and only odd kernels are implemented"
    elif sizes.bands % REDUCTION:
        problem = f"n_mels {sizes.bands} is not a multiple of {REDUCTION}"
    if problem:
        raise CheckpointError(f"{folder}/config.json: {problem}. Fetch the checkpoint again")
    return sizes


def read_statistics(folder: Path, config: dict[str, Any]) -> tuple[float, float]:
    """Mean and standard deviation of the mel spectrogram in decibels.  Raises CheckpointError."""
    found = config.get("stat")
    values = [found.get(name) if isinstance(found, dict) else None for name in STATISTICS]
    for name, value in zip(STATISTICS, values, strict=True):
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise CheckpointError(f"{folder}/config.json: stat has no usable {name}. Fetch the checkpoint again")
    mean, std = values
    if std <= 0:                                                     # type: ignore[operator]
        raise CheckpointError(f"{folder}/config.json: {STATISTICS[1]} is {std}, not positive. Fetch the checkpoint again")
    return float(mean), float(std)                                   # type: ignore[arg-type]
