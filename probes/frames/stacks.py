"""Many heads of one architecture in one forward and backward pass.

A stack holds the parameters of several fits, (fit, …) each, which differ in learning rate, weight decay and seed and see the
same batches.  The convolutions of all fits are a few large products: the states are laid out once for all fits, the first layer
is one product with fit · output columns, later layers are batched products.  Gradients are written out, so that buffers are
reused and products can be of bfloat16.  A head without such a layout (gru, harmonic) runs as a module, one fit after another on
the same batch.  The result of a fit does not depend on the others.

    x        (1, batch, frame, width), or (layer, batch, frame, width) if layers are weighted
    logits   (fit, batch · frame, output), in the type of x
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch.nn import functional

from tonelake.probes.frames.heads import HeadShape
from tonelake.probes.heads import Tensors

Masks = list[torch.Tensor] | None        # for each hidden layer: (fit, batch, 1, channel) scaled dropout


class Pass(NamedTuple):
    """Logits of a forward pass, and the function for its backward pass."""

    logits: torch.Tensor                             # (fit, batch · frame, output)
    backward: Callable[[torch.Tensor], Tensors]      # gradient of the logits -> gradient of each parameter, float32


class Stack(Protocol):
    """A way to run the heads of several fits."""

    in_blocks: bool                      # whether a batch can be divided into blocks of segments

    def masks(self, seeds: Sequence[int], draw: Sequence[int], batch: int, device: torch.device) -> Masks:
        """Return the dropout masks of a batch for the seeds of the fits; `draw`: numbers that identify the batch."""
        ...

    def __call__(self, working: Tensors, x: torch.Tensor, masks: Masks, seeds: Sequence[int], draw: Sequence[int]) -> Pass: ...


def make_stack(shape: HeadShape, *, autocast: bool = False) -> Stack:
    """Return the way to run heads of this architecture.  `autocast`: whether a module computes in bfloat16 where torch can."""
    return ConvStack(shape) if shape.kernels() is not None else ModuleStack(shape, autocast=autocast)


def initial_fits(shape: HeadShape, seeds: Sequence[int], bias: torch.Tensor | None = None) -> Tensors:
    """Return the initial parameters (fit, …) of fits by the seed of each: those of torch's modules.

    `bias`: (output,) start of the output layer's bias, so that the first epochs need not learn how rare events are.
    """
    by_seed: dict[int, Tensors] = {}
    for seed in dict.fromkeys(seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            by_seed[seed] = {name: value.detach().clone() for name, value in shape.make().state_dict().items()}
        if bias is not None and (name := output_bias(shape, by_seed[seed])):
            by_seed[seed][name].copy_(bias)
    return {name: torch.stack([by_seed[seed][name] for seed in seeds]) for name in by_seed[seeds[0]]}


def output_bias(shape: HeadShape, state: Tensors) -> str | None:
    """Return the name of the output layer's bias, None if the head has no bias for each output."""
    kernels = shape.kernels()
    name = "output.bias" if kernels is None else f"layers.{len(kernels) - 1}.bias"
    name = f"head.{name}" if shape.layers else name
    return name if name in state and len(state[name]) == shape.outputs else None


def seed_of(seed: int, draw: Sequence[int]) -> int:
    """Return the seed of torch's generator for the dropout of one fit and batch."""
    found = seed
    for number in draw:
        found = (found * 1_000_003 + number + 1) % (1 << 62)
    return found


class ConvStack:
    """Heads that are convolutions over time (`ConvHead`), and weightings of layers before them."""

    in_blocks = True

    def __init__(self, shape: HeadShape) -> None:
        kernels = shape.kernels()
        assert kernels is not None
        self.shape, self.kernels = shape, kernels
        self.prefix = "head." if shape.layers else ""

    def masks(self, seeds: Sequence[int], draw: Sequence[int], batch: int, device: torch.device) -> Masks:
        hidden = [outputs for _, outputs in self.kernels[:-1]]
        if not self.shape.dropout or not hidden:
            return None
        by_seed: dict[int, list[torch.Tensor]] = {}
        for seed in dict.fromkeys(seeds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(seed, draw))
                by_seed[seed] = [
                    functional.dropout1d(torch.ones(batch, width, 1), self.shape.dropout)[..., 0] for width in hidden
                ]
        return [
            torch.stack([by_seed[seed][number] for seed in seeds])[:, :, None].to(device) for number in range(len(hidden))
        ]

    def __call__(self, working: Tensors, x: torch.Tensor, masks: Masks, seeds: Sequence[int], draw: Sequence[int]) -> Pass:
        if not self.shape.layers:
            return self.run(working, x, masks, inputs=False)[0]
        share = torch.softmax(working["mix"].float(), dim=-1)                    # (fit, layer)
        flat = x.reshape(len(x), -1)
        blend = (share.to(x.dtype) @ flat).view(len(share), *x.shape[1:])        # (fit, batch, frame, width)
        forward, to_blend = self.run(working, blend, masks, inputs=True)

        def backward(gradient: torch.Tensor) -> Tensors:
            found = forward.backward(gradient)
            to_share = (to_blend[0].reshape(len(share), -1) @ flat.T).float()
            found["mix"] = share * (to_share - (share * to_share).sum(dim=-1, keepdim=True))
            return found

        return Pass(forward.logits, backward)

    def run(self, working: Tensors, x: torch.Tensor, masks: Masks, *, inputs: bool) -> tuple[Pass, list[torch.Tensor]]:
        """Run the convolutions on (1 or fit, batch, frame, width).

        With `inputs`, the backward pass also puts the gradient of x into the list.
        """
        last, batch, frames = len(self.kernels) - 1, x.shape[1], x.shape[2]
        seen, signal = [], x
        for number, (kernel, outputs) in enumerate(self.kernels):
            weight, bias = (working[f"{self.prefix}layers.{number}.{part}"] for part in ("weight", "bias"))
            windows = windowed(signal, kernel)                                   # (1 or fit, batch · frame, kernel · width)
            seen.append(windows)
            out = product(windows, weight_matrix(weight), bias.to(x.dtype))      # (fit, batch · frame, output)
            if number < last:
                signal = out.relu_().view(len(weight), batch, frames, outputs)
                if masks is not None:
                    signal = signal * masks[number].to(signal.dtype)
        logits = out
        to_inputs: list[torch.Tensor] = []

        def backward(gradient: torch.Tensor) -> Tensors:
            found = Tensors()
            for number in range(last, -1, -1):
                kernel, outputs = self.kernels[number]
                name = f"{self.prefix}layers.{number}"
                weight = working[f"{name}.weight"]
                found[f"{name}.bias"] = sum_of_rows(gradient)
                product_gradient = weight_gradient(gradient, seen[number])       # (fit, output, kernel · width)
                found[f"{name}.weight"] = product_gradient.float().view(len(weight), outputs, kernel, -1).transpose(2, 3)
                if number == 0 and not inputs:
                    break
                to_windows = torch.bmm(gradient, weight_matrix(weight))          # (fit, batch · frame, kernel · width)
                below = folded(to_windows, kernel, batch, frames)
                if number == 0:
                    to_inputs.append(below)
                    break
                if masks is not None:
                    below = below * masks[number - 1].to(below.dtype)
                alive = seen_centre(seen[number], kernel, below.shape) > 0       # also where dropout did not remove it
                gradient = (below * alive).flatten(1, 2)
            return found

        return Pass(logits, backward), to_inputs


def weight_matrix(weight: torch.Tensor) -> torch.Tensor:
    """Return (fit, output, kernel · width) of a convolution's (fit, output, width, kernel) weights."""
    return weight.transpose(2, 3).flatten(2)


def windowed(signal: torch.Tensor, kernel: int) -> torch.Tensor:
    """Return the frames around each frame: (fit, batch, frame, width) to (fit, batch · frame, kernel · width)."""
    fits, batch, frames, width = signal.shape
    if kernel == 1:
        return signal.reshape(fits, batch * frames, width)
    found = signal.new_empty(fits, batch, frames, kernel, width)
    for number in range(kernel):
        shift = number - kernel // 2
        first, stop = max(-shift, 0), frames - max(shift, 0)
        found[:, :, first:stop, number] = signal[:, :, first + shift : stop + shift]
        found[:, :, :first, number] = 0
        found[:, :, max(stop, 0) :, number] = 0
    return found.view(fits, batch * frames, kernel * width)


def folded(gradient: torch.Tensor, kernel: int, batch: int, frames: int) -> torch.Tensor:
    """Return the gradient (fit, batch, frame, width) of a signal from that of its windows: the transpose of `windowed`."""
    parts = gradient.view(len(gradient), batch, frames, kernel, -1)
    if kernel == 1:
        return parts[:, :, :, 0]
    found = parts[:, :, :, kernel // 2].clone()
    for number in range(kernel):
        shift = number - kernel // 2
        first, stop = max(-shift, 0), frames - max(shift, 0)
        if shift and stop > first:
            found[:, :, first + shift : stop + shift] += parts[:, :, first:stop, number]
    return found


def seen_centre(windows: torch.Tensor, kernel: int, shape: torch.Size) -> torch.Tensor:
    """Return the signal (fit, batch, frame, width) that windows were made of."""
    fits, batch, frames, width = shape
    return windows.view(fits, batch, frames, kernel, width)[:, :, :, kernel // 2]


def product(windows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return (fit, row, output): one product for all fits if they share the windows (1, row, inputs), else a batch of products.

    `weight`: (fit, output, inputs); `bias`: (fit, output).
    """
    if len(windows) == 1:
        together = torch.addmm(bias.flatten(), windows[0], weight.flatten(0, 1).T)       # (row, fit · output)
        return together.view(len(together), *weight.shape[:2]).transpose(0, 1)
    return torch.baddbmm(bias[:, None], windows, weight.transpose(1, 2))


def sum_of_rows(gradient: torch.Tensor) -> torch.Tensor:
    """Return (fit, output) float32 sums of (fit, row, output) over rows: as a product, which is faster than a reduction."""
    fits, rows, outputs = gradient.shape
    ones = gradient.new_ones(1, rows)
    if gradient.stride(0) < gradient.stride(1):              # the layout of a shared product
        return (ones @ gradient.transpose(0, 1).reshape(rows, -1)).float().view(fits, outputs)
    return torch.matmul(ones, gradient).float()[:, 0]


def weight_gradient(gradient: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
    """Return (fit, output, inputs) from the gradient (fit, row, output) of `product`."""
    if len(windows) == 1:
        rows = gradient.shape[1]
        together = gradient.transpose(0, 1).reshape(rows, -1)                    # no copy where `product` made the layout
        return (together.T @ windows[0]).view(len(gradient), gradient.shape[2], -1)
    return torch.bmm(gradient.transpose(1, 2), windows)


class ModuleStack:
    """Any head, as a module of torch, one fit after another."""

    in_blocks = False

    def __init__(self, shape: HeadShape, *, autocast: bool = False) -> None:
        self.shape, self.module, self.autocast = shape, shape.make(), autocast

    def masks(self, seeds: Sequence[int], draw: Sequence[int], batch: int, device: torch.device) -> Masks:
        return None if draw else []      # drawn by the module; empty: evaluate

    def __call__(self, working: Tensors, x: torch.Tensor, masks: Masks, seeds: Sequence[int], draw: Sequence[int]) -> Pass:
        module = self.module.to(x.device).train(bool(draw))
        made, leaves = [], []
        for fit, seed in enumerate(seeds):
            own = {name: value[fit].detach().float().requires_grad_(bool(draw)) for name, value in working.items()}
            with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(bool(draw)):
                torch.manual_seed(seed_of(seed, draw))
                states = x if self.shape.layers else x[0]
                with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
                    logits = torch.func.functional_call(module, own, (states.float(),))
                made.append(logits.float().flatten(0, 1))
            leaves.append(own)

        def backward(gradient: torch.Tensor) -> Tensors:
            found = [
                torch.autograd.grad(logits, list(own.values()), part)
                for logits, own, part in zip(made, leaves, gradient.float(), strict=True)
            ]
            return {name: torch.stack([one[i] for one in found]) for i, name in enumerate(leaves[0])}

        return Pass(torch.stack([logits.detach() for logits in made]), backward)


