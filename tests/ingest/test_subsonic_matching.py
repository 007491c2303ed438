"""Match songs of a server to files of a lake: by path, else by tags and duration; nothing is guessed."""

from __future__ import annotations

import time
import unicodedata
from typing import Any

import pytest

from tonelake.ingest.subsonic.matching import LakeFile, Matches, match_songs
from tonelake.ingest.subsonic.songs import ServerSong


def song(id_: str, path: str = "", **about: Any) -> ServerSong:
    return ServerSong(id=id_, path=path, **about)


def file(path: str, **about: Any) -> LakeFile:
    return LakeFile(source=path, path=path, **about)


def matched(songs: list[ServerSong], files: list[LakeFile], **more: Any) -> dict[str, str]:
    return match_songs(songs, files, **more).source_of


# -- by path


def test_the_longest_common_end_of_two_paths_counts():
    files = [file(f"/mnt/music/{name}") for name in ("A/One/01.mp3", "A/Two/01.mp3", "B/One/01.mp3", "B/One/02.mp3")]
    songs = [song(name, f"/music/{name}") for name in ("A/One/01.mp3", "A/Two/01.mp3", "B/One/01.mp3", "B/One/02.mp3")]
    assert match_songs(songs, files) == Matches(by_path={
        name: f"/mnt/music/{name}" for name in ("A/One/01.mp3", "A/Two/01.mp3", "B/One/01.mp3", "B/One/02.mp3")
    })


def test_case_and_normal_forms_do_not_matter_unless_two_files_differ_by_them_alone():
    nfd = unicodedata.normalize("NFD", "/m/Béla/Éjszaka/01 Dal.flac")
    assert matched([song("s", "BÉLA/éjszaka/01 dal.FLAC")], [file(nfd)]) == {"s": nfd}
    files = [file("/m/a/b/Song.mp3"), file("/m/a/b/song.mp3")]
    assert matched([song("1", "a/b/song.mp3"), song("2", "a/b/Song.mp3")], files) == {
        "1": "/m/a/b/song.mp3", "2": "/m/a/b/Song.mp3",
    }


@pytest.mark.parametrize(("about", "found"), [
    ({}, False), ({"size": 10}, True), ({"size": 11}, False), ({"title": "Dal", "artists": ("Béla",)}, True),
    ({"title": "Dal", "artists": ("Ada",)}, False), ({"title": "Other", "artists": ("Béla",)}, False),
])
def test_a_name_alone_needs_the_same_size_or_tags(about, found):
    here = file("/m/x/01.mp3", size=10, title="Dal", artists=("Béla",))
    assert bool(matched([song("s", "y/01.mp3", **about)], [here])) == found


@pytest.mark.parametrize(("about", "found"), [
    ({}, True), ({"title": "dal!"}, True), ({"title": "Other"}, False), ({"title": "Other", "size": 10}, True),
    ({"duration_s": 60.0}, False), ({"duration_s": 99.0}, True),
])
def test_a_name_and_a_folder_must_not_contradict_in_title_or_length(about, found):
    here = file("/m/x/CD1/01.mp3", size=10, title="Dal", reach_s=100.0)
    assert bool(matched([song("s", "y/CD1/01.mp3", **about)], [here])) == found


def test_a_file_at_the_top_of_the_servers_folder_is_matched_by_its_whole_path():
    assert matched([song("s", "untagged.wav", size=5)], [file("/m/untagged.wav", size=6)]) == {"s": "/m/untagged.wav"}


def test_paths_that_lead_outside_match_nothing():
    files = [file("/etc/passwd"), file("/m/a/b.mp3")]
    assert matched([song("s", "../../etc/passwd.mp3"), song("t", "//"), song("u", "..")], files) == {}


def test_one_file_is_matched_once_and_the_closer_song_gets_it():
    files = [file("/m/A/B/01.mp3", size=10)]
    songs = [song("far", "X/B/01.mp3", size=10), song("near", "A/B/01.mp3")]
    assert matched(songs, files) == {"near": "/m/A/B/01.mp3"}


def test_two_different_files_with_the_same_end_are_left_alone_and_listed():
    files = [file("/old/A/B/01.mp3", recording="r1"), file("/new/A/B/01.mp3", recording="r2")]
    found = match_songs([song("s", "A/B/01.mp3")], files)
    assert found.source_of == {} and found.ambiguous == {"s": ("/old/A/B/01.mp3", "/new/A/B/01.mp3")}
    files = [file("/old/A/B/01.mp3", recording="r1", size=7), file("/new/A/B/01.mp3", recording="r2", size=8)]
    assert matched([song("s", "A/B/01.mp3", size=8)], files) == {"s": "/new/A/B/01.mp3"}


def test_of_copies_of_one_recording_the_first_that_is_present_is_taken():
    files = [
        file("/gone/A/B/01.mp3", recording="r", is_missing=True), file("/one/A/B/01.mp3", recording="r"),
        file("/two/A/B/01.mp3", recording="r"),
    ]
    assert matched([song("s", "A/B/01.mp3")], files) == {"s": "/one/A/B/01.mp3"}
    assert matched([song("s", "A/B/01.mp3")], files[:1]) == {"s": "/gone/A/B/01.mp3"}
    both = matched([song("s", "A/B/01.mp3"), song("t", "A/B/01.mp3")], files)
    assert sorted(both.values()) == ["/one/A/B/01.mp3", "/two/A/B/01.mp3"]


def test_of_songs_that_could_be_one_file_the_first_is_taken_only_if_they_are_alike():
    here = [file("/m/A/B/01.mp3", recording="r")]
    alike = [song("2", "x/A/B/01.mp3", size=7), song("1", "y/A/B/01.mp3", size=7)]
    assert matched(alike, here) == {"1": "/m/A/B/01.mp3"}
    unlike = [song("1", "x/A/B/01.mp3", size=7), song("2", "y/A/B/01.mp3", size=8)]
    found = match_songs(unlike, here)
    assert found.source_of == {} and found.ambiguous == {"1": ("/m/A/B/01.mp3",), "2": ("/m/A/B/01.mp3",)}


# -- by tags


DAL = {"title": "Dal", "artists": ("Béla",), "album": "Éjszaka"}


@pytest.mark.parametrize(("about", "found"), [
    ({}, True), ({"title": "DAL."}, True), ({"duration_s": 101.9}, True), ({"duration_s": 103.0}, False),
    ({"artists": ("Ada", "BÉLA")}, True), ({"artists": ("Bela",)}, False), ({"artists": (), "album_artist": "Béla"}, True),
    ({"artists": ()}, False), ({"title": None}, False), ({"album": "Best of"}, True),
    ({"duration_s": None}, True), ({"duration_s": None, "album": "Best of"}, False),
])
def test_title_artist_and_duration_decide_where_paths_say_nothing(about, found):
    here = file("/m/x.flac", reach_s=90.0, **DAL)
    one = song("s", "Béla/Éjszaka/01-01 - Dal.mp3", **({**DAL, "duration_s": 100.0} | about))
    matches = match_songs([one], [here], lambda source: 100.4)
    assert matches.by_tags == ({"s": "/m/x.flac"} if found else {}) and not matches.by_path


def test_without_a_length_in_the_header_the_clips_must_fit():
    one = song("s", duration_s=100.0, **DAL)
    assert matched([one], [file("/x", reach_s=90.0, **DAL)]) == {"s": "/x"}
    assert matched([one], [file("/x", reach_s=110.0, **DAL)]) == {} == matched([one], [file("/x", **DAL)])


def test_versions_on_several_albums_are_kept_apart_by_album_and_track_number():
    def on(album: str | None, number: int | None) -> dict[str, Any]:
        return {"title": "Dal", "artists": ("Béla",), "album": album, "track_number": number}

    files = [file("/1", reach_s=100.0, **on("Éjszaka", 1)), file("/2", reach_s=100.0, **on("Best of", 7))]
    songs = [song("b", duration_s=100.0, **on("best of", 7)), song("a", duration_s=100.0, **on("Éjszaka", 1))]
    assert matched(songs, files) == {"a": "/1", "b": "/2"}
    assert matched(songs[:1], files) == {"b": "/2"}
    found = match_songs([song("c", duration_s=100.0, **on("Live", None))], files)
    assert found.source_of == {} and set(found.ambiguous["c"]) == {"/1", "/2"}


def test_only_files_with_the_tags_of_a_song_are_asked_for_their_length():
    asked: list[str] = []

    def length(source: str) -> float:
        asked.append(source)
        return 100.0

    files = [file("/m/A/B/1.mp3", **DAL), file("/2", **DAL), file("/3", title="Other", artists=("Béla",))]
    songs = [song("p", "A/B/1.mp3"), song("t", duration_s=100.0, **DAL), song("u", duration_s=100.0, **DAL)]
    match_songs(songs, files, length)
    assert asked == ["/2"]


def test_a_large_library_is_matched_in_seconds_also_if_all_names_are_alike():
    begin = time.process_time()
    files = [file(f"/mnt/m/{n % 100}/{n // 100}/Track.mp3", size=n, recording=str(n)) for n in range(5_000)]
    songs = [song(str(n), f"{n % 100}/{n // 100}/track.mp3", size=n) for n in range(5_000)]
    assert len(matched(songs, files)) == 5_000
    renamed = [song(str(n), f"invented/{n}/track.mp3", size=n) for n in range(5_000)]
    assert len(matched(renamed, files)) == 5_000
    assert time.process_time() - begin < 5
