"""Augmentation: its effect on audio, its dependence on seed, epoch and clip only, and pitch against librosa."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sounds import melody

from tonelake.finetune import FinetuneConfig
from tonelake.finetune.augment import augment, mix_in, shift_pitch

PLAIN = FinetuneConfig("kind", task="multiclass")
RATE = 24_000


def melodies(count=3):
    return [torch.from_numpy(melody(1.5, seed=i, rate=RATE)[:, 0]) for i in range(count)]


def peak_hz(sound):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return spectrum.argmax() * RATE / len(sound)


def tone():
    time = np.arange(2 * RATE) / RATE
    return (0.5 * np.sin(2 * np.pi * 660 * time) + 0.2 * np.sin(2 * np.pi * 1_320 * time)).astype(np.float32)


MIDDLE = slice(RATE // 2, 3 * RATE // 2)


@pytest.mark.parametrize("semitones", [-2.0, -0.7, 1.0, 2.0])
def test_pitch_shift_moves_a_tone_and_keeps_length_and_loudness(semitones):
    found = shift_pitch(torch.from_numpy(tone()), semitones).numpy()
    assert len(found) == len(tone()) and np.isfinite(found).all()
    assert peak_hz(found[MIDDLE]) == pytest.approx(660 * 2 ** (semitones / 12), abs=2)
    assert found[MIDDLE].std() == pytest.approx(tone()[MIDDLE].std(), rel=0.15)


@pytest.mark.slow                                            # librosa compiles for some ten seconds
@pytest.mark.parametrize("semitones", [-2.0, -0.7, 1.0, 2.0])
def test_pitch_shift_agrees_with_librosas(semitones):
    librosa = pytest.importorskip("librosa")
    found = shift_pitch(torch.from_numpy(tone()), semitones).numpy()
    theirs = librosa.effects.pitch_shift(tone(), sr=RATE, n_steps=semitones)
    assert peak_hz(found[MIDDLE]) == pytest.approx(peak_hz(theirs[MIDDLE]), abs=2)
    assert found[MIDDLE].std() == pytest.approx(theirs[MIDDLE].std(), rel=0.03)


def test_seed_epoch_and_clip_decide_the_result_in_any_batch():
    config = replace(PLAIN, noise=0.01, shift_s=0.5, gain=0.2, pitch=2.0)
    given, tracks = melodies(), np.arange(10)
    together = augment(given, [4, 5, 6], tracks, config, RATE, epoch=3)
    alone = augment(given[1:2], [5], tracks, config, RATE, epoch=3)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(alone[0], augment(given[1:2], [5], tracks, config, RATE, epoch=4)[0])
    assert not torch.equal(alone[0], given[1])
    assert all(len(a) == len(b) for a, b in zip(given, together, strict=True))


def test_shift_is_circular_and_gain_is_a_factor():
    given = melodies(1)
    shifted = augment(given, [0], np.arange(1), replace(PLAIN, shift_s=0.5), RATE, 0)[0]
    torch.testing.assert_close(shifted.sort().values, given[0].sort().values)
    louder = augment(given, [0], np.arange(1), replace(PLAIN, gain=0.2), RATE, 0)[0]
    ratio = (louder[given[0].abs() > 0.01] / given[0][given[0].abs() > 0.01])
    assert 0.8 <= float(ratio.mean()) <= 1.2 and float(ratio.std()) < 1e-5


def test_stems_are_mixed_with_other_tracks_only():
    given, config = melodies(3), replace(PLAIN, mix=0.999)
    tracks = np.array([0, 0, 1])
    same = augment(given[:2], [0, 1], tracks, config, RATE, 0)
    assert all(torch.equal(a, b) for a, b in zip(given[:2], same, strict=True))
    other = augment(given, [0, 1, 2], tracks, config, RATE, 0)
    added = other[0] - given[0]
    assert abs(np.corrcoef(added.numpy(), given[2].numpy())[0, 1]) > 0.999
    short = mix_in(given[0], given[1][:1_000], 0.5)
    assert len(short) == len(given[0])


def test_without_augmentation_audio_is_unchanged():
    given = melodies()
    assert all(torch.equal(a, b) for a, b in zip(given, augment(given, [0, 1, 2], np.arange(3), PLAIN, RATE, 0), strict=True))
