"""Embedding: every clip once, with the right vector, whatever interrupts it."""

from __future__ import annotations

import itertools
import random
import shutil
import time

import numpy as np
import pytest
import warm
from fakes import FRAME, FakeEncoder
from sounds import melody, write

import ingest
from embed import (
    CheckpointError,
    EmbedSettings,
    EncoderError,
    embed_clips,
    encode_clips,
    encoder_of,
    load_encoder,
    open_space,
)
from embed.settings import describe_space
from embed.spectral import FAMILIES, describe
from embed.windows import place_windows
from ingest import Cut, ingest_chorales, ingest_folder, read_clips
from store import InputError, Lake, SpaceMismatch


def embed_fake(lake: Lake, read=read_clips, encoder=None):
    encoder = encoder or FakeEncoder()
    space = lake.spaces.make(describe_space(encoder, "fake", 30.0))
    return embed_clips(lake, space, encoder, read)


# -- windows


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


def test_overlapping_windows_count_each_moment_once_and_give_it_context():
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
        context = (window - hop) // 2    # on either side of what counts, but at the clip's ends
        assert all(w.first - w.begin >= context for w in found[1:])
        assert all(w.end - w.last >= context for w in found[:-1])


@pytest.mark.parametrize("name", ["fake", "95M-tiny", "spectral"])
def test_overlap_equals_a_calculation_written_out_frame_by_frame(name, checkpoints):
    """Second opinion: each frame's time by arithmetic, each frame taken from the window in whose middle it lies."""
    encoder = FakeEncoder() if name == "fake" else load_encoder(str(checkpoints / name) if "-" in name else name)
    rate = encoder.sample_rate
    wave = melody(9.7, rate=rate)[:, 0]
    pooled = encode_clips(encoder, [wave], window_s=4.0, hop_s=1.5, frames=(0, 1))[0]
    states, times = [], []
    starts = [0.0, 1.5, 3.0, 4.5, 5.7]                               # the last window ends with the clip
    meets = [0.0, 2.75, 4.25, 5.75, (4.5 + 4.0 + 5.7) / 2, 9.7]      # half-way through what two windows share
    for start, first, last in zip(starts, meets[:-1], meets[1:], strict=True):
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
    """Second opinion: the same windows, frame by frame, in NumPy."""
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


# -- the pipeline


def test_every_clip_is_embedded_from_its_own_span(lake, music):
    ingest_folder(lake, music, Cut(4.0, 2.0))
    report = embed_fake(lake)
    assert (report.new, report.known, report.failed) == (18, 0, 0)
    encoder = FakeEncoder()
    clips = {c["clip_id"]: c for c in lake.clips.read().iter_rows(named=True)}
    found = lake.vectors("fake").layer("high")
    assert sorted(found.ids) == sorted(clips)
    for clip_id, vector in zip(found.ids, found.vectors, strict=True):
        clip = clips[clip_id]
        wave = ingest.read_source(clip["source"], clip["start_s"], clip["duration_s"], encoder.sample_rate)
        np.testing.assert_allclose(vector, encoder.encode(wave[None]).mean[1][0], rtol=2e-3, atol=2e-3)     # float16


def test_a_second_run_embeds_nothing_and_new_clips_only_later(lake, music, tmp_path):
    ingest_folder(lake, music, Cut(None))
    assert embed_fake(lake).new == 6
    version = lake.vectors("fake").table.version
    again = embed_fake(lake)
    assert (again.new, again.known) == (0, 6)
    assert lake.vectors("fake").table.version == version
    write(tmp_path / "more" / "x.wav", melody(3, seed=50))
    ingest_folder(lake, tmp_path / "more", Cut(None))
    third = embed_fake(lake)
    assert (third.new, third.known) == (1, 6)


def test_what_cannot_be_read_is_on_record_until_it_can(lake, tmp_path):
    path = write(tmp_path / "music" / "a.wav", melody(3, seed=1))
    write(tmp_path / "music" / "b.wav", melody(3, seed=2))
    ingest_folder(lake, tmp_path / "music")
    path.rename(tmp_path / "away.wav")
    report = embed_fake(lake)
    assert (report.new, report.failed) == (1, 1)
    assert lake.failures.read(stage="embed:fake")["source"].to_list() == [str(path)]
    (tmp_path / "away.wav").rename(path)
    report = embed_fake(lake)
    assert (report.new, report.known, report.failed) == (1, 1, 0)
    assert lake.failures.count() == 0


def test_a_vector_that_is_not_finite_is_a_failure_and_not_stored(lake, music):
    class Broken(FakeEncoder):
        def encode(self, windows, *how):
            pooled = super().encode(windows, *how)
            if self.calls == 2:
                pooled.mean[0][0, 1] = np.nan
            self.calls += 1
            return pooled

        calls = 0

    ingest_folder(lake, music, Cut(None))
    report = embed_fake(lake, encoder=Broken())
    assert (report.new, report.failed) == (5, 1)
    assert "NaN" in lake.failures.read()["error"].item()


def test_what_is_encoded_when_interrupted_is_stored(lake, music):
    def interrupted(clips, rate, workers):
        for number, item in enumerate(read_clips(clips, rate, workers)):
            if number == 4:
                raise KeyboardInterrupt
            yield item

    ingest_folder(lake, music, Cut(None))
    with pytest.raises(KeyboardInterrupt):
        embed_fake(lake, interrupted)
    assert lake.vectors("fake").count() == 4
    assert embed_fake(lake).new == 2


def test_a_file_that_was_replaced_is_not_embedded_as_the_old_one(lake, tmp_path):
    path = write(tmp_path / "music" / "a.wav", melody(3, seed=1))
    ingest_folder(lake, tmp_path / "music")
    write(path, melody(3, seed=2))
    assert embed_fake(lake).failed == 1
    assert "has changed since it was ingested" in lake.failures.read()["error"].item()
    ingest_folder(lake, tmp_path / "music")
    report = embed_fake(lake)
    assert (report.new, report.failed) == (1, 0)


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A lake with the clips of twelve chorales.  Do not change it."""
    lake = Lake(tmp_path_factory.mktemp("twelve") / "lake")
    ingest_chorales(lake, limit=12)
    return lake


@pytest.fixture
def chorales(twelve, tmp_path):
    """Its copy."""
    return Lake(shutil.copytree(twelve.uri, tmp_path / "chorales"))


@pytest.fixture(scope="module")
def undisturbed(twelve, tmp_path_factory, checkpoints):
    """The same clips, embedded in one go."""
    lake = Lake(shutil.copytree(twelve.uri, tmp_path_factory.mktemp("undisturbed") / "lake"))
    space, encoder = open_space(lake, EmbedSettings(str(checkpoints / "95M-tiny"), precision="float32", device="cpu"))
    assert embed_clips(lake, space, encoder, read_clips).failed == 0
    return lake


def assert_same_vectors(lake: Lake, reference: Lake) -> None:
    mine, theirs = lake.vectors(), reference.vectors()
    assert mine.space.fingerprint == theirs.space.fingerprint
    assert mine.count() == mine.ids().n_unique() == reference.clips.count()
    ids = reference.clips.read(["clip_id"])["clip_id"].to_list()
    for layer in range(len(mine.space.layers)):
        for stat in ("mean", "max"):
            np.testing.assert_array_equal(mine.take(ids, layer, stat=stat).vectors, theirs.take(ids, layer, stat=stat).vectors)


def test_ten_kills_leave_each_clip_embedded_once_with_the_same_vectors(chorales, checkpoints, undisturbed):
    encoder = str(checkpoints / "95M-tiny")
    rng = random.Random(7)
    kills = met_work = 0
    while kills < 10:
        process = warm.start(warm.embed_in_small_commits, chorales.uri, encoder)
        before = count(chorales)
        deadline = time.monotonic() + 60
        # Wait until this run has stored something, then kill it at a random moment of its work; every third one earlier.
        while kills % 3 and count(chorales) == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 0.25) if kills % 3 else rng.uniform(0.5, 3.0))
        process.kill()
        process.join()
        kills += 1
        met_work += 0 < count(chorales) < chorales.clips.count()
    assert met_work >= 3                 # the kills met a run that was at work, not one that was done
    last = warm.start(warm.embed_in_small_commits, chorales.uri, encoder)
    last.join(480)
    assert last.exitcode == 0
    assert_same_vectors(chorales, undisturbed)


def count(lake: Lake) -> int:
    spaces = lake.spaces.all()
    return lake.vectors(spaces[0]).count() if spaces else 0


def test_two_runs_at_once_embed_each_clip_once(chorales, checkpoints, undisturbed):
    encoder = str(checkpoints / "95M-tiny")
    runs = [warm.start(warm.embed_in_small_commits, chorales.uri, encoder) for _ in range(2)]
    try:
        for run in runs:
            run.join(480)
            assert run.exitcode == 0
    finally:
        for run in runs:
            run.kill()
    assert_same_vectors(chorales, undisturbed)


# -- spaces and settings


def test_a_space_keeps_its_settings_and_auto_takes_them_up(lake, music, checkpoints):
    ingest_folder(lake, music, Cut(None))
    folder = str(checkpoints / "95M-tiny")
    first, _ = open_space(lake, EmbedSettings(folder, precision="bfloat16", device="cpu", window_s=5.0))
    assert (first.name, first.precision, first.window_s) == ("95m-tiny-w5-bfloat16", "bfloat16", 5.0)
    again, encoder = open_space(lake, EmbedSettings(folder, window_s=5.0))
    assert again == first
    assert encoder.precision == "bfloat16"
    by_name, _ = open_space(lake, EmbedSettings(space=first.name))
    assert by_name == first
    other, _ = open_space(lake, EmbedSettings(folder, precision="float32", device="cpu"))
    assert other.name == "95m-tiny"
    assert other.fingerprint != first.fingerprint
    with pytest.raises(SpaceMismatch, match=r"window_s 5\.0 \(wanted 10\.0\)"):
        open_space(lake, EmbedSettings(folder, space=first.name, window_s=10.0))


def test_other_weights_of_one_name_make_another_space(lake, checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints / "95M-tiny", tmp_path / "model")
    first, _ = open_space(lake, EmbedSettings(str(folder), precision="float32", device="cpu"))
    shutil.rmtree(folder)
    shutil.copytree(checkpoints / "330M-tiny", folder)
    second, _ = open_space(lake, EmbedSettings(str(folder), precision="float32", device="cpu"))
    assert first.name == "model"
    assert second.name.startswith("model-")
    with pytest.raises(EncoderError, match="has changed since space 'model' was embedded"):
        encoder_of(first)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(CheckpointError):
        encoder_of(first)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EmbedSettings("spectral", space="a/b"), "cannot name a space"),
        (EmbedSettings("spectral", precision="int4"), "choose auto, float32"),
        (EmbedSettings("spectral", window_s=0.1), "choose from 1 to 120"),
        (EmbedSettings("spectral", precision="bfloat16"), "float32 only"),
        (EmbedSettings("no/such", device="cpu"), "neither a checkpoint folder"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_a_space_is_made(lake, settings, words):
    with pytest.raises((InputError, EncoderError), match=words):
        open_space(lake, settings)
    assert lake.spaces.all() == []


def test_a_device_that_is_not_here_is_named(lake, checkpoints):
    import torch

    if torch.cuda.is_available():
        device = f"cuda:{torch.cuda.device_count()}"
    else:
        device = "cuda"
    with pytest.raises(EncoderError, match=f"device '{device}' is not on this machine"):
        open_space(lake, EmbedSettings(str(checkpoints / "95M-tiny"), device=device))
    with pytest.raises(InputError, match="no device 'gpu'"):
        open_space(lake, EmbedSettings(str(checkpoints / "95M-tiny"), device="gpu"))


def test_an_empty_lake_says_to_ingest_first(lake):
    with pytest.raises(InputError, match="tonelake ingest"):
        embed_fake(lake)


# -- spectral


def test_spectral_families_tell_what_they_are_for():
    """Chroma follows the pitch class, rhythm the beat, and loudness changes no family that leaves it out."""
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
        assert [m.shape for m in pooled.mean] == [(1, dim) for dim in FAMILIES.values()]
        assert all(np.isfinite(v).all() for v in (*pooled.mean, *pooled.max))


