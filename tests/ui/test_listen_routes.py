"""The routes of the Listen page: suggestions, values, albums, and the vectors and lifetime of uploads."""

from __future__ import annotations

import polars as pl
import pytest
from fakes import WordsEncoder, clip_rows, fill
from starlette.applications import Starlette
from starlette.testclient import TestClient

from tonelake.ui.listen_routes import listen_routes
from tonelake.ui.listening import heard


@pytest.fixture
def client(lake, monkeypatch):
    """A client of the routes, on a lake of twelve songs."""
    fill(lake, 12, 2, 0, WordsEncoder)
    monkeypatch.setenv("TONELAKE_LAKE", lake.uri)
    return TestClient(Starlette(routes=listen_routes()))


def test_suggestions_are_songs_and_artists_despite_typing_errors(client):
    found = client.get("/tonelake/suggest", params={"q": "titel 7"}).json()
    assert found["songs"][0]["title"] == "Title 7" and found["songs"][0]["file"] is None and not found["values_first"]
    found = client.get("/tonelake/suggest", params={"q": "artst 1"}).json()
    assert {"column": "artist", "value": "Artist 1", "artist": None, "songs": 4} in found["values"]
    assert client.get("/tonelake/suggest", params={"q": "artist 1"}).json()["values_first"]
    assert client.get("/tonelake/suggest").json() == {"songs": [], "values": [], "words": None}


def test_suggested_songs_of_equal_names_show_their_files(client, lake):
    rows = clip_rows(14, 1).tail(2)
    lake.clips.add(rows.with_columns(title=pl.lit("Elegy"), artist=pl.lit("Ada"), source=pl.lit("/m/") + rows["track"]))
    found = client.get("/tonelake/suggest", params={"q": "elegy"}).json()["songs"]
    assert [(song["title"], song["file"]) for song in found] == [("Elegy", "track012"), ("Elegy", "track013")]


def test_values_are_searched_and_counted_in_songs(client):
    found = client.get("/tonelake/values", params={"column": "tags"}).json()
    assert found["total"] == 5 and ["even", 6] in found["values"]
    assert client.get("/tonelake/values", params={"column": "artist", "q": "ARTIST 2"}).json()["values"] == [["Artist 2", 4]]
    assert client.get("/tonelake/values", params={"column": "artist", "most": "1"}).json()["total"] == 3
    assert client.get("/tonelake/albums").json() == {"values": [], "total": 0}
    for wrong in ({"column": "nothing"}, {"column": "artist", "most": "x"}):
        answer = client.get("/tonelake/values", params=wrong)
        assert answer.status_code == 400 and answer.json()["error"]


def test_an_upload_is_embedded_once_and_its_file_deleted(client, lake, music, monkeypatch, tmp_path):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    own = {"Origin": "http://testserver"}
    body = (music / "Béla" / "song1.flac").read_bytes()
    answer = client.post("/tonelake/heard", params={"name": "../x<b>.flac", "space": "words"}, content=body, headers=own)
    assert answer.status_code == 200 and answer.json()["name"] == "x<b>.flac"
    found = heard.heard_file(answer.json()["token"])
    assert found.name == "x<b>.flac" and list(found.queries) == [lake.spaces.get("words").fingerprint]
    assert not list((tmp_path / "temporary").iterdir())
    wrong = client.post("/tonelake/heard", params={"name": "notes.txt"}, content=b"no audio", headers=own)
    assert wrong.status_code == 400 and wrong.json()["error"].startswith("notes.txt: this file has no audio")
    unknown = client.post("/tonelake/heard", params={"name": "x.flac", "space": "none"}, content=body, headers=own)
    assert unknown.status_code == 400 and "none" in unknown.json()["error"] and "temporary" not in unknown.json()["error"]
    assert not list((tmp_path / "temporary").iterdir())


def test_the_oldest_uploads_are_forgotten(client, monkeypatch, music):
    monkeypatch.setattr(heard, "KEPT", 1)
    body = (music / "Béla" / "song1.flac").read_bytes()
    tokens = [client.post("/tonelake/heard", params={"name": "x.flac"}, content=body, headers={"Origin": "http://testserver"})
              .json()["token"] for _ in range(2)]
    assert heard.heard_file(tokens[1])
    with pytest.raises(heard.InputError, match="Drop it again"):
        heard.heard_file(tokens[0])
