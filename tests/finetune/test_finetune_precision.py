"""A fine-tuning in bfloat16 hears what `embed` would store in bfloat16, and never through a wrong kernel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tonelake.embed import EncoderError, encode_clips, load_encoder
from tonelake.embed.precision import cosine, sample_music
from tonelake.finetune import FinetuneConfig
from tonelake.finetune.model import LoraModel

WINDOW_S = 2.0


def heard(encoder, wave, precision):
    """(layer, dim) means of one clip as a fine-tuning pools them, before any training."""
    config = replace(FinetuneConfig("kind", task="multiclass", window_s=WINDOW_S, crop_s=6.0), precision=precision, rank=2)
    model = LoraModel(encoder, config, 2).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        pooled = model.pooled([torch.from_numpy(wave)])
    return pooled[0, :, : encoder.dims[0]].numpy()


@pytest.mark.parametrize("name", ["95M-tiny", "small"])
def test_a_finetuning_hears_what_embed_would_store(checkpoints, name):
    location = name if name == "small" else str(checkpoints / name)
    wave = sample_music(24_000, 4.0)
    stored = encode_clips(load_encoder(location, precision="bfloat16"), [wave], WINDOW_S)[0]
    encoder = load_encoder(location)
    encoder.prepare_training(round(WINDOW_S * 24_000), "bfloat16", "cpu")
    for layer, mean in enumerate(heard(encoder, wave, "bfloat16")):
        assert cosine(mean, stored.mean[layer]) >= 0.9999


def test_a_wrong_kernel_is_kept_out_of_training(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path))
    encoder = load_encoder(str(checkpoints / "95M-tiny"))
    wave = sample_music(24_000, 2.0)
    expected = encode_clips(encoder, [wave], WINDOW_S)[0]
    conv = encoder.model.encoder.pos_conv_embed.conv
    plain = conv.forward
    conv.forward = lambda x: plain(x) * (2 if torch.is_autocast_enabled("cpu") else 1)
    encoder.prepare_training(round(WINDOW_S * 24_000), "bfloat16", "cpu")
    for layer, mean in enumerate(heard(encoder, wave, "bfloat16")):
        assert cosine(mean, expected.mean[layer]) >= 0.999


def test_a_precision_that_stays_wrong_is_refused_before_training(checkpoints, tmp_path, monkeypatch):
    from tonelake.embed.encoders import torch_encoder

    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path))
    monkeypatch.setattr(torch_encoder, "inexact_modules", lambda *_: {})
    encoder = load_encoder(str(checkpoints / "95M-tiny"))
    block = encoder.model.encoder.layers[1].feed_forward.output_dense
    plain = block.forward
    block.forward = lambda x: plain(x) * (-3 if torch.is_autocast_enabled("cpu") else 1)
    with pytest.raises(EncoderError, match="in bfloat16: layer 2 has a cosine of only"):
        encoder.prepare_training(48_000, "bfloat16", "cpu")


def test_training_in_float32_changes_nothing(checkpoints):
    wave = sample_music(24_000, 2.0)
    encoder = load_encoder(str(checkpoints / "95M-tiny"))
    expected = encode_clips(encoder, [wave], WINDOW_S)[0]
    encoder.prepare_training(48_000, "float32", "cpu")
    np.testing.assert_allclose(heard(encoder, wave, "float32"), expected.mean, atol=1e-5)
