"""Read LoRA adapters in PEFT's form, and merge them into the encoder's weights.

An adapter adds B · A · alpha / r to a linear layer's weight (Hu et al. 2021, arXiv 2106.09685).  To embed, the sum is computed
once, so an adapted encoder is as fast as a plain one.  Anything but plain LoRA is refused rather than ignored.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonelake.embed.errors import CheckpointError
from tonelake.store import METRICS_FILE, Blobs, Lake, Space, choose_run, is_projection

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_PREFIX = "base_model.model."
WRAPPER = re.compile(r"^(hubert|wav2vec2|encoder\.model|model)\.(?=(encoder|layers)\.)")
LORA_PAIR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(\.[^.]+)?\.weight")
# Settings that may change the weight from W + B · A · alpha / r, and the values under which they do not.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "use_dora": (False, None), "bias": ("none", None), "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None), "alpha_pattern": ({}, None), "layer_replication": (None,), "trainable_token_indices": (None,),
    "modules_to_save": (None, []), "use_qalora": (False, None), "lora_bias": (False, None), "target_parameters": (None, []),
}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The low-rank updates of an adapter, by module."""

    name: str
    pairs: dict[str, tuple[Any, Any]]    # A (r, in) and B (out, r) tensors, float32
    scale: float                         # alpha / r
    base: str                            # the encoder that it was trained on, according to its configuration
    digest: str                          # 32 hex digits over tensors and scale

    def update(self, module: str) -> Any:
        """The update of a module's weight: (out, in)."""
        first, second = self.pairs[module]
        return self.scale * (second @ first)

    def apply(self, model: Any) -> None:
        """Add every update to a model's weights.  Raises CheckpointError if they do not fit."""
        import torch

        modules = dict(model.named_modules())
        for module, (first, second) in self.pairs.items():
            target = modules.get(module)
            wanted = (len(second), first.shape[1])
            if not isinstance(target, torch.nn.Linear) or target.weight.shape != wanted:
                shape = tuple(getattr(target, "weight", torch.empty(0)).shape)
                has = "no such layer" if target is None else f"one of shape {shape}"
                raise CheckpointError(
                    f"adapter {self.name}: its {module} has shape {wanted}, but the encoder has {has}. The adapter belongs to "
                    f"{self.base or 'another encoder'}"
                )
        with torch.no_grad():
            for module in self.pairs:
                target = modules[module]
                target.weight = torch.nn.Parameter(target.weight + self.update(module), requires_grad=False)


def read_adapter(location: str) -> Adapter:
    """Read an adapter folder as PEFT writes it, on disk or an object store.  Raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    name = adapter_name(location)
    files = Blobs(location)
    text = files.read(ADAPTER_CONFIG)
    if text is None and len(parts := location.replace("\\", "/").split("/")) > 2 and parts[-3::2] == ["adapters", "adapter"]:
        raise CheckpointError(
            f"adapter of run {name!r}: is missing, as {location} has no {ADAPTER_CONFIG}. Restore the folder of the run, or "
            "fine-tune again and embed into a new space"
        )
    if text is None:
        raise CheckpointError(f"{location}: has no {ADAPTER_CONFIG}. Choose an adapter folder in PEFT's form")
    try:
        config = json.loads(text)
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{location}/{ADAPTER_CONFIG}: cannot be read ({error}). Save the adapter again") from error
    for setting, allowed in PLAIN.items():
        if setting in config and config[setting] not in allowed:
            raise CheckpointError(f"adapter {name}: {setting} is {config[setting]!r}. Choose a plain LoRA adapter")
    with files.fetched(ADAPTER_WEIGHTS) as path:
        if path is None:
            raise CheckpointError(
                f"{location}: has no {ADAPTER_WEIGHTS} (adapter_model.bin is not read). Save the adapter as safetensors"
            )
        try:
            state = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{location}/{ADAPTER_WEIGHTS}: cannot be read ({error}). Save the adapter again") from error
    pairs = pairs_of(state)
    unexpected = sorted(name for name in state if LORA_PAIR.fullmatch(name) is None)
    if unexpected or not pairs:
        problem = f"holds {', '.join(unexpected[:3])}" if unexpected else "holds no lora_A and lora_B"
        raise CheckpointError(f"{location}/{ADAPTER_WEIGHTS}: {problem}. Choose a plain LoRA adapter")
    wrong = [module for module, (first, second) in pairs.items() if first.shape[0] != rank or second.shape[1] != rank]
    if wrong:
        raise CheckpointError(
            f"{location}/{ADAPTER_WEIGHTS}: {wrong[0]} is not of rank {rank}, unlike {ADAPTER_CONFIG}. Save the adapter again"
        )
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Adapter(
        name=name, pairs=pairs, scale=scale, base=str(config.get("base_model_name_or_path") or ""),
        digest=digest_of(pairs, scale),
    )


def pairs_of(state: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The modules for which a state dict holds both halves, by the encoder's own names.

    >>> q = "base_model.model.encoder.layers.0.q.lora_"
    >>> pairs_of({f"{q}A.weight": 1, f"{q}B.weight": 2})
    {'encoder.layers.0.q': (1, 2)}
    """
    halves: dict[str, dict[str, Any]] = {}
    for name, tensor in state.items():
        found = LORA_PAIR.fullmatch(name)
        if found:
            module = WRAPPER.sub("", found["module"].partition(ADAPTER_PREFIX)[2] or found["module"])
            halves.setdefault(module, {})[found["side"]] = tensor.float() if hasattr(tensor, "float") else tensor
    return {module: (both["A"], both["B"]) for module, both in sorted(halves.items()) if len(both) == 2}


def digest_of(pairs: dict[str, tuple[Any, Any]], scale: float) -> str:
    """32 hex digits over the updates and their scale."""
    digest = hashlib.blake2b(f"{scale!r}".encode(), digest_size=16)
    for module, both in pairs.items():
        for tensor in both:
            digest.update(f"{module} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def find_adapter(lake: Lake, name: str) -> str:
    """Location of an adapter: a folder in PEFT's form, or a fine-tuning run of the lake, by its name or a unique part of it.

    The location of a run is its path inside the lake, so it stays valid when the lake is moved.
    """
    if (Path(name).expanduser() / ADAPTER_CONFIG).is_file():
        return str(Path(name).expanduser().absolute())
    run = choose_run(
        lake, "adapters", name, absent=f"{name!r} is no adapter folder and no run", maker="tonelake finetune COLUMN",
        holder="this lake",
    )
    return f"adapters/{run}/adapter"


def base_space(lake: Lake, location: str) -> str | None:
    """The space that a run of the lake was trained on; None for other adapters."""
    return None if adapter_run(location) is None else run_metrics(lake, location).get("space")


def adapter_run(location: str) -> str | None:
    """The run of the lake that an adapter belongs to, by the location that a space records; None for other adapters.

    >>> adapter_run("adapters/meter-3fa9/adapter"), adapter_run("/home/me/bass-lora"), adapter_run("")
    ('meter-3fa9', None, None)
    """
    return adapter_name(location) if location.startswith("adapters/") else None


def source_of(lake: Lake, space: Space) -> str | None:
    """The run or folder of a space's adapter, None without one; `(replaced)` or `(missing)` follows the name of a run whose
    adapter is not the one that the space was embedded with."""
    if not space.adapter_location:
        return None
    run = adapter_run(space.adapter_location)
    if run is None or is_projection(space):          # a projection records a digest of itself
        return run or space.adapter_location
    metrics = run_metrics(lake, space.adapter_location)
    if not metrics:
        return f"{run} (missing)"
    return run if metrics.get("adapter") in (None, space.adapter) else f"{run} (replaced)"    # None: of an earlier release


def run_metrics(lake: Lake, location: str) -> dict[str, Any]:
    """The metrics of the run of an adapter; empty if the run is missing, unfinished or damaged."""
    try:
        found = json.loads(lake.files(location.removesuffix("/adapter")).read(METRICS_FILE) or "{}")
        return found if isinstance(found, dict) else {}
    except ValueError:
        return {}


def describe_replaced(space: Space, adapter: str) -> str | None:
    """The error for a space whose adapter now has another digest, `adapter`; None if it is the same or the space has none."""
    if not space.adapter_location or adapter == space.adapter:
        return None
    run = adapter_run(space.adapter_location)
    which = f"run {run!r}" if run else space.adapter_location
    return (
        f"space {space.name!r}: its adapter, of {which}, has changed since the space was embedded: it was trained again or "
        "replaced, and vectors of two adapters cannot be compared. Restore the earlier adapter, or make a new space with "
        f"`tonelake embed --adapter {run or space.adapter_location}`"
    )


def resolve_adapter(location: str, home: str) -> str:
    """Make the location that a space records readable: `home` is the lake's URI."""
    return f"{home.rstrip('/')}/{location}" if location.startswith("adapters/") else location


def adapter_name(location: str) -> str:
    """The name to show: of the run, or of the folder.

    >>> adapter_name("adapters/meter-3fa9/adapter"), adapter_name("/home/me/bass-lora")
    ('meter-3fa9', 'bass-lora')
    """
    parts = [part for part in location.replace("\\", "/").split("/") if part]
    return parts[-2] if len(parts) > 1 and parts[-1] == "adapter" else parts[-1]

