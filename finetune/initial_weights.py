"""Weights to begin with: of another run of the lake, or of a checkpoint file in PEFT's names, whose task may differ.

What has the same name and shape is taken up.  What has not is told by name: nothing is left out in silence.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from tonelake.embed import ADAPTER_CONFIG as PEFT_CONFIG
from tonelake.embed import ADAPTER_PREFIX, LORA_PAIR, pairs_of, read_adapter, resolve_adapter
from tonelake.finetune.model import Tuned
from tonelake.finetune.runs import FinetuneRun
from tonelake.store import InputError, Lake

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
NESTED = ("state_dict", "model_state_dict", "model")
HEAD_PLACES = ("head.", "classifier.", "mlp.", "fc.")


class Found(NamedTuple):
    """A checkpoint's updates by module, and its other tensors."""

    pairs: dict[str, tuple[Any, Any]]
    others: dict[str, Any]
    scale: float | None = None           # alpha / rank; None where a file does not say


class Started(NamedTuple):
    """What was taken up and what was not, by name."""

    taken: list[str]
    left: list[str]

    def __str__(self) -> str:
        text = f"{len(self.taken)} tensors taken up"
        return text + (f"; left out, as they do not fit: {', '.join(self.left)}" if self.left else "")


def read_start(lake: Lake, start: str) -> Found:
    """The tensors of a run of the lake, a folder in PEFT's form, or a checkpoint file.  Raises InputError, CheckpointError."""
    path = Path(start).expanduser()
    if path.is_dir() and (path / PEFT_CONFIG).is_file():
        adapter = read_adapter(str(path.absolute()))
        return Found(adapter.pairs, {}, adapter.scale)
    if path.is_file() or path.suffix in WEIGHT_SUFFIXES:
        return read_file(path)
    run = FinetuneRun.named(lake, start)
    adapter = read_adapter(resolve_adapter(run.adapter, lake.uri))
    head = {f"head.{name}": tensor for name, tensor in run.head().items() if not name.startswith("target.")}
    return Found(adapter.pairs, head, adapter.scale)


def read_file(path: Path) -> Found:
    """A state dict, whole or of what learns: safetensors, or a .pt file of tensors alone (pickled code is refused)."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    except Exception as error:           # torch raises its own, pickle's and zipfile's errors for hostile files
        raise InputError(
            f"{path} is refused: it is damaged, or holds pickled code instead of tensors alone ({type(error).__name__})"
        ) from error
    for name in NESTED:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    tensors = {str(k): v for k, v in state.items() if isinstance(v, torch.Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise InputError(f"{path} holds no tensors")
    others = {name: t.float() for name, t in tensors.items() if LORA_PAIR.fullmatch(name) is None and t.is_floating_point()}
    return Found(pairs_of(tensors), others)


def start_from(model: Tuned, found: Found) -> Started:
    """Set what fits.  Raises InputError where nothing does."""
    import torch

    wanted = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    offered: dict[str, Any] = {}
    rescaled = 1.0 if found.scale is None else found.scale / (model.settings.alpha / model.settings.rank)
    for module, (first, second) in found.pairs.items():
        for side, tensor in (("A", first), ("B", second * rescaled)):
            offered[f"peft.{ADAPTER_PREFIX}{module}.lora_{side}.default.weight"] = tensor
    offered |= {name: tensor for name, tensor in found.others.items() if name.startswith(HEAD_PLACES)}
    taken, left = [], []
    with torch.no_grad():
        for name, tensor in offered.items():
            mine = wanted.get(name)
            if mine is not None and mine.shape == tensor.shape:
                mine.copy_(tensor)
                taken.append(name)
            else:
                shape = "not in this model" if mine is None else f"{tuple(tensor.shape)} instead of {tuple(mine.shape)}"
                left.append(f"{plain(name)} ({shape})")
    if not taken:
        held = "; ".join(left[:5]) or "it holds no LoRA"
        raise InputError(f"nothing of the checkpoint to start from fits this model: {held}")
    return Started(taken, left)


def plain(name: str) -> str:
    """A name as a person would write it.

    >>> plain("peft.base_model.model.encoder.layers.0.attention.q_proj.lora_A.default.weight")
    'encoder.layers.0.attention.q_proj.lora_A'
    """
    return re.sub(r"(\.default)?\.weight$", "", name.removeprefix("peft.").removeprefix(ADAPTER_PREFIX)) if ".lora_" in name else name
