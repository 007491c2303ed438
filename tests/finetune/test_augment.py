"""Augmentation: what it does to a sound, that it follows from seed, epoch and clip alone, and a second opinion on pitch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sounds import melody

from tonelake.finetune import FinetuneConfig
from tonelake.finetune.augment import augment, mixed, pitch_shifted

PLAIN = FinetuneConfig("kind", task="multiclass")
RATE = 24_000


def waves(count=3):
    return [torch.from_numpy(melody(1.5, seed=i, rate=RATE)[:, 0]) for i in range(count)]


def peak_hz(sound):
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return spectrum.argmax() * RATE / len(sound)


@pytest.mark.parametrize("semitones", [-2.0, -0.7, 1.0, 2.0])
def test_a_tone_is_shifted_by_so_many_semitones_and_stays_as_long_and_loud(semitones):
    librosa = pytest.importorskip("librosa")
    time = np.arange(2 * RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 660 * time) + 0.2 * np.sin(2 * np.pi * 1_320 * time)).astype(np.float32)
    found = pitch_shifted(torch.from_numpy(tone), semitones).numpy()
    theirs = librosa.effects.pitch_shift(tone, sr=RATE, n_steps=semitones)
    assert len(found) == len(tone) and np.isfinite(found).all()
    middle = slice(RATE // 2, 3 * RATE // 2)
    assert peak_hz(found[middle]) == pytest.approx(660 * 2 ** (semitones / 12), abs=2)
    assert peak_hz(found[middle]) == pytest.approx(peak_hz(theirs[middle]), abs=2)
    assert found[middle].std() == pytest.approx(theirs[middle].std(), rel=0.03)
    assert found[middle].std() == pytest.approx(tone[middle].std(), rel=0.15)


def test_the_same_seed_epoch_and_clip_give_the_same_sound_in_any_batch():
    config = replace(PLAIN, noise=0.01, shift_s=0.5, gain=0.2, pitch=2.0)
    given, tracks = waves(), np.arange(10)
    together = augment(given, [4, 5, 6], tracks, config, RATE, epoch=3)
    alone = augment(given[1:2], [5], tracks, config, RATE, epoch=3)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(alone[0], augment(given[1:2], [5], tracks, config, RATE, epoch=4)[0])
    assert not torch.equal(alone[0], given[1])
    assert all(len(a) == len(b) for a, b in zip(given, together, strict=True))


def test_a_shift_turns_the_sound_round_and_a_gain_scales_it():
    given = waves(1)
    shifted = augment(given, [0], np.arange(1), replace(PLAIN, shift_s=0.5), RATE, 0)[0]
    torch.testing.assert_close(shifted.sort().values, given[0].sort().values)
    louder = augment(given, [0], np.arange(1), replace(PLAIN, gain=0.2), RATE, 0)[0]
    ratio = (louder[given[0].abs() > 0.01] / given[0][given[0].abs() > 0.01])
    assert 0.8 <= float(ratio.mean()) <= 1.2 and float(ratio.std()) < 1e-5


def test_stems_are_mixed_with_other_tracks_only():
    given, config = waves(3), replace(PLAIN, mix=0.999)
    tracks = np.array([0, 0, 1])
    same = augment(given[:2], [0, 1], tracks, config, RATE, 0)
    assert all(torch.equal(a, b) for a, b in zip(given[:2], same, strict=True))
    other = augment(given, [0, 1, 2], tracks, config, RATE, 0)
    added = other[0] - given[0]
    assert abs(np.corrcoef(added.numpy(), given[2].numpy())[0, 1]) > 0.999
    short = mixed(given[0], given[1][:1_000], 0.5)
    assert len(short) == len(given[0])


def test_without_augmentation_nothing_is_changed():
    given = waves()
    assert all(torch.equal(a, b) for a, b in zip(given, augment(given, [0, 1, 2], np.arange(3), PLAIN, RATE, 0), strict=True))
