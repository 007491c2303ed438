"""Adam's step on the weights of bfloat16 products, in one pass over memory, on a CPU.

    float32 weights and moments, bfloat16 gradients  ->  the same one step later, and the weights in bfloat16

torch needs three passes: its Adam takes gradients of the weights' type, and the products take bfloat16 weights.  One pass
takes a third of the time, on one thread: in a grid every thread has fits of its own.  The formulas are those of torch's fused
Adam and AdamW at rate 1 (see `probes.optimizers`).  numba compiles the function at first use and keeps it on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba import types

from tonelake.store import compiler_lock, explain_unwritable_cache

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8           # torch's defaults
HALF, ONE_BIT, QUIET_NAN = np.uint32(0x7FFF), np.uint32(1), np.uint32(0x7FC0)
BITS = np.uint32(16)                                 # of a float32 that bfloat16 leaves out

COMPILING = threading.Lock()
Step = Callable[..., None]


class WeightSteps:
    """Steps of one parameter of all fits, in place.

    weights, first and second moments (group, setting, …) float32; `working`, the weights that the products use, bfloat16;
    `decays` (group, setting) float32, `decoupled` from the gradient as in AdamW.
    """

    def __init__(
        self, weights: torch.Tensor, first: torch.Tensor, second: torch.Tensor, working: torch.Tensor, decays: torch.Tensor, *,
        decoupled: bool,
    ) -> None:
        own = decays.flatten().contiguous()
        into_gradient, kept = (torch.zeros_like(own), 1 - own) if decoupled else (own, torch.ones_like(own))
        self._floats = [by_fit(tensor).numpy() for tensor in (weights, first, second)]
        self._working, self._decays = bits_by_fit(working), (into_gradient.numpy(), kept.numpy())
        self._pass = compile_kernel()

    def __call__(self, gradients: torch.Tensor, number: int) -> None:
        """Take step `number`, from 1, by bfloat16 gradients."""
        scale, root = np.float32(1 / (1 - BETA_1**number)), np.float32((1 - BETA_2**number) ** 0.5)
        self._pass(*self._floats, bits_by_fit(gradients), self._working, *self._decays, scale, root)


def by_fit(tensor: torch.Tensor) -> torch.Tensor:
    """View (group, setting, …) as (fit, weight)."""
    return tensor.view(tensor.shape[0] * tensor.shape[1], -1)


def bits_by_fit(tensor: torch.Tensor) -> np.ndarray:
    """View (group, setting, …) bfloat16 as (fit, weight) uint16."""
    return by_fit(tensor).view(torch.uint16).numpy()


def compile_kernel() -> Step:
    """Compile `adam_pass`, or load it from numba's cache.  Raises TonelakeError if it cannot be cached anywhere."""
    with COMPILING:                      # blocks of fits are trained in several threads
        if not adam_pass.signatures:
            with compiler_lock(Path(__file__)), explain_unwritable_cache():
                of_fits, halves = types.float32[:, ::1], types.uint16[:, ::1]
                of_fit = types.float32[::1]
                adam_pass.compile(types.void(*3 * [of_fits], *2 * [halves], of_fit, of_fit, types.float32, types.float32))
                adam_pass.disable_compile()
    return adam_pass


@numba.njit(nogil=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy", cache=True)
def adam_pass(
    weights: Any, first: Any, second: Any, gradients: Any, working: Any, into_gradient: Any, kept: Any, scale: Any, root: Any
) -> None:
    """`scale` and `root`: the corrections of the moments, which start at zero."""
    to_first, keep_second, to_second = np.float32(1 - BETA_1), np.float32(BETA_2), np.float32(1 - BETA_2)
    epsilon = np.float32(EPSILON)
    for fit in range(weights.shape[0]):
        decay, shrink = into_gradient[fit], kept[fit]
        own, means, squares, slopes, halves = weights[fit], first[fit], second[fit], gradients[fit], working[fit]
        for i in range(own.size):
            gradient = np.uint32(np.uint32(slopes[i]) << BITS).view(np.float32) + decay * own[i]
            mean = means[i] + (gradient - means[i]) * to_first
            square = squares[i] * keep_second + gradient * gradient * to_second
            weight = own[i] * shrink - scale * mean / (np.sqrt(square) / root + epsilon)
            means[i], squares[i], own[i] = mean, square, weight
            bits = np.float32(weight).view(np.uint32)
            rounded = np.uint32(bits + HALF + np.uint32((bits >> BITS) & ONE_BIT)) >> BITS       # to the nearest, ties to even
            halves[i] = np.uint16(rounded if weight == weight else QUIET_NAN)
