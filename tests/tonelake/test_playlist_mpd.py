"""Playlists in a real MPD, which plays to a null output: its queue, its stored playlists, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import mpd
import pytest
from commands import run
from library import InProcess, embed_missing
from mpd_daemon import Daemon, mpd_daemon
from sounds import melody, write

from tonelake import ingest
from tonelake.ingest import ingest_folder
from tonelake.playlists.mpd import mpd_player
from tonelake.store import Lake

pytestmark = pytest.mark.slow

RATE = 8_000
PASSWORD = "a secret"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A lake of songs below MPD's music folder, one outside it, and two whose names no URI can hold."""
    home = tmp_path_factory.mktemp("mpd")
    names = [f'music/Artist {n // 3}/{n} 50% "é".flac' for n in range(6)]
    names += ["elsewhere/Far & wide.flac", "music/two\nlines.flac", "music/Artist 9/only here.flac"]
    for number, name in enumerate(names):
        write(home / name, melody(4, seed=number, rate=RATE), RATE, tags={"title": f"Song {number}", "artist": "Ada"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest.recordings, "DecoderPool", InProcess)
        lake = Lake(home / "lake")
        ingest_folder(lake, home, seconds=None)
        embed_missing(lake)
    return home


@pytest.fixture(scope="module")
def daemon(home):
    with mpd_daemon(home / "mpd", home / "music", PASSWORD) as found:
        yield found


@pytest.fixture
def client(daemon):
    """A connection that may do everything, to an empty MPD."""
    found = mpd.MPDClient()
    found.timeout = 10
    found.connect(str(daemon.socket))
    found.password(PASSWORD)
    found.clear()
    for one in found.listplaylists():
        found.rm(one["playlist"])
    yield found
    found.disconnect()


@pytest.fixture(autouse=True)
def password(monkeypatch, daemon):
    monkeypatch.setenv("MPD_HOST", f"{PASSWORD}@127.0.0.1")
    monkeypatch.setenv("MPD_PORT", str(daemon.port))


def queue(client) -> list[str]:
    return [song["file"] for song in client.playlistinfo()]


def test_a_playlist_is_queued_stored_and_played(home, daemon: Daemon, client):
    words = ["playlist", "Calm/day", "--like", "song 0", "--length", "3", "--where", "source LIKE '%/music/Artist _/%'"]
    done = run(*words, "--to", "mpd", "--play", "--save", lake=home / "lake")
    assert done.returncode == 0, done.stderr
    first = queue(client)
    assert len(first) == 3 and first[0] == 'Artist 0/0 50% "é".flac'
    assert client.status()["state"] == "play" and client.currentsong()["file"] == first[0]
    assert client.listplaylist("Calm_day") == first
    assert f"MPD at 127.0.0.1:{daemon.port}: 3 songs added to its queue; 3 stored as its playlist Calm_day" in done.stderr
    assert PASSWORD not in done.stderr

    done = run(*words, "--to", "mpd", "--save", lake=home / "lake")
    assert done.returncode == 2 and "Replace it with --replace" in done.stderr and queue(client) == first
    assert run(*words, "--to", f"mpd://127.0.0.1:{daemon.port}", lake=home / "lake").returncode == 0
    assert queue(client) == first * 2    # a queue is added to
    words[words.index("3")] = "2"
    assert run(*words, "--to", "mpd", "--save", "--replace", lake=home / "lake").returncode == 0
    assert queue(client) == client.listplaylist("Calm_day") == first[:2] and client.status()["state"] == "play"
    assert [one["playlist"] for one in client.listplaylists()] == ["Calm_day"]           # nothing of the storing is left


def test_a_socket_plays_files_elsewhere_and_a_port_counts_them(home, daemon: Daemon, client, monkeypatch):
    words = ["playlist", "All", "--like", "song 0", "--length", "20"]
    monkeypatch.setenv("MPD_HOST", f"{PASSWORD}@{daemon.socket}")
    done = run(*words, "--to", f"mpd://{daemon.socket}", lake=home / "lake")
    assert done.returncode == 0, done.stderr
    assert len(queue(client)) == 8 and str(home / "elsewhere" / "Far & wide.flac") in queue(client)
    assert "1 songs were left out, that MPD does not know" in done.stderr                # the name with two lines
    assert "20 songs were asked for" in done.stderr
    client.clear()
    monkeypatch.setenv("MPD_HOST", f"{PASSWORD}@127.0.0.1")
    done = run(*words, "--to", "mpd", lake=home / "lake")
    assert done.returncode == 0 and len(queue(client)) == 7 and "2 songs were left out, that MPD does not know" in done.stderr
    client.clear()
    done = run(*words, "--to", "mpd", "--music", home / "elsewhere", lake=home / "lake")
    assert done.returncode == 2 and "that MPD does not know" in done.stderr and not queue(client)


def test_what_mpd_refuses_is_a_sentence_and_changes_nothing(home, daemon: Daemon, client, monkeypatch):
    client.add('Artist 1/3 50% "é".flac')
    words = ["playlist", "All", "--like", "song 0", "--length", "2", "--replace", "--to", "mpd"]
    for host, problem in (("127.0.0.1", "refuses"), ("wrong@127.0.0.1", "refuses (incorrect password)")):
        monkeypatch.setenv("MPD_HOST", host)
        done = run(*words, lake=home / "lake")
        assert done.returncode == 1 and problem in done.stderr and "MPD_HOST=PASSWORD@HOST" in done.stderr
    monkeypatch.setenv("MPD_PORT", "1")
    done = run(*words, lake=home / "lake")
    assert done.returncode == 1 and "cannot be reached" in done.stderr
    assert queue(client) == ['Artist 1/3 50% "é".flac']


def test_a_folder_that_is_found_serves_for_the_next_songs(home):
    with mpd_player("mpd") as player:
        asked: list[str] = []
        knows = player._knows
        player._knows = lambda uri: asked.append(uri) or knows(uri)      # type: ignore[method-assign]
        assert player.place(str(home / "music" / 'Artist 0/0 50% "é".flac')) == 'Artist 0/0 50% "é".flac'
        before = len(asked)
        assert player.place(str(home / "music" / 'Artist 1/3 50% "é".flac')) == 'Artist 1/3 50% "é".flac'
        assert len(asked) == before + 1
        assert player.place("/no/such/file.flac") is None and player.place("file:///music/%FF.flac") is None
        assert player.place("/music/a\nplay\n.flac") is None             # would be a command of its own
