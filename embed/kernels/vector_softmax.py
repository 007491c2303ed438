"""The softmax of `attention.by_vectors`: rows of bfloat16 scores, in place, in vectors of 16 float32 (AVX-512).

    (row, column) scores  ->  weights, 2 ** (score · factor - the row's maximum), divided by their sum over the row

Exponentials are kept in float32 until they are divided, in a buffer that stays in the first-level cache.  On AMD Zen 5 torch's
function takes 3.4 times as long.  numba compiles the functions at first use and keeps them on disk.
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

LANES = simd.LANES
LOG2_E = 1.4426950408889634
ABSENT, ZERO, ONE = np.float32(-1e30), np.float32(0), np.float32(1)
ROWS_A_TASK = 64                         # at least, of each thread

COMPILING = threading.Lock()
of: Any = simd                           # functions for numba, which type checkers take for ordinary ones
load_bfloat16, load_vector, store_vector, store_as_bfloat16 = (
    of.load_bfloat16, of.load_vector, of.store_vector, of.store_as_bfloat16
)
fill_vector, first_lanes, exp2_of = of.fill_vector, of.first_lanes, of.exp2_of
add, multiply, maximum, largest, total = of.add, of.multiply, of.maximum, of.largest, of.total


def softmax(scores: Any, count: int, scaling: float) -> None:
    """Replace (row, column) bfloat16 scores by their weights, on torch's number of threads.

    The rows lie in contiguous memory.  Their length is `count` rounded up to a multiple of 16; the columns beyond it get no
    weight.
    """
    import torch

    kernel = compile_kernel()
    rows, columns = scores.shape
    each = max(ROWS_A_TASK, -(-rows // torch.get_num_threads()))

    def run(first: int) -> None:
        scratch = simd.aligned((columns,), np.float32)
        begin = scores.data_ptr() + 2 * columns * first
        kernel(begin, min(each, rows - first), columns, count, np.float32(scaling * LOG2_E), scratch.ctypes.data)

    if each >= rows:
        run(0)
    else:
        list(pool(torch.get_num_threads()).map(run, range(0, rows, each)))


def compile_kernel() -> Any:
    """Compile `softmax_rows`, or load it from numba's cache.  The first call on a machine takes a second.

    Raises TonelakeError if the compiled functions cannot be cached anywhere.
    """
    with COMPILING:                      # encoding threads come here at the same time
        if not softmax_rows.signatures:
            with compiler_lock(Path(__file__)), explain_unwritable_cache():
                softmax_rows.compile(types.void(*4 * [types.int64], types.float32, types.int64))
                softmax_rows.disable_compile()
    return softmax_rows


@numba.njit(nogil=True, fastmath=True, error_model="numpy", cache=True)
def softmax_rows(scores: Any, rows: int, columns: int, count: int, factor: Any, scratch: Any) -> None:
    """`scores` and `scratch`: addresses, of (row, column) bfloat16 and of (column,) float32."""
    scale, last = fill_vector(factor), columns - LANES
    present = np.int32(count - last)                     # columns in the last vector
    for row in range(rows):
        here = scores + 2 * columns * row
        top = first_lanes(present, load_bfloat16(here + 2 * last), fill_vector(ABSENT))
        for column in range(0, last, LANES):
            top = maximum(load_bfloat16(here + 2 * column), top)
        shift = fill_vector(-largest(top) * factor)
        sums = fill_vector(ZERO)
        for column in range(0, last, LANES):
            part = exp2_of(load_bfloat16(here + 2 * column), scale, shift)
            store_vector(scratch + 4 * column, part)
            sums = add(sums, part)
        part = first_lanes(present, exp2_of(load_bfloat16(here + 2 * last), scale, shift), fill_vector(ZERO))
        store_vector(scratch + 4 * last, part)
        share = fill_vector(ONE / total(add(sums, part)))
        for column in range(0, columns, LANES):
            store_as_bfloat16(here + 2 * column, multiply(load_vector(scratch + 4 * column), share))
