"""The native loader reproduces the original code's hidden states, and refuses every kind of defective checkpoint."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile as sf
import torch

from tonelake.embed import CheckpointError, EncoderError, load_encoder
from tonelake.embed.encoders.hubert import HubertEncoder
from tonelake.embed.encoders.hubert_live import HubertLivePass
from tonelake.store import InputError

VARIANTS = ("95M-tiny", "330M-tiny")
WAVES = ("b_3.7s", "d_1.02s")


@pytest.fixture
def copy(checkpoints, tmp_path):
    """A 95M checkpoint to damage."""
    return shutil.copytree(checkpoints / "95M-tiny", tmp_path / "checkpoint")


def edit_state(folder, change):
    path = folder / "pytorch_model.bin"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("wave", WAVES)
def test_every_layer_equals_the_original_code(checkpoints, variant, wave):
    samples, rate = sf.read(checkpoints / f"{wave}.wav", dtype="float32")
    theirs = np.load(checkpoints / variant / f"{wave}.hidden_states.npy")
    encoder = HubertEncoder(checkpoints / variant)
    ours = encoder.hidden_states(samples)
    assert rate == encoder.sample_rate
    assert ours.shape == theirs.shape
    for layer, (mine, original) in enumerate(zip(ours, theirs, strict=True)):
        # 2e-5: the gate of the fixtures, fifty times the rounding of SDPA against eager attention.
        assert np.abs(mine - original).max() <= 2e-5 * np.abs(original).max(), f"layer {layer}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_pooled_vectors_are_the_mean_and_max_of_the_states(checkpoints, variant):
    samples, _ = sf.read(checkpoints / "b_3.7s.wav", dtype="float32")
    theirs = np.load(checkpoints / variant / "b_3.7s.hidden_states.npy")
    pooled = HubertEncoder(checkpoints / variant).encode(samples[None])
    assert pooled.n_frames == theirs.shape[1]
    for layer in range(len(theirs)):
        np.testing.assert_allclose(pooled.mean[layer][0], theirs[layer].mean(axis=0), atol=2e-5 * np.abs(theirs[layer]).max())
        np.testing.assert_allclose(pooled.max[layer][0], theirs[layer].max(axis=0), atol=2e-5 * np.abs(theirs[layer]).max())


def test_a_window_has_the_same_vectors_in_any_batch(checkpoints):
    encoder = HubertEncoder(checkpoints / "95M-tiny")
    windows = np.random.default_rng(0).standard_normal((3, 24_000)).astype(np.float32)
    together = encoder.encode(windows)
    for row in range(3):
        alone = encoder.encode(windows[row : row + 1])
        for layer in range(len(encoder.layers)):
            np.testing.assert_allclose(together.mean[layer][row], alone.mean[layer][0], atol=1e-5)


def test_a_quieter_copy_has_the_same_vectors(checkpoints):
    encoder = HubertEncoder(checkpoints / "95M-tiny")
    loud = np.random.default_rng(0).standard_normal((1, 24_000)).astype(np.float32)
    np.testing.assert_allclose(encoder.encode(loud).mean[-1], encoder.encode(loud * 0.1).mean[-1], atol=1e-3)


def test_silence_gives_finite_vectors(checkpoints):
    pooled = HubertEncoder(checkpoints / "330M-tiny").encode(np.zeros((1, 24_000), np.float32))
    assert all(np.isfinite(v).all() for v in (*pooled.mean, *pooled.max))


def test_bfloat16_stays_near_float32(checkpoints):
    windows = np.random.default_rng(0).standard_normal((1, 48_000)).astype(np.float32)
    exact = HubertEncoder(checkpoints / "95M-tiny").encode(windows)
    coarse = HubertEncoder(checkpoints / "95M-tiny").at("bfloat16").encode(windows)
    for a, b in zip(exact.mean, coarse.mean, strict=True):
        cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
        assert cosine > 0.999
        assert not np.array_equal(a, b)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_single_layer_equals_that_layer_of_a_full_pass(checkpoints, variant, precision):
    encoder = HubertEncoder(checkpoints / variant).at(precision)
    window = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    together = encoder.hidden_states(window)
    for layer, states in enumerate(together):
        np.testing.assert_array_equal(encoder.states(window, layer), states)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_loaded_model_has_no_trainable_parameter(checkpoints, precision):
    encoder = HubertEncoder(checkpoints / "330M-tiny").at(precision)
    assert not encoder.model.training
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())


@pytest.mark.parametrize(("passes", "layers"), [(1, 2), (3, 6)])
def test_a_model_that_skips_or_repeats_blocks_is_refused(checkpoints, passes, layers):
    from transformers.modeling_outputs import BaseModelOutput

    encoder = HubertEncoder(checkpoints / "95M-tiny")
    first = encoder.model.encoder.layers[0]
    encoder.model.encoder.forward = lambda hidden, **_: BaseModelOutput([first(hidden) for _ in range(passes)][-1])
    with pytest.raises(EncoderError, match=f"returned {layers} layers instead of 4. Install a supported"):
        encoder.encode(np.zeros((1, 24_000), np.float32))


def test_frames_are_320_samples_apart_and_see_400(checkpoints):
    encoder = HubertEncoder(checkpoints / "95M-tiny")
    assert (encoder.frame_samples, encoder.frame_field, encoder.frame_offset) == (320, 400, 200)
    assert [encoder.frames_of(samples) for samples in (400, 719, 720, 720_000)] == [1, 1, 2, 2249]


def test_there_is_one_layer_more_than_blocks(checkpoints):
    encoder = HubertEncoder(checkpoints / "95M-tiny")
    assert encoder.layers == ("0", "1", "2", "3")
    assert encoder.dims == (48,) * 4
    assert encoder.sample_rate == 24_000


def test_the_hubs_own_configurations_are_read(checkpoints):
    from tonelake.embed.encoders.checkpoint import read_config

    for name, blocks, width in (("95M", 12, 768), ("330M", 24, 1024)):
        config, _ = read_config(checkpoints / "hub_configs" / name)
        assert (config.num_hidden_layers, config.hidden_size) == (blocks, width)
        assert config.do_stable_layer_norm == (name == "330M")


@pytest.mark.parametrize("key", ["encoder.pos_conv_embed.conv.weight_g", "encoder.layers.1.attention.q_proj.weight"])
def test_a_checkpoint_missing_one_tensor_is_refused(copy, key):
    edit_state(copy, lambda state: state.pop(key))
    with pytest.raises(CheckpointError, match="1 tensors missing"):
        HubertEncoder(copy)


def test_a_checkpoint_with_an_unknown_tensor_is_refused(copy):
    edit_state(copy, lambda state: state.update({"encoder.layers.9.surprise": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"1 tensors unexpected: encoder\.layers\.9\.surprise"):
        HubertEncoder(copy)


def test_a_misshaped_tensor_is_refused_by_name(copy):
    edit_state(copy, lambda state: state.update({"encoder.layer_norm.weight": torch.zeros(47)}))
    with pytest.raises(CheckpointError, match=r"encoder\.layer_norm\.weight \(47,\) instead of \(48,\)"):
        HubertEncoder(copy)


def test_known_pretraining_heads_are_left_out(copy, checkpoints):
    edit_state(copy, lambda state: state.update({"final_proj.weight": torch.zeros(3, 3), "lm_head.bias": torch.zeros(3)}))
    assert HubertEncoder(copy).revision == HubertEncoder(checkpoints / "95M-tiny").revision


class Evil:
    def __reduce__(self):
        return print, ("pickled code has run",)


def test_pickled_code_is_refused_and_not_run(copy, capsys):
    torch.save({"x": Evil()}, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="refused"):
        HubertEncoder(copy)
    assert "pickled code has run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bert"}, "model_type is 'bert'"),
        ({"feature_extractor_cqt": True}, "feature_extractor_cqt is True"),
        ({"deepnorm": True}, "deepnorm is True"),
        ({"feat_extract_norm": "layer"}, "feat_extract_norm is 'layer'"),
    ],
)
def test_an_architecture_that_is_not_implemented_is_refused(copy, changes, words):
    edit_config(copy, **changes)
    with pytest.raises(CheckpointError, match=words):
        HubertEncoder(copy)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04broken"])
def test_a_damaged_weights_file_is_refused(copy, content):
    (copy / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="refused"):
        HubertEncoder(copy)


def test_a_folder_without_weights_or_config_is_an_error(copy, tmp_path):
    (copy / "pytorch_model.bin").unlink()
    (copy / "mert_fairseq.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        HubertEncoder(copy)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        HubertEncoder(tmp_path)


def test_safetensors_and_bin_are_the_same_encoder(copy, checkpoints):
    from safetensors.torch import save_file

    state = torch.load(copy / "pytorch_model.bin", weights_only=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, copy / "model.safetensors")
    (copy / "pytorch_model.bin").unlink()
    assert HubertEncoder(copy).revision == HubertEncoder(checkpoints / "95M-tiny").revision


def test_weights_in_torchs_old_format_are_read(copy, checkpoints):
    state = torch.load(copy / "pytorch_model.bin", weights_only=True)
    torch.save(state, copy / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert HubertEncoder(copy).revision == HubertEncoder(checkpoints / "95M-tiny").revision


def test_other_weights_are_another_revision(copy, checkpoints):
    edit_state(copy, lambda state: state["encoder.layer_norm.weight"].add_(1e-3))
    assert HubertEncoder(copy).revision != HubertEncoder(checkpoints / "95M-tiny").revision


@pytest.mark.parametrize("kind", ["hubert", "hubert-large", "wav2vec2", "wav2vec2-ctc"])
def test_hubert_and_wav2vec2_folders_are_loaded_too(tmp_path, kind):
    """Reference: transformers' own hidden_states, for a model that it saved itself."""
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2ForCTC, Wav2Vec2Model

    torch.manual_seed(0)
    shape = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "layerdrop": 0.0, "vocab_size": 12,
    }
    if kind == "hubert-large":
        shape |= {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
    config, model_class = {
        "hubert": (HubertConfig, HubertModel), "hubert-large": (HubertConfig, HubertModel),
        "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "wav2vec2-ctc": (Wav2Vec2Config, Wav2Vec2ForCTC),
    }[kind]
    model = model_class(config(**shape)).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "sampling_rate": 16_000}))
    samples = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    with torch.inference_mode():
        theirs = model(torch.from_numpy(samples)[None], output_hidden_states=True)
    encoder = load_encoder(str(tmp_path))
    ours = encoder.hidden_states(samples)
    assert encoder.sample_rate == 16_000
    assert len(ours) == 3
    for layer in range(2):                # transformers' last entry changed meaning between releases; see below
        np.testing.assert_allclose(ours[layer], theirs.hidden_states[layer][0], atol=1e-5)
    if kind != "wav2vec2-ctc":
        np.testing.assert_allclose(ours[2], theirs.last_hidden_state[0], atol=1e-5)
    encoder.prepare(len(samples))
    live = encoder.live_pass((0, 2), 0.0)
    assert isinstance(live, HubertLivePass) == (kind != "hubert-large"), "its norms see one frame each"
    for found, layer in zip(live.states(samples, 0, slice(5, 40)), (0, 2), strict=True):
        np.testing.assert_allclose(found, ours[layer][5:40], atol=1e-5)


def test_missing_weights_are_an_error_with_the_download_command(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    words = r"hf download m-a-p/MERT-v1-95M --revision 12af15f.*\n.*--encoder MERT-v1-95M"
    with pytest.raises(EncoderError, match=words) as info:
        load_encoder("mert-95m", download=False)
    assert "CC-BY-NC-4.0" in str(info.value)


def test_an_unknown_encoder_is_an_error_that_lists_the_known_ones():
    with pytest.raises(InputError, match=r"mert-95m.*spectral"):
        load_encoder("no-such-encoder")
