"""Spectra with frames have the right amplitudes at the right times."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import melody

from tonelake.embed import EmbedSettings, embed_lake, encode_clips, load_encoder, load_librosa
from tonelake.embed.encoders.spectral_frames.constant_q import BINS, LOWEST_PITCH, constant_q, frequencies, lengths_s
from tonelake.embed.encoders.spectral_frames.mel import mel_amplitudes
from tonelake.ingest import read_clips

RATE, HOP = 22_050, 256
NAMES = ("logmel", "vqt", "cqt")


@pytest.fixture(scope="module")
def sound():
    """Three seconds of a melody in faint noise."""
    noise = np.random.default_rng(0).standard_normal(3 * RATE) * 0.01
    return (melody(3, rate=RATE)[:, 0] + noise).astype(np.float32)


def centred(samples):
    """Samples of which librosa's frames, centred at multiples of the hop, are ours after the first."""
    return np.concatenate([np.zeros(HOP // 2, np.float32), samples])


@pytest.mark.parametrize("gamma_hz", [0.0, 20.0])
def test_a_tone_peaks_with_its_amplitude_in_the_middle_bin_of_its_semitone(gamma_hz):
    for pitch in (21, 33, 48, 69, 90, 108, 123):
        tone = 0.25 * np.sin(2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * np.arange(5 * RATE) / RATE)
        found = constant_q(tone.astype(np.float32), gamma_hz=gamma_hz)[5 * RATE // HOP // 2]
        middle = 3 * (pitch - LOWEST_PITCH) + 1
        if gamma_hz == 0 or pitch >= 48:     # lower filters of the VQT are wider than their frequency
            assert found.argmax() == middle
        assert found[middle] == pytest.approx(0.25, rel=0.02 if gamma_hz == 0 or pitch >= 48 else 0.5)


@pytest.mark.parametrize("gamma_hz", [0.0, 20.0])
def test_constant_q_frames_equal_the_convolution_written_out(sound, gamma_hz):
    """Each filter at the full rate, without decimation."""
    time_s = np.arange(len(sound)) / RATE
    found = constant_q(sound, gamma_hz=gamma_hz)
    assert found.shape == (len(sound) // HOP, BINS)
    some = slice(1, None, 9)
    hz, length_s = frequencies()[some], lengths_s(gamma_hz)[some]
    for frame in (100, 129):
        away_s = time_s[:, None] - (HOP * frame + HOP // 2) / RATE
        window = np.where(np.abs(away_s) < length_s / 2, 1 + np.cos(2 * np.pi * away_s / length_s), 0)
        expected = 2 * np.abs((sound[:, None] * window * np.exp(-2j * np.pi * hz * time_s[:, None])).sum(axis=0))
        np.testing.assert_allclose(found[frame, some], expected / (length_s * RATE), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("frames", [15, 27, 51, 240])
def test_windows_whose_padding_fits_a_fast_transform_exactly_have_all_frames(sound, frames):
    assert constant_q(sound[: frames * HOP], gamma_hz=0.0).shape == (frames, BINS)


@pytest.mark.parametrize(("gamma_hz", "lowest_bin"), [(0.0, 108), (20.0, 216)])
def test_constant_q_agrees_with_librosa_above_some_pitch(sound, gamma_hz, lowest_bin):
    """Lower bins differ, because librosa rounds lengths to samples at rates of a few hundred hertz."""
    transform = load_librosa().vqt(
        centred(sound), sr=RATE, hop_length=HOP, fmin=frequencies()[0], n_bins=BINS, bins_per_octave=36, gamma=gamma_hz,
        scale=False, tuning=0.0, sparsity=0, pad_mode="constant",
    )
    expected = np.abs(transform).T[1:] * 2 / (lengths_s(gamma_hz) * RATE)
    found = constant_q(sound, gamma_hz=gamma_hz)[: len(expected)]
    for first in range(lowest_bin, BINS, 36):
        difference = np.linalg.norm(found[:, first:] - expected[:, first:]) / np.linalg.norm(expected[:, first:])
        assert difference < 0.015


def test_mel_bands_agree_with_librosa(sound):
    power = load_librosa().feature.melspectrogram(
        y=centred(sound), sr=RATE, n_fft=2048, hop_length=HOP, n_mels=229, fmin=30, fmax=8_000, htk=True, norm=None,
        pad_mode="constant",
    )
    expected = np.sqrt(power).T[1:] * 2 / 1024                       # a Hann window of 2,048 has the sum 1,024
    found = mel_amplitudes(sound)
    assert len(found) == len(sound) // HOP
    np.testing.assert_allclose(found[: len(expected)], expected[: len(found)], rtol=1e-3, atol=1e-6)
    assert (expected.max(axis=0) > 0).all()                          # no band is narrower than a bin of the spectrum


@pytest.mark.parametrize("name", NAMES)
def test_a_click_peaks_in_the_frame_of_its_time(name):
    encoder = load_encoder(name)
    for at in (3_000, 5_100, 5_140, 5_247, 9_999, 21_000):
        click = np.zeros(RATE, np.float32)
        click[at] = 0.9
        assert encoder.states(click, 0).mean(axis=1).argmax() == at // HOP


@pytest.mark.parametrize("name", NAMES)
def test_joined_windows_have_the_frames_of_one_window_except_at_the_joins(name, sound):
    encoder = load_encoder(name)
    whole, parts = (
        encode_clips(encoder, [sound], window_s=window_s, frames=(0,))[0] for window_s in (30.0, 128 * HOP / RATE)
    )
    np.testing.assert_allclose(whole.frame_s, (np.arange(len(sound) // HOP) + 0.5) * HOP / RATE, rtol=1e-6)
    np.testing.assert_allclose(parts.frame_s, whole.frame_s, rtol=1e-6)
    away = np.abs(np.arange(len(whole.frame_s)) - 127.5) > 5
    high = slice(-60, None)                                          # low filters of the CQT take most of a second
    np.testing.assert_allclose(parts.frames[0][away, high], whole.frames[0][away, high], atol=4e-3)
    overlapping = encode_clips(encoder, [sound], window_s=160 * HOP / RATE, hop_s=80 * HOP / RATE, frames=(0,))[0]
    assert len(overlapping.frame_s) in (len(whole.frame_s), len(whole.frame_s) + 1)      # the last window ends with the clip


@pytest.mark.parametrize("name", NAMES)
def test_silence_full_scale_and_short_windows_fit_float16(name):
    encoder = load_encoder(name)
    assert encoder.states(np.zeros(100, np.float32), 0).tolist() == [[-1.0] * encoder.dims[0]]
    assert [encoder.frames_of(samples) for samples in (100, 256, 511, 512)] == [1, 1, 1, 2]
    square = np.sign(np.sin(np.arange(RATE) / 20)).astype(np.float32)
    loud = encoder.encode(square[None], keep=[(10, 50)], frames=(0,))
    assert loud.n_frames.tolist() == [40] and 0.9 < loud.max[0].max() < 1.2
    states = loud.frames[0][0]
    assert states.dtype == np.float16 and states.shape == (40, encoder.dims[0])
    np.testing.assert_allclose(states, encoder.states(square, 0)[10:50], atol=1e-3)
    np.testing.assert_allclose(loud.mean[0][0], states.mean(axis=0, dtype=np.float32), atol=1e-3)


def test_a_space_of_spectra_is_embedded_with_its_frames(six_tracks):
    report = embed_lake(six_tracks, EmbedSettings("vqt"), read_clips, frames=["vqt"])
    assert (report.space, report.new, report.framed, report.failed) == ("vqt", 6, 6, 0)
    clip = six_tracks.clips.ids()[0]
    states = six_tracks.frames("vqt").read(clip)
    assert states.states.shape == (len(states.frame_s), BINS)
    assert states.frame_s[0] == pytest.approx(HOP / 2 / RATE)
    vector = six_tracks.vectors("vqt").take([clip], "vqt").vectors[0]
    np.testing.assert_allclose(vector, states.states.mean(axis=0, dtype=np.float32), atol=2e-3)
