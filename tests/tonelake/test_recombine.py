"""A continuation as audio and as notes: joins without clicks, lengths and times as written out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tonelake.recombine import FADE_S, cross_fade, cut, nearest_crossing, stretches

RATE = 44_100


def sine(hz: float, seconds: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE).astype(np.float32)


def test_cuts_are_at_rising_zero_crossings_near_the_times_asked_for():
    samples = sine(441, 1.0)                                         # it rises through 0 every 100 samples
    assert nearest_crossing(samples, 1_030, 441) in (1_000, 1_001)
    assert nearest_crossing(np.ones(1_000), 500, 100) == 500
    part = cut(samples, 10_040, 20_060, RATE)
    assert abs(len(part) - 10_100 - round(FADE_S * RATE)) <= 2 and abs(part[0]) < 0.07 and part[1] > part[0]
    slow = np.where(np.arange(9_000) < 4_500, -1.0, 1.0)             # one crossing, near both ends
    assert len(cut(slow, 4_480, 4_520, RATE)) == 40 + round(FADE_S * RATE)


def test_joined_sounds_do_not_click_and_keep_their_samples_and_lengths():
    fade = round(FADE_S * RATE)
    first, second = cut(sine(330, 1.0), 5_000, 20_000, RATE), cut(sine(440, 1.0), 8_000, 30_000, RATE)
    sound = cross_fade([first, second], fade)
    assert len(sound) == len(first) + len(second) - fade
    assert np.array_equal(sound[: len(first) - fade], first[:-fade])
    assert np.array_equal(sound[len(first) : -fade], second[fade:-fade]) and abs(sound[-1]) < 0.01
    steepest = np.abs(np.diff(second)).max()
    assert np.abs(np.diff(sound)).max() < 2 * steepest               # two sounds together, and no jump
    plain = np.concatenate([first[: -fade - 100], second[75:]])
    assert np.abs(np.diff(plain)).max() > 5 * steepest               # as a cut elsewhere has


def test_a_cross_fade_keeps_the_power_of_noise_and_short_parts_shorten_it():
    fade = 20_000
    noise = np.random.default_rng(0).standard_normal((2, 60_000)).astype(np.float32)
    sound = cross_fade(list(noise), fade)
    middle = np.square(sound[40_000:60_000]).reshape(10, -1).mean(axis=1)
    assert middle == pytest.approx(np.ones(10), abs=0.12)
    assert len(cross_fade([np.ones(1_000), np.ones(10), np.ones(1_000)], 400)) == 2_010 - 2 * 5
    assert len(cross_fade([], 400)) == 0


def test_events_that_follow_their_clip_are_one_stretch():
    path = pl.DataFrame({
        "clip_id": ["a", "a", "a", "b", "a"], "start_s": [0.0, 0.5, 2.0, 0.75, 0.75], "end_s": [0.5, 0.75, 2.5, 1.0, 1.0],
    })
    assert stretches(path) == [("a", 0.0, 0.75), ("a", 2.0, 2.5), ("b", 0.75, 1.0), ("a", 0.75, 1.0)]
