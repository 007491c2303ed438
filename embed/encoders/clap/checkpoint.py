"""Read CLAP's checkpoint folders in the hub's form: configuration, front end, and the weights of either side.

The weights of both sides are checked when the encoder is loaded, but only those of the audio side are kept: the text side, four
fifths of the file, is read when words are first used, so that worker processes do without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonelake.embed.encoders.checkpoint import NO_SETTINGS, check_state, read_json, read_weights, state_digest
from tonelake.embed.errors import CheckpointError, EncoderError

# Buffers that the model computes from its configuration; whether a file contains them depends on the release that saved it.
COMPUTED = ("position_ids", "token_type_ids", "relative_position_index", "num_batches_tracked")
AUDIO, TEXT = ("audio_model", "audio_projection"), ("text_model", "text_projection")


@dataclass(frozen=True, kw_only=True)
class FrontEnd:
    """Settings of the mel spectrogram, under the names of `preprocessor_config.json`."""

    sampling_rate: int = 48_000          # Hz
    max_length_s: float = 10.0           # seconds that the model takes at once
    fft_window_size: int = 1_024         # samples
    hop_length: int = 480                # samples
    feature_size: int = 64               # mel bands
    frequency_min: float = 0.0           # Hz
    frequency_max: float = 14_000.0      # Hz

    @property
    def samples(self) -> int:
        """Samples that the model takes at once."""
        return round(self.max_length_s * self.sampling_rate)


def read_front_end(folder: Path) -> FrontEnd:
    """Read the settings of the spectrogram.  Raises CheckpointError if one of them is not usable."""
    raw = read_json(folder, "preprocessor_config.json")
    values: dict[str, Any] = {}
    for name, default in vars(FrontEnd()).items():
        value = raw.get(name, default)
        whole = isinstance(default, int)
        least = 0 if name == "frequency_min" else 1
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < least:
            raise CheckpointError(f"{folder}/preprocessor_config.json: {name} is {value!r}. Fetch the checkpoint again")
        values[name] = value if whole else float(value)
    front = FrontEnd(**values)
    if not 8_000 <= front.sampling_rate <= 192_000 or front.max_length_s > 60 or front.fft_window_size > front.samples:
        raise CheckpointError(f"{folder}/preprocessor_config.json: has no usable sampling_rate or length. "
                              "Fetch the checkpoint again")
    if not front.frequency_min < front.frequency_max <= front.sampling_rate / 2:
        raise CheckpointError(f"{folder}/preprocessor_config.json: has no usable frequency_max. Fetch the checkpoint again")
    return front


def read_clap_config(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The transformers configuration of a folder, and its raw JSON.  Raises CheckpointError for one that is not implemented."""
    from transformers import ClapConfig

    raw = read_json(folder, "config.json")
    try:
        config = ClapConfig(**{name: value for name, value in raw.items() if name not in NO_SETTINGS})
        sides = config.audio_config.depths, config.text_config.vocab_size
    except Exception as error:           # transformers raises its own, and those of its validators
        reason = str(error).partition("\n")[0][:120]
        raise CheckpointError(f"{folder}/config.json: not usable ({reason}). Fetch the checkpoint again") from error
    if not sides[0] or config.audio_config.enable_fusion:
        raise CheckpointError(
            f"{folder}/config.json: enable_fusion is set; checkpoints that mix random parts of a long sound are not "
            "implemented, because their vectors change from run to run. Choose an unfused one, such as "
            "laion/clap-htsat-unfused"
        )
    return config, raw


def read_side(folder: Path, side: tuple[str, str]) -> tuple[Any, str]:
    """(ClapModel of which one side, AUDIO or TEXT, is filled, in eval mode, in float32; digest of all weights).

    Raises CheckpointError unless every tensor of both sides is in the file in its shape, and none besides.
    """
    import torch
    from transformers import ClapModel

    config, raw = read_clap_config(folder)
    try:
        with torch.device("meta"):       # no random initialisation: every tensor comes from the file, or we refuse
            model = ClapModel(config)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError, IndexError) as error:
        raise CheckpointError(f"{folder}/config.json: not usable ({error}). Fetch the checkpoint again") from error
    state = {name: tensor for name, tensor in read_weights(folder).items() if not name.endswith(COMPUTED)}
    expected = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(COMPUTED)}
    check_state(folder, state, expected)
    prefixes = (*(f"{part}." for part in side), "logit_scale")
    # Copied, so that a weights file that is replaced while it is mapped cannot change or crash a running encoder.
    tensors = {name: state[name].to(torch.float32, copy=True) for name in expected if name.startswith(prefixes)}
    model.load_state_dict(tensors, strict=False, assign=True)
    compute_buffers(model)
    parts = [getattr(model, part) for part in side]
    left = [name for part in parts for name, tensor in (*part.named_parameters(), *part.named_buffers()) if tensor.is_meta]
    if left:
        raise EncoderError(f"weights {', '.join(left[:3])}: not filled. Install a supported release of transformers")
    model.eval().requires_grad_(False)
    return model, state_digest(state, raw)


def compute_buffers(model: Any) -> None:
    """Fill the buffers of COMPUTED, as transformers computes them from the configuration."""
    import torch

    for module in model.modules():
        if hasattr(module, "create_relative_position_index"):
            module.relative_position_index = module.create_relative_position_index()
        elif hasattr(module, "token_type_ids"):
            positions = module.position_embeddings.num_embeddings
            module.position_ids = torch.arange(positions).expand(1, -1)
            module.token_type_ids = torch.zeros(1, positions, dtype=torch.long)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(0)
