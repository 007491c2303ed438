"""Files that ingest does not read are counted by kind and suffix in its report."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from sounds import melody, write

from tonelake.ingest import ingest_dataset, ingest_folder
from tonelake.ingest.passed_over import note_on_folder, passed_over_note
from tonelake.store import InputError

DATA = Path(__file__).parents[1] / "data" / "other-suffixes"


def test_files_with_other_suffixes_are_counted_in_the_report(lake):
    report = ingest_folder(lake, DATA, seconds=None)
    assert (report.recordings, report.added.new) == (1, 1)
    assert report.notes == ("4 files left out by suffix: 2 video (1 mp4, 1 webm), 2 other audio (1 m4b, 1 wma)",)


def test_each_kind_is_named_and_hidden_files_are_not(lake, tmp_path):
    music = tmp_path / "music"
    write(music / "a.wav", melody(2))
    names = "x.MOD x.xm y.it sub/z.s3m v.mkv list.m3u list.cue n.mid c.jpg sub/c.JPG readme .hidden.mp4 ._x.mod e\udce9.x\udce9"
    for name in names.split():
        (music / name).parent.mkdir(exist_ok=True)
        (music / name).write_bytes(b"x")
    (music / "folder.mkv").mkdir()
    assert ingest_folder(lake, music, seconds=None).notes == (
        "8 files left out by suffix: 4 modules (1 it, 1 mod, 1 s3m, 1 xm), 1 video (1 mkv), 2 playlists (1 cue, 1 m3u), "
        "1 MIDI files and scores (1 mid); and 3 other files (2 jpg, 1 x\\udce9)",
    )
    assert note_on_folder(music) == (
        "7 files left out by suffix: 4 modules (1 it, 1 mod, 1 s3m, 1 xm), 1 video (1 mkv), 2 playlists (1 cue, 1 m3u)",
    )


def test_the_files_of_a_lake_inside_the_folder_are_not_counted(lake, tmp_path):
    write(tmp_path / "a.wav", melody(2))
    assert ingest_folder(lake, tmp_path, seconds=None).notes == ()
    assert ingest_folder(lake, tmp_path, seconds=None).notes == ()


def test_a_data_set_reports_video_beside_its_audio(lake, tmp_path):
    write(tmp_path / "genres" / "jazz" / "jazz.00001.wav", melody(2))
    shutil.copy(DATA / "five.mp4", tmp_path / "genres" / "jazz" / "jazz.00002.mp4")
    assert ingest_dataset(lake, "gtzan", tmp_path).notes[-1] == "1 files left out by suffix: 1 video (1 mp4)"


def test_a_folder_of_nothing_but_other_files_says_what_it_holds(lake, tmp_path):
    shutil.copy(DATA / "five.mp4", tmp_path)
    with pytest.raises(InputError, match=r"holds no audio files \(aac .*\); 1 files left out by suffix: 1 video \(1 mp4\)"):
        ingest_folder(lake, tmp_path)


def test_many_suffixes_are_cut():
    (note,) = passed_over_note(Counter({f".{i}": 10 - i for i in range(10)}))
    assert note == "55 other files (10 0, 9 1, 8 2, 7 3, 6 4, 5 5, …) left out by suffix"
    assert passed_over_note(Counter({"": 3})) == ()
