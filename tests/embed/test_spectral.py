"""The encoder without weights: each family of features responds to its property of the sound."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
from sounds import melody

from tonelake.embed import EmbedSettings, embed_clips, embed_lake, encoder_of, load_encoder
from tonelake.embed.encoders.spectral import FAMILIES, SAMPLE_RATE, SCALE, describe
from tonelake.embed.settings import describe_space
from tonelake.index.search.mixture import parse_weights
from tonelake.ingest import read_clips
from tonelake.probes.inputs import input_specs


def test_families_respond_to_pitch_class_and_beat_but_not_to_loudness():
    """Chroma follows the pitch class, rhythm the beat, and loudness changes none of the families without loudness."""
    rate = 24_000
    time_s = np.arange(rate * 6) / rate

    def tone(midi):
        return (0.3 * np.sin(2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * time_s)).astype(np.float32)

    families = list(FAMILIES)
    chroma = families.index("chroma")
    for midi in (60, 64, 71):
        assert describe(tone(midi))[chroma].mean(axis=1).argmax() == midi % 12
    clicks = np.zeros(rate * 6, np.float32)
    clicks[:: rate // 2] = 0.9           # 120 beats a minute: every 23.4 frames
    rhythm = describe(clicks)[families.index("rhythm")].mean(axis=1)
    assert 10 + rhythm[10:35].argmax() in (23, 24)
    loud, quiet = describe(tone(60)), describe(tone(60) * 0.25)
    for name in ("chroma", "mfcc", "shape"):
        a, b = loud[families.index(name)].mean(axis=1), quiet[families.index(name)].mean(axis=1)
        assert (a @ b) / np.linalg.norm(a) / np.linalg.norm(b) > 0.99


def test_spectral_vectors_have_their_widths_and_are_finite():
    encoder = load_encoder("spectral")
    for wave in (melody(2, rate=24_000)[:, 0], np.zeros(24_000, np.float32), melody(1, rate=24_000)[:, 0] * 1e-4):
        pooled = encoder.encode(wave[None])
        assert [m.shape for m in pooled.mean] == [(1, dim) for dim in (*FAMILIES.values(), 262)]
        assert all(np.isfinite(v).all() for v in (*pooled.mean, *pooled.max))


def test_families_are_centred_and_scaled_as_documented():
    """Compared with the known values of a tone of 1 kHz and of white noise."""
    rate = SAMPLE_RATE
    sine = np.sin(2 * np.pi * 1000 * np.arange(rate * 3) / rate).astype(np.float32)
    noise = np.random.default_rng(0).standard_normal(rate * 3).astype(np.float32)
    for wave in (sine, noise):
        found = dict(zip(FAMILIES, describe(wave), strict=True))
        # norm=1: the classes' shares of a frame add up to 1.
        np.testing.assert_allclose(found["chroma"].sum(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(found["mel"].mean(axis=0), 0, atol=1e-4)
    middle = slice(20, -20)              # the ends are padded
    centroid, bandwidth, rolloff, flatness, crossings = dict(zip(FAMILIES, describe(sine), strict=True))["shape"][:, middle]
    np.testing.assert_allclose(centroid, -1, atol=0.02)              # an octave below 2 kHz
    np.testing.assert_allclose(rolloff, -1, atol=0.03)
    assert bandwidth.max() < -2 and flatness.max() < 0.1
    np.testing.assert_allclose(crossings, 2 * 1000 / rate * 10 - 1, atol=0.01)
    centroid, _, rolloff, flatness, crossings = dict(zip(FAMILIES, describe(noise), strict=True))["shape"][:, middle]
    np.testing.assert_allclose(centroid.mean(), np.log2(6 / 2), atol=0.02)               # the middle of 12 kHz
    np.testing.assert_allclose(rolloff.mean(), np.log2(0.85 * 12 / 2), atol=0.05)
    assert 0.8 < flatness.mean() < 1
    np.testing.assert_allclose(crossings.mean(), 0.5 * 10 - 1, atol=0.05)


def test_mel_bands_are_in_decibels_over_twenty():
    """Reducing the power in half of the spectrum to a hundredth is 20 dB, so a distance of 1."""
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(SAMPLE_RATE * 4))
    spectrum[len(spectrum) // 2 :] *= 0.1
    mel = describe(np.fft.irfft(spectrum).astype(np.float32))[list(FAMILIES).index("mel")].mean(axis=1)
    # Slaney's filters have equal area, so white noise is equally loud in every band.
    assert abs((mel[25:40].mean() - mel[-8:].mean()) - 1) < 0.05


def test_short_windows_have_slopes_too():
    for count in (4, 5, 9, 600):
        mfcc = describe(np.random.default_rng(0).standard_normal(512 * count).astype(np.float32))[0]
        assert mfcc.shape == (40, count + 1)
        assert mfcc[20:].any()


def test_layer_all_is_the_families_standardised_by_the_shipped_constants():
    """The mean and the maximum of each dimension, and frames, follow from those of the families."""
    encoder = load_encoder("spectral")
    assert encoder.layers == (*FAMILIES, "all") and encoder.dims[-1] == sum(FAMILIES.values()) == 262
    assert encoder.layers[encoder.default_layer] == "all"
    pooled = encoder.encode(melody(2, rate=24_000)[:, 0][None], frames=(0, 7))
    values = json.loads(SCALE.read_text())
    mean, std = (np.concatenate([values[name][family] for family in FAMILIES]) for name in ("mean", "std"))
    assert std.min() >= 0.05
    for pooling in (pooled.mean, pooled.max):
        expected = (np.concatenate([family[0] for family in pooling[:-1]]) - mean) / std
        np.testing.assert_allclose(pooling[-1][0], expected, rtol=1e-4, atol=1e-4)
    mfcc, joined = pooled.frames[0][0], pooled.frames[1][0]
    assert joined.shape == (len(mfcc), 262)
    np.testing.assert_allclose(joined[:, :20], (mfcc[:, :20] - mean[:20]) / std[:20], rtol=0.02, atol=0.05)


def test_a_space_of_the_release_without_layer_all_is_extended_with_its_own_layers(six_tracks):
    """Nothing is embedded again, its query has its layers, and another name makes a space with all layers."""
    lake = six_tracks
    known, added = lake.clips.ids()[:4], lake.clips.ids()[4:]
    old = replace(
        describe_space(load_encoder("spectral").at_revision("spectral-1"), "spectral", 30.0), learned=True,
        created_at="2026-01-01T00:00:00+00:00",
    )
    text = json.loads(old.to_json())
    assert text["fingerprint"] == "8e4930b82564b9b230989ec7284b016b", "the fingerprint of that release"
    del text["learned"]                  # not recorded at that time
    lake.files("spaces").put_text("spectral.json", json.dumps(text))
    space = lake.spaces.get("spectral")
    assert (space.revision, len(space.layers), space.layer_index(None), space.learned) == ("spectral-1", 7, 0, False)
    embed_clips(lake, space, encoder_of(space), read_clips, share=pl.Series(known))
    before = lake.vectors(space).take(known, "rhythm").vectors
    report = embed_lake(lake, EmbedSettings("spectral"), read_clips)
    assert (report.space, report.known, report.new, report.failed) == ("spectral", len(known), len(added), 0)
    np.testing.assert_array_equal(lake.vectors(space).take(known, "rhythm").vectors, before)
    second = embed_lake(lake, EmbedSettings("spectral", space="joined"), read_clips)
    assert second.new == lake.clips.count() and lake.spaces.get("joined").layers[-1] == "all"
    again = embed_lake(lake, EmbedSettings("spectral"), read_clips)
    assert (again.space, again.new) == ("joined", 0)                 # of two spaces, the one of the newest revision
    for family in FAMILIES:
        np.testing.assert_array_equal(
            lake.vectors("joined").take(known, family).vectors, lake.vectors(space).take(known, family).vectors
        )
    joined = lake.spaces.get("joined")
    assert (parse_weights("all", joined), len(parse_weights("all", space))) == ({7: 1.0}, 7)
    assert [len(input_specs(one, ("all",))[0].columns) for one in (joined, space)] == [1, 7]
