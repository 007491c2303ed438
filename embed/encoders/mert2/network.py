"""The network of MERT-v2 in plain torch, its modules named as the tensors of the checkpoints.

    (batch, samples) at 24 kHz  ->  mel (batch, frame, band) at 100 Hz  ->  (batch, frame, hidden) at 25 Hz  ->  blocks

- **Front end**, always in float32: power spectrogram (the checkpoint's Hann window, centred, reflected at the ends), mel bands,
  decibels, the last frame dropped, each band standardised by buffers of the checkpoint.  The waveform is not scaled.
- **Subsampling**: three stages of ConvNeXt V2 layers (arXiv 2301.00808); the second and third begin with a convolution of
  stride 2.  The global response norm is taken over time, so padding would change every frame: windows are never padded.
- **Blocks**: conformer (arXiv 2005.08100) with half-step feed-forward layers on both sides of attention and convolution; rotary
  embedding of queries and keys (arXiv 2104.09864).

Architecture: the model cards of m-a-p/MERT-v2-30s and m-a-p/MERT-v2-FullSong.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from tonelake.embed.encoders.conformer import Angles, Attending, ConformerNetwork, Depthwise, Pointwise, as_multiplied, rotate
from tonelake.embed.encoders.mel import FrontEnd
from tonelake.embed.kernels.linear import activated

STRIDES = (1, 2, 2)                      # of the three stages
GRN_EPS = 1e-6
NORM_FRAMES = 64                         # whose squares are added at a time


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The settings of a checkpoint that decide its shapes."""

    hidden: int
    inner: int                           # width of the feed-forward layers
    blocks: int
    heads: int
    bands: int
    fft: int
    window: int
    hop: int
    channels: tuple[int, ...]            # of the stages
    depths: tuple[int, ...]              # layers of each stage
    kernel: int                          # of the blocks' convolution
    rotary_base: float
    eps: float
    stage_eps: float

    @property
    def step(self) -> int:
        """Samples from frame to frame."""
        return self.hop * STRIDES[0] * STRIDES[1] * STRIDES[2]


class Transposed(nn.Module):
    """(batch, frame, channel) to (batch, channel, frame), and back."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return states.transpose(1, 2)


class ResponseNorm(nn.Module):
    """Global response norm over time: channels are weighted by their length relative to the mean over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty(1, 1, channels)) for _ in range(2))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        with torch.autocast(states.device.type, enabled=False):
            # Some frames at a time, whose squares stay in the cache.  A product with ones adds over frames; torch's own norm
            # over this axis takes ten times as long on CPUs.
            ones = states.new_ones(1, 1, NORM_FRAMES, dtype=torch.float32)
            sums = [ones[:, :, : part.shape[1]] @ part.float().square() for part in states.split(NORM_FRAMES, dim=1)]
            length = torch.stack(sums).sum(dim=0).clamp(min=1e-30).sqrt()
            share = length / (length.mean(dim=-1, keepdim=True) + GRN_EPS)
            return torch.addcmul(self.bias.to(states.dtype), states, (1 + self.weight * share).to(states.dtype))


class StageLayer(nn.Module):
    """A ConvNeXt V2 layer: depthwise convolution over time, then a widened layer with response norm, and the residual."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.depthwise_block = nn.Sequential(nn.Identity(), Depthwise(channels, 7))
        self.pointwise_block = nn.Sequential(
            nn.LayerNorm(channels, eps=eps), nn.Linear(channels, 4 * channels), nn.GELU(), ResponseNorm(4 * channels),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        norm, wide, _, response, narrow = self.pointwise_block
        return states + narrow(response(activated(wide, norm(self.depthwise_block(states)), "gelu")))


class Stage(nn.Module):
    """A convolution to the next width and rate, where one of them changes, and layers: (batch, frame, channel)."""

    def __init__(self, before: int, channels: int, stride: int, depth: int, eps: float) -> None:
        super().__init__()
        changes = before != channels or stride != 1
        self.resampling_layer = nn.Sequential(
            nn.LayerNorm(before, eps=eps), Transposed(), nn.Conv1d(before, channels, 2, stride), Transposed()
        ) if changes else nn.Identity()
        self.convnext_layers = nn.ModuleList(StageLayer(channels, eps) for _ in range(depth))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = self.resampling_layer(states)
        for layer in self.convnext_layers:
            states = layer(states)
        return states


class FeedForward(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(sizes.hidden, sizes.inner), nn.Linear(sizes.inner, sizes.hidden)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.w_2(activated(self.w_1, states, "gelu"))


class Attention(Attending):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.query_proj, self.key_proj, self.value_proj, self.out_proj = (
            nn.Linear(sizes.hidden, sizes.hidden) for _ in range(4)
        )

    def forward(self, states: torch.Tensor, angles: Angles) -> torch.Tensor:
        batch, frames, hidden = states.shape
        states = as_multiplied(states)
        query, key, value = (
            project(states).view(batch, frames, self.heads, -1).transpose(1, 2)
            for project in (self.query_proj, self.key_proj, self.value_proj)
        )                                                            # (batch, head, frame, width)
        mixed = self.attend(rotate(query, angles), rotate(key, angles), value)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, frames, hidden))


class Convolution(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        hidden = sizes.hidden
        self.layer_norm = nn.LayerNorm(hidden, eps=sizes.eps)
        self.conv_block = nn.Sequential(                             # numbered as in the checkpoints, hence the identities
            nn.Identity(), Pointwise(hidden, 2 * hidden), nn.GLU(dim=-1), Depthwise(hidden, sizes.kernel, bias=False),
            nn.Sequential(nn.Identity(), nn.LayerNorm(hidden, eps=sizes.eps)), nn.GELU(), Pointwise(hidden, hidden),
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.conv_block(self.layer_norm(states))


class Block(nn.Module):
    """One conformer block: (batch, frame, hidden)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.ffn1_layer_norm, self.attn_layer_norm, self.ffn2_layer_norm, self.final_layer_norm = (
            nn.LayerNorm(sizes.hidden, eps=sizes.eps) for _ in range(4)
        )
        self.ffn1, self.ffn2 = FeedForward(sizes), FeedForward(sizes)
        self.attn, self.conv_module = Attention(sizes), Convolution(sizes)

    def forward(self, states: torch.Tensor, angles: Angles) -> torch.Tensor:
        states = torch.add(states, self.ffn1(self.ffn1_layer_norm(states)), alpha=0.5)
        states = states + self.attn(self.attn_layer_norm(states), angles)
        states = states + self.conv_module(states)
        states = torch.add(states, self.ffn2(self.ffn2_layer_norm(states)), alpha=0.5)
        return self.final_layer_norm(states)


class Mert2Network(ConformerNetwork):
    """Front end, subsampling and blocks."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.feature_extractor = FrontEnd(bands=sizes.bands, fft=sizes.fft, window=sizes.window, hop=sizes.hop)
        widths = (sizes.bands, *sizes.channels)
        self.subsampling_module = nn.ModuleList(
            Stage(before, channels, stride, depth, sizes.stage_eps)
            for before, channels, stride, depth in zip(widths, sizes.channels, STRIDES, sizes.depths, strict=False)
        )
        self.layers = nn.ModuleList(Block(sizes) for _ in range(sizes.blocks))

    @property
    def blocks(self) -> nn.ModuleList:
        return self.layers

    def first_layer(self, samples: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.feature_extractor(samples)
        for stage in self.subsampling_module:
            states = stage(states)
        return states

    def angles(self, states: torch.Tensor) -> Angles:
        return rotary_angles(states.shape[1], self.sizes, states.device)


def rotary_angles(frames: int, sizes: Sizes, device: torch.device) -> Angles:
    """Cosine and sine of each frame's angles: (frame, head width) float32, both halves of a head alike."""
    width = sizes.hidden // sizes.heads
    frequency = sizes.rotary_base ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    angle = torch.outer(torch.arange(frames, dtype=torch.float32, device=device), frequency).repeat(1, 2)
    return angle.cos(), angle.sin()
