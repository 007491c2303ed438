"""Many small classifiers side by side: forward and backward as a few large matrix products.

A stack holds groups × settings of one head.  The settings of a group (learning rates, weight decays) see the same batches,
so their weights stand side by side as the columns of one matrix; groups (seeds, layers) are a batch of such products.

    x        (group, clip, width), or (group, layer, clip, width) where layers are weighed
    weights  (group, setting, out, in), biases (group, setting, out), both float32
    logits   (group, clip, setting, out) float32

Gradients are written out rather than recorded: at this size the bookkeeping of autograd costs as much as the products.
"""

from __future__ import annotations

from collections.abc import Callable
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


class Pass(NamedTuple):
    """A forward pass, and what its backward pass needs."""

    logits: torch.Tensor
    backward: Callable[[torch.Tensor], Tensors]      # (group, clip, setting, out) gradient of logits -> of each parameter


def forward(shape: Shape, working: Tensors, x: torch.Tensor, mask: torch.Tensor | None = None) -> Pass:
    """`working`: parameters whose weights have the type of x.  `mask`: (group, clip, 1, hidden) of dropout, scaled."""
    if shape.mixed:
        return mixed(shape, working, x, mask)
    return (linear if shape.kind == "linear" else mlp)(working, x, mask)


def linear(working: Tensors, x: torch.Tensor, mask: torch.Tensor | None = None) -> Pass:
    logits = side_by_side(x, working["weight"]) + working["bias"][:, None]

    def backward(gradient: torch.Tensor) -> Tensors:
        return {"weight": weight_gradient(gradient, x, working["weight"]), "bias": gradient.sum(dim=1)}

    return Pass(logits, backward)


def mlp(working: Tensors, x: torch.Tensor, mask: torch.Tensor | None) -> Pass:
    """One hidden layer, ReLU, dropout."""
    hidden = torch.relu_(side_by_side(x, working["hidden.weight"]) + working["hidden.bias"][:, None])
    alive = hidden > 0
    if mask is not None:
        hidden = hidden * mask
    groups, clips, settings, _ = hidden.shape
    each = hidden.to(x.dtype).transpose(1, 2).reshape(groups * settings, clips, -1)
    weight = working["weight"].flatten(0, 1)                                     # (group · setting, out, hidden)
    logits = torch.bmm(each, weight.transpose(1, 2)).view(groups, settings, clips, -1).transpose(1, 2).float()
    logits = logits + working["bias"][:, None]

    def backward(gradient: torch.Tensor) -> Tensors:
        own = gradient.to(x.dtype).transpose(1, 2).reshape(groups * settings, clips, -1)
        inner = torch.bmm(own, weight).view(groups, settings, clips, -1).transpose(1, 2).float()
        inner = inner * alive if mask is None else inner * alive * mask
        return {
            "hidden.weight": weight_gradient(inner, x, working["hidden.weight"]), "hidden.bias": inner.sum(dim=1),
            "weight": torch.bmm(own.transpose(1, 2), each).float().view_as(working["weight"]), "bias": gradient.sum(dim=1),
        }

    return Pass(logits, backward)


def mixed(shape: Shape, working: Tensors, x: torch.Tensor, mask: torch.Tensor | None) -> Pass:
    """A softmax weighting of layers that each fit learns for itself, as in SUPERB and MARBLE; then the head."""
    groups, layers, clips, width = x.shape
    share = torch.softmax(working["mix"], dim=-1)                                # (group, setting, layer) float32
    settings = share.shape[1]
    flat = x.reshape(groups, layers, clips * width)
    blend = torch.bmm(share.to(x.dtype), flat).view(groups * settings, clips, width)
    one = {name: value.flatten(0, 1)[:, None] for name, value in working.items() if name != "mix"}
    if mask is not None:
        mask = mask[:, None].expand(groups, settings, *mask.shape[1:]).flatten(0, 1)
    inside = (linear if shape.kind == "linear" else mlp)(one, blend, mask)
    logits = inside.logits.view(groups, settings, clips, -1).transpose(1, 2)

    def backward(gradient: torch.Tensor) -> Tensors:
        own = gradient.transpose(1, 2).reshape(groups * settings, clips, 1, -1)
        found = {name: value.view_as(working[name]) for name, value in inside.backward(own).items()}
        first = "weight" if shape.kind == "linear" else "hidden.weight"
        upstream = own[:, :, 0] if shape.kind == "linear" else hidden_gradient(one, blend, own, mask)
        to_blend = torch.bmm(upstream.to(x.dtype), one[first][:, 0]).view(groups, settings, clips * width)
        to_share = torch.bmm(to_blend, flat.transpose(1, 2)).float()             # (group, setting, layer)
        found["mix"] = share * (to_share - (share * to_share).sum(dim=-1, keepdim=True))
        return found

    return Pass(logits, backward)


def hidden_gradient(working: Tensors, x: torch.Tensor, own: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """(group, clip, hidden) the gradient of an mlp's hidden layer before its ReLU, for groups of one setting."""
    alive = (side_by_side(x, working["hidden.weight"]) + working["hidden.bias"][:, None])[:, :, 0] > 0
    inner = torch.bmm(own[:, :, 0].to(x.dtype), working["weight"][:, 0]).float() * alive
    return inner if mask is None else inner * mask[:, :, 0]


def side_by_side(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """(group, clip, setting, out) float32: x times the weights of every setting in one product a group."""
    groups, settings, out, width = weight.shape
    return torch.bmm(x, weight.view(groups, settings * out, width).transpose(1, 2)).float().view(groups, -1, settings, out)


def weight_gradient(gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Like `weight` in float32: of the gradients of a layer's outputs, (group, clip, setting, out), and its inputs."""
    return torch.bmm(gradient.to(x.dtype).flatten(2).transpose(1, 2), x).float().view_as(weight)
