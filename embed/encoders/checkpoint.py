"""Read checkpoint folders in the hub's form: a transformers configuration and a state dict, every tensor accounted for.

MERT-v1 (95M and 330M) is plain HuBERT, so its weights run in `transformers.HubertModel`: no remote code, no pickle.
wav2vec 2.0 and HuBERT folders are read in the same way.  A tensor that is missing, unexpected or mis-shaped is an
error: a loader that ignores one re-initialises it at random, which is the best-known MERT bug (62–76 % error).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from tonelake.embed.errors import CheckpointError, EncoderError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
WRAPPERS = ("hubert.", "wav2vec2.", "model.")        # a model saved with a head keeps its encoder under one of these
HEADS = (                                            # of pre-training and fine-tuning: known, and not part of the encoder
    "lm_head.", "final_proj.", "label_embs_concat", "quantizer.", "project_q.", "project_hid.", "projector.",
    "classifier.", "layer_weights", "encoder_mask_emb", "encoder_cqt_model.", "feature_extractor.cqt",
)
RENAMED = {                                          # weight norm before and after torch 2's parametrizations
    "pos_conv_embed.conv.weight_g": "pos_conv_embed.conv.parametrizations.weight.original0",
    "pos_conv_embed.conv.weight_v": "pos_conv_embed.conv.parametrizations.weight.original1",
}
NO_SETTINGS = (                                      # entries of config.json that do not describe the architecture
    "model_type", "auto_map", "architectures", "_name_or_path", "torch_dtype", "dtype", "transformers_version",
)
MERT_FIXED = {                                       # values that HubertModel implements; checkpoints with others are refused
    "feature_extractor_cqt": (False, None), "deepnorm": (False, None), "feat_extract_norm": ("group",),
    "conv_pos_batch_norm": (False, None),
}


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON file of a checkpoint folder.  Raises CheckpointError."""
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: has no {name}. Choose a checkpoint folder in the hub's form") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / name}: cannot be read ({error}). Fetch the checkpoint again") from error


def read_config(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The transformers configuration of a folder, and its raw JSON.  Raises CheckpointError for other architectures."""
    from transformers import HubertConfig, Wav2Vec2Config

    raw = read_json(folder, "config.json")
    kinds = {"mert_model": HubertConfig, "hubert": HubertConfig, "wav2vec2": Wav2Vec2Config}
    kind = raw.get("model_type")
    if kind not in kinds:
        raise CheckpointError(f"{folder}: model_type is {kind!r}. Choose a checkpoint of {', '.join(kinds)}")
    if kind == "mert_model":
        for setting, allowed in MERT_FIXED.items():
            if raw.get(setting) not in allowed:
                raise CheckpointError(f"{folder}: {setting} is {raw[setting]!r}; only {allowed[0]!r} is implemented")
    if raw.get("add_adapter"):
        raise CheckpointError(f"{folder}: add_adapter is set; encoders with a convolutional adapter are not implemented")
    # Dropout, layer drop and masking are for training; eval() turns them off, and these settings do so again.
    settings = {k: v for k, v in raw.items() if k not in NO_SETTINGS} | {"layerdrop": 0.0, "apply_spec_augment": False}
    try:
        return kinds[kind](**settings), raw
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder}/config.json: not usable ({error}). Fetch the checkpoint again") from error


def read_state(folder: Path) -> dict[str, Any]:
    """The tensors of a folder's weights file under HubertModel's names, heads left out."""
    state = read_weights(folder)
    wrapper = next((w for w in WRAPPERS if any(name.startswith(w + "encoder.") for name in state)), "")
    renamed = {}
    for name, tensor in state.items():
        inner = name.removeprefix(wrapper)
        if inner.startswith(HEADS) or name.startswith(HEADS):
            continue
        for old, new in RENAMED.items():
            inner = inner.replace(old, new)
        renamed[inner] = tensor
    return renamed


def read_weights(folder: Path) -> dict[str, Any]:
    """The tensors of a folder's weights file, as named in it.  Raises CheckpointError."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    present = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not present:
        raise CheckpointError(
            f"{folder}: has neither {' nor '.join(WEIGHTS)} (*_fairseq.pt and sharded files are not read). Save one of them"
        )
    path = present[0]
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Files from before torch 1.6 are not zip archives, and cannot be mapped.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except SafetensorError as error:
        raise CheckpointError(f"{path}: refused, not a safetensors file ({error}). Fetch the checkpoint again") from error
    except Exception as error:           # torch raises its own, pickle's and zipfile's errors for hostile files
        raise CheckpointError(
            f"{path}: refused, because it is damaged or holds pickled code instead of tensors alone "
            f"({type(error).__name__}: {str(error).partition(chr(10))[0][:120]}). Fetch the checkpoint again"
        ) from error
    loaded = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(loaded, dict) or not all(isinstance(t, torch.Tensor) for t in loaded.values()):
        raise CheckpointError(f"{path}: does not hold a plain dictionary of tensors. Save the model's state_dict")
    return loaded


def check_state(folder: Path, state: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise CheckpointError unless both hold the same tensors in equal shapes."""
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys() - {"masked_spec_embed"})
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    problems = [
        f"{len(names)} tensors {problem}: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
        for problem, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
        if names
    ]
    if problems:
        raise CheckpointError(f"{folder}: refused, {'; '.join(problems)}. Fetch the checkpoint again")


def fill_model(folder: Path, model: Any, state: dict[str, Any]) -> None:
    """Fill a model that was made on the device `meta` with the tensors of a checkpoint, as float32.

    Raises CheckpointError unless every tensor is there in its shape, and none besides.
    """
    import torch

    expected = model.state_dict()
    check_state(folder, state, expected)
    # Copied, so that a weights file that is replaced while it is mapped cannot change or crash a running encoder.
    tensors = {name: state[name].to(torch.float32, copy=True) for name in expected}
    model.load_state_dict(tensors, strict=True, assign=True)
    left = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    if left:
        raise EncoderError(f"weights {', '.join(left[:3])}: not filled. Install a supported release of transformers")


def is_count(value: Any) -> bool:
    """Whether a value of a configuration is a positive integer."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def state_digest(state: dict[str, Any], config: dict[str, Any]) -> str:
    """32 hex digits over names, shapes and values of all tensors and the configuration, independent of the file format."""
    import torch

    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        tensor = state[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    kept = {k: v for k, v in config.items() if k not in NO_SETTINGS}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    return digest.hexdigest()
