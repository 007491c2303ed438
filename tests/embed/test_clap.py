"""CLAP agrees with transformers' own model and processor, hears the whole of a sound, and refuses what it cannot read.

Weights are tiny and random: these tests are about correctness, not about how well words find sounds.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from clap_folder import write_clap
from safetensors.torch import load_file, save_file
from sounds import melody
from transformers import ClapModel, ClapProcessor

from tonelake.embed import CheckpointError, EncoderError, encode_clips, load_encoder
from tonelake.embed.encoders.registry import has_words
from tonelake.embed.kernels.threads import single_threads
from tonelake.embed.settings import describe_space
from tonelake.embed.words import word_encoder, word_kind
from tonelake.store import InputError

RATE = 48_000
PROMPTS = ["slow piano", "a fast drum solo", "piano"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clap") / "tiny-clap"
    write_clap(path)
    return path


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(str(folder))


@pytest.fixture(scope="module")
def reference(folder):
    return ClapModel.from_pretrained(folder).eval(), ClapProcessor.from_pretrained(folder)


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def music(seconds: float, seed: int = 0) -> np.ndarray:
    return melody(seconds, seed, RATE)[:, 0]


def published(reference, sound: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Mean of each stage and the vector of one sound of 10 s, by transformers' processor and model."""
    model, processor = reference
    inputs = processor(audio=sound, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        found = model.audio_model(
            **inputs, output_hidden_states=True, output_hidden_states_before_downsampling=True
        )
        joint = model.get_audio_features(**inputs).pooler_output
    stages = [states.mean(dim=(2, 3))[0].numpy() for states in found.hidden_states[1:-1]]
    return [*stages, found.pooler_output[0].numpy()], joint[0].numpy()


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_sounds_have_the_vectors_of_transformers_own_model_and_processor(encoder, reference):
    assert encoder.layers == ("stage1", "stage2", "stage3", "stage4", "joint") and encoder.dims == (8, 16, 32, 64, 12)
    assert encoder.text_layer == "joint" and encoder.sample_rate == RATE
    first, second = music(10), music(10, seed=1)
    pooled = encoder.encode(np.stack([first, second]))
    for row, sound in enumerate((first, second)):
        stages, joint = published(reference, sound)
        for layer, expected in enumerate([*stages, joint]):
            assert difference(pooled.mean[layer][row], expected) <= 2e-5
    assert difference(pooled.mean[4][0], pooled.mean[4][1]) > 1e-2               # the two sounds differ


def test_words_have_the_vectors_of_transformers_own_model_and_tokenizer(encoder, reference):
    model, processor = reference
    found = encoder.encode_text(PROMPTS)
    inputs = processor(text=PROMPTS, return_tensors="pt", padding=True)
    with torch.inference_mode():
        expected = model.get_text_features(**inputs).pooler_output.numpy()
    assert difference(found, expected) <= 2e-5
    assert np.allclose(encoder.encode_text(PROMPTS[:1])[0], found[0], atol=1e-6)         # alone or with longer ones
    assert encoder.text_scale == pytest.approx(float(model.logit_scale_a.detach().exp()))


def test_a_tokenizer_file_gives_the_tokens_of_vocabulary_and_merges(encoder, reference, copied):
    reference[1].tokenizer.save_pretrained(copied)
    assert (copied / "tokenizer.json").is_file()
    (copied / "vocab.json").unlink()
    assert np.allclose(load_encoder(str(copied)).encode_text(PROMPTS), encoder.encode_text(PROMPTS), atol=1e-6)


def test_a_window_is_heard_in_parts_from_its_beginning_to_its_end(encoder):
    sound = music(25)
    parts = [sound[start * RATE // 2 :][: 10 * RATE] for start in (0, 15, 30)]            # 0, 7.5 and 15 s
    each = encoder.encode(np.stack(parts))
    whole = encoder.encode(sound[None])
    for layer in range(5):
        assert np.allclose(whole.mean[layer][0], each.mean[layer].mean(axis=0), atol=1e-5)
        assert np.allclose(whole.max[layer][0], each.max[layer].max(axis=0), atol=1e-5)
    assert encoder.encode(sound[None, : round(10.9 * RATE)]).n_frames[0] == 1_090
    again = encoder.encode(sound[None])
    assert all(np.array_equal(a, b) for a, b in zip(whole.mean, again.mean, strict=True))


def test_a_short_sound_is_repeated_not_padded_with_silence(encoder):
    short = music(3)
    repeated = np.tile(short, 4)[: 10 * RATE]
    assert np.array_equal(encoder.encode(short[None]).mean[4], encoder.encode(repeated[None]).mean[4])


def test_overlapping_windows_weigh_each_part_by_its_share(encoder):
    sound = music(30)
    spans = [(0, 1_500), (0, None)]
    some, whole = (
        encoder.encode(sound[None], None if span == (0, None) else [span]) for span in spans
    )
    each = encoder.encode(np.stack(np.split(sound, 3)))
    assert some.n_frames[0] == 1_500 and whole.n_frames[0] == 3_000
    assert np.allclose(some.mean[4][0], (each.mean[4][0] * 1_000 + each.mean[4][1] * 500) / 1_500, atol=1e-5)
    assert np.allclose(some.max[0][0], each.max[0][:2].max(axis=0), atol=1e-5)
    clips = encode_clips(encoder, [sound[: 12 * RATE], music(4)], 5.0, 2.5)
    assert all(np.isfinite(vector).all() for clip in clips for vector in (*clip.mean, *clip.max))
    assert clips[0].n_frames == 1_200


@pytest.mark.parametrize("precision", ["bfloat16"])
def test_a_lower_precision_is_near_float32_and_leaves_words_alone(encoder, precision):
    lower = encoder.at(precision)
    sound = music(10)[None]
    found, expected = lower.encode(sound).mean[4][0], encoder.encode(sound).mean[4][0]
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.98
    assert np.array_equal(lower.encode_text(PROMPTS), encoder.encode_text(PROMPTS))


@pytest.mark.parametrize("clips", ["together", "apart"])
def test_kernels_change_a_lower_precision_by_rounding_only(encoder, monkeypatch, clips):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    sounds, found = [music(10, seed)[None] for seed in range(3)], []
    for kernels in ("safe", f"clips={clips},linear=packed"):
        monkeypatch.setenv("TONELAKE_KERNELS", kernels)
        lower = encoder.at("bfloat16")
        lower.prepare(480_000)
        with single_threads(lower.clips_in_parallel, "encode") as pool:
            found.append([pooled.mean[4][0] for pooled in pool.map(lower.encode, sounds)])
    torch.set_num_threads(before)
    assert lower.clips_in_parallel == (2 if clips == "apart" else 1) and "pinned" in lower.kernels.reason
    for plain, packed in zip(*found, strict=True):
        assert plain @ packed / np.linalg.norm(plain) / np.linalg.norm(packed) > 0.999


def test_kernels_of_blocks_are_measured(encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path))
    monkeypatch.delenv("TONELAKE_KERNELS")
    lower = encoder.at("bfloat16")
    lower.prepare(480_000)
    assert {"linear"} <= {figure.part for figure in lower.kernels.figures} <= {"linear", "clips"}


def change_weights(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize(("change", "problem"), [
    (lambda state: state.pop("text_projection.linear1.bias"), "1 tensors missing: text_projection.linear1.bias"),
    (lambda state: state.update({"head.weight": torch.zeros(2)}), "1 tensors unexpected: head.weight"),
    (lambda state: state.update({"audio_projection.linear2.bias": torch.zeros(5)}), "1 tensors of another shape"),
])
def test_weights_that_do_not_fit_are_refused_on_either_side(copied, change, problem):
    change_weights(copied, change)
    with pytest.raises(CheckpointError, match=problem):
        load_encoder(str(copied))


def test_a_file_with_or_without_computed_buffers_is_one_encoder(copied, encoder):
    state = load_file(copied / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(("index", "ids", "tracked"))}
    assert len(kept) < len(state)
    (copied / "model.safetensors").unlink()
    torch.save(kept, copied / "pytorch_model.bin")
    other = load_encoder(str(copied))
    assert other.revision == encoder.revision
    sound = music(10)[None]
    assert np.array_equal(other.encode(sound).mean[4], encoder.encode(sound).mean[4])
    assert np.array_equal(other.encode_text(PROMPTS), encoder.encode_text(PROMPTS))


@pytest.mark.parametrize(("file", "content", "problem"), [
    ("config.json", {"model_type": "clap", "audio_config": {"enable_fusion": True}}, "enable_fusion is set"),
    ("config.json", {"model_type": "clap", "audio_config": {"depths": "many"}}, "not usable"),
    ("preprocessor_config.json", {"hop_length": 0}, "hop_length is 0"),
    ("preprocessor_config.json", {"sampling_rate": "fast"}, "sampling_rate is 'fast'"),
    ("preprocessor_config.json", {"feature_size": 32}, "has 32 bands, its model takes 64"),
    ("preprocessor_config.json", {"max_length_s": 20}, "longer than its model takes"),
])
def test_settings_that_are_not_implemented_are_refused(copied, file, content, problem):
    (copied / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=problem):
        load_encoder(str(copied))


@pytest.mark.parametrize(("change", "problem"), [
    (lambda folder: (folder / "merges.txt").unlink(), "has neither tokenizer.json nor"),
    (lambda folder: (folder / "vocab.json").write_text(
        (folder / "vocab.json").read_text().replace('"<unk>": 3', '"<unk>": 900')), "has 901 tokens"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "its tokenizer cannot be read"),
])
def test_a_tokenizer_that_does_not_fit_is_refused_once_words_are_used(copied, change, problem):
    change(copied)
    loaded = load_encoder(str(copied))                               # sounds do without it
    with pytest.raises(CheckpointError, match=problem):
        loaded.encode_text(["piano"])


def test_a_prompt_longer_than_those_of_the_training_is_refused(encoder):
    with pytest.raises(InputError, match="402 tokens, but the encoder was trained on at most 77"):
        encoder.encode_text(["x" * 400])
    assert encoder.encode_text([]).shape == (0, 12)


def test_a_folder_is_known_to_understand_words_before_it_is_loaded(folder, copied, lake):
    assert has_words(str(folder)) and has_words("laion/clap-htsat-unfused") and not has_words("spectral")
    space = describe_space(load_encoder(str(copied)), "copy", 30.0)
    assert word_kind(space) == "words" and np.isfinite(word_encoder(lake, space).encode_text(PROMPTS)).all()
    shutil.rmtree(copied)
    with pytest.raises(EncoderError, match=r"is not there\. Put the folder back"):
        word_encoder(lake, space)
