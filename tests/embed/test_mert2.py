"""MERT-v2 is read natively: its layers equal the published forward pass, and every defective checkpoint is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from safetensors_folders import STATE_TOLERANCE, WAVES, edit_state, wave

from tonelake.embed import CheckpointError, compare, encode_clips, load_encoder
from tonelake.embed.encoders.adapter import read_adapter
from tonelake.embed.encoders.mert2.encoder import Mert2Encoder
from tonelake.store import InputError

TINY = Path(__file__).parents[1] / "data" / "mert2" / "tiny"


@pytest.fixture(scope="module")
def tiny():
    """A random checkpoint of three blocks in the hub's form.  Do not change it."""
    return load_encoder(str(TINY))


@pytest.fixture
def copy(tmp_path):
    """A checkpoint to damage."""
    return shutil.copytree(TINY, tmp_path / "checkpoint")


@pytest.mark.parametrize("name", WAVES)
def test_every_layer_equals_the_published_forward_pass(tiny, checkpoints, name):
    theirs = np.load(TINY / f"{name}.states.npy")
    samples = wave(checkpoints, name)
    ours = tiny.hidden_states(samples)
    assert isinstance(tiny, Mert2Encoder) and ours.shape == theirs.shape
    for layer, (mine, original) in enumerate(zip(ours, theirs, strict=True)):
        assert np.abs(mine - original).max() <= STATE_TOLERANCE * np.abs(original).max(), f"layer {layer}"
    pooled = tiny.encode(samples[None], keep=[(3, -2)], frames=[1])
    for layer, original in enumerate(theirs):
        limit = STATE_TOLERANCE * np.abs(original).max()
        np.testing.assert_allclose(pooled.mean[layer][0], original[3:-2].mean(axis=0), atol=limit)
        np.testing.assert_allclose(pooled.max[layer][0], original[3:-2].max(axis=0), atol=limit)
    np.testing.assert_array_equal(pooled.frames[0][0], ours[1, 3:-2].astype(np.float16))
    np.testing.assert_allclose(tiny.states(samples, 2), ours[2], atol=1e-6)
    for found, layer in zip(tiny.states_of(samples, (2, 0)), (2, 0), strict=True):
        np.testing.assert_allclose(found, ours[layer], atol=1e-6)


def test_it_declares_its_layers_rate_and_frames(tiny):
    assert (tiny.layers, tiny.dims, tiny.sample_rate, tiny.default_layer) == (("0", "1", "2", "3"), (48,) * 4, 24_000, 3)
    assert (tiny.frame_samples, tiny.frame_offset, tiny.frame_field) == (960, 360, 1_025)
    for samples in (1_025, 1_919, 1_920, 24_000, 24_479, 88_802):
        assert tiny.hidden_states(np.zeros(samples, np.float32)).shape[1] == tiny.frames_of(samples) == samples // 960


def test_frames_of_overlapping_windows_are_evenly_spaced(tiny, checkpoints):
    found, = encode_clips(tiny, [wave(checkpoints, "b_3.7s")], 2.0, 1.0, frames=[1])
    assert found.frames[0].shape == (found.n_frames, 48)
    assert found.frame_s[0] == pytest.approx(360 / 24_000) and found.frame_s[-1] > 3.6
    assert np.diff(found.frame_s).min() > 0.02 and np.diff(found.frame_s).max() < 0.06


def test_a_pause_and_windows_in_a_batch_are_encoded_like_each_alone(tiny, checkpoints):
    samples = wave(checkpoints, "b_3.7s")[:48_000]
    both = tiny.encode(np.stack([samples, np.zeros_like(samples)]))
    for row, window in enumerate((samples, np.zeros_like(samples))):
        alone = tiny.encode(window[None])
        for layer in range(4):
            np.testing.assert_allclose(both.mean[layer][row], alone.mean[layer][0], atol=2e-5)
    assert all(np.isfinite(layer).all() for layer in both.mean)


def test_a_window_too_short_for_the_spectrum_is_an_error(tiny):
    for call in (lambda: tiny.encode(np.zeros((1, 1_024), np.float32)), lambda: tiny.states(np.zeros(1_024, np.float32), 0)):
        with pytest.raises(InputError, match=r"a window of 1024 samples is too short\. Use 1,025 or more"):
            call()


def test_a_lower_precision_keeps_every_layer_and_the_front_end_in_float32(tiny):
    lower = tiny.at("bfloat16")
    assert (compare(tiny, "bfloat16", seconds=2.0, rounds=0, lower=lower).table["cosine"] > 0.999).all()
    weights = dict(lower._model.named_parameters()) | dict(lower._model.named_buffers())
    assert weights["layers.0.ffn1.w_1.weight"].dtype == torch.bfloat16
    assert weights["feature_extractor.mel_scale.fb"].dtype == weights["layers.0.final_layer_norm.weight"].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        mel = lower._model.feature_extractor(torch.zeros(1, 2_400).bfloat16())
    assert mel.dtype == torch.float32


def test_an_adapter_of_its_projections_is_added_to_the_weights(tiny, checkpoints, tmp_path):
    names = [f"layers.{block}.attn.{target}" for block in range(3) for target in tiny.lora_targets]
    generator = torch.Generator().manual_seed(0)
    pairs = {name: (torch.randn(2, 48, generator=generator), torch.randn(48, 2, generator=generator)) for name in names}
    save_file({
        f"base_model.model.{name}.lora_{side}.weight": tensor
        for name, both in pairs.items() for side, tensor in zip("AB", both, strict=True)
    }, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 1}))
    adapted = tiny.adapted(read_adapter(str(tmp_path)), str(tmp_path))
    for name, (first, second) in pairs.items():
        before, after = (encoder.model.get_submodule(name).weight for encoder in (tiny, adapted))
        torch.testing.assert_close(after, before + 0.5 * second @ first)
    samples = wave(checkpoints, "d_1.02s")
    plain, changed = tiny.hidden_states(samples), adapted.hidden_states(samples)
    np.testing.assert_array_equal(plain[0], changed[0])
    assert np.abs(plain[3] - changed[3]).max() > 1e-3
    loaded = load_encoder(str(TINY), adapter=str(tmp_path))
    assert (loaded.adapter, loaded.adapter_location) == (adapted.adapter, str(tmp_path))


@pytest.mark.parametrize(("change", "words"), [
    (lambda state: state.pop("layers.1.attn.key_proj.bias"), r"1 tensors missing: layers\.1\.attn\.key_proj\.bias"),
    (lambda state: state.pop("feature_extractor.mel_mean"), r"1 tensors missing: feature_extractor\.mel_mean"),
    (lambda state: state.update({"layers.3.surprise": torch.zeros(2)}), r"1 tensors unexpected: layers\.3\.surprise"),
    (lambda state: state.update({"feature_extractor.mel_std": torch.zeros(31)}), r"mel_std \(31,\) instead of \(32,\)"),
])
def test_a_checkpoint_with_other_tensors_is_refused(copy, change, words):
    edit_state(copy, change)
    with pytest.raises(CheckpointError, match=words):
        load_encoder(str(copy))


@pytest.mark.parametrize(("changes", "words"), [
    ({"hidden_size": None}, "hidden_size is None. Fetch"),
    ({"num_hidden_layers": 2.5}, "num_hidden_layers is 2.5. Fetch"),
    ({"subsampling_depths": [2, 2]}, r"subsampling_depths is \[2, 2\]. Fetch"),
    ({"subsampling_channels": [32, 40, 50]}, "the last of subsampling_channels is 50, but hidden_size is 48"),
    ({"num_attention_heads": 5}, "hidden_size 48 does not divide into 5 heads"),
    ({"conv_depthwise_kernel_size": 30}, "only odd kernels are implemented"),
    ({"win_length": 4_096}, "win_length 4096 is longer than n_fft 2048"),
    ({"sampling_rate": None}, "has no usable sampling_rate"),
    ({"model_type": "mert3"}, "model_type is 'mert3'. Choose a checkpoint of mert_model"),
    ({"num_hidden_layers": 4}, r"tensors missing: layers\.3\."),
])
def test_a_configuration_that_does_not_fit_is_refused(copy, changes, words):
    path = copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError, match=words):
        load_encoder(str(copy))


def test_other_weights_are_another_revision(copy, tiny):
    assert load_encoder(str(copy)).revision == tiny.revision
    edit_state(copy, lambda state: state["layers.0.final_layer_norm.weight"].add_(1e-3))
    assert load_encoder(str(copy)).revision != tiny.revision
