"""The sound of songs over HTTP: the bytes of the file, ranges of them, and a WAV file of what a browser cannot play."""

from __future__ import annotations

import io
import os

import polars as pl
import pytest
import soundfile as sf
from sounds import melody, write
from starlette.testclient import TestClient

import tonelake
from tonelake.ingest import ingest_folder, to_path
from tonelake.serve.answers import Answers
from tonelake.serve.app import create_app
from tonelake.store import Lake

NAMES = ("one.flac", "two.wav", "three.aiff")


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    """A folder of three songs in different formats, and the lake of it."""
    folder = tmp_path_factory.mktemp("sounds")
    for number, name in enumerate(NAMES):
        write(folder / "music" / name, melody(1.5, seed=number, rate=8_000), 8_000, tags={"title": name.split(".")[0]})
    lake = tonelake.open(folder / "lake", progress=False)
    ingest_folder(lake, folder / "music", seconds=None)
    return folder, lake


@pytest.fixture(scope="module")
def client(music):
    return TestClient(create_app(Answers(music[1].uri)), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def ids(client) -> dict[str, str]:
    return {row["title"]: row["id"] for row in client.get("/v1/songs").json()["rows"]}


@pytest.mark.parametrize(("title", "name", "kind"), [("one", "one.flac", "audio/flac"), ("two", "two.wav", "audio/wav")])
def test_a_file_is_sent_as_it_is(client, music, ids, title, name, kind):
    answer = client.get(f"/v1/songs/{ids[title]}/audio")
    assert answer.status_code == 200 and answer.headers["content-type"] == kind and answer.headers["accept-ranges"] == "bytes"
    assert answer.content == (music[0] / "music" / name).read_bytes()


@pytest.mark.parametrize("span", ["0-", "0-0", "10-99", "100-99999999", "-50", "-99999999"])
def test_a_range_is_that_part_of_the_file(client, music, ids, span):
    whole = (music[0] / "music" / "one.flac").read_bytes()
    answer = client.get(f"/v1/songs/{ids['one']}/audio", headers={"Range": f"bytes={span}"})
    first, _, last = span.partition("-")
    expected = whole[int(first): int(last) + 1 if last else None] if first else whole[-int(last):]
    assert answer.status_code == 206 and answer.content == expected
    start = int(first) if first else max(0, len(whole) - int(last))
    assert answer.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/{len(whole)}"


@pytest.mark.parametrize("span", ["99999999-", "-0", "5-4"])
def test_a_range_outside_the_file_is_416(client, music, ids, span):
    answer = client.get(f"/v1/songs/{ids['one']}/audio", headers={"Range": f"bytes={span}"})
    size = (music[0] / "music" / "one.flac").stat().st_size
    assert answer.status_code == 416 and answer.headers["content-range"] == f"bytes */{size}"
    assert "outside the sound" in answer.json()["error"]


@pytest.mark.parametrize("header", ["bytes=", "bytes=a-b", "lines=1-2", "bytes=0-1,4-5", "bytes=-", "x" * 500])
def test_a_range_that_is_none_or_several_gives_the_whole(client, ids, header):
    assert client.get(f"/v1/songs/{ids['one']}/audio", headers={"Range": header}).status_code == 200


def test_head_has_the_headers_and_no_body(client, music, ids):
    answer = client.head(f"/v1/songs/{ids['one']}/audio")
    size = (music[0] / "music" / "one.flac").stat().st_size
    assert answer.status_code == 200 and not answer.content and answer.headers["content-length"] == str(size)
    part = client.head(f"/v1/songs/{ids['one']}/audio", headers={"Range": "bytes=0-9"})
    assert part.status_code == 206 and part.headers["content-length"] == "10"


def test_a_client_that_holds_another_version_gets_the_whole(client, music, ids):
    address, file = f"/v1/songs/{ids['two']}/audio", music[0] / "music" / "two.wav"
    tag = client.get(address).headers["etag"]
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
    part = {"Range": "bytes=0-9"}
    assert client.get(address, headers=part | {"If-Range": tag}).status_code == 206
    os.utime(file, ns=(1, 1))
    assert client.get(address, headers=part | {"If-Range": tag}).status_code == 200
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 200


def test_what_browsers_cannot_play_is_decoded_to_wav(client, ids):
    address = f"/v1/songs/{ids['three']}/audio"
    answer = client.get(address)
    samples, rate = sf.read(io.BytesIO(answer.content))
    assert answer.headers["content-type"] == "audio/wav" and rate == 24_000 and len(samples) == 36_000
    assert abs(samples).max() > 0.1
    part = client.get(address, headers={"Range": "bytes=1000-1999"})
    assert part.status_code == 206 and part.content == answer.content[1000:2000]
    assert client.head(address).headers["content-length"] == str(len(answer.content))


def test_wav_is_made_of_any_file_on_request(client, ids):
    answer = client.get(f"/v1/songs/{ids['one']}/audio", params={"wav": True})
    assert answer.headers["content-type"] == "audio/wav" and answer.content[:4] == b"RIFF"


def test_a_file_that_is_gone_is_404_without_its_path_and_a_copy_is_sent_instead(client, music, ids):
    file = music[0] / "music" / "one.flac"
    moved = file.rename(file.with_name("moved.flac"))
    try:
        answer = client.get(f"/v1/songs/{ids['one']}/audio")
        assert answer.status_code == 404 and str(music[0]) not in answer.text and "gone" in answer.json()["error"]
        ingest_folder(music[1], music[0] / "music", seconds=None)                # as another process does
        assert client.get(f"/v1/songs/{ids['one']}/audio").content == moved.read_bytes()
    finally:
        moved.rename(file)


def test_a_file_that_cannot_be_decoded_is_404(client, music, ids):
    file = music[0] / "music" / "three.aiff"
    whole = file.read_bytes()
    file.write_bytes(b"not audio")
    try:
        answer = client.get(f"/v1/songs/{ids['three']}/audio", headers={"Range": "bytes=0-"}, params={"wav": True})
        assert answer.status_code in (200, 206, 404)         # 200: its blocks are still known
    finally:
        file.write_bytes(whole)


def test_only_songs_of_the_lake_have_a_sound(client, music):
    (music[0] / "secret.txt").write_text("secret")
    for wrong in ("..%2F..%2Fsecret.txt", "%2Fetc%2Fpasswd", str(music[0] / "secret.txt"), "file:%2F%2F%2Fetc%2Fpasswd"):
        answer = client.get(f"/v1/songs/{wrong}/audio")
        assert answer.status_code == 404 and "not in this lake" in answer.json()["error"], wrong


def test_a_song_that_only_a_music_server_has_is_sent_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_CACHE", str(tmp_path / "cache"))
    lake, source = Lake(tmp_path / "lake"), "subsonic:http://music.example/tr-1"
    row = {"clip_id": "5" * 20, "track": "t", "source": source, "digest": "d", "start_s": 0.0, "duration_s": 1.0}
    lake.clips.add(pl.DataFrame([row | {"title": "Away"}]))
    client = TestClient(create_app(Answers(lake.uri)), raise_server_exceptions=False)
    gone = client.get(f"/v1/songs/{row['clip_id']}/audio")
    assert gone.status_code == 404 and "music server" in gone.json()["error"] and "music.example" not in gone.text
    kept = write(tmp_path / "song.flac", melody(1.0, rate=8_000), 8_000).read_bytes()
    to_path(source).parent.mkdir(parents=True)
    to_path(source).write_bytes(kept)
    answer = client.get(f"/v1/songs/{row['clip_id']}/audio", headers={"Range": "bytes=0-99"})
    assert answer.status_code == 206 and answer.headers["content-type"] == "audio/flac" and answer.content == kept[:100]
