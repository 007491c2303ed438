"""Frames are stored as encoded, once per clip and layer, and read without the other clips and layers."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from fakes import FakeEncoder
from sounds import melody, write

from tonelake.embed import embed_clips, encode_clips
from tonelake.embed.settings import describe_space
from tonelake.ingest import ingest_folder, read_clips, read_source
from tonelake.store import InputError, Lake, LakeError
from tonelake.store.frames import FrameStates


@pytest.fixture(scope="module")
def embedded_once(ingested_music, tmp_path_factory):
    """Six clips of nine seconds in windows of four, with frames of layer `high`.  Do not change it."""
    lake = Lake(shutil.copytree(ingested_music.uri, tmp_path_factory.mktemp("frames") / "lake"))
    space = lake.spaces.make(describe_space(FakeEncoder(), "fake", 4.0, 3.0))
    report = embed_clips(lake, space, FakeEncoder(), read_clips, frames=[1])
    assert (report.new, report.framed, report.failed) == (6, 6, 0)
    return lake, space


@pytest.fixture
def embedded(embedded_once, tmp_path):
    """A copy of `embedded_once`: (lake, space)."""
    lake, space = embedded_once
    return Lake(shutil.copytree(lake.uri, tmp_path / "embedded")), space


def test_stored_frames_equal_the_encoders_in_order_of_time(embedded):
    lake, _ = embedded
    encoder = FakeEncoder()
    for clip in lake.clips.read().iter_rows(named=True):
        wave = read_source(clip["source"], clip["start_s"], clip["duration_s"], encoder.sample_rate)
        expected = encode_clips(encoder, [wave], 4.0, 3.0, frames=[1])[0]
        found = lake.frames("fake").read(clip["clip_id"], "high")
        np.testing.assert_array_equal(found.states, expected.frames[0])
        np.testing.assert_array_equal(found.frame_s, expected.frame_s)
        assert found.frame_s[0] == pytest.approx(50 / 8_000)
        assert found.states.dtype == np.float16
        vector = lake.vectors("fake").take([clip["clip_id"]], "high").vectors[0]
        np.testing.assert_allclose(vector, found.states.astype(float).mean(axis=0), rtol=5e-3, atol=5e-3)


def test_frames_of_another_layer_are_added_and_stored_ones_stay(embedded):
    lake, space = embedded
    before = lake.vectors("fake").layer("high").vectors
    report = embed_clips(lake, space, FakeEncoder(), read_clips, frames=[0, 1])
    assert (report.new, report.framed, report.known) == (0, 6, 6)
    assert lake.frames("fake").layers() == [0, 1]
    assert lake.frames("fake").table.count() == 12
    np.testing.assert_array_equal(lake.vectors("fake").layer("high").vectors, before)
    report = embed_clips(lake, space, FakeEncoder(), read_clips, frames=[0, 1])
    assert (report.new, report.framed, report.known) == (0, 0, 6)


def test_new_clips_get_frames_of_the_requested_layers(embedded, tmp_path):
    lake, space = embedded
    write(tmp_path / "more" / "x.wav", melody(5, seed=40))
    ingest_folder(lake, tmp_path / "more", seconds=None)
    report = embed_clips(lake, space, FakeEncoder(), read_clips, frames=[1])
    assert (report.new, report.framed, report.known) == (1, 1, 6)
    assert len({states.clip_id for states in lake.frames("fake").each(layer=1)}) == 7


def test_missing_frames_are_an_error_that_names_the_command(embedded):
    lake, _ = embedded
    clip = lake.clips.read(["clip_id"])["clip_id"][0]
    with pytest.raises(InputError, match="tonelake embed --space fake --frames low"):
        lake.frames("fake").read(clip, "low")
    with pytest.raises(InputError, match="clip 0000: has no stored frames of layer high"):
        lake.frames("fake").read("0000", 1)
    assert list(lake.frames("fake").each(["0000"], 1)) == []


def test_frames_of_a_wrong_shape_are_refused(embedded):
    lake, _ = embedded
    with pytest.raises(LakeError, match=r"\(3, 5\) instead of \(3, 6\)"):
        lake.frames("fake").add([FrameStates("a", 1, np.zeros(3, np.float32), np.zeros((3, 5), np.float16))])
    assert lake.frames("fake").add([]) == 0


def test_frames_beyond_float16_are_a_failure(six_tracks):
    class Loud(FakeEncoder):
        def encode(self, windows, keep=None, frames=()):
            pooled = super().encode(windows, keep, frames)
            return pooled._replace(frames=[[states + np.float16(np.inf) for states in layer] for layer in pooled.frames])

    space = six_tracks.spaces.make(describe_space(Loud(), "fake", 30.0))
    report = embed_clips(six_tracks, space, Loud(), read_clips, frames=[1])
    assert (report.new, report.failed) == (0, 6)
    assert "float16" in six_tracks.failures.read()["error"][0]


def test_a_reader_returns_frames_of_clips_in_any_order_and_refuses_clips_without(embedded, tmp_path):
    lake, _ = embedded
    frames, ids = lake.frames("fake"), lake.clips.ids().to_list()
    read = frames.reader(ids[::-1], "high")
    for clip_id, states in zip([ids[0], ids[5], ids[0]], read([5, 0, 5]), strict=True):
        np.testing.assert_array_equal(states, frames.read(clip_id, "high").states)
    write(tmp_path / "more" / "x.wav", melody(5, seed=40))
    ingest_folder(lake, tmp_path / "more", seconds=None)
    with pytest.raises(InputError, match="layer high: 1 of 7 clips have no stored frames"):
        frames.reader(lake.clips.ids().to_list(), "high")
    with pytest.raises(InputError, match="layer low: 6 of 6 clips have no stored frames"):
        frames.reader(ids, "low")


def test_only_clips_with_every_requested_layer_are_complete(embedded):
    lake, space = embedded
    frames, ids = lake.frames(space), lake.clips.ids().to_list()
    some = frames.read(ids[2], 1)
    frames.add([FrameStates(ids[2], 0, some.frame_s, np.ones((len(some.frame_s), 4), np.float16))])
    assert set(frames.complete([1])) == set(ids) and set(frames.complete([0, 1, 1])) == {ids[2]} == set(frames.complete([0]))
