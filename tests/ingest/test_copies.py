"""Files with the same bytes are stored once: the report names them, and labels that contradict each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sounds import melody, write

from tonelake.ingest import ingest_folder, ingest_manifest
from tonelake.store import Added

DATA = Path(__file__).parents[1] / "data" / "same-bytes"


def test_copies_and_their_contradicting_labels_are_named_on_every_run(lake):
    for added in (Added(new=1, copies=2), Added(known=1, copies=2)):
        report = ingest_folder(lake, DATA / "music", seconds=None, labels=DATA / "labels.csv")
        assert (report.recordings, report.copies, report.added) == (3, 2, added)
        assert "2 copies of other files" in str(report)
        matched, copies, labels = report.notes
        assert matched == "labels.csv: 3 of 3 rows matched by path"
        assert copies == "2 files are copies, whose clips are stored once: three.mp3 of one.mp3, two.mp3 of one.mp3"
        assert labels == (
            "labels of copies that differ from those of the stored file were left out: genre (three.mp3: rock, stored: jazz; "
            "two.mp3: blues, stored: jazz), split (three.mp3: test, stored: train; two.mp3: test, stored: train)"
        )
        assert lake.clips.read(["genre", "split"]).rows() == [("jazz", "train")]


def test_copies_with_equal_labels_are_named_without_a_complaint(lake, tmp_path):
    write(tmp_path / "music" / "album" / "01.wav", melody(6))
    (tmp_path / "music" / "best").mkdir()
    shutil.copy(tmp_path / "music" / "album" / "01.wav", tmp_path / "music" / "best" / "01.wav")
    (tmp_path / "l.csv").write_text("path,year,tags\nalbum/01.wav,1999,a|b\nbest/01.wav,1999,a|b\n", encoding="utf-8")
    for _ in range(2):
        report = ingest_folder(lake, tmp_path / "music", seconds=2.0, labels=tmp_path / "l.csv", multi=["tags"])
        assert report.notes[1:] == ("1 files are copies, whose clips are stored once: best/01.wav of album/01.wav",)
        assert (report.copies, report.added.copies) == (1, 3)


def test_a_copy_in_a_later_run_is_named_with_the_labels_that_it_lacks(lake, tmp_path):
    write(tmp_path / "first" / "a.wav", melody(3))
    ingest_folder(lake, tmp_path / "first", seconds=None)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    (tmp_path / "l.csv").write_text("path,genre,tags\na.wav,rock,x|y\n", encoding="utf-8")
    report = ingest_folder(lake, tmp_path / "second", seconds=None, labels=tmp_path / "l.csv", multi=["tags"])
    assert report.copies == 1
    assert report.notes[1] == "1 files are copies, whose clips are stored once: second/a.wav of first/a.wav"
    assert report.notes[2].endswith("left out: genre (a.wav: rock, stored: nothing), tags (a.wav: x|y, stored: nothing)")


def test_a_moved_file_is_no_copy(lake, tmp_path):
    path = write(tmp_path / "music" / "a.wav", melody(3))
    ingest_folder(lake, tmp_path / "music", seconds=None)
    path.rename(path.with_name("b.wav"))
    report = ingest_folder(lake, tmp_path / "music", seconds=None)
    assert (report.copies, report.notes) == (0, ())
    assert Path(lake.clips.read()["source"].item()).name == "b.wav"


def test_a_copy_that_is_listed_first_does_not_replace_the_labels_of_its_original(lake, tmp_path):
    write(tmp_path / "b.wav", melody(3))
    ingest_folder(lake, tmp_path, seconds=None)
    shutil.copy(tmp_path / "b.wav", tmp_path / "a.wav")
    (tmp_path / "l.csv").write_text("path,genre\na.wav,pop\nb.wav,rock\n", encoding="utf-8")
    report = ingest_folder(lake, tmp_path, seconds=None, labels=tmp_path / "l.csv")
    assert report.added == Added(changed=1, copies=1)
    assert lake.clips.read(["track", "genre"]).rows() == [("b.wav", "rock")]


@pytest.mark.parametrize("start", ["0", "1"])
def test_spans_of_a_manifest_that_are_stored_under_another_path_are_named(lake, tmp_path, start):
    write(tmp_path / "a.wav", melody(6))
    shutil.copy(tmp_path / "a.wav", tmp_path / "b.wav")
    (tmp_path / "m.csv").write_text(f"path,start,seconds,mood\na.wav,0,2,calm\nb.wav,{start},2,wild\n", encoding="utf-8")
    report = ingest_manifest(lake, tmp_path / "m.csv")
    if start == "1":                                     # another span of the copy is a clip of its own
        assert (report.added, report.copies, report.notes) == (Added(new=2), 0, ("m.csv: 2 rows of 2 files",))
    else:
        assert (report.added, report.copies) == (Added(new=1, copies=1), 1)
        assert report.notes[2].endswith("mood (b.wav: wild, stored: calm)")


def test_a_span_to_the_end_that_is_also_listed_with_its_length_is_named(lake, tmp_path):
    write(tmp_path / "a.wav", melody(3))
    (tmp_path / "m.csv").write_text("path,start,seconds,mood\na.wav,0,,calm\na.wav,0,3,wild\n", encoding="utf-8")
    report = ingest_manifest(lake, tmp_path / "m.csv")
    assert (report.added.new, report.copies) == (1, 0)
    assert report.notes[1].endswith("mood (a.wav: wild, stored: calm)")
