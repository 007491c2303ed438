"""The native interface of the service, in process: answers are those of the library, errors are sentences."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from fakes import WordsEncoder, clip_rows, fill
from starlette.testclient import TestClient

import tonelake
from tonelake.serve.answers import Answers
from tonelake.serve.app import create_app
from tonelake.store import ClipNotFound, InputError, Lake, LakeError, file_rows

SERVER = "http://music.example"
PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def client_of(uri: str, **settings) -> TestClient:
    return TestClient(create_app(Answers(uri, **settings)), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(filled) -> TestClient:
    return client_of(filled.uri)


@pytest.fixture
def own(tmp_path) -> Lake:
    """A small lake to write to."""
    lake = Lake(tmp_path / "lake")
    fill(lake, tracks=8, clips_a_track=2, seed=3)
    return lake


def clip(track: int, number: int = 0) -> str:
    return f"{track * 1000 + number:020x}"


# -- songs


def test_all_songs_are_listed_in_pages_without_gaps_or_repeats(client):
    pages = [client.get("/v1/songs", params={"first": first, "count": 7}).json() for first in range(0, 24, 7)]
    rows = [row for page in pages for row in page["rows"]]
    assert [page["total"] for page in pages] == [24] * 4 and [page["first"] for page in pages] == [0, 7, 14, 21]
    assert [row["title"] for row in rows] == [f"Title {number}" for number in range(24)]
    assert client.get("/v1/songs", params={"first": 24}).json()["rows"] == []


def test_a_song_is_found_by_its_name_with_a_typing_error(client):
    found = client.get("/v1/songs", params={"q": "Titel 13"}).json()["rows"]
    assert found[0]["title"] == "Title 13" and found[0]["artist"] == "Artist 3" and found[0]["year"] == 1973


def test_a_song_is_the_same_by_the_id_of_any_of_its_clips(client):
    first, later = client.get(f"/v1/songs/{clip(5)}").json(), client.get(f"/v1/songs/{clip(5, 7)}").json()
    assert first == later and first["id"] == clip(5) and first["duration_s"] == 55.0


def test_an_unknown_song_is_404_with_a_sentence(client):
    for wrong in ("ffffffffffffffffffff", "x", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "a" * 300, "%ff%00", "ärtist"):
        answer = client.get(f"/v1/songs/{wrong}")
        assert answer.status_code == 404 and "not in this lake" in answer.json()["error"], wrong


def test_a_song_is_found_by_title_and_artist(filled):
    answers = Answers(filled.uri)
    assert answers.find_by(title="title 7", artist="ARTIST 1").clip_id == clip(7)
    with pytest.raises(InputError, match="2 songs are near"):
        answers.find_by(title="Titel 7")
    with pytest.raises(ClipNotFound):
        answers.find_by(title="Entirely different words")
    with pytest.raises(InputError, match="empty"):
        answers.find_by(title=" ")


# -- similar songs and paths


def test_similar_songs_are_those_of_the_library(client, filled):
    lake = tonelake.open(filled.uri, progress=False)
    song = lake.find("Title 6")["clip_id"][0]
    expected = lake.similar(tonelake.index.song_of_clip(lake, song), k=8)
    found = client.get("/v1/similar", params={"id": song, "count": 8}).json()
    assert [row["clip_id"] for row in found] == expected["clip_id"].to_list()
    assert [row["start_s"] for row in found] == expected["start_s"].to_list()
    assert [row["score"] for row in found] == pytest.approx(expected["score"].to_list(), abs=1e-5)


def test_a_clip_alone_is_compared_with_moments(client, filled):
    expected = tonelake.open(filled.uri, progress=False).similar(clip(6, 4), k=5)
    found = client.get("/v1/similar", params={"id": clip(6, 4), "count": 5, "moments": True}).json()
    assert [row["clip_id"] for row in found] == expected["clip_id"].to_list()


def test_several_songs_less_another_are_combined(client):
    both = {"id": [clip(0), clip(4)], "count": 6}
    plain = client.get("/v1/similar", params=both).json()
    less = client.get("/v1/similar", params=both | {"minus": clip(5)}).json()
    assert {row["artist"] for row in plain} >= {"Artist 0", "Artist 1"}
    assert [row["id"] for row in plain] != [row["id"] for row in less] and clip(5) not in {row["id"] for row in less}


def test_hits_are_narrowed_by_values_never_by_sql(client):
    ask = {"id": clip(0), "count": 24}
    found = client.get("/v1/similar", params=ask | {"where.artist": ["Artist 2", "Artist 3"], "where[tags]": "odd"}).json()
    assert {row["artist"] for row in found} == {"Artist 2", "Artist 3"} and len(found) == 4
    years = client.get("/v1/similar", params=ask | {"where.year": "1962-1964"}).json()
    assert {row["year"] for row in years} == {1962, 1963, 1964}
    for value in ("' OR 1=1 --", "x'; DROP TABLE clips", "\x00", "ﬀ", "%"):
        assert client.get("/v1/similar", params=ask | {"where.artist": value}).json() == [], value
    for name in ("where.source", "where.nothing", "where[artist OR 1=1]", "where.1=1 --", "where.digest"):
        answer = client.get("/v1/similar", params=ask | {name: "x"})
        assert answer.status_code == 400 and "unknown" in answer.json()["error"], name
    assert "not a value" in client.get("/v1/similar", params=ask | {"where.year": "x"}).json()["error"]


def test_hits_are_capped_and_differ_as_asked(client):
    ask = {"id": clip(0), "count": 6}
    capped = client.get("/v1/similar", params=ask | {"per": "artist:1"}).json()
    assert len({row["artist"] for row in capped}) == 6
    assert "Artist 0" not in {row["artist"] for row in client.get("/v1/similar", params=ask | {"not_same": "artist"}).json()}


def test_words_are_a_query_alone_and_with_songs(tmp_path):
    lake = tonelake.open(tmp_path / "lake", progress=False)
    fill(lake, 6, 2, 1, WordsEncoder)
    client = client_of(lake.uri)
    found = client.get("/v1/similar", params={"text": ["piano", "-drums"], "count": 4}).json()
    assert [row["clip_id"] for row in found] == lake.similar(text=["piano", "-drums"], k=4)["clip_id"].to_list()
    song = tonelake.index.song_of_clip(lake, clip(2))
    both = client.get("/v1/similar", params={"text": "piano", "id": clip(2), "count": 4}).json()
    assert [row["clip_id"] for row in both] == lake.similar(song, text="piano", k=4)["clip_id"].to_list()
    assert client.get("/v1/similar", params={"text": " "}).status_code == 400


def test_a_path_leads_from_one_song_to_the_other(client):
    found = client.get("/v1/path", params={"start": clip(0, 3), "end": clip(20), "steps": 3}).json()
    assert len(found) == 5 and found[0]["id"] == clip(0) and found[-1]["id"] == clip(20)
    assert len({row["id"] for row in found}) == 5
    same = client.get("/v1/path", params={"start": clip(0), "end": clip(0, 1)})
    assert same.status_code == 400 and "same song" in same.json()["error"]


# -- artists, columns, maps


def test_artists_are_found_and_compared(client, filled):
    found = client.get("/v1/artists", params={"q": "ARTIST 2"}).json()["rows"]
    assert [(row["name"], row["songs"]) for row in found] == [("Artist 2", 4)]
    by_id, by_name = (
        client.get("/v1/artists/similar", params={"artist": one, "count": 3}).json() for one in (found[0]["id"], "artist 2")
    )
    expected = tonelake.open(filled.uri, progress=False).groups("artist", "Artist 2", k=3)
    assert by_id == by_name and [row["name"] for row in by_id] == expected["artist"].to_list()
    assert {row["artist"] for row in by_id[0]["examples"]} == {"Artist 2"}
    assert {row["artist"] for row in by_id[0]["near_examples"]} == {by_id[0]["name"]}
    songs = client.get("/v1/artists/songs", params={"artist": "Artist 2", "count": 3}).json()
    assert songs["total"] == 4 and {row["artist"] for row in songs["rows"]} == {"Artist 2"}
    assert client.get("/v1/artists/similar", params={"artist": "Someone"}).status_code == 404


def test_columns_and_their_values_are_listed_without_paths(client):
    columns = {row["name"]: row["kind"] for row in client.get("/v1/columns").json()}
    assert columns == {"artist": "class", "year": "integer", "tags": "tags"}
    values = client.get("/v1/columns/tags/values", params={"q": "TAG"}).json()
    assert [(row["value"], row["songs"]) for row in values["rows"]] == [("tag0", 8), ("tag1", 8), ("tag2", 8)]
    assert client.get("/v1/columns/source/values").status_code == 400


def test_a_map_has_a_point_for_each_song(own):
    client = client_of(own.uri)
    missing = client.get("/v1/map")
    assert missing.status_code == 400 and "tonelake map" in missing.json()["error"]
    tonelake.open(own.uri, progress=False).map(method="pca")
    first = client.get("/v1/map")
    page = client.get("/v1/map", params={"count": 5, "first": 2}).json()
    assert page["total"] == 8 and len(page["rows"]) == 5 and {"id", "x", "y", "cluster"} <= page["rows"][0].keys()
    tonelake.open(own.uri, progress=False).map(method="pca", seed=1, again=True)         # a map is drawn again
    assert client.get("/v1/map", headers={"If-None-Match": first.headers["etag"]}).status_code == 200


# -- requests that are wrong


@pytest.mark.parametrize(("address", "says"), [
    ("/v1/songs?count=0", "count"), ("/v1/songs?count=501", "500"), ("/v1/songs?count=99999999999999999999", "count"),
    ("/v1/songs?first=-1", "first"), ("/v1/songs?counts=3", "'counts': unknown"), ("/v1/similar", "no song"),
    ("/v1/similar?id=" + "&id=".join(["a"] * 101), "100"), (f"/v1/similar?id={clip(0)}&per=artist", "per"),
    (f"/v1/similar?id={clip(0)}&layer=99", "layer"), (f"/v1/similar?id={clip(0)}&order=random", "order"),
    (f"/v1/similar?id={clip(0)}&not_same=nothing", "nothing"), (f"/v1/similar?id={clip(0)}&like=source", "source"),
    ("/v1/path?start=x", "end"), ("/v1/songs?q=" + "x" * 501, "500"),
])
def test_a_wrong_request_is_400_and_says_what_is_wrong(client, address, says):
    answer = client.get(address)
    assert answer.status_code == 400 and says in answer.json()["error"]


def test_an_unknown_space_is_404_and_other_addresses_and_methods_are_refused(client):
    assert client.get(f"/v1/similar?id={clip(0)}&space=nothing").status_code == 404
    assert client.get("/v1/nothing").status_code == 404 and "error" in client.get("/v1/nothing").json()
    assert client.post("/v1/songs").status_code == 405 and client.delete(f"/v1/songs/{clip(0)}").status_code == 405


# -- what a client keeps


def test_an_answer_is_sent_again_only_after_the_lake_changed(own):
    client = client_of(own.uri)
    asked = {"id": clip(0), "count": 3}
    first = client.get("/v1/similar", params=asked)
    known = {"If-None-Match": first.headers["etag"]}
    again = client.get("/v1/similar", params=asked, headers=known)
    assert first.status_code == 200 and again.status_code == 304 and not again.content
    own.clips.set_labels(pl.DataFrame({"clip_id": [clip(0)], "mood": ["calm"]}))         # as another process does
    changed = client.get("/v1/similar", params=asked, headers=known)
    assert changed.status_code == 200 and changed.headers["etag"] != first.headers["etag"]
    assert client.get("/v1/columns/mood/values").json()["rows"] == [{"value": "calm", "songs": 1}]


def test_long_answers_are_compressed(client):
    answer = client.get("/v1/songs", params={"count": 24}, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip" and len(answer.json()["rows"]) == 24
    plain = client.get("/v1/songs", params={"count": 24}, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_the_page_of_the_description_names_no_other_host(client):
    page, described = client.get("/docs"), client.get("/openapi.json").json()
    assert "://" not in page.text and "default-src 'self'" in page.headers["content-security-policy"]
    assert client.get("/static-offline-docs/swagger-ui-bundle.js").status_code == 200
    assert {"/v1/songs", "/v1/similar", "/v1/songs/{song_id}/audio"} <= described["paths"].keys()
    assert "422" not in str(described["paths"]["/v1/songs"]["get"]["responses"].keys())


def test_the_requests_of_the_page_are_answered(own, tmp_path):
    tonelake.open(own.uri, progress=False).map(method="pca")
    client, values = client_of(own.uri), {"$ID": clip(0), "$OTHER": clip(5), "$THIRD": clip(6), "Ada": "Artist 1", "Cleo": "x"}
    asked = re.findall(r'^curl (?:-o song )?"\$S(/[^"]+)"', PAGE.read_text(), re.MULTILINE)
    assert len(asked) >= 15
    for address in asked:
        for name, value in values.items():
            address = address.replace(name, value)
        assert client.get(address).status_code == (404 if address.endswith("/audio") else 200), address
    song = client.get(f"/v1/songs/{clip(0)}").json()
    assert all(f'"{name}":' in PAGE.read_text() for name in song)


# -- ids of music servers


def test_songs_have_the_ids_of_the_music_server_and_are_found_by_both(own):
    own.paths.put(file_rows([{"source": f"made:{track}", "name": f"{track}.flac"} for track in range(8)]))
    own.paths.set_served(SERVER, {"made:0": "al/0?b", "made:4": "four"})
    client = client_of(own.uri)
    assert client.get("/v1/lake").json()["server"] == SERVER
    found = client.get("/v1/similar", params={"id": "al/0?b", "count": 7}).json()
    assert found == client.get("/v1/similar", params={"id": clip(0, 1), "count": 7}).json()
    assert {row["id"] for row in found} == {"four", *(clip(track) for track in (1, 2, 3, 5, 6, 7))}
    assert client.get("/v1/songs/al%2F0%3Fb").json()["id"] == "al/0?b"


def test_one_of_several_servers_is_chosen(own):
    own.paths.put(file_rows([{"source": "made:0", "name": "0.flac"}]))
    for server, song in (("http://b.example", "in-b"), ("http://a.example", "in-a")):
        own.paths.set_served(server, {"made:0": song})
    assert Answers(own.uri).song(clip(0)).id == "in-a"
    assert Answers(own.uri, server="b.example").song(clip(0)).id == "in-b"
    with pytest.raises(InputError, match=r"several match. Choose one of http://a\.example, http://b\.example"):
        Answers(own.uri, server="example").check()
    with pytest.raises(InputError, match="not known"):
        Answers(own.uri, server="c.example").check()


# -- a lake that changes


def test_songs_that_are_added_or_removed_meanwhile_are_seen_at_once(own):
    answers = Answers(own.uri)
    assert answers.find_songs("").total == 8
    own.clips.add(clip_rows(9, 1).tail(1))
    assert answers.find_songs("").total == 9
    own.clips.remove([clip(0), clip(0, 1)])
    assert answers.find_songs("").total == 8
    with pytest.raises(ClipNotFound):
        answers.similar([clip(0)])


def test_a_replaced_lake_is_read_and_a_deleted_one_is_503(own, tmp_path):
    client = client_of(own.uri)
    assert client.get("/v1/songs").json()["total"] == 8
    shutil.rmtree(own.uri)
    gone = client.get("/v1/songs")
    assert gone.status_code == 503 and gone.headers["retry-after"] and str(tmp_path) not in gone.text
    fill(Lake(own.uri), tracks=4, clips_a_track=1, seed=5)
    assert client.get("/v1/songs").json()["total"] == 4
    assert len(client.get("/v1/similar", params={"id": clip(1)}).json()) == 3


def test_a_damaged_lake_is_503_without_a_path(own, tmp_path):
    for file in (tmp_path / "lake" / "emb_fake.lance" / "data").iterdir():
        file.write_bytes(b"not a table")
    answer = client_of(own.uri).get("/v1/similar", params={"id": clip(0)})
    assert answer.status_code == 503 and str(tmp_path) not in answer.text and "Try again" in answer.json()["error"]


def test_a_lake_without_vectors_answers_by_name_alone(tmp_path):
    lake = Lake(tmp_path / "lake")
    lake.clips.add(clip_rows(2, 1))
    client = client_of(lake.uri)
    assert client.get("/v1/songs").json()["total"] == 2 and client.get("/v1/lake").json()["space"] is None
    answer = client.get("/v1/similar", params={"id": clip(0)})
    assert answer.status_code == 404 and "tonelake embed" in answer.json()["error"]


def test_a_song_that_is_not_embedded_yet_is_a_sentence(own):
    own.clips.add(clip_rows(9, 1).tail(1))
    answer = client_of(own.uri).get("/v1/similar", params={"id": clip(8)})
    assert answer.status_code == 404 and "not embedded" in answer.json()["error"]


def test_nothing_is_written_to_the_lake(own):
    def state() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in Path(own.uri).rglob("*")}

    before, client = state(), client_of(own.uri)
    for address in ("songs?q=Titel+3", f"similar?id={clip(0)}&like=artist", f"path?start={clip(0)}&end={clip(5)}", "columns",
                    "artists/similar?artist=Artist+1", "facets?like=artist", f"songs/{clip(0)}/audio", "map"):
        client.get(f"/v1/{address}")
    assert state() == before
    tonelake.open(own.uri, progress=False).find("Title 1")                       # stores the names, which are used from now on
    own.clips.set_labels(pl.DataFrame({"clip_id": [clip(3), clip(3, 1)], "title": ["Entirely new"] * 2}))
    assert client.get("/v1/songs?q=entirely+new").json()["rows"][0]["id"] == clip(3)


def test_no_lake_is_an_error(tmp_path):
    with pytest.raises(LakeError):
        Answers(str(tmp_path / "none")).find_songs("")
