"""The OpenSubsonic interface of the service, in process: requests and their exact answers as JSON and XML, and bad input."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from served_songs import SONGS, clip_id, cosine, seen

import tonelake
from tonelake.serve.catalogue import artist_id
from tonelake.serve.subsonic.routes import CALLS
from tonelake.serve.subsonic.shelves import NO_ALBUM, album_id
from tonelake.serve.subsonic.system import ABSENT, CHANGES, EMPTY

NAMESPACE = "{http://subsonic.org/restapi}"
TOKEN = "a-long-secret-token"
ENVELOPE = {"version": "1.16.1", "type": "tonelake", "serverVersion": tonelake.__version__, "openSubsonic": True}
FIRST, SECOND = album_id("Ada", "First"), album_id("Béla", "Second")
LONE, HITS = album_id("The Cleo", NO_ALBUM), album_id("Various Artists", "Hits")
ADA, BELA, CLEO = artist_id("Ada"), artist_id("Béla"), artist_id("The Cleo")
BLUE = {
    "id": clip_id("a1"), "parent": FIRST, "isDir": False, "title": "Blue", "album": "First", "artist": "Ada", "track": 2,
    "year": 1990, "genre": "Jazz", "suffix": "flac", "contentType": "audio/flac", "duration": 1, "albumId": FIRST,
    "artistId": ADA, "type": "music", "mediaType": "song", "isVideo": False, "genres": [{"name": "Jazz"}],
    "artists": [{"id": ADA, "name": "Ada"}], "displayArtist": "Ada", "albumArtists": [], "displayAlbumArtist": "",
}


@pytest.fixture
def client(client_of):
    return client_of(None)


def asked(client, name: str, /, **parameters: Any) -> dict[str, Any]:
    """Return the answer to a call as JSON, after checking that XML says the same."""
    answer = client.get(f"/rest/{name}", params={**parameters, "f": "json"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json", answer.text
    body = answer.json()["subsonic-response"]
    if "random" not in name.lower():
        as_xml = client.get(f"/rest/{name}.view", params=parameters)
        assert as_xml.status_code == 200 and as_xml.headers["content-type"] == "text/xml; charset=utf-8"
        root = ElementTree.fromstring(as_xml.content)
        assert root.tag == f"{NAMESPACE}subsonic-response"
        assert of_xml(root) == of_json(body)
    return body


def of_json(body: Any) -> Any:
    """Return attributes, text and children of a dict of JSON as an XML element has them."""
    if not isinstance(body, dict):
        return {}, xml_text(body), []
    plain = {name: xml_text(value) for name, value in body.items() if not isinstance(value, dict | list) and name != "value"}
    children = [
        (name, of_json(one)) for name, value in body.items() if isinstance(value, dict | list)
        for one in (value if isinstance(value, list) else [value])
    ]
    return plain, xml_text(body.get("value", "")), children


def of_xml(element: ElementTree.Element) -> Any:
    children = [(child.tag.removeprefix(NAMESPACE), of_xml(child)) for child in element]
    return dict(element.attrib), element.text or "", children


def xml_text(value: Any) -> str:
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    return "".join(sign for sign in text if sign >= " " or sign in "\t\n\r")


def found(body: dict[str, Any]) -> dict[str, Any]:
    """Return what a call found, after checking its envelope."""
    assert body.pop("status") == "ok", body
    assert {name: body.pop(name) for name in ENVELOPE} == ENVELOPE
    return body


def error_of(body: dict[str, Any]) -> tuple[int, str]:
    assert body["status"] == "failed" and ENVELOPE.items() <= body.items(), body
    return body["error"]["code"], body["error"]["message"]


def titles(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["title"] for entry in entries]


# -- answers


def test_calls_about_the_service(client):
    for name, answer in {
        "ping": {},
        "getLicense": {"license": {"valid": True}},
        "getMusicFolders": {"musicFolders": {"musicFolder": [{"id": 1, "name": "tonelake"}]}},
        "getScanStatus": {"scanStatus": {"scanning": False, "count": len(SONGS)}},
        "getOpenSubsonicExtensions": {"openSubsonicExtensions": [
            {"name": name, "versions": [1]} for name in ("apiKeyAuthentication", "formPost", "sonicSimilarity")
        ]},
    }.items():
        assert found(asked(client, name)) == answer, name
    user = found(asked(client, "getUser", username="ada"))["user"]
    assert user["username"] == "ada" and user["streamRole"] is True and user["adminRole"] is False and user["folder"] == [1]


def test_a_song_has_the_fields_of_a_child_and_no_path_of_this_machine(client, client_of):
    song = found(asked(client, "getSong", id=clip_id("a1", 1)))["song"]
    size = song.pop("size")
    assert song == BLUE and size == len(client.get("/rest/stream", params={"id": clip_id("a1")}).content)
    untitled = found(asked(client, "getSong", id=clip_id("d1")))["song"]
    assert (untitled["title"], untitled["contentType"]) == ("d1", "audio/wav")
    assert untitled["albumArtists"] == [{"id": artist_id("Various Artists"), "name": "Various Artists"}]
    several = found(asked(client, "getSong", id=clip_id("b2")))["song"]
    assert several["artists"] == [{"id": BELA, "name": "Béla"}, {"id": CLEO, "name": "The Cleo"}]
    assert several["artist"] == "Béla, The Cleo" and several["artistId"] == BELA
    assert "music/" not in json.dumps([song, untitled, several])


def test_sonic_similarity_is_the_cosine_and_its_order(client):
    matches = found(asked(client, "getSonicSimilarTracks", id=clip_id("a1"), count=3))["sonicMatch"]
    assert titles([match["entry"] for match in matches]) == ["Green & <Red>", "Déjà vu", "月光 ☕"]
    wanted = [cosine("a1", one) for one in ("a2", "b1", "b2")]
    assert [match["similarity"] for match in matches] == pytest.approx(wanted, abs=1e-3)
    assert len(found(asked(client, "getSonicSimilarTracks", id=clip_id("a1")))["sonicMatch"]) == len(SONGS) - 1
    assert found(asked(client, "getSonicSimilarTracks", id=clip_id("a1"), count=0)) == {"sonicMatch": []}


@pytest.mark.parametrize(("count", "between"), [(2, []), (3, ["b2"]), (4, ["b1", "c1"]), (25, ["a2", "b1", "b2", "c1"])])
def test_a_path_holds_the_start_first_and_the_end_last(client, count, between):
    ends = {"startSongId": clip_id("a1"), "endSongId": clip_id("d1", 1)}
    matches = found(asked(client, "findSonicPath", **ends, count=count))["sonicMatch"]
    assert [match["entry"]["id"] for match in matches] == [clip_id(name) for name in ("a1", *between, "d1")]
    wanted = [max(cosine("a1", name), 0.0) for name in ("a1", *between, "d1")]
    assert [match["similarity"] for match in matches] == pytest.approx(wanted, abs=1e-3) and matches[0]["similarity"] == 1.0


def test_similar_songs_of_a_song_an_album_and_an_artist(client):
    for call, element in (("getSimilarSongs", "similarSongs"), ("getSimilarSongs2", "similarSongs2")):
        assert titles(found(asked(client, call, id=clip_id("b1"), count=2))[element]["song"]) == ["Green & <Red>", "Blue"]
        for seed in (FIRST, ADA):
            assert titles(found(asked(client, call, id=seed, count=2))[element]["song"]) == ["Déjà vu", "月光 ☕"]
    info = found(asked(client, "getArtistInfo2", id=ADA, count=1))["artistInfo2"]
    assert info == {"similarArtist": [{"id": BELA, "name": "Béla", "albumCount": 1}]}


def test_a_search_finds_artists_albums_and_songs_by_pages(client):
    everything = found(asked(client, "search3", query='""'))["searchResult3"]
    assert [len(everything[name]) for name in ("artist", "album", "song")] == [5, 4, 6]
    assert found(asked(client, "search3", query=""))["searchResult3"] == everything
    alone = {"query": "", "songCount": 4, "artistCount": 0, "albumCount": 0}
    pages = [found(asked(client, "search3", **alone, songOffset=first))["searchResult3"] for first in (0, 4)]
    assert [song for page in pages for song in page["song"]] == everything["song"]
    assert pages[0]["artist"] == pages[0]["album"] == []
    bela = found(asked(client, "search3", query="bela*"))["searchResult3"]
    assert [one["name"] for one in bela["artist"]] == ["Béla"] and [one["name"] for one in bela["album"]] == ["Second"]
    assert sorted(titles(bela["song"])) == ["Déjà vu", "月光 ☕"]
    old = found(asked(client, "search2", query="second"))["searchResult2"]
    assert old["album"][0]["isDir"] is True and old["album"][0]["title"] == "Second"
    assert found(asked(client, "search3", query="月光"))["searchResult3"]["song"][0]["id"] == clip_id("b2")


def test_a_player_can_browse_from_artists_to_the_sound_of_every_song(client):
    reached, artists = set(), found(asked(client, "getArtists"))["artists"]["index"]
    assert [(index["name"], [one["name"] for one in index["artist"]]) for index in artists] == [
        ("A", ["Ada"]), ("B", ["Béla"]), ("C", ["The Cleo"]), ("D", ["Dora"]), ("V", ["Various Artists"]),
    ]
    for artist in (one for index in artists for one in index["artist"]):
        albums = found(asked(client, "getArtist", id=artist["id"]))["artist"]
        assert albums["albumCount"] == len(albums["album"]) == artist["albumCount"]
        for album in albums["album"]:
            songs = found(asked(client, "getAlbum", id=album["id"]))["album"]
            assert songs["songCount"] == len(songs["song"]) and {song["albumId"] for song in songs["song"]} == {album["id"]}
            folder = found(asked(client, "getMusicDirectory", id=album["id"]))["directory"]
            assert folder["child"] == songs["song"]
            reached |= {song["id"] for song in songs["song"]}
    assert reached == {clip_id(song[0]) for song in SONGS}
    heads = [client.head("/rest/stream", params={"id": song}) for song in reached]
    assert all(head.headers["content-type"].startswith("audio/") for head in heads)
    by_number = found(asked(client, "getAlbum", id=FIRST))["album"]["song"]
    assert titles(by_number) == ["Green & <Red>", "Blue"]
    folder = found(asked(client, "getMusicDirectory", id=CLEO))["directory"]
    assert [one["id"] for one in folder["child"]] == [LONE, SECOND] and folder["name"] == "The Cleo"
    root = found(asked(client, "getMusicDirectory", id=1))["directory"]["child"]
    indexes = found(asked(client, "getIndexes"))["indexes"]["index"]
    assert [one["id"] for one in root] == [one["id"] for index in indexes for one in index["artist"]]


@pytest.mark.parametrize(("wanted", "albums"), [
    ({"type": "alphabeticalByName"}, [FIRST, HITS, SECOND, LONE]),
    ({"type": "alphabeticalByArtist"}, [FIRST, SECOND, LONE, HITS]),
    ({"type": "alphabeticalByName", "size": 2, "offset": 1}, [HITS, SECOND]),
    ({"type": "byYear", "fromYear": 1980, "toYear": 2005}, [FIRST, SECOND]),
    ({"type": "byYear", "fromYear": 2010, "toYear": 2000}, [HITS, SECOND]),
    ({"type": "byGenre", "genre": "Jazz"}, [FIRST, HITS]),
    ({"type": "byGenre", "genre": "Polka"}, []),
    ({"type": "starred"}, []),
    ({"type": "newest"}, [HITS, LONE, SECOND, FIRST]),
    ({"type": "newest", "offset": 9}, []),
])
def test_lists_of_albums(client, wanted, albums):
    listed = found(asked(client, "getAlbumList2", **wanted))["albumList2"]["album"]
    assert [album["id"] for album in listed] == albums
    assert [album["id"] for album in found(asked(client, "getAlbumList", **wanted))["albumList"]["album"]] == albums
    assert all({"name", "songCount", "duration", "created"} <= album.keys() for album in listed)


def test_albums_have_the_time_when_their_first_file_was_read(client):
    album = found(asked(client, "getAlbum", id=SECOND))["album"]
    assert (album["created"], album["songCount"], album["year"]) == ("2026-01-03T12:00:00Z", 2, 2001)
    changed = found(asked(client, "getIndexes"))["indexes"]["lastModified"]
    assert changed == seen("d1").timestamp() * 1_000


def test_random_lists_and_genres(client):
    genres = found(asked(client, "getGenres"))["genres"]["genre"]
    assert genres == [
        {"value": "Jazz", "songCount": 3, "albumCount": 2}, {"value": "R&B", "songCount": 2, "albumCount": 1},
    ]
    assert titles(found(asked(client, "getSongsByGenre", genre="R&B"))["songsByGenre"]["song"]) == ["Déjà vu", "月光 ☕"]
    drawn = found(asked(client, "getRandomSongs", size=500))["randomSongs"]["song"]
    assert {song["id"] for song in drawn} == {clip_id(song[0]) for song in SONGS}
    jazz = found(asked(client, "getRandomSongs", genre="Jazz", fromYear=2000))["randomSongs"]["song"]
    assert titles(jazz) == ["d1"]
    albums = client.get("/rest/getAlbumList2", params={"type": "random", "size": 500, "f": "json"}).json()
    assert len(albums["subsonic-response"]["albumList2"]["album"]) == 4


# -- sound


def test_a_stream_is_the_file_and_honours_ranges(client, client_of):
    whole = client.get("/rest/stream.view", params={"id": clip_id("a1"), "maxBitRate": 64, "format": "mp3"})
    assert whole.content[:4] == b"fLaC" and whole.headers["content-type"] == "audio/flac"
    part = client.get("/rest/stream", params={"id": clip_id("a1")}, headers={"Range": "bytes=4-13"})
    assert part.status_code == 206 and part.content == whole.content[4:14]
    assert part.headers["content-range"] == f"bytes 4-13/{len(whole.content)}"
    assert client.post("/rest/download", data={"id": clip_id("a1")}).content == whole.content
    head = client.head("/rest/stream", params={"id": clip_id("a1")})
    assert head.headers["content-length"] == str(len(whole.content)) and head.content == b""
    decoded = client.get("/rest/stream", params={"id": clip_id("d1")})
    assert decoded.content[:4] == b"RIFF" and decoded.headers["content-type"] == "audio/wav"
    for wanted, code in ({}, 10), ({"id": "none"}, 70):
        answer = client.get("/rest/stream", params={**wanted, "f": "json"})
        assert answer.headers["content-type"] == "application/json" and error_of(answer.json()["subsonic-response"])[0] == code
        assert client.get("/rest/stream", params=wanted).headers["content-type"].startswith("text/xml")


# -- logins


def token_for(salt: str) -> str:
    return hashlib.md5((TOKEN + salt).encode()).hexdigest()


@pytest.mark.parametrize("login", [
    {"u": "ada", "t": token_for("c19b2d"), "s": "c19b2d"},
    {"u": "ada", "t": token_for("é").upper(), "s": "é"},
    {"u": "ada", "p": TOKEN},
    {"u": "ada", "p": f"enc:{TOKEN.encode().hex()}"},
    {"u": "ada", "p": f"enc:{TOKEN.encode().hex().upper()}"},
    {"apiKey": TOKEN},
])
def test_a_client_logs_in_by_token_password_and_key(client_of, login):
    client = client_of(TOKEN)
    assert found(asked(client, "ping", **login)) == {}
    assert client.post("/rest/ping.view", data={**login, "f": "json"}).json()["subsonic-response"]["status"] == "ok"
    assert client.post("/rest/ping.view", params=login, data={"f": "json"}).json()["subsonic-response"]["status"] == "ok"
    assert client.get("/rest/stream", params={**login, "id": clip_id("a1")}).content[:4] == b"fLaC"
    name = found(asked(client, "tokenInfo", **login))["tokenInfo"]["username"]
    assert name == login.get("u", "tonelake")


@pytest.mark.parametrize(("login", "code"), [
    ({}, 10), ({"u": "ada"}, 10), ({"u": "ada", "t": token_for("x")}, 10), ({"u": "ada", "s": "x"}, 10), ({"p": TOKEN}, 10),
    ({"u": "ada", "p": "wrong"}, 40), ({"u": "eve", "p": TOKEN}, 40), ({"u": "ada", "p": "enc:zz"}, 40),
    ({"u": "ada", "p": ""}, 40), ({"u": "ada", "t": token_for("x"), "s": "y"}, 40), ({"u": "ada", "t": "\x00é", "s": ""}, 40),
    ({"u": "ada", "p": f"enc:{TOKEN}"}, 40), ({"apiKey": "wrong"}, 44), ({"apiKey": ""}, 44),
    ({"apiKey": TOKEN, "u": "ada"}, 43), ({"apiKey": TOKEN, "p": TOKEN}, 43),
    ({"u": "ada", "p": TOKEN, "t": "x", "s": "y"}, 43),
])
def test_wrong_logins_have_their_codes(client_of, login, code):
    for name in ("ping", "getSong", "stream", "nothing", "star"):
        got, message = error_of(asked(client_of(TOKEN), name, **login))
        assert got == code and message and TOKEN not in message


def test_extensions_are_listed_without_a_login_and_loopback_needs_none(client_of):
    assert "openSubsonicExtensions" in found(asked(client_of(TOKEN), "getOpenSubsonicExtensions"))
    assert found(asked(client_of(None), "ping", u="anyone", p="anything")) == {}


# -- requests that cannot be met


@pytest.mark.parametrize(("name", "wanted", "code", "said"), [
    ("getSong", {}, 10, "id: required parameter is missing"),
    ("getSong", {"id": ""}, 10, "id: required parameter is missing"),
    ("getSong", {"id": "none"}, 70, "song 'none': not in this lake"),
    ("getSong", {"id": "\x00'; DROP TABLE clips"}, 70, "not in this lake"),
    ("getSong", {"id": "../../etc/passwd"}, 70, "not in this lake"),
    ("getSong", {"id": "x" * 5_000}, 70, "not in this lake"),
    ("getArtist", {"id": "none"}, 70, "artist 'none': not in this lake"),
    ("getAlbum", {"id": "none"}, 70, "album 'none': not in this lake"),
    ("getMusicDirectory", {"id": "none"}, 70, "album 'none': not in this lake"),
    ("getArtistInfo2", {"id": "none"}, 70, "artist 'none': not in this lake"),
    ("getSonicSimilarTracks", {"id": "none", "count": 0}, 70, "not in this lake"),
    ("getSonicSimilarTracks", {"id": clip_id("a1"), "count": "many"}, 0, "count='many': not a whole number"),
    ("getSonicSimilarTracks", {"id": clip_id("a1"), "count": "１"}, 0, "not a whole number"),
    ("findSonicPath", {"startSongId": clip_id("a1")}, 10, "endSongId: required parameter is missing"),
    ("findSonicPath", {"startSongId": clip_id("a1"), "endSongId": clip_id("a1", 1)}, 0, "both ends are the same song"),
    ("getSimilarSongs2", {"id": "none"}, 70, "not in this lake"),
    ("getAlbumList2", {}, 10, "type: required parameter is missing"),
    ("getAlbumList2", {"type": "loudest"}, 0, "type='loudest': unknown"),
    ("getAlbumList2", {"type": "byYear", "fromYear": 1990}, 10, "toYear: required parameter is missing"),
    ("getAlbumList2", {"type": "byGenre"}, 10, "genre: required parameter is missing"),
    ("getUser", {}, 10, "username: required parameter is missing"),
    ("getCoverArt", {"id": FIRST}, 70, "not found"),
    ("getPlaylist", {"id": "1"}, 70, "not found"),
    ("createPlaylist", {"name": "x"}, 50, "read-only"),
    ("star", {"id": clip_id("a1")}, 50, "read-only"),
    ("../v1/lake", {}, 0, "not a call"),
    ("getSong/more", {}, 0, "not a call"),
    ("%3Cscript%3E", {}, 0, "'<script>': not a call"),
    ("n" * 3_000, {}, 0, "not a call"),
])
def test_requests_that_cannot_be_met_have_their_codes(client, name, wanted, code, said):
    if name.startswith(".."):
        name = name.replace("..", "%2E%2E")
    got, message = error_of(asked(client, name, **wanted))
    assert got == code and said in message


def test_unknown_forms_and_large_bodies_are_refused_in_a_form_that_is_known(client):
    assert error_of(client.get("/rest/ping?f=jsonp&callback=x").json()["subsonic-response"])[0] == 0
    root = ElementTree.fromstring(client.get("/rest/ping?f=yaml").content)
    assert root.get("status") == "failed" and "f='yaml': unknown" in root[0].get("message", "")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    large = client.post("/rest/ping", content=b"a=" + b"x" * 1_000_001, headers=form)
    assert large.status_code == 200 and "larger than" in ElementTree.fromstring(large.content)[0].get("message", "")
    assert client.put("/rest/ping").status_code == 405 and client.get("/rest").status_code == 200


def test_calls_that_lakes_have_nothing_for_are_answered(client):
    for name in EMPTY:
        assert list(found(asked(client, name))) == list(EMPTY[name]), name
    assert not set(EMPTY) & {*CALLS, *ABSENT, *CHANGES} and not set(CALLS) & {*ABSENT, *CHANGES}


def test_text_that_is_not_utf_8_is_read_as_latin_1(client):
    for query in ("query=D%E9j%E0", "query=D%C3%A9j%C3%A0", "query=d%E9j%E0+vu"):
        answer = client.get(f"/rest/search3?{query}&f=json").json()["subsonic-response"]
        assert titles(answer["searchResult3"]["song"]) == ["Déjà vu"], query
    twice = client.get(f"/rest/getSong?id={clip_id('a1')}&id=none&f=json").json()["subsonic-response"]
    assert twice["song"]["title"] == "Blue"


IDS = [clip_id("a1"), clip_id("c1", 1), FIRST, ADA, "1"]
ODD = ["\x00", "%00", "\ud7ff\ufffe", "💿" * 300, "é" * 2_000, "'", '"', "*", "-1", "9" * 30, "../x", "1e9"]
TEXT = some.text(max_size=20) | some.sampled_from(ODD)
NUMBER, AN_ID = some.integers() | TEXT, some.sampled_from(IDS) | TEXT
PARAMETERS = some.fixed_dictionaries({}, optional={
    **dict.fromkeys(("id", "startSongId", "endSongId"), AN_ID), **dict.fromkeys(("query", "genre", "username", "u", "t"), TEXT),
    **dict.fromkeys(("count", "size", "offset", "songCount", "songOffset", "fromYear", "toYear"), NUMBER),
    "type": some.sampled_from(["random", "newest", "byYear", "byGenre"]) | TEXT, "f": some.sampled_from(["xml", "json"]) | TEXT,
})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=some.sampled_from([*CALLS, "stream", "getPlaylists"]), parameters=PARAMETERS, form=some.booleans())
def test_no_parameters_bring_an_answer_out_of_form(client, name, parameters, form):
    answer = client.post(f"/rest/{name}", data=parameters) if form else client.get(f"/rest/{name}", params=parameters)
    assert answer.status_code == 200
    if answer.headers["content-type"].startswith("audio/"):
        return
    if answer.headers["content-type"] == "application/json":
        body = answer.json()["subsonic-response"]
        failed = body.get("error", {}).get("message", "")
    else:
        root = ElementTree.fromstring(answer.content)
        body, failed = root.attrib, next((child.get("message", "") for child in root if child.get("code")), "")
    assert body["status"] == ("failed" if failed else "ok")
    assert "the call failed" not in failed and "/music/" not in answer.text
