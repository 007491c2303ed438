"""The recipe of the small MERT: examples, teachers, training, and the checkpoint in the hub's form."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bench.pretrain import examples, filterbank, music, teachers, timbres, training
from bench.pretrain.training import Recipe
from tonelake.embed import load_encoder

TINY = Recipe(
    hidden=32, blocks=1, heads=2, channels=(8, 8, 8, 8, 8, 8, 16), steps=4, batch=2, warmup=2, rate=1e-2, dropout=0.1
)


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(5)
    return [music.compose(rng) for _ in range(3)]


@pytest.fixture
def small_fit(monkeypatch):
    """Fit teachers on two examples, and check two."""
    monkeypatch.setattr(training, "FIT_EXAMPLES", 2)
    for name in teachers.CLUSTERS:
        monkeypatch.setitem(teachers.CLUSTERS, name, 8)
    monkeypatch.setattr(training, "CHECKED", 2)


def test_an_example_is_reproducible_and_no_two_are_equal(corpus):
    first, again, second = (examples.make_example(corpus, 3, number) for number in (7, 7, 8))
    for one, same, other in zip(first, again, second, strict=True):
        np.testing.assert_array_equal(one, same)
        assert np.isfinite(one).all() and one.dtype == np.float32
        assert not np.array_equal(one, other)
    assert [len(signal) / rate for signal, rate in zip(first, (24_000, 24_000, 12_000), strict=True)] == [examples.SECONDS] * 3


@pytest.mark.parametrize("name", [*timbres.LEARNED, *timbres.HELD_OUT])
def test_every_instrument_plays_in_tune_and_below_full_scale(name):
    make = (timbres.LEARNED | timbres.HELD_OUT)[name]
    rate, hz = 24_000, 220.0
    for seed in range(6):
        tone = make(np.random.default_rng(seed))(hz, 1.0, rate)
        assert np.isfinite(tone).all() and np.abs(tone).max() <= 1.6
        assert len(tone) >= rate
    if name in ("additive", "plucked", "filtered", "pipes"):         # with harmonic partials, periodic in the pitch
        middle = tone[6_000:12_000]
        shifts = range(round(0.7 * rate / hz), round(1.4 * rate / hz))
        likeness = [float(np.dot(middle[:-200], tone[6_000 + s : 12_000 - 200 + s])) for s in shifts]
        assert abs(list(shifts)[int(np.argmax(likeness))] - rate / hz) <= 2


def test_evaluation_instruments_do_not_occur_in_training():
    assert not set(timbres.LEARNED) & set(timbres.HELD_OUT)


def test_a_tune_is_held_out_by_its_name_only():
    names = [f"{i} {i % 7} {i % 5}" for i in range(4_000)]
    held = np.array([music.is_held_out(name) for name in names])
    assert held.mean() == pytest.approx(music.HELD_OUT_SHARE, abs=0.03)
    assert [music.is_held_out(name) for name in names] == held.tolist()


def test_generated_music_keeps_to_its_bars_and_scale():
    for seed in range(20):
        piece = music.compose(np.random.default_rng(seed))
        assert piece.notes[:, 0].min() >= 0 and piece.end <= 8 * piece.bar + 1e-6
        assert len(set(piece.notes[:, 2] % 12)) <= 7
        assert sum(piece.beats) == piece.bar


def test_the_constant_q_spectrum_agrees_with_librosas(recwarn):
    import librosa
    import torch

    rate, seconds = teachers.PLAIN_RATE, 5.0
    time = np.arange(int(rate * seconds)) / rate
    chord = sum(np.sin(2 * np.pi * hz * time) * level for hz, level in ((220, 1.0), (277.2, 0.5), (659.3, 0.3), (1760, 0.2)))
    ours = teachers.constant_q(torch.from_numpy(chord.astype(np.float32))[None])[0]          # (frame, bin)
    assert ours.shape == (374, 168)
    magnitude = (np.expm1(ours.numpy()) * teachers.FLOOR)[150:220].mean(axis=0)
    theirs = np.abs(librosa.cqt(
        chord, sr=rate, hop_length=128, fmin=teachers.LOWEST_HZ, n_bins=168, bins_per_octave=24, norm=1, scale=False
    ))[:, 200:300].mean(axis=1)
    recwarn.clear()
    wide = slice(24 * 2, None)                               # below 130 Hz our windows are shorter than constant Q requires
    assert np.corrcoef(magnitude[wide], theirs[wide])[0, 1] > 0.95           # librosa's windows are a little longer
    assert abs(int(magnitude.argmax()) - int(theirs.argmax())) <= 0
    peaks = {int(i) for i in np.argsort(magnitude)[-4:]}
    assert peaks & {round(24 * np.log2(hz / teachers.LOWEST_HZ)) for hz in (220, 277.2)}
    assert magnitude.max() == pytest.approx(1.0, rel=0.1)


def test_a_sound_at_half_its_rate_has_the_same_constant_q_spectrum():
    import torch

    sound = sine(220, 1_046, 3_520) / 3
    plain = torch.from_numpy(sound[::2].copy())[None]                # no content above 6 kHz: no filter is needed
    halved = teachers.halved(torch.from_numpy(sound)[None])
    assert halved.shape == plain.shape
    one, other = (teachers.constant_q(signal)[0, 40:100] for signal in (plain, halved))
    assert float((one - other).abs().max()) < 0.05


def test_the_teachers_have_the_models_number_of_frames():
    import torch
    from transformers import HubertConfig, HubertModel

    recipe = training.config_json(TINY)
    model = HubertModel(HubertConfig(**{k: v for k, v in recipe.items() if k not in ("model_type", "architectures")}))
    for samples in (24_000, 88_800, 120_000):
        sound = torch.zeros(1, samples)
        expected = int(model._get_feat_extract_output_lengths(samples))
        assert teachers.log_mel(sound).shape[1] == teachers.chroma_of(sound).shape[1] == expected
        assert teachers.constant_q(sound[:, : samples // 2]).shape[1] == expected


def test_a_click_appears_in_the_frame_that_contains_it():
    import torch

    sound = torch.zeros(1, 48_000)
    sound[0, 320 * 40 + 200] = 1.0
    assert int(teachers.log_mel(sound)[0].mean(dim=1).argmax()) == 40


def test_spans_hide_the_stated_share():
    hidden = training.spans((200, 374), Recipe(), np.random.default_rng(0))
    assert hidden.mean() == pytest.approx(1 - (1 - Recipe.mask_share) ** Recipe.mask_length, abs=0.02)
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], hidden[0].astype(int), [0]]))))[::2]
    assert runs.min() >= 1 and runs[:-1].min() >= Recipe.mask_length


@pytest.fixture(scope="module")
def new():
    """An untrained model of the recipe's shape."""
    return training.build(Recipe()).encoder.eval()


def sine(*hertz, seconds=2.0):
    time = np.arange(int(24_000 * seconds)) / 24_000
    return sum(np.sin(2 * np.pi * hz * time) for hz in hertz).astype(np.float32)


def test_pairs_of_channels_respond_to_windowed_sinusoids(new):
    """Reference: NumPy's correlation of the sound with the documented filters."""
    import copy

    import torch

    extractor = copy.deepcopy(new.feature_extractor)
    heard = filterbank.start_as_filterbank(extractor, 24_000)
    sound = sine(440, 1_318)
    with torch.no_grad():
        channels = extractor(torch.from_numpy(sound / sound.std())[None])[0].numpy()
    found = channels[0::2] - channels[1::2]                          # GELU(x) - GELU(-x) = x
    expected = np.stack([np.correlate(sound, filters, "valid")[::320] for filters in heard])
    loud = np.abs(expected).mean(axis=1) > 0.2 * np.abs(expected).mean(axis=1).max()
    assert loud.sum() >= 8
    for one, other in zip(found[loud], expected[loud], strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.99


def test_a_sine_is_loudest_in_the_band_around_it(new):
    import torch

    for hz in (150, 440, 1_000, 2_500):
        with torch.no_grad():
            channels = new.feature_extractor(torch.from_numpy(sine(hz) * 2**0.5)[None])[0].numpy()
        found = channels[0::2] - channels[1::2]
        strongest = np.sqrt(found[0::2] ** 2 + found[1::2] ** 2).mean(axis=1)
        bands = filterbank.centres(len(strongest))
        assert int(np.argmax(strongest)) == int(np.argmin(np.abs(bands - hz)))


@pytest.mark.parametrize("midi", [45, 52, 60, 69, 76, 84])
def test_the_positional_convolution_starts_as_semitone_filters(new, midi):
    import torch

    from tonelake.embed.encoders.hubert import normalize

    with torch.no_grad():
        heard = normalize(torch.from_numpy(sine(440 * 2 ** ((midi - 69) / 12)))[None])
        features = new.feature_projection(new.feature_extractor(heard).transpose(1, 2))
        waves = new.encoder.pos_conv_embed(features)[0]              # (frame, channel): four per semitone
    loudness = waves.reshape(len(waves), -1, 4).sum(dim=2).mean(dim=0).numpy()
    assert abs(int(filterbank.SEMITONES[int(loudness.argmax())]) - midi) <= 1


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path, corpus, small_fit):
    import torch

    whole = training.train(TINY, corpus, tmp_path / "whole", workers=0, every=2)
    training.train(TINY, corpus, tmp_path / "halves", workers=0, every=2, until=2)
    halves = training.train(TINY, corpus, tmp_path / "halves", workers=0, every=2)
    for (name, one), (_, other) in zip(whole.state_dict().items(), halves.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    texts = [(tmp_path / run / "log.jsonl").read_text() for run in ("whole", "halves")]
    logs = [[json.loads(line) for line in text.splitlines()] for text in texts]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]] == [2, 4]
    assert all(a["checked_cqt"] == b["checked_cqt"] for a, b in zip(*logs, strict=True))


def test_a_different_recipe_is_refused_in_the_same_folder(tmp_path, corpus, small_fit):
    training.train(TINY, corpus, tmp_path, workers=0, until=1)
    with pytest.raises(SystemExit, match="another recipe"):
        training.train(dataclasses.replace(TINY, seed=1), corpus, tmp_path, workers=0)


def test_the_exported_checkpoint_is_the_trained_model(tmp_path, corpus, small_fit):
    import torch

    from tonelake.embed.encoders.hubert import normalize

    model = training.train(TINY, corpus, tmp_path / "work", workers=0, until=1).eval()
    size = training.export(model, TINY, tmp_path / "out")
    encoder = load_encoder(str(tmp_path / "out"))
    assert size < 1e6 and encoder.sample_rate == 24_000 and len(encoder.layers) == TINY.blocks + 1
    sound = examples.make_example(corpus, 0, 0).room
    with torch.no_grad():
        heard = normalize(torch.from_numpy(sound)[None])
        features = model.encoder.feature_projection(model.encoder.feature_extractor(heard).transpose(1, 2))
        expected = model.encoder.encoder(features).last_hidden_state[0].numpy()
    found = encoder.hidden_states(sound)[-1]
    assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()           # float16 weights: 2^-11 each


def test_mixing_in_another_example_keeps_the_rest():
    import torch

    room = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 24_000)).astype(np.float32))
    mixed = training.mix(room, 1.0, np.random.default_rng(1))
    changed = (mixed != room).float().mean(dim=1)
    assert ((changed > 0.15) & (changed < 0.65)).all()
    assert torch.equal(training.mix(room, 0.0, np.random.default_rng(1)), room)
