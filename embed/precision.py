"""Choose a precision by measurement: one sample at float32 and at a lower precision, compared layer by layer.

A lower precision is chosen if every layer keeps a cosine of at least 0.999 to float32 and the forward pass is faster
on this machine.  One that was asked for is used if every layer keeps 0.99, and refused otherwise: each processor computes with
kernels of its own, and some are wrong.  The sample is synthetic: plucked chords, a bass, noise bursts and a pause, so that
loud, quiet, tonal and noisy frames are all included.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import polars as pl

from tonelake.embed.encoders.base import Encoder
from tonelake.embed.errors import EncoderError
from tonelake.embed.measured import machine_key, recall, remember
from tonelake.embed.sample import SAMPLE_S, sample_music

MIN_COSINE = 0.999
USABLE_COSINE = 0.99                     # of a precision that was asked for
MIN_GAIN = 1.15                          # a smaller gain does not justify the loss
MAX_PRODUCT_ERROR = 0.02                 # relative; rounding the result to bfloat16 alone makes 0.002
CHECK_S = 3.0                            # of the sample, if only correctness is in question
ROUNDS = 3                               # their median is used
LOWER = {"cuda": ("bfloat16", "float16"), "cpu": ("bfloat16",), "mps": ("float16",)}     # tried in this order


@dataclass(frozen=True)
class Comparison:
    """One precision compared with float32 on one device."""

    precision: str
    table: pl.DataFrame                  # layer, worst cosine, worst relative error; over mean and max vectors
    gain: float                          # speed relative to float32

    @property
    def worst_cosine(self) -> float:
        return float(self.table["cosine"].min())                     # type: ignore[arg-type]

    @property
    def good(self) -> bool:
        """Whether it may replace float32."""
        return self.worst_cosine >= MIN_COSINE and self.gain >= MIN_GAIN


@dataclass(frozen=True)
class Choice:
    """An encoder in its chosen precision, and why."""

    encoder: Encoder
    reason: str                          # empty if the encoder has one precision only
    comparison: Comparison | None = None


def choose_precision(encoder: Encoder) -> Choice:
    """Choose the fastest precision that preserves every layer, for an encoder loaded in float32.

    On a processor without bfloat16 arithmetic, float32 is kept without a measurement.
    """
    kind = encoder.device.partition(":")[0]
    if len(encoder.precisions) == 1:
        return Choice(encoder, "")       # no choice, so no reason
    if kind == "cpu" and not cpu_has_bfloat16():
        return Choice(encoder, "float32: this processor has no bfloat16 arithmetic (AVX512-BF16 or AMX)")
    tried = [compare(encoder, lower) for lower in LOWER.get(kind, ()) if lower in encoder.precisions]
    for comparison in tried:
        if comparison.good:
            reason = (
                f"{comparison.precision}: {comparison.gain:.1f} times as fast as float32 here, with a cosine of at least "
                f"{comparison.worst_cosine:.5f} to it at every layer"
            )
            chosen = encoder.at(comparison.precision)
            return Choice(chosen, reason + float32_note(chosen), comparison)
    refused = "; ".join(
        f"{c.precision} is {c.gain:.1f} times as fast here, with a worst cosine of {c.worst_cosine:.5f}" for c in tried
    )
    return Choice(encoder, f"float32: {refused or f'nothing else is tried on {kind}'}", tried[0] if tried else None)


def float32_note(encoder: Encoder) -> str:
    """The modules that an encoder in a lower precision computes in float32, as the end of a sentence; empty for none."""
    kept = encoder.float32_modules
    return f"; {', '.join(kept)} in float32, because this {encoder.device} computes it wrongly otherwise" if kept else ""


def checked_at(encoder: Encoder, precision: str) -> Encoder:
    """An encoder, loaded in float32, in another precision, if this device computes it right: compared once with float32.

    Raises InputError if the encoder does not compute in that precision, EncoderError if a layer falls below a cosine of 0.99.
    """
    if precision == encoder.precision:
        return encoder
    key = machine_key() | {
        "what": "precision", "encoder": f"{type(encoder).__module__}:{type(encoder).__qualname__}",
        "revision": encoder.revision, "adapter": encoder.adapter, "precision": precision, "device": encoder.device,
    }
    kept = recall(key)
    lower = encoder.at(precision)
    if kept is None:
        found = compare(encoder, precision, seconds=CHECK_S, rounds=0, lower=lower)
        row = found.table.row(int(found.table["cosine"].arg_min() or 0), named=True)
        kept = {"cosine": row["cosine"], "layer": row["layer"]}
        remember(key, kept)
    if not kept["cosine"] >= USABLE_COSINE:
        raise EncoderError(
            f"{encoder.name} in {precision}: layer {kept['layer']} has a cosine of only {kept['cosine']:.4f} to float32 on "
            f"this {encoder.device}. Use --precision float32"
        )
    return lower


def compare(
    encoder: Encoder, precision: str, *, seconds: float = SAMPLE_S, rounds: int = ROUNDS, lower: Encoder | None = None
) -> Comparison:
    """Compare an encoder at float32 and at another precision on the built-in sample, in alternation.

    `rounds`: number of timed rounds after the first; 0 leaves the gain at 1.  `lower`: the encoder in that precision, if it is
    at hand.
    """
    windows = sample_music(encoder.sample_rate, seconds)[None]
    exact, lower = encoder.at("float32"), lower or encoder.at(precision)
    taken: dict[str, list[float]] = {"exact": [], "lower": []}
    vectors = {}
    for round_number in range(rounds + 1):                           # the first one warms up
        for name, variant in (("exact", exact), ("lower", lower)):
            started = time.perf_counter()
            vectors[name] = variant.encode(windows)
            if round_number:
                taken[name].append(time.perf_counter() - started)
    rows = []
    for layer, name in enumerate(encoder.layers):
        pairs = [
            (vectors["exact"].mean[layer][0], vectors["lower"].mean[layer][0]),
            (vectors["exact"].max[layer][0], vectors["lower"].max[layer][0]),
        ]
        rows.append((name, min(cosine(a, b) for a, b in pairs), max(relative_error(a, b) for a, b in pairs)))
    table = pl.DataFrame(rows, schema={"layer": pl.String, "cosine": pl.Float64, "relative_error": pl.Float64}, orient="row")
    gain = statistics.median(taken["exact"]) / statistics.median(taken["lower"]) if rounds else 1.0
    return Comparison(precision, table, gain)


def products_preserved(device: str, inner: int, outer: int, precision: str = "bfloat16") -> bool:
    """Whether this device computes batched products of (64, inner) and (inner, outer) matrices right in a lower precision.

    Compared once with float64, as is the product with the first factor transposed, which gradients need.
    """
    import torch

    key = machine_key() | {
        "what": "products", "device": device, "inner": inner, "outer": outer, "precision": precision,
    }
    kept = recall(key)
    if kept is None:
        generator = torch.Generator().manual_seed(0)
        lower = getattr(torch, precision)
        a, b, c = (
            torch.randn(2, *shape, generator=generator).to(lower) for shape in ((64, inner), (inner, outer), (64, outer))
        )
        pairs = [(a, b), (a.transpose(1, 2), c)]
        errors = []
        for left, right in pairs:
            expected = torch.bmm(left.double(), right.double())
            found = torch.bmm(left.to(device), right.to(device)).double().cpu()
            errors.append(float((found - expected).norm() / expected.norm()))
        kept = {"error": max(errors, key=lambda error: error if error == error else np.inf)}
        remember(key, kept)
    return bool(kept["error"] <= MAX_PRODUCT_ERROR)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors, in float64; -1 if one is not finite."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return -1.0
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / max(lengths, 1e-300)


def relative_error(exact: np.ndarray, other: np.ndarray) -> float:
    """Length of the difference divided by the length of the exact vector."""
    return float(np.linalg.norm(exact - other)) / max(float(np.linalg.norm(exact)), 1e-30)


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware, by the tests that torch's own kernels use."""
    import torch

    tests = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(test is not None and test() for test in tests)
