"""torch's Adam, AdamW and SGD for every fit of a stack in one call, each with its own learning rate and weight decay.

torch's fused kernels take one learning rate.  Adam's step and momentum's are the rate times a term that does not depend on
it; so the optimizer steps each weight divided by its rate, at rate 1, and the outputs of products are multiplied by the
rate: they are far smaller than the weights.  On a CPU with bfloat16 products, large stacks are stepped by a function of ours
(`probes.adam_kernel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from tonelake.probes.config import Setting
from tonelake.probes.heads import Buffers, Tensors

if TYPE_CHECKING:
    from tonelake.probes.adam_kernel import WeightSteps

MOMENTUM = 0.9                           # of SGD
KERNEL_FROM = 100_000                    # parameters of a stack; loading the kernel takes half a second


class Optimizer:
    """Optimizer state for parameters (group, setting, …).  `working`: parameters over rates, in the type of the products."""

    def __init__(self, kind: str, settings: Sequence[Setting], parameters: Tensors, dtype: torch.dtype) -> None:
        self.kind, self.dtype = kind, dtype
        device = next(iter(parameters.values())).device
        # (1, setting), or (group, setting) once rates were reduced
        self.rates = torch.tensor([[setting.rate for setting in settings]], device=device)
        self.decays = torch.tensor([[setting.decay for setting in settings]], device=device)
        self.decaying = any(setting.decay for setting in settings)       # not read from a GPU, which would force a sync
        self.scaled = {name: value / per_setting(self.rates, value) for name, value in parameters.items()}
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()} if kind != "sgd" else {}
        self.steps = {name: torch.zeros((), device=device) for name in parameters}
        size = sum(value.numel() for value in parameters.values())
        self.has_kernel = kind != "sgd" and device.type == "cpu" and dtype == torch.bfloat16 and size >= KERNEL_FROM
        self._taken = 0                                                  # steps, of the kernel
        self._kernels: dict[str, WeightSteps] = {}
        self._buffers = Buffers()
        self.working = self.scaled
        self._refresh()

    def step(self, gradients: Tensors) -> None:
        """Take one step; `gradients` have the parameters' names and shapes, and may be overwritten."""
        names = [name for name in self.scaled if not (self.has_kernel and gradients[name].dtype == self.dtype)]
        if len(names) < len(self.scaled):
            self._step_by_kernel({name: gradients[name] for name in self.scaled if name not in names})
        for name in names:
            if gradients[name].dtype != torch.float32:
                buffer = self._buffers(name, gradients[name].shape, torch.float32, gradients[name].device)
                gradients[name] = buffer.copy_(gradients[name])
        if self.decaying:
            for name in names:
                value = self.scaled[name]
                if self.kind == "adamw":                 # decoupled: the weight itself shrinks by rate · decay
                    value *= 1 - per_setting(self.rates * self.decays, value)
                else:
                    gradients[name] = gradients[name].addcmul(value, per_setting(self.rates * self.decays, value))
        parameters, found = [self.scaled[name] for name in names], [gradients[name].contiguous() for name in names]
        first: list[Any] = [self.first[name] for name in names]
        if self.kind == "sgd":
            sgd(
                parameters, found, first, fused=True, weight_decay=0.0, lr=1.0, momentum=MOMENTUM, dampening=0.0,
                nesterov=False, maximize=False,
            )
        else:
            adam(
                parameters, found, first, [self.second[name] for name in names], [], [self.steps[name] for name in names],
                fused=True, amsgrad=False, beta1=0.9, beta2=0.999, lr=1.0, weight_decay=0.0, eps=1e-8, maximize=False,
            )
        if not self.has_kernel:
            self._refresh()

    def _step_by_kernel(self, gradients: Tensors) -> None:
        """Take one step of these parameters, and convert them to the type of the products."""
        from tonelake.probes.adam_kernel import WeightSteps  # imports numba

        self._taken += 1
        for name, gradient in gradients.items():
            if name not in self._kernels:
                value = self.scaled[name]
                self._kernels[name] = WeightSteps(
                    value, self.first[name], self.second[name], self.working[name],
                    (self.rates * self.decays).expand(value.shape[:2]), decoupled=self.kind == "adamw",
                )
            self._kernels[name](gradient.contiguous(), self._taken)

    def _refresh(self) -> None:
        """Convert the weights to the type of the products."""
        self._kernels = {}               # of the tensors as they were
        if self.dtype == torch.float32:
            self.working = self.scaled
            return
        before = self.working
        self.working = dict(self.scaled)
        for name, value in self.scaled.items():
            if name.endswith("weight"):
                buffer = before[name]
                reusable = buffer.dtype == self.dtype and buffer.shape == value.shape
                self.working[name] = buffer.copy_(value) if reusable else value.to(self.dtype)

    def parameters(self, group: int, setting: int) -> Tensors:
        """Return the parameters of one fit in float32."""
        rate = self.rates[group if len(self.rates) > 1 else 0, setting]
        return {name: value[group, setting] * rate for name, value in self.scaled.items()}

    def multiply_rates(self, factors: torch.Tensor) -> None:
        """Multiply the learning rate of each fit by `factors` (group, setting); weights and moments stay the same."""
        self.rates = self.rates * factors
        for value in self.scaled.values():
            value /= per_setting(factors, value)
        self._refresh()

    def keep_only(self, groups: torch.Tensor, settings: torch.Tensor) -> None:
        """Drop all other groups and settings."""
        def select(tensors: Tensors) -> Tensors:
            return {name: value[groups][:, settings].contiguous() for name, value in tensors.items()}

        self.scaled, self.first, self.second = select(self.scaled), select(self.first), select(self.second)
        rates = self.rates[groups] if len(self.rates) > 1 else self.rates
        self.rates, self.decays = rates[:, settings], self.decays[:, settings]
        self._refresh()


def per_setting(of_settings: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Reshape (1, setting) or (group, setting) to multiply (group, setting, …)."""
    return of_settings.view(*of_settings.shape, *([1] * (value.dim() - 2)))
