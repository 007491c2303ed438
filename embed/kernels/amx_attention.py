"""Attention with the matrix unit of recent Intel processors (AMX), in bfloat16: twice as fast as torch's own function.

For each head, keys and values are packed once into the order that the matrix unit multiplies.  Then, for 32 queries at a time:
scores against all keys, into a buffer that stays in the cache; their softmax, with the exponential in 16 lanes; and the
weighted sum of the values.  Products are summed in float32; only the weights of the softmax and the result are rounded to
bfloat16, as in torch's function.  numba compiles the functions at first use and keeps them on disk.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import types

from tonelake.embed.kernels import simd
from tonelake.store import compiler_lock, explain_unwritable_cache

WIDTH = 64                               # values of one head: MERT 95M and 330M, HuBERT, wav2vec 2.0
QUERIES = 32                             # at a time: two tiles
KEYS = 32                                # a block of packed keys and values: two tiles
ABSENT = np.float32(-1e30)
LOG2_E = 1.4426950408889634
SCORES_A_TASK = 500_000                  # that one task computes at least: shorter ones cost more to hand out than to do

COMPILING = threading.Lock()
of: Any = simd                           # functions for numba, which type checkers take for ordinary ones
load_2, load_3, load_4, load_5, load_6, load_7 = (of.load_tile(number) for number in range(2, 8))
store_0, store_1, store_2, store_3 = (of.store_tile(number) for number in range(4))
zero_0, zero_1, zero_2, zero_3 = (of.zero_tile(number) for number in range(4))
configure_tiles, release_tiles = of.configure_tiles, of.release_tiles
load_vector, fill_vector, add, multiply, maximum = of.load_vector, of.fill_vector, of.add, of.multiply, of.maximum
largest, total, exp2_of, store_as_bfloat16 = of.largest, of.total, of.exp2_of, of.store_as_bfloat16
# Scores: queries in tiles 2 to 5 (two halves of their rows, two of their columns), keys in 6 and 7, sums in 0 and 1.
add_2_6_to_0, add_3_7_to_0, add_4_6_to_1, add_5_7_to_1 = (
    of.multiply_tiles(*numbers) for numbers in ((0, 2, 6), (0, 3, 7), (1, 4, 6), (1, 5, 7))
)
# Weighted values: weights in 4 and 5, values in 6 and 7, sums in 0 to 3.
add_4_6_to_0, add_4_7_to_1, add_5_6_to_2, add_5_7_to_3 = (
    of.multiply_tiles(*numbers) for numbers in ((0, 4, 6), (1, 4, 7), (2, 5, 6), (3, 5, 7))
)
HALVES, PAIRS = types.Array(types.int16, 4, "A"), types.Array(types.int32, 4, "A")
SCRATCH = (
    types.Array(types.int32, 5, "C"), types.Array(types.int32, 4, "C"), types.Array(types.float32, 2, "C"),
    types.Array(types.int16, 2, "C"), types.Array(types.float32, 2, "C"), types.Array(types.float32, 1, "C"),
    types.Array(types.uint8, 1, "C"),
)


def fits(query: Any) -> bool:
    """Whether these (batch, head, frame, width) queries have the form that the kernel computes."""
    return query.shape[-1] == WIDTH and query.shape[-2] >= QUERIES and query.shape[0] * query.shape[1] > 0


def attend(query: Any, key: Any, value: Any, scaling: float | None = None) -> Any:
    """softmax(query · keyᵀ · scaling) · value of bfloat16 (batch, head, frame, 64) tensors, on torch's number of threads."""
    import torch

    kernel = compile_kernel()
    batch, heads, frames, width = query.shape
    query, key, value = (tensor if tensor.stride(-1) == 1 else tensor.contiguous() for tensor in (query, key, value))
    out = torch.empty((batch, frames, heads, width), dtype=torch.bfloat16).transpose(1, 2)
    pairs = key if all(stride % 2 == 0 for stride in (*key.stride()[:-1], key.storage_offset())) else key.contiguous()
    arrays = [
        query.view(torch.int16).numpy(), pairs.view(torch.int32).numpy(), value.view(torch.int16).numpy(),
        out.view(torch.int16).numpy(),
    ]
    scale = np.float32((width**-0.5 if scaling is None else scaling) * LOG2_E)
    each = max(1, min(SCORES_A_TASK // frames**2, batch * heads // (2 * torch.get_num_threads())))
    tasks = [(first, min(first + each, batch * heads)) for first in range(0, batch * heads, each)]

    def run(task: tuple[int, int]) -> None:
        scratch = Scratch(key.shape[-2])
        kernel(*arrays, scale, *task, *scratch.arrays)

    threads = torch.get_num_threads()
    if threads == 1 or len(tasks) == 1:
        run((0, batch * heads))
    else:
        list(pool(threads).map(run, tasks))
    return out


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads that compute heads, or parts of a linear layer; the kernels do not hold Python's lock."""
    return ThreadPoolExecutor(threads, thread_name_prefix="attention")


class Scratch:
    """Buffers of one task: packed keys and values of a head, and the scores, weights and sums of 32 queries."""

    def __init__(self, keys: int) -> None:
        blocks = -(-keys // KEYS)
        self.arrays = (
            simd.aligned((blocks, 2, 2, 16, 16), np.int32),          # block, half of its keys, half of the width, pairs, key
            simd.aligned((blocks, 4, 16, 16), np.int32),             # block, quarter of the width, pairs, column
            simd.aligned((QUERIES, blocks * KEYS), np.float32),
            simd.aligned((QUERIES, blocks * KEYS), np.int16),
            simd.aligned((QUERIES, WIDTH), np.float32),
            simd.aligned((QUERIES,), np.float32),
            simd.tile_shapes(),
        )


def compile_kernel() -> Any:
    """Compile `attend_heads`, or load it from numba's cache.  The first call on a machine takes a few seconds.

    Raises TonelakeError if the compiled functions cannot be cached anywhere.
    """
    with COMPILING:                      # encoding threads come here at the same time
        if not attend_heads.signatures:
            with compiler_lock(Path(__file__)), explain_unwritable_cache():
                numbers = (types.float32, types.int64, types.int64)
                attend_heads.compile(types.void(HALVES, PAIRS, HALVES, HALVES, *numbers, *SCRATCH))
                attend_heads.disable_compile()
    return attend_heads


@numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def attend_heads(
    query: Any, key: Any, value: Any, out: Any, scale: Any, first: int, last: int, packed_keys: Any, packed_values: Any,
    scores: Any, weights: Any, sums: Any, shares: Any, shapes: Any,
) -> None:
    """Compute heads `first` to `last` of all sequences; the bits of bfloat16 are in int16, those of keys in pairs in int32."""
    for number in range(first, last):
        sequence, head = number // query.shape[1], number % query.shape[1]
        pack(key[sequence, head], value[sequence, head], packed_keys, packed_values)
        attend_head(
            query[sequence, head], out[sequence, head], scale, key.shape[2], packed_keys, packed_values, scores, weights, sums,
            shares, shapes,
        )


@numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def pack(key: Any, value: Any, packed_keys: Any, packed_values: Any) -> None:
    """Arrange (key, width / 2) keys and (key, width) values as right-hand sides of tile products; absent keys are zero."""
    count = key.shape[0]
    for block in range(packed_values.shape[0]):
        for half in range(2):
            first = KEYS * block + 16 * half
            if first + 16 <= count:                      # without a test inside, LLVM makes vectors of the loops
                for pair in range(WIDTH // 2):
                    for column in range(16):
                        packed_keys[block, half, pair >> 4, pair & 15, column] = key[first + column, pair]
            else:
                for pair in range(WIDTH // 2):
                    for column in range(16):
                        absent = first + column >= count
                        packed_keys[block, half, pair >> 4, pair & 15, column] = 0 if absent else key[first + column, pair]
        for pair in range(16):
            row = KEYS * block + 2 * pair
            if row + 1 < count:
                for quarter in range(4):
                    for column in range(16):
                        low, high = value[row, 16 * quarter + column], value[row + 1, 16 * quarter + column]
                        packed_values[block, quarter, pair, column] = (
                            np.int32(low) & np.int32(0xFFFF) | np.int32(high) << np.int32(16)
                        )
            else:
                for quarter in range(4):
                    for column in range(16):
                        low = value[row, 16 * quarter + column] if row < count else 0
                        packed_values[block, quarter, pair, column] = np.int32(low) & np.int32(0xFFFF)


@numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def attend_head(
    query: Any, out: Any, scale: Any, keys: int, packed_keys: Any, packed_values: Any, scores: Any, weights: Any, sums: Any,
    shares: Any, shapes: Any,
) -> None:
    """Compute one head: (query, width) queries and packed keys and values -> (query, width)."""
    configure_tiles(shapes.ctypes.data)
    frames, blocks = query.shape[0], packed_values.shape[0]
    keys_at, values_at = packed_keys.ctypes.data, packed_values.ctypes.data
    scores_at, weights_at, sums_at, out_at = scores.ctypes.data, weights.ctypes.data, sums.ctypes.data, out.ctypes.data
    query_row, out_row = query.strides[0], out.strides[0]
    score_row, weight_row, sum_row = scores.strides[0], weights.strides[0], sums.strides[0]
    factor = fill_vector(scale)
    for start in range(0, frames, QUERIES):
        begin = min(start, frames - QUERIES)             # the last block overlaps the one before it
        from_here = query.ctypes.data + begin * query_row
        load_2(from_here, query_row)
        load_3(from_here + 64, query_row)
        load_4(from_here + 16 * query_row, query_row)
        load_5(from_here + 16 * query_row + 64, query_row)
        for half_block in range(2 * blocks):
            zero_0()
            zero_1()
            load_6(keys_at + 2048 * half_block, 64)
            load_7(keys_at + 2048 * half_block + 1024, 64)
            add_2_6_to_0()
            add_4_6_to_1()
            add_3_7_to_0()
            add_5_7_to_1()
            store_0(scores_at + 64 * half_block, score_row)
            store_1(scores_at + 64 * half_block + 16 * score_row, score_row)
        for row in range(QUERIES):
            for column in range(keys, KEYS * blocks):    # absent keys get no weight, and do not count as the largest score
                scores[row, column] = ABSENT
            here, to = scores_at + row * score_row, weights_at + row * weight_row
            top_a = load_vector(here)
            top_b = load_vector(here + 64)
            for block in range(1, blocks):
                top_a = maximum(load_vector(here + 128 * block), top_a)
                top_b = maximum(load_vector(here + 128 * block + 64), top_b)
            top = largest(maximum(top_a, top_b)) * scale
            shift = fill_vector(-top)
            sum_a = fill_vector(np.float32(0))
            sum_b = sum_a
            for block in range(blocks):
                part = exp2_of(load_vector(here + 128 * block), factor, shift)
                store_as_bfloat16(to + 64 * block, part)
                sum_a = add(sum_a, part)
                part = exp2_of(load_vector(here + 128 * block + 64), factor, shift)
                store_as_bfloat16(to + 64 * block + 32, part)
                sum_b = add(sum_b, part)
            shares[row] = total(add(sum_a, sum_b))
        for half in range(2):
            zero_0()
            zero_1()
            zero_2()
            zero_3()
            for block in range(blocks):
                load_4(weights_at + 64 * block, weight_row)
                load_5(weights_at + 64 * block + 16 * weight_row, weight_row)
                load_6(values_at + 4096 * block + 2048 * half, 64)
                load_7(values_at + 4096 * block + 2048 * half + 1024, 64)
                add_4_6_to_0()
                add_4_7_to_1()
                add_5_6_to_2()
                add_5_7_to_3()
            store_0(sums_at + 128 * half, sum_row)
            store_1(sums_at + 128 * half + 64, sum_row)
            store_2(sums_at + 128 * half + 16 * sum_row, sum_row)
            store_3(sums_at + 128 * half + 16 * sum_row + 64, sum_row)
        for row in range(QUERIES):
            share = fill_vector(np.float32(1) / shares[row])
            for quarter in range(4):
                part = multiply(load_vector(sums_at + row * sum_row + 64 * quarter), share)
                store_as_bfloat16(out_at + (begin + row) * out_row + 32 * quarter, part)
    release_tiles()
