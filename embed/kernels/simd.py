"""Instructions for kernels that numba compiles: vectors of 16 float32 (AVX-512), and tiles (AMX: 16 rows of 64 bytes).

Each function here becomes one or a few machine instructions inside a function compiled by `numba.njit`; none can be called
from Python.  Addresses are integers (`array.ctypes.data`), strides are in bytes.  Tiles are the processor's eight tile
registers, named by number when the instruction is made, because the number is part of the instruction: `load_tile(4)`.

numba caches compiled functions by the time of their own file: after a change here, save the files of the kernels too.

Intel 64 and IA-32 Architectures Optimization Reference Manual, chapter "Intel AMX"; LLVM's X86 intrinsics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic, models, register_model

LANES = 16
TILE_BYTES = 1024                        # 16 rows of 64 bytes: 16 × 16 float32, or 16 × 32 bfloat16
TO_NEAREST = 4                           # AVX-512's rounding argument: as the processor is set

BYTE, INT, LONG, FLOAT, NOTHING = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.VoidType()
POINTER = ir.PointerType()
FLOATS = ir.VectorType(FLOAT, LANES)

# 2 ** x on [0, 1) as the cubic of least relative error, below 1e-4: a twentieth of bfloat16's rounding (2 ** -9).
EXP2 = (0.99992522, 0.69583353, 0.22606716, 0.07802452)


class BrainFloat(ir.Type):
    """LLVM's type bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BrainFloat)

    def __hash__(self) -> int:
        return hash(BrainFloat)


class Vector(types.Type):
    """The type of 16 float32 in a register."""

    def __init__(self) -> None:
        super().__init__("vector of 16 float32")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """A vector is held as LLVM holds it."""

    def __init__(self, manager: Any, front_end_type: Any) -> None:
        super().__init__(manager, front_end_type, FLOATS)


vector = Vector()


def tile_shapes() -> np.ndarray:
    """(64,) uint8: the configuration that gives all eight tiles 16 rows of 64 bytes."""
    shapes = np.zeros(64, np.uint8)
    shapes[0] = 1                        # palette
    shapes[16:32].view(np.uint16)[:] = 64
    shapes[48:56] = 16
    return shapes


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of zeros that begins at a multiple of 64 bytes, as loads and stores of vectors require."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + size].view(dtype).reshape(shape)


# -- tiles


@intrinsic
def configure_tiles(typing_context: Any, shapes_address: Any) -> Any:
    """Give the tiles their shapes; see `tile_shapes`."""
    return procedure("llvm.x86.ldtilecfg", [as_pointer], shapes_address)


@intrinsic
def release_tiles(typing_context: Any) -> Any:
    """Return the tiles to the processor, so that the system need not save them when it switches threads."""
    return procedure("llvm.x86.tilerelease", [])


def load_tile(number: int) -> Any:
    """The instruction that loads tile `number` from 16 rows of 64 bytes: (address, stride)."""

    @intrinsic
    def load(typing_context: Any, address: Any, stride: Any) -> Any:
        return procedure("llvm.x86.tileloadd64", [as_pointer, unchanged], address, stride, numbers=[number])

    return load


def store_tile(number: int) -> Any:
    """The instruction that stores tile `number` as 16 rows of 64 bytes: (address, stride)."""

    @intrinsic
    def store(typing_context: Any, address: Any, stride: Any) -> Any:
        return procedure("llvm.x86.tilestored64", [as_pointer, unchanged], address, stride, numbers=[number])

    return store


def zero_tile(number: int) -> Any:
    """The instruction that sets tile `number` to zero."""

    @intrinsic
    def zero(typing_context: Any) -> Any:
        return procedure("llvm.x86.tilezero", [], numbers=[number])

    return zero


def multiply_tiles(total: int, left: int, right: int) -> Any:
    """The instruction that adds left · right to tile `total`, products of bfloat16 summed in float32.

    left: 16 rows of 32 values; right: row r holds values 2 r and 2 r + 1 of each of 16 columns, side by side.
    """

    @intrinsic
    def multiply(typing_context: Any) -> Any:
        return procedure("llvm.x86.tdpbf16ps", [], numbers=[total, left, right])

    return multiply


# -- vectors


@intrinsic
def load_vector(typing_context: Any, address: Any) -> Any:
    """16 float32 from an address that is a multiple of 64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = builder.load(as_pointer(builder, arguments[0]), typ=FLOATS)
        loaded.align = 64
        return loaded

    return vector(address), generate


@intrinsic
def load_bfloat16(typing_context: Any, address: Any) -> Any:
    """16 bfloat16 from any address, as float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(INT, LANES)
        narrow = builder.load(as_pointer(builder, arguments[0]), typ=ir.VectorType(ir.IntType(16), LANES))
        narrow.align = 2
        bits = builder.shl(builder.zext(narrow, integers), ir.Constant(integers, [16] * LANES))
        return builder.bitcast(bits, FLOATS)

    return vector(address), generate


@intrinsic
def store_vector(typing_context: Any, address: Any, a: Any) -> Any:
    """Store 16 float32 at an address that is a multiple of 64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[1], as_pointer(builder, arguments[0]), align=64)
        return context.get_dummy_value()

    return types.void(address, a), generate


@intrinsic
def fill_vector(typing_context: Any, value: Any) -> Any:
    """16 times one float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        unset, first = ir.Constant(FLOATS, ir.Undefined), ir.Constant(INT, 0)
        one = builder.insert_element(unset, arguments[0], first)
        return builder.shuffle_vector(one, unset, ir.Constant(ir.VectorType(INT, LANES), [0] * LANES))

    return vector(types.float32), generate


@intrinsic
def add(typing_context: Any, a: Any, b: Any) -> Any:
    """a + b."""
    return vector(a, b), lambda context, builder, signature, arguments: builder.fadd(*arguments)


@intrinsic
def multiply(typing_context: Any, a: Any, b: Any) -> Any:
    """a · b."""
    return vector(a, b), lambda context, builder, signature, arguments: builder.fmul(*arguments)


@intrinsic
def divide(typing_context: Any, a: Any, b: Any) -> Any:
    """a / b."""
    return vector(a, b), lambda context, builder, signature, arguments: builder.fdiv(*arguments)


@intrinsic
def multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c, rounded once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit(builder, "llvm.fma.v16f32", FLOATS, arguments)

    return vector(a, b, c), generate


@intrinsic
def where_negative(typing_context: Any, x: Any, a: Any, b: Any) -> Any:
    """a where x is negative, else b."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", arguments[0], constant(0.0)), *arguments[1:])

    return vector(x, a, b), generate


@intrinsic
def first_lanes(typing_context: Any, count: Any, a: Any, b: Any) -> Any:
    """a in the first `count` lanes, b in the others."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integers = ir.VectorType(INT, LANES)
        number = builder.insert_element(ir.Constant(integers, ir.Undefined), arguments[0], ir.Constant(INT, 0))
        limit = builder.shuffle_vector(number, number, ir.Constant(integers, [0] * LANES))
        mask = builder.icmp_signed("<", ir.Constant(integers, list(range(LANES))), limit)
        return builder.select(mask, *arguments[1:])

    return vector(types.int32, a, b), generate


@intrinsic
def maximum(typing_context: Any, a: Any, b: Any) -> Any:
    """The larger of each pair; b where a is NaN."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return vector(a, b), generate


@intrinsic
def largest(typing_context: Any, a: Any) -> Any:
    """The largest of the 16 values."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit(builder, "llvm.vector.reduce.fmax.v16f32", FLOAT, arguments)

    return types.float32(a), generate


@intrinsic
def total(typing_context: Any, a: Any) -> Any:
    """The sum of the 16 values."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return emit(builder, "llvm.vector.reduce.fadd.v16f32", FLOAT, [ir.Constant(FLOAT, 0.0), *arguments])

    return types.float32(a), generate


@intrinsic
def exp2_of(typing_context: Any, x: Any, factor: Any, shift: Any) -> Any:
    """2 ** (x · factor + shift), by its whole part and a cubic for the rest; see EXP2."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        power = emit(builder, "llvm.fma.v16f32", FLOATS, arguments)
        whole = emit(builder, "llvm.floor.v16f32", FLOATS, [power])
        rest = builder.fsub(power, whole)
        value = constant(EXP2[-1])
        for coefficient in reversed(EXP2[:-1]):
            value = emit(builder, "llvm.fma.v16f32", FLOATS, [rest, value, constant(coefficient)])
        every_lane = ir.Constant(ir.IntType(LANES), -1)
        return emit(
            builder, "llvm.x86.avx512.mask.scalef.ps.512", FLOATS,
            [value, whole, constant(0.0), every_lane, ir.Constant(INT, TO_NEAREST)],
        )

    return vector(x, factor, shift), generate


@intrinsic
def store_as_bfloat16(typing_context: Any, address: Any, a: Any) -> Any:
    """Store 16 values, rounded to bfloat16, at any address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        narrow = builder.fptrunc(arguments[1], ir.VectorType(BrainFloat(), LANES))
        builder.store(narrow, as_pointer(builder, arguments[0]), align=2)
        return context.get_dummy_value()

    return types.void(address, a), generate


# -- caches


def prefetch_to(level: int) -> Any:
    """The instruction that asks for the 64 bytes at an address to be brought to the cache of this level, 1 or 2."""

    @intrinsic
    def prefetch(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            how = [ir.Constant(INT, number) for number in (0, 4 - level, 1)]           # to read, locality, data
            emit(builder, "llvm.prefetch.p0", NOTHING, [as_pointer(builder, arguments[0]), *how])
            return context.get_dummy_value()

        return types.void(address), generate

    return prefetch


# -- making instructions


def procedure(name: str, adapt: Sequence[Any], *parameters: Any, numbers: Sequence[int] = ()) -> Any:
    """(signature, code generator) of an instruction without a result; its tile `numbers` come first, then its arguments."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values = [change(builder, argument) for change, argument in zip(adapt, arguments, strict=True)]
        emit(builder, name, NOTHING, [*(ir.Constant(BYTE, number) for number in numbers), *values])
        return context.get_dummy_value()

    return types.void(*parameters), generate


def emit(builder: Any, name: str, result: Any, arguments: Sequence[Any]) -> Any:
    """Emit a call of an LLVM function, declaring it in the module where it is not."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def as_pointer(builder: Any, address: Any) -> Any:
    """An integer as an address."""
    return builder.inttoptr(address, POINTER)


def unchanged(builder: Any, value: Any) -> Any:
    """The value itself."""
    return value


def constant(value: float) -> Any:
    """16 times a number."""
    return ir.Constant(FLOATS, [value] * LANES)
