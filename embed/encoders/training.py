"""How the model of an encoder is run for training: layer 0 first, then block after block.

Unlike `Encoder.encode`, which runs the whole model, this lets `finetune` begin at stored frames of a middle layer, compute the
blocks below the trained ones without gradients, and compute a block again in the backward pass (gradient checkpointing).  An
encoder that sets `trainable` returns such a pass from `training_pass`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any


class TrainingPass(ABC):
    """A model's forward pass in parts.  States are (batch, frame, dim); layer i leaves block i, counted from 1."""

    def __init__(self, model: Any, blocks: Sequence[Any]) -> None:
        """`blocks`: modules of `model`, in order, whose linear layers LoRA may change."""
        self.model, self.blocks = model, blocks

    @abstractmethod
    def first_layer(self, samples: Any) -> Any:
        """(batch, samples) of one length -> layer 0."""

    def block_inputs(self, states: Any) -> tuple[Any, ...]:
        """Arguments of every block besides its states, for states of this many frames; none by default."""
        return ()

    def run_block(self, block: Any, states: Any, *inputs: Any) -> Any:
        """The states that enter a block -> those that leave it."""
        output = block(states, *inputs)
        return output[0] if isinstance(output, tuple) else output

    def last_layer(self, states: Any) -> Any:
        """The states that leave the last block -> the last layer; unchanged by default."""
        return states

    @property
    def block_list(self) -> str:
        """Name of the list that holds the blocks, without that of its parent: `layers` of `encoder.layers.0`."""
        name = next(name for name, module in self.model.named_modules() if module is self.blocks[0])
        return name.split(".")[-2]

    def linear_layers(self) -> list[str]:
        """Names of the linear layers of a block, such as `attention.q_proj`, in order."""
        from torch import nn

        return [name for name, module in self.blocks[0].named_modules() if isinstance(module, nn.Linear)]
