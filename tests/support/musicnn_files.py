"""musicnn for tests: random weights, a writer of TensorFlow's checkpoints, and the network as plain convolutions."""

from __future__ import annotations

import struct

import numpy as np

from tonelake.embed.encoders.musicnn.checkpoint import masked_crc
from tonelake.embed.encoders.musicnn.network import expected_shapes


def random_tensors(seed: int) -> dict[str, np.ndarray]:
    """Weights of one network, with batch norms of both signs, and with filters that died in training."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_shapes().items():
        kind = name.rpartition("/")[2]
        if kind == "kernel":
            tensors[name] = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
        elif kind == "moving_variance":
            tensors[name] = rng.uniform(0.5, 2.0, shape)
        elif kind == "gamma":
            tensors[name] = rng.uniform(0.5, 1.5, shape) * (rng.choice([-1, 1, 1], shape) if np.prod(shape) > 1 else 1)
        else:
            tensors[name] = 0.3 * rng.standard_normal(shape)
    for number, filters in ((0, 120), (1, 190), (2, 10), (4, 51)):           # one convolution has no filter left
        name = f"conv2d_{number}" if number else "conv2d"
        tensors[f"{name}/kernel"][..., :filters] *= 1e-12
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def plain_network(tensors: dict[str, np.ndarray], mel):
    """(patch, 187, 96) log mel bands -> states (patch, 187, 753), penultimate (patch, 200) and tags (patch, 50).

    Written from the published description with torch's own convolutions over the whole picture, nothing folded or left out.
    """
    import torch
    from torch.nn import functional as f

    weights = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}

    def norm(x, number, dim):
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        shape = [-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)]
        gamma, beta, mean, variance = (
            weights[f"{name}/{part}"].view(shape) for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / (variance + 1e-3).sqrt() * gamma + beta

    def relu_conv(x, number):
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


# -- checkpoints as TensorFlow writes them

def varint(number: int) -> bytes:
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protobuf message: an integer, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(shape, offset: int, stored: bytes, *, kind: int = 1, extra: bytes = b"") -> bytes:
    """A BundleEntryProto."""
    dims = b"".join(field(2, field(1, dim)) for dim in shape)
    message = field(1, kind) + field(2, dims) + (field(4, offset) if offset else b"") + field(5, len(stored))
    return message + varint(6 << 3 | 5) + struct.pack("<I", masked_crc(stored)) + extra


def block(pairs, compression: int = 0) -> bytes:
    """A block of a LevelDB table with its trailer; keys share prefixes from the start of the block."""
    content, before = b"", b""
    for key, value in pairs:
        shared = next((i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b), min(len(key), len(before)))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    content += struct.pack("<II", 0, 1)
    return content + bytes([compression]) + struct.pack("<I", masked_crc(content + bytes([compression])))


def table(blocks: list[bytes], last_keys: list[bytes]) -> bytes:
    """A table of data blocks."""
    content, handles = b"", []
    for data in blocks:
        handles.append(varint(len(content)) + varint(len(data) - 5))
        content += data
    ends = []
    for extra in (block([]), block(list(zip(last_keys, handles, strict=True)))):
        ends.append(varint(len(content)) + varint(len(extra) - 5))
        content += extra
    return content + b"".join(ends).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_bundle(tensors: dict[str, np.ndarray], *, entries_a_block: int = 20) -> tuple[bytes, bytes]:
    """(index, data) of a checkpoint."""
    data, pairs = b"", [(b"", field(1, 1))]
    for name in sorted(tensors):
        stored = np.ascontiguousarray(tensors[name], "<f4").tobytes()
        pairs.append((name.encode(), entry(tensors[name].shape, len(data), stored)))
        data += stored
    groups = [pairs[i : i + entries_a_block] for i in range(0, len(pairs), entries_a_block)]
    return table([block(group) for group in groups], [group[-1][0] for group in groups]), data
