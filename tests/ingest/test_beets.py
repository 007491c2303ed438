"""Libraries of beets as a sync: made by beets itself, by hand with an older schema, and by nobody."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import polars as pl
import pytest
from commands import run
from library import InProcess
from sounds import melody, write

from tonelake import ingest
from tonelake.ingest import ingest_beets, ingest_folder
from tonelake.ingest.beets_config import beets_music_folder
from tonelake.ingest.beets_library import read_beets_library
from tonelake.store import InputError, Lake

RATE = 8_000


@pytest.fixture(autouse=True)
def in_process(monkeypatch, tmp_path):
    """Decode in this process, trust the stamps of files that were just written, and see no user's configuration of beets."""
    monkeypatch.setattr(ingest.recordings, "DecoderPool", InProcess)
    monkeypatch.setattr(ingest.file_stamps, "COARSE_NS", 0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BEETSDIR", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def song(path: Path, seed: int) -> Path:
    tags = {"title": f"Tag {seed}", "artist": "Tagged", "album": "Tags"}
    return write(path, melody(2, seed=seed, rate=RATE), RATE, tags=tags)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A library of three songs that beets made, one of them in an album, beside their music.  Do not change it."""
    import beets
    from beets.library import Item, Library

    home = tmp_path_factory.mktemp("beets")
    beets.config["create_backup_before_migrations"] = False
    library = Library(str(home / "library.db"), str(home / "music"))
    for number, name in enumerate(("Ada/First/1.flac", "Béla/2.flac", "3.flac")):
        item = Item.from_path(str(song(home / "music" / name, number)))
        item.update({
            "title": f"Title {number}", "artist": f"Artist {number}", "year": 1990 + number, "track": number,
            "artists": [f"Artist {number}", "Guest"], "genres": ["Rock", "Indie"], "mood": "calm" if number else "wild",
            "rating": str(number), "bpm": 100 * number,
        })
        library.add(item)
    library.add_album([library.get_item(1)]).store()
    library._close()
    return home


@pytest.fixture
def beets(made, tmp_path):
    """beets with a copy of the library in tmp_path."""
    from beets.library import Library

    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    library = Library(str(tmp_path / "library.db"), str(tmp_path / "music"))
    yield library
    library._close()


def sync(lake: Lake, tmp_path: Path, **options):
    return ingest_beets(lake, tmp_path / "library.db", seconds=None, **{"music": tmp_path / "music"} | options)


def shown(lake: Lake, *columns: str) -> list[tuple]:
    return lake.clips.read(superseded=True).sort("source").select(columns).rows()


def test_tags_and_attributes_of_beets_win_and_follow_their_changes(beets, lake, tmp_path):
    attributes = ["mood", "rating", "genres", "bpm", "albumtypes", "mb_trackid"]
    report = sync(lake, tmp_path, attributes=attributes)
    assert (report.recordings, report.new, report.failed, report.missing) == (3, 3, 0, 0)
    clips = lake.clips.read().sort("year")
    assert clips["track"].to_list() == ["Ada/First/1.flac", "Béla/2.flac", "3.flac"]
    assert clips["title"].to_list() == ["Title 0", "Title 1", "Title 2"] and clips["album"].to_list() == ["Tags"] * 3
    assert clips["artists"].to_list() == [[f"Artist {n}", "Guest"] for n in range(3)]
    assert clips["genre"].to_list() == ["Rock"] * 3 and clips["genres"].to_list() == [["Rock", "Indie"]] * 3
    assert clips["mood"].to_list() == ["wild", "calm", "calm"] and clips["rating"].to_list() == [0, 1, 2]
    assert clips["track_number"].to_list() == [None, 1, 2] and clips["bpm"].to_list() == [None, 100, 200]
    assert "mb_trackid" not in clips.columns             # empty in every song
    assert sync(lake, tmp_path, attributes=attributes).known == 3            # again: nothing changes

    first = beets.get_item(1)
    first.update({"title": "New", "artists": [], "year": 0, "mood": "calm"})
    first.store()
    song(tmp_path / "music" / "3.flac", 2)               # the file is written again with its own tags
    assert sync(lake, tmp_path, attributes=attributes).changed == 1
    clips = lake.clips.read().sort("track_number", nulls_last=False)
    assert clips.select("title", "year", "mood").row(0) == ("New", None, "calm") and clips["title"][2] == "Title 2"
    first.title = ""
    first.store()
    sync(lake, tmp_path, attributes=attributes)
    assert "Tag 0" in lake.clips.read()["title"].to_list()                   # where beets has none, the file's own


def test_moved_removed_and_deleted_songs_follow(beets, lake, tmp_path):
    sync(lake, tmp_path)
    clip = lake.clips.read().filter(pl.col("title") == "Title 0")["clip_id"][0]
    (tmp_path / "music" / "moved").mkdir()
    os.rename(tmp_path / "music/Ada/First/1.flac", tmp_path / "music/moved/1.flac")        # noqa: PTH104 - as beets does
    first, second, third = (beets.get_item(number) for number in (1, 2, 3))
    first.path = os.fsencode(tmp_path / "music/moved/1.flac")
    first.store()
    second.remove()                      # from beets alone
    third.remove(delete=True)
    report = sync(lake, tmp_path)
    assert report.missing == 1 and any("1 files were removed from beets" in note for note in report.notes)
    states = {title: (track, state) for title, track, state in shown(lake, "title", "track", "state")}
    assert states == {
        "Title 0": ("moved/1.flac", None), "Title 1": ("Béla/2.flac", "superseded"), "Title 2": ("3.flac", "missing")
    }
    assert lake.clips.find(clip)["title"] == "Title 0"
    assert sync(lake, tmp_path).notes == ()              # told once
    assert ingest_folder(lake, tmp_path / "music", seconds=None).recordings == 2
    assert lake.clips.count("state IS NULL") == 2        # the folder has the file that beets removed
    beets.add(second)
    sync(lake, tmp_path)
    second.remove()
    assert sync(lake, tmp_path).notes == ()              # and keeps it, as a folder that was ingested holds it
    assert lake.clips.count("state IS NULL") == 2


def test_absent_files_are_missing_and_an_absent_disk_changes_nothing(beets, lake, tmp_path):
    sync(lake, tmp_path)
    (tmp_path / "music/3.flac").rename(tmp_path / "3.flac")
    report = sync(lake, tmp_path)
    assert (report.recordings, report.missing, report.failed) == (2, 1, 0)
    assert report.notes == ("1 files that beets lists are not on the disk: 3.flac",)
    (tmp_path / "music").rename(tmp_path / "away")
    with pytest.raises(InputError, match=r"music: is not a folder.*nothing was marked as missing"):
        sync(lake, tmp_path)
    (tmp_path / "music").mkdir()         # an empty mount point
    with pytest.raises(InputError, match=r"none of its 3 files is on the disk; the first is .*1\.flac"):
        sync(lake, tmp_path)
    assert lake.clips.count("state IS NULL") == 2


def test_the_music_folder_is_that_of_the_configuration(beets, lake, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="Give the folder with --music"):
        sync(lake, tmp_path, music=None)
    (tmp_path / "config.yaml").write_text("library: library.db\ndirectory: /nowhere\ninclude: [more.yaml]\n")
    (tmp_path / "more.yaml").write_text("directory: music\n")
    assert sync(lake, tmp_path, music=None).new == 3
    other = tmp_path / "home" / ".config" / "beets"
    other.mkdir(parents=True)
    (tmp_path / "config.yaml").write_text("library: other.db\ndirectory: /nowhere\n")
    assert beets_music_folder(tmp_path / "library.db") is None               # it belongs to another library
    (other / "config.yaml").write_text(f"library: {tmp_path / 'library.db'}\ndirectory: {tmp_path / 'music'}\n")
    assert beets_music_folder(tmp_path / "library.db") == tmp_path / "music"
    (tmp_path / "config.yaml").write_text("directory: [")
    with pytest.raises(InputError, match=r"config\.yaml: cannot be read as beets' configuration"):
        beets_music_folder(tmp_path / "library.db")


def test_the_command_records_the_ingest(beets, tmp_path):
    words = ["ingest", "beets", tmp_path / "library.db", "--music", tmp_path / "music", "--attributes", "mood,bpm", "--whole"]
    done = run(*words, lake=tmp_path / "lake")
    assert done.returncode == 0 and "3 recordings: 3 clips new" in done.stderr
    lake = Lake(tmp_path / "lake")
    found = lake.ingests.find("beets", str(tmp_path / "library.db"))
    assert found is not None and found.options == {
        "seconds": None, "hop": None, "per_track": None, "dataset": None, "attributes": ["mood", "bpm"],
        "music": str(tmp_path / "music"),
    }
    assert ingest_beets(lake, found.root, **found.options).known == 3
    assert [one.kind for one in lake.ingests.all()] == ["beets"]


def old_library(tmp_path: Path, rows: list[tuple]) -> Path:
    """A library as old releases made it: absolute paths, `genre`, no lists; (path, title, artist, genre, year) each."""
    file = tmp_path / "old.blb"
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TABLE items (id INTEGER PRIMARY KEY, path BLOB, title TEXT, artist TEXT, genre TEXT, year INT)"
        )
        connection.executemany("INSERT INTO items (path, title, artist, genre, year) VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    return file


def test_older_libraries_and_hostile_values(lake, tmp_path):
    names = [os.fsdecode(b"caf\xe9.flac"), "two\nlines.flac", "plain.flac"]
    for number, name in enumerate(names):
        song(tmp_path / "songs" / f"{number}.flac", number).rename(tmp_path / "songs" / name)
    folder = os.fsencode(tmp_path / "songs")
    file = old_library(tmp_path, [
        (folder + b"/caf\xe9.flac", "A\x1b[31m\x00B", "Ada", "(17)", 1999),
        (folder + b"/two\nlines.flac", "x" * 1000, None, "Rock", -5),
        (str(tmp_path / "songs/plain.flac"), "Plain", "", "", "MMXX"),       # text where bytes belong, and where a number does
        (b"", "No path", "", "", 0), (b"/a\0b.flac", "NUL", "", "", 0), (folder + b"/plain.flac", "Again", "Bo", "", 2000),
    ])
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE items SET artist = CAST(x'FF41' AS TEXT) WHERE id = 1")
    connection.close()
    report = ingest_beets(lake, file, seconds=None)
    assert (report.recordings, report.new, report.failed) == (3, 3, 0)
    assert report.notes[:2] == (
        "2 items have no path, or one that no file can have, and were left out",
        "1 items have the file of another item; the last of them counts",
    )
    clips = {row["track"]: row for row in lake.clips.read().to_dicts()}
    assert sorted(clips) == ["caf\\udce9.flac", "plain.flac", "two\nlines.flac"]
    assert clips["caf\\udce9.flac"]["title"] == "A [31m B" and clips["caf\\udce9.flac"]["artist"] == "\ufffdA"
    assert clips["caf\\udce9.flac"]["genre"] == "Rock" and len(clips["two\nlines.flac"]["title"]) == 300
    assert (clips["plain.flac"]["title"], clips["plain.flac"]["artist"], clips["plain.flac"]["year"]) == ("Again", "Bo", 2000)
    assert clips["two\nlines.flac"]["artist"] == "Tagged" and clips["two\nlines.flac"]["year"] is None


def test_what_is_no_library_is_a_sentence(lake, tmp_path):
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as the head of one" * 20)
    sqlite3.connect(tmp_path / "other.db").execute("CREATE TABLE songs (id INTEGER)").connection.close()
    empty = old_library(tmp_path, [])
    for file, problem in (
        (tmp_path / "absent.db", "is not a file"), (tmp_path, "is not a file"), (tmp_path / "text.db", "cannot be read as a"),
        (tmp_path / "other.db", "is not a library of beets"), (empty, "holds no songs"),
    ):
        with pytest.raises(InputError, match=problem):
            ingest_beets(lake, file)
    assert not lake.ingests.all() and not lake.clips.count()


def test_attributes_that_cannot_be_stored_are_sentences(beets, lake, tmp_path):
    for names, problem in (
        (["nope"], r"no song has an attribute 'nope'\. Choose from mood, rating"), (["title"], "is read without being asked"),
        (["mood", "Mood"], "both become the column mood"), (["9lives"], "no song has an attribute"),
    ):
        with pytest.raises(InputError, match=problem):
            sync(lake, tmp_path, attributes=names)
    sync(lake, tmp_path, attributes=["mood"])
    beets.get_item(2).update({"mood": 7})
    for number in (1, 2, 3):
        item = beets.get_item(number)
        item["mood"] = str(number)
        item.store()
    sync(lake, tmp_path, attributes=["mood"])            # a column of text stays one
    assert lake.clips.read()["mood"].sort().to_list() == ["1", "2", "3"]
    for number in (1, 2, 3):
        item = beets.get_item(number)
        del item["mood"]
        item.store()
    sync(lake, tmp_path, attributes=["mood"])            # a known column can become empty
    assert lake.clips.read()["mood"].to_list() == [None] * 3


def test_a_locked_library_is_waited_for_and_then_a_sentence(beets, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest.beets_library, "TIMEOUT_S", 0.05)
    writer = sqlite3.connect(tmp_path / "library.db")
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match=r"library\.db: is locked by a program that writes to it"):
        read_beets_library(tmp_path / "library.db")
    writer.rollback()
    writer.close()
    before = (tmp_path / "library.db").read_bytes()
    os.chmod(tmp_path / "library.db", 0o400)             # noqa: PTH101
    assert [item.attributes for item in read_beets_library(tmp_path / "library.db", ["mood"])] == [
        {"mood": "wild"}, {"mood": "calm"}, {"mood": "calm"}
    ]
    assert (tmp_path / "library.db").read_bytes() == before
