"""Forward pass of an encoder for training: windows -> each layer's frames, from a given layer on.

Unlike `embed.encoders.hubert.run_tapped`, a loop instead of hooks: a block may be computed twice (gradient checkpointing),
and the pass may begin at stored frames of a middle layer.  Blocks below the trained ones are computed without gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tonelake.embed import normalize


def first_layer(model: Any, samples: Any, normalizes: bool) -> Any:
    """Compute layer 0, (batch, frame, dim), of (batch, samples) of one length, without gradients."""
    import torch

    encoder = model.encoder
    with torch.no_grad():
        features = model.feature_extractor(normalize(samples) if normalizes else samples).transpose(1, 2)
        hidden = model.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden              # wav2vec 2.0 also returns its features
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if not model.config.do_stable_layer_norm:
            hidden = encoder.layer_norm(hidden)
        return hidden


def layers_from(
    model: Any, hidden: Any, start: int, above: int, first: int, checkpointing: bool = False
) -> Iterator[Any]:
    """Yield layers `first` to the last from layer `start`, each (batch, frame, dim); blocks above `above` carry gradients."""
    import torch
    from torch.utils.checkpoint import checkpoint

    encoder = model.encoder
    blocks = list(encoder.layers)
    last = len(blocks)
    for number in range(start, last + 1):
        if number > start:
            block = blocks[number - 1]
            if number <= above:
                with torch.no_grad():
                    hidden = run_block(block, hidden)
            elif checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(run_block, block, hidden, use_reentrant=False)
            else:
                hidden = run_block(block, hidden)
        if number >= first:
            yield encoder.layer_norm(hidden) if number == last and model.config.do_stable_layer_norm else hidden


def run_block(block: Any, hidden: Any) -> Any:
    output = block(hidden)
    return output[0] if isinstance(output, tuple) else output
