"""Attention in blocks equals the formula, and is used only where it applies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonelake.embed.encoders import attention


def by_formula(query, key, value, scaling):
    """softmax(q · kᵀ · scaling) · v in float64 NumPy."""
    q, k, v = (t.double().numpy() for t in (query, key, value))
    scores = np.einsum("bhqd,bhkd->bhqk", q, k) * scaling
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bhqk,bhkd->bhqd", weights / weights.sum(axis=-1, keepdims=True), v)


@pytest.mark.parametrize("frames", [1, 74, attention.BLOCK, attention.BLOCK + 1, 1_200])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_blocks_equal_the_formula(frames, dtype, tolerance):
    torch.manual_seed(frames)
    query, key, value = (torch.randn(2, 3, frames, 16).to(dtype) for _ in range(3))
    found = attention.blocked(query, key, value, 0.3)
    assert found.dtype == dtype
    expected = by_formula(query, key, value, 0.3)
    assert np.abs(found.double().numpy() - expected).max() <= tolerance * np.abs(expected).max()


def test_scores_are_scaled_by_the_root_of_the_width_by_default():
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 30, 16) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(attention.blocked(query, key, value), expected, atol=1e-5, rtol=1e-5)


def test_only_bfloat16_without_a_mask_on_a_cpu_uses_blocks(monkeypatch):
    calls = []
    monkeypatch.setattr(attention, "blocked", lambda q, k, v, s: calls.append(q.dtype) or torch.zeros_like(q))
    module = torch.nn.Module().eval()
    module.is_causal = False
    for dtype in (torch.float32, torch.bfloat16):
        tensors = [torch.randn(1, 2, 8, 4).to(dtype) for _ in range(3)]
        out, _ = attention.attend(module, *tensors, None, scaling=0.5)
        assert out.shape == (1, 8, 2, 4)
        masked, _ = attention.attend(module, *tensors, torch.zeros(1, 1, 8, 8, dtype=dtype), scaling=0.5)
        assert masked.shape == (1, 8, 2, 4)
    assert calls == [torch.bfloat16]


def test_a_model_in_bfloat16_uses_it(checkpoints, monkeypatch):
    from tonelake.embed.encoders.hubert import HubertEncoder

    used = []
    original = attention.blocked
    monkeypatch.setattr(attention, "blocked", lambda *args: used.append(1) or original(*args))
    windows = np.random.default_rng(0).standard_normal((1, 24_000)).astype(np.float32)
    encoder = HubertEncoder(checkpoints / "95M-tiny")
    encoder.encode(windows)
    assert not used
    encoder.at("bfloat16").encode(windows)
    assert len(used) == 3                # once per transformer block
