"""Ingest a music server's library: supysonic, asked in this process, with the files that it plays."""

from __future__ import annotations

import errno
import os
import shutil
from typing import Any

import httpx2
import pytest
from library import InProcess, embed_missing
from subsonic_server import PASSWORD, USER, MusicServer, render

from tonelake import ingest
from tonelake.ingest import AudioError, SubsonicError, SubsonicServer, ingest_folder, ingest_subsonic, read_source
from tonelake.ingest.repeat import repeat_ingest
from tonelake.ingest.subsonic import cache, fetching, sync
from tonelake.ingest.subsonic.settings import folder, read_settings, writing
from tonelake.ingest.subsonic.songs import song_from
from tonelake.ingest.subsonic.sources import served_source
from tonelake.store import Ingest, InputError, Lake, forget
from tonelake.verify import verify

COUNTS = ("songs", "by_path", "by_tags", "on_disk", "downloaded", "kept")


@pytest.fixture(autouse=True)
def in_process(monkeypatch, tmp_path):
    """Decode in this process, trust stamps at once, and keep the cache and logins to the test."""
    monkeypatch.setattr(ingest.recordings, "DecoderPool", InProcess)
    monkeypatch.setattr(sync, "DecoderPool", InProcess)
    monkeypatch.setattr(ingest.file_stamps, "COARSE_NS", 0)
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    cache.known_server.cache_clear()
    cache._failed.clear()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with five songs; a test that changes them uses `restore`."""
    made = MusicServer(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture
def restore(server):
    yield
    server.restore()


@pytest.fixture(scope="module")
def home(server, tmp_path_factory):
    """A lake with all songs of the server, and the cache that they are in."""
    home = tmp_path_factory.mktemp("downloaded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.recordings, "DecoderPool", InProcess)
        patch.setenv("TONELAKE_CACHE", str(home / "cache"))
        ingest_subsonic(Lake(home / "lake"), client(server), seconds=None)
    return home


@pytest.fixture
def downloaded(home, tmp_path):
    """A copy of that lake and that cache."""
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    return Lake(tmp_path / "lake")


def client(server: MusicServer, transport: Any = None) -> SubsonicServer:
    return SubsonicServer(
        server.address, user=USER, password=PASSWORD, transport=transport or server.transport(), sleep=lambda _: None
    )


def counts(report: Any) -> dict[str, int]:
    return {name: getattr(report, name) for name in COUNTS if getattr(report, name)}


def served(lake: Lake, server: MusicServer) -> dict[str, str]:
    return {source: song for source, _, song in lake.paths.served(server.address).rows()}


def known(monkeypatch, server: MusicServer, transport: Any = None) -> list[SubsonicServer]:
    """Have songs that left the cache downloaded from this server."""
    made: list[SubsonicServer] = []

    def known_server(address: str) -> SubsonicServer:
        assert address == server.address and address in read_settings().servers
        made.append(client(server, transport))
        return made[-1]

    monkeypatch.setattr(cache, "known_server", known_server)
    return made


class Watched(httpx2.BaseTransport):
    """A transport that counts the calls of each method, and may answer itself."""

    def __init__(self, inner: Any, answer: Any = lambda method, calls: None) -> None:
        self.inner, self.answer, self.calls = inner, answer, {}

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        method = request.url.path.rsplit("/", 1)[-1].removesuffix(".view")
        self.calls[method] = self.calls.get(method, 0) + 1
        return self.answer(method, self.calls[method]) or self.inner.handle_request(request)


# -- songs whose files the lake has


def test_songs_of_a_lake_get_the_servers_ids_by_path_and_a_second_run_has_nothing_to_do(lake, server, tmp_path):
    shutil.copytree(server.music, tmp_path / "mine" / "below")
    ingest_folder(lake, tmp_path / "mine", seconds=None)
    before = lake.clips.read()
    transport = Watched(server.transport())
    report = ingest_subsonic(lake, client(server, transport))
    assert counts(report) == {"songs": 5, "by_path": 5} and report.unmatched == ()
    assert str(report) == "5 songs of the server: 5 matched by path"
    root = str(tmp_path / "mine" / "below")
    assert served(lake, server) == {f"{root}/{path}": song for path, song in server.ids().items()}
    assert lake.clips.read().equals(before) and "download" not in transport.calls
    version = lake.paths.table.version
    assert counts(ingest_subsonic(lake, client(server))) == counts(report) and lake.paths.table.version == version


def test_songs_with_other_paths_are_matched_by_tags_and_length(lake, server, tmp_path):
    ids = server.ids()
    for number, path in enumerate(sorted(server.music.rglob("*.flac"))):
        target = tmp_path / "mine" / f"track{number}.flac"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
        with target.open("ab") as file:  # another size, as with a larger cover
            file.write(bytes(100))
    ingest_folder(lake, tmp_path / "mine", seconds=None)
    report = ingest_subsonic(lake, client(server), fetch=False)
    assert counts(report) == {"songs": 5, "by_tags": 3}
    titles = dict(lake.paths.read(["source", "title"]).rows())
    assert {titles[source]: song for source, song in served(lake, server).items()} == {
        "Love Theme": ids["Ada Lark/First/01 Love Theme.flac"], "Love Letters": ids["Ada Lark/First/02 Love Letters.flac"],
        "Dal": ids["Béla/Éjszaka/01 Dal.flac"],
    }
    assert sorted(one.path for one in report.unmatched) == ["untagged.wav", "雪/夜/月光.ogg"]
    assert {one.reason for one in report.unmatched} == {"is not in the lake, and downloads are off (--no-fetch)"}
    assert report.unmatched_frame().columns == ["id", "name", "path", "reason"]


def test_ids_that_the_server_gave_away_or_changed_are_replaced(lake, server, tmp_path, restore):
    ingest_folder(lake, shutil.copytree(server.music, tmp_path / "mine"), seconds=None)
    ingest_subsonic(lake, client(server))
    before = served(lake, server)
    server.forget()
    ingest_subsonic(lake, client(server))
    now = served(lake, server)
    assert now.keys() == before.keys() and not set(now.values()) & set(before.values())
    (server.music / "untagged.wav").unlink()
    server.scan()
    ingest_subsonic(lake, client(server))
    assert set(served(lake, server)) == set(before) - {f"{tmp_path}/mine/untagged.wav"}
    assert lake.clips.count() == 5


def test_files_that_are_away_keep_their_ids(lake, server, tmp_path):
    folder = shutil.copytree(server.music, tmp_path / "mine")
    ingest_folder(lake, folder, seconds=None)
    (folder / "untagged.wav").unlink()
    ingest_folder(lake, folder, seconds=None)
    assert counts(ingest_subsonic(lake, client(server))) == {"songs": 5, "by_path": 5}


def test_artists_are_found_by_the_servers_ids(downloaded, server):
    from tonelake.serve.answers import Answers

    ids = server.artist_ids()
    assert downloaded.servers.artists(server.address) == {ids[name]: name for name in ("Ada Lark", "Béla", "雪")}
    embed_missing(downloaded)
    answers = Answers(downloaded.uri)
    assert {row.name: row.id for row in answers.artists().rows} == {name: ids[name] for name in ("Ada Lark", "Béla", "雪")}
    near = answers.similar_artists(ids["Ada Lark"])
    assert {row.id for row in near} == {ids["Béla"], ids["雪"]} and near == answers.similar_artists("ada lark")


def test_artists_are_those_of_the_lists_and_the_most_frequent_name_of_an_id_counts():
    listed = [{"id": "a", "name": "Ada"}, {"id": 2, "name": "Béla"}, {"id": 3}]
    both, alone = {"artist": "Ada & Béla", "artistId": "a", "artists": listed}, {"artist": "CLEO", "artistId": "c"}
    various = {"albumArtists": [{"id": "v", "name": "Various"}], "artist": "Cleo", "artistId": "c"}
    entries = [both, both, various, alone, alone, {"artist": "[unknown]", "artistId": "u"}]
    songs = [song_from({"id": str(number), **entry}) for number, entry in enumerate(entries)]
    assert list(sync.artists_of(songs).items()) == [("2", "Béla"), ("a", "Ada"), ("c", "CLEO"), ("v", "Various")]
    one, other = (song_from({"id": "s", "title": "S", "artist": "Ada", "artistId": found}) for found in ("a", "b"))
    assert sync.stamp_of_song(one) == sync.stamp_of_song(other)      # ids of artists are no reason for a download


# -- songs on this disk


def test_songs_below_the_music_folder_are_read_from_there(lake, server, tmp_path):
    transport = Watched(server.transport())
    report = ingest_subsonic(lake, client(server, transport), music=server.music, seconds=None)
    assert counts(report) == {"songs": 5, "on_disk": 5} and report.new == 5 and "download" not in transport.calls
    assert served(lake, server) == {f"{server.music}/{path}": song for path, song in server.ids().items()}
    assert set(lake.clips.read()["track"]) == set(server.ids())
    assert counts(ingest_subsonic(lake, client(server), music=server.music, seconds=None)) == {"songs": 5, "by_path": 5}
    assert [(one.kind, one.root) for one in lake.ingests.all()] == [("subsonic", server.address)]
    options = lake.ingests.find("subsonic", server.address).options
    assert options["music"] == str(server.music) and options["user"] == USER and PASSWORD not in str(options)


@pytest.mark.parametrize("path", [
    "../secret/song.wav", "a/../../secret/song.wav", "{home}/secret/song.wav", "//{home}/secret/song.wav", "..", "", "/",
    "secret/song.txt", "music", "a\x00.wav", "link.wav/../../secret/song.wav", "x" * 5_000 + ".wav", "~/song.wav",
])
def test_a_path_of_the_server_never_leads_out_of_the_music_folder(tmp_path, path):
    music = tmp_path / "music"
    for place in (music, tmp_path / "secret"):
        place.mkdir()
    (tmp_path / "secret" / "song.wav").write_bytes(b"secret")
    (music / "other.wav").write_bytes(b"other")
    entry = {"id": "s", "title": "S", "path": path.format(home=tmp_path), "size": 6}
    assert sync.path_below(music, song_from(entry)) is None


def test_paths_below_another_root_are_found_by_their_end_and_size(tmp_path):
    file = tmp_path / "music" / "A" / "B" / "01.mp3"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"music")
    for path, size, found in (
        ("/srv/music/A/B/01.mp3", 5, True), ("/srv/music/A/B/01.mp3", 6, False), ("A/B/01.mp3", 6, True), (str(file), 6, True),
        ("/srv/01.mp3", 5, False), ("./A//B/01.mp3", 5, True), ("A\\B\\01.mp3", 5, True),
    ):
        song = song_from({"id": "s", "path": path, "size": size})
        assert sync.path_below(tmp_path / "music", song) == (file if found else None), path


# -- songs that are only on the server


def test_other_songs_are_downloaded_once_and_read_like_files(lake, server):
    transport = Watched(server.transport())
    report = ingest_subsonic(lake, client(server, transport), seconds=None, dataset="home")
    assert counts(report) == {"songs": 5, "downloaded": 5} and (report.new, report.failed) == (5, 0)
    clips = {row["track"]: row for row in lake.clips.read().iter_rows(named=True)}
    assert clips.keys() == server.ids().keys() and set(lake.clips.read()["dataset"]) == {"home"}
    moon, untagged = clips["雪/夜/月光.ogg"], clips["untagged.wav"]
    assert moon["source"] == served_source(server.address, server.ids()["雪/夜/月光.ogg"])
    assert (moon["title"], moon["artist"], moon["album"]) == ("月光", "雪", "夜")
    assert (untagged["title"], untagged["artist"]) == ("untagged", None)
    assert len(embed_missing(lake)) == 5
    again = ingest_subsonic(lake, client(server, transport), seconds=None, dataset="home")
    assert counts(again) == {"songs": 5, "kept": 5} and again.known == 5 and transport.calls["download"] == 5
    assert embed_missing(lake) == [] and verify(lake, digests=True).is_empty()


def test_the_server_fills_tags_that_a_file_lacks(lake, server, monkeypatch):
    monkeypatch.setattr("tonelake.ingest.tags._all_tags", lambda file: iter(()))
    ingest_subsonic(lake, client(server), seconds=None)
    row = lake.paths.read(where="title = 'Love Theme'").row(0, named=True)
    assert (row["artists"], row["album"]) == (["Ada Lark"], "First")


def test_a_song_that_left_the_cache_is_downloaded_when_it_is_needed(downloaded, server, monkeypatch):
    clip = downloaded.clips.read().row(0, named=True)
    cache.drop_song(clip["source"])
    made = known(monkeypatch, server)
    assert len(read_source(clip["source"], 0.0, 1.0, 8_000, clip["digest"])) == 8_000
    assert len(read_source(clip["source"], 0.0, 1.0, 8_000, clip["digest"])) == 8_000
    assert len(made) == 1


def test_a_server_that_is_away_is_not_waited_for_by_every_clip(downloaded, server, monkeypatch):
    transport = Watched(server.transport(), lambda method, calls: httpx2.Response(503))
    known(monkeypatch, server, transport)
    for source in downloaded.clips.read()["source"]:
        cache.drop_song(source)
        with pytest.raises(AudioError, match="cannot be downloaded: http://localhost:5722: answers with status 503"):
            read_source(source, 0.0, 1.0, 8_000)
    assert transport.calls == {"download": 3}                        # tries for the first clip alone


def test_a_lake_from_elsewhere_does_not_make_this_machine_send_a_login(monkeypatch):
    monkeypatch.setenv("TONELAKE_SUBSONIC_USER", USER)
    monkeypatch.setenv("TONELAKE_SUBSONIC_PASSWORD", PASSWORD)
    with pytest.raises(AudioError, match="was never ingested on this machine, so nothing is sent there"):
        read_source("subsonic:http://127.0.0.1:1/s1", 0.0, 1.0, 8_000)
    with pytest.raises(AudioError, match="is not the source of a song"):
        read_source("subsonic:file:///etc/passwd", 0.0, 1.0, 8_000)


def test_a_recorded_ingest_is_repeated_only_with_a_server_that_this_machine_knows(lake, server, monkeypatch):
    foreign = Ingest(kind="subsonic", root="http://127.0.0.1:1", options={"fetch": True})
    with pytest.raises(InputError, match="was never ingested on this machine"):
        repeat_ingest(lake, foreign)
    ingest_subsonic(lake, client(server), seconds=None)
    monkeypatch.setattr(sync, "known_server", lambda address: client(server))
    assert counts(repeat_ingest(lake, lake.ingests.find("subsonic", server.address))) == {"songs": 5, "kept": 5}


def test_the_cache_keeps_its_bound_and_drops_what_was_used_least_recently(lake, server, monkeypatch):
    sizes = {song.id: song.size for song in client(server).songs()}
    bound = sum(sizes.values()) - 1
    monkeypatch.setattr(fetching, "AT_ONCE", 1)
    monkeypatch.setattr(fetching, "cores", lambda: 0)                # nothing but the newest downloads is held
    ingest_subsonic(lake, client(server), seconds=None, cache_gb=bound / 1e9)
    files = list((folder() / "files").iterdir())
    assert sum(path.stat().st_size for path in files) <= bound and len(files) == 4
    assert lake.clips.count() == 5 and read_settings().most_bytes == bound
    first = next(source for source in served(lake, server) if cache.is_here(source))
    monkeypatch.setattr(cache, "TOUCH_S", -1.0)
    cache.cached_song(first)             # used now
    known(monkeypatch, server)
    (gone,) = [source for source in served(lake, server) if not cache.is_here(source)]
    cache.local_song(gone)
    assert cache.is_here(first) and cache.is_here(gone)


def test_a_song_that_is_larger_than_the_cache_is_refused_and_the_others_come_in(lake, server):
    largest = max(client(server).songs(), key=lambda song: song.size)
    report = ingest_subsonic(lake, client(server), seconds=None, cache_gb=(largest.size - 1) / 1e9)
    assert (report.failed, lake.clips.count()) == (1, 4)
    (failure,) = lake.failures.read().iter_rows(named=True)
    assert "Give it more with --cache-gb" in failure["error"] and failure["source"].startswith("subsonic:")
    report = ingest_subsonic(lake, client(server), seconds=None, cache_gb=1)
    assert (report.failed, report.downloaded, lake.clips.count(), lake.failures.count()) == (0, 1, 5, 0)


def test_songs_with_other_ids_keep_their_clips_without_a_download(downloaded, server, restore):
    before = set(downloaded.clips.read()["clip_id"])
    server.forget()
    transport = Watched(server.transport())
    report = ingest_subsonic(downloaded, client(server, transport), seconds=None)
    assert counts(report) == {"songs": 5, "kept": 5} and "download" not in transport.calls
    assert set(downloaded.clips.read()["clip_id"]) == before and downloaded.paths.count() == 5
    assert set(downloaded.clips.read()["source"]) == {served_source(server.address, song) for song in server.ids().values()}
    assert all(cache.is_here(source) for source in downloaded.clips.read()["source"])


def test_songs_that_vanish_are_missing_and_changed_ones_are_read_again(downloaded, server, restore):
    (server.music / "untagged.wav").unlink()
    render(server.music, [("Béla/Éjszaka/01 Dal.flac", {"title": "Dal", "artist": "Béla II", "album": "Éjszaka"}, 2.7)])
    server.scan()
    report = ingest_subsonic(downloaded, client(server), seconds=None)
    assert (report.missing, report.downloaded, report.kept) == (1, 1, 3)
    states = dict(downloaded.clips.read(superseded=True).select("track", "state").iter_rows())
    assert states["untagged.wav"] == "missing" and states["Béla/Éjszaka/01 Dal.flac"] is None
    assert downloaded.clips.count() == 5 and "Béla II" in set(downloaded.clips.read()["artist"])


def test_songs_that_are_on_this_disk_later_are_read_from_there(downloaded, server, tmp_path):
    ids = set(downloaded.clips.read()["clip_id"])
    ingest_folder(downloaded, shutil.copytree(server.music, tmp_path / "mine"), seconds=None)
    assert counts(ingest_subsonic(downloaded, client(server), seconds=None)) == {"songs": 5, "by_path": 5}
    assert set(downloaded.clips.read()["clip_id"]) == ids and downloaded.paths.count() == 5
    assert all(source.startswith(str(tmp_path)) for source in downloaded.clips.read()["source"])


# -- what goes wrong


def test_a_server_without_songs_changes_nothing(downloaded, server):
    empty = {"subsonic-response": {"status": "ok", "searchResult3": {}, "albumList2": {}}}
    transport = Watched(server.transport(), lambda method, calls: (
        httpx2.Response(200, json=empty) if method in ("search3", "getAlbumList2") else None
    ))
    with pytest.raises(InputError, match=r"lists no songs.*nothing was changed"):
        ingest_subsonic(downloaded, client(server, transport), seconds=None)
    assert downloaded.clips.read()["state"].null_count() == 5 and len(served(downloaded, server)) == 5


def test_a_server_that_fails_midway_leaves_what_was_stored_and_the_next_run_resumes(lake, server, monkeypatch):
    monkeypatch.setattr(fetching, "AT_ONCE", 1)
    monkeypatch.setattr(fetching, "FAILED_IN_A_ROW", 2)
    transport = Watched(server.transport(), lambda method, calls: (
        httpx2.Response(503) if method == "download" and calls > 3 else None
    ))
    with pytest.raises(SubsonicError, match=r"status 503.*those before are in the lake\. Run it again"):
        ingest_subsonic(lake, client(server, transport), seconds=None)
    stored = lake.clips.count()
    assert stored >= 2 and len(served(lake, server)) == stored
    transport = Watched(server.transport())
    report = ingest_subsonic(lake, client(server, transport), seconds=None)
    assert lake.clips.count() == 5 and report.failed == 0 and transport.calls["download"] <= 5 - stored
    assert lake.failures.count() == 0 and len(served(lake, server)) == 5


def test_a_listing_that_breaks_off_changes_nothing(downloaded, server):
    version = downloaded.paths.table.version
    transport = Watched(server.transport(), lambda method, calls: (
        httpx2.Response(500) if method == "search3" and calls > 1 else None
    ))
    with pytest.raises(SubsonicError, match="status 500"):
        ingest_subsonic(downloaded, client(server, transport), seconds=None)
    assert downloaded.paths.table.version == version


def test_a_full_disk_is_a_sentence_and_leaves_no_part_files(lake, server, monkeypatch):
    monkeypatch.setattr(fetching, "FAILED_IN_A_ROW", 2)

    def full(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SubsonicServer, "download", full)
    with pytest.raises(SubsonicError, match=r"No space left on device\). Free some space, choose a smaller --cache-gb"):
        ingest_subsonic(lake, client(server), seconds=None)
    assert list((folder() / "files").iterdir()) == []


def test_the_cache_removes_part_files_of_killed_downloads(downloaded, server):
    part = folder() / "files" / ".ab.cd.tmp"
    part.write_bytes(b"part")
    with writing():
        cache.make_room(10**9)
    assert part.exists()                 # it may be of a download that runs
    os.utime(part, (0, 0))
    with writing():
        cache.make_room(10**9)
    assert not part.exists()


def test_an_open_connection_is_pointed_out_once(lake, server):
    open_one = SubsonicServer(
        "http://music.example", user=USER, password=PASSWORD, insecure=True, transport=server.transport()
    )
    report = ingest_subsonic(lake, open_one, fetch=False)
    assert sum("not encrypted" in note for note in report.notes) == 1
    assert not any("not encrypted" in note for note in ingest_subsonic(lake, client(server), fetch=False).notes)


def test_arguments_are_checked_before_anything_is_sent(lake, server, tmp_path):
    transport = Watched(server.transport())
    for wrong, problem in (
        ({"music": tmp_path / "absent"}, "is not a folder"), ({"cache_gb": 0}, "must be above 0"),
        ({"seconds": None, "hop": 3.0}, "--hop"),
    ):
        with pytest.raises(InputError, match=problem):
            ingest_subsonic(lake, client(server, transport), **wrong)
    assert transport.calls == {}


def test_songs_are_forgotten_by_their_server(downloaded, server):
    report = forget(downloaded, f"subsonic:{server.address}")
    assert (report.songs, downloaded.clips.count(), downloaded.paths.count()) == (5, 0, 0)
    assert downloaded.servers.artists(server.address) == {} and downloaded.ingests.all() == []
