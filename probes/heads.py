"""Forward and backward passes of many small classifiers as a few large matrix products.

A stack holds groups × settings of one head.  The settings of a group (learning rates, weight decays) see the same batches,
so their weights are the concatenated rows of one matrix; groups (seeds, layers) are a batch of such products.

    x        (group, clip, width), or (group, layer, clip, width) if layers are weighted
    weights  (group, setting, out, in), biases (group, setting, out), both float32
    logits   (group, setting, out, clip) float32; clips last, so that neither product nor softmax needs a transposed copy

Gradients are written out, not recorded by autograd, whose bookkeeping at this size costs as much as the products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Architecture of a head."""

    kind: str                            # linear or mlp
    width: int                           # width of the input vectors
    outputs: int
    hidden: int = 512                    # width of the mlp's hidden layer
    mixed: int = 0                       # number of layers under a learned weighting; 0 without one
    mix_start: float = 0.0               # standard deviation of the initial layer weights before the softmax

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each parameter of one fit."""
        if self.kind == "linear":
            sizes: dict[str, tuple[int, ...]] = {"weight": (self.outputs, self.width), "bias": (self.outputs,)}
        else:
            sizes = {
                "hidden.weight": (self.hidden, self.width), "hidden.bias": (self.hidden,),
                "weight": (self.outputs, self.hidden), "bias": (self.outputs,),
            }
        return sizes | ({"mix": (self.mixed,)} if self.mixed else {})

    def parameters(self) -> int:
        return sum(int(np.prod(size)) for size in self.sizes().values())


def initial_parameters(shape: Shape, seed: int, fold: int) -> Tensors:
    """Return the initial parameters of one fit: torch's default for linear layers, uniform within ± 1 / √inputs, and layer
    weights that are equal or normal (`Shape.mix_start`)."""
    generator = torch.Generator().manual_seed(1_000_003 * fold + seed)
    start: Tensors = {}
    for name, size in shape.sizes().items():
        if name == "mix":
            start[name] = torch.randn(size, generator=generator) * shape.mix_start if shape.mix_start else torch.zeros(size)
            continue
        inputs = shape.hidden if shape.kind == "mlp" and not name.startswith("hidden") else shape.width
        start[name] = (2 * torch.rand(size, generator=generator) - 1) / inputs**0.5
    return start


class Buffers:
    """Large work tensors that are reused from step to step: fresh memory from the system costs more than the products that
    fill it."""

    def __init__(self) -> None:
        self._held: Tensors = {}

    def __call__(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return the tensor of this name, shape and type, with arbitrary content."""
        held = self._held.get(name)
        if held is None or held.shape != torch.Size(shape) or held.dtype != dtype:
            held = self._held[name] = torch.empty(*shape, dtype=dtype, device=device)
        return held


class ForwardPass(NamedTuple):
    """Logits of a forward pass, and the function for its backward pass."""

    logits: torch.Tensor
    backward: Callable[[torch.Tensor], Tensors]      # gradient of the logits -> gradient of each parameter


def forward(
    shape: Shape, working: Tensors, x: torch.Tensor, mask: torch.Tensor | None = None, buffers: Buffers | None = None,
    rates: torch.Tensor | None = None,
) -> ForwardPass:
    """Run the head.  `working`: parameters, with weights in the type of x.  `mask`: (group, 1, hidden, clip) scaled dropout.

    `rates`: (1, setting) factor of every parameter (see `probes.optimizers`); gradients are those of the products.
    Gradients in `buffers` are overwritten by the next backward pass that uses them.
    """
    buffers = buffers or Buffers()
    if rates is None:
        rates = torch.ones(1, working["bias"].shape[1], device=x.device)
    if shape.mixed:
        return mixed(shape, working, x, mask, buffers, rates)
    return (linear if shape.kind == "linear" else mlp)(working, x, mask, buffers, rates)


def linear(working: Tensors, x: torch.Tensor, mask: torch.Tensor | None, buffers: Buffers, rates: torch.Tensor) -> ForwardPass:
    logits = batched_linear(working["weight"], working["bias"], x, rates)

    def backward(gradient: torch.Tensor) -> Tensors:
        return {"weight": weight_gradient(gradient, x, buffers), "bias": gradient.sum(dim=-1)}

    return ForwardPass(logits, backward)


def mlp(working: Tensors, x: torch.Tensor, mask: torch.Tensor | None, buffers: Buffers, rates: torch.Tensor) -> ForwardPass:
    """One hidden layer, ReLU, dropout."""
    hidden = torch.relu_(batched_linear(working["hidden.weight"], working["hidden.bias"], x, rates))
    alive = hidden > 0
    if mask is not None:
        hidden = hidden * mask
    each = hidden.to(x.dtype).flatten(0, 1)                                      # (group · setting, hidden, clip)
    weight = working["weight"].flatten(0, 1)                                     # (group · setting, out, hidden)
    output = torch.bmm(weight, each).float().view(*hidden.shape[:2], -1, x.shape[1])
    logits = output.add_(working["bias"][..., None]).mul_(rates[..., None, None])

    def backward(gradient: torch.Tensor) -> Tensors:
        own = gradient.to(x.dtype).flatten(0, 1)
        inner = torch.bmm(weight.transpose(1, 2), own).float().view_as(hidden) * (alive * rates[..., None, None])
        if mask is not None:
            inner = inner * mask
        return {
            "hidden.weight": weight_gradient(inner, x, buffers), "hidden.bias": inner.sum(dim=-1),
            "weight": torch.bmm(own, each.transpose(1, 2)).view_as(working["weight"]), "bias": gradient.sum(dim=-1),
        }

    return ForwardPass(logits, backward)


def mixed(
    shape: Shape, working: Tensors, x: torch.Tensor, mask: torch.Tensor | None, buffers: Buffers, rates: torch.Tensor
) -> ForwardPass:
    """Apply a softmax weighting of layers, learned by each fit as in SUPERB and MARBLE, then the head."""
    groups, layers, clips, width = x.shape
    share = torch.softmax(working["mix"] * rates[..., None], dim=-1)             # (group, setting, layer) float32
    settings = share.shape[1]
    flat = x.reshape(groups, layers, clips * width)
    blend = torch.bmm(share.to(x.dtype), flat).view(groups * settings, clips, width)
    one = {name: value.flatten(0, 1)[:, None] for name, value in working.items() if name != "mix"}
    if mask is not None:
        mask = mask.expand(groups, settings, *mask.shape[2:]).flatten(0, 1)[:, None]
    each_rate = rates.expand(groups, settings).reshape(-1, 1)
    inside = (linear if shape.kind == "linear" else mlp)(one, blend, mask, buffers, each_rate)
    logits = inside.logits.view(groups, settings, -1, clips)

    def backward(gradient: torch.Tensor) -> Tensors:
        own = gradient.flatten(0, 1)[:, None]                                    # (group · setting, 1, out, clip)
        found = {name: value.view_as(working[name]) for name, value in inside.backward(own).items()}
        first = "weight" if shape.kind == "linear" else "hidden.weight"
        upstream = own[:, 0] if shape.kind == "linear" else hidden_gradient(one, blend, own, mask, each_rate)
        to_blend = torch.bmm((upstream * each_rate[..., None]).to(x.dtype).transpose(1, 2), one[first][:, 0])
        to_share = torch.bmm(to_blend.view(groups, settings, clips * width), flat.transpose(1, 2)).float()
        found["mix"] = share * (to_share - (share * to_share).sum(dim=-1, keepdim=True))
        return found

    return ForwardPass(logits, backward)


def hidden_gradient(
    working: Tensors, x: torch.Tensor, own: torch.Tensor, mask: torch.Tensor | None, rates: torch.Tensor
) -> torch.Tensor:
    """Return (group, hidden, clip): gradient of an mlp's hidden layer before its ReLU, for groups of one setting."""
    alive = batched_linear(working["hidden.weight"], working["hidden.bias"], x, rates)[:, 0] > 0
    inner = torch.bmm(working["weight"][:, 0].transpose(1, 2), own[:, 0].to(x.dtype)).float() * (alive * rates[..., None])
    return inner if mask is None else inner * mask[:, 0]


def batched_linear(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """Return (group, setting, out, clip) float32: the linear layers of all settings, as one product a group."""
    groups, settings, out, width = weight.shape
    output = torch.bmm(weight.view(groups, settings * out, width), x.transpose(1, 2)).float().view(groups, settings, out, -1)
    return output.add_(bias[..., None]).mul_(rates[..., None, None])


def weight_gradient(gradient: torch.Tensor, x: torch.Tensor, buffers: Buffers) -> torch.Tensor:
    """Return (group, setting, out, in) in the type of `x`, from output gradients (group, setting, out, clip) and the layer's
    inputs."""
    groups, settings, out, clips = gradient.shape
    shape = (groups, settings * out, x.shape[-1])
    product = buffers("product", shape, x.dtype, x.device)
    output = torch.bmm(gradient.to(x.dtype).view(groups, settings * out, clips), x, out=product)
    return output.view(groups, settings, out, -1)
