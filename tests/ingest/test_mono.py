"""Mixing to mono: opposite phase, changes of rate and channel count, and independence of where reading begins."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sounds import RATE, encode, melody, write

from tonelake.ingest import ingest_folder
from tonelake.ingest.decode import read_audio
from tonelake.ingest.mono import MonoMix, in_seconds, louder_side, to_mono
from tonelake.ingest.scan import scan_file


def opposite(seconds: float, seed: int = 0) -> np.ndarray:
    sound = melody(seconds, seed)
    return np.concatenate([sound, -sound], axis=1)


def mixed(blocks, rate: int = RATE, first: int = 0) -> np.ndarray:
    return np.concatenate(list(MonoMix(blocks, rate, first)))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a"])
def test_channels_that_cancel_are_flagged_and_the_louder_one_is_read(tmp_path, suffix):
    make = encode if suffix in (".mp3", ".opus", ".m4a") else write
    path = make(tmp_path / f"a{suffix}", opposite(4))
    scan = scan_file(path)
    assert scan.flags == ["channels cancel"]
    samples = read_audio(path, 0.0, 4.0, RATE)
    expected = melody(4)[: len(samples), 0]
    assert np.corrcoef(samples[: len(expected)], expected)[0, 1] > 0.95
    assert np.std(samples) == pytest.approx(np.std(expected), rel=0.1)


def test_only_clips_whose_channels_cancel_are_flagged(tmp_path, lake):
    both = np.concatenate([melody(8, channels=2), opposite(2), melody(8, seed=1, channels=2)])
    write(tmp_path / "music" / "a.wav", both)
    ingest_folder(lake, tmp_path / "music", seconds=6.0)
    flags = {clip["start_s"]: clip["flag"] for clip in lake.clips.read(["start_s", "flag"]).iter_rows(named=True)}
    assert flags == {0.0: None, 6.0: "channels cancel", 12.0: None}


def test_a_channel_that_is_silent_does_not_cancel():
    sound = melody(1)
    assert louder_side(np.concatenate([sound, np.zeros_like(sound)], axis=1)) is None
    assert louder_side(np.zeros((RATE, 2), np.float32)) is None
    assert louder_side(melody(1, channels=2)) is None


def test_the_loudest_of_several_channels_is_used():
    sound = melody(1)
    four = np.concatenate([0.1 * sound, 0.9 * sound, -0.5 * sound, -0.5 * sound], axis=1)
    np.testing.assert_array_equal(louder_side(four), four[:, 1])


def test_a_mix_does_not_depend_on_the_blocks_or_on_where_reading_began():
    sound = np.concatenate([melody(1.5, channels=2), opposite(2.2), melody(1, channels=2)])
    whole = mixed([(RATE, sound)])
    rng = np.random.default_rng(0)
    edges = [0, *sorted(rng.integers(0, len(sound), 40)), len(sound)]
    np.testing.assert_array_equal(mixed((RATE, sound[a:b]) for a, b in itertools.pairwise(edges)), whole)
    for second in (1, 2, 3):
        np.testing.assert_array_equal(mixed([(RATE, sound[second * RATE :])], RATE, second * RATE), whole[second * RATE :])
    np.testing.assert_array_equal(whole[2 * RATE : 3 * RATE], sound[2 * RATE : 3 * RATE, 0])
    np.testing.assert_array_equal(whole[:RATE], to_mono(sound[:RATE]))


def test_blocks_of_several_channels_end_at_whole_seconds():
    sizes = [len(block) for _, block in in_seconds([(10, np.zeros((25, 2), np.float32)), (10, np.zeros((7, 2), np.float32))])]
    assert sizes == [10, 10, 10, 2]
    assert [len(block) for _, block in in_seconds([(10, np.zeros((25, 1), np.float32))])] == [25]


def test_later_blocks_of_another_rate_and_channel_count_keep_their_pitch_and_length():
    parts = [(44_100, melody(2, seed=1, channels=2)), (22_050, melody(2, seed=2, rate=22_050)), (44_100, melody(1, seed=3))]
    mix = mixed(parts)
    assert abs(len(mix) - 5 * RATE) <= 2
    np.testing.assert_array_equal(mix[: 2 * RATE], to_mono(parts[0][1]))
    np.testing.assert_array_equal(mix[-RATE:], parts[2][1][:, 0])
    middle = mix[2 * RATE + 500 : 4 * RATE - 500]
    expected = melody(2, seed=2)[500:-500, 0][: len(middle)]
    assert np.corrcoef(middle[: len(expected)], expected)[0, 1] > 0.99


@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".flac", ".wav"])
def test_joined_files_of_other_rates_and_channel_counts_are_read_to_the_end(tmp_path, suffix):
    make = encode if suffix == ".mp3" else write
    kinds = [(44_100, 2, 3), (22_050, 1, 2), (48_000, 2, 4)]
    sounds = [melody(seconds, seed, rate, channels) for seed, (rate, channels, seconds) in enumerate(kinds)]
    parts = [
        make(tmp_path / f"{seed}{suffix}", sound, rate=kinds[seed][0]).read_bytes() for seed, sound in enumerate(sounds)
    ]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(parts))
    scan = scan_file(path)
    assert (scan.flags, scan.rate, scan.channels) == ([], RATE, 2)
    assert abs(scan.duration_s - 9) < 0.01
    whole = read_audio(path, 0.0, 9.0, RATE)
    for start_s, seed in ((0.5, 0), (3.5, 1), (5.5, 2)):
        _, channels, seconds = kinds[seed]
        begin = sum(kind[2] for kind in kinds[:seed])
        expected = to_mono(melody(seconds, seed, RATE, channels))[round((start_s - begin) * RATE) :][:RATE]
        part = read_audio(path, start_s, 1.0, RATE)
        np.testing.assert_array_equal(part, whole[round(start_s * RATE) :][:RATE])
        lags = np.correlate(part[4_000:-4_000], expected, "valid")
        assert lags.max() / np.linalg.norm(expected[4_000:-4_000]) / np.linalg.norm(part[4_000:-4_000]) > 0.95
        assert abs(int(np.argmax(lags)) - 4_000) < 10        # ten samples: resampling, and phases of two generators
