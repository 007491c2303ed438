"""The client for Subsonic servers: logins, listings and downloads, by answers made here and by supysonic in this process."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest
from subsonic_server import PASSWORD, USER, MusicServer

from tonelake.ingest import SubsonicError, SubsonicServer
from tonelake.ingest.subsonic.client import PAGE, SongGone
from tonelake.ingest.subsonic.login import login_for, server_address
from tonelake.store import InputError

HOME = "http://localhost:4533"
Answer = Callable[[str, dict[str, str]], Any]            # (method, form) -> the content of the answer, or a response


@pytest.fixture(scope="module")
def supysonic(tmp_path_factory):
    server = MusicServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def no_logins(monkeypatch, tmp_path):
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("TONELAKE_SUBSONIC_USER", "TONELAKE_SUBSONIC_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def ok(**content: Any) -> dict[str, Any]:
    return {"subsonic-response": {"status": "ok", "version": "1.16.1", **content}}


def failed(code: int, message: str = "no") -> dict[str, Any]:
    return {"subsonic-response": {"status": "failed", "error": {"code": code, "message": message}}}


def server(answer: Answer, *, url: str = HOME, requests: list[dict[str, str]] | None = None, **more: Any) -> SubsonicServer:
    """A client for a server that answers by a function."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        assert request.method == "POST" and not request.url.query    # no login in an address
        form = {name: values[0] for name, values in parse_qs(request.content.decode(), keep_blank_values=True).items()}
        if requests is not None:
            requests.append(form)
        found = answer(request.url.path.rsplit("/", 1)[-1].removesuffix(".view"), form)
        if isinstance(found, httpx2.Response):
            return found
        return httpx2.Response(200, content=json.dumps(found), headers={"content-type": "application/json"})

    settings = {"user": "ada", "password": "secret", "sleep": lambda _: None} | more
    return SubsonicServer(url, transport=httpx2.MockTransport(handle), **settings)


def songs_of(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"s{number}", "title": f"Song {number}"} for number in range(first, first + count)]


# -- supysonic


def test_a_real_server_lists_its_songs_with_paths_tags_and_sizes(supysonic):
    with SubsonicServer(supysonic.address, user=USER, password=PASSWORD, transport=supysonic.transport()) as client:
        client.ping()
        found = {song.path: song for song in client.songs()}
    assert {path: song.id for path, song in found.items()} == supysonic.ids()
    song = found["Béla/Éjszaka/01 Dal.flac"]
    assert (song.title, song.artists, song.album, song.duration_s, song.suffix) == ("Dal", ("Béla",), "Éjszaka", 2.0, "flac")
    assert song.size == (supysonic.music / song.path).stat().st_size
    untagged = found["untagged.wav"]     # "[unknown]" and "[non-album tracks]" there
    assert (untagged.artists, untagged.album, untagged.tags()["title"]) == ((), None, "untagged")


def test_playlists_of_a_real_server_are_made_replaced_and_deleted(supysonic):
    ids = supysonic.ids()
    chosen = [ids["雪/夜/月光.ogg"], ids["untagged.wav"], ids["雪/夜/月光.ogg"]]
    with SubsonicServer(supysonic.address, user=USER, password=PASSWORD, transport=supysonic.transport()) as client:
        client.create_playlist("Ruhe & <Sturm>", chosen)
        (made,) = client.playlists()
        assert (made.name, made.owner, made.songs) == ("Ruhe & <Sturm>", USER, 3)
        assert [song.id for song in client.playlist_songs(made.id)] == chosen
        client.replace_playlist(made.id, "Ruhe", chosen[:1])
        assert supysonic.playlists() == {"Ruhe": ["月光"]}
        client.delete_playlist(made.id)
        assert client.playlists() == []


def test_a_file_of_a_real_server_arrives_unchanged(supysonic):
    path, song = next(iter(supysonic.ids().items()))
    file = io.BytesIO()
    with SubsonicServer(supysonic.address, user=USER, password=PASSWORD, transport=supysonic.transport()) as client:
        size = client.download(song, file, most_bytes=10**6)
        with pytest.raises(SubsonicError, match=r"the cache holds 1,000\. Give it more with --cache-gb"):
            client.download(song, io.BytesIO(), most_bytes=1_000)
    assert file.getvalue() == (supysonic.music / path).read_bytes() and size == len(file.getvalue())


def test_a_wrong_password_is_named_as_such(supysonic):
    client = SubsonicServer(supysonic.address, user=USER, password="no", transport=supysonic.transport())
    with pytest.raises(SubsonicError, match="refuses the login of ada"):
        client.ping()


# -- logins


def test_the_login_is_a_salted_token():
    requests: list[dict[str, str]] = []
    server(lambda method, form: ok(), requests=requests).ping()
    (form,) = requests
    assert form["u"] == "ada" and form["t"] == hashlib.md5(f"secret{form['s']}".encode()).hexdigest()
    assert "p" not in form and "secret" not in str(form)


@pytest.mark.parametrize(("url", "insecure", "sent"), [
    (HOME, False, True), ("https://music.example", False, True), ("http://music.example", True, True),
    ("http://music.example", False, False),
])
def test_a_server_without_tokens_is_sent_the_password_only_over_a_private_connection(url, insecure, sent):
    requests: list[dict[str, str]] = []
    client = server(
        lambda method, form: ok() if "p" in form else failed(41), url=url, insecure=insecure, requests=requests,
    )
    if sent:
        client.ping()
        client.ping()
        assert [form.get("p") for form in requests] == [None, "enc:736563726574", "enc:736563726574"]
    else:
        with pytest.raises(InputError, match="others on the network could read it"):
            client.ping()
        assert not any("p" in form for form in requests)


def test_user_and_password_come_from_the_call_the_environment_or_netrc(monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login bea password one\ndefault login x password y\n")
    netrc.chmod(0o600)
    assert login_for(HOME) == ("bea", "one")
    assert login_for(HOME, "ada", "given") == ("ada", "given")
    with pytest.raises(InputError, match="no password for ada"):     # that of bea is not sent for ada
        login_for(HOME, "ada")
    assert login_for(HOME, "ada", ask=lambda prompt: prompt) == ("ada", f"Password of ada at {HOME}")
    with pytest.raises(InputError, match="no user"):                 # `default` would send a password anywhere
        login_for("https://elsewhere.example")
    monkeypatch.setenv("TONELAKE_SUBSONIC_USER", "dora")
    monkeypatch.setenv("TONELAKE_SUBSONIC_PASSWORD", "three")
    assert login_for(HOME) == ("dora", "three") and login_for(HOME, "ada") == ("ada", "three")
    netrc.write_text("machine localhost nonsense\n")
    assert login_for(HOME) == ("dora", "three")                      # it is not read
    monkeypatch.delenv("TONELAKE_SUBSONIC_PASSWORD")
    with pytest.raises(InputError, match="netrc: cannot be read"):
        login_for(HOME)


@pytest.mark.parametrize("url", ["", "ftp://a", "http://", "http://a b", "http://a:99999", "http://a/?x=1", "http://[", "a\nb"])
def test_what_is_not_an_address_is_refused(url):
    with pytest.raises(InputError, match="is not the address of a server"):
        server_address(url)


def test_a_login_in_an_address_is_refused_without_repeating_it():
    with pytest.raises(InputError) as error:
        server_address("https://ada:secret@music.example/")
    assert "secret" not in str(error.value) and "--user" in str(error.value)


# -- listings


def test_all_pages_are_read_also_where_pages_are_shorter_than_asked():
    songs = songs_of(1_300)

    def answer(method: str, form: dict[str, str]) -> Any:
        first = int(form["songOffset"])
        return ok(searchResult3={"song": songs[first : first + min(int(form["songCount"]), 400)]})

    assert [song.id for song in server(answer).songs()] == [song["id"] for song in songs]


def test_a_server_that_ignores_the_offset_is_listed_once():
    assert len(list(server(lambda method, form: ok(searchResult3={"song": songs_of(PAGE)})).songs())) == PAGE


def test_a_server_that_finds_nothing_for_an_empty_search_is_listed_by_albums():
    albums = {"a": songs_of(2), "b": songs_of(3, first=2), "gone": None}

    def answer(method: str, form: dict[str, str]) -> Any:
        if method == "search3":
            return ok(searchResult3={})
        if method == "getAlbumList2":
            return ok(albumList2={"album": [{"id": name} for name in albums] if form["offset"] == "0" else []})
        return ok(album={"song": albums[form["id"]]}) if albums[form["id"]] else failed(70)

    assert [song.id for song in server(answer).songs()] == ["s0", "s1", "s2", "s3", "s4"]


def test_odd_entries_do_not_spoil_a_page():
    entries = [
        {"id": "ok", "title": "A\x00\x1b[31m", "artist": 7, "year": "x", "duration": "215", "size": -1, "path": "a\x00b"},
        {"title": "no id"}, {"id": None}, {"id": "\ud800"}, {"id": "folder", "isDir": True}, {"id": "film", "isVideo": True},
        {"id": 12, "duration": float("1e400"), "artists": [{"name": "A"}, "B", {"name": "[Unknown Artist]"}]},
        {"id": "ok"}, "text",
    ]

    def answer(method: str, form: dict[str, str]) -> Any:
        return ok(searchResult3={"song": entries if form["songOffset"] == "0" else []})

    first, second = server(answer).songs()
    assert (first.id, first.title, first.artists, first.year, first.duration_s, first.size, first.path) == (
        "ok", "A[31m", (), None, 215.0, None, ""
    )
    assert (second.id, second.artists, second.duration_s) == ("12", ("A",), None)


# -- what goes wrong


@pytest.mark.parametrize(("response", "problem"), [
    (httpx2.Response(302, headers={"location": "https://evil.example/rest"}), "redirects to https://evil.example/rest"),
    (httpx2.Response(200, html="<html>Sign in</html>"), "answers with a web page rather than as a Subsonic server"),
    (httpx2.Response(200, json={"error": 1}), "rather than as a Subsonic server"),
    (httpx2.Response(200, content=b"[" * 100_000), "rather than as a Subsonic server"),
    (httpx2.Response(404), "has no Subsonic interface at http://localhost:4533/rest"),
    (httpx2.Response(403), "refuses the request with status 403"),
    (httpx2.Response(503), "answers with status 503"),
    (httpx2.Response(418), "answers with status 418"),
])
def test_other_answers_are_sentences(response, problem):
    with pytest.raises(SubsonicError) as error:
        server(lambda method, form: response).ping()
    assert problem in str(error.value) and str(error.value).startswith(f"{HOME}: ")


def test_a_server_that_is_busy_for_a_moment_is_asked_again_but_a_playlist_is_not_made_twice():
    requests: list[dict[str, str]] = []
    busy = server(lambda method, form: httpx2.Response(502) if len(requests) < 3 else ok(), requests=requests)
    busy.ping()
    assert len(requests) == 3
    requests.clear()
    with pytest.raises(SubsonicError, match="status 502"):
        busy.create_playlist("A", ["s1"])
    assert len(requests) == 1


def test_a_server_that_is_away_is_named():
    def away(method: str, form: dict[str, str]) -> Any:
        raise httpx2.ConnectError("Connection refused")

    with pytest.raises(SubsonicError, match=r"cannot be reached \(Connection refused\)\. Check the address"):
        server(away).ping()


def test_an_endless_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr("tonelake.ingest.subsonic.connection.MOST_ANSWER_BYTES", 10_000)
    with pytest.raises(SubsonicError, match="answers with more than"):
        server(lambda method, form: httpx2.Response(200, content=b" " * 20_000)).ping()


def test_a_download_that_ends_early_is_tried_again_from_its_start():
    bodies = [b"RIFF", b"RIFFwhole"]

    def answer(method: str, form: dict[str, str]) -> httpx2.Response:
        body = bodies.pop(0)
        return httpx2.Response(200, content=iter([body]), headers={"content-length": "9", "content-type": "audio/wav"})

    file = io.BytesIO()
    assert server(answer).download("s1", file, most_bytes=100) == 9 and file.getvalue() == b"RIFFwhole"
    bodies += [b"RIFF"] * 3
    with pytest.raises(SubsonicError, match="sends 4 of 9 bytes"):
        server(answer).download("s1", io.BytesIO(), most_bytes=100)


def test_a_user_who_may_not_download_is_sent_the_raw_stream():
    def answer(method: str, form: dict[str, str]) -> Any:
        if method == "download":
            return failed(50, "ada is not authorized")
        assert (method, form["format"]) == ("stream", "raw")
        return httpx2.Response(200, content=b"music", headers={"content-type": "audio/flac"})

    file = io.BytesIO()
    assert server(answer).download("s1", file, most_bytes=100) == 5 and file.getvalue() == b"music"


def test_a_song_that_is_gone_and_a_page_in_place_of_a_file_are_told_apart():
    with pytest.raises(SongGone):
        server(lambda method, form: failed(70)).download("s1", io.BytesIO(), most_bytes=100)
    with pytest.raises(SubsonicError, match="a web page"):
        server(lambda method, form: httpx2.Response(200, html="<p>")).download("s1", io.BytesIO(), most_bytes=100)
