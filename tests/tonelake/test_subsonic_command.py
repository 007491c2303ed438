"""`tonelake ingest subsonic` with supysonic behind a port, decoder processes, and songs that left the cache."""

from __future__ import annotations

import pytest
from commands import rows, run
from subsonic_server import PASSWORD, USER, MusicServer

from tonelake.store import Lake, cache_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    server = MusicServer(tmp_path_factory.mktemp("server"))
    with server.running() as address:
        yield address
    server.close()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("TONELAKE_SUBSONIC_PASSWORD", PASSWORD)
    monkeypatch.delenv("TONELAKE_SUBSONIC_USER", raising=False)


def test_a_library_is_listed_brought_in_embedded_and_forgotten(address, tmp_path, monkeypatch):
    lake = tmp_path / "lake"
    done = run("ingest", "subsonic", address, lake=lake)
    assert done.returncode == 2 and "no user. Name one with --user" in done.stderr
    listed = run("ingest", "subsonic", address, "--user", USER, "--no-fetch", "--json", lake=lake)
    assert {row["name"] for row in rows(listed)} >= {"Ada Lark - Love Theme", "雪 - 月光"} and len(rows(listed)) == 5
    done = run("ingest", "subsonic", address, "--whole", lake=lake)  # the user of the last time
    assert done.returncode == 0 and "5 songs of the server: 5 downloaded" in done.stderr, done.stderr
    songs = cache_folder() / "subsonic" / "files"
    for file in songs.iterdir():
        file.unlink()
    done = run("embed", "--encoder", "spectral", lake=lake)
    assert "5 clips embedded" in done.stderr and len(list(songs.iterdir())) == 5, done.stderr
    (first, *_) = rows(run("similar", "Love Theme", "--json", lake=lake))
    assert first["source"].startswith(f"subsonic:{address}/")
    for file in songs.iterdir():
        file.unlink()
    monkeypatch.delenv("TONELAKE_SUBSONIC_PASSWORD")
    done = run("embed", "--encoder", "spectral", "--window", "1", "--space", "other", lake=lake)
    assert "5 failed" in done.stderr
    assert "Set TONELAKE_SUBSONIC_PASSWORD" in str(Lake(lake).failures.read()["error"].to_list())
    done = run("forget", f"subsonic:{address}", "--yes", lake=lake)
    assert done.returncode == 0 and "5 songs with 5 clips" in done.stderr
