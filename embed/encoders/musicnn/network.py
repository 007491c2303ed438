"""A musicnn network: (patch, 187, 96) log mel bands -> states of every frame, their pooled forms, penultimate layer and tags.

    timbral      two convolutions over 7 frames x 38 and 67 bands, ReLU, batch norm, maximum over frequency: 2 x 204
    temporal     three over 128, 64 and 32 frames of one band, the same after: 3 x 51
    cnn1, 2, 3   three over 7 frames, ReLU, batch norm, the last two with a residual: 64 each
    max, mean    over the patch, of all of these: 753 each
    penultimate  dense layer of both, ReLU, batch norm: 200;  tags: dense layer, sigmoid: 50

Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", 2019 (arXiv 1909.06654).

How it is computed.  Most of the work are convolutions of which only the maximum over frequency is used.  Each is a few matrix
products whose second factor holds the same filters at several neighbouring positions (a band matrix), and the maximum is
taken of each product before the next is made, so that results stay in the cache.  The first factor is never unfolded: with the
frames next to each other, (band, frame of the kernel) is one contiguous range for every position.  Batch norm after ReLU rises
with its input where gamma is positive and falls elsewhere, so it commutes with the maximum of the inputs, or with their
minimum; a filter of negative gamma is computed with its sign changed.

Many filters of the published networks died in training: weight decay left them weights of 1e-11 and less, so whatever the
sound, their output is one number (in MSD's network 179 of the 204 filters of 38 bands).  Filters whose output cannot change by
more than `CONSTANT` are left out of the products; their number is put where it belongs at the end, and what later layers make
of it is part of their biases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tonelake.embed.encoders.musicnn.mel import BANDS
from tonelake.embed.errors import CheckpointError

PATCH = 187                              # frames: 3 s
TIMBRAL_FRAMES = 7
TIMBRAL_BANDS = (38, 67)
TIMBRAL_FILTERS = 204
TEMPORAL_FRAMES = (128, 64, 32)
TEMPORAL_FILTERS = 51
MIDDLE_FRAMES = 7
MIDDLE_FILTERS = 64
DENSE = 200
TAGS = 50
EPSILON = 1e-3                           # of batch norm
TIMBRAL = 2 * TIMBRAL_FILTERS
FRONT = TIMBRAL + 3 * TEMPORAL_FILTERS
STATES = FRONT + 3 * MIDDLE_FILTERS
SPANS = {                                # columns of the states
    "timbral": (0, TIMBRAL), "temporal": (TIMBRAL, FRONT),
    **{f"cnn{i + 1}": (FRONT + i * MIDDLE_FILTERS, FRONT + (i + 1) * MIDDLE_FILTERS) for i in range(3)},
}
LOG_MEL_MAX = 10.0                       # above that of any sound: full scale gives 7.3, twenty times full scale 9.9
CONSTANT = 1e-6                          # the range of outputs, whatever the sound, up to which a filter counts as constant
PRODUCT_COLUMNS = 512                    # of a product, about: (positions, filters)
POSITIONS = (2, 16)                      # least and most of a product: more multiply more zeros
PATCHES_AT_ONCE = {"cpu": 5}             # whose products stay in a processor's cache; other devices take more
MOST_PATCHES = 64


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint and their shapes; kernels are (frames, bands, channels in, filters)."""
    norms = [1, *[TIMBRAL_FILTERS] * 2, *[TEMPORAL_FILTERS] * 3, *[MIDDLE_FILTERS] * 3, 2 * STATES, DENSE]
    kernels = [
        *((TIMBRAL_FRAMES, bands, 1, TIMBRAL_FILTERS) for bands in TIMBRAL_BANDS),
        *((frames, 1, 1, TEMPORAL_FILTERS) for frames in TEMPORAL_FRAMES),
        *((MIDDLE_FRAMES, width, 1, MIDDLE_FILTERS) for width in (FRONT, MIDDLE_FILTERS, MIDDLE_FILTERS)),
    ]
    shapes: dict[str, tuple[int, ...]] = {}
    for number, width in enumerate(norms):
        shapes |= {f"{norm_name(number)}/{part}": (width,) for part in ("gamma", "beta", "moving_mean", "moving_variance")}
    for number, shape in enumerate([*kernels, (2 * STATES, DENSE), (DENSE, TAGS)]):
        name = numbered("conv2d", number) if number < len(kernels) else numbered("dense", number - len(kernels))
        shapes |= {f"{name}/kernel": shape, f"{name}/bias": shape[-1:]}
    return shapes


def numbered(layer: str, number: int) -> str:
    """A layer's name in the checkpoint: `dense`, `dense_1`, …"""
    return f"{layer}_{number}" if number else layer


def norm_name(number: int) -> str:
    """The name of a batch norm in the checkpoint."""
    return numbered("batch_normalization", number)


def check_tensors(tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Raise CheckpointError unless these are exactly the tensors of one network, of the right shapes, and finite."""
    expected = expected_shapes()
    wrong = [
        f"{name} {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in expected.items() if name in tensors and tuple(tensors[name].shape) != shape
    ]
    values = [
        name for name, tensor in tensors.items()
        if not np.isfinite(tensor).all() or (name.endswith("/moving_variance") and (tensor < 0).any())
    ]
    found = {
        "missing": sorted(expected.keys() - tensors.keys()), "unexpected": sorted(tensors.keys() - expected.keys()),
        "of another shape": wrong, "with impossible values": sorted(values),
    }
    problems = [
        f"{len(names)} tensors {problem}: {', '.join(names[:4])}{' …' if len(names) > 4 else ''}"
        for problem, names in found.items() if names
    ]
    if problems:
        raise CheckpointError(f"{source}: refused, {'; '.join(problems)}. Run `tonelake weights musicnn --again`")


@dataclass(frozen=True, kw_only=True)
class PatchStates:
    """States of a network for patches, all float32."""

    live: Any                            # (patch, 187, live): states of each frame but the constant ones; see `Network.full`
    max: Any                             # (patch, 753) over the frames
    mean: Any                            # (patch, 753)
    penultimate: Any                     # (patch, 200)


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The filters of one convolution that are not constant, as products, and what follows the maximum."""

    band: Any                            # (inputs, positions * filters), signs changed where gamma is negative
    positions: int
    sign: Any                            # (filters,) float32, 1 or -1
    bias: Any                            # (filters,) float32, or (187, filters)
    scale: Any                           # (filters,) float32 of the batch norm
    shift: Any                           # (filters,) float32

    def __len__(self) -> int:
        return len(self.scale)

    def finish(self, products: Any) -> Any:
        """Largest products with changed signs -> ReLU and batch norm, in float32."""
        return products.float().mul_(self.sign).add_(self.bias).relu_().mul_(self.scale).add_(self.shift)


class Network:
    """One network on a device, its convolutions in one precision; everything after the pooling is float32."""

    def __init__(self, tensors: Mapping[str, np.ndarray], precision: str = "float32", device: str = "cpu") -> None:
        """`tensors`: as `check_tensors` accepts them."""
        import torch

        self.device, self.dtype = torch.device(device), getattr(torch, precision)

        def on_device(array: np.ndarray, dtype: Any = torch.float32) -> Any:
            return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device, dtype)

        self.input_scale, self.input_shift = (float(part[0]) for part in norm(tensors, 0))
        inputs = extremes(self.input_scale, self.input_shift)
        constants = np.zeros(STATES)     # outputs of the constant filters; the others are 0
        live = np.ones(STATES, bool)
        self.timbral: list[Filters] = []
        self.temporal: list[Filters] = []
        begin = 0
        for number, step in enumerate((TIMBRAL_FRAMES, TIMBRAL_FRAMES, 1, 1, 1)):
            kernel = conv_kernel(tensors, number)                    # (frames, bands, filters)
            flat = kernel.transpose(1, 0, 2).reshape(-1, kernel.shape[-1])                # rows: (band, frame)
            bias, (scale, shift) = tensors[f"{numbered('conv2d', number)}/bias"], norm(tensors, number + 1)
            low, high = (np.maximum(bound + bias, 0) for bound in bounds(flat, inputs))
            varies = (high - low) * np.abs(scale) > CONSTANT
            part = slice(begin, begin + len(varies))
            live[part] = varies
            constants[part] = np.where(varies, 0, (low + high) / 2 * scale + shift)
            begin += len(varies)
            sign = np.where(scale < 0, -1.0, 1.0)
            positions = positions_for(int(varies.sum()))
            (self.timbral if number < 2 else self.temporal).append(Filters(
                band=on_device(band_matrix((flat * sign)[:, varies], positions, step), self.dtype), positions=positions,
                sign=on_device(sign[varies]), bias=on_device(bias[varies]),
                scale=on_device(scale[varies]), shift=on_device(shift[varies]),
            ))
        self.live, self.constants = on_device(np.flatnonzero(live), torch.int64), on_device(constants)
        self.front = int(live[:FRONT].sum())                         # live columns of the front end
        self.timbral_width = int(live[:TIMBRAL].sum())
        self.middle = []
        for number in range(5, 8):
            kernel = conv_kernel(tensors, number)                    # (frames, channels in, filters)
            bias, (scale, shift) = tensors[f"{numbered('conv2d', number)}/bias"], norm(tensors, number + 1)
            if number == 5:
                bias = bias + responses_to_constants(kernel, constants[:FRONT])
                kernel = kernel[:, live[:FRONT]]
            self.middle.append(Filters(
                band=on_device(kernel.transpose(1, 0, 2).reshape(kernel.shape[1], -1), self.dtype), positions=MIDDLE_FRAMES,
                sign=on_device(np.ones(MIDDLE_FILTERS)), bias=on_device(bias), scale=on_device(scale), shift=on_device(shift),
            ))
        # The checkpoint interleaves maxima and means; a batch norm before a dense layer is part of its weights.
        scale, shift = norm(tensors, 9)
        dense = tensors["dense/kernel"].astype(np.float64)
        weights = dense * scale[:, None]
        self.dense_max, self.dense_mean = on_device(weights[0::2]), on_device(weights[1::2])
        self.dense_bias = on_device(tensors["dense/bias"] + shift @ dense)
        self.dense_scale, self.dense_shift = (on_device(part) for part in norm(tensors, 10))
        self.tag_kernel, self.tag_bias = on_device(tensors["dense_1/kernel"]), on_device(tensors["dense_1/bias"])

    def __call__(self, mel: Any) -> PatchStates:
        """(patch, 187, 96) log mel bands, float32 and on this device -> what the network makes of them."""
        import torch

        at_once = PATCHES_AT_ONCE.get(self.device.type, MOST_PATCHES)
        states = torch.empty(*mel.shape[:2], len(self.live), device=self.device)
        for first in range(0, len(mel), at_once):
            part = slice(first, first + at_once)
            normalized = self.normalize(mel[part])
            states[part, :, : self.timbral_width] = self.timbral_of(timbral_rows(normalized)).unflatten(0, (-1, PATCH))
            self.fill_rest(normalized, states[part])
        return self.pool(states)

    def normalize(self, mel: Any) -> Any:
        """Log mel bands as the convolutions take them."""
        return (mel * self.input_scale + self.input_shift).to(self.dtype)

    def fill_rest(self, normalized: Any, states: Any) -> None:
        """Fill (patch, 187, live) states, whose timbral columns are there, with all others."""
        self._temporal(normalized, states[:, :, self.timbral_width :])
        self._middle(states)

    def pool(self, states: Any) -> PatchStates:
        """(patch, 187, live) states -> all that the network makes of them."""
        import torch

        most, mean = self.full(states.amax(dim=1)), self.full(states.mean(dim=1))
        dense = torch.addmm(self.dense_bias, most, self.dense_max).addmm_(mean, self.dense_mean)
        penultimate = dense.relu_() * self.dense_scale + self.dense_shift
        return PatchStates(live=states, max=most, mean=mean, penultimate=penultimate)

    def tags(self, penultimate: Any) -> Any:
        """(..., 200) vectors of the penultimate layer -> (..., 50) scores from 0 to 1."""
        return (penultimate @ self.tag_kernel + self.tag_bias).sigmoid_()

    def full(self, live: Any) -> Any:
        """(..., live) columns -> (..., 753): with the constant ones, in the order of `SPANS`."""
        return self.constants.expand(*live.shape[:-1], STATES).index_copy(live.ndim - 1, self.live, live)

    def timbral_of(self, rows: Any) -> Any:
        """(row, band · frame) as `timbral_rows` makes them -> (row, timbral filter) float32."""
        import torch

        parts = []
        for filters, bands in zip(self.timbral, TIMBRAL_BANDS, strict=True):
            products = rows.new_empty(len(rows), filters.band.shape[1])
            most = rows.new_full((len(rows), len(filters)), -torch.inf)
            for position in starts(BANDS - bands + 1, filters.positions):
                begin = position * TIMBRAL_FRAMES
                torch.mm(rows[:, begin : begin + len(filters.band)], filters.band, out=products)
                for at_position in products.view(len(rows), filters.positions, -1).unbind(1):
                    torch.maximum(most, at_position, out=most)
            parts.append(filters.finish(most))
        return torch.cat(parts, dim=1)

    def _temporal(self, mel: Any, states: Any) -> None:
        import torch

        longest, patches, done = TEMPORAL_FRAMES[0], len(mel), 0
        before = (longest - 1) // 2
        rows = torch.nn.functional.pad(mel.transpose(1, 2), (before, longest - 1 - before)).reshape(patches * BANDS, -1)
        for filters, frames in zip(self.temporal, TEMPORAL_FRAMES, strict=True):
            left = before - (frames - 1) // 2
            products = rows.new_empty(len(rows), filters.band.shape[1])
            most = rows.new_empty(patches, PATCH, len(filters))
            for frame in starts(PATCH, filters.positions):
                torch.mm(rows[:, left + frame : left + frame + len(filters.band)], filters.band, out=products)
                largest = products.view(patches, BANDS, -1).amax(dim=1)
                most[:, frame : frame + filters.positions] = largest.view(patches, filters.positions, -1)
            states[:, :, done : done + len(filters)] = filters.finish(most)
            done += len(filters)

    def _middle(self, states: Any) -> None:
        import torch

        half, done = MIDDLE_FRAMES // 2, self.front
        inputs, residual = states[:, :, : self.front], None
        for filters in self.middle:
            padded = torch.nn.functional.pad(inputs.to(self.dtype), (0, 0, half, half))
            products = (padded.flatten(0, 1) @ filters.band).view(*padded.shape[:2], MIDDLE_FRAMES, MIDDLE_FILTERS)
            total = products[:, :PATCH, 0].float()
            for frame in range(1, MIDDLE_FRAMES):
                total += products[:, frame : frame + PATCH, frame]
            inputs = filters.finish(total) if residual is None else filters.finish(total).add_(residual)
            residual = inputs
            states[:, :, done : done + MIDDLE_FILTERS] = inputs
            done += MIDDLE_FILTERS


def timbral_rows(mel: Any) -> Any:
    """(patch, 187, 96) -> (patch · frame, band · frame of the kernel): the inputs of the timbral filters at each frame.

    Bands come before frames, so that neighbouring bands are one range.
    """
    import torch

    half = TIMBRAL_FRAMES // 2
    padded = torch.nn.functional.pad(mel, (0, 0, half, half))
    return padded.unfold(1, TIMBRAL_FRAMES, 1).reshape(-1, BANDS * TIMBRAL_FRAMES)


def conv_kernel(tensors: Mapping[str, np.ndarray], number: int) -> np.ndarray:
    """The weights of a convolution of one channel: (frames, bands, filters) float64."""
    return tensors[f"{numbered('conv2d', number)}/kernel"][:, :, 0].astype(np.float64)


def norm(tensors: Mapping[str, np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of a batch norm, in float64."""
    gamma, beta, mean, variance = (
        tensors[f"{norm_name(number)}/{part}"].astype(np.float64)
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + EPSILON)
    return scale, beta - mean * scale


def extremes(scale: float, shift: float) -> tuple[float, float]:
    """The least and largest input that a convolution can see, zeros of padding included."""
    ends = (0.0, shift, scale * LOG_MEL_MAX + shift)
    return min(ends), max(ends)


def bounds(kernel: np.ndarray, inputs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """(inputs, filters) -> the least and largest response of each filter to inputs in this range."""
    at_ends = [kernel * end for end in inputs]
    return np.minimum(*at_ends).sum(axis=0), np.maximum(*at_ends).sum(axis=0)


def responses_to_constants(kernel: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """(187, filters): the part that constant channels have in a convolution over (frames, channels, filters) of a patch."""
    taps = constants @ kernel            # (frames, filters)
    padded = np.zeros((PATCH + len(kernel) - 1, 1))
    padded[len(kernel) // 2 :][:PATCH] = 1                           # zeros of padding before and after the patch
    return sum(padded[tap : tap + PATCH] * taps[tap] for tap in range(len(kernel)))


def positions_for(filters: int) -> int:
    """The number of positions of filters that one product computes."""
    return int(np.clip(PRODUCT_COLUMNS // max(filters, 1), *POSITIONS))


def starts(count: int, size: int) -> list[int]:
    """Where groups of `size` begin that cover `count` positions; the last one may overlap the one before.

    >>> starts(30, 11), starts(22, 11)
    ([0, 11, 19], [0, 11])
    """
    return [*range(0, count - size, size), count - size]


def band_matrix(kernel: np.ndarray, positions: int, step: int) -> np.ndarray:
    """(inputs, filters) -> (inputs + (positions - 1) * step, positions * filters): the filters at several positions.

    >>> band_matrix(np.array([[1.0], [2.0]]), 3, 1).tolist()
    [[1.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 0.0, 2.0]]
    """
    inputs, filters = kernel.shape
    matrix = np.zeros((inputs + (positions - 1) * step, positions, filters))
    for position in range(positions):
        matrix[position * step : position * step + inputs, position] = kernel
    return matrix.reshape(len(matrix), -1)
