"""Access to the service: the token, names of the host, and facts that no answer reveals."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tonelake.ingest import AudioError
from tonelake.serve.access import allowed_hosts, is_readable_by_others, read_token
from tonelake.serve.answers import Answers
from tonelake.serve.app import create_app
from tonelake.serve.errors import sentence_of, status_of
from tonelake.store import ClipNotFound, FilterError, InputError, LakeError, SpaceMismatch, SpaceNotFound

TOKEN = "a-secret-of-this-test"


@pytest.fixture(scope="module")
def guarded(filled) -> TestClient:
    return TestClient(create_app(Answers(filled.uri), token=TOKEN))


@pytest.fixture(scope="module")
def local(filled) -> TestClient:
    app = create_app(Answers(filled.uri), hosts=allowed_hosts("127.0.0.1", None))
    return TestClient(app, base_url="http://127.0.0.1:8600")


@pytest.mark.parametrize("header", [
    None, "", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer \xe4\xf6",
])
def test_answers_need_the_token(guarded, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for address in ("/v1/songs", "/v1/songs/x/audio", "/v1/nothing", "/api/similar_tracks?item_id=x"):
        answer = guarded.get(address, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer", address
        assert "Authorization: Bearer TOKEN" in answer.json()["error"] and TOKEN not in answer.text


def test_the_token_opens_the_answers(guarded):
    for scheme in ("Bearer", "bearer"):
        assert guarded.get("/v1/songs", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200
    assert guarded.get(f"/v1/songs?token={TOKEN}").status_code == 401          # addresses are kept in logs and histories


def test_the_description_is_public_and_says_how_to_log_in(guarded):
    assert guarded.get("/docs").status_code == 200
    described = guarded.get("/openapi.json").json()
    assert described["components"]["securitySchemes"] == {"token": {"type": "http", "scheme": "bearer"}}


def test_other_names_of_the_host_are_refused_on_loopback(local):
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8600", ""):
        assert local.get("/v1/songs", headers={"Host": host}).status_code == 400, host
    for host in ("127.0.0.1:8600", "localhost:8600", "LOCALHOST", "[::1]:8600"):
        assert local.get("/v1/songs", headers={"Host": host}).status_code == 200, host


def test_behind_a_proxy_the_token_replaces_the_guard_of_names():
    assert allowed_hosts("127.0.0.1", TOKEN) == allowed_hosts("0.0.0.0", TOKEN) == ["*"]


def test_no_answer_can_be_read_by_a_page_of_another_site(local):
    answer = local.get("/v1/songs", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


# -- where the token comes from


def test_a_token_is_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("TONELAKE_TOKEN", raising=False)
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file, host="0.0.0.0") == TOKEN
    assert read_token(None, host="127.0.0.1") is None
    monkeypatch.setenv("TONELAKE_TOKEN", f"{TOKEN}-2")
    assert read_token(None, host="127.0.0.1") == f"{TOKEN}-2" and read_token(file, host="127.0.0.1") == TOKEN


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "nas.local"])
def test_other_machines_are_let_in_only_with_a_token(monkeypatch, host):
    monkeypatch.delenv("TONELAKE_TOKEN", raising=False)
    with pytest.raises(InputError, match=r"a token is needed\. Make one with"):
        read_token(None, host=host)


@pytest.mark.parametrize("content", [
    b"", b"short", b"two words of a token", b"x" * 600, "ünïcödé-token-1234".encode(), b"\xff\xfe" * 20,
])
def test_what_is_no_token_is_refused(tmp_path, content):
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"token file .*(not a token|cannot be read)"):
        read_token(file, host="127.0.0.1")
    with pytest.raises(InputError, match="cannot be read"):
        read_token(tmp_path / "none", host="127.0.0.1")


def test_a_token_that_others_can_read_is_noticed(tmp_path):
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    assert is_readable_by_others(file)
    file.chmod(0o600)
    assert not is_readable_by_others(file)


# -- errors


def test_errors_have_the_status_of_their_kind():
    kinds = {
        400: (InputError("x"), FilterError("x")), 404: (ClipNotFound("x"), SpaceNotFound("x"), AudioError("x")),
        503: (LakeError("x"), SpaceMismatch("x")),
    }
    assert all(status_of(error) == status for status, errors in kinds.items() for error in errors)


@pytest.mark.parametrize("place", [
    "/home/ada/Music/one.flac", "~/Music", "'/srv/lake'", "file:///home/ada/x", r"C:\Users\ada\x.mp3", "/", "/mnt/é/x y.mp3",
])
def test_a_sentence_never_names_a_path(place):
    said = sentence_of(InputError(f"song {place}: is gone"))
    assert not any(part in said for part in ("home", "ada", "srv", "Users", "Music", "mnt")), said
    assert "/srv" not in sentence_of(LakeError("/srv/lake: is not a lake"))
