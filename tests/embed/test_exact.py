"""Modules that a lower precision computes wrongly on this machine stay float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tonelake.embed import EncoderError, load_encoder
from tonelake.embed.encoders.hubert import HubertEncoder
from tonelake.embed.kernels.exact import inexact_modules, keep_float32
from tonelake.embed.precision import checked_at, cosine, sample_music


class WrongInBfloat16:
    """A forward that returns too large a result as soon as autocast asks for bfloat16."""

    def __init__(self, module, factor=1.5):
        self._plain, self._factor = module.forward, factor

    def __call__(self, inputs):
        out = self._plain(inputs)
        return out * self._factor if torch.is_autocast_enabled("cpu") else out


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path))


@pytest.fixture
def broken(checkpoints, own_cache):
    """An encoder, in float32, whose positional convolution and one linear layer are wrong in bfloat16."""
    encoder = HubertEncoder(checkpoints / "95M-tiny")
    for name in ("encoder.pos_conv_embed.conv", "encoder.layers.1.feed_forward.output_dense"):
        module = encoder.model.get_submodule(name)
        module.forward = WrongInBfloat16(module)
    return encoder


def test_wrong_modules_are_found_by_name_and_size(broken):
    audio = torch.from_numpy(sample_music(24_000, 1.0))[None]
    found = inexact_modules(broken.model, audio, torch.bfloat16)
    wrong = {"encoder.pos_conv_embed.conv", "encoder.layers.1.feed_forward.output_dense"}
    assert wrong <= set(found) <= wrong | {"feature_extractor"}
    for name in wrong:
        assert found[name] == pytest.approx(0.5, abs=0.02)


def test_a_result_that_is_not_a_number_counts_as_wrong(checkpoints):
    encoder = HubertEncoder(checkpoints / "95M-tiny")
    module = encoder.model.get_submodule("encoder.layers.0.feed_forward.intermediate_dense")
    module.forward = WrongInBfloat16(module, float("nan"))
    audio = torch.from_numpy(sample_music(24_000, 1.0))[None]
    assert "encoder.layers.0.feed_forward.intermediate_dense" in inexact_modules(encoder.model, audio, torch.bfloat16)


def test_wrong_modules_stay_float32_and_the_layers_come_out_right(broken):
    lower = broken.at("bfloat16")
    assert {"encoder.pos_conv_embed.conv", "encoder.layers.1.feed_forward.output_dense"} <= set(lower.float32_modules)
    assert lower.model.encoder.pos_conv_embed.conv.weight.dtype == torch.float32
    assert lower.model.encoder.layers[0].feed_forward.output_dense.weight.dtype == torch.bfloat16
    audio = sample_music(24_000, 2.0)[None]
    exact, found = broken.encode(audio), lower.encode(audio)
    for layer in range(len(broken.layers)):
        assert cosine(exact.mean[layer][0], found.mean[layer][0]) >= 0.999
        assert cosine(exact.max[layer][0], found.max[layer][0]) >= 0.999


def test_a_lower_precision_is_compared_once(broken, monkeypatch):
    from tonelake.embed import precision
    from tonelake.embed.encoders import torch_encoder

    checked_at(broken, "bfloat16")
    monkeypatch.setattr(precision, "compare", lambda *_, **__: pytest.fail("compared again"))
    monkeypatch.setattr(torch_encoder, "inexact_modules", lambda *_: pytest.fail("measured again"))
    assert checked_at(broken, "bfloat16").precision == "bfloat16"


def test_a_model_that_stays_wrong_is_refused_by_name(broken, monkeypatch):
    from tonelake.embed.encoders import torch_encoder

    monkeypatch.setattr(torch_encoder, "inexact_modules", lambda *_: {})
    with pytest.raises(EncoderError, match=r"95M-tiny in bfloat16: layer \d has a cosine of only .*Use --precision float32"):
        checked_at(broken, "bfloat16")


def test_asking_for_bfloat16_goes_through_the_check(checkpoints, own_cache, monkeypatch):
    from tonelake.embed import precision

    compared = []
    real = precision.compare
    monkeypatch.setattr(precision, "compare", lambda *args, **how: compared.append(1) or real(*args, **how))
    load_encoder(str(checkpoints / "95M-tiny"), precision="bfloat16")
    load_encoder(str(checkpoints / "95M-tiny"), precision="bfloat16")
    assert compared == [1]
    load_encoder(str(checkpoints / "95M-tiny"))
    assert compared == [1]


def test_a_module_kept_in_float32_computes_so_under_autocast():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    inputs = torch.randn(4, 8)
    expected = model(inputs)
    keep_float32(model, ["0", "1"])
    with torch.autocast("cpu", torch.bfloat16):
        found = model(inputs.bfloat16())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(model(inputs).detach(), expected.detach())
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_allclose(model(inputs).detach(), expected.detach())


def test_products_of_probes_are_compared_once(own_cache, monkeypatch):
    from tonelake.embed import products_preserved

    real, wrong = torch.bmm, []
    assert products_preserved("cpu", 48, 16)
    monkeypatch.setattr(torch, "bmm", lambda a, b: wrong.append(1) or real(a, b) * (1 if a.dtype == torch.float64 else 1.1))
    assert products_preserved("cpu", 48, 16) and not wrong
    assert not products_preserved("cpu", 48, 17)
    monkeypatch.setattr(torch, "bmm", lambda a, b: real(a, b) * (1 if a.dtype == torch.float64 else float("nan")))
    assert not products_preserved("cpu", 48, 18)


def test_a_probe_leaves_bfloat16_where_its_products_are_wrong(monkeypatch):
    from types import SimpleNamespace

    from tonelake.probes import experiment
    from tonelake.probes.heads import Shape

    large = SimpleNamespace(
        config=SimpleNamespace(precision="bfloat16", device="cpu"),
        shape=lambda spec: Shape(kind="mlp", width=768, outputs=10),
    )
    compute_dtype = experiment.Experiment.compute_dtype
    asked = []
    monkeypatch.setattr(experiment, "products_preserved", lambda *sizes: asked.append(sizes) or False)
    assert compute_dtype(large, None) == torch.float32
    assert asked == [("cpu", 768, 512)]
    monkeypatch.setattr(experiment, "products_preserved", lambda *sizes: True)
    assert compute_dtype(large, None) == torch.bfloat16
