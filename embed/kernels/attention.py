"""Attention on a CPU in bfloat16, in several ways; `embed.kernels.choice` measures which one is the fastest here.

    torch    torch's fused function, float32 inside.  The safe default.
    blocks   one head and `BLOCK` queries at a time: two plain bfloat16 products with a softmax between them.  On processors
             with bfloat16 arithmetic but no matrix unit (AMD Zen 4) 2.5 times as fast as torch's for 30 s of audio: scores of
             512 × 2,249 × 2 bytes = 2.3 MB fit the cache, so both products run at the hardware's rate.
    vectors  the same blocks with our own softmax, for processors with AVX-512 and bfloat16 arithmetic.  On AMD Zen 5 a third
             faster than `blocks`; see `embed.kernels.vector_softmax`.
    amx      for processors with a matrix unit (Intel AMX); see `embed.kernels.amx_attention`.
    float32  torch's function in float32, where this machine computes none of these right.

Everything else (float32, other devices, masks, gradients) uses torch's function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NAME = "tonelake"
BLOCK = 512                              # query frames per block; 256 and 2,249 are 7 and 70 % slower
SAFE, EXACT = "torch", "float32"


def register() -> str:
    """Register the function with transformers; returns the name for `_attn_implementation`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def attend(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float | None = None, **options: Any
) -> tuple[Any, None]:
    """(batch, head, frame, dim) queries, keys and values -> (batch, frame, head, dim), with transformers' signature.

    The way is the attribute `attention_way` of the module; see `use`.
    """
    import torch

    plain = attention_mask is not None or query.device.type != "cpu" or query.dtype != torch.bfloat16
    way = getattr(module, "attention_way", SAFE)
    if plain or way == SAFE or module.training or query.requires_grad:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    return WAYS[way](query, key, value, scaling).transpose(1, 2), None


def use(model: Any, way: str) -> None:
    """Make every block of a HubertModel or Wav2Vec2Model compute attention in this way."""
    for block in model.encoder.layers:
        block.attention.attention_way = way


def ways_here(width: int) -> list[str]:
    """Names of the ways in which this processor can compute heads of this width in bfloat16."""
    needs = {"amx": lambda: amx_computes(width), "vectors": has_vector_unit, EXACT: lambda: False}
    return [name for name in WAYS if name not in needs or needs[name]()]


def amx_computes(width: int) -> bool:
    """Whether this processor has a matrix unit and its kernel computes heads of this width."""
    if not has_matrix_unit():
        return False
    from tonelake.embed.kernels import amx_attention  # here, because it imports numba

    return width == amx_attention.WIDTH


def has_matrix_unit() -> bool:
    """Whether this processor multiplies tiles of bfloat16 (AMX), and the system lets this process do it."""
    import torch

    has, enable = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_init_amx"))
    return bool(has is not None and enable is not None and has() and enable())


def has_vector_unit() -> bool:
    """Whether this processor computes with bfloat16 in vectors of 512 bits."""
    import torch

    has = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(has is not None and has())


def by_torch(query: Any, key: Any, value: Any, scaling: float | None = None) -> Any:
    """softmax(query · keyᵀ · scaling) · value by torch's fused function: (batch, head, frame, dim)."""
    import torch

    return torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)


def by_blocks(query: Any, key: Any, value: Any, scaling: float | None = None) -> Any:
    """softmax(query · keyᵀ · scaling) · value, one head and `BLOCK` queries at a time: (batch, head, frame, dim)."""
    import torch

    query = query * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    out = torch.empty_like(query)
    for sequence in range(query.shape[0]):
        for head in range(query.shape[1]):
            keys, values = key[sequence, head].t(), value[sequence, head]
            for first in range(0, query.shape[2], BLOCK):
                rows = slice(first, first + BLOCK)
                out[sequence, head, rows] = (query[sequence, head, rows] @ keys).softmax(dim=-1) @ values
    return out


def by_vectors(query: Any, key: Any, value: Any, scaling: float | None = None) -> Any:
    """As `by_blocks`, with the softmax of `embed.kernels.vector_softmax`."""
    import torch

    from tonelake.embed.kernels import vector_softmax  # here, because it imports numba

    batch, heads, frames, width = query.shape
    keys = key.shape[2]
    missing = -keys % vector_softmax.LANES               # frames of zeros, so that rows of scores are whole vectors
    out = torch.empty_like(query)
    scores = torch.empty((min(BLOCK, frames), keys + missing), dtype=query.dtype)
    for sequence in range(batch):
        for head in range(heads):
            some_keys, values = (torch.nn.functional.pad(t[sequence, head], (0, 0, 0, missing)) for t in (key, value))
            for first in range(0, frames, BLOCK):
                rows = slice(first, first + BLOCK)
                some = query[sequence, head, rows]
                block = torch.mm(some, some_keys.t(), out=scores[: len(some)])
                vector_softmax.softmax(block, keys, width**-0.5 if scaling is None else scaling)
                out[sequence, head, rows] = block @ values
    return out


def by_amx(query: Any, key: Any, value: Any, scaling: float | None = None) -> Any:
    """softmax(query · keyᵀ · scaling) · value by the matrix unit; by torch for heads that the kernel does not fit."""
    from tonelake.embed.kernels import amx_attention  # here, because it imports numba

    if not amx_attention.fits(query):
        return by_torch(query, key, value, scaling)
    return amx_attention.attend(query, key, value, scaling)


def in_float32(query: Any, key: Any, value: Any, scaling: float | None = None) -> Any:
    """softmax(query · keyᵀ · scaling) · value in float32, returned in the precision of the query: (batch, head, frame, dim)."""
    return by_torch(query.float(), key.float(), value.float(), scaling).to(query.dtype)


WAYS: dict[str, Callable[..., Any]] = {
    "torch": by_torch, "blocks": by_blocks, "vectors": by_vectors, "amx": by_amx, EXACT: in_float32,
}
