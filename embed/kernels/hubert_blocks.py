"""HuBERT's positional convolution and transformer blocks on a CPU, for one short sequence again and again, as in live audio.

    (frame, hidden) from the feature projection  ->  (frame, hidden) float32 of some layers, only the frames that are wanted

The weights are arranged once: queries, keys and values are one product, the activation is part of its product, and in bfloat16
the positional convolution is a few matrix products a group of channels.  torch's own convolution with 16 groups takes 2.7 times
as long on AMD Zen 5, and on processors with AMX it is wrong for some widths.  In the last block queries,
feed-forward layers and norms are computed for the wanted frames alone; keys and values, for all.  Sums of residuals are kept in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tonelake.embed.kernels import attention, linear

POSITIONS = ("torch", "groups")          # ways of the positional convolution over a whole window
TAPS = 16                                # of the positional convolution, per product; 8 and 32 are up to 15 % slower


def fits(model: Any) -> bool:
    """Whether a HubertModel or Wav2Vec2Model has the form that is computed here."""
    return (
        model.config.hidden_act == "gelu" and model.config.feat_extract_activation == "gelu"
        and getattr(model.encoder.pos_conv_embed, "batch_norm", None) is None
        and all(getattr(block, "adapter_layer", None) is None for block in model.encoder.layers)
    )


class Blocks:
    """The part of a model above its feature projection, up to the highest of some layers."""

    def __init__(self, model: Any, layers: Sequence[int], dtype: Any, *, attention_way: str, linear_way: str) -> None:
        """`dtype`: of products, float32 or bfloat16; the model holds its weights in it.  The ways are for bfloat16."""
        import torch

        self.layers = tuple(layers)
        self._attend = attention.WAYS[attention_way] if dtype == torch.bfloat16 else attention.by_torch
        way = linear.WAYS[linear_way if dtype == torch.bfloat16 else linear.SAFE]
        encoder, config = model.encoder, model.config
        self._pre_norm = bool(config.do_stable_layer_norm)
        self._norm = norm_of(encoder.layer_norm)
        self._positions = (PositionalProducts if dtype == torch.bfloat16 else PositionalModule)(encoder.pos_conv_embed)
        top = max(self.layers)
        self._blocks = [
            Block(block, way, dtype, heads=config.num_attention_heads, ends=number + 1 == top)
            for number, block in enumerate(encoder.layers[:top])
        ]
        self._ends_with_norm = self._pre_norm and top == len(encoder.layers)

    def __call__(self, projected: Any, wanted: slice) -> list[Any]:
        """(frame, hidden) -> (wanted frame, hidden) float32 of each layer."""
        hidden = projected.float() + self._positions(projected)
        if not self._pre_norm:
            hidden = self._norm(hidden)
        found = {0: hidden[wanted]}
        for number, block in enumerate(self._blocks, start=1):
            hidden = block(hidden, wanted, self._attend, self._pre_norm)
            found[number] = hidden if block.ends else hidden[wanted]
        if self._ends_with_norm:
            found[len(self._blocks)] = self._norm(hidden)
        return [found[layer] for layer in self.layers]


class Block:
    """One transformer block, its weights arranged.  `ends`: it is the last one, and returns the wanted frames alone."""

    def __init__(self, block: Any, way: Callable[[Any, Any], Any], dtype: Any, *, heads: int, ends: bool) -> None:
        self.ends, self._heads, self._dtype = ends, heads, dtype
        parts, wide = block.attention, block.feed_forward
        query, others = parts.q_proj, (parts.k_proj, parts.v_proj)
        self._products = [joined(layers, way, dtype) for layers in (((query,), others) if ends else ((query, *others),))]
        self._out, self._wide, self._narrow = (
            joined((layer,), way, dtype) for layer in (parts.out_proj, wide.intermediate_dense, wide.output_dense)
        )
        self._first_norm, self._second_norm = norm_of(block.layer_norm), norm_of(block.final_layer_norm)

    def __call__(self, hidden: Any, wanted: slice, attend: Callable[..., Any], pre_norm: bool) -> Any:
        """(frame, hidden) float32 -> the same, or (wanted frame, hidden) of the block that ends."""
        inputs = self._first_norm(hidden) if pre_norm else hidden
        kept = hidden[wanted] if self.ends else hidden
        kept = kept + self._mix(inputs.to(self._dtype), wanted, attend)
        if not pre_norm:
            kept = self._first_norm(kept)
        inputs = self._second_norm(kept) if pre_norm else kept
        kept = kept + self._narrow(self._wide(inputs.to(self._dtype), "gelu"), "none")
        return kept if pre_norm else self._second_norm(kept)

    def _mix(self, states: Any, wanted: slice, attend: Callable[..., Any]) -> Any:
        if self.ends:
            query, both = self._products[0](states[wanted], "none"), self._products[1](states, "none")
            key, value = both.chunk(2, dim=-1)
        else:
            query, key, value = self._products[0](states, "none").chunk(3, dim=-1)
        split = [part.unflatten(-1, (self._heads, -1)).transpose(0, 1)[None] for part in (query, key, value)]
        mixed = attend(*split)                                       # (1, head, frame, width)
        return self._out(mixed[0].transpose(0, 1).flatten(1), "none")


def fuse_activations(model: Any) -> None:
    """Make the feed-forward layers of a HubertModel or Wav2Vec2Model apply GELU inside a product that has it inside."""
    for block in model.encoder.layers:
        if model.config.hidden_act == "gelu":
            block.feed_forward.forward = FeedForward(block.feed_forward)


class FeedForward:
    """Replaces the forward of a feed-forward layer in eval mode; with linear layers as torch has them, it computes the same."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._plain = layer, layer.forward

    def __call__(self, hidden_states: Any) -> Any:
        if not isinstance(self._layer.intermediate_dense.forward, linear.Packed):
            return self._plain(hidden_states)
        return self._layer.output_dense(linear.activated(self._layer.intermediate_dense, hidden_states, "gelu"))


class PositionalModule:
    """The convolution as the model has it: (frame, hidden) -> (frame, hidden)."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, states: Any) -> Any:
        return self._module(states[None])[0]


class PositionalProducts:
    """The convolution and its activation in bfloat16: (frame, hidden) -> (frame, hidden) float32.

    The weights of `TAPS` taps are one matrix for each group, and the frames before and after are zero; products that would
    multiply zeros alone are left out.
    """

    def __init__(self, module: Any) -> None:
        import torch

        conv = module.conv
        after, before, taps = conv.weight.shape
        self._groups, self._before = conv.groups, conv.padding[0]
        by_group = conv.weight.detach().float().view(self._groups, after // self._groups, before, taps).permute(0, 3, 2, 1)
        missing = -taps % TAPS
        by_group = torch.nn.functional.pad(by_group, (0, 0, 0, 0, 0, missing))             # (group, tap, in, out)
        self._weights = by_group.reshape(self._groups, -1, TAPS * before, after // self._groups).bfloat16().contiguous()
        self._bias = None if conv.bias is None else conv.bias.detach().float()

    def __call__(self, states: Any) -> Any:
        import torch

        frames, hidden = states.shape
        pieces, (length, before) = self._weights.shape[1], (self._weights.shape[1] * TAPS, self._before)
        width = hidden // self._groups
        padded = torch.zeros((self._groups, frames + length, width), dtype=torch.bfloat16)
        padded[:, before : before + frames] = states.unflatten(1, (self._groups, width)).transpose(0, 1)
        # Row t holds frames t to t + TAPS - 1, side by side.
        rows = padded.as_strided(
            (self._groups, frames + length - TAPS, TAPS * width), ((frames + length) * width, width, 1)
        ).contiguous()
        total = torch.zeros((self._groups, frames, width))
        for piece in range(pieces):
            start = piece * TAPS
            first, last = max(0, before - start - TAPS + 1), min(frames, before + frames - start)
            if first < last:
                total[:, first:last] += torch.bmm(rows[:, start + first : start + last], self._weights[:, piece])
        total = total.transpose(0, 1).reshape(frames, hidden)
        return torch.nn.functional.gelu(total if self._bias is None else total + self._bias)


class PositionalGroups(PositionalProducts):
    """Convolve whole windows, as the module's forward: (batch, frame, hidden) -> (batch, frame, hidden).

    One product a group gives the parts of all pieces of `TAPS` taps, which are then added, each from another frame on.
    """

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        groups, self._pieces, before, self._width = self._weights.shape
        self._by_group = self._weights.transpose(1, 2).reshape(groups, before, self._pieces * self._width).contiguous()
        del self._weights

    def __deepcopy__(self, memo: dict[int, Any]) -> PositionalGroups:
        return self                      # copies of a model share it, as they share all weights

    def __call__(self, states: Any) -> Any:
        import torch

        with torch.autocast("cpu", enabled=False):
            return torch.stack([self._one(window) for window in states])

    def _one(self, states: Any) -> Any:
        """(frame, hidden) -> the same."""
        import torch

        frames, hidden = states.shape
        inner, length = hidden // self._groups, frames + (self._pieces - 1) * TAPS
        padded = torch.zeros((self._groups, length + TAPS, inner), dtype=torch.bfloat16)
        padded[:, self._before : self._before + frames] = states.unflatten(1, (self._groups, inner)).transpose(0, 1)
        total = torch.empty((frames, self._groups, self._width))
        for group in range(self._groups):
            rows = torch.as_strided(
                padded, (length, TAPS * inner), (inner, 1), group * (length + TAPS) * inner
            ).contiguous()
            parts = rows @ self._by_group[group]                     # (length, piece × width)
            row = parts.shape[1]
            parts = parts.as_strided((self._pieces, frames, self._width), (TAPS * row + self._width, row, 1))
            total[:, group] = parts.sum(dim=0, dtype=torch.float32)
        total = total.flatten(1)
        return torch.nn.functional.gelu(total if self._bias is None else total + self._bias).to(states.dtype)


def use_positions(model: Any, way: str) -> None:
    """Make the positional convolution compute in a way of `POSITIONS`; torch's unless its weights are in bfloat16."""
    import torch

    module = model.encoder.pos_conv_embed
    grouped = isinstance(module.forward, PositionalGroups)
    if way == "groups" and module.conv.weight.dtype == torch.bfloat16:
        if not grouped and fits(model):
            module.forward = PositionalGroups(module)
    elif grouped:
        del module.forward


def joined(layers: Sequence[Any], way: Callable[[Any, Any], Any], dtype: Any) -> Any:
    """Linear layers with the same input as one product: a function of states and activation."""
    import torch

    weights, biases = [linear.dense_weight(layer) for layer in layers], [layer.bias.detach() for layer in layers]
    if len(layers) == 1:                 # without a copy
        return way(weights[0].to(dtype), biases[0].to(dtype))
    return way(torch.cat(weights).to(dtype), torch.cat(biases).to(dtype))


def norm_of(layer: Any) -> Callable[[Any], Any]:
    """A layer norm of (frame, hidden) float32."""
    import torch

    weight, bias = layer.weight.detach().float(), layer.bias.detach().float()
    return lambda states: torch.nn.functional.layer_norm(states, weight.shape, weight, bias, layer.eps)
