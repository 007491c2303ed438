"""Forward pass of an encoder for training: layer 0, or stored frames of a middle layer -> each layer's frames.

The encoder says how its model is run (`embed.TrainingPass`).  Blocks below the trained ones are computed without gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tonelake.embed import TrainingPass


def first_layer(run: TrainingPass, samples: Any) -> Any:
    """Compute layer 0, (batch, frame, dim), of (batch, samples) of one length, without gradients."""
    import torch

    with torch.no_grad():
        return run.first_layer(samples)


def layers_from(
    run: TrainingPass, hidden: Any, start: int, above: int, first: int, checkpointing: bool = False
) -> Iterator[Any]:
    """Yield layers `first` to the last from layer `start`, each (batch, frame, dim); blocks above `above` carry gradients."""
    import torch
    from torch.utils.checkpoint import checkpoint

    last = len(run.blocks)
    inputs = run.block_inputs(hidden)
    for number in range(start, last + 1):
        if number > start:
            block = run.blocks[number - 1]
            if number <= above:
                with torch.no_grad():
                    hidden = run.run_block(block, hidden, *inputs)
            elif checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(run.run_block, block, hidden, *inputs, use_reentrant=False)
            else:
                hidden = run.run_block(block, hidden, *inputs)
        if number >= first:
            yield run.last_layer(hidden) if number == last else hidden
