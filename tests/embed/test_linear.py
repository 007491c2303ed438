"""Every way of a linear layer equals the formula, and is used only where it applies."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tonelake.embed.encoders.conformer import Pointwise
from tonelake.embed.kernels import amx_linear, attention, choice, linear
from tonelake.embed.kernels.choice import Sizes, choose_block_kernels
from tonelake.embed.kernels.linear import Packed, activate, activated

WAYS = ("torch", "packed", "amx")
ERROR = 0.004                            # bfloat16 rounds results to 2 ** -9; torch rounds before the activation as well


def skip_without_matrix_unit(way):
    if way == "amx" and not attention.has_matrix_unit():
        pytest.skip("this processor has no AMX")


def layer(before, after, bias=True):
    torch.manual_seed(before)
    return (torch.randn(after, before) / before**0.5).bfloat16(), torch.randn(after).bfloat16() if bias else None


# 256 frames are packed at a time, 1,024 inputs are summed at a time, and a block is 32 frames by 32 inputs by 32 outputs.
@pytest.mark.parametrize(("frames", "before", "after"), [(1, 32, 32), (70, 64, 96), (300, 1_056, 64), (257, 2_080, 128)])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_equals_the_formula(way, frames, before, after, two_threads):
    skip_without_matrix_unit(way)
    for bias in (True, False):
        weight, shift = layer(before, after, bias)
        compute = linear.WAYS[way](weight, shift)
        states = torch.randn(2, frames, before)
        product = states.bfloat16().double() @ weight.double().T + (0 if shift is None else shift.double())
        for activation in ("none", "gelu", "silu"):
            expected = activate(product, activation)
            for given in (states.bfloat16(), states):
                if way == "torch" and given.dtype == torch.float32:
                    continue                             # autocast casts it
                found = compute(given, activation)
                assert found.dtype == torch.bfloat16 and found.shape == expected.shape
                assert float((found.double() - expected).norm() / expected.norm()) <= ERROR


@pytest.mark.parametrize(("after", "before"), [(32, 32), (96, 64), (64, 1_056)])
def test_packed_weights_can_be_had_back(after, before):
    weight, _ = layer(before, after)
    assert torch.equal(linear.by_packed(weight, None).dense(), weight)
    assert torch.equal(amx_linear.unpack_weight(amx_linear.pack_weight(weight)), weight)


def test_activations_in_the_matrix_units_kernel_are_exact_to_rounding_over_their_range():
    skip_without_matrix_unit("amx")
    values = torch.linspace(-30, 30, 4_096).bfloat16()
    states = torch.zeros(4_096, 32, dtype=torch.bfloat16)
    states[:, 0] = values
    weight = torch.zeros(32, 32, dtype=torch.bfloat16)
    weight[5, 0] = 1
    compute = linear.by_amx(weight, None)
    for activation in ("gelu", "silu"):
        expected = activate(values.double(), activation)
        error = (compute(states, activation)[:, 5].double() - expected).abs()
        assert (error <= expected.abs() * 2**-8 + 1e-6).all(), activation


def test_states_that_lie_anywhere_in_memory_are_multiplied_right():
    skip_without_matrix_unit("amx")
    weight, shift = layer(64, 32)
    compute = linear.by_amx(weight, shift)
    states = torch.randn(50, 3, 64).bfloat16()
    for view in (states.transpose(0, 1), states[:, 1], states.flatten()[8 : 8 + 640].view(10, 64), states[:0]):
        expected = view.float() @ weight.float().T + shift.float()
        torch.testing.assert_close(compute(view, "none").float(), expected, atol=0.02, rtol=0.01)


@pytest.mark.parametrize("way", WAYS)
def test_a_model_keeps_its_results_whatever_way_its_layers_compute(way):
    skip_without_matrix_unit(way)
    torch.manual_seed(0)
    inner = nn.ModuleList([nn.Linear(64, 96), Pointwise(96, 64), nn.Linear(64, 10)])
    model = nn.ModuleDict({"inner": inner, "other": nn.Linear(64, 64)})
    model.requires_grad_(False)
    states = torch.randn(1, 40, 64)
    first, second, third = model["inner"]

    def run():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return third(second(activated(first, states, "gelu"))).float()

    expected = run()
    for module in (first, second, third):
        module.to(torch.bfloat16)
    linear.use(model, way, ("inner.",), (Pointwise,))
    torch.testing.assert_close(run(), expected, atol=0.02, rtol=0.02)
    replaced = [isinstance(module.forward, Packed) for module in (first, second, third, model["other"])]
    assert replaced == ([False] * 4 if way == "torch" else [True, True, way == "packed", False]), "amx takes multiples of 32"
    assert first.weight.shape == (96, 64) and first.weight.is_meta == replaced[0], "weights are kept once"


def wrong(weight, bias):
    return lambda states, activation: linear.by_torch(weight, bias)(states, activation) * 1.1


def failing(weight, bias):
    raise RuntimeError("not on this processor")


@pytest.mark.parametrize("other", [wrong, failing])
def test_a_wrong_way_is_never_chosen(other, tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path))
    monkeypatch.setenv("TONELAKE_KERNELS", "clips=together")
    monkeypatch.setattr(choice, "MAX_SPREAD", float("inf"))
    monkeypatch.setattr(linear, "WAYS", linear.WAYS | {"packed": other, "amx": other})
    sizes = Sizes(heads=1, width=32, hidden=32, inner=64, channels=0, windows=1, frames=50, precision="bfloat16")
    found = choose_block_kernels(None, sizes, lambda model, kernels: None)
    assert found.kernels.linear == "torch" and [figure.way for figure in found.figures] == ["torch"]
