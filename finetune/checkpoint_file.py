"""Read a checkpoint file of this project or another: LoRA updates, head, and what it says about its training.

    .safetensors          tensors only
    .pt, .pth, .bin       a dict of torch.save: tensors, plain values and NumPy scalars
    .ckpt                 likewise, as PyTorch Lightning writes it: `state_dict` beside loops, callbacks and hyper-parameters

A dict can hold one state dict or several (`lora_state_dict`, `head_state_dict`), besides metrics, settings and the state of the
optimizer.  Names of tensors lose what wraps a model (`model.`, `module.`, `_orig_mod.`).  Nothing is unpickled: torch's loader
for weights builds tensors and plain values, and here NumPy scalars as well, from their bytes and by functions of this module
instead of NumPy's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed import LORA_PAIR, pairs_of
from tonelake.store import InputError

WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
LORA_STATES = ("lora_state_dict", "adapter_state_dict", "lora")
HEAD_STATES = ("head_state_dict", "classifier_state_dict", "head")
WHOLE_STATES = ("state_dict", "model_state_dict", "model")
OPTIMIZER_STATES = ("optimizer_state_dict", "optimizer")
LIGHTNING_VERSION, LIGHTNING_OPTIMIZERS = "pytorch-lightning_version", "optimizer_states"
WRAPPERS = ("model.", "module.", "net.", "network.")     # attributes and wrappers that hold a model: Lightning, DataParallel
COMPILED = "_orig_mod."                  # torch.compile
RANKS, ALPHAS = ("lora_r", "lora_rank", "rank", "r"), ("lora_alpha", "alpha")
MOST_NESTED = 3                          # state dicts in state dicts; a hostile file can nest them in a circle
LAYER_WEIGHTS = re.compile(r"\w*layer_?(weights|scores|logits)")     # of a head, where they are not among its tensors
BLOCK = re.compile(r"(?:^|\.)(layers\.\d+\..+)")
PLAIN_SCALAR = re.compile(r"[biufc](1|2|4|8|16)|[SU]\d{1,6}|\?")      # kinds of NumPy scalars whose bytes are their value
REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


@dataclass(frozen=True, kw_only=True)
class CheckpointWeights:
    """Weights of a checkpoint file or of a run, and what is known about their training."""

    pairs: dict[str, tuple[Any, Any]]    # LoRA A and B by the encoder's module names
    others: dict[str, Any] = field(default_factory=dict)     # further tensors, in order; a head's own begin with "head."
    scale: float | None = None           # alpha / rank; None if the file does not say
    names: tuple[str, ...] = ()          # classes in the order of the outputs; empty if the file does not say
    epoch: int | None = None
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)      # of the file's tensors by name, in its order
    lora_names: Mapping[tuple[str, str], str] = field(default_factory=dict)  # names in the file by module and side (A, B)


class RefusedScalar(ValueError):
    """A NumPy value that is not a plain number or text."""


class SavedDtype:
    """A NumPy dtype as pickled: its code and byte order, without calling NumPy."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        if not isinstance(code, str) or PLAIN_SCALAR.fullmatch(code) is None:
            raise RefusedScalar(f"a NumPy value of type {str(code)[:20]!r}")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|") or any(state[2:5]):
            raise RefusedScalar("a NumPy type with fields, or of an unknown byte order")
        self.order = state[1]


def numpy_scalar(dtype: Any, data: Any = None) -> Any:
    """Return the Python value of a pickled NumPy scalar."""
    if not isinstance(dtype, SavedDtype) or not isinstance(data, bytes):
        raise RefusedScalar("a NumPy scalar without plain bytes")
    plain = np.dtype(dtype.code if dtype.order == "=" else dtype.order + dtype.code)
    if plain.itemsize != len(data) or plain.hasobject:
        raise RefusedScalar(f"a NumPy scalar of {len(data)} bytes for {plain}")
    return np.frombuffer(data, plain)[0].item()


# Both spellings: NumPy 2 moved its core, and files of either version are read.
NUMPY_GLOBALS: list[tuple[Callable[..., Any], str]] = [
    (numpy_scalar, "numpy.core.multiarray.scalar"), (numpy_scalar, "numpy._core.multiarray.scalar"),
    (SavedDtype, "numpy.dtype"),
]


def load_plain(path: Path) -> Any:
    """Return the contents of a weights file.  Raises InputError if it cannot be read or holds anything but plain data."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(list(NUMPY_GLOBALS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    except Exception as error:           # for hostile files, torch raises its own, pickle's and zipfile's errors
        found = REFUSED_GLOBAL.search(str(error))
        held = f"{found[1]}, which is pickled code," if found else str(error) if isinstance(error, RefusedScalar) else None
        problem = f"it holds {held}" if held else f"it is damaged or holds pickled code ({type(error).__name__})"
        raise InputError(
            f"{path}: refused, because {problem} instead of tensors, numbers and text. Save its state dicts alone"
        ) from error


def read_checkpoint_file(path: Path) -> CheckpointWeights:
    """Read a weights file.  Raises InputError if it cannot be read, holds pickled code, or holds no tensors."""
    import torch

    content = load_plain(path)
    state: Any = content
    for _ in range(MOST_NESTED):
        inner = [state[name] for name in WHOLE_STATES if isinstance(state, dict) and isinstance(state.get(name), dict)]
        state = inner[0] if inner else state
    outer = content if isinstance(content, dict) else {}
    tensors = dict(tensors_of(state, torch.Tensor))
    for names, prefix in ((LORA_STATES, ""), (HEAD_STATES, "head.")):
        part: Any = next((outer[name] for name in names if isinstance(outer.get(name), dict)), {})
        for name, tensor in tensors_of(part, torch.Tensor):
            tensors[name if name.startswith(prefix) else prefix + name] = tensor
    if not tensors:
        raise InputError(f"{path}: holds no tensors. Choose a checkpoint of a fine-tuning")
    tensors = unwrapped({complete_name(name): tensor for name, tensor in tensors.items()})
    tensors = {f"head.{name}" if LAYER_WEIGHTS.fullmatch(name) else name: tensor for name, tensor in tensors.items()}
    pairs = {module_name(module): both for module, both in pairs_of(tensors).items()}
    others = {name: t.float() for name, t in tensors.items() if LORA_PAIR.fullmatch(name) is None and t.is_floating_point()}
    said = [outer, *(value for value in outer.values() if isinstance(value, dict))]
    return CheckpointWeights(
        pairs=pairs, others=others, scale=scale_of(said, pairs), names=names_of(said, others), epoch=epochs_of(outer),
        optimizer=optimizer_of(outer),
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor.is_floating_point()},
        lora_names=lora_names(tensors),
    )


def epochs_of(content: Mapping[str, Any]) -> int | None:
    """Return the number of epochs that a checkpoint has trained; None if it does not say.

    Lightning counts epochs from 0, and saves while one is under way: the loop's progress says whether it was trained through.
    """
    epoch = content.get("epoch")
    if not isinstance(epoch, int | float) or not 0 <= epoch < 1e6:
        return None
    if LIGHTNING_VERSION not in content:
        return int(epoch)
    progress: Any = content.get("loops")
    for key in ("fit_loop", "epoch_progress", "current", "processed"):
        progress = progress.get(key) if isinstance(progress, dict) else None
    trained = progress if isinstance(progress, int) and not isinstance(progress, bool) else int(epoch) + 1
    return trained if 0 <= trained <= int(epoch) + 1 else int(epoch) + 1


def optimizer_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of the optimizer in a checkpoint, of Lightning's that of the only one; empty without one."""
    several = content.get(LIGHTNING_OPTIMIZERS)
    if isinstance(several, list) and len(several) == 1 and isinstance(several[0], dict):
        return several[0]
    return next((content[name] for name in OPTIMIZER_STATES if isinstance(content.get(name), dict)), {})


def unwrapped(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return tensors under names without wrappers; two that would have one name then keep their own.

    >>> list(unwrapped({"model.head.0.weight": 1, "model._orig_mod.encoder.layers.0.q_proj.weight": 2, "head.0.weight": 3}))
    ['model.head.0.weight', 'encoder.layers.0.q_proj.weight', 'head.0.weight']
    """
    short = {name: unwrapped_name(name) for name in tensors}
    count = Counter(short.values())
    return {short[name] if count[short[name]] == 1 else name: tensor for name, tensor in tensors.items()}


def unwrapped_name(name: str) -> str:
    """Return the name of a tensor without what wraps its model.

    >>> unwrapped_name("module.model.classifier.0.weight"), unwrapped_name("mert.model.encoder.layers.0.q_proj.weight")
    ('classifier.0.weight', 'mert.model.encoder.layers.0.q_proj.weight')
    """
    name = name.replace(COMPILED, "")
    while found := next((wrapper for wrapper in WRAPPERS if name.startswith(wrapper) and name != wrapper), None):
        name = name.removeprefix(found)
    return name


def tensors_of(state: Any, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a state dict with their names."""
    if isinstance(state, dict):
        yield from ((str(name), value) for name, value in state.items() if isinstance(value, kind))


def complete_name(name: str) -> str:
    """Return a LoRA name with the suffix `.weight`, which bare parameters lack; other names as they are.

    >>> complete_name("q_proj.lora_A"), complete_name("q_proj.lora_B.default"), complete_name("head.0.weight")
    ('q_proj.lora_A.weight', 'q_proj.lora_B.default.weight', 'head.0.weight')
    """
    return f"{name}.weight" if re.fullmatch(r".+\.lora_[AB](\.(?!weight$)[^.]+)?", name) else name


def lora_names(tensors: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Return the names of LoRA tensors by the encoder's module and side, A or B."""
    found = {name: LORA_PAIR.fullmatch(name) for name in tensors}
    return {(module_name(match["module"]), match["side"]): name for name, match in found.items() if match}


def module_name(name: str) -> str:
    """Return the encoder's own name of a module of a block, whatever wraps the encoder.

    >>> module_name("mert.model.encoder.layers.3.attention.q_proj"), module_name("layers.0.attention.v_proj")
    ('encoder.layers.3.attention.q_proj', 'encoder.layers.0.attention.v_proj')
    """
    found = BLOCK.search(name)
    return f"encoder.{found[1]}" if found else name


def scale_of(said: list[dict[str, Any]], pairs: dict[str, tuple[Any, Any]]) -> float | None:
    """Return alpha / rank if a dict of the file has both, and the rank is that of the updates."""
    for values in said:
        rank, alpha = (next((values[key] for key in keys if key in values), None) for keys in (RANKS, ALPHAS))
        if isinstance(rank, int) and isinstance(alpha, int | float) and all(len(a) == rank for a, _ in pairs.values()):
            return float(alpha) / rank if rank > 0 else None
    return None


def names_of(said: list[dict[str, Any]], others: dict[str, Any]) -> tuple[str, ...]:
    """Return the class names of the outputs, from a list, or from a dict of names to numbers or back; empty without one."""
    last = last_linear(others)
    if last is None:
        return ()
    for values in said:
        for key, found in values.items():
            if not any(word in str(key).lower() for word in ("class", "label", "meter", "idx")):
                continue
            if isinstance(found, dict):
                swap = all(isinstance(number, int) for number in found.values())
                by_number = {number: name for name, number in found.items()} if swap else found
                found = [by_number.get(number) for number in range(len(by_number))]
            plain = isinstance(found, list | tuple) and all(isinstance(name, str | int) for name in found)
            if plain and len(set(found)) == len(found) == len(last):
                return tuple(map(str, found))
    return ()


def last_linear(tensors: dict[str, Any]) -> Any:
    """Return the weight of a head's last linear layer: the last matrix outside the encoder; None if there is none."""
    heads = [t for name, t in tensors.items() if t.ndim == 2 and name.endswith("weight") and "encoder." not in name]
    return heads[-1] if heads else None
