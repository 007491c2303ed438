"""The interface of analysis services: requests of plugins and their exact answers, and bad input."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from served_songs import clip_id, cosine

from tonelake.serve.catalogue import artist_id
from tonelake.store import Lake, file_rows

TOKEN = "a-long-secret-token"
GREEN = {"item_id": clip_id("a2"), "title": "Green & <Red>", "author": "Ada", "album": "First", "album_artist": "Ada"}
MOON = {
    "item_id": clip_id("b2"), "title": "月光 ☕", "author": "Béla, The Cleo", "album": "Second", "album_artist": "Béla",
}


@pytest.fixture
def client(client_of):
    return client_of(None)


def asked(client, path: str, /, **parameters):
    answer = client.get(f"/api/{path}", params=parameters)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json", answer.text
    return answer.json()


def ids(rows) -> list[str]:
    return [row["item_id"][:2] for row in rows]


# -- answers


def test_similar_tracks_have_the_shape_that_plugins_read(client):
    rows = asked(client, "similar_tracks", item_id=clip_id("a1"), n=3)
    assert ids(rows) == ["a2", "b1", "b2"]
    assert rows[0] == {**GREEN, "distance": pytest.approx(1 - cosine("a1", "a2"), abs=1e-3)}
    wanted = [1 - cosine("a1", one) for one in ("a2", "b1", "b2")]
    assert [row["distance"] for row in rows] == pytest.approx(wanted, abs=1e-3)
    navidrome = {"eliminate_duplicates": "true", "radius_similarity": "false", "server": "home", "mood_similarity": "true"}
    assert asked(client, "similar_tracks", item_id=clip_id("a1", 1), n=3, **navidrome) == rows
    assert asked(client, "similar_tracks", title="blue", artist="ADA", n=3) == rows
    assert ids(asked(client, "similar_tracks", item_id=clip_id("c1"), n=1)) == ["b2"]


def test_similar_tracks_of_few_artists_and_as_a_walk(client, monkeypatch):
    from tonelake.serve import analysis

    monkeypatch.setattr(analysis, "PER_ARTIST", 1)
    few = asked(client, "similar_tracks", item_id=clip_id("a1"), eliminate_duplicates="true")
    assert ids(few) == ["a2", "b1", "b2", "c1", "d1"]
    few = asked(client, "similar_tracks", item_id=clip_id("d1"), eliminate_duplicates="true")
    assert ids(few) == ["c1", "b2", "b1", "a2"]          # and not the other song by Ada
    nearest = asked(client, "similar_tracks", item_id=clip_id("b2"))
    walk = asked(client, "similar_tracks", item_id=clip_id("b2"), radius_similarity="true")
    assert ids(nearest) == ["c1", "b1", "a2", "a1", "d1"] and ids(walk) == ["c1", "d1", "b1", "a2", "a1"]
    assert {row["item_id"]: row["distance"] for row in walk} == {row["item_id"]: row["distance"] for row in nearest}


def test_numbers_are_clamped(client):
    for n, rows in (("0", 1), ("-7", 1), ("99999999", 5), ("", 5), ("+2", 2)):
        assert len(asked(client, "similar_tracks", item_id=clip_id("a1"), n=n)) == rows, n


def test_similar_artists_with_songs_that_exemplify_them(client):
    rows = asked(client, "similar_artists", artist="ada", n=1)
    assert rows == [{"artist": "Béla", "artist_id": artist_id("Béla"), "divergence": rows[0]["divergence"]}]
    assert 0 <= rows[0]["divergence"] <= 2
    with_songs = asked(client, "similar_artists", artist_id=artist_id("Ada"), n=1, include_component_matches="true")[0]
    matches = with_songs.pop("component_matches")
    assert [with_songs] == rows and len(matches) == 1
    assert ids(matches[0]["artist1_representative_songs"]) == ["a2", "a1"]
    assert matches[0]["artist2_representative_songs"][0] == {"item_id": clip_id("b1"), "title": "Déjà vu"}


def test_a_path_has_both_ends_and_the_distances_of_its_steps(client):
    found = asked(client, "find_path", start_song_id=clip_id("a1"), end_song_id=clip_id("d1"), max_steps=4)
    assert ids(found["path"]) == ["a1", "b1", "c1", "d1"]
    steps = [0.0, 1 - cosine("a1", "b1"), 1 - cosine("b1", "c1"), 1 - cosine("c1", "d1")]
    assert [row["distance"] for row in found["path"]] == pytest.approx(steps, abs=1e-3)
    assert found["total_distance"] == pytest.approx(sum(steps), abs=2e-3)
    navidrome = {"count": 2, "max_steps": 2, "path_fix_size": "false", "mood_pct": 100}
    short = asked(client, "find_path", start_song_id=clip_id("a1"), end_song_id=clip_id("d1"), **navidrome)
    assert ids(short["path"]) == ["a1", "d1"]
    whole = asked(client, "find_path", start_song_id=clip_id("a1"), end_song_id=clip_id("d1"))
    assert ids(whole["path"]) == ["a1", "a2", "b1", "b2", "c1", "d1"]


def test_searches_by_part_of_a_name_and_by_pages(client):
    assert asked(client, "search_tracks", search_query="green") == [GREEN]
    assert asked(client, "search_tracks", search_query="月") == [MOON]
    assert ids(asked(client, "search_tracks", title="blue", artist="ada"))[0] == "a1"
    both = asked(client, "search_tracks", search_query="second")
    assert sorted(ids(both)) == ["b1", "b2"]
    assert asked(client, "search_tracks", search_query="second", start=1, end=2) == both[1:]
    assert asked(client, "search_tracks", search_query="second", start=2, end=1) == []
    bela = [{"artist": "Béla", "artist_id": artist_id("Béla"), "track_count": 2}]
    assert asked(client, "search_artists", query="bel") == bela
    assert asked(client, "search_artists", query="nobody") == []


def test_connections_can_be_tested(client):
    assert asked(client, "health") == {"status": "ok"} and asked(client, "active_tasks") == {}
    assert client.get("/").status_code == 200            # what the plugin for Jellyfin asks


def test_item_ids_are_those_of_the_music_server_while_the_lake_changes(tmp_path):
    from fakes import clip_rows, fill
    from starlette.testclient import TestClient

    from tonelake.serve.answers import Answers
    from tonelake.serve.app import create_app

    lake = Lake(tmp_path / "lake")
    fill(lake, tracks=3, clips_a_track=1, seed=3)
    sources = clip_rows(3, 1)["source"].to_list()
    lake.paths.put(file_rows([{"source": source, "name": f"{row}.flac"} for row, source in enumerate(sources)]))
    lake.paths.set_served("http://music.example", {sources[0]: "al/0?b", sources[1]: "é 1"})
    client = TestClient(create_app(Answers(lake.uri)), raise_server_exceptions=False)
    found = {row["item_id"] for row in asked(client, "similar_tracks", item_id="al/0?b")}
    assert "é 1" in found and len(found) == 2
    assert asked(client, "similar_tracks", item_id=clip_rows(3, 1)["clip_id"][1])[0]["item_id"] in ("al/0?b", *found)
    song = client.get("/rest/getSong", params={"id": "é 1", "f": "json"}).json()["subsonic-response"]["song"]
    assert song["id"] == "é 1"
    lake.clips.add(clip_rows(4, 1)[3:])
    new = {"id": clip_rows(4, 1)["clip_id"][3], "f": "json"}
    assert client.get("/api/similar_tracks", params={"item_id": new["id"]}).status_code == 404       # not embedded yet
    assert client.get("/rest/getSimilarSongs2", params=new).json()["subsonic-response"]["error"]["code"] == 70
    shutil.rmtree(lake.uri)
    gone = client.get("/api/similar_tracks", params={"item_id": "al/0?b"})
    assert gone.status_code == 503 and gone.headers["retry-after"] and list(gone.json()) == ["error"]
    rest = client.get("/rest/getSong", params={"id": "é 1", "f": "json"})
    assert rest.status_code == 200 and rest.headers["retry-after"] and rest.json()["subsonic-response"]["error"]["code"] == 0
    assert str(tmp_path) not in gone.text + rest.text


def test_artist_ids_are_those_of_the_music_server_while_they_change(tmp_path):
    from served_songs import served_lake
    from starlette.testclient import TestClient

    from tonelake.serve.answers import Answers
    from tonelake.serve.app import create_app

    lake, server = served_lake(tmp_path), "http://music.example"
    lake.paths.set_served(server, {lake.paths.read(["source"])["source"][0]: "song-1", lake.paths.read()["source"][1]: "7"})
    lake.servers.set_artists(server, {"ar/a": "Ada", "ar b": "BELA", "second": "Béla", "7": "The Cleo", "absent": "Nobody"})
    client = TestClient(create_app(Answers(lake.uri)), raise_server_exceptions=False)
    by_name = asked(client, "similar_artists", artist="Ada")
    assert {row["artist"]: row["artist_id"] for row in by_name} == {
        "Béla": "second", "The Cleo": "7", "Dora": artist_id("Dora"),        # the exact name wins; Dora is not on the server
    }
    for wanted in ({"artist": "ar/a"}, {"artist_id": "ar/a"}, {"artist_id": artist_id("Ada")}):      # Navidrome's plugin first
        assert asked(client, "similar_artists", **wanted) == by_name
    assert asked(client, "similar_artists", artist_id="ar b") == asked(client, "similar_artists", artist="Béla")
    assert asked(client, "search_artists", query="béla") == [{"artist": "Béla", "artist_id": "second", "track_count": 2}]
    assert client.get("/api/similar_artists", params={"artist_id": "absent"}).status_code == 404
    assert client.get("/v1/artists", params={"q": "ada"}).json()["rows"][0]["id"] == "ar/a"

    def rest(call: str, **parameters):
        return client.get(f"/rest/{call}", params={**parameters, "f": "json"}).json()["subsonic-response"]

    song = rest("getSong", id=clip_id("b2"))["song"]
    assert (song["artistId"], [one["id"] for one in song["artists"]]) == ("second", ["second", "7"])
    assert song["albumArtists"] == [{"id": "second", "name": "Béla"}]
    artist = rest("getArtist", id="ar/a")["artist"]
    assert (artist["id"], artist["album"][0]["artistId"]) == ("ar/a", "ar/a")
    assert rest("getArtist", id=artist_id("Ada"))["artist"] == artist
    assert rest("getArtistInfo2", id="ar/a", count=1)["artistInfo2"]["similarArtist"][0]["id"] == "second"
    assert {one["id"] for one in rest("getArtists")["artists"]["index"][0]["artist"]} == {"ar/a"}
    assert len(rest("getSimilarSongs2", id="ar/a")["similarSongs2"]["song"]) == 4
    assert len(rest("getSimilarSongs2", id="7")["similarSongs2"]["song"]) == 5       # the song 7 rather than the artist 7
    lake.servers.set_artists(server, {"ar/a": "Ada", "new": "Béla"})
    assert asked(client, "similar_artists", artist="ar/a", n=1)[0]["artist_id"] == "new"
    assert client.get("/api/similar_artists", params={"artist_id": "second"}).status_code == 404


# -- requests that cannot be met


@pytest.mark.parametrize(("path", "wanted", "status", "said"), [
    ("similar_tracks", {}, 400, "item_id: missing"),
    ("similar_tracks", {"title": "Blue"}, 400, "item_id: missing"),
    ("similar_tracks", {"title": "Blue", "artist": " "}, 400, "item_id: missing"),
    ("similar_tracks", {"item_id": "none"}, 404, "song 'none': not in this lake"),
    ("similar_tracks", {"item_id": "\x00"}, 404, "not in this lake"),
    ("similar_tracks", {"item_id": "' OR 1=1 --"}, 404, "not in this lake"),
    ("similar_tracks", {"title": "Qwxyz", "artist": "Vbnm"}, 404, ""),
    ("similar_tracks", {"item_id": clip_id("a1"), "n": "many"}, 400, "n='many': not a whole number"),
    ("similar_tracks", {"item_id": clip_id("a1"), "n": "1.5"}, 400, "not a whole number"),
    ("similar_tracks", {"item_id": clip_id("a1"), "eliminate_duplicates": "maybe"}, 400, "neither true nor false"),
    ("similar_artists", {}, 400, "artist: missing"),
    ("similar_artists", {"artist": "Nobody"}, 404, "artist 'Nobody': not in this lake"),
    ("find_path", {"start_song_id": clip_id("a1")}, 400, "end_song_id: missing"),
    ("find_path", {"start_song_id": clip_id("a1"), "end_song_id": "none"}, 404, "song 'none'"),
    ("find_path", {"start_song_id": clip_id("a1"), "end_song_id": clip_id("a1", 1)}, 400, "both ends are the same song"),
    ("search_tracks", {}, 400, "at least 3 letters"),
    ("search_tracks", {"search_query": "ab"}, 400, "at least 3 letters"),
    ("search_tracks", {"search_query": "abc", "start": "x"}, 400, "start='x': not a whole number"),
    ("search_artists", {"query": "b"}, 400, "at least 3 letters"),
    ("search_tracks", {"search_query": "x" * 501}, 400, ""),
    ("nothing", {}, 404, ""),
])
def test_requests_that_cannot_be_met_say_why(client, path, wanted, status, said):
    answer = client.get(f"/api/{path}", params=wanted)
    assert answer.status_code == status and list(answer.json()) == ["error"]
    assert said in answer.json()["error"] and "/music/" not in answer.text


def test_the_token_is_sent_as_a_header(client_of):
    client = client_of(TOKEN)
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        answer = client.get("/api/health", headers=header)
        assert answer.status_code == 401 and list(answer.json()) == ["error"]
    assert client.get("/api/health", headers={"Authorization": f"Bearer {TOKEN}"}).json() == {"status": "ok"}


TEXT = some.text(max_size=20) | some.sampled_from(["\x00", "é" * 400, "💿" * 100, "'", "*", "9" * 30, "../x"])
AN_ID = some.sampled_from([clip_id("a1"), clip_id("c1", 1)]) | TEXT
PARAMETERS = some.fixed_dictionaries({}, optional={
    **dict.fromkeys(("item_id", "start_song_id", "end_song_id"), AN_ID),
    **dict.fromkeys(("title", "artist", "artist_id", "search_query", "query", "server"), TEXT),
    **dict.fromkeys(("n", "max_steps", "start", "end"), some.integers() | TEXT),
    **dict.fromkeys(("eliminate_duplicates", "radius_similarity", "include_component_matches"), some.booleans() | TEXT),
})
PATHS = ("similar_tracks", "similar_artists", "find_path", "search_tracks", "search_artists")


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=some.sampled_from(PATHS), parameters=PARAMETERS)
def test_no_parameters_bring_a_failure(client, path, parameters):
    answer = client.get(f"/api/{path}", params=parameters)
    assert answer.status_code in (200, 400, 404), answer.text
    assert answer.status_code == 200 or list(answer.json()) == ["error"]
