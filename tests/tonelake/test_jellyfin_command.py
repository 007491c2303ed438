"""`tonelake ingest jellyfin` against a server behind a port, and the service's answers by Jellyfin's ids."""

from __future__ import annotations

import pytest
from commands import rows, run
from jellyfin_server import KEY, JellyfinLibrary, identity, item
from sounds import melody, write

from tonelake.store import Lake

pytestmark = pytest.mark.slow


def test_a_library_is_matched_and_forgotten(tmp_path, monkeypatch):
    from starlette.testclient import TestClient

    from tonelake.serve.answers import Answers
    from tonelake.serve.app import create_app

    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TONELAKE_JELLYFIN_KEY", "wrong")
    lake, names = tmp_path / "lake", ("Ada", "Béla", "Cleo")
    for number, name in enumerate(names):
        write(tmp_path / f"music/{name}/song.wav", melody(1.5, seed=number, rate=8_000), 8_000, tags={"artist": name})
    items = [item(f"D:\\music\\{name}\\song.wav", f"Song {name}", [name], RunTimeTicks=15_000_000) for name in names]
    with JellyfinLibrary([*items, item("/x/away.flac", "Away", ["Dora"])]).running() as address:
        done = run("ingest", "jellyfin", address, lake=lake)
        assert done.returncode == 1 and "refuses the API key (status 401)" in done.stderr, done.stderr
        monkeypatch.setenv("TONELAKE_JELLYFIN_KEY", KEY)
        done = run("ingest", "jellyfin", address, "--music", str(tmp_path / "music"), "--whole", "--json", lake=lake)
        assert done.returncode == 0 and "3 read from the music folder, 1 not matched" in done.stderr, done.stderr
        assert [row["name"] for row in rows(done)] == ["Dora - Away"]
    assert "3 clips embedded" in run("embed", "--encoder", "spectral", lake=lake).stderr
    client = TestClient(create_app(Answers(str(lake))))
    found = client.get("/api/similar_tracks", params={"item_id": items[0]["Id"]}).json()
    assert {row["item_id"] for row in found} == {items[1]["Id"], items[2]["Id"]}
    found = client.get("/api/similar_artists", params={"artist_id": identity("Ada")}).json()
    assert {row["artist_id"] for row in found} == {identity("Béla"), identity("Cleo")}
    done = run("forget", f"jellyfin:{address}", "--yes", lake=lake)
    assert done.returncode == 0 and "deleted 3 ids of the server" in done.stderr
    assert Lake(lake).clips.count() == 3
