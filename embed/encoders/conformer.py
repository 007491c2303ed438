"""Parts of conformer encoders, on states that stay (batch, frame, channel): MERT-v2 and MuQ are built of them.

The published models transpose to (batch, channel, frame) for their convolutions of width 1, which are linear layers; here they
stay in place.  Parameters have the names and shapes of `torch.nn.Conv1d`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

from tonelake.embed.kernels import attention


class Pointwise(nn.Conv1d):
    """A convolution of width 1 without bias: (batch, frame, channel)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 1, bias=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return functional.linear(states, self.weight.squeeze(-1))


class Depthwise(nn.Conv1d):
    """A convolution of each channel over time, of odd width, that keeps the number of frames: (batch, frame, channel)."""

    def __init__(self, channels: int, kernel: int, bias: bool = True) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        # As a picture of one row whose channels come last: three to six times as fast on CPUs as with channels first.
        row = states.unsqueeze(1).permute(0, 3, 1, 2)                # (batch, channel, 1, frame)
        padding = (0, self.kernel_size[0] // 2)
        found = functional.conv2d(row, self.weight.unsqueeze(2), self.bias, padding=padding, groups=self.groups)
        return found.permute(0, 2, 3, 1).squeeze(1)


class Attending(nn.Module):
    """Attention between queries, keys and values, by `attention_way` where that is faster; see `embed.kernels.attention`."""

    attention_way = attention.SAFE

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """(batch, head, frame, width) each -> (batch, head, frame, width)."""
        plain = query.device.type != "cpu" or query.dtype != torch.bfloat16 or self.training or query.requires_grad
        mixed: torch.Tensor = attention.WAYS[attention.SAFE if plain else self.attention_way](query, key, value)
        return mixed


Angles = tuple[torch.Tensor, torch.Tensor]


class ConformerNetwork(nn.Module, ABC):
    """A front end with subsampling, and blocks that take the states and each frame's (cosine, sine)."""

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList: ...

    @abstractmethod
    def first_layer(self, samples: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> (batch, frame, hidden) that enters the first block."""

    @abstractmethod
    def angles(self, states: torch.Tensor) -> Angles:
        """Cosine and sine of the angles of each frame of (batch, frame, hidden)."""

    def last_layer(self, states: torch.Tensor) -> torch.Tensor:
        """The states that leave the last block -> the last layer; unchanged by default."""
        return states

    def states(self, samples: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield (batch, frame, hidden) of each layer: what enters the first block, and what leaves each block."""
        states = self.first_layer(samples)
        yield states
        angles = self.angles(states)
        *blocks, last = self.blocks
        for block in blocks:
            states = block(states, angles)
            yield states
        yield self.last_layer(last(states, angles))

    def run_block(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, frame, hidden) -> the states that leave the first block if these enter it."""
        found: torch.Tensor = self.blocks[0](states, self.angles(states))
        return found

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """(batch, samples) -> the last layer."""
        for states in self.states(samples):
            last = states
        return last


def rotate(states: torch.Tensor, angles: Angles) -> torch.Tensor:
    """Rotate (..., frame, width) by each frame's (cosine, sine); the first half of the width is paired with the second."""
    cosine, sine = angles
    first, second = states.float().chunk(2, dim=-1)
    half = first.shape[-1]
    turned = states * cosine                                         # float32
    turned[..., :half].addcmul_(second, sine[..., :half], value=-1)
    turned[..., half:].addcmul_(first, sine[..., half:])
    return turned.to(states.dtype)


def as_multiplied(states: torch.Tensor) -> torch.Tensor:
    """The states in the precision in which linear layers multiply, so that several of them do not each cast the same states."""
    kind = states.device.type
    return states.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else states
