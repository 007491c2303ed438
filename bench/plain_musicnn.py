"""musicnn as plain convolutions: the reference of the tests and the baseline of `bench.encoders`.

Written from the published description (arXiv 1909.06654) with torch's own convolutions over whole pictures; nothing is folded,
reordered or left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def plain_network(tensors: dict[str, np.ndarray], mel: Any) -> tuple[Any, Any, Any]:
    """(patch, 187, 96) log mel bands -> states (patch, 187, 753), penultimate (patch, 200) and tags (patch, 50).
    """
    import torch
    from torch.nn import functional as f

    weights = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}               # shares memory

    def norm(x: Any, number: int, dim: int) -> Any:
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        shape = [-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)]
        gamma, beta, mean, variance = (
            weights[f"{name}/{part}"].view(shape) for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * gamma + beta

    def relu_conv(x: Any, number: int) -> Any:
        name = f"conv2d_{number}" if number else "conv2d"
        kernel = weights[f"{name}/kernel"].permute(3, 2, 0, 1)               # TensorFlow keeps filters last
        return norm(f.relu(f.conv2d(x, kernel, weights[f"{name}/bias"])), number + 1, 1)

    x = norm(mel[:, None], 0, 1)                                             # (patch, 1, frame, band)
    paddings = [(3, 3), (3, 3), *(((frames - 1) // 2, frames // 2) for frames in (128, 64, 32))]
    front = torch.cat([
        relu_conv(f.pad(x, (0, 0, *padding)), number).amax(dim=3) for number, padding in enumerate(paddings)
    ], dim=1)                                                                # (patch, 561, frame)
    states, hidden = [front], front
    for number in (5, 6, 7):
        picture = f.pad(hidden, (3, 3)).transpose(1, 2)[:, None]             # (patch, 1, frame, channel)
        found = relu_conv(picture, number)[..., 0]
        hidden = found if number == 5 else found + hidden
        states.append(hidden)
    joined = torch.cat(states, dim=1)
    pooled = torch.stack([joined.amax(dim=2), joined.mean(dim=2)], dim=2).flatten(1)     # interleaved
    dense = f.relu(norm(pooled, 9, 1) @ weights["dense/kernel"] + weights["dense/bias"])
    penultimate = norm(dense, 10, 1)
    tags = torch.sigmoid(penultimate @ weights["dense_1/kernel"] + weights["dense_1/bias"])
    return joined.transpose(1, 2), penultimate, tags
