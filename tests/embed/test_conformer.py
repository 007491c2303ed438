"""The parts of conformer encoders compute what torch's own modules compute, in every way of attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tonelake.embed import compare, load_encoder
from tonelake.embed.encoders.conformer import Attending, Depthwise, Pointwise
from tonelake.embed.encoders.mert2.network import ResponseNorm
from tonelake.embed.kernels.linear import Packed
from tonelake.embed.kernels.threads import single_threads
from tonelake.embed.sample import sample_music

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("ours", "theirs"), [
    (lambda: Depthwise(24, 31), lambda: nn.Conv1d(24, 24, 31, padding=15, groups=24)),
    (lambda: Depthwise(24, 7, bias=False), lambda: nn.Conv1d(24, 24, 7, padding=3, groups=24, bias=False)),
    (lambda: Pointwise(24, 40), lambda: nn.Conv1d(24, 40, 1, bias=False)),
], ids=["depthwise", "depthwise without bias", "pointwise"])
def test_convolutions_equal_those_with_channels_first(ours, theirs, batch):
    torch.manual_seed(0)
    mine, reference = ours(), theirs()
    mine.load_state_dict(reference.state_dict(), strict=True)
    states = torch.randn(batch, 50, 24)
    torch.testing.assert_close(mine(states), reference(states.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=1e-5)


def test_the_response_norm_follows_its_formula_and_has_gradients_in_silence():
    torch.manual_seed(0)
    norm = ResponseNorm(6)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    states = torch.randn(2, 40, 6)
    length = torch.linalg.vector_norm(states, dim=1, keepdim=True)
    expected = norm.weight * (states * length / (length.mean(dim=-1, keepdim=True) + 1e-6)) + norm.bias + states
    torch.testing.assert_close(norm(states), expected)
    with torch.autocast("cpu", torch.bfloat16):
        lower = norm(states.bfloat16())
    assert lower.dtype == torch.bfloat16
    torch.testing.assert_close(lower.float(), expected, atol=0.05, rtol=0.02)
    silence = torch.zeros(1, 8, 6, requires_grad=True)
    norm(silence).sum().backward()
    assert torch.isfinite(silence.grad).all()


@pytest.mark.parametrize("folder", ["mert2", "muq"])
def test_pinned_kernels_are_used_in_bfloat16_on_a_cpu_only(folder, monkeypatch):
    monkeypatch.setenv("TONELAKE_KERNELS", "attention=blocks,clips=together,linear=packed")
    exact = load_encoder(str(DATA / folder / "tiny"))
    lower = exact.at("bfloat16")
    assert (compare(exact, "bfloat16", seconds=1.5, rounds=0, lower=lower).table["cosine"] > 0.999).all()
    found = [{m.attention_way for m in encoder._model.modules() if isinstance(m, Attending)} for encoder in (exact, lower)]
    assert found == [{"torch"}, {"blocks"}] and exact.kernels is None and "pinned" in lower.kernels.reason
    packed = {name for name, module in lower._model.named_modules() if isinstance(module.forward, Packed)}
    assert sum(name.endswith(("out_proj", "linear_out")) for name in packed) == 3, "in each block"
    assert not any(name.startswith("feature_extractor") for name in packed)
    assert not any(isinstance(module.forward, Packed) for module in exact._model.modules())


@pytest.mark.parametrize("folder", ["mert2", "muq"])
def test_clips_that_go_apart_have_the_vectors_of_clips_that_go_together(folder, monkeypatch):
    exact = load_encoder(str(DATA / folder / "tiny"))
    windows = [sample_music(24_000, 2.0)[None] * gain for gain in (1.0, 0.1, 0.01, 0.5)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    found = []
    for clips in ("together", "apart"):
        monkeypatch.setenv("TONELAKE_KERNELS", f"attention=torch,clips={clips},linear=torch")
        lower = exact.at("bfloat16")
        lower.prepare(windows[0].shape[1])
        with single_threads(lower.clips_in_parallel, "encode") as pool:
            found.append([pooled.mean[-1][0] for pooled in pool.map(lower.encode, windows)])
        assert lower.clips_in_parallel == (2 if clips == "apart" else 1)
    torch.set_num_threads(before)
    for together, apart in zip(*found, strict=True):
        np.testing.assert_allclose(apart, together, atol=0.02 * np.abs(together).max())
