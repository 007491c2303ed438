"""Linear layers with the matrix unit of recent Intel processors (AMX), in bfloat16: (frame, in) -> (frame, out).

The weights are packed once into the order that the matrix unit multiplies; oneDNN, as torch calls it, packs them at each call.
`ROWS` frames at a time are packed so that they stay in the second-level cache.  32 outputs of 32 frames are then summed over
`SLAB` blocks of 32 inputs at a time, so that this part of the weights stays in the first-level cache while all frames pass,
and the weights that come next are fetched ahead.  Products are summed in float32; bias and activation are applied to the sums
before the result is rounded to bfloat16.  numba compiles the functions at first use and keeps them on disk.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types

from tonelake.embed.kernels import simd
from tonelake.embed.kernels.amx_attention import pool
from tonelake.store import compiler_lock, explain_unwritable_cache

BLOCK = 32                               # inputs, outputs and frames of a block: two tiles
BLOCK_BYTES = 2 * simd.TILE_BYTES        # of 32 × 32 bfloat16; 32 × 32 sums take twice that
ROWS = 256                               # frames that are packed at a time
PASS = 32                                # blocks of inputs that are packed at a time: 256 × 1,024 bfloat16 are 512 KB
SLAB = 8                                 # blocks of inputs between loads of the sums: 16 KB of weights, 16 KB of frames
ACTIVATIONS = {"none": 0, "gelu": 1, "silu": 2}
LOG2_E = 1.4426950408889634
# erfc(z) = (((((E5 t + E4) t + E3) t + E2) t + E1) t) exp(-z²), t = 1 / (1 + P z), z >= 0; error below 1.5e-7.
# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.  z = |x| / √2 here.
E1, E2, E3, E4, E5 = (np.float32(c) for c in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))
P = np.float32(0.3275911 / 2**0.5)
HALF_SQUARE = np.float32(-0.5 * LOG2_E)
MINUS_LOG2_E = np.float32(-LOG2_E)
ZERO, ONE, MINUS_ONE = np.float32(0), np.float32(1), np.float32(-1)

COMPILING = threading.Lock()
LOCAL = threading.local()                # buffers of a thread: fresh ones would cost page faults at each call
of: Any = simd                           # functions for numba, which type checkers take for ordinary ones
load_0, load_1, load_2, load_3, load_4, load_5, load_6, load_7 = (of.load_tile(number) for number in range(8))
store_0, store_1, store_2, store_3 = (of.store_tile(number) for number in range(4))
zero_0, zero_1, zero_2, zero_3 = (of.zero_tile(number) for number in range(4))
configure_tiles, release_tiles = of.configure_tiles, of.release_tiles
# Frames in tiles 4 and 5, weights in 6 and 7, sums in 0 to 3.
add_4_6_to_0, add_4_7_to_1, add_5_6_to_2, add_5_7_to_3 = (
    of.multiply_tiles(*numbers) for numbers in ((0, 4, 6), (1, 4, 7), (2, 5, 6), (3, 5, 7))
)
load_vector, fill_vector = of.load_vector, of.fill_vector
store_vector, store_as_bfloat16 = of.store_vector, of.store_as_bfloat16
add, multiply, divide, multiply_add, maximum = of.add, of.multiply, of.divide, of.multiply_add, of.maximum
exp2_of, where_negative = of.exp2_of, of.where_negative
prefetch_near, prefetch = of.prefetch_to(1), of.prefetch_to(2)


def fits(before: int, after: int) -> bool:
    """Whether a layer of these widths has the form that the kernel computes."""
    return before > 0 and after > 0 and before % BLOCK == 0 and after % BLOCK == 0


def pack_weight(weight: Any) -> Any:
    """(out, in) bfloat16 -> (out / 32, in / 32, 2, 16, 16) int32: tiles of pairs of inputs by outputs."""
    import torch

    after, before = weight.shape
    pairs = weight.contiguous().view(torch.int32).view(after // BLOCK, 2, 16, before // BLOCK, 16)
    return pairs.permute(0, 3, 1, 4, 2).contiguous()


def unpack_weight(packed: Any) -> Any:
    """The weight that `pack_weight` packed."""
    import torch

    pairs = packed.permute(0, 2, 4, 1, 3).contiguous()
    return pairs.view(torch.bfloat16).view(BLOCK * packed.shape[0], BLOCK * packed.shape[1])


def linear(states: Any, weight: Any, bias: Any, activation: str = "none") -> Any:
    """(..., in) bfloat16 or float32 -> (..., out) bfloat16, on torch's number of threads.

    `weight` of `pack_weight`; `bias`: (out,) float32 in contiguous memory.
    """
    import torch

    kernel = compile_kernel()
    after, before = BLOCK * weight.shape[0], BLOCK * weight.shape[1]
    rows = states.reshape(-1, before).contiguous()
    if rows.data_ptr() % 64:
        rows = rows.clone()
    count = len(rows)
    out = torch.empty((*states.shape[:-1], after), dtype=torch.bfloat16)
    if not count:
        return out
    parts = -(-count // ROWS)
    each = -(-count // (parts * BLOCK)) * BLOCK              # frames of a part, parts of nearly equal size
    passes = -(-weight.shape[1] // PASS)
    threads = min(torch.get_num_threads(), weight.shape[0])

    def run(number: int) -> None:
        first, last = (weight.shape[0] * bound // threads for bound in (number, number + 1))
        packed = scratch("packed", (each // BLOCK + 1) * PASS * BLOCK_BYTES)           # one block more, fetched ahead of use
        sums = scratch("sums", (1 if passes == 1 else last - first) * each // BLOCK * 2 * BLOCK_BYTES)
        for begin in range(0, count, each):
            kernel(
                rows.data_ptr() + begin * rows.stride(0) * rows.element_size(), rows.dtype == torch.float32, before,
                min(each, count - begin), weight.data_ptr(), bias.data_ptr(), out.data_ptr() + 2 * begin * after, after,
                ACTIVATIONS[activation], first, last, packed, sums, SHAPES.ctypes.data,
            )

    others = [pool(threads).submit(run, number) for number in range(1, threads)]
    run(0)
    for other in others:
        other.result()
    return out


def scratch(name: str, size: int) -> int:
    """The address of at least `size` bytes that belong to this thread."""
    kept = getattr(LOCAL, name, None)
    if kept is None or kept.size < size:
        kept = simd.aligned((size,), np.uint8)
        setattr(LOCAL, name, kept)
    return int(kept.ctypes.data)


SHAPES = simd.aligned((64,), np.uint8)
SHAPES[:] = simd.tile_shapes()


def compile_kernel() -> Any:
    """Compile `multiply_rows`, or load it from numba's cache.  The first call on a machine takes a few seconds.

    Raises TonelakeError if the compiled functions cannot be cached anywhere.
    """
    with COMPILING:                      # encoding threads come here at the same time
        if not multiply_rows.signatures:
            with compiler_lock(Path(__file__)), explain_unwritable_cache():
                number = types.int64
                multiply_rows.compile(types.void(number, types.boolean, *[number] * 12))
                multiply_rows.disable_compile()
    return multiply_rows


@numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def gelu(x: Any) -> Any:
    """x Φ(x), by the approximation of erfc above."""
    one = fill_vector(ONE)
    t = divide(one, multiply_add(maximum(x, multiply(x, fill_vector(MINUS_ONE))), fill_vector(P), one))
    value = multiply_add(t, fill_vector(E5), fill_vector(E4))
    value = multiply_add(t, value, fill_vector(E3))
    value = multiply_add(t, value, fill_vector(E2))
    value = multiply_add(t, value, fill_vector(E1))
    half = exp2_of(multiply(x, x), fill_vector(HALF_SQUARE), fill_vector(MINUS_ONE))               # exp(-z²) / 2
    tail = multiply(multiply(value, t), half)
    return multiply(x, where_negative(x, tail, multiply_add(tail, fill_vector(MINUS_ONE), one)))


@numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def silu(x: Any) -> Any:
    """x / (1 + exp(-x))."""
    return divide(x, add(fill_vector(ONE), exp2_of(x, fill_vector(MINUS_LOG2_E), fill_vector(ZERO))))


@numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def pack_rows(rows: Any, in_float32: Any, before: Any, count: Any, first: Any, blocks: Any, packed: Any) -> None:
    """Arrange `count` frames of `blocks` blocks of inputs as left-hand sides of tile products; absent frames are zero."""
    zero = fill_vector(ZERO)
    for row in range((count + BLOCK - 1) // BLOCK * BLOCK):
        to = packed + (row >> 5) * PASS * BLOCK_BYTES + (row & 31) * 64
        if row >= count:
            for block in range(blocks):
                store_vector(to + block * BLOCK_BYTES, zero)
        elif in_float32:
            here = rows + (row * before + first * BLOCK) * 4
            for block in range(blocks):
                store_as_bfloat16(to + block * BLOCK_BYTES, load_vector(here + 128 * block))
                store_as_bfloat16(to + block * BLOCK_BYTES + 32, load_vector(here + 128 * block + 64))
        else:
            here = rows + (row * before + first * BLOCK) * 2
            for block in range(blocks):
                store_vector(to + block * BLOCK_BYTES, load_vector(here + 64 * block))


@numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def multiply_rows(
    rows: Any, in_float32: Any, before: Any, count: Any, weight: Any, bias: Any, out: Any, after: Any, activation: Any,
    first: Any, last: Any, packed: Any, sums: Any, shapes: Any,
) -> None:
    """Compute blocks `first` to `last` of the outputs for `count` frames.  Arrays are given by their addresses."""
    configure_tiles(shapes)
    blocks, groups = before // BLOCK, (count + BLOCK - 1) // BLOCK
    panel = blocks * BLOCK_BYTES
    ahead = (BLOCK + groups - 1) // groups               # lines of 64 bytes to fetch for each product of blocks
    for start in range(0, blocks, PASS):
        width = min(PASS, blocks - start)
        pack_rows(rows, in_float32, before, count, start, width, packed)
        for column in range(first, last):
            coming = weight + (column + 1) * panel + start * BLOCK_BYTES
            if column + 1 == last:
                coming = weight + first * panel + (start + width) * BLOCK_BYTES
            end = coming + width * BLOCK_BYTES
            if column + 1 == last and start + width == blocks:
                end = coming
            for slab in range(0, width, SLAB):
                depth = min(SLAB, width - slab)
                for group in range(groups):
                    right = weight + column * panel + (start + slab) * BLOCK_BYTES
                    left = packed + (group * PASS + slab) * BLOCK_BYTES
                    place = sums + (group if blocks <= PASS else (column - first) * groups + group) * 2 * BLOCK_BYTES
                    if start + slab == 0:
                        zero_0()
                        zero_1()
                        zero_2()
                        zero_3()
                    else:
                        load_0(place, 64)
                        load_1(place + 1024, 64)
                        load_2(place + 2048, 64)
                        load_3(place + 3072, 64)
                    for _ in range(depth):
                        load_6(right, 64)
                        load_7(right + 1024, 64)
                        load_4(left, 64)
                        add_4_6_to_0()
                        for _ in range(ahead):
                            if coming < end:
                                prefetch(coming)
                                coming += 64
                        add_4_7_to_1()
                        for line in range(16):
                            prefetch_near(left + BLOCK_BYTES + 64 * line)
                        load_5(left + 1024, 64)
                        add_5_6_to_2()
                        for line in range(16, 32):
                            prefetch_near(left + BLOCK_BYTES + 64 * line)
                        add_5_7_to_3()
                        right += BLOCK_BYTES
                        left += BLOCK_BYTES
                    store_0(place, 64)
                    store_1(place + 1024, 64)
                    store_2(place + 2048, 64)
                    store_3(place + 3072, 64)
                    if start + slab + depth == blocks:
                        low, high = load_vector(bias + 128 * column), load_vector(bias + 128 * column + 64)
                        for row in range(min(BLOCK, count - BLOCK * group)):
                            here = place + (row >> 4) * 2048 + (row & 15) * 64
                            to = out + ((BLOCK * group + row) * after + BLOCK * column) * 2
                            a, b = add(load_vector(here), low), add(load_vector(here + 1024), high)
                            if activation == 1:
                                a, b = gelu(a), gelu(b)
                            elif activation == 2:
                                a, b = silu(a), silu(b)
                            store_as_bfloat16(to, a)
                            store_as_bfloat16(to + 32, b)
    release_tiles()
