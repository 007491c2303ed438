"""Initial weights from another run of the lake, or from a checkpoint file in PEFT's names, possibly of another task.

Tensors of equal name and shape are loaded.  All others are reported by name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from tonelake.embed import ADAPTER_CONFIG as PEFT_CONFIG
from tonelake.embed import ADAPTER_PREFIX, LORA_PAIR, pairs_of, read_adapter, resolve_adapter
from tonelake.finetune.model import LoraModel
from tonelake.finetune.runs import FinetuneRun
from tonelake.store import InputError, Lake

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
NESTED = ("state_dict", "model_state_dict", "model")
HEAD_PREFIXES = ("head.", "classifier.", "mlp.", "fc.")


class InitialWeights(NamedTuple):
    """LoRA updates of a checkpoint by module, and its other tensors."""

    pairs: dict[str, tuple[Any, Any]]
    others: dict[str, Any]
    scale: float | None = None           # alpha / rank; None if the file does not say


class LoadReport(NamedTuple):
    """Names of the tensors that were loaded and of those that were skipped."""

    loaded: list[str]
    skipped: list[str]

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded"
        return text + (f"; skipped because they do not fit: {', '.join(self.skipped)}" if self.skipped else "")


def read_initial_weights(lake: Lake, start: str) -> InitialWeights:
    """Read the tensors of a run, of a folder in PEFT's form, or of a checkpoint file.  Raises InputError, CheckpointError."""
    path = Path(start).expanduser()
    if path.is_dir() and (path / PEFT_CONFIG).is_file():
        adapter = read_adapter(str(path.absolute()))
        return InitialWeights(adapter.pairs, {}, adapter.scale)
    if path.is_file() or path.suffix in WEIGHT_SUFFIXES:
        return read_checkpoint_file(path)
    run = FinetuneRun.named(lake, start)
    adapter = read_adapter(resolve_adapter(run.adapter, lake.uri))
    head = {f"head.{name}": tensor for name, tensor in run.head().items() if not name.startswith("target.")}
    return InitialWeights(adapter.pairs, head, adapter.scale)


def read_checkpoint_file(path: Path) -> InitialWeights:
    """Read a state dict, complete or of trained parameters: safetensors, or a .pt file of tensors only.

    Raises InputError if it cannot be read, holds pickled code, or holds no tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except Exception as error:           # for hostile files, torch raises its own, pickle's and zipfile's errors
        raise InputError(
            f"{path}: refused, because it is damaged or holds pickled code instead of tensors only ({type(error).__name__})"
        ) from error
    for name in NESTED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    tensors = {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise InputError(f"{path}: holds no tensors")
    others = {name: t.float() for name, t in tensors.items() if LORA_PAIR.fullmatch(name) is None and t.is_floating_point()}
    return InitialWeights(pairs_of(tensors), others)


def load_initial_weights(model: LoraModel, weights: InitialWeights) -> LoadReport:
    """Load the tensors that fit.  Raises InputError if none does."""
    import torch

    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    offered: dict[str, Any] = {}
    rescaled = 1.0 if weights.scale is None else weights.scale / (model.settings.alpha / model.settings.rank)
    for module, (first, second) in weights.pairs.items():
        for side, tensor in (("A", first), ("B", second * rescaled)):
            offered[f"peft.{ADAPTER_PREFIX}{module}.lora_{side}.default.weight"] = tensor
    offered |= {name: tensor for name, tensor in weights.others.items() if name.startswith(HEAD_PREFIXES)}
    loaded, skipped = [], []
    with torch.no_grad():
        for name, tensor in offered.items():
            mine = trainable.get(name)
            if mine is not None and mine.shape == tensor.shape:
                mine.copy_(tensor)
                loaded.append(name)
            else:
                shape = "not in this model" if mine is None else f"{tuple(tensor.shape)} instead of {tuple(mine.shape)}"
                skipped.append(f"{readable_name(name)} ({shape})")
    if not loaded:
        reason = "; ".join(skipped[:5]) or "it holds no LoRA"
        raise InputError(f"initial weights: no tensor of the checkpoint fits this model: {reason}")
    return LoadReport(loaded, skipped)


def readable_name(name: str) -> str:
    """Return a parameter's name without the prefixes and suffixes of PEFT.

    >>> readable_name("peft.base_model.model.encoder.layers.0.attention.q_proj.lora_A.default.weight")
    'encoder.layers.0.attention.q_proj.lora_A'
    """
    if ".lora_" not in name:
        return name
    return re.sub(r"(\.default)?\.weight$", "", name.removeprefix("peft.").removeprefix(ADAPTER_PREFIX))
