"""One pass through an encoder that can be learned from: windows -> each layer's frames, from one layer on.

As `embed.encoders.hubert.run_tapped`, but a loop instead of hooks: a block may be computed twice (gradient checkpointing), and the pass
may begin in the middle, from stored frames.  What lies below the blocks that learn is computed without gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tonelake.embed import normalize


def first_layer(model: Any, samples: Any, normalizes: bool) -> Any:
    """(batch, samples) of one length -> layer 0, (batch, frame, dim), without a gradient."""
    import torch

    encoder = model.encoder
    with torch.no_grad():
        features = model.feature_extractor(normalize(samples) if normalizes else samples).transpose(1, 2)
        hidden = model.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden              # wav2vec 2.0 gives its features beside
        hidden = hidden + encoder.pos_conv_embed(hidden)
        if not model.config.do_stable_layer_norm:
            hidden = encoder.layer_norm(hidden)
        return hidden


def layers_from(model: Any, hidden: Any, start: int, above: int, checkpointing: bool = False) -> Iterator[Any]:
    """Layer `start` -> layers `above` to the last, each (batch, frame, dim); blocks above layer `above` carry gradients."""
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
                    hidden = run(block, hidden)
            elif checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(run, block, hidden, use_reentrant=False)
            else:
                hidden = run(block, hidden)
        if number >= above:
            yield encoder.layer_norm(hidden) if number == last and model.config.do_stable_layer_norm else hidden


def run(block: Any, hidden: Any) -> Any:
    output = block(hidden)
    return output[0] if isinstance(output, tuple) else output
