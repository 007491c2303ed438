"""Minimise a smooth function of many variables by L-BFGS (Nocedal & Wright 2006, algorithms 7.4 and 7.5).

    x          (variable,) float32
    function   x -> `Point`: its value and gradient there

Directions are computed from inner products with the stored steps (Chen, Wang & Zhou 2014): a pass over the history for the
products and one for the direction, where the two loops over vectors need four.  The function is scaled by its caller so that a
step of 1 along the negative gradient is a sensible first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

LENGTH = 10                              # stored steps; scipy's default
SUFFICIENT = 1e-4                        # share of the expected decrease that a step must reach (Armijo)
ROUNDING = 1e-6                          # relative error of a float32 value, which is no increase
SHORTENINGS = 12                         # of a step before the search ends


@dataclass(frozen=True, kw_only=True)
class Point:
    """A function's value and gradient at `x`.  Shape: (variable,)."""

    x: torch.Tensor
    value: float
    gradient: torch.Tensor


Found = TypeVar("Found", bound=Point)


class History:
    """The last steps and the changes of the gradient along them, with their inner products."""

    def __init__(self, variables: int, device: torch.device) -> None:
        self.rows = torch.zeros(2 * LENGTH, variables, device=device)            # steps, then changes
        self.step_change = np.zeros((LENGTH, LENGTH))                            # step i · change j
        self.change_change = np.zeros((LENGTH, LENGTH))
        self.slots: list[int] = []       # oldest first

    def add(self, step: torch.Tensor, change: torch.Tensor) -> None:
        """Store a step, unless the function is not convex along it to within rounding."""
        if not float(step @ change) > 1e-10 * float(change @ change):
            return
        slot = self.slots.pop(0) if len(self.slots) == LENGTH else len(self.slots)
        self.slots.append(slot)
        self.rows[slot], self.rows[LENGTH + slot] = step, change
        products = (self.rows @ change).cpu().double().numpy()
        self.step_change[:, slot] = products[:LENGTH]
        self.change_change[:, slot] = self.change_change[slot] = products[LENGTH:]

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return (variable,) the approximate Newton direction."""
        if not self.slots:
            return -gradient
        products = (self.rows @ gradient).cpu().double().numpy()
        steps, changes = products[:LENGTH], products[LENGTH:]
        along, taken = np.zeros(LENGTH), np.zeros(LENGTH)    # coefficients of the changes and of the steps
        for slot in reversed(self.slots):                    # `along` is 0 for older steps
            along[slot] = (steps[slot] - self.step_change[slot] @ along) / self.step_change[slot, slot]
        last = self.slots[-1]
        scale = self.step_change[last, last] / self.change_change[last, last]
        for slot in self.slots:                              # `taken` is 0 for newer steps
            reached = scale * (changes[slot] - self.change_change[slot] @ along) + taken @ self.step_change[:, slot]
            taken[slot] = along[slot] - reached / self.step_change[slot, slot]
        both = torch.from_numpy(np.concatenate([-taken, scale * along])).to(self.rows)
        return (both @ self.rows).sub_(gradient, alpha=scale)


def descend(function: Callable[[torch.Tensor], Found], start: Found, history: History) -> Iterator[tuple[Found, float]]:
    """Yield `start` and each accepted point, with the decrease that the next step promises; end if no step lowers the value."""
    point = start
    while True:
        direction = history.direction(point.gradient)
        slope = float(point.gradient @ direction)
        if not slope < 0:                                    # rounding: stored steps have positive curvature
            history.slots.clear()
            direction = -point.gradient
            slope = float(point.gradient @ direction)
        yield point, -slope / 2
        length = 1.0
        for _ in range(SHORTENINGS):
            following = function(point.x.add(direction, alpha=length))
            rise = following.value - point.value
            if rise <= SUFFICIENT * length * slope + ROUNDING * abs(point.value):
                break
            minimum = -slope * length / (2 * (rise - slope * length)) if np.isfinite(rise) else 0.0      # of a parabola
            length *= float(np.clip(minimum, 0.1, 0.5))
        else:
            return
        history.add(following.x - point.x, following.gradient - point.gradient)
        point = following
