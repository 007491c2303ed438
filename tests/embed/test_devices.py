"""One process per device embeds each clip once, with the vectors of a single process, even if a process dies."""

from __future__ import annotations

import os
import random
import signal

import polars as pl
import pytest
from comparing import assert_equal_vectors
from processes import running

from tonelake.embed import EmbedSettings, EncoderError, embed_lake, open_space
from tonelake.embed.device_processes import embed_on_devices, split_by_source
from tonelake.ingest import read_clips
from tonelake.store import InputError, silent_progress

CHILD = "tonelake.embed.device_process"
TWO = EmbedSettings("fakes:FakeEncoder", device="cpu,cpu")
TWO_SLOW = EmbedSettings("fakes:SlowFakeEncoder", device="cpu,cpu")


def test_shares_are_even_and_keep_a_source_together():
    rng = random.Random(0)
    due = pl.DataFrame(
        [{"clip_id": f"{s}-{c}", "source": f"s{s}", "duration_s": rng.uniform(5, 60)} for s in range(40) for c in range(3)]
    )
    shares = split_by_source(due, 4)
    assert sorted(clip for share in shares for clip in share) == sorted(due["clip_id"])
    owners = [{clip.split("-")[0] for clip in share} for share in shares]
    assert sum(map(len, owners)) == 40
    length = dict(due.select("clip_id", "duration_s").iter_rows())
    loads = [sum(length[clip] for clip in share) for share in shares]
    assert max(loads) < 1.1 * min(loads)


@pytest.mark.slow
def test_two_devices_embed_each_clip_once(tracks, reference):
    report = embed_lake(tracks, TWO, read_clips, frames=["1"])
    total = tracks.clips.count()
    assert (report.new, report.known, report.failed, report.framed) == (total, 0, 0, total)
    assert_equal_vectors(tracks, reference, frames=True)
    again = embed_lake(tracks, TWO, read_clips, frames=["1"])
    assert (again.new, again.known) == (0, total)


@pytest.mark.slow
def test_two_devices_give_a_models_vectors_of_a_single_process(tracks, ingested, checkpoints, tmp_path):
    """With a transformer: equal up to float16 storage, and sums in another order since each process has fewer threads."""
    import shutil

    from tonelake.store import Lake

    alone = Lake(shutil.copytree(ingested.uri, tmp_path / "alone"))
    folder = str(checkpoints / "95M-tiny")
    assert embed_lake(alone, EmbedSettings(folder, precision="float32", device="cpu"), read_clips, frames=[1]).failed == 0
    assert embed_lake(tracks, EmbedSettings(folder, precision="float32", device="cpu,cpu"), read_clips, frames=[1]).failed == 0
    assert_equal_vectors(tracks, alone, frames=True, tolerance=2e-3)


@pytest.mark.slow
def test_a_device_that_dies_is_named_and_its_share_is_embedded_later(tracks, reference):
    killed = []

    def kill_one(events, total, label):
        for event in events:
            yield event
            if not killed:
                killed.append(running(CHILD)[0])
                os.kill(killed[0], signal.SIGKILL)

    tracks.progress = kill_one
    with pytest.raises(EncoderError, match=r"cpu: its process ended with -9.*Run it again to resume"):
        embed_lake(tracks, TWO_SLOW, read_clips)
    tracks.progress = silent_progress
    stored = tracks.vectors().count()
    assert 0 < stored < tracks.clips.count()       # the other process finished its share
    assert not running(CHILD)
    report = embed_lake(tracks, EmbedSettings("fakes:SlowFakeEncoder", device="cpu"), read_clips)
    assert (report.new, report.known) == (tracks.clips.count() - stored, stored)
    assert_equal_vectors(tracks, reference)


@pytest.mark.slow
def test_interrupted_devices_store_their_encoded_clips(tracks):
    def interrupt(events, total, label):
        for number, event in enumerate(events):
            if number == 10:
                raise KeyboardInterrupt
            yield event

    tracks.progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        embed_lake(tracks, TWO_SLOW, read_clips)
    assert tracks.vectors().count() >= 10
    assert not running(CHILD)


def test_an_error_of_a_device_process_is_reported(tracks, monkeypatch):
    """The child refuses an encoder whose revision differs from that of the space."""
    import fakes

    monkeypatch.setattr(fakes.FakeEncoder, "revision", "2")          # in this process alone
    space, _ = open_space(tracks, EmbedSettings("fakes:FakeEncoder", device="cpu"))
    with pytest.raises(EncoderError, match="cpu: fake has changed since space 'fake' was embedded with it"):
        embed_on_devices(tracks, space, ["cpu"], read_clips)


def test_invalid_devices_engines_and_addresses_are_refused_before_a_space_is_made(tracks):
    one = EmbedSettings("fakes:FakeEncoder", device="cpu")
    with pytest.raises(InputError, match="engine 'spark': unknown"):
        embed_lake(tracks, one, read_clips, engine="spark")
    with pytest.raises(InputError, match="Add --engine ray"):
        embed_lake(tracks, one, read_clips, address="10.0.0.1:6379")
    with pytest.raises(InputError, match=r"device cuda:97: not on this machine"):
        embed_lake(tracks, EmbedSettings("fakes:FakeEncoder", device="cpu,cuda:97"), read_clips)
    with pytest.raises(InputError, match="has no layer '9'"):
        embed_lake(tracks, one, read_clips, frames=["9"])
    assert tracks.spaces.all() == []
