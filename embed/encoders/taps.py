"""Take the states of layers out of a forward pass, by hooks on the blocks of a HubertModel or Wav2Vec2Model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tonelake.embed.errors import EncoderError


def run_tapped(model: Any, batch: Any, reduce: Callable[[Any], Any]) -> list[Any]:
    """Run one forward pass, applying `reduce` to each layer's (batch, frame, dim) as soon as it is computed.

    Raises EncoderError if this release of transformers does not pass through the layers as expected.
    """
    found: list[Any] = []

    def take(output: Any) -> None:
        found.append(reduce(output[0] if isinstance(output, tuple) else output))

    blocks = model.encoder.layers
    final_norm = model.config.do_stable_layer_norm                   # then the last layer is the output of the norm
    taps = [*blocks[:-1], model.encoder.layer_norm if final_norm else blocks[-1]]
    hooks = [
        blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: take(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
        *(module.register_forward_hook(lambda _, __, output: take(output)) for module in taps),
    ]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if len(found) != len(blocks) + 1:
        raise EncoderError(
            f"the model returned {len(found)} layers instead of {len(blocks) + 1}. Install a supported release of transformers"
        )
    return found


class LayerReached(Exception):
    """Raised inside a forward pass once the requested layer is computed."""


def run_up_to(model: Any, batch: Any, layer: int) -> Any:
    """(batch, frame, dim) of one layer, as `run_tapped` sees it, by a pass that ends there."""
    found: list[Any] = []

    def take(output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        raise LayerReached

    blocks = model.encoder.layers
    if layer == 0:
        hook = blocks[0].register_forward_pre_hook(
            lambda _, args, kwargs: take(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
    else:
        last = layer == len(blocks) and model.config.do_stable_layer_norm
        module = model.encoder.layer_norm if last else blocks[layer - 1]
        hook = module.register_forward_hook(lambda _, __, output: take(output))
    try:
        model(batch)
    except LayerReached:
        return found[0]
    finally:
        hook.remove()
    raise EncoderError(f"the model did not pass through layer {layer}. Install a supported release of transformers")
