"""The songs of a lake with their states, copies and failures with remedies, compared with a small lake written out."""

from __future__ import annotations

import shutil

import polars as pl
import pytest
from fakes import fill
from sounds import melody, write

import tonelake
from tonelake.ingest import ingest_folder
from tonelake.library_table import copies_table, failures_table, search_songs, songs_table, split_remedy
from tonelake.next_jobs import first_job, known_folders, next_jobs
from tonelake.store import Failure, InputError, Lake


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A lake with one song in every state: present with a copy, missing, replaced, and a file that could not be read."""
    folder = tmp_path_factory.mktemp("library")
    music = folder / "music"
    for number, artist in enumerate(("Ada", "Béla", "Cleo")):
        tags = {"title": f"Sóng {number}", "artist": artist, "album": "Songs"} if number < 2 else {}
        write(music / artist / f"song{number}.wav", melody(7, seed=number), tags=tags)
    (music / "again").mkdir()
    shutil.copy(music / "Ada/song0.wav", music / "again/copy.wav")
    (music / "empty.mp3").write_bytes(b"")
    lake = tonelake.open(folder / "lake", progress=False)
    ingest_folder(lake, music, seconds=3.0, per_track=2)
    (music / "Béla/song1.wav").unlink()
    write(music / "Cleo/song2.wav", melody(7, seed=9))
    ingest_folder(lake, music, seconds=3.0, per_track=2)
    return lake, music


def test_each_song_has_its_state_copies_and_length(shelf):
    lake, music = shelf
    found = songs_table(lake)
    assert found.select("title", "artist", "state", "copies", "clips").sort("title", "state").rows() == [
        ("Sóng 0", "Ada", "present", 1, 2), ("Sóng 1", "Béla", "missing", 0, 2), ("empty", None, "failed", 0, 0),
        ("song2", None, "present", 0, 2), ("song2", None, "superseded", 0, 2),
    ]
    alive = found.filter(pl.col("state") == "present")
    assert alive["length_s"].is_between(6, 7.1).all() and alive["source"].to_list() == [
        str(music / "Ada/song0.wav"), str(music / "Cleo/song2.wav"),
    ]
    assert set(found["clip_id"].drop_nulls()) <= set(lake.clips.ids(superseded=True))


def test_songs_are_searched_without_case_and_accents_and_by_state(shelf):
    songs = songs_table(shelf[0])
    assert search_songs(songs, "SONG bela")["title"].to_list() == ["Sóng 1"]
    assert search_songs(songs, ".*").is_empty() and len(search_songs(songs, " ")) == len(songs)
    assert search_songs(songs, state="failed")["title"].to_list() == ["empty"]
    assert search_songs(songs, copies=True)["title"].to_list() == ["Sóng 0"]


def test_copies_are_listed_by_set_with_the_stored_file_first(shelf):
    lake, music = shelf
    found = copies_table(lake)
    assert found.select("set", "kind", "title", "file").rows() == [
        (1, "same audio", "Sóng 0", str(music / "Ada/song0.wav")), (1, "same audio", "Sóng 0", str(music / "again/copy.wav")),
    ]


def test_confirmed_duplicates_are_one_song_with_a_copy(lake):
    fill(lake, 3, 2, seed=0)
    ids = lake.clips.ids().to_list()
    lake.clips.set_labels(pl.DataFrame({"clip_id": [ids[0], ids[2]], "same_as": [ids[0], ids[0]]}))
    lake.clips.update(pl.DataFrame({"clip_id": ids, "recording": ["a", "a", "b", "b", "c", "c"]}))
    assert songs_table(lake).select("title", "clips", "copies").rows() == [("Title 0", 4, 1), ("Title 2", 2, 0)]
    found = copies_table(lake)
    assert found.select("set", "kind", "file").rows() == [
        (1, "confirmed duplicate", "made:0"), (1, "confirmed duplicate", "made:1"),
    ]


def test_spaces_name_how_many_clips_are_embedded(lake):
    from fakes import clip_rows

    fill(lake, 2, 2, seed=0)
    lake.clips.add(clip_rows(3, 3))
    assert songs_table(lake)["spaces"].to_list() == ["fake (2 of 3)", "fake (2 of 3)", ""]


def test_a_song_with_a_failed_clip_is_failed_and_failures_name_reason_and_remedy(lake):
    fill(lake, 2, 2, seed=0)
    clip = lake.clips.ids()[0]
    lake.failures.record([
        Failure("embed:fake", "made:0", "made:0: has changed since it was ingested. Ingest it again", clip),
        Failure("ingest", "/music/<b>x.mp3", "<b>x.mp3: is empty (0 bytes)"),
    ])
    assert songs_table(lake).select("title", "state").rows() == [
        ("Title 0", "failed"), ("Title 1", "present"), ("<b>x", "failed"),
    ]
    found = failures_table(lake).sort("stage")
    assert found.select("stage", "reason", "remedy").rows() == [
        ("embed:fake", "made:0: has changed since it was ingested", "Ingest it again"),
        ("ingest", "<b>x.mp3: is empty (0 bytes)", "Copy the file again from where it came from"),
    ]
    assert found["title"][0] == "Title 0"


@pytest.mark.parametrize("error", [
    "a.wav: is not audio that can be read", "b.ogg: 3 packets do not decode: the file is damaged", "made up",
    "c.mp3: did not decode within 120 s", "d.wav: is 0.20 s long, clips need at least 0.5 s",
])
def test_every_failure_has_a_remedy(error):
    reason, remedy = split_remedy(error)
    assert reason == error and remedy[0].isupper() and not remedy.endswith(".")


def test_an_empty_lake_has_no_rows_and_nothing_to_do(lake):
    assert not len(songs_table(lake)) and not len(copies_table(lake)) and not len(failures_table(lake))
    assert next_jobs(tonelake.open(lake.uri)) == []


# -- jobs


def test_a_known_folder_is_synced_by_the_rule_it_was_cut_by(shelf):
    lake, music = shelf
    folder, = known_folders(lake)
    assert (folder.path, folder.files, folder.missing, folder.failed) == (str(music), 4, 1, 1)
    assert folder.arguments() == ("ingest", "folder", str(music), "--seconds", "3", "--per-track", "2")
    jobs = {job.kind: job for job in next_jobs(lake)}
    assert set(jobs) == {"embed", "sync"} and jobs["sync"].retries == 1
    assert "1 could not be read, 1 were missing" in jobs["sync"].reason
    assert jobs["sync"].command("/a lake").endswith("--per-track 2 --lake '/a lake'")


def test_jobs_embed_what_lacks_vectors_and_update_maps_and_indexes(lake):
    from fakes import clip_rows

    opened = tonelake.open(lake.uri, progress=False)
    fill(lake, 30, 40, seed=0)
    assert [job.arguments for job in next_jobs(opened)] == [("map", "--space", "fake")]
    opened.build_indexes(kind="hnsw")
    opened.map("low", method="pca")
    assert next_jobs(opened) == []
    lake.clips.add(clip_rows(32, 1))
    assert [job.arguments for job in next_jobs(opened)] == [("embed", "--space", "fake")]
    fill(lake, 32, 40, seed=3)
    assert [job.arguments for job in next_jobs(opened)] == [
        ("index", "build", "--space", "fake", "--layers", "high"), ("map", "--space", "fake", "--layer", "low"),
    ]


def test_a_space_that_is_made_of_others_is_extended_after_them_by_its_own_command(lake):
    from fakes import clip_rows

    opened = tonelake.open(lake.uri, progress=False)
    fill(lake, 30, 40, seed=0)
    opened.hybrid("fake/low,fake/high", name="both")
    lake.clips.add(clip_rows(31, 1))
    first, second = (job.arguments for job in next_jobs(opened) if job.kind == "embed")
    assert first == ("embed", "--space", "fake") and second[:2] == ("embed", "--hybrid") and second[3:] == ("--space", "both")
    fill(lake, 31, 40, seed=3)
    assert opened.hybrid(second[2], name=second[4]).space == "both"
    assert [space.name for space in opened.spaces.all()] == ["both", "fake"]
    assert not [job for job in next_jobs(opened) if job.kind == "embed"]


def test_clips_whose_files_are_gone_are_not_offered_for_embedding(shelf):
    lake, _ = shelf
    job, = (job for job in next_jobs(lake) if job.kind == "embed")
    assert job.arguments == ("embed",) and "6 clips" in job.reason


def test_a_first_folder_has_to_exist(tmp_path):
    assert first_job(tmp_path).arguments == ("ingest", "folder", str(tmp_path))
    for wrong in ("", tmp_path / "absent"):
        with pytest.raises(InputError, match="is not a folder"):
            first_job(wrong)


def test_a_lake_of_an_older_format_has_songs(lake):
    fill(lake, 2, 2, seed=0)
    old = Lake(lake.uri)
    old.clips.has_states = False
    old.clips.set_flag(lake.clips.ids().to_list()[:2], "superseded")
    assert songs_table(old)["state"].to_list() == ["superseded", "present"]
