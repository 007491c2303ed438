"""Ingest the songs of a Jellyfin server, by answers in the form that Jellyfin documents (`jellyfin_server`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from jellyfin_server import ADDRESS, KEY, USERS, JellyfinLibrary, identity, item
from library import InProcess
from sounds import melody, write

from tonelake import ingest
from tonelake.ingest import JellyfinError, JellyfinServer, ingest_folder, ingest_jellyfin
from tonelake.ingest.jellyfin import client as jellyfin
from tonelake.ingest.jellyfin.sync import machine_name
from tonelake.ingest.repeat import listed_files, repeat_ingest
from tonelake.ingest.subsonic import sync
from tonelake.ingest.subsonic.settings import read_settings
from tonelake.store import Ingest, InputError, Lake, forget

RATE = 8_000
ITEMS = [
    item("/media/music/Ada Lark/First/01 Love Theme.flac", "Love Theme", ["Ada Lark"], Album="First", RunTimeTicks=20_000_000),
    item("/media/music/Béla/02 Dal.wav", "Dal", ["Béla", "雪"], RunTimeTicks=21_000_000, IndexNumber=2),
    item("/media/music/elsewhere/x.flac", "Elsewhere", ["Cleo"]),
]


@pytest.fixture(autouse=True)
def in_process(monkeypatch, tmp_path):
    """Decode in this process, and keep the cache and the key to the test."""
    monkeypatch.setattr(ingest.recordings, "DecoderPool", InProcess)
    monkeypatch.setattr(sync, "DecoderPool", InProcess)
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TONELAKE_JELLYFIN_KEY", raising=False)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Two of the songs, below a folder `music`."""
    music = tmp_path_factory.mktemp("rendered") / "music"
    write(music / "Ada Lark/First/01 Love Theme.flac", melody(2.0, seed=1, rate=RATE), RATE,
          tags={"title": "Love Theme", "artist": "Ada Lark"})
    write(music / "Béla/02 Dal.wav", melody(2.1, seed=2, rate=RATE), RATE, tags={"title": "Dal", "artist": "Béla"})
    return music


def client(library: JellyfinLibrary, url: str = ADDRESS, **more: Any) -> JellyfinServer:
    return JellyfinServer(url, transport=library.transport(), sleep=lambda _: None, **({"key": KEY} | more))


def served(lake: Lake) -> dict[str, str]:
    return {Path(source).name: song for source, _, song in lake.paths.served(ADDRESS).rows()}


# -- the client


def test_songs_are_listed_page_by_page_with_tags_paths_and_lengths(monkeypatch):
    monkeypatch.setattr(jellyfin, "PAGE", 2)
    others = [{"Type": "MusicVideo", "Id": "v"}, {"Type": "Audio"}, "text", item("/b.mp3", "[unknown]", [], RunTimeTicks=None)]
    library = JellyfinLibrary([*ITEMS, *others])
    with client(library) as server:
        songs = list(server.songs())
    assert [song.id for song in songs] == [identity(path) for path in (*(one["Path"] for one in ITEMS), "/b.mp3")]
    assert [query["startindex"] for _, query in library.requests] == ["0", "2", "4", "6", "7"]
    dal = songs[1]
    assert (dal.title, dal.artists, dal.album_artist, dal.track_number, dal.year, dal.genre, dal.duration_s, dal.suffix) == (
        "Dal", ("Béla", "雪"), "Béla", 2, 1959, "Jazz", 2.1, "wav",
    )
    assert dal.path == "/media/music/Béla/02 Dal.wav"
    assert dal.artist_ids == ((identity("Béla"), "Béla"), (identity("雪"), "雪"))
    assert (songs[3].artists, songs[3].artist_ids, songs[3].duration_s) == ((), (), None)


def test_only_the_songs_of_a_user_are_listed():
    library = JellyfinLibrary(ITEMS)
    assert len(list(client(library, user="ada").songs())) == 3
    assert library.requests[0] == ("/Users", {}) and library.requests[1][1]["userid"] == USERS[0]["Id"]
    with pytest.raises(InputError, match=r"bea: is not a user of http://local.*Choose one with --user; there are Ada"):
        list(client(library, user="bea").songs())


@pytest.mark.parametrize(("answer", "problem"), [
    ((401, {}), r"refuses the API key \(status 401\)\. Make one in Jellyfin's dashboard"),
    ((403, {}), r"refuses the API key \(status 403\)"),
    ((400, {}), r"refuses the request \(status 400\)\. Name a user of the server with --user"),
    ((404, {}), r"has no Jellyfin there\. Check the address"),
    ((302, ("http://evil.example/",)), r"redirects to http://evil\.example/\. Nothing was sent there"),
    ((200, "<html>"), r"answers with a web page rather than as Jellyfin"),
    ((200, ["x"]), "answers without a list of items"),
    ((200, {"Items": 3}), "answers without a list of items"),
    ((503, {}), r"answers with status 503\. Run it again when the server has recovered"),
])
def test_what_is_not_an_answer_of_jellyfin_is_named(answer, problem):
    library = JellyfinLibrary(ITEMS, lambda path, query: answer)
    with pytest.raises(JellyfinError, match=f"^{ADDRESS}: {problem}") as caught:
        list(client(library).songs())
    assert KEY not in str(caught.value) and len(library.requests) == (3 if answer[0] == 503 else 1)


def test_a_server_that_ignores_pages_is_listed_once():
    library = JellyfinLibrary(ITEMS, lambda path, query: (200, {"Items": ITEMS}))
    assert len(list(client(library).songs())) == 3


def test_the_key_is_only_sent_where_others_cannot_read_it(monkeypatch):
    library = JellyfinLibrary(ITEMS)
    with pytest.raises(InputError, match=r"others on the network could read the API key.*--insecure"):
        client(library, "http://music.example:8096")
    assert library.requests == []
    for url in ("https://music.example", "http://[::1]:8096/web/index.html#/home", "localhost:8096/web/"):
        server = client(library, url)
        assert server.is_private and "web" not in server.address and KEY not in repr(server)
    assert len(list(client(library, "http://music.example:8096", insecure=True).songs())) == 3
    with pytest.raises(InputError, match=r"no API key\. Make one in Jellyfin's dashboard, under API Keys, and set TONELAKE_"):
        client(library, key=None)
    with pytest.raises(InputError, match="TONELAKE_JELLYFIN_KEY: holds characters") as caught:
        client(library, key='x", DeviceId="é')
    assert "DeviceId" not in str(caught.value)
    with pytest.raises(InputError, match="Leave the login out; use --user and TONELAKE_JELLYFIN_KEY"):
        client(library, "http://ada:secret@localhost")
    monkeypatch.setenv("TONELAKE_JELLYFIN_KEY", f" {KEY}\n")
    assert len(list(client(library, key=None).songs())) == 3


# -- the sync


def test_songs_are_matched_by_path_and_tags_and_others_are_reported(lake, rendered, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(rendered, mine)
    (mine / "Béla/02 Dal.wav").rename(mine / "Béla/renamed.wav")
    ingest_folder(lake, mine, seconds=None)
    library = JellyfinLibrary(ITEMS)
    report = ingest_jellyfin(lake, client(library))
    assert (report.songs, report.by_path, report.by_tags) == (3, 1, 1)
    assert [(one.name, one.reason.split(":")[0]) for one in report.unmatched] == [
        ("Cleo - Elsewhere", "is not in the lake, and songs are not downloaded from Jellyfin"),
    ]
    assert served(lake) == {"01 Love Theme.flac": ITEMS[0]["Id"], "renamed.wav": ITEMS[1]["Id"]}
    assert lake.servers.artists(ADDRESS) == {identity(name): name for name in ("Ada Lark", "Béla", "Cleo", "雪")}
    version = lake.paths.table.version, lake.servers.stamp(ADDRESS)
    ingest_jellyfin(lake, client(library))
    assert (lake.paths.table.version, lake.servers.stamp(ADDRESS)) == version
    library.items = [ITEMS[0] | {"Id": identity("another")}]
    ingest_jellyfin(lake, client(library))
    assert served(lake) == {"01 Love Theme.flac": identity("another")}
    assert lake.servers.artists(ADDRESS) == {identity("Ada Lark"): "Ada Lark"}
    library.items = []
    with pytest.raises(InputError, match=r"lists no songs\. Wait until Jellyfin has scanned its music; nothing was changed"):
        ingest_jellyfin(lake, client(library))
    assert len(served(lake)) == 1


def test_songs_below_the_music_folder_are_read_and_hostile_paths_are_not(lake, rendered, tmp_path):
    write(tmp_path / "secret.wav", melody(2.0, seed=3, rate=RATE), RATE)
    music = shutil.copytree(rendered, tmp_path / "music")
    hostile = [item(path, "S", ["S"]) for path in (
        "../secret.wav", "/media/../../secret.wav", str(tmp_path / "secret.wav"), "..\\secret.wav", "a\x00.wav", "",
    )]
    report = ingest_jellyfin(lake, client(JellyfinLibrary([*ITEMS, *hostile])), music=music, seconds=None)
    assert (report.on_disk, report.new, len(report.unmatched)) == (2, 2, 7)
    assert set(lake.clips.read()["track"]) == {"Ada Lark/First/01 Love Theme.flac", "Béla/02 Dal.wav"}
    assert served(lake) == {"01 Love Theme.flac": ITEMS[0]["Id"], "02 Dal.wav": ITEMS[1]["Id"]}


def test_an_ingest_is_repeated_with_the_servers_of_this_machine_alone(lake, rendered, tmp_path, monkeypatch):
    library = JellyfinLibrary(ITEMS)
    ingest_jellyfin(lake, client(library, user="Ada"), music=rendered, seconds=1.0)
    (record,) = lake.ingests.all()
    assert record == Ingest(kind="jellyfin", root=ADDRESS, options={
        "user": "Ada", "music": str(rendered), "seconds": 1.0, "hop": None, "per_track": None, "dataset": None,
    })
    assert not any(KEY.encode() in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert read_settings().servers.keys() == {machine_name(ADDRESS)} and listed_files(lake, record) is None
    monkeypatch.setenv("TONELAKE_JELLYFIN_KEY", KEY)
    elsewhere = Ingest(kind="jellyfin", root="http://evil.example", options={"user": "Ada"})
    with pytest.raises(InputError, match="was never ingested on this machine, so nothing is sent there"):
        repeat_ingest(lake, elsewhere)
    with library.running() as address:
        ingest_jellyfin(lake, address, music=rendered, seconds=1.0)
        library.requests.clear()
        report = repeat_ingest(lake, Ingest(kind="jellyfin", root=address, options=record.options))
    assert report.by_path == 2 and [path for path, _ in library.requests] == ["/Items", "/Items"]   # without the lake's user


def test_a_server_is_forgotten_with_its_ids_and_the_files_stay(lake, rendered):
    ingest_folder(lake, rendered, seconds=None)
    ingest_jellyfin(lake, client(JellyfinLibrary(ITEMS)))
    asked = []
    assert forget(lake, f"jellyfin:{ADDRESS}", confirm=lambda found: asked.append(str(found))) is None
    assert asked == ["2 ids of the server"] and len(served(lake)) == 2
    report = forget(lake, f"jellyfin:{ADDRESS}")
    assert (report.clips, report.files, report.ids, lake.clips.count()) == (0, 0, 2, 2)
    assert served(lake) == {} and lake.servers.artists(ADDRESS) == {}
    assert [one.kind for one in lake.ingests.all()] == ["folder"]
    with pytest.raises(InputError, match="no clip or file of jellyfin:"):
        forget(lake, f"jellyfin:{ADDRESS}")
