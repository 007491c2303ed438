"""Initial weights from another run of the lake, or from a checkpoint file, possibly of another task or another project.

LoRA updates are matched by the encoder's module names.  A head with this project's names is matched by name; another one by the
order of its layers: LayerNorm, then two linear layers, and a weight for each layer of the encoder.  Tensors of equal shape are
loaded, all others are reported by name.  The encoder's own weights are never loaded, because an adapter belongs to one encoder:
a file that has them is compared, and those that differ are reported.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tonelake.embed import ADAPTER_CONFIG as PEFT_CONFIG
from tonelake.embed import ADAPTER_PREFIX, read_adapter, resolve_adapter
from tonelake.finetune.checkpoint_file import WEIGHT_SUFFIXES, CheckpointWeights, module_name, read_checkpoint_file
from tonelake.finetune.model import LORA, LoraModel
from tonelake.finetune.runs import HEAD, FinetuneRun
from tonelake.store import InputError, Lake

HEAD_PREFIXES = ("head.", "classifier.", "mlp.", "fc.")
MIXES = ("head.layer_scores", "head.mix")                # the weighting of the layers, in a head of clips and one of frames
LAYER_SHARES = re.compile(r"layer|weight|score|mix")
LOSS = re.compile(r"pos_?weight|class_?weight|criterion|loss")
ENCODER_PART = re.compile(r"(?:^|\.)(encoder|layers\.\d+|feature_extractor|feature_projection|pos_conv\w*)\.")


class LoadReport(NamedTuple):
    """Names of the tensors that were loaded and of those that were skipped."""

    loaded: list[str]
    skipped: list[str]
    sources: dict[str, str]              # names in the checkpoint of the loaded tensors
    unchanged: bool                      # whether all were loaded as they are, neither scaled nor in another order
    equal: int = 0                       # tensors of the encoder itself in the checkpoint that equal this encoder's
    differing: Sequence[str] = ()        # names of those that differ, which are not loaded

    def __str__(self) -> str:
        text = f"{len(self.loaded)} tensors loaded"
        if self.equal:
            text += f"; {self.equal} tensors are this encoder's own weights"
        if self.differing:
            text += (
                f"; {len(self.differing)} weights of another encoder, or of one trained as a whole, are left out: "
                f"{', '.join(condense_names(self.differing))}"
            )
        return text + (f"; skipped because they do not fit: {', '.join(self.skipped)}" if self.skipped else "")


def read_initial_weights(lake: Lake, start: str) -> CheckpointWeights:
    """Read the tensors of a run, of a folder in PEFT's form, or of a checkpoint file.  Raises InputError, CheckpointError."""
    path = Path(start).expanduser()
    if path.is_dir() and (path / PEFT_CONFIG).is_file():
        adapter = read_adapter(str(path.absolute()))
        return CheckpointWeights(pairs=adapter.pairs, scale=adapter.scale)
    if path.is_file() or path.suffix in WEIGHT_SUFFIXES:
        return read_checkpoint_file(path)
    run = FinetuneRun.named(lake, start)
    adapter = read_adapter(resolve_adapter(run.adapter, lake.uri))
    head = {f"head.{name}": tensor for name, tensor in run.head().items() if not name.startswith("target.")}
    return CheckpointWeights(pairs=adapter.pairs, others=head, scale=adapter.scale, names=head_names(run))


def head_names(run: FinetuneRun) -> tuple[str, ...]:
    """Return the class names of a run's head in the order of its outputs; empty if they are not stored."""
    from safetensors import SafetensorError, safe_open

    with run.files.fetched(HEAD) as path:
        try:
            if path is None:
                return ()
            with safe_open(path, framework="np") as file:
                return tuple(json.loads((file.metadata() or {}).get("names", "[]")))
        except (OSError, SafetensorError, ValueError):
            return ()


def load_initial_weights(model: LoraModel, weights: CheckpointWeights, names: Sequence[str] = ()) -> LoadReport:
    """Load the tensors that fit.  `names`: classes of the model's outputs, by which those of the checkpoint are put in order.

    Raises InputError if no tensor fits.
    """
    import torch

    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    offered: list[tuple[str, str, Any]] = []             # name in the checkpoint, name in the model, tensor
    rescaled = 1.0 if weights.scale is None else weights.scale / (model.settings.alpha / model.settings.rank)
    # A file's names are completed to HuBERT's (`module_name`), which are compared with the model's own in the same form.
    adapted = [name.removeprefix(f"peft.{ADAPTER_PREFIX}").partition(LORA)[0] for name in trainable if LORA in name]
    own = {module_name(name): name for name in adapted}
    for module, (first, second) in weights.pairs.items():
        for side, tensor in (("A", first), ("B", second * rescaled)):
            name = f"peft.{ADAPTER_PREFIX}{own.get(module_name(module), module)}.lora_{side}.default.weight"
            offered.append((weights.lora_names.get((module, side), name), name, tensor))
    equal, differing, rest = compare_encoder(model, weights.others)
    offered += match_head(rest, trainable)
    order = output_order(weights.names, names)
    loaded, skipped, sources = [], [], dict[str, str]()
    with torch.no_grad():
        for source, name, tensor in offered:
            mine = trainable.get(name)
            if mine is None:
                problem = "not in this model"
            elif mine.shape != tensor.shape:
                problem = f"{tuple(tensor.shape)} instead of {tuple(mine.shape)}"
            elif name.startswith("head.outer.") and order is None:
                problem = f"of the classes {', '.join(weights.names)}"
            else:
                mine.copy_(tensor[order] if name.startswith("head.outer.") and order else tensor)
                loaded.append(name)
                sources[name] = source
                continue
            skipped.append(f"{readable_name(name if '.lora_' in name else source)} ({problem})")
    if not loaded:
        reason = "; ".join(skipped[:5]) or "it holds no LoRA"
        if differing:
            shown = ", ".join(condense_names(differing)[:5])
            reason += f"; {len(differing)} weights of an encoder, which are not loaded: {shown}"
        raise InputError(f"initial weights: no tensor of the checkpoint fits this model: {reason}")
    as_they_are = rescaled == 1 and order in ([], list(range(len(names))))
    return LoadReport(
        loaded=loaded, skipped=skipped, sources=sources, unchanged=as_they_are, equal=equal, differing=differing
    )


def compare_encoder(model: LoraModel, others: dict[str, Any]) -> tuple[int, list[str], dict[str, Any]]:
    """Return how many tensors equal the encoder's own, the names of those that differ, and the tensors that are not of it.

    A tensor is the encoder's if its name ends with that of one of its weights, whatever holds the encoder in the other project.
    """
    import torch

    own = {
        name.removeprefix(f"peft.{ADAPTER_PREFIX}").replace(".base_layer.", "."): tensor.detach()
        for name, tensor in model.named_parameters() if name.startswith("peft.") and LORA not in name
    }
    equal, differing, rest = 0, [], {}
    for name, tensor in others.items():
        parts = name.replace(".base_layer.", ".").split(".")
        found = next((own[end] for i in range(len(parts)) if (end := ".".join(parts[i:])) in own), None)
        if found is None:
            if is_of_an_encoder(name):
                differing.append(name)
            else:
                rest[name] = tensor
        elif found.shape == tensor.shape and torch.allclose(tensor.float(), found.cpu().float(), rtol=1e-3, atol=1e-6):
            equal += 1
        else:
            differing.append(name)
    return equal, differing, rest


def is_of_an_encoder(name: str) -> bool:
    """Return whether a name is that of a weight in an encoder, of whatever kind."""
    return not name.startswith(HEAD_PREFIXES) and ENCODER_PART.search(name) is not None


def condense_names(names: Sequence[str]) -> list[str]:
    """Return names with their numbers replaced by stars, and how often each occurs.

    >>> condense_names(["encoder.layers.0.fc.weight", "encoder.layers.1.fc.weight", "mask"])
    ['encoder.layers.*.fc.weight (2)', 'mask']
    """
    count = Counter(re.sub(r"\.\d+(?=\.|$)", ".*", name) for name in names)
    return [f"{name} ({number})" if number > 1 else name for name, number in count.items()]


def output_order(theirs: Sequence[str], ours: Sequence[str]) -> list[int] | None:
    """Return the row of each of our classes among theirs, empty if either is unknown, or None if the classes differ.

    >>> output_order(("4", "3"), ("3", "4")), output_order((), ("3", "4")), output_order(("3", "5"), ("3", "4"))
    ([1, 0], [], None)
    """
    if not theirs or not ours:
        return []
    return [theirs.index(name) for name in ours] if set(theirs) == set(ours) else None


def match_head(others: dict[str, Any], trainable: dict[str, Any]) -> list[tuple[str, str, Any]]:
    """Return (name in the checkpoint, name in the model, tensor) of a head: by name, else by the order of its layers.

    A head's names begin with one of HEAD_PREFIXES; if no layer's does, all tensors are taken for the head's.  Linear layers and
    convolutions are matched in order if there are equally many, else only the last ones.
    """
    heads = {name: tensor for name, tensor in others.items() if name.startswith(HEAD_PREFIXES)}
    if not any(tensor.ndim in (2, 3) for tensor in heads.values()):
        heads = others
    if any(name in trainable for name in heads):
        return [(name, name, tensor) for name, tensor in others.items()]
    layers: dict[str, dict[str, Any]] = {}
    for name, tensor in heads.items():
        prefix, _, last = name.rpartition(".")
        layers.setdefault(prefix, {})[last] = tensor
    theirs = [prefix for prefix, parts in layers.items() if "weight" in parts and parts["weight"].ndim in (2, 3)]
    norms = [prefix for prefix, parts in layers.items() if parts.keys() == {"weight", "bias"} and parts["weight"].ndim == 1]
    ours = [
        name.removesuffix(".weight") for name, tensor in trainable.items()
        if name.startswith("head.") and name.endswith(".weight") and tensor.ndim >= 2
    ]
    same = len(theirs) == len(ours)
    places = dict(zip(theirs, ours, strict=True)) if same else dict(zip(theirs[-1:], ours[-1:], strict=False))
    places |= dict.fromkeys(norms[:1], "head.norm")
    found = []
    for name, tensor in others.items():
        prefix, _, last = name.rpartition(".")
        own = f"{places[prefix]}.{last}" if prefix in places and name in heads else name
        single = own == name and tensor.numel() == max(tensor.shape, default=0)
        if single and name in heads and LAYER_SHARES.search(last) and last not in ("weight", "bias") and not LOSS.search(name):
            own, tensor = next((key for key in MIXES if key in trainable), name), tensor.flatten()   # a weight for each layer
        elif own in trainable and squeezed(tensor) == squeezed(trainable[own]):
            tensor = tensor.reshape(trainable[own].shape)                                # a convolution over one frame
        found.append((name, own, tensor))
    return found


def squeezed(tensor: Any) -> tuple[int, ...]:
    """Return the shape of a tensor without dimensions of one."""
    return tuple(size for size in tensor.shape if size > 1)


def readable_name(name: str) -> str:
    """Return a parameter's name without the prefixes and suffixes of PEFT.

    >>> readable_name("peft.base_model.model.encoder.layers.0.attention.q_proj.lora_A.default.weight")
    'encoder.layers.0.attention.q_proj.lora_A'
    """
    if ".lora_" not in name:
        return name
    return re.sub(r"(\.default)?\.weight$", "", name.removeprefix("peft.").removeprefix(ADAPTER_PREFIX))
