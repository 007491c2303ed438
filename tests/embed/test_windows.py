"""Windows of clips of any length count each moment once, and a clip's vectors are statistics of all its frames."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from fakes import FRAME, FakeEncoder
from sounds import melody

from tonelake.embed import encode_clips, load_encoder
from tonelake.embed.windows import place_windows


def test_windows_cover_a_clip_once():
    rng = random.Random(0)
    for _ in range(200):
        samples, window, tail = rng.randint(1, 5_000), rng.randint(100, 900), rng.randint(1, 99)
        found = place_windows(samples, window, window, tail)
        assert found[0].begin == 0
        assert found[-1].end == samples
        assert all(a.end == b.begin for a, b in itertools.pairwise(found))
        assert all(w.end - w.begin <= window + tail for w in found)
        assert len(found) == 1 or all(w.end - w.begin >= tail for w in found)
        assert all((w.first, w.last) == (w.begin, w.end) for w in found)


def test_overlapping_windows_count_each_moment_once_with_context():
    rng = random.Random(1)
    for _ in range(300):
        samples, window = rng.randint(1, 5_000), rng.randint(100, 900)
        hop = rng.randint(window // 10, window - 1)
        found = place_windows(samples, window, hop, 50)
        assert found[0].begin == found[0].first == 0
        assert found[-1].end == found[-1].last == samples
        assert all(a.last == b.first for a, b in itertools.pairwise(found))
        assert all(w.begin <= w.first < w.last <= w.end for w in found)
        assert len(found) == 1 or all(w.end - w.begin == window for w in found)
        assert all(b.begin - a.begin <= hop for a, b in itertools.pairwise(found))
        context = (window - hop) // 2    # on both sides of the part that counts, except at the clip's ends
        assert all(w.first - w.begin >= context for w in found[1:])
        assert all(w.end - w.last >= context for w in found[:-1])


@pytest.mark.parametrize("name", ["fake", "95M-tiny", "spectral"])
def test_overlap_equals_a_calculation_written_out_frame_by_frame(name, checkpoints):
    """Reference: each frame's time by arithmetic, each frame taken from the window whose middle contains it."""
    encoder = FakeEncoder() if name == "fake" else load_encoder(str(checkpoints / name) if "-" in name else name)
    rate = encoder.sample_rate
    wave = melody(9.7, rate=rate)[:, 0]
    pooled = encode_clips(encoder, [wave], window_s=4.0, hop_s=1.5, frames=(0, 1))[0]
    states, times = [], []
    starts = [0.0, 1.5, 3.0, 4.5, 5.7]                               # the last window ends with the clip
    boundaries = [0.0, 2.75, 4.25, 5.75, (4.5 + 4.0 + 5.7) / 2, 9.7]      # the middle of what two windows share
    for start, first, last in zip(starts, boundaries[:-1], boundaries[1:], strict=True):
        begin = round(start * rate)
        whole = encoder.encode(wave[None, begin : begin + 4 * rate], frames=(0, 1)).frames
        centres = (begin + encoder.frame_offset + encoder.frame_samples * np.arange(len(whole[0][0]))) / rate
        kept = (centres >= first - 1e-9) & ((centres < last - 1e-9) | (last == 9.7))
        states.append([layer[0][kept] for layer in whole])
        times.append(centres[kept])
    np.testing.assert_allclose(pooled.frame_s, np.concatenate(times), atol=1e-4)
    assert (np.diff(pooled.frame_s) > 0).all()
    for layer in (0, 1):
        expected = np.concatenate([s[layer] for s in states]).astype(np.float32)
        assert pooled.n_frames == len(expected) == len(pooled.frames[layer])
        np.testing.assert_allclose(pooled.frames[layer].astype(np.float32), expected, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(pooled.mean[layer], expected.mean(axis=0), atol=2e-3)          # frames are float16
        np.testing.assert_allclose(pooled.max[layer], expected.max(axis=0), rtol=1e-3, atol=1e-3)


def test_a_long_clip_is_the_mean_of_its_frames_and_the_max_of_its_maxima():
    """Reference: the windows frame by frame in NumPy."""
    encoder = FakeEncoder()
    wave = melody(17, rate=8_000)[:, 0]
    pooled = encode_clips(encoder, [wave], window_s=5.0)[0]
    parts = [encoder.encode(wave[None, w.begin : w.end]) for w in place_windows(len(wave), 40_000, 40_000, 8_000)]
    assert len(parts) == 4
    assert pooled.n_frames == sum(p.n_frames[0] for p in parts) == 17 * 8_000 // FRAME
    for layer in range(2):
        mean = sum(p.mean[layer][0].astype(float) * p.n_frames[0] for p in parts) / pooled.n_frames
        np.testing.assert_allclose(pooled.mean[layer], mean, rtol=1e-5)
        np.testing.assert_array_equal(pooled.max[layer], np.max([p.max[layer][0] for p in parts], axis=0))


def test_clips_of_any_lengths_keep_their_own_vectors_in_any_order(checkpoints):
    encoder = load_encoder(str(checkpoints / "95M-tiny"))
    waves = [melody(seconds, seed=i, rate=24_000)[:, 0] for i, seconds in enumerate((1.0, 2.3, 1.0, 4.9, 2.3))]
    together = encode_clips(encoder, waves, window_s=2.0)
    for i in (4, 0, 3, 1, 2):
        alone = encode_clips(encoder, [waves[i]], window_s=2.0)[0]
        assert alone.n_frames == together[i].n_frames
        for layer in range(4):
            np.testing.assert_allclose(alone.mean[layer], together[i].mean[layer], atol=1e-5)
            np.testing.assert_allclose(alone.max[layer], together[i].max[layer], atol=1e-4)
