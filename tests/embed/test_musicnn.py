"""musicnn: its networks against plain convolutions, its front end against librosa, patches, pooling, tags and precisions."""

from __future__ import annotations

import numpy as np
import pytest
from musicnn_files import write_random_weights

from bench.plain_musicnn import plain_network
from tonelake.embed import load_librosa
from tonelake.embed.encoders.musicnn.encoder import JOINED, WIDTHS, MusicnnEncoder
from tonelake.embed.encoders.musicnn.mel import log_mel
from tonelake.embed.encoders.musicnn.network import PATCH, SPANS, Network
from tonelake.embed.encoders.musicnn.patches import place_patches
from tonelake.embed.encoders.musicnn.tags import MSD, MTT, merge_scores, tag_names
from tonelake.embed.encoders.musicnn.weights import WheelWeights, read_networks, weights_folder
from tonelake.embed.errors import EncoderError
from tonelake.embed.precision import compare
from tonelake.embed.sample import sample_music
from tonelake.embed.windows import encode_clips
from tonelake.store import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_weights(tmp_path_factory.mktemp("musicnn"))


@pytest.fixture(scope="module")
def encoder(folder):
    return MusicnnEncoder(folder)


@pytest.fixture(scope="module")
def published():
    """The published weights, where this machine has them."""
    if not WheelWeights().present():
        pytest.skip("needs the weights of musicnn: run `tonelake weights musicnn`")
    return WheelWeights().folder(download=False)


def music(seconds: float) -> np.ndarray:
    return sample_music(16_000, 8.0)[: round(seconds * 16_000)]


def relative(found, expected) -> float:
    return float(np.linalg.norm(np.asarray(found) - np.asarray(expected)) / np.linalg.norm(expected))


def assert_equals_plain(tensors: dict[str, np.ndarray], mel) -> None:
    network = Network(tensors)
    found, (states, penultimate, tags) = network(mel), plain_network(tensors, mel)
    for ours, plain in (
        (network.full(found.live), states), (found.max, states.amax(dim=1)), (found.mean, states.mean(dim=1)),
        (found.penultimate, penultimate), (network.tags(found.penultimate), tags),
    ):
        assert ours.shape == plain.shape and relative(ours, plain) < 5e-6


def test_networks_equal_plain_convolutions(folder):
    """Random weights, some batch norms falling and some filters dead, on music and on noise with silence."""
    import torch

    rng = np.random.default_rng(0)
    noise = rng.uniform(0, 6, (1, PATCH, 96)).astype(np.float32)
    noise[:, 60:100] = 0
    mel = torch.cat([log_mel(torch.from_numpy(music(3)[None]), PATCH), torch.from_numpy(noise)])
    for tensors in read_networks(folder).values():
        network = Network(tensors)
        assert len(network.live) == 753 - 120 - 190 - 10 - 51        # filters that cannot change are not computed
        assert_equals_plain(tensors, mel)


def test_published_networks_equal_plain_convolutions(published):
    import torch

    mel = log_mel(torch.from_numpy(music(6)[None]), 2 * PATCH).unflatten(1, (2, PATCH))[0]
    live = {}
    for name, tensors in read_networks(published).items():
        assert_equals_plain(tensors, mel)
        live[name] = len(Network(tensors).live)
    assert live == {"mtt": 753 - 240, "msd": 753 - 497}


def test_log_mel_bands_are_those_of_librosa():
    import torch

    librosa = load_librosa()
    for wave in (music(1.5), np.zeros(4_000, np.float32)):
        power = librosa.feature.melspectrogram(y=wave, sr=16_000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect")
        frames = len(wave) // 256
        found = log_mel(torch.from_numpy(wave[None]), frames)[0]
        np.testing.assert_allclose(found, np.log10(10_000 * power + 1).T[:frames], atol=2e-5)


def test_patches_cover_a_window_once():
    for samples in (16_000, 48_000, 56_000, 100_000, 480_000, 500_000):
        patches = place_patches(samples)
        assert all(patch.begin <= patch.first < patch.last <= patch.begin + PATCH for patch in patches)
        assert [patch.last for patch in patches[:-1]] == [patch.first for patch in patches[1:]]
        assert patches[0].first == 0 and samples // 256 - 31 < patches[-1].last <= samples // 256
        assert place_patches(samples, least_rest=1)[-1].last == samples // 256


@pytest.mark.parametrize("seconds", (0.4, 4.0))
def test_pooled_layers_are_those_of_the_frames_that_count(encoder, seconds):
    """Whole windows and a part, each layer, and a window's vectors do not depend on the windows beside it."""
    windows = np.stack([music(seconds), music(8)[-round(seconds * 16_000) :]])
    total = encoder.frames_of(windows.shape[1])
    keep = [(0, None), (total // 4, total - total // 3)]
    pooled = encoder.encode(windows, keep, frames=range(len(encoder.layers)))
    whole = encoder.encode(windows)
    alone = encoder.encode(windows[1:])
    assert pooled.n_frames.tolist() == [total, total - total // 3 - total // 4] and alone.n_frames.tolist() == [total]
    for layer, (name, dim) in enumerate(zip(encoder.layers, encoder.dims, strict=True)):
        for row in range(2):
            states = pooled.frames[layer][row].astype(np.float32)
            assert states.shape == (pooled.n_frames[row], dim), name
            assert relative(pooled.mean[layer][row], states.mean(axis=0)) < 2e-3, name
            assert relative(pooled.max[layer][row], states.max(axis=0)) < 2e-3, name
        assert relative(whole.mean[layer][1], alone.mean[layer][0]) < 1e-5, name
        assert relative(whole.max[layer][1], alone.max[layer][0]) < 1e-5, name
    for layer in (1, len(WIDTHS) + 6, encoder.default_layer):
        states = encoder.states(windows[0], layer)
        assert relative(states[:total], pooled.frames[layer][0].astype(np.float32)) < 2e-3


def test_layers_of_a_window_are_those_of_its_patches(encoder, folder):
    """Six seconds are two patches, each as the plain network sees it; the joined layer has both networks at one length."""
    import torch

    wave = music(6)
    mel = log_mel(torch.from_numpy(wave[None]), 2 * PATCH)[0].unflatten(0, (2, PATCH))
    pooled = encoder.encode(wave[None])
    penultimate = []
    for number, tensors in enumerate(read_networks(folder).values()):
        states, dense, _ = plain_network(tensors, mel)
        begin = number * len(WIDTHS)
        for layer, (first, last) in enumerate(SPANS.values()):
            assert relative(pooled.mean[begin + layer][0], states[..., first:last].mean(dim=(0, 1))) < 1e-5
            assert relative(pooled.max[begin + layer][0], states[..., first:last].amax(dim=(0, 1))) < 1e-5
        assert relative(pooled.mean[begin + 5][0], states.amax(dim=1).mean(dim=0)) < 1e-5
        assert relative(pooled.max[begin + 6][0], states.mean(dim=1).amax(dim=0)) < 1e-5
        penultimate.append(dense / dense.norm(dim=1, keepdim=True))
    joined = torch.cat(penultimate, dim=1) / np.sqrt(2)
    assert encoder.layers[encoder.default_layer] == JOINED and encoder.dims[encoder.default_layer] == 400
    assert relative(pooled.mean[-1][0], joined.mean(dim=0)) < 1e-5


def test_a_short_window_is_repeated(encoder):
    """Silence after a short sound would change its vectors; its repetition does not."""
    wave = music(1)[: 62 * 256]
    short, long = encoder.encode(wave[None]), encoder.encode(np.tile(wave, 4)[None, : PATCH * 256])
    assert short.n_frames.tolist() == [62] and long.n_frames.tolist() == [PATCH]
    for layer, name in enumerate(encoder.layers):
        if name.rpartition(".")[2] not in SPANS:                     # of the whole patch
            assert relative(short.mean[layer], long.mean[layer]) < 0.03, name
    for samples in (1, 300, 600):
        assert np.isfinite(encoder.encode(np.full((1, samples), 0.1, np.float32)).mean[-1]).all()


def test_frames_of_long_clips_follow_each_other(encoder):
    """Windows with overlap: one frame every 16 ms, from the first to the last, each once."""
    (clip,) = encode_clips(encoder, [music(8)], 4.0, 2.0, frames=[2])
    steps = np.diff(clip.frame_s)
    np.testing.assert_allclose(steps, 0.016, atol=1e-5)
    assert clip.n_frames == len(clip.frame_s) == len(clip.frames[0]) and clip.frame_s[0] == 0


def test_lower_precisions_preserve_every_layer(encoder):
    found = compare(encoder, "bfloat16", seconds=3.0, rounds=0)
    assert found.worst_cosine > 0.9995
    lower = encoder.at("bfloat16")
    assert lower.precision == "bfloat16" and lower.at("float32").precision == "float32" and lower.revision == encoder.revision
    with pytest.raises(InputError, match="precision 'int8': unknown"):
        encoder.at("int8")


def test_published_networks_preserve_every_layer_in_bfloat16(published):
    assert compare(MusicnnEncoder(published), "bfloat16", seconds=6.0, rounds=0).worst_cosine > 0.9997


def test_tags_of_both_lists_are_named_once_and_scored_by_the_mean(encoder, folder):
    import torch

    assert len(MTT) == len(set(MTT)) == len(MSD) == len(set(MSD)) == 50
    names = tag_names()
    assert len(names) == len(set(names)) == 92 and encoder.tags == names
    scores = np.stack([np.arange(50.0), np.arange(50.0) + 100]).astype(np.float32)[:, None]
    merged = dict(zip(names, merge_scores(list(scores))[0], strict=True))
    assert (merged["sitar"], merged["happy"], merged["hip-hop"]) == (MTT.index("sitar"), 149, 100 + MSD.index("Hip-Hop"))
    assert merged["guitar"] == (MTT.index("guitar") + 100 + MSD.index("guitar")) / 2
    wave = music(3)
    mel = log_mel(torch.from_numpy(wave[None]), PATCH)
    expected = [plain_network(tensors, mel)[2].numpy() for tensors in read_networks(folder).values()]
    pooled = encoder.encode(wave[None])
    means = [pooled.mean[encoder.layers.index(layer)] for layer in encoder.tag_layers]
    np.testing.assert_allclose(encoder.score_tags(means), merge_scores(expected), atol=1e-5)


def test_tags_of_the_mean_agree_with_the_mean_of_the_patches_tags(published):
    encoder = MusicnnEncoder(published)
    layers = [encoder.layers.index(layer) for layer in encoder.tag_layers]
    pooled = encoder.encode(np.stack([music(6), music(8)[-96_000:]]), frames=layers)
    found = encoder.score_tags([pooled.mean[layer] for layer in layers])
    for row in range(2):
        patches = encoder.score_tags([layer[row].astype(np.float32) for layer in pooled.frames]).mean(axis=0)
        assert np.abs(found[row] - patches).max() < 0.05 and np.corrcoef(found[row], patches)[0, 1] > 0.98


def test_the_encoder_is_found_by_name_and_its_weights_are_the_published_ones(published, monkeypatch, tmp_path):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    weights_folder().symlink_to(published)
    assert WheelWeights().folder(download=False) == weights_folder()
    assert MusicnnEncoder(weights_folder()).revision == "5926814894495c57dc846d56e8c0206d"


def test_weights_that_are_not_published_are_refused(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path))
    assert not WheelWeights().present()
    (tmp_path / "weights").mkdir()
    weights_folder().symlink_to(folder)
    with pytest.raises(EncoderError, match=r"mtt\.safetensors: its weights differ from the published ones\. Run `tonelake w"):
        WheelWeights().folder(download=False)
