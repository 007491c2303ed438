"""Heads of frame probes: states of one clip over time to logits at each frame.

    linear     one frame
    context    linear over `context` frames around each
    mlp        one frame, one hidden layer
    conv       two convolutions over time, which together see `context` frames, and a linear layer
    gru        a bidirectional GRU and a linear layer; sees the whole segment
    harmonic   a convolution shared over pitch (`probes.frames.harmonic_head`), for notes from a vqt or cqt

A head is an ordinary module: (batch, frame, width) to logits (batch, frame, output).  With `layers` it learns a weighting of
layers first, and takes (layer, batch, frame, width).  Frames before the beginning and after the end count as zeros.
`probes.frames.stacks` trains many heads at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from tonelake.store import InputError


@dataclass(frozen=True, kw_only=True)
class HeadShape:
    """Architecture of a head."""

    kind: str
    width: int                           # of the input states
    outputs: int
    hidden: int = 128
    context: int = 9                     # odd
    dropout: float = 0.1
    layers: int = 0                      # number of layers under a learned weighting; 0 without one
    lowest: int | None = None            # MIDI number of the first pitch, for harmonic

    def kernels(self) -> list[tuple[int, int]] | None:
        """Return the (kernel, outputs) of each convolution, with ReLU and dropout between; None for other kinds of heads."""
        first = (self.context + 1) // 2
        return {
            "linear": [(1, self.outputs)],
            "context": [(self.context, self.outputs)],
            "mlp": [(1, self.hidden), (1, self.outputs)],
            "conv": [(first + 1 - first % 2, self.hidden), (self.context - first + first % 2, self.hidden), (1, self.outputs)],
        }.get(self.kind)

    def make(self) -> nn.Module:
        """Return a head with random weights from torch's generator."""
        return make_head(
            self.kind, self.width, self.outputs, hidden=self.hidden, context=self.context, dropout=self.dropout,
            layers=self.layers, lowest=self.lowest,
        )

    def parameters(self) -> int:
        return sum(value.numel() for value in self.make().state_dict().values())


def make_head(
    kind: str, width: int, outputs: int, *, hidden: int = 128, context: int = 9, dropout: float = 0.1, layers: int = 0,
    lowest: int | None = None,
) -> nn.Module:
    """Return a head of one of the kinds above, with torch's default initial weights.

    `width`: of the states; `context`: frames seen by context and conv, odd; `dropout`: of whole hidden channels of a segment;
    `layers`: how many layers the head weights; `lowest`: MIDI number of the first pitch, for harmonic.
    Raises InputError for an unknown kind, or a width that harmonic cannot read.
    """
    shape = HeadShape(
        kind=kind, width=width, outputs=outputs, hidden=hidden, context=context, dropout=dropout, layers=layers, lowest=lowest
    )
    kernels = shape.kernels()
    if kernels is not None:
        head: nn.Module = ConvHead(width, kernels, dropout)
    elif kind in OTHER_HEADS:
        head = OTHER_HEADS[kind](shape)
    else:
        raise InputError(f"head {kind!r}: unknown. Choose linear, context, mlp, conv, {', '.join(OTHER_HEADS)}")
    return WeightedHead(head, layers) if layers else head


class ConvHead(nn.Module):
    """Convolutions over time with ReLU and dropout between them: linear, context, mlp and conv."""

    def __init__(self, width: int, kernels: list[tuple[int, int]], dropout: float) -> None:
        super().__init__()
        widths = [width, *(outputs for _, outputs in kernels)]
        self.layers = nn.ModuleList(
            nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)
            for inputs, (kernel, outputs) in zip(widths[:-1], kernels, strict=True)
        )
        self.dropout = nn.Dropout1d(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.transpose(1, 2)                                                    # (batch, channel, frame)
        for layer in self.layers[:-1]:
            x = self.dropout(functional.relu(layer(x)))
        return self.layers[-1](x).transpose(1, 2)


class GruHead(nn.Module):
    """A bidirectional GRU of `hidden` units in each direction, and a linear layer."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.gru = nn.GRU(shape.width, shape.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout1d(shape.dropout)
        self.output = nn.Linear(2 * shape.hidden, shape.outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.gru(x)[0].transpose(1, 2)
        return self.output(self.dropout(hidden).transpose(1, 2))


class WeightedHead(nn.Module):
    """A softmax weighting of layers, equal at first, as in SUPERB and MARBLE, then a head."""

    def __init__(self, head: nn.Module, layers: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.zeros(layers))
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(layer, batch, frame, width) to (batch, frame, output)."""
        return self.head(torch.einsum("l,lbtc->btc", torch.softmax(self.mix, dim=0), x))


def harmonic_head(shape: HeadShape) -> nn.Module:
    from tonelake.probes.frames.harmonic_head import HarmonicHead

    return HarmonicHead(shape.width, shape.outputs, lowest=shape.lowest, dropout=shape.dropout)


OTHER_HEADS: dict[str, Callable[[HeadShape], nn.Module]] = {"gru": GruHead, "harmonic": harmonic_head}
AUTOCAST = ("harmonic",)                 # heads that are trained in bfloat16 where the processor has it: twice as fast
JOINT_SCALE = ("harmonic",)              # heads whose states are standardised by one mean and deviation for all dimensions
