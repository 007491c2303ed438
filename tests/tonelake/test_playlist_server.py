"""Playlists on a real Subsonic server (supysonic): the songs that it has, under a name that is used once."""

from __future__ import annotations

import pytest
from commands import run
from library import InProcess, embed_missing
from subsonic_server import PASSWORD, USER, MusicServer

from tonelake import ingest
from tonelake.ingest import SubsonicServer, ingest_subsonic
from tonelake.playlists.request import PlaylistRequest
from tonelake.playlists.targets import make_on_server
from tonelake.store import InputError, Lake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = MusicServer(tmp_path_factory.mktemp("server"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def lake(server, tmp_path_factory) -> Lake:
    """A lake of the server's songs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.recordings, "DecoderPool", InProcess)
        lake = Lake(tmp_path_factory.mktemp("lake") / "lake")
        ingest_subsonic(lake, client(server), music=server.music, seconds=None)
        embed_missing(lake)
    return lake


def client(server: MusicServer) -> SubsonicServer:
    return SubsonicServer(server.address, user=USER, password=PASSWORD, transport=server.transport())


def test_a_playlist_appears_on_the_server_and_is_replaced_only_on_request(server, lake):
    request = PlaylistRequest(like=("Love Theme",), length=3)
    made = make_on_server(lake, "Calm / day", request, server=client(server))
    titles = [one.title for one in made.songs.entries]
    assert len(titles) == 3 and titles[0] == "Love Theme" and server.playlists() == {"Calm / day": titles}
    with pytest.raises(InputError, match=r"has a playlist of this name\. Replace it with --replace"):
        make_on_server(lake, "Calm / day", PlaylistRequest(like=("Dal",), length=2), server=client(server))
    assert server.playlists() == {"Calm / day": titles}
    made = make_on_server(lake, "Calm / day", PlaylistRequest(like=("Dal",), length=2), server=client(server), replace=True)
    assert server.playlists() == {"Calm / day": [one.title for one in made.songs.entries]}
    assert made.where == f"Calm / day: replaced on {server.address}, 2 songs"


def test_songs_that_the_server_lacks_are_left_out_and_counted(server, lake):
    address = server.address
    ids = dict(lake.paths.served(address).select("source", "id").iter_rows())
    lacking = next(source for source in ids if source.endswith("untagged.wav"))
    lake.paths.set_served(address, {source: number for source, number in ids.items() if source != lacking})
    try:
        made = make_on_server(lake, "All", PlaylistRequest(like=("Dal",), length=10), server=client(server))
        assert len(made.songs.entries) == 4 and made.songs.unplayable == 1
        assert made.songs.lacks == "that the server does not have" and len(server.playlists()["All"]) == 4
    finally:
        lake.paths.set_served(address, ids)


def test_the_command_reaches_the_server(server, lake, monkeypatch):
    ids = dict(lake.paths.served(server.address).select("source", "id").iter_rows())
    monkeypatch.setenv("TONELAKE_SUBSONIC_PASSWORD", PASSWORD)
    monkeypatch.setenv("NETRC", "/nowhere")
    with server.running() as address:
        words = ["playlist", "From a command", "--like", "dal", "--length", "2", "--to", address]
        done = run(*words, "--user", USER, lake=lake.uri)
        assert done.returncode == 2 and "Run `tonelake ingest subsonic" in done.stderr
        lake.paths.set_served(address, ids)
        done = run(*words, lake=lake.uri)
        assert done.returncode == 2 and "Name one with --user" in done.stderr
        lake.ingests.record("subsonic", address, {"user": USER})
        done = run(*words, lake=lake.uri)
        assert done.returncode == 0, done.stderr
        assert f"From a command: made on {address}, 2 songs" in done.stderr and len(server.playlists()["From a command"]) == 2
        monkeypatch.setenv("TONELAKE_SUBSONIC_PASSWORD", "wrong one")
        done = run(*words, "--replace", lake=lake.uri)
        assert done.returncode == 1 and "wrong one" not in done.stderr and PASSWORD not in done.stderr
    done = run("playlist", "x", "--like", "dal", "--to", f"http://{USER}:{PASSWORD}@localhost", lake=lake.uri)
    assert done.returncode == 2 and PASSWORD not in done.stderr
