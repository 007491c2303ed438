"""A space computed from another: vectors of some of its layers, concatenated, times a matrix, plus an offset.

Further linear maps can follow, each after an activation: a multilayer perceptron.

The map is stored in `projections/<space>/` of the lake.  A projected space has one layer and is used like any other space,
except that its vectors are computed from its parent's and not from audio.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tonelake.store.errors import LakeError, SpaceMismatch
from tonelake.store.space import PROJECTED, STATS, Space

if TYPE_CHECKING:
    from tonelake.store.lake import Lake

FILE = "projection.safetensors"
ACTIVATIONS = ("relu", "gelu", "tanh")
BLOCK = 4096                             # clips projected at a time


@dataclass(frozen=True, kw_only=True)
class Projection:
    """A linear map, or a multilayer perceptron, from a parent space."""

    parent: str                          # name of the space
    fingerprint: str                     # of the parent
    layers: tuple[int, ...]              # of the parent, in the order of concatenation
    weight: np.ndarray                   # (out, in) float32
    bias: np.ndarray                     # (out,) float32
    more: tuple[tuple[np.ndarray, np.ndarray], ...] = ()             # weight and bias of the linear maps that follow
    activation: str = ""                 # before each of `more`: one of ACTIVATIONS

    @property
    def width(self) -> int:
        """Width of the projected vectors."""
        return len(self.more[-1][1] if self.more else self.bias)

    def apply(self, vectors: np.ndarray) -> np.ndarray:
        """(clip, in) -> (clip, out) float32."""
        found = (vectors @ self.weight.T + self.bias).astype(np.float32)
        for weight, bias in self.more:
            found = (activate(found, self.activation) @ weight.T + bias).astype(np.float32)
        return found

    @property
    def digest(self) -> str:
        """Hash of the map and of the parent's layers and fingerprint."""
        hasher = hashlib.blake2b(digest_size=16)
        for part in (self.fingerprint.encode(), str(self.layers).encode(), self.weight.tobytes(), self.bias.tobytes()):
            hasher.update(part)
        for weight, bias in self.more:
            for part in (self.activation.encode(), str(weight.shape).encode(), weight.tobytes(), bias.tobytes()):
                hasher.update(part)
        return hasher.hexdigest()

    def describe(self, parent: Space, name: str, layer: str, about: str) -> Space:
        """The space that it makes, whose only layer is named `layer`."""
        return replace(
            parent, name=name, revision=parent.fingerprint, layers=(layer,), dims=(self.width,), adapter=self.digest,
            encoder=about, location=PROJECTED, default_layer=0, dtype="float16",
        )


def activate(values: np.ndarray, activation: str) -> np.ndarray:
    """Apply one of ACTIVATIONS to float32 values; `gelu` is exact, by the error function, as in PyTorch."""
    if activation == "relu":
        return np.maximum(values, 0)
    if activation == "tanh":
        return np.tanh(values)
    from scipy.special import erf

    return values * ((1 + erf(values / np.sqrt(np.float32(2)))) / 2)


def is_projection(space: Space) -> bool:
    """Whether a space's vectors are computed from another space's."""
    return space.location == PROJECTED


def make_projected(lake: Lake, projection: Projection, name: str, layer: str, about: str) -> Space:
    """Store a projection and make its space, without vectors.  Raises SpaceMismatch if another space has the name."""
    space = projection.describe(lake.spaces.get(projection.parent), name, layer, about)
    stored = next((known for known in lake.spaces.all() if known.name == name), None)
    if stored is not None and stored.fingerprint != space.fingerprint:
        raise SpaceMismatch(f"space {name!r}: already exists with other settings. Choose another --name")
    if stored is None:
        lake.files(f"projections/{name}").put(FILE, lambda path: write_projection(path, projection))
    return lake.spaces.make(space)


def read_projection(lake: Lake, space: Space) -> Projection:
    """Read the map of a projected space.  Raises LakeError if it is missing, damaged or a different one."""
    from safetensors import SafetensorError, safe_open

    with lake.files(f"projections/{space.name}").fetched(FILE) as path:
        if path is None:
            raise LakeError(
                f"projections/{space.name}/{FILE}: is missing, so space {space.name!r} cannot be extended. Restore it"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                count = sum(name.startswith("weight_") for name in file.keys())          # noqa: SIM118  # no mapping
                found = Projection(
                    parent=about["parent"], fingerprint=about["fingerprint"], layers=tuple(json.loads(about["layers"])),
                    weight=file.get_tensor("weight"), bias=file.get_tensor("bias"),
                    more=tuple(
                        (file.get_tensor(f"weight_{n}"), file.get_tensor(f"bias_{n}")) for n in range(1, count + 1)
                    ),
                    activation=about.get("activation", ""),
                )
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise LakeError(f"projections/{space.name}/{FILE}: cannot be read ({error}). Restore it from a copy") from error
    if found.digest != space.adapter:
        raise SpaceMismatch(
            f"projections/{space.name}/{FILE}: is not the map that made space {space.name!r}. Restore the original"
        )
    return found


def write_projection(path: Path, projection: Projection) -> None:
    """Write a projection as safetensors."""
    from safetensors.numpy import save_file

    about = {
        "parent": projection.parent, "fingerprint": projection.fingerprint, "layers": json.dumps(list(projection.layers)),
    }
    tensors = {"weight": projection.weight, "bias": projection.bias}
    if projection.more:
        about["activation"] = projection.activation
    for number, (weight, bias) in enumerate(projection.more, 1):
        tensors |= {f"weight_{number}": weight, f"bias_{number}": bias}
    save_file(tensors, path, metadata=about)


def extend_projected(lake: Lake, space: Space) -> int:
    """Project clips that are embedded in the parent but not yet in this space; return their number.

    Maxima are the projected maxima of the parent.  Raises SpaceMismatch if the parent now has other settings.
    """
    projection = read_projection(lake, space)
    parent = lake.spaces.get(projection.parent)
    if parent.fingerprint != projection.fingerprint:
        raise SpaceMismatch(
            f"space {space.name!r}: was made from a space {parent.name!r} with other settings than the lake's. Make it again "
            "under another --name"
        )
    source, target = lake.vectors(parent), lake.vectors(space)
    known = target.ids()
    ids = source.ids()
    due = ids.filter(~ids.is_in(known.implode())).unique(maintain_order=True)
    for start in range(0, len(due), BLOCK):
        block = due[start : start + BLOCK].to_list()
        made = []
        for stat in STATS:
            parts = [source.take(block, layer, stat=stat).vectors for layer in projection.layers]
            made.append([projection.apply(np.concatenate(parts, axis=1))])
        target.add(block, made[0], made[1], [0] * len(block))
    return len(due)
