"""The network of MuQ (arXiv 2501.01108) and MusicFM in plain torch, its modules named as the tensors of the checkpoints.

    (batch, samples) at 24 kHz  ->  mel (batch, frame, band) at 100 Hz  ->  (batch, frame, hidden) at 25 Hz  ->  blocks

- **Front end**, always in float32: `embed.encoders.mel`, standardised by one mean and one standard deviation for all bands.
- **Subsampling**: two residual blocks of 3 × 3 convolutions over bands and frames, each with stride 2 in both; a linear layer.
- **Blocks**: conformer (arXiv 2005.08100) as in transformers' Wav2Vec2Conformer: rotary embedding is applied to the input of
  the query and key projections, not to their output.  A layer norm follows the last block.

In eval mode a batch norm is an affine map, so `fold_batch_norms` merges it into the convolution before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from tonelake.embed.encoders.conformer import Angles, Attending, ConformerNetwork, Depthwise, Pointwise, as_multiplied, rotate
from tonelake.embed.encoders.mel import Buffers, FrontEnd
from tonelake.embed.kernels.linear import activated

FFT = 2_048                              # and the length of the window
REDUCTION = 4                            # of frames and of bands, by the two strides
BLOCK_EPS = 1e-5                         # of the layer norms in blocks, whatever `layer_norm_eps` says


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The settings of a checkpoint that decide its shapes."""

    hidden: int
    inner: int                           # width of the feed-forward layers
    blocks: int
    heads: int
    bands: int
    hop: int
    channels: int                        # of the 2-D convolutions
    kernel: int                          # of the blocks' convolution
    eps: float                           # of the last layer norm

    @property
    def step(self) -> int:
        """Samples from frame to frame."""
        return self.hop * REDUCTION


class Residual(nn.Module):
    """Two convolutions and a shortcut, each with a batch norm, at half the rate of frames and bands."""

    def __init__(self, before: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(before, channels, 3, stride=2, padding=1)
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(channels) for _ in range(3))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        inner = functional.relu(self.bn1(self.conv1(states)))
        return functional.relu(self.bn3(self.conv3(states)) + self.bn2(self.conv2(inner)))


class Subsampling(nn.Module):
    """(batch, mel frame, band) -> (batch, frame, hidden)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.conv = nn.Sequential(Residual(1, sizes.channels), Residual(sizes.channels, sizes.channels))
        self.linear = nn.Linear(sizes.channels * sizes.bands // REDUCTION, sizes.hidden)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        states = mel.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        return self.linear(self.conv(states).permute(0, 3, 1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(sizes.hidden, sizes.inner)
        self.output_dense = nn.Linear(sizes.inner, sizes.hidden)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.output_dense(activated(self.intermediate_dense, states, "silu"))


class Attention(Attending):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.linear_q, self.linear_k, self.linear_v, self.linear_out = (nn.Linear(sizes.hidden, sizes.hidden) for _ in range(4))

    def forward(self, states: torch.Tensor, angles: Angles) -> torch.Tensor:
        turned, states = (
            as_multiplied(source) for source in (rotate(states.unflatten(-1, (self.heads, -1)), angles).flatten(2), states)
        )
        query, key, value = (
            project(source).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project, source in ((self.linear_q, turned), (self.linear_k, turned), (self.linear_v, states))
        )                                                            # (batch, head, frame, width)
        mixed = self.attend(query, key, value)
        return self.linear_out(mixed.transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden = sizes.hidden
        self.layer_norm = nn.LayerNorm(hidden, eps=BLOCK_EPS)
        self.pointwise_conv1 = Pointwise(hidden, 2 * hidden)
        self.depthwise_conv = Depthwise(hidden, sizes.kernel, bias=False)
        self.batch_norm = nn.BatchNorm1d(hidden)                     # merged into the convolution before it is used
        self.pointwise_conv2 = Pointwise(hidden, hidden)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = functional.glu(self.pointwise_conv1(self.layer_norm(states)), dim=-1)
        return self.pointwise_conv2(functional.silu(self.batch_norm(self.depthwise_conv(states))))


class Block(nn.Module):
    """One conformer block: (batch, frame, hidden)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.ffn1_layer_norm, self.self_attn_layer_norm, self.ffn2_layer_norm, self.final_layer_norm = (
            nn.LayerNorm(sizes.hidden, eps=BLOCK_EPS) for _ in range(4)
        )
        self.ffn1, self.ffn2 = FeedForward(sizes), FeedForward(sizes)
        self.self_attn, self.conv_module = Attention(sizes), Convolution(sizes)

    def forward(self, states: torch.Tensor, angles: Angles) -> torch.Tensor:
        states = torch.add(states, self.ffn1(self.ffn1_layer_norm(states)), alpha=0.5)
        states = states + self.self_attn(self.self_attn_layer_norm(states), angles)
        states = states + self.conv_module(states)
        states = torch.add(states, self.ffn2(self.ffn2_layer_norm(states)), alpha=0.5)
        return self.final_layer_norm(states)


class Positions(Buffers):
    inv_freq: torch.Tensor               # (half of a head's width,)

    def forward(self, frames: int) -> Angles:
        """Cosine and sine of each frame's angles: (frame, 1, head width) float32, both halves of a head alike."""
        time = torch.arange(frames, dtype=torch.float32, device=self.inv_freq.device)
        angle = torch.outer(time, self.inv_freq).repeat(1, 2).unsqueeze(1)
        return angle.cos(), angle.sin()


class Conformer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.embed_positions = Positions(inv_freq=(sizes.hidden // sizes.heads // 2,))
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes.blocks))
        self.layer_norm = nn.LayerNorm(sizes.hidden, eps=sizes.eps)


class MuqNetwork(ConformerNetwork):
    """Front end, subsampling and blocks; a layer norm follows the last one."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.feature_extractor = FrontEnd(bands=sizes.bands, fft=FFT, window=FFT, hop=sizes.hop)
        self.conv = Subsampling(sizes)
        self.conformer = Conformer(sizes)

    @property
    def blocks(self) -> nn.ModuleList:
        return self.conformer.layers

    def first_layer(self, samples: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.conv(self.feature_extractor(samples))
        return states

    def angles(self, states: torch.Tensor) -> Angles:
        found: Angles = self.conformer.embed_positions(states.shape[1])
        return found

    def last_layer(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.conformer.layer_norm(states)
        return found


def fold_batch_norms(network: MuqNetwork) -> None:
    """Add each batch norm, in eval mode, to the convolution before it; `network` has to be filled."""
    blocks = [block for block in network.conv.conv if isinstance(block, Residual)]
    pairs = [(block, f"conv{number}", f"bn{number}") for block in blocks for number in (1, 2, 3)]
    pairs += [(block.conv_module, "depthwise_conv", "batch_norm") for block in network.conformer.layers]  # type: ignore[misc]
    for module, convolution, norm in pairs:
        fold(getattr(module, convolution), getattr(module, norm))
        setattr(module, norm, nn.Identity())


def fold(convolution: nn.Conv1d | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    """Scale a convolution's weight, and shift its bias, as the batch norm after it does.  Computed in float64."""
    mean, variance, weight, bias = (
        tensor.double() for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias) if tensor is not None
    )
    scale = weight / (variance + norm.eps).sqrt()
    before = 0 if convolution.bias is None else convolution.bias.double()
    folded = convolution.weight.double() * scale.view(-1, *[1] * (convolution.weight.dim() - 1))
    convolution.weight = nn.Parameter(folded.float(), requires_grad=False)
    convolution.bias = nn.Parameter((bias + (before - mean) * scale).float(), requires_grad=False)
