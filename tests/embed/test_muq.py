"""MuQ is read natively: its layers equal the published forward pass, and every defective checkpoint is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from safetensors_folders import STATE_TOLERANCE, WAVES, edit_state, wave

from tonelake.embed import CheckpointError, compare, encode_clips, load_encoder
from tonelake.embed.encoders.adapter import read_adapter
from tonelake.embed.encoders.mel import htk_bands
from tonelake.embed.encoders.muq.encoder import MuqEncoder
from tonelake.store import InputError

DATA = Path(__file__).parents[1] / "data"
TINY = DATA / "muq" / "tiny"


@pytest.fixture(scope="module")
def tiny():
    """A random checkpoint of three blocks in the hub's form, made with the published package.  Do not change it."""
    return load_encoder(str(TINY))


@pytest.fixture
def copy(tmp_path):
    """A checkpoint to damage."""
    return shutil.copytree(TINY, tmp_path / "checkpoint")


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("name", WAVES)
def test_every_layer_equals_the_published_forward_pass(tiny, checkpoints, name):
    theirs = np.load(TINY / f"{name}.states.npy")
    samples = wave(checkpoints, name)
    ours = tiny.hidden_states(samples)
    assert isinstance(tiny, MuqEncoder) and ours.shape == theirs.shape
    for layer, (mine, original) in enumerate(zip(ours, theirs, strict=True)):
        assert np.abs(mine - original).max() <= STATE_TOLERANCE * np.abs(original).max(), f"layer {layer}"
    pooled = tiny.encode(samples[None], keep=[(3, -2)], frames=[1])
    for layer, original in enumerate(theirs):
        limit = STATE_TOLERANCE * np.abs(original).max()
        np.testing.assert_allclose(pooled.mean[layer][0], original[3:-2].mean(axis=0), atol=limit)
        np.testing.assert_allclose(pooled.max[layer][0], original[3:-2].max(axis=0), atol=limit)
    np.testing.assert_array_equal(pooled.frames[0][0], ours[1, 3:-2].astype(np.float16))
    for layer in (0, 2, 3):
        np.testing.assert_allclose(tiny.states(samples, layer), ours[layer], atol=1e-6)


def test_it_declares_its_layers_rate_and_frames(tiny):
    assert (tiny.layers, tiny.dims, tiny.sample_rate, tiny.default_layer) == (("0", "1", "2", "3"), (48,) * 4, 24_000, 2)
    assert (tiny.frame_samples, tiny.frame_offset, tiny.frame_field) == (960, 0, 1_025)
    for samples in (1_025, 1_199, 1_200, 1_919, 1_920, 2_160, 24_000, 24_479, 88_802):
        assert tiny.hidden_states(np.zeros(samples, np.float32)).shape[1] == tiny.frames_of(samples)


def test_a_click_changes_as_many_frames_before_its_time_as_after(tiny):
    """The first frame is centred at the start of the window, as `frame_offset` states."""
    silence = np.zeros(24_000, np.float32)
    for frame in (8, 15):
        click = silence.copy()
        click[frame * tiny.frame_samples] = 1.0
        change = np.abs(tiny.states(click, 0) - tiny.states(silence, 0)).sum(axis=1)
        changed = np.flatnonzero(change)
        assert changed.min() + changed.max() == 2 * frame and len(changed) < 9


def test_frames_of_overlapping_windows_follow_each_other(tiny, checkpoints):
    found, = encode_clips(tiny, [wave(checkpoints, "b_3.7s")], 2.0, 1.0, frames=[1])
    assert found.frames[0].shape == (found.n_frames, 48)
    assert found.frame_s[0] == 0 and found.frame_s[-1] > 3.6
    gaps = np.diff(found.frame_s)        # the last window's frames lie between those of the window before
    assert gaps.min() > 0.001 and gaps.max() < 0.08 and (np.abs(gaps - 0.04) > 1e-4).sum() <= 1


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
    for name in ("conv.conv.0.conv2", "conv.linear", "conformer.layers.0.ffn1.output_dense"):
        assert weights[f"{name}.weight"].dtype == torch.bfloat16
    for name in ("feature_extractor.mel_scale.fb", "conformer.layers.0.final_layer_norm.weight"):
        assert weights[name].dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert lower._model.feature_extractor(torch.zeros(1, 2_400).bfloat16()).dtype == torch.float32


def test_our_mel_bands_are_those_that_other_checkpoints_store():
    stored = load_file(DATA / "mert2" / "tiny" / "model.safetensors")["feature_extractor.mel_scale.fb"]
    torch.testing.assert_close(htk_bands(32, 2_048, 24_000), stored, atol=1e-5, rtol=0)


def test_an_adapter_of_its_projections_is_added_to_the_weights(tiny, checkpoints, tmp_path):
    names = [f"conformer.layers.{block}.self_attn.{target}" for block in range(3) for target in tiny.lora_targets]
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


@pytest.mark.parametrize("names", [
    lambda name: name.removeprefix("model."),
    lambda name: name.replace("quantizer_melspec_2048.", "quantizer_melspec_2048_0."),
], ids=["no prefix", "MusicFM"])
def test_files_of_musicfm_and_files_without_a_prefix_give_equal_layers(copy, tiny, checkpoints, names):
    """MusicFM numbers its quantizers, and stores constants of the front end; its file is a dictionary with `state_dict`."""
    state = {names(name): tensor for name, tensor in load_file(copy / "model.safetensors").items()}
    prefix = "model." if any(name.startswith("model.") for name in state) else ""
    state[f"{prefix}preprocessor_melspec_2048.mel_stft.spectrogram.window"] = torch.hann_window(2_048)
    (copy / "model.safetensors").unlink()
    torch.save({"state_dict": state}, copy / "pytorch_model.bin")
    samples = wave(checkpoints, "d_1.02s")
    np.testing.assert_array_equal(load_encoder(str(copy)).hidden_states(samples), tiny.hidden_states(samples))


def test_parts_of_pre_training_may_be_absent(copy, tiny, checkpoints):
    edit_state(copy, lambda state: [
        state.pop(name) for name in list(state) if "quantizer" in name or "pos_conv" in name or "num_batches" in name
    ])
    samples = wave(checkpoints, "d_1.02s")
    np.testing.assert_array_equal(load_encoder(str(copy)).hidden_states(samples), tiny.hidden_states(samples))


@pytest.mark.parametrize(("change", "words"), [
    (lambda state: state.pop("model.conformer.layers.1.self_attn.linear_k.bias"), r"missing: conformer\.layers\.1\.self_attn"),
    (lambda state: state.pop("model.conv.conv.1.bn3.running_var"), r"1 tensors missing: conv\.conv\.1\.bn3\.running_var"),
    (lambda state: state.update({"model.conformer.layers.3.surprise": torch.zeros(2)}), r"unexpected: conformer\.layers\.3"),
    (lambda state: state.update({"feature_extractor.surprise": torch.zeros(2)}), r"unexpected: feature_extractor\.surprise"),
    (lambda state: state.update({"model.conv.linear.bias": torch.zeros(47)}), r"conv\.linear\.bias \(47,\) instead of \(48,\)"),
])
def test_a_checkpoint_with_other_tensors_is_refused(copy, change, words):
    edit_state(copy, change)
    with pytest.raises(CheckpointError, match=words):
        load_encoder(str(copy))


@pytest.mark.parametrize(("change", "words"), [
    (lambda config: config.update(encoder_dim=None), "encoder_dim is None. Fetch"),
    (lambda config: config.update(encoder_depth=2.5), "encoder_depth is 2.5. Fetch"),
    (lambda config: config.update(encoder_depth=4), r"tensors missing: conformer\.layers\.3\."),
    (lambda config: config.update(n_mels=126), "n_mels 126 is not a multiple of 4"),
    (lambda config: config.update(stat={}), "stat has no usable melspec_2048_mean"),
    (lambda config: config["stat"].update(melspec_2048_std=0.0), "melspec_2048_std is 0.0, not positive"),
    (lambda config: config.update(w2v2_config=None), "w2v2_config is not a dictionary"),
    (lambda config: config["w2v2_config"].update(num_attention_heads=5), "encoder_dim 48 does not divide into 5 heads"),
    (lambda config: config["w2v2_config"].update(conv_depthwise_kernel_size=30), "only odd kernels are implemented"),
    (lambda config: config["w2v2_config"].update(hidden_act="gelu"), "hidden_act is 'gelu', and only swish is implemented"),
    (lambda config: config["w2v2_config"].update(position_embeddings_type="relative"), "'relative', and only rotary is"),
    (lambda config: config["w2v2_config"].update(layer_norm_eps="1"), "layer_norm_eps is '1'"),
    (lambda config: config.pop("conv_dim"), r"model_type is None\. Choose a checkpoint of mert_model"),
    (lambda config: config.update(model_type="muq2"), r"model_type is 'muq2'\. Choose a checkpoint of mert_model"),
    (lambda config: (config.clear(), config.update(mulan={}, audio_model={}, text_model={})), r"model_type is None\. Choose"),
])
def test_a_configuration_that_does_not_fit_is_refused(copy, change, words):
    edit_config(copy, change)
    with pytest.raises(CheckpointError, match=words):
        load_encoder(str(copy))


def test_depth_and_width_beside_the_blocks_settings_are_overruled(copy, tiny):
    """The published configuration describes a deeper model; `encoder_depth` and `encoder_dim` decide the size."""
    edit_config(copy, lambda config: config["w2v2_config"].update(num_hidden_layers=24, hidden_size=1_024))
    assert load_encoder(str(copy)).layers == tiny.layers


def test_other_weights_are_another_revision(copy, tiny):
    assert load_encoder(str(copy)).revision == tiny.revision
    edit_state(copy, lambda state: state["model.conformer.layers.0.final_layer_norm.weight"].add_(1e-3))
    assert load_encoder(str(copy)).revision != tiny.revision
