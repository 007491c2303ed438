"""Linear layers on a CPU in bfloat16, in several ways; `embed.kernels.choice` measures which one is the fastest here.

    torch    torch's own function, which arranges the weights for its kernel at each call.  The safe default.
    packed   oneDNN's kernel with weights that were arranged once, and the activation inside.
    amx      for processors with a matrix unit (Intel AMX); see `embed.kernels.amx_linear`.

The weights of a layer that computes in another way than torch's are kept in that way's order only; see `dense_weight`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SAFE = "torch"
ATTRIBUTES = {"none": "none", "gelu": "gelu", "silu": "swish"}      # oneDNN's names of the activations


def activate(states: Any, activation: str) -> Any:
    """Apply an activation: `none`, `gelu` or `silu`."""
    from torch.nn import functional

    functions: dict[str, Callable[[Any], Any]] = {"none": lambda x: x, "gelu": functional.gelu, "silu": functional.silu}
    return functions[activation](states)


def activated(layer: Any, states: Any, activation: str) -> Any:
    """activation(layer(states)), in one step where the layer's way has the activation inside."""
    if isinstance(layer.forward, Packed):
        return layer(states, activation)
    return activate(layer(states), activation)


class Product:
    """states, activation -> (..., out) with the weight in the order of a way; `dense` returns it as (out, in)."""

    def __init__(self, compute: Callable[[Any, str], Any], dense: Callable[[], Any]) -> None:
        self.compute, self.dense = compute, dense

    def __call__(self, states: Any, activation: str) -> Any:
        return self.compute(states, activation)


class Packed:
    """Replaces the forward of a linear layer: computes with weights in the order of a way."""

    def __init__(self, compute: Any, way: str) -> None:
        self._compute, self.way = compute, way

    def dense(self) -> Any:
        """The weight as (out, in)."""
        return self._compute.dense()

    def __call__(self, states: Any, activation: str = "none") -> Any:
        """(..., in) -> (..., out) bfloat16."""
        return self._compute(states, activation)


def by_torch(weight: Any, bias: Any) -> Callable[[Any, str], Any]:
    """A function of states and activation, for a weight of (out, in) and a bias of (out,) or None."""
    import torch

    return lambda states, activation: activate(torch.nn.functional.linear(states, weight, bias), activation)


def by_packed(weight: Any, bias: Any) -> Callable[[Any, str], Any]:
    """As `by_torch`, by the kernels that torch's compiler calls."""
    import torch

    packed, compute = torch.ops.mkldnn._reorder_linear_weight(weight), torch.ops.mkldnn._linear_pointwise
    bias = None if bias is None else bias.to(weight.dtype)
    dtype = weight.dtype
    return Product(
        lambda states, activation: compute(states.to(dtype), packed, bias, ATTRIBUTES[activation], [], "none"),
        lambda: packed.to_dense(),
    )


def by_amx(weight: Any, bias: Any) -> Callable[[Any, str], Any]:
    """As `by_torch`, by the matrix unit."""
    import torch

    from tonelake.embed.kernels import amx_linear  # here, because it imports numba

    packed = amx_linear.pack_weight(weight)
    exact = torch.zeros(weight.shape[0]) if bias is None else bias.float().contiguous()
    return Product(
        lambda states, activation: amx_linear.linear(states, packed, exact, activation),
        lambda: amx_linear.unpack_weight(packed),
    )


WAYS: dict[str, Callable[[Any, Any], Callable[[Any, str], Any]]] = {SAFE: by_torch, "packed": by_packed, "amx": by_amx}


def ways_here(before: int, after: int) -> list[str]:
    """Names of the ways in which this processor may compute a layer of these widths in bfloat16."""
    return [name for name in WAYS if name != "amx" or amx_computes(before, after)]


def amx_computes(before: int, after: int) -> bool:
    """Whether this processor has a matrix unit and its kernel computes layers of these widths."""
    from tonelake.embed.kernels.attention import has_matrix_unit

    return has_matrix_unit() and before % 32 == 0 and after % 32 == 0


def use(model: Any, way: str, parts: tuple[str, ...], others: tuple[type, ...] = ()) -> None:
    """Make the linear layers below `parts` that hold bfloat16 compute in this way; those that it does not fit stay as they are.

    `others`: convolutions of width 1 that multiply (..., in) like linear layers.  Afterwards `weight` of these layers has its
    shape, but no values.  Layers that computed in another way before do so no more.
    """
    import torch

    for name, module in model.named_modules():
        if not (name.startswith(parts) and isinstance(module, (torch.nn.Linear, *others))):
            continue
        layer: Any = module
        if isinstance(layer.forward, Packed) and layer.forward.way != way:
            layer.weight = torch.nn.Parameter(dense_weight(layer), requires_grad=False)
            del layer.forward
        if way == SAFE:
            continue
        weight = layer.weight.detach()
        after, before = weight.shape[:2]
        if weight.dtype != torch.bfloat16 or weight.is_meta or way not in ways_here(before, after):
            continue
        layer.forward = Packed(WAYS[way](weight.reshape(after, before), layer.bias), way)
        layer.weight = torch.nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)


def dense_weight(layer: Any) -> Any:
    """The weight of a layer, in whatever way it computes, in the shape of `layer.weight`."""
    weight = layer.weight.detach()
    return layer.forward.dense().view(weight.shape) if isinstance(layer.forward, Packed) else weight
