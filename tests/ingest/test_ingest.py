"""Folders and manifests become clips: every file is a clip or a failure, none twice, and labels reach their files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import polars as pl
import pytest
from hostile import REJECTED
from sounds import encode, melody, write

from tonelake.ingest import Cut, ingest_folder, ingest_manifest
from tonelake.ingest.audio_files import SUFFIXES
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.ingest.scan import clip_id
from tonelake.ingest.segment import is_silent
from tonelake.ingest.tables import read_table
from tonelake.store import Added, InputError


def csv(path, text: str, encoding: str = "utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


# -- folders


def test_a_folder_of_every_format_becomes_clips_with_tags(lake, music):
    report = ingest_folder(lake, music, seconds=4.0)
    assert (report.recordings, report.failed) == (6, 0)
    clips = lake.clips.read()
    assert clips.group_by("track").len()["len"].to_list() == [2] * 6
    assert set(clips["artist"]) == {"Ada", "Béla", "Cleo"}
    song = clips.filter(pl.col("track") == "Béla/song4.opus")
    assert song["start_s"].to_list() == [0.0, 4.0]
    assert song["title"].unique().to_list() == ["Song 4"]
    assert song["album"].unique().to_list() == ["Album of Béla"]
    assert song["source"].unique().to_list() == [str(music / "Béla" / "song4.opus")]
    assert song["cut"].unique().to_list() == ["4s"]


def test_another_cut_adds_clips_and_keeps_the_old_ones(lake, music):
    ingest_folder(lake, music, seconds=4.0)
    assert ingest_folder(lake, music, seconds=None).added == Added(new=6)
    assert lake.clips.count("cut = 'whole'") == 6
    assert lake.clips.count() == 18


@pytest.mark.parametrize(
    ("cut", "spans"),
    [
        (Cut(3.0), [(0, 3), (3, 3), (6, 3)]),
        (Cut(4.0), [(0, 4), (4, 4)]),
        (Cut(3.5), [(0, 3.5), (3.5, 3.5), (7, 2)]),
        (Cut(4.0, 2.0), [(0, 4), (2, 4), (4, 4)]),
        (Cut(30.0), [(0, 9)]),
        (Cut(None), [(0, 9)]),
    ],
)
def test_a_cut_makes_the_expected_spans(lake, tmp_path, cut, spans):
    write(tmp_path / "music" / "a.wav", melody(9))
    ingest_folder(lake, tmp_path / "music", seconds=cut.seconds, hop=cut.hop_s)
    assert [tuple(row) for row in lake.clips.read(["start_s", "duration_s"]).iter_rows()] == spans


@pytest.mark.parametrize(("seconds", "hop"), [(0.0, None), (-1.0, None), (30.0, 0.0), (30.0, 3_601.0), (1e9, None),
                                             (None, 3.0)])
def test_an_impossible_cut_is_refused(seconds, hop):
    with pytest.raises(InputError):
        Cut(seconds, hop)


@pytest.mark.slow
def test_every_odd_file_is_a_recorded_failure_and_the_good_ones_are_ingested(lake, tmp_path):
    for name, (make, _) in REJECTED.items():
        make(tmp_path / "music" / name)
    write(tmp_path / "music" / "good.wav", melody(3))
    report = ingest_folder(lake, tmp_path / "music")
    assert report.failed == len(REJECTED)
    assert lake.clips.read()["track"].to_list() == ["good.wav"]
    failures = lake.failures.read()
    assert {Path(s).name for s in failures["source"]} == set(REJECTED)
    assert set(failures["stage"]) == {"ingest"}
    again = ingest_folder(lake, tmp_path / "music")
    assert (again.failed, lake.failures.count()) == (len(REJECTED), len(REJECTED))


def test_the_failure_of_a_repaired_file_is_cleared(lake, tmp_path):
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "a.wav").write_bytes(b"")
    write(tmp_path / "music" / "b.wav", melody(3))
    assert ingest_folder(lake, tmp_path / "music").failed == 1
    write(tmp_path / "music" / "a.wav", melody(3, seed=9))
    report = ingest_folder(lake, tmp_path / "music")
    assert (report.failed, report.added) == (0, Added(new=1, known=1))
    assert lake.failures.count() == 0


def test_an_edited_file_gets_new_clips_and_its_old_ones_leave_every_answer(lake, tmp_path):
    path = write(tmp_path / "music" / "a.wav", melody(3, seed=1))
    ingest_folder(lake, tmp_path / "music")
    old = lake.clips.read()["clip_id"].item()
    write(path, melody(3, seed=2))
    report = ingest_folder(lake, tmp_path / "music")
    assert (report.added.new, report.superseded) == (1, 1)
    states = dict(lake.clips.read(["clip_id", "state"], superseded=True).iter_rows())
    assert states.pop(old) == "superseded"
    assert list(states.values()) == [None]
    assert lake.clips.ids().to_list() == list(states)
    assert ingest_folder(lake, tmp_path / "music").superseded == 0


def test_files_with_the_same_stem_are_two_tracks(lake, tmp_path):
    write(tmp_path / "music" / "a.wav", melody(3, seed=1))
    encode(tmp_path / "music" / "a.mp3", melody(3, seed=2))
    ingest_folder(lake, tmp_path / "music")
    assert sorted(lake.clips.read()["track"]) == ["a.mp3", "a.wav"]


@pytest.mark.parametrize(
    ("start_s", "duration_s", "silent"),
    [(0, 2, True), (0, 2.1, False), (1.5, 0.4, True), (1.5, 0.6, False), (2, 0.3, False), (2.9, 0.05, False), (2.9, 3, False),
     (3, 2, True), (3.2, 0.1, True), (9, 1, True)],
)
def test_a_span_is_silent_if_every_second_that_it_touches_is_silent(start_s, duration_s, silent):
    assert is_silent([0.0, 0.0, 0.5, 0.0, 0.0], start_s, duration_s) == silent


def test_clip_ids_are_stable():
    """Other ids would make every library embed again: only DECODE_VERSION may change them."""
    assert clip_id("ab" * 16, 12.5, 30.0) == "8e9b90c5016a43f10772"
    assert clip_id("ab" * 16, 0.0, 29.9999995) == "20f22264c10ac3a61393"
    spans = [(12.5, 30.0), (12.500001, 30.0), (12.5, 30.000001), (1_000_012.5, 30.0)]
    assert len({clip_id(digest * 16, *span) for digest in ("ab", "cd") for span in spans}) == 8


def test_a_silent_stretch_is_a_flagged_clip(lake, tmp_path):
    sound = melody(9)
    sound[44_100 * 3 : 44_100 * 6] = 0
    write(tmp_path / "music" / "a.wav", sound)
    report = ingest_folder(lake, tmp_path / "music", seconds=3.0)
    assert report.flagged == 1
    assert lake.clips.read(["start_s", "flag"]).rows() == [(0.0, None), (3.0, "silent"), (6.0, None)]


def test_hostile_file_names_are_stored_as_text(lake, tmp_path):
    folder = tmp_path / "music"
    names = ["new\nline.wav", "quote'; DROP TABLE clips.wav", "--lake.wav", "ünï \u202e.wav", "x" * 240 + ".wav"]
    for seed, name in enumerate(names):
        write(tmp_path / "t.wav", melody(2, seed=seed))
        folder.mkdir(exist_ok=True)
        (tmp_path / "t.wav").rename(folder / name)
    write(tmp_path / "t.wav", melody(2, seed=99)).rename(folder / os.fsdecode(b"latin \xe9.wav"))
    (folder / os.fsdecode(b"broken \xe9.wav")).write_bytes(b"")
    report = ingest_folder(lake, folder)
    assert (report.failed, report.added.new) == (1, len(names) + 1)
    assert lake.failures.read()["error"].item() == "broken \\udce9.wav: is empty (0 bytes)"
    assert set(names) < set(lake.clips.read()["track"])
    assert ingest_folder(lake, folder).added == Added(known=len(names) + 1)


def test_links_are_followed_and_loops_end(lake, tmp_path):
    write(tmp_path / "elsewhere" / "b.wav", melody(2, seed=2))
    write(tmp_path / "music" / "a.wav", melody(2, seed=1))
    (tmp_path / "music" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "music" / "loop").symlink_to(tmp_path / "music")
    report = ingest_folder(lake, tmp_path / "music")
    assert sorted(lake.clips.read()["track"]) == ["a.wav", "link/b.wav"]
    assert report.recordings == 2


def test_hidden_files_are_skipped_and_a_folder_without_audio_is_an_error(lake, tmp_path):
    write(tmp_path / "music" / ".hidden" / "a.wav", melody(2))
    (tmp_path / "music" / "._a.wav").write_bytes(b"resource fork")
    with pytest.raises(InputError, match="holds no audio files"):
        ingest_folder(lake, tmp_path / "music")
    with pytest.raises(InputError, match="is not a folder"):
        ingest_folder(lake, tmp_path / "nowhere")


# -- labels


@pytest.mark.parametrize(
    "text",
    [
        "path,genre,year\nAda/song0.wav,rock,1999\nAda/song3.ogg,folk,2001\n",
        "filename;genre;year\nsong0.wav;rock;1999\nsong3.ogg;folk;2001\n",
        "stem\tgenre\tyear\nsong0\trock\t1999\nsong3\tfolk\t2001\n",
        "track,genre,year\nAda/song0,rock,1999\nAda/song3,folk,2001\n",
        'Path,"Genre",YEAR\r\n"Ada\\song0.wav","rock",1999\r\n"Ada\\song3.ogg",folk,2001\r\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_are_joined_by_path_stem_or_track(lake, music, tmp_path, text, encoding):
    report = ingest_folder(lake, music, seconds=None, labels=csv(tmp_path / "l.csv", text, encoding))
    assert report.notes[0].startswith("l.csv: 2 of 2 rows matched by ")
    found = lake.clips.read(["track", "genre", "year"], where="genre IS NOT NULL").sort("track").rows()
    assert found == [("Ada/song0.wav", "rock", 1999), ("Ada/song3.ogg", "folk", 2001)]


def test_labels_of_a_later_run_reach_known_clips(lake, music, tmp_path):
    ingest_folder(lake, music, seconds=4.0)
    labels = csv(tmp_path / "l.csv", "path,genre,artist\nAda/song0.wav,rock,ADA\nnowhere.wav,pop,X\n")
    report = ingest_folder(lake, music, seconds=4.0, labels=labels)
    assert report.added == Added(changed=2, known=10)
    assert report.notes == ("l.csv: 1 of 2 rows matched by path; without a file: nowhere.wav",)
    assert lake.clips.read(["artist"], where="genre = 'rock'")["artist"].to_list() == ["ADA", "ADA"]


@pytest.mark.parametrize(("key", "first"), [("path", "01.wav"), ("stem", "01")])
def test_a_row_that_matches_several_files_is_reported(lake, tmp_path, key, first):
    """Two albums, each with a track 01: one row is ambiguous."""
    for number, name in enumerate(("A/01.wav", "B/01.wav", "B/02.wav")):
        write(tmp_path / "music" / name, melody(2, seed=number))
    text = f"{key},genre\n{first},rock\n{first.replace('1', '2')},folk\n"
    report = ingest_folder(lake, tmp_path / "music", labels=csv(tmp_path / "l.csv", text))
    assert report.notes == (
        f"l.csv: 2 of 2 rows matched by {key}; labels applied to several files of the same name: {first}",
    )
    if key == "path":
        exact = csv(tmp_path / "exact.csv", "path,mood\nA/01.wav,calm\nB/01.wav,wild\n")
        assert ingest_folder(lake, tmp_path / "music", labels=exact).notes == ("exact.csv: 2 of 2 rows matched by path",)


def test_labels_that_match_no_file_stop_before_anything_is_written(lake, music, tmp_path):
    labels = csv(tmp_path / "l.csv", "stem,genre\nother,rock\nanother,pop\n")
    with pytest.raises(InputError, match="none of its 2 rows matches any of 6 files by stem; the first is 'other'"):
        ingest_folder(lake, music, labels=labels)
    assert lake.clips.count() == 0


def test_labels_of_another_type_stop_before_anything_is_decoded(lake, music, tmp_path, monkeypatch):
    ingest_folder(lake, music, seconds=None, labels=csv(tmp_path / "l.csv", "stem,year\nsong0,1999\n"))
    monkeypatch.setattr("tonelake.ingest.decoder_pool.DecoderPool._ask", lambda *_: pytest.fail("decoded"))
    for text in ("stem,year\nsong1,long ago\n", "stem,year\nsong1,1999.5\n"):
        with pytest.raises(InputError, match="'year': stored as Int64"):
            ingest_folder(lake, music, labels=csv(tmp_path / "l.csv", text))
    manifest = csv(tmp_path / "m.csv", "path,year\nsong.wav,long ago\n")
    with pytest.raises(InputError, match="'year': stored as Int64"):
        ingest_manifest(lake, manifest)


def test_lists_and_leading_zeros_are_kept(tmp_path):
    table = read_table(csv(tmp_path / "t.csv", "stem,tags,code,score,empty\na,rock|pop,007,1.50,\nb,,012,2,\n"), multi=["tags"])
    assert table["tags"].to_list() == [["rock", "pop"], None]
    assert table["code"].to_list() == ["007", "012"]
    assert table["score"].to_list() == [1.5, 2.0]
    assert table["empty"].to_list() == [None, None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no rows below its header"),
        ("stem,genre\n", "no rows below its header"),
        ("stem,genre\na\n", "row 2: has 1 cells, the header 2"),
        ("stem,genre,Genre\na,b,c\n", "two columns are named genre"),
        ("name,genre\na,b\n", "needs a column named path, stem or track"),
        ("stem,clip_id\na,b\n", "clip_id cannot be label columns"),
        ("stem,genre\nsong0,rock\nsong0,pop\n", "two different rows for stem 'song0'"),
        ("stem,genre\n\0,\0\n", "NUL"),
    ],
)
def test_an_invalid_label_table_is_named_with_its_problem(lake, music, tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        ingest_folder(lake, music, labels=csv(tmp_path / "labels.csv", text))
    assert lake.clips.count() == 0


def test_the_error_of_a_table_that_is_not_utf8_names_the_byte(tmp_path):
    with pytest.raises(InputError, match=r"is not UTF-8 text \(byte 12\)"):
        read_table(csv(tmp_path / "t.csv", "stem,genre\na\xe9,b\n", "latin-1"))


# -- manifests


def test_a_manifest_may_name_files_below_the_home_folder_and_with_backslashes(lake, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for number, name in enumerate(("home/a.wav", "set/sub/b.wav", "set/c\\d.wav")):
        write(tmp_path / name, melody(2, seed=number))
    report = ingest_manifest(lake, csv(tmp_path / "set" / "m.csv", "path\n~/a.wav\nsub\\b.wav\nc\\d.wav\n"))
    assert (report.added.new, report.failed) == (3, 0)
    assert sorted(Path(source).relative_to(tmp_path).as_posix() for source in lake.clips.read()["source"]) == [
        "home/a.wav", "set/c\\d.wav", "set/sub/b.wav",
    ]


@pytest.mark.parametrize("name", ["\\", "no\\such.wav", "é" * 300 + ".wav", "\\" + "a" * 300])
def test_a_missing_file_of_a_manifest_is_one_failure_under_its_own_name(lake, tmp_path, name):
    write(tmp_path / "there.wav", melody(2))
    report = ingest_manifest(lake, csv(tmp_path / "m.csv", f"path\nthere.wav\n{name}\n"))
    assert (report.added.new, report.failed) == (1, 1)
    assert lake.failures.read()["source"].item() == str(tmp_path / name)


def test_a_manifest_adds_exactly_its_rows(lake, music, tmp_path):
    shutil.copytree(music, tmp_path / "m")
    file = csv(
        tmp_path / "m" / "clips.csv",
        "path,start,seconds,mood,tags\nAda/song0.wav,0,2.5,calm,a|b\n./Ada/song0.wav,3,,wild,\nBéla/song1.flac,,,calm,b\n",
    )
    report = ingest_manifest(lake, file, multi=["tags"])
    assert report.notes == ("clips.csv: 3 rows of 2 files",)
    rows = lake.clips.read(["track", "start_s", "duration_s", "mood", "tags", "artist", "cut"]).rows()
    assert rows == [
        ("Ada/song0.wav", 0.0, 2.5, "calm", ["a", "b"], "Ada", "manifest"),
        ("Ada/song0.wav", 3.0, 6.0, "wild", None, "Ada", "manifest"),
        ("Béla/song1.flac", 0.0, 9.0, "calm", ["b"], "Béla", "manifest"),
    ]
    assert ingest_manifest(lake, file, multi=["tags"]).added == Added(known=3)


def test_a_span_to_the_end_is_not_confused_with_a_shorter_clip_of_the_same_start(lake, music, tmp_path):
    shutil.copytree(music, tmp_path / "m")
    first = csv(tmp_path / "m" / "first.csv", "path,start,seconds\nAda/song0.wav,0,2.5\n")
    assert ingest_manifest(lake, first).added == Added(new=1)
    rest = csv(tmp_path / "m" / "rest.csv", "path,start\nAda/song0.wav,0\n")
    assert ingest_manifest(lake, rest).added == Added(new=1)
    assert sorted(lake.clips.read()["duration_s"]) == [2.5, 9.0]


def test_known_clips_of_a_manifest_are_not_decoded_again(lake, music, tmp_path, monkeypatch):
    shutil.copytree(music, tmp_path / "m")
    files = sorted(str(path.relative_to(music)) for path in music.rglob("*.*") if path.suffix in SUFFIXES)
    rows = "".join(f"{name},0,\n{name},0,4\n{name},5,\n" for name in files)
    file = csv(tmp_path / "m" / "a.csv", "path,start,seconds\n" + rows)
    added = ingest_manifest(lake, file).added
    assert (added.new, added.known) == (3 * len(files), 0)
    asked = []
    ask = DecoderPool.map
    monkeypatch.setattr(DecoderPool, "map", lambda self, requests: ask(self, (asked.append(r["do"]) or r for r in requests)))
    assert ingest_manifest(lake, file).added == Added(known=3 * len(files))
    assert set(asked) == {"identify"}


def test_rows_that_cannot_be_clips_are_failures_and_the_others_are_ingested(lake, music, tmp_path):
    shutil.copytree(music, tmp_path / "m")
    rows = "Ada/song0.wav,0,3\nAda/song0.wav,8,30\nAda/song0.wav,-1,3\ngone.wav,0,3\n"
    file = csv(tmp_path / "m" / "clips.csv", "path,start,seconds\n" + rows)
    report = ingest_manifest(lake, file)
    assert (report.added.new, report.failed) == (1, 2)
    errors = sorted(lake.failures.read()["error"])
    assert "8 to 38 s cannot be a clip: the file has 9.0 s" in errors[1]
    assert "gone.wav: cannot be read" in errors[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file_of_music,start\na.wav,0\n", "needs a column named path"),
        ("path,start\na.wav,soon\n", "column 'start' must hold seconds"),
        ("path,start\n,0\n", "row 2: has no path"),
        ("path,digest\na.wav,0\n", "digest cannot be label columns"),
    ],
)
def test_an_invalid_manifest_is_named_with_its_problem(lake, tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        ingest_manifest(lake, csv(tmp_path / "m.csv", text))
