"""Ingest is a sync: clips follow their audio through renames, new tags, copies and deletions, and nothing is embedded again."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import polars as pl
import pytest
from library import ROOTS, InProcess, Library, contents, embed_missing
from sounds import melody, write

from tonelake import index, ingest
from tonelake.ingest import ingest_folder, ingest_manifest
from tonelake.store import Added, InputError, Lake
from tonelake.verify import verify


@pytest.fixture(autouse=True)
def in_process(monkeypatch):
    """Decode in this process, and trust the stamps of files that were just written."""
    monkeypatch.setattr(ingest.recordings, "DecoderPool", InProcess)
    monkeypatch.setattr(ingest.file_stamps, "COARSE_NS", 0)


def song(path: Path, seed: int, **tags: str) -> Path:
    return write(path, melody(2, seed=seed, rate=8_000), 8_000, tags=tags)


def check_like_new(library: Library, lake: Lake, fresh: Lake) -> None:
    """The lake equals one that is made from the folders now, apart from which of several copies a clip follows."""
    library.sync(fresh)
    found, expected = contents(lake), contents(fresh)
    assert found.keys() == expected.keys()
    tags_of = {
        row["source"]: (row["title"], row["artists"]) for row in fresh.paths.read().iter_rows(named=True)
    }
    for key, clip in found.items():
        other = expected[key]
        assert (clip["vector"], clip["song"], clip["paths"]) == (other["vector"], other["song"], other["paths"])
        assert clip["source"] in other["paths"]
        assert (clip["tags"]["title"], clip["tags"]["artists"]) == tags_of[clip["source"]]
        if len(other["paths"]) == 1:
            assert clip["tags"] == other["tags"]


def run_changes(home: Path, seed: int, steps: int) -> None:
    random_ = random.Random(seed)
    library, lake = Library(home), Lake(home / "lake")
    library.fill(6)
    embedded = library.sync(lake)
    for step in range(steps):
        names = [library.change(random_) for _ in range(random_.randint(1, 3))]
        if random_.random() < 0.2:       # a folder that cannot be reached changes nothing
            before = lake.clips.read(superseded=True)
            (home / ROOTS[0]).rename(home / "away")
            with pytest.raises(InputError, match="nothing was marked as missing"):
                ingest_folder(lake, home / ROOTS[0], seconds=None)
            (home / "away").rename(home / ROOTS[0])
            assert lake.clips.read(superseded=True).equals(before)
        embedded += library.sync(lake)
        check_like_new(library, lake, Lake(home / f"fresh{step}"))
        assert len(embedded) == len(set(embedded)), names
    gone = lake.clips.read(superseded=True).filter(pl.col("state").is_not_null())
    assert set(gone["state"]) <= {"missing", "superseded"}
    assert lake.clips.count(superseded=True) == library.songs          # each song has one clip, for ever


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_after_any_changes_a_lake_equals_one_made_from_the_folder(tmp_path, seed):
    run_changes(tmp_path, seed, 4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_after_many_changes_a_lake_equals_one_made_from_the_folder(tmp_path, seed):
    run_changes(tmp_path, seed, 8)


def test_swapped_and_renumbered_files_keep_their_clips_under_their_new_names(lake, tmp_path):
    music = tmp_path / "w"
    for number in range(1, 6):
        song(music / f"{number:02d}.wav", number)
    ingest_folder(lake, music)
    before = dict(lake.clips.read().select("track", "clip_id").iter_rows())
    for source, target in (("01", "x"), ("02", "01"), ("x", "02")):
        (music / f"{source}.wav").rename(music / f"{target}.wav")
    assert ingest_folder(lake, music).added == Added(known=3, changed=2)
    after = dict(lake.clips.read().select("track", "clip_id").iter_rows())
    assert after == before | {"01.wav": before["02.wav"], "02.wav": before["01.wav"]}
    for number in range(5, 0, -1):                       # all are renumbered by one, and a new first song comes
        (music / f"{number:02d}.wav").rename(music / f"{number + 1:02d}.wav")
    song(music / "01.wav", 40)
    report = ingest_folder(lake, music)
    assert (report.added, report.superseded, report.new, report.changed) == (Added(new=1, changed=5), 0, 1, 5)
    last = dict(lake.clips.read().select("track", "clip_id").iter_rows())
    assert {last[f"{n + 1:02d}.wav"] for n in range(1, 6)} == set(before.values())
    assert lake.clips.read()["flag"].is_null().all() and lake.clips.count(superseded=True) == 6


def test_new_tags_change_the_columns_of_the_same_clips(lake, tmp_path):
    for number in range(4):
        song(tmp_path / "w" / f"{number}.flac", number, title=f"Song {number}", artist="Miles Davies")
    ingest_folder(lake, tmp_path / "w")
    ids = lake.clips.ids().to_list()
    embed_missing(lake)
    near = index.similar(lake, ids[0])["title"].to_list()
    for number in range(4):
        song(tmp_path / "w" / f"{number}.flac", number, title=f"Song {number}", artist="Miles Davis", genre="jazz")
    report = ingest_folder(lake, tmp_path / "w")
    assert (report.added, report.changed, report.superseded) == (Added(changed=4), 4, 0)
    clips = lake.clips.read()
    assert sorted(clips["clip_id"]) == sorted(ids)
    assert set(clips["artist"]) == {"Miles Davis"} and set(clips["genre"]) == {"jazz"}
    assert embed_missing(lake) == [] and index.similar(lake, ids[0])["title"].to_list() == near and len(near) == 3
    assert clips["clip_id"].to_list() == ids             # in the order they were added


def test_deleted_files_are_missing_until_they_are_back(lake, tmp_path):
    music = tmp_path / "w"
    for number in range(3):
        song(music / f"{number}.wav", number)
    ingest_folder(lake, music)
    shutil.move(music / "1.wav", tmp_path / "aside.wav")
    report = ingest_folder(lake, music)
    assert report.missing == 1 and "1 files are missing" in str(report)
    state = dict(lake.clips.read().select("track", "state").iter_rows())
    assert state == {"0.wav": None, "1.wav": "missing", "2.wav": None}
    assert "or `tonelake forget` them" in verify(lake).row(0, named=True)["remedy"]
    shutil.move(tmp_path / "aside.wav", music / "back.wav")
    report = ingest_folder(lake, music)
    assert report.added == Added(known=2, changed=1)
    assert dict(lake.clips.read().select("track", "state").iter_rows()) == {"0.wav": None, "back.wav": None, "2.wav": None}
    shutil.move(music / "0.wav", music / "moved.wav")
    report = ingest_folder(lake, music)
    assert report.missing == 0 and report.added == Added(known=2, changed=1)


def test_a_folder_without_audio_marks_nothing_as_missing(lake, tmp_path):
    path = song(tmp_path / "w" / "a.wav", 1)
    ingest_folder(lake, tmp_path / "w")
    path.unlink()
    (tmp_path / "w" / "cover.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="nothing was marked as missing"):
        ingest_folder(lake, tmp_path / "w")
    assert lake.clips.read()["state"].to_list() == [None]


def test_replaced_audio_is_superseded_only_if_no_present_file_has_it(lake, tmp_path):
    music = tmp_path / "w"
    song(music / "a.wav", 1)
    shutil.copy(song(music / "b.wav", 2), music / "copy.wav")
    ingest_folder(lake, music)
    song(music / "a.wav", 11)
    song(music / "b.wav", 12)
    report = ingest_folder(lake, music)
    assert (report.added.new, report.superseded) == (2, 1)
    clips = lake.clips.read(superseded=True)
    assert clips.filter(pl.col("state") == "superseded")["track"].to_list() == ["a.wav"]
    assert sorted(lake.clips.read()["track"]) == ["a.wav", "b.wav", "copy.wav"]
    song(music / "a.wav", 1)                             # the old bytes are back
    report = ingest_folder(lake, music)
    assert (report.added.new, report.superseded) == (0, 1) and lake.clips.count() == 3


def test_albums_ingested_one_by_one_keep_their_tracks_apart(lake, tmp_path):
    albums = ["Abbey", "Exile", "Blue", "Harvest"]
    for number, album in enumerate(albums):
        for track in range(3):
            song(tmp_path / "Music" / album / f"{track + 1:02d}.wav", 10 * number + track)
    for _ in range(2):
        for album in albums:
            ingest_folder(lake, tmp_path / "Music" / album, dataset=album)
        assert lake.clips.read()["track"].n_unique() == 12
    assert {"01.wav", "Exile/01.wav"} <= set(lake.clips.read()["track"])
    embed_missing(lake)
    clip = lake.clips.read(where="track = '01.wav'")["clip_id"][0]
    assert len(index.similar(lake, clip, not_same="track", k=20)) == 11
    assert index.groups(lake, "dataset")["tracks"].to_list() == [3] * 4


def test_files_are_one_track_where_the_user_says_so(tmp_path):
    for name, seed in (("a/1.wav", 1), ("a/2.wav", 2), ("b/1.wav", 3)):
        song(tmp_path / "w" / name, seed)
    (tmp_path / "l.csv").write_text("path,piece\na/1.wav,x\na/2.wav,y\nb/1.wav,x\n")
    for by, count in (("folder", 2), ("name", 2), ("piece", 2), (None, 3)):
        lake = Lake(tmp_path / f"lake-{by}")
        ingest_folder(lake, tmp_path / "w", labels=tmp_path / "l.csv", track_by=by)
        assert lake.clips.read()["track"].n_unique() == count
        tracks = dict(lake.clips.read().select("track", "clip_id").iter_rows())
        ingest_folder(lake, tmp_path / "w")              # what labels filled stays
        assert dict(lake.clips.read().select("track", "clip_id").iter_rows()) == tracks
    with pytest.raises(InputError, match="--track-by mood"):
        ingest_folder(lake, tmp_path / "w", track_by="mood")


def test_an_emptied_cell_empties_the_label_and_a_missing_row_keeps_it(lake, tmp_path):
    for number in range(4):
        song(tmp_path / "w" / f"a{number}.wav", number, artist="Tag")
    labels = tmp_path / "l.csv"
    labels.write_text("stem,genre,tags,artist\na0,rock,x;y,Label\na1,pop,x,Label\na2,pop,y,\na3,rock,y,\n")
    ingest_folder(lake, tmp_path / "w", labels=labels, multi=["tags"])
    labels.write_text("stem,genre,tags,artist\na0,,,\na1,pop,x,Label\na2,pop,y,\n")
    assert ingest_folder(lake, tmp_path / "w", labels=labels, multi=["tags"]).added == Added(known=3, changed=1)
    assert lake.clips.read().sort("track").select("genre", "tags", "artist").rows() == [
        (None, None, "Tag"), ("pop", ["x"], "Label"), ("pop", ["y"], "Tag"), ("rock", ["y"], "Tag"),
    ]
    labels.write_text("stem,mood\na1,calm\n")            # columns that the table does not have stay
    ingest_folder(lake, tmp_path / "w", labels=labels)
    assert lake.clips.read().sort("track")["genre"].to_list() == [None, "pop", "pop", "rock"]


def test_an_emptied_cell_of_a_manifest_empties_the_label_of_its_clip(lake, tmp_path):
    write(tmp_path / "a.wav", melody(4, seed=1))
    table = tmp_path / "m.csv"
    table.write_text("path,start,seconds,mood\na.wav,0,2,calm\na.wav,2,2,wild\n")
    ingest_manifest(lake, table)
    table.write_text("path,start,seconds,mood\na.wav,0,2,\na.wav,2,2,wild\n")
    assert ingest_manifest(lake, table).added == Added(known=1, changed=1)
    assert lake.clips.read().sort("start_s")["mood"].to_list() == [None, "wild"]
    table.write_text("path,start,seconds,mood\na.wav,0,2,calm\na.wav,0,2,wild\n")
    with pytest.raises(InputError, match=r"m\.csv, row 3: two different rows for 'a\.wav' from 0 to 2 s, the other is row 2"):
        ingest_manifest(lake, table)


def test_labels_win_over_tags_that_change_later(lake, tmp_path):
    song(tmp_path / "w" / "a.wav", 1, artist="Tag", title="One")
    (tmp_path / "l.csv").write_text("stem,artist\na,Label\n")
    ingest_folder(lake, tmp_path / "w", labels=tmp_path / "l.csv")
    song(tmp_path / "w" / "a.wav", 1, artist="New tag", title="Two")
    ingest_folder(lake, tmp_path / "w")
    assert lake.clips.read(["artist", "artists", "title"]).rows() == [("Label", ["Label"], "Two")]


def test_a_quick_first_pass_is_completed_by_a_later_run(lake, tmp_path):
    write(tmp_path / "w" / "a.wav", melody(10, seed=1, rate=8_000), 8_000)
    assert ingest_folder(lake, tmp_path / "w", seconds=1.0, per_track=2).added == Added(new=2)
    assert sorted(lake.clips.read()["start_s"]) == [2.0, 7.0]
    assert ingest_folder(lake, tmp_path / "w", seconds=1.0, per_track=2).added == Added(known=2)
    assert ingest_folder(lake, tmp_path / "w", seconds=1.0).added == Added(new=8, known=2)
    assert sorted(lake.clips.read()["start_s"]) == [float(n) for n in range(10)]
    for limit in (2, None):
        assert ingest_folder(lake, tmp_path / "w", seconds=1.0, per_track=limit).added == Added(known=10)


def test_a_hop_above_the_clip_length_leaves_gaps(lake, tmp_path):
    write(tmp_path / "w" / "a.wav", melody(10, seed=1, rate=8_000), 8_000)
    ingest_folder(lake, tmp_path / "w", seconds=2.0, hop=4.0)
    assert lake.clips.read(["start_s", "duration_s"]).rows() == [(0.0, 2.0), (4.0, 2.0), (8.0, 2.0)]


def test_a_move_to_another_ingested_folder_leaves_one_song(lake, tmp_path):
    song(tmp_path / "one" / "a.wav", 1)
    song(tmp_path / "one" / "b.wav", 2)
    ingest_folder(lake, tmp_path / "one")
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "a.wav").rename(tmp_path / "two" / "a.wav")
    report = ingest_folder(lake, tmp_path / "two")
    assert (report.added, report.copies) == (Added(changed=1), 0)
    assert sorted(Path(source).parent.name for source in lake.clips.read()["source"]) == ["one", "two"]


def test_the_report_counts_every_file_of_a_folder_once(lake, tmp_path):
    music = tmp_path / "w"
    for number in range(4):
        song(music / f"{number}.wav", number)
    ingest_folder(lake, music)
    song(music / "new.wav", 20)
    shutil.copy(music / "0.wav", music / "copy.wav")
    (music / "1.wav").rename(music / "renamed.wav")
    (music / "bad.wav").write_bytes(b"")
    for name in ("a.xm", "b.mp4", "c.m3u"):
        (music / name).write_bytes(b"x")
    report = ingest_folder(lake, music)
    counts = (report.new, report.known, report.changed, report.copies, report.skipped, report.failed)
    assert counts == (1, 3, 1, 1, 3, 1) and sum(counts) == len(list(music.iterdir()))
    assert any("1 modules (1 xm), 1 video (1 mp4), 1 playlists (1 m3u)" in note for note in report.notes)
