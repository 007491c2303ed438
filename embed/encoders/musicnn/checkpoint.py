"""Read a TensorFlow checkpoint ("tensor bundle") without TensorFlow: bytes of its two files -> float32 arrays by name.

`.index` is a LevelDB table: data blocks, an index block and a footer of 48 bytes.  A block holds entries whose keys share
prefixes (varint shared, varint unshared, varint value length, key suffix, value), then restart points, then five bytes outside
of the block: its compression and its checksum.  The value of the empty key is a BundleHeaderProto, every other one a
BundleEntryProto: type, shape, and the tensor's place in `.data-00000-of-00001`, which is raw little-endian memory.

Formats: LevelDB's doc/table_format.md; TensorFlow's core/protobuf/tensor_bundle.proto and tensor_shape.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from tonelake.embed.errors import CheckpointError

MAGIC = 0xDB4775248B80FB57               # the last eight bytes of a LevelDB table
FOOTER_BYTES = 48
TRAILER_BYTES = 5                        # after each block: compression, checksum
CRC_MASK = 0xA282EAD8                    # LevelDB stores rotated checksums, so that the checksum of a checksum is no trap
DT_FLOAT = 1
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5        # wire types of protobuf
HEADER_SHARDS, HEADER_ENDIAN = 1, 2
ENTRY_TYPE, ENTRY_SHAPE, ENTRY_SHARD, ENTRY_OFFSET, ENTRY_SIZE, ENTRY_CRC, ENTRY_SLICES = range(1, 8)
SHAPE_DIM, SHAPE_UNKNOWN, DIM_SIZE = 2, 3, 1
MOST_DIMS = 8


@dataclass(frozen=True, kw_only=True)
class BundleEntry:
    """One tensor of a bundle: its shape, and its place in the data file."""

    shape: tuple[int, ...]
    offset: int
    size: int                            # bytes
    crc: int                             # masked CRC-32C of these bytes


def read_bundle(index: bytes, data: bytes, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, np.ndarray]:
    """The float32 tensors whose names are `wanted`, checked against their checksums.

    Raises CheckpointError if the files are damaged, incomplete, or use a part of the format that is not read: compression,
    several shards, other types than float32, partitioned variables.
    """
    found = {}
    for name, entry in read_index(index).items():
        if not wanted(name):
            continue
        stored = data[entry.offset : entry.offset + entry.size]
        if len(stored) != entry.size:
            raise CheckpointError(f"tensor {name!r}: ends after the data file. Fetch the checkpoint again")
        if masked_crc(stored) != entry.crc:
            raise CheckpointError(f"tensor {name!r}: its checksum differs. Fetch the checkpoint again")
        found[name] = np.frombuffer(stored, "<f4").reshape(entry.shape).astype(np.float32)
    return found


def read_index(index: bytes) -> dict[str, BundleEntry]:
    """The entries of an index file, by the name of their tensor.  Raises CheckpointError as `read_bundle` does."""
    if len(index) < FOOTER_BYTES or struct.unpack("<Q", index[-8:])[0] != MAGIC:
        raise CheckpointError("checkpoint index: not a table of TensorFlow's form. Fetch the checkpoint again")
    try:
        offset, size, at = read_handle(index, len(index) - FOOTER_BYTES)
        read_block(index, offset, size)                              # the metaindex: empty, but a sign of damage
        offset, size, _ = read_handle(index, at)
        pairs: dict[bytes, bytes] = {}
        for _, handle in entries_of(read_block(index, offset, size)):
            offset, size, _ = read_handle(handle, 0)
            for key, value in entries_of(read_block(index, offset, size)):
                if key in pairs:
                    raise CheckpointError(f"checkpoint index: key {key!r} occurs twice. Fetch the checkpoint again")
                pairs[key] = value
        check_header(pairs.pop(b"", b""))
        return {key.decode(): parse_entry(key.decode(), value) for key, value in pairs.items()}
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"checkpoint index: damaged ({error}). Fetch the checkpoint again") from error


def read_block(table: bytes, offset: int, size: int) -> bytes:
    """A block without its trailer.  Raises CheckpointError if it is compressed or its checksum differs."""
    if offset + size + TRAILER_BYTES > len(table):
        raise IndexError("a block ends after the file")
    block, compression = table[offset : offset + size], table[offset + size]
    if compression:
        raise CheckpointError("checkpoint index: compressed, which is not read. Save the checkpoint uncompressed")
    (stored,) = struct.unpack_from("<I", table, offset + size + 1)
    if masked_crc(table[offset : offset + size + 1]) != stored:
        raise CheckpointError("checkpoint index: a block's checksum differs. Fetch the checkpoint again")
    return block


def entries_of(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of each entry of a block."""
    (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise IndexError("more restart points than a block holds")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or at + unshared + length > end:
            raise IndexError("an entry ends after its block")
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        yield key, block[at : at + length]
        at += length


def read_handle(buffer: bytes, at: int) -> tuple[int, int, int]:
    """(offset and size of a block, position after this handle)."""
    offset, at = read_varint(buffer, at)
    size, at = read_varint(buffer, at)
    return offset, size, at


def read_varint(buffer: bytes, at: int) -> tuple[int, int]:
    """(an unsigned integer, position after it)."""
    value = 0
    for shift in range(0, 64, 7):
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise IndexError("an integer of more than 64 bits")


def fields_of(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a protobuf message: integers, or the bytes of a field with a length."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            number, at = read_varint(message, at)
            yield field, number
        elif wire in (FIXED32, FIXED64):
            form = "<I" if wire == FIXED32 else "<Q"
            yield field, struct.unpack_from(form, message, at)[0]
            at += struct.calcsize(form)
        elif wire == LENGTH:
            length, at = read_varint(message, at)
            if at + length > len(message):
                raise IndexError("a field ends after its message")
            yield field, message[at : at + length]
            at += length
        else:
            raise IndexError(f"wire type {wire} of protobuf")


def check_header(header: bytes) -> None:
    """Raise CheckpointError unless a BundleHeaderProto describes one little-endian shard."""
    fields = dict(fields_of(header))
    if fields.get(HEADER_SHARDS) != 1 or fields.get(HEADER_ENDIAN, 0) != 0:
        raise CheckpointError("checkpoint index: not of one little-endian data file. Save the checkpoint in one shard")


def parse_entry(name: str, message: bytes) -> BundleEntry:
    """A BundleEntry from a BundleEntryProto.  Raises CheckpointError for types, shapes and slices that are not read."""
    fields = dict(fields_of(message))
    numbers = {field: value for field, value in fields.items() if isinstance(value, int)}
    shape = fields.get(ENTRY_SHAPE, b"")
    if not isinstance(shape, bytes) or ENTRY_SLICES in fields or numbers.get(ENTRY_SHARD, 0) != 0:
        raise CheckpointError(f"tensor {name!r}: partitioned or malformed. Save it as one float32 variable")
    if numbers.get(ENTRY_TYPE) != DT_FLOAT:
        raise CheckpointError(f"tensor {name!r}: of type {numbers.get(ENTRY_TYPE)}, not float32. Save it as float32")
    dims = []
    for field, value in fields_of(shape):
        if field == SHAPE_UNKNOWN or not isinstance(value, bytes):
            raise CheckpointError(f"tensor {name!r}: has no known shape. Fetch the checkpoint again")
        if field == SHAPE_DIM:
            size = dict(fields_of(value)).get(DIM_SIZE, 0)
            dims.append(size if isinstance(size, int) else 0)
    size = numbers.get(ENTRY_SIZE, 0)
    count = 1
    for dim in dims:
        count *= dim
    if len(dims) > MOST_DIMS or 4 * count != size:
        raise CheckpointError(f"tensor {name!r}: {size} bytes do not fit shape {tuple(dims)}. Fetch the checkpoint again")
    return BundleEntry(
        shape=tuple(dims), offset=numbers.get(ENTRY_OFFSET, 0), size=size, crc=numbers.get(ENTRY_CRC, 0)
    )


def masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli) as LevelDB stores it: rotated by 15 bits, plus a constant."""
    table, crc = crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + CRC_MASK) & 0xFFFFFFFF


@cache
def crc_table() -> tuple[int, ...]:
    """The remainders of all bytes by Castagnoli's polynomial, bits reversed."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)
