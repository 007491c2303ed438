"""Embedding stores every clip once with its own vector, also after interruptions."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from fakes import FakeEncoder
from sounds import melody, write

from tonelake import ingest
from tonelake.embed import CheckpointError, EmbedSettings, EncoderError, embed_clips, encoder_of, open_space
from tonelake.embed.settings import describe_space
from tonelake.ingest import ingest_folder, read_clips
from tonelake.store import InputError, Lake, SpaceMismatch


def embed_fake(lake: Lake, read=read_clips, encoder=None):
    encoder = encoder or FakeEncoder()
    space = lake.spaces.make(describe_space(encoder, "fake", 30.0))
    return embed_clips(lake, space, encoder, read)


# -- the pipeline


def test_every_clip_is_embedded_from_its_own_span(lake, music):
    ingest_folder(lake, music, seconds=4.0, hop=2.0)
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


def test_a_second_run_embeds_only_new_clips(six_tracks, tmp_path):
    assert embed_fake(six_tracks).new == 6
    version = six_tracks.vectors("fake").table.version
    again = embed_fake(six_tracks)
    assert (again.new, again.known) == (0, 6)
    assert six_tracks.vectors("fake").table.version == version
    write(tmp_path / "more" / "x.wav", melody(3, seed=50))
    ingest_folder(six_tracks, tmp_path / "more", seconds=None)
    third = embed_fake(six_tracks)
    assert (third.new, third.known) == (1, 6)


def test_the_encoder_is_prepared_for_its_windows_only_if_there_is_work(six_tracks):
    class Prepared(FakeEncoder):
        def prepare(self, samples):
            lengths.append(samples)

    lengths: list[int] = []
    embed_fake(six_tracks, encoder=Prepared())
    assert lengths == [30 * FakeEncoder.sample_rate]
    embed_fake(six_tracks, encoder=Prepared())
    assert len(lengths) == 1             # preparing may mean compiling for minutes


def test_a_clip_that_cannot_be_read_is_a_failure_until_it_can(lake, tmp_path):
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


def test_a_vector_that_is_not_finite_is_a_failure_and_not_stored(six_tracks):
    class Broken(FakeEncoder):
        def encode(self, windows, *how):
            pooled = super().encode(windows, *how)
            if self.calls == 2:
                pooled.mean[0][0, 1] = np.nan
            self.calls += 1
            return pooled

        calls = 0

    report = embed_fake(six_tracks, encoder=Broken())
    assert (report.new, report.failed) == (5, 1)
    assert "NaN" in six_tracks.failures.read()["error"].item()


def test_clips_encoded_before_an_interruption_are_stored(six_tracks):
    def interrupted(clips, rate, workers):
        for number, item in enumerate(read_clips(clips, rate, workers)):
            if number == 4:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        embed_fake(six_tracks, interrupted)
    assert six_tracks.vectors("fake").count() == 4
    assert embed_fake(six_tracks).new == 2


def test_a_replaced_file_is_not_embedded_as_the_old_one(lake, tmp_path):
    path = write(tmp_path / "music" / "a.wav", melody(3, seed=1))
    ingest_folder(lake, tmp_path / "music")
    write(path, melody(3, seed=2))
    assert embed_fake(lake).failed == 1
    assert "has changed since it was ingested" in lake.failures.read()["error"].item()
    ingest_folder(lake, tmp_path / "music")
    report = embed_fake(lake)
    assert (report.new, report.failed) == (1, 0)


# -- spaces and settings


def test_a_space_keeps_its_settings_and_auto_uses_them(six_tracks, checkpoints):
    folder = str(checkpoints / "95M-tiny")
    first, _ = open_space(six_tracks, EmbedSettings(folder, precision="bfloat16", device="cpu", window_s=5.0))
    assert (first.name, first.precision, first.window_s) == ("95m-tiny-w5-bfloat16", "bfloat16", 5.0)
    again, encoder = open_space(six_tracks, EmbedSettings(folder, window_s=5.0))
    assert again == first
    assert encoder.precision == "bfloat16"
    by_name, _ = open_space(six_tracks, EmbedSettings(space=first.name))
    assert by_name == first
    other, _ = open_space(six_tracks, EmbedSettings(folder, precision="float32", device="cpu"))
    assert other.name == "95m-tiny"
    assert other.fingerprint != first.fingerprint
    with pytest.raises(SpaceMismatch, match=r"window_s 5\.0 \(wanted 10\.0\)"):
        open_space(six_tracks, EmbedSettings(folder, space=first.name, window_s=10.0))


def test_different_weights_under_one_name_make_another_space(lake, checkpoints, tmp_path):
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
        ({"encoder": "spectral", "space": "a/b"}, "not a valid name"),
        ({"encoder": "spectral", "precision": "int4"}, "Choose auto, float32"),
        ({"encoder": "spectral", "window_s": 0.1}, "Give a number from 1 to 360"),
        ({"encoder": "spectral", "precision": "bfloat16"}, "float32 only"),
        ({"encoder": "no/such", "device": "cpu"}, "/no/such': neither a checkpoint folder"),
    ],
)
def test_invalid_settings_are_refused_before_a_space_is_made(lake, settings, words):
    with pytest.raises(InputError, match=words):
        open_space(lake, EmbedSettings(**settings))
    assert lake.spaces.all() == []


def test_a_device_that_this_machine_lacks_is_an_error(lake, checkpoints):
    import torch

    if torch.cuda.is_available():
        device = f"cuda:{torch.cuda.device_count()}"
    else:
        device = "cuda"
    with pytest.raises(InputError, match=f"device '{device}': not on this machine"):
        open_space(lake, EmbedSettings(str(checkpoints / "95M-tiny"), device=device))
    with pytest.raises(InputError, match="device 'gpu': unknown"):
        open_space(lake, EmbedSettings(str(checkpoints / "95M-tiny"), device="gpu"))


def test_an_empty_lake_is_an_error_that_names_ingest(lake):
    with pytest.raises(InputError, match="tonelake ingest"):
        embed_fake(lake)
