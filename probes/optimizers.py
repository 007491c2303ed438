"""torch's own Adam, AdamW and SGD, stepped for every fit of a stack with its own learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from probes.config import Setting
from probes.heads import Tensors

MOMENTUM = 0.9                           # of sgd


class Optimizer:
    """Steps parameters (group, setting, …) in place.

    Each fit's own parameters are contiguous, so a setting is one call of torch's fused kernel over all groups.
    """

    def __init__(self, kind: str, settings: Sequence[Setting], parameters: Tensors) -> None:
        self.kind, self.settings = kind, list(settings)
        self.parameters = parameters
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()} if kind != "sgd" else {}
        self.steps = 0
        self._lay_out()

    def _lay_out(self) -> None:
        """For each setting, its slices of every tensor."""
        def slices(tensors: Tensors, k: int) -> list[torch.Tensor]:
            return [value[g, k] for value in tensors.values() for g in range(value.shape[0])]

        count = len(self.settings)
        self._parameters, self._first = ([slices(t, k) for k in range(count)] for t in (self.parameters, self.first))
        self._second = [slices(self.second, k) for k in range(count)]
        device = next(iter(self.parameters.values())).device
        self._steps = [[torch.tensor(float(self.steps), device=device) for _ in own] for own in self._parameters]

    def step(self, gradients: Tensors) -> None:
        """One step; `gradients` have the parameters' names and shapes."""
        ordered = [gradients[name] for name in self.parameters]
        for k, setting in enumerate(self.settings):
            own = [value[g, k] for value in ordered for g in range(value.shape[0])]
            if self.kind == "sgd":
                sgd(
                    self._parameters[k], own, list(self._first[k]), fused=True, weight_decay=setting.decay,
                    lr=setting.rate, momentum=MOMENTUM, dampening=0.0, nesterov=False, maximize=False,
                )
            else:
                adam(
                    self._parameters[k], own, self._first[k], self._second[k], [], self._steps[k], fused=True,
                    decoupled_weight_decay=self.kind == "adamw", amsgrad=False, beta1=0.9, beta2=0.999, lr=setting.rate,
                    weight_decay=setting.decay, eps=1e-8, maximize=False,
                )
        self.steps += 1

    def keep(self, groups: torch.Tensor, settings: torch.Tensor) -> Tensors:
        """Go on with these groups and settings alone; the parameters that are left."""
        def kept(tensors: Tensors) -> Tensors:
            return {name: value[groups][:, settings].contiguous() for name, value in tensors.items()}

        self.parameters, self.first, self.second = kept(self.parameters), kept(self.first), kept(self.second)
        self.settings = [self.settings[int(k)] for k in settings]
        self._lay_out()
        return self.parameters
