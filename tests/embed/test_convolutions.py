"""The tiled convolution stack equals the one it replaces."""

from __future__ import annotations

import pytest
import torch
from transformers import HubertConfig, HubertModel

from tonelake.embed.encoders.hubert import normalize
from tonelake.embed.kernels import convolutions


@pytest.fixture(scope="module")
def models():
    """A small model in the shape of MERT's stack, tiled and plain."""
    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(24,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )
    plain = HubertModel(config).eval().requires_grad_(False)
    norm = plain.feature_extractor.conv_layers[0].layer_norm
    norm.weight.uniform_(0.5, 1.5)
    norm.bias.uniform_(-0.5, 0.5)
    tiled = HubertModel(config).eval().requires_grad_(False)
    tiled.load_state_dict(plain.state_dict())
    convolutions.install(tiled)
    assert isinstance(tiled.feature_extractor.forward, convolutions.Tiled)
    return tiled.feature_extractor, plain.feature_extractor


# 400 samples make one frame; 128 frames fill a tile, 129 begin the next one.
@pytest.mark.parametrize("samples", [400, 719, 720, 400 + 320 * 127, 400 + 320 * 128, 399 + 320 * 129, 100_003])
def test_tiles_equal_the_whole(models, samples):
    tiled, plain = models
    torch.manual_seed(samples)
    audio = normalize(torch.randn(2, samples).cumsum(dim=1))
    with torch.inference_mode():
        found, expected = tiled(audio), plain(audio)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max()


@pytest.mark.parametrize("audio", [torch.zeros(1, 5_000), torch.full((1, 5_000), 3.0), torch.eye(1, 5_000)])
def test_windows_without_variance_keep_the_norm_finite(models, audio):
    tiled, plain = models
    audio = normalize(audio)
    with torch.inference_mode():
        found, expected = tiled(audio), plain(audio)
    assert torch.isfinite(found).all()
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_bfloat16_is_as_accurate_as_in_the_plain_stack(models):
    tiled, plain = models
    torch.manual_seed(1)
    audio = normalize(torch.randn(1, 60_000).cumsum(dim=1))
    with torch.inference_mode():
        exact = plain(audio)
        with torch.autocast("cpu", torch.bfloat16):
            found, usual = tiled(audio), plain(audio)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() <= 1.2 * (usual.float() - exact).norm()


def test_a_window_has_the_same_features_alone_and_in_a_batch(models):
    tiled, _ = models
    torch.manual_seed(2)
    audio = torch.randn(5, 30_000)
    with torch.inference_mode():
        together = tiled(audio)
        for row in range(5):
            assert torch.equal(tiled(audio[row : row + 1])[0], together[row])


def test_gradients_flow_through_the_stack(models):
    tiled, _ = models
    audio = torch.randn(1, 5_000, requires_grad=True)
    tiled(audio).sum().backward()
    assert audio.grad is not None and audio.grad.abs().sum() > 0
