"""Every way of attention equals the formula, and is used only where it applies."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tonelake.embed.kernels import attention

LOWER_WAYS = ("torch", "blocks", "vectors", "amx", "float32")
# Relative errors allowed: bfloat16 rounds weights and results to 2 ** -9.  `blocks` and `vectors` round scores too, which
# counts where they are large.
ERROR = {"torch": 0.01, "blocks": 0.02, "vectors": 0.02, "amx": 0.01, "float32": 0.01}
PEAKY_ERROR = ERROR | {"blocks": 0.08, "vectors": 0.08}


def by_formula(query, key, value, scaling):
    """softmax(q · kᵀ · scaling) · v in float64 NumPy."""
    q, k, v = (t.double().numpy() for t in (query, key, value))
    scores = q @ k.swapaxes(-1, -2) * scaling
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ v


def states(batch, heads, frames, width=64, spread=1.0):
    """Queries, keys and values as a model passes them: (batch, head, frame, width), heads interleaved in memory."""
    torch.manual_seed(frames)
    made = torch.randn(batch, frames, 3, heads, width)
    made[:, :, :2] *= spread
    return [made[:, :, i].transpose(1, 2) for i in range(3)]


def skip_without_matrix_unit(way):
    if way == "amx" and not attention.has_matrix_unit():
        pytest.skip("this processor has no AMX")
    if way == "vectors" and not attention.has_vector_unit():
        pytest.skip("this processor has no bfloat16 arithmetic in vectors")


@cache
def made(frames):
    """States in bfloat16 and their attention by the formula, shared by all ways: a long window takes a second."""
    lower = [tensor.bfloat16() for tensor in states(1 if frames > 1_000 else 2, 3, frames)]
    return lower, by_formula(*lower, 0.3)


# 2,249 frames are a window of 30 s, 374 one of 5 s; 32 queries or keys fill a block of the matrix unit, 512 one of `blocks`.
@pytest.mark.parametrize("frames", [1, 33, 74, 374, 2_249])
@pytest.mark.parametrize("way", LOWER_WAYS)
def test_each_way_equals_the_formula_in_bfloat16(way, frames):
    skip_without_matrix_unit(way)
    lower, expected = made(frames)
    found = attention.WAYS[way](*lower, 0.3)
    assert found.dtype == torch.bfloat16 and found.shape == lower[0].shape
    error = np.linalg.norm(found.double().numpy() - expected) / np.linalg.norm(expected)
    assert error <= ERROR[way]


@pytest.mark.parametrize("way", LOWER_WAYS)
@pytest.mark.parametrize("shift", [0.0, -30.0, 30.0])
def test_each_way_follows_peaks_and_large_scores(way, shift):
    """Frames that attend to one other, and scores far below and above zero, where a softmax without its maximum overflows."""
    skip_without_matrix_unit(way)
    query, key, value = states(2, 2, 333, spread=6.0)
    query[..., 0], key[..., 0] = 30.0, shift
    lower = [tensor.bfloat16() for tensor in (query, key, value)]
    expected = by_formula(*lower, 0.125)
    found = attention.WAYS[way](*lower, 0.125).double().numpy()
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - expected) / np.linalg.norm(expected) <= PEAKY_ERROR[way]


@pytest.mark.parametrize("way", LOWER_WAYS)
def test_a_window_attends_alone_as_in_a_batch(way):
    skip_without_matrix_unit(way)
    lower = [tensor.bfloat16() for tensor in states(3, 2, 100)]
    together = attention.WAYS[way](*lower, 0.125)
    for row in range(3):
        assert torch.equal(attention.WAYS[way](*(tensor[row : row + 1] for tensor in lower), 0.125)[0], together[row])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("way", ["vectors", "amx"])
def test_our_own_kernels_give_equal_results_on_any_number_of_threads(way, threads):
    skip_without_matrix_unit(way)
    lower = [tensor.bfloat16() for tensor in states(2, 6, 400)]
    before = torch.get_num_threads()
    expected = attention.WAYS[way](*lower, 0.125)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(attention.WAYS[way](*lower, 0.125), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_threads_that_come_first_at_the_same_time_share_the_kernel():
    """In a fresh process: the kernel is compiled, or loaded, by the first of them."""
    skip_without_matrix_unit("amx")
    program = """
import threading, torch
from tonelake.embed.kernels import attention
attention.has_matrix_unit()
lower = torch.ones(1, 4, 64, 64, dtype=torch.bfloat16)
barrier, found = threading.Barrier(4), []
def run():
    barrier.wait()
    found.append(attention.by_amx(lower, lower, lower))
threads = [threading.Thread(target=run) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert len(found) == 4 and all(bool((one == 1).all()) for one in found)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_the_matrix_unit_takes_any_order_in_memory():
    skip_without_matrix_unit("amx")
    lower = [tensor.bfloat16() for tensor in states(2, 3, 70)]
    expected = attention.by_amx(*lower, 0.125)
    whole = [tensor.contiguous() for tensor in lower]
    assert torch.equal(attention.by_amx(*whole, 0.125), expected)
    turned = [tensor.transpose(2, 3).contiguous().transpose(2, 3) for tensor in lower]
    assert torch.equal(attention.by_amx(*turned, 0.125), expected)
    odd = [torch.nn.functional.pad(tensor, (1, 2))[..., 1:-2] for tensor in whole]         # rows of 67 values
    assert torch.equal(attention.by_amx(*odd, 0.125), expected)


def test_heads_of_another_width_are_left_to_torch():
    lower = [tensor.bfloat16() for tensor in states(1, 2, 50, width=48)]
    assert torch.equal(attention.by_amx(*lower, 0.2), attention.by_torch(*lower, 0.2))


@pytest.mark.parametrize("way", ["torch", "blocks", "float32"])
def test_scores_are_scaled_by_the_root_of_the_width_by_default(way):
    exact = states(1, 2, 30, width=16)
    expected = torch.nn.functional.scaled_dot_product_attention(*exact)
    torch.testing.assert_close(attention.WAYS[way](*exact), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("way", ["vectors", "amx"])
def test_our_own_kernels_scale_by_the_root_of_the_width_by_default(way):
    skip_without_matrix_unit(way)
    lower = [tensor.bfloat16() for tensor in states(1, 2, 40)]
    assert torch.equal(attention.WAYS[way](*lower), attention.WAYS[way](*lower, 0.125))


def test_only_bfloat16_without_a_mask_on_a_cpu_uses_the_chosen_way(monkeypatch):
    calls = []
    monkeypatch.setitem(attention.WAYS, "blocks", lambda q, k, v, s: calls.append(q.dtype) or torch.zeros_like(q))
    module = torch.nn.Module().eval()
    module.is_causal, module.attention_way = False, "blocks"
    for dtype in (torch.float32, torch.bfloat16):
        tensors = [torch.randn(1, 2, 8, 4).to(dtype) for _ in range(3)]
        out, _ = attention.attend(module, *tensors, None, scaling=0.5)
        assert out.shape == (1, 8, 2, 4)
        masked, _ = attention.attend(module, *tensors, torch.zeros(1, 1, 8, 8, dtype=dtype), scaling=0.5)
        assert masked.shape == (1, 8, 2, 4)
    assert calls == [torch.bfloat16]
    learning = [torch.randn(1, 2, 8, 4, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    attention.attend(module, *learning, None, scaling=0.5)[0].sum().backward()
    assert learning[0].grad is not None and len(calls) == 1


def test_a_model_in_bfloat16_uses_the_chosen_way(checkpoints, monkeypatch):
    from tonelake.embed.encoders.hubert import HubertEncoder

    monkeypatch.setenv("TONELAKE_KERNELS", "attention=blocks,tile=128,clips=together,linear=torch,positions=torch")
    used = []
    monkeypatch.setitem(attention.WAYS, "blocks", lambda *args: used.append(1) or attention.by_blocks(*args))
    windows = np.random.default_rng(0).standard_normal((1, 24_000)).astype(np.float32)
    encoder = HubertEncoder(checkpoints / "95M-tiny")
    encoder.encode(windows)
    assert not used
    encoder.at("bfloat16").encode(windows)
    assert len(used) == 3                # once per transformer block
