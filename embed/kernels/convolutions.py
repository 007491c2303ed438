"""Compute HuBERT's convolution stack on a CPU in tiles: half the time in bfloat16, and a fiftieth of the memory.

The stack is seven strided convolutions, a group norm over time after the first, GELU after each.  Layer by layer, 30 s of
audio pass through memory as tensors of up to 295 MB.  Here the time axis is divided into tiles whose intermediate results
stay in the cache, and within a tile a convolution is one or two matrix products.

The obstacle is the group norm, which needs each channel's mean and variance over the whole window.
Both follow from the input alone, without computing any output.  With frames x_t in R^10 of the input and a kernel w,

    mean_t(w · x_t) = w · m,    var_t(w · x_t) = wᵀ M w - (w · m)²,    m = mean(x_t),  M = mean(x_t x_tᵀ),

so ten means and a hundred second moments, in float64, turn the norm into a scale and a shift of the first layer's weights.
"""

from __future__ import annotations

from typing import Any

TILES = (128, 256)                       # output frames; 32 and 512 are 19 and 50 % slower; see `embed.kernels.choice`


def install(model: Any) -> None:
    """Make a HubertModel or Wav2Vec2Model in eval mode compute its convolutions in tiles, if it has the form above."""
    if fits(model):
        model.feature_extractor.forward = Tiled(model.feature_extractor)


def use(model: Any, tile: int) -> None:
    """Set the number of output frames of a tile, where a model computes its convolutions in tiles."""
    if isinstance(model.feature_extractor.forward, Tiled):
        model.feature_extractor.forward.tile = tile


def fits(model: Any) -> bool:
    """Whether the stack has the form above: one group per channel after the first layer, no biases."""
    import torch

    first, *others = model.feature_extractor.conv_layers
    norm = getattr(first, "layer_norm", None)
    return (
        isinstance(norm, torch.nn.GroupNorm) and norm.num_groups == norm.num_channels and first.conv.in_channels == 1
        and all(layer.conv.bias is None for layer in (first, *others))
        and not any(hasattr(layer, "layer_norm") for layer in others)
    )


class Tiled:
    """Replaces the stack's own forward, which it calls on other devices and if gradients are needed."""

    def __init__(self, stack: Any) -> None:
        self._layers = list(stack.conv_layers)
        self._plain = stack.forward
        self.tile = TILES[0]
        self._weights: dict[Any, list[list[Any]]] = {}               # by dtype, for each layer but the first

    def __call__(self, samples: Any) -> Any:
        """(batch, samples) normalised audio -> (batch, channel, frame)."""
        import torch

        if samples.device.type != "cpu" or torch.is_grad_enabled():
            return self._plain(samples)
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else samples.dtype
        with torch.autocast("cpu", enabled=False):
            return torch.stack([self._one(window, dtype) for window in samples]).transpose(1, 2)

    def _one(self, samples: Any, dtype: Any) -> Any:
        """(samples,) -> (frame, channel)."""
        frames = self.cut(samples)
        return self.run(frames, *normalized(self.first, frames), dtype)

    @property
    def first(self) -> Any:
        """The first convolution, with the norm after it."""
        return self._layers[0]

    def cut(self, samples: Any) -> Any:
        """(samples,) -> (frame, sample) inputs of the first convolution, a view."""
        return samples.unfold(0, self.first.conv.kernel_size[0], self.first.conv.stride[0])

    def run(self, frames: Any, weights: Any, shift: Any, dtype: Any) -> Any:
        """Inputs of the first convolution, its weights and shift as of `fold_norm` -> (frame, channel) of the last layer."""
        import torch

        first, *others = self._layers
        weights, shift = weights.to(dtype), shift.to(dtype)
        pieces = self._pieces(dtype)
        shapes = [(layer.conv.kernel_size[0], layer.conv.stride[0]) for layer in others]
        count = len(frames)
        for kernel, stride in shapes:
            count = (count - kernel) // stride + 1
        out = torch.empty((count, others[-1].conv.out_channels), dtype=dtype)
        for start in range(0, count, self.tile):
            stop = min(start + self.tile, count)
            begin, end = start, stop                                 # the part of the first layer's output that this tile needs
            for kernel, stride in reversed(shapes):
                begin, end = begin * stride, (end - 1) * stride + kernel
            tile = first.activation(torch.addmm(shift, frames[begin:end].to(dtype), weights))
            for layer, (kernel, stride), piece in zip(others, shapes, pieces, strict=True):
                tile = layer.activation(convolve(tile, piece, kernel, stride))
            out[start:stop] = tile
        return out

    def _pieces(self, dtype: Any) -> list[list[Any]]:
        """The kernels of each layer but the first, split and in this dtype."""
        if dtype not in self._weights:
            self._weights[dtype] = [split_kernel(layer.conv, dtype) for layer in self._layers[1:]]
        return self._weights[dtype]


def normalized(layer: Any, frames: Any) -> tuple[Any, Any]:
    """The first convolution and the norm after it, as one: weights (kernel, channel) and shift (channel,), float64."""
    exact = frames.double()
    mean, variance = channel_moments(layer, exact.mean(dim=0), exact.T @ exact / len(exact))
    return fold_norm(layer, mean, (variance + layer.layer_norm.eps).sqrt())


def channel_moments(layer: Any, first_moment: Any, second_moment: Any) -> tuple[Any, Any]:
    """Mean and variance (channel,) of the first convolution's output, from the moments (kernel,) and (kernel, kernel) of its
    inputs; float64."""
    kernel = layer.conv.weight[:, 0].double()                        # (channel, kernel)
    mean = kernel @ first_moment
    variance = ((kernel @ second_moment) * kernel).sum(dim=1) - mean.square()
    return mean, variance.clamp(min=0)


def fold_norm(layer: Any, mean: Any, deviation: Any) -> tuple[Any, Any]:
    """The first convolution and a norm by these means and deviations (channel,) as one: weights (kernel, channel) and shift
    (channel,), float64."""
    norm = layer.layer_norm
    scale = norm.weight.double() / deviation
    weights = layer.conv.weight[:, 0].double() * scale[:, None]
    return weights.T.contiguous(), norm.bias.double() - mean * scale


def split_kernel(conv: Any, dtype: Any) -> list[Any]:
    """Split a kernel into pieces of `stride` taps, each a matrix (taps × input channels, output channels).

    Frames `stride` apart do not overlap, so each piece multiplies the input without a copy.
    """
    taps = conv.weight.permute(2, 1, 0).to(dtype)                    # (kernel, in, out)
    return [piece.reshape(-1, taps.shape[2]).contiguous() for piece in taps.split(conv.stride[0])]


def convolve(inputs: Any, pieces: list[Any], kernel: int, stride: int) -> Any:
    """Convolve (frame, channel) in time: (output frame, output channel)."""
    import torch

    count, channels = (len(inputs) - kernel) // stride + 1, inputs.shape[1]
    out = None
    for number, piece in enumerate(pieces):
        rows = inputs.as_strided((count, len(piece)), (stride * channels, 1), number * stride * channels)
        out = torch.mm(rows, piece) if out is None else out.addmm_(rows, piece)
    return out
