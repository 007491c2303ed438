"""The forward pass of MERT-v2 for training: spectrum in float32, subsampling, then block after block."""

from __future__ import annotations

from typing import Any

from tonelake.embed.encoders.mert2.network import rotary_angles
from tonelake.embed.encoders.training import TrainingPass


class Mert2Pass(TrainingPass):
    """`model`: a `Mert2Network`."""

    def first_layer(self, samples: Any) -> Any:
        return next(self.model.states(samples))

    def block_inputs(self, states: Any) -> tuple[Any, ...]:
        return (rotary_angles(states.shape[1], self.model.sizes, states.device),)
