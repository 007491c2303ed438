"""musicnn for tests: random weights, and a writer of TensorFlow's checkpoints."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from tonelake.embed.encoders.musicnn.checkpoint import masked_crc
from tonelake.embed.encoders.musicnn.network import expected_shapes
from tonelake.embed.encoders.musicnn.weights import NETWORKS, file_name


def write_random_weights(folder: Path) -> Path:
    """Write random weights of both networks into a folder, as `weights.convert` writes them; returns the folder."""
    from safetensors.numpy import save_file

    for seed, network in enumerate(NETWORKS):
        save_file(random_tensors(seed), folder / file_name(network))
    return folder


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
