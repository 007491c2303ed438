"""Repeated ingests: recorded options and no others; files left out; a drive that goes away in the middle of one."""

from __future__ import annotations

import pytest
from library import InProcess
from sounds import melody, write

from tonelake.ingest import can_repeat, ingest_folder, repeat_ingest
from tonelake.store import Ingest, InputError

RATE = 8_000


@pytest.fixture
def music(tmp_path, monkeypatch):
    monkeypatch.setattr("tonelake.ingest.recordings.DecoderPool", InProcess)
    for number in range(3):
        write(tmp_path / "Jazz" / f"{number}.wav", melody(1.2, seed=number, rate=RATE), RATE)
    return tmp_path / "Jazz"


def test_kinds_and_options_that_this_version_lacks_are_refused(lake, music):
    assert not can_repeat(Ingest(kind="catalogue", root="/list.json"))
    with pytest.raises(InputError, match=r"/list\.json: was ingested by `tonelake ingest catalogue`, which cannot be repeated"):
        repeat_ingest(lake, Ingest(kind="catalogue", root="/list.json"))
    for option in ("sharpness", "leave_out", "workers", "lake"):
        with pytest.raises(InputError, match=f"with the option '{option}', which this version does not have"):
            repeat_ingest(lake, Ingest(kind="folder", root=str(music), options={option: 1}))
    assert lake.clips.count() == 0 and lake.ingests.all() == []


def test_files_that_are_left_out_are_neither_read_nor_marked_missing(lake, music):
    left_out = {music / "0.wav", music / "1.wav"}
    assert ingest_folder(lake, music, seconds=None, leave_out=left_out - {music / "1.wav"}).recordings == 2
    ingest, = lake.ingests.all()
    report = repeat_ingest(lake, ingest, leave_out=left_out)
    assert report.recordings == 1 and report.missing == 0 and lake.paths.count("missing_since IS NULL") == 2
    assert repeat_ingest(lake, ingest).new == 1


@pytest.mark.parametrize("empty", [False, True])
def test_a_drive_that_goes_away_during_an_ingest_marks_nothing_as_missing(lake, music, monkeypatch, empty):
    ingest_folder(lake, music, seconds=None)
    write(music / "3.wav", melody(1.2, seed=3, rate=RATE), RATE)
    away = music.with_name("away")

    class Unplugged(InProcess):
        def map(self, requests):
            requests = list(requests)
            if not away.exists():
                music.rename(away)
                if empty:
                    music.mkdir()        # the mount point
            yield from super().map(requests)

    monkeypatch.setattr("tonelake.ingest.recordings.DecoderPool", Unplugged)
    report = ingest_folder(lake, music, seconds=None)
    assert report.failed and not report.missing and lake.paths.count("missing_since IS NOT NULL") == 0
    assert lake.clips.count("state IS NULL") == 3
