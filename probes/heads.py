"""Many small classifiers side by side: forward and backward as a few large matrix products.

A stack holds groups × settings of one head.  The settings of a group (learning rates, weight decays) see the same batches,
so their weights stand side by side as the columns of one matrix; groups (seeds, layers) are a batch of such products.

    x        (group, clip, width), or (group, layer, clip, width) where layers are weighed
    weights  (group, setting, out, in), biases (group, setting, out), both float32
    logits   (group, setting, out, clip) float32; clips last, so that neither product nor softmax needs a transposed copy

Gradients are written out rather than recorded: at this size the bookkeeping of autograd costs as much as the products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

Tensors = dict[str, torch.Tensor]


class Shape(NamedTuple):
    """What a head is made of."""

    kind: str                            # linear or mlp
    width: int                           # of the vectors
    outputs: int
    hidden: int = 512                    # of the mlp
    mixed: int = 0                       # layers that are weighed; 0 where vectors come ready

    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The parameters of one fit."""
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


def initial(shape: Shape, seed: int, fold: int) -> Tensors:
    """The start of one fit: torch's own for linear layers, uniform within ± 1 / √inputs; equal weights of layers."""
    generator = torch.Generator().manual_seed(1_000_003 * fold + seed)
    start: Tensors = {}
    for name, size in shape.sizes().items():
        if name == "mix":
            start[name] = torch.zeros(size)
            continue
        inputs = shape.hidden if shape.kind == "mlp" and not name.startswith("hidden") else shape.width
        start[name] = (2 * torch.rand(size, generator=generator) - 1) / inputs**0.5
    return start


class Room:
    """Large tensors that are made anew each step, kept from step to step: memory fresh from the system costs more than the
    products that fill it."""

    def __init__(self) -> None:
        self._held: Tensors = {}

    def __call__(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A tensor of that shape and type with anything in it, the same one each time."""
        held = self._held.get(name)
        if held is None or held.shape != torch.Size(shape) or held.dtype != dtype:
            held = self._held[name] = torch.empty(*shape, dtype=dtype, device=device)
        return held


class Pass(NamedTuple):
    """A forward pass, and what its backward pass needs."""

    logits: torch.Tensor
    backward: Callable[[torch.Tensor], Tensors]      # (group, setting, out, clip) gradient of logits -> of each parameter


def forward(
    shape: Shape, working: Tensors, x: torch.Tensor, mask: torch.Tensor | None = None, room: Room | None = None,
    rates: torch.Tensor | None = None,
) -> Pass:
    """`working`: parameters whose weights have the type of x.  `mask`: (group, 1, hidden, clip) of dropout, scaled.

    `rates`: (1, setting) by which every parameter is to be multiplied (see `probes.optimizers`); gradients are of the
    products.  Gradients that lie in `room` are overwritten by the next backward pass with the same.
    """
    room = room or Room()
    if rates is None:
        rates = torch.ones(1, working["bias"].shape[1], device=x.device)
    if shape.mixed:
        return mixed(shape, working, x, mask, room, rates)
    return (linear if shape.kind == "linear" else mlp)(working, x, mask, room, rates)


def linear(working: Tensors, x: torch.Tensor, mask: torch.Tensor | None, room: Room, rates: torch.Tensor) -> Pass:
    logits = side_by_side(working["weight"], working["bias"], x, rates)

    def backward(gradient: torch.Tensor) -> Tensors:
        return {"weight": weight_gradient(gradient, x, room), "bias": gradient.sum(dim=-1)}

    return Pass(logits, backward)


def mlp(working: Tensors, x: torch.Tensor, mask: torch.Tensor | None, room: Room, rates: torch.Tensor) -> Pass:
    """One hidden layer, ReLU, dropout."""
    hidden = torch.relu_(side_by_side(working["hidden.weight"], working["hidden.bias"], x, rates))
    alive = hidden > 0
    if mask is not None:
        hidden = hidden * mask
    each = hidden.to(x.dtype).flatten(0, 1)                                      # (group · setting, hidden, clip)
    weight = working["weight"].flatten(0, 1)                                     # (group · setting, out, hidden)
    made = torch.bmm(weight, each).float().view(*hidden.shape[:2], -1, x.shape[1])
    logits = made.add_(working["bias"][..., None]).mul_(rates[..., None, None])

    def backward(gradient: torch.Tensor) -> Tensors:
        own = gradient.to(x.dtype).flatten(0, 1)
        inner = torch.bmm(weight.transpose(1, 2), own).float().view_as(hidden) * (alive * rates[..., None, None])
        if mask is not None:
            inner = inner * mask
        return {
            "hidden.weight": weight_gradient(inner, x, room), "hidden.bias": inner.sum(dim=-1),
            "weight": torch.bmm(own, each.transpose(1, 2)).float().view_as(working["weight"]), "bias": gradient.sum(dim=-1),
        }

    return Pass(logits, backward)


def mixed(
    shape: Shape, working: Tensors, x: torch.Tensor, mask: torch.Tensor | None, room: Room, rates: torch.Tensor
) -> Pass:
    """A softmax weighting of layers that each fit learns for itself, as in SUPERB and MARBLE; then the head."""
    groups, layers, clips, width = x.shape
    share = torch.softmax(working["mix"] * rates[..., None], dim=-1)             # (group, setting, layer) float32
    settings = share.shape[1]
    flat = x.reshape(groups, layers, clips * width)
    blend = torch.bmm(share.to(x.dtype), flat).view(groups * settings, clips, width)
    one = {name: value.flatten(0, 1)[:, None] for name, value in working.items() if name != "mix"}
    if mask is not None:
        mask = mask.expand(groups, settings, *mask.shape[2:]).flatten(0, 1)[:, None]
    each_rate = rates.expand(groups, settings).reshape(-1, 1)
    inside = (linear if shape.kind == "linear" else mlp)(one, blend, mask, room, each_rate)
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

    return Pass(logits, backward)


def hidden_gradient(
    working: Tensors, x: torch.Tensor, own: torch.Tensor, mask: torch.Tensor | None, rates: torch.Tensor
) -> torch.Tensor:
    """(group, hidden, clip) the gradient of an mlp's hidden layer before its ReLU, for groups of one setting."""
    alive = side_by_side(working["hidden.weight"], working["hidden.bias"], x, rates)[:, 0] > 0
    inner = torch.bmm(working["weight"][:, 0].transpose(1, 2), own[:, 0].to(x.dtype)).float() * (alive * rates[..., None])
    return inner if mask is None else inner * mask[:, 0]


def side_by_side(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """(group, setting, out, clip) float32: a linear layer of every setting in one product a group."""
    groups, settings, out, width = weight.shape
    made = torch.bmm(weight.view(groups, settings * out, width), x.transpose(1, 2)).float().view(groups, settings, out, -1)
    return made.add_(bias[..., None]).mul_(rates[..., None, None])


def weight_gradient(gradient: torch.Tensor, x: torch.Tensor, room: Room) -> torch.Tensor:
    """(group, setting, out, in) float32: of the gradients of a layer's outputs, (group, setting, out, clip), and its inputs."""
    groups, settings, out, clips = gradient.shape
    shape = (groups, settings * out, x.shape[-1])
    made = torch.bmm(gradient.to(x.dtype).view(groups, settings * out, clips), x, out=room("product", shape, x.dtype, x.device))
    if made.dtype != torch.float32:
        made = room("gradient", shape, torch.float32, x.device).copy_(made)
    return made.view(groups, settings, out, -1)
