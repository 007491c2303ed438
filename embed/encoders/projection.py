"""Projections trained elsewhere: a head of `Linear` layers in a safetensors file makes a space from stored vectors.

Read are tensors named as PyTorch names them: `weight` and `bias` of one Linear, or those of several by number
(`0.weight`, `0.bias`, `2.weight`, … of a Sequential), after any prefix.  The first takes the vectors of the source layer, each
following one the result of the one before it, after an activation: that of the file's metadata (`activation`), else the one
that is given, else ReLU.  Nothing is encoded: a new space holds the projected means and maxima of every clip of its source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tonelake.embed.errors import CheckpointError
from tonelake.store import (
    ACTIVATIONS,
    InputError,
    Lake,
    Projection,
    Space,
    check_name,
    extend_projected,
    is_projection,
    make_projected,
)

DEFAULT_ACTIVATION = "relu"
LAYER = "projected"                      # name of the one layer, whatever the file is called
NUMBER = re.compile(r"\d+")
FLOATS = ("F64", "F32", "F16", "BF16")
MOST_VALUES = 500_000_000                # of a head, 2 GB in float32

Linear = tuple[np.ndarray, np.ndarray]   # (out, in) weight and (out,) bias, float32


@dataclass(frozen=True, kw_only=True)
class ProjectReport:
    """The space that a projection made, and how many clips were projected."""

    space: str
    source: str                          # space/layer
    shape: tuple[int, ...]               # widths from the source to the result
    activation: str                      # between the linear maps; empty if there is one
    assumed: bool                        # whether the activation is the default
    new: int
    known: int

    def __str__(self) -> str:
        between = ""
        if self.activation:
            reason = ", the default: the file names none" if self.assumed else ""
            between = f", {self.activation} between them{reason}"
        widths = " → ".join(map(str, self.shape))
        return (
            f"space {self.space}: {self.new:,} clips projected from {self.source}, {self.known:,} known; "
            f"{len(self.shape) - 1} linear {'map' if len(self.shape) == 2 else 'maps'} ({widths}){between}"
        )


def project_space(
    lake: Lake, file: str | Path, *, source: str | None = None, activation: str | None = None, head: str | None = None,
    name: str | None = None,
) -> ProjectReport:
    """Make a space from another by a head in a safetensors file, or add new clips to it; returns what was done.

    `source`: a space or `space/layer`, `space/all` for all layers side by side; by default the default space and layer.
    `head`: the prefix of the tensors to use, for a file with several heads.  `activation`: one of ACTIVATIONS, if the file's
    metadata names none.  The space is named by `name`, by default from the source and the file.  Its identity is a hash of the
    tensors, of the activation, and of the source space and layer.
    Raises CheckpointError for a file that is no such head, InputError if it does not fit the source, SpaceMismatch if the name
    belongs to another space.
    """
    path = Path(file).expanduser()
    parent, layers, layer_name = find_source(lake, source)
    if activation is not None and activation not in ACTIVATIONS:
        raise InputError(f"--activation {activation}: unknown. Choose {', '.join(ACTIVATIONS)}")
    linears, stated = read_head(path, head)
    if stated and activation and stated != activation:
        raise InputError(f"--activation {activation}: the file's metadata says {stated}. Leave out --activation")
    width = sum(parent.dims[layer] for layer in layers)
    if linears[0][0].shape[1] != width:
        raise InputError(
            f"{path}: its first weight takes vectors of width {linears[0][0].shape[1]}, layer {layer_name} of space "
            f"{parent.name!r} has {width}. Choose the space and layer it was trained on with --from SPACE/LAYER"
        )
    chosen = (stated or activation or DEFAULT_ACTIVATION) if len(linears) > 1 else ""
    (weight, bias), *more = linears
    projection = Projection(
        parent=parent.name, fingerprint=parent.fingerprint, layers=layers, weight=weight, bias=bias, more=tuple(more),
        activation=chosen,
    )
    label = path.stem if head is None else f"{path.stem} {head}"
    name = name or default_name(parent.name, label)
    check_name(name)
    space = make_projected(lake, projection, name, LAYER, f"{parent.encoder} projected by {label}")
    known = lake.vectors(space).count()
    new = extend_projected(lake, space)
    return ProjectReport(
        space=space.name, source=f"{parent.name}/{layer_name}", shape=(width, *(len(one[1]) for one in linears)),
        activation=chosen, assumed=bool(chosen) and not (stated or activation), new=new, known=known,
    )


def find_source(lake: Lake, source: str | None) -> tuple[Space, tuple[int, ...], str]:
    """Return the source space of `space/layer`, the numbers of its layers, and their name.

    Raises InputError for a projection, SpaceNotFound or InputError for what does not exist.
    """
    name, _, layer = (source or "").partition("/")
    parent = lake.spaces.get(name or None)
    if is_projection(parent):
        raise InputError(f"space {parent.name!r}: is itself a projection. Project the space that it was made from")
    if layer == "all" and "all" not in parent.layers:
        return parent, tuple(range(len(parent.layers))), "all"
    number = parent.layer_index(layer or None)
    return parent, (number,), parent.layers[number]


def default_name(parent: str, label: str) -> str:
    """Make the name of a space from that of its source and a label.

    >>> default_name("mert-v1-95m", "MERIT head.v2")
    'mert-v1-95m-merit-head-v2'
    """
    text = re.sub(r"[^a-z0-9_-]+", "-", label.lower().encode("ascii", "ignore").decode()).strip("-_") or "projection"
    return f"{parent[:31]}-{text}"[:64]


def read_head(path: Path, head: str | None = None) -> tuple[list[Linear], str]:
    """Read the Linear layers of a safetensors file in order, and the activation that its metadata names, or "".

    Raises CheckpointError for a file that cannot be read, tensors that are not those of Linear layers, a missing weight or
    bias, shapes that do not follow each other, values that are not finite, and an unknown activation.
    """
    tensors, about = read_tensors(path, head)
    stated = about.get("activation", "").strip().lower()
    if stated and stated not in ACTIVATIONS:
        raise CheckpointError(
            f"{path}: its metadata names the activation {stated[:40]!r}. Only {', '.join(ACTIVATIONS)} are implemented"
        )
    stems = order_stems(path, tensors)
    linears = [check_linear(path, stem, tensors) for stem in stems]
    for number in range(1, len(linears)):
        takes, gives = linears[number][0].shape[1], len(linears[number - 1][1])
        if takes != gives:
            raise CheckpointError(
                f"{path}: {joined(stems[number], 'weight')} takes vectors of width {takes}, "
                f"{joined(stems[number - 1], 'weight')} gives {gives}. Save the Linear layers of one head, in their order"
            )
    return linears, stated


def read_tensors(path: Path, head: str | None) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the tensors under a prefix as float32, named without it, and the metadata.  Raises CheckpointError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = dict(file.metadata() or {})
            names = sorted(file.keys())
            kinds = {name: file.get_slice(name).get_dtype() for name in names}
            sizes = {name: int(np.prod(file.get_slice(name).get_shape(), dtype=np.float64)) for name in names}
            kept = names if head is None else [name for name in names if name.startswith(f"{head}.")]
            if not kept:
                shown = ", ".join(sorted({name.rpartition(".")[0] for name in names})[:8]) or "none"
                under = f" under {head!r}; it has {shown}" if head else ""
                raise CheckpointError(f"{path}: has no tensors{under}. Choose a trained head, one of several with --head")
            if sum(sizes[name] for name in kept) > MOST_VALUES:
                raise CheckpointError(f"{path}: has more than {MOST_VALUES:,} values. Choose one head with --head")
            odd = next((name for name in kept if kinds[name] not in FLOATS), None)
            if odd is not None:
                raise CheckpointError(f"{path}: tensor {odd[:80]!r} holds {kinds[odd]} values. Save it as float32 or float16")
            found = {} if any(kinds[name] == "BF16" for name in kept) else {name: file.get_tensor(name) for name in kept}
        if not found:                    # NumPy has no bfloat16
            with safe_open(path, framework="pt") as file:
                found = {name: file.get_tensor(name).float().numpy() for name in kept}
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read as safetensors ({error}). Save the head with safetensors") from error
    cut = 0 if head is None else len(head) + 1
    return {name[cut:]: np.asarray(values, np.float32) for name, values in found.items()}, about


def order_stems(path: Path, tensors: dict[str, Any]) -> list[str]:
    """Order the names of Linear layers (`0` of `0.weight`) by the numbers in them.

    Raises CheckpointError for tensors with other names, or if several names differ by more than numbers.
    """
    stems = set()
    for name in tensors:
        stem, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias"):
            raise CheckpointError(
                f"{path}: tensor {name[:80]!r} is not the weight or bias of a Linear layer. Leave it out of the file"
            )
        stems.add(stem)
    forms = sorted({NUMBER.sub("#", stem) for stem in stems})
    if len(forms) > 1:
        shown = ", ".join(repr(stem) for stem in sorted(stems)[:6])
        raise CheckpointError(
            f"{path}: has several heads, or layers whose order is not numbered ({shown}). Choose one head with --head, or name "
            "the layers 0, 1, 2"
        )
    numbered = {tuple(map(int, NUMBER.findall(stem))): stem for stem in stems}
    varying = sum(len(set(column)) > 1 for column in zip(*numbered, strict=True))
    if len(numbered) < len(stems) or varying > 1:
        shown = ", ".join(repr(stem) for stem in sorted(stems)[:6])
        raise CheckpointError(f"{path}: has several heads ({shown}). Choose one with --head")
    return [numbered[key] for key in sorted(numbered)]


def check_linear(path: Path, stem: str, tensors: dict[str, np.ndarray]) -> Linear:
    """Return weight and bias of one Linear layer.

    Raises CheckpointError for wrong shapes, missing tensors, NaN or infinity.
    """
    for kind in ("weight", "bias"):
        name = joined(stem, kind)
        if name not in tensors:
            remedy = "Save a bias of zeros for a Linear without one" if kind == "bias" else "Save the whole Linear layer"
            raise CheckpointError(f"{path}: {name} is missing. {remedy}")
        if not np.isfinite(tensors[name]).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity. Save the head of a run that did not diverge")
    weight, bias = tensors[joined(stem, "weight")], tensors[joined(stem, "bias")]
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or not weight.size:
        raise CheckpointError(
            f"{path}: {joined(stem, 'weight')} has shape {weight.shape} and the bias {bias.shape}; a Linear layer has (out, "
            "in) and (out,). Normalisation and convolution layers are not implemented"
        )
    return np.ascontiguousarray(weight), np.ascontiguousarray(bias)


def joined(stem: str, kind: str) -> str:
    return f"{stem}.{kind}" if stem else kind
