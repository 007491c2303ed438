"""Small files on an object store: conditional writes, stamps, connections and their errors."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from fakes import FakeEncoder, describe_space

from tonelake.store import Lake, LakeError, SpaceMismatch, object_stores
from tonelake.store.blobs import Blobs

Made = TypeVar("Made")


def race(make: Callable[[int], Made], racers: int = 6) -> list[Made]:
    """Call `make` with 0, 1, … on as many threads, which start together."""
    start = threading.Barrier(racers)

    def run(number: int) -> Made:
        start.wait()
        return make(number)

    with ThreadPoolExecutor(racers) as pool:
        return [job.result() for job in [pool.submit(run, number) for number in range(racers)]]


@pytest.fixture
def slow_puts(s3, monkeypatch) -> str:
    """A bucket whose uploads take different times: writers that look before they write all find nothing, and the first one
    reads its own file again before the last one has written."""
    from moto.s3.responses import S3Response

    put_object, uploads = S3Response.put_object, itertools.count(1)

    def put_later(self):
        time.sleep(0.04 * (next(uploads) % 4))
        return put_object(self)

    monkeypatch.setattr(S3Response, "put_object", put_later)
    return s3


def test_of_several_writers_of_one_file_exactly_one_wins(slow_puts):
    files = Blobs(f"{slow_puts}/lake/runs")
    for attempt in range(2):
        wins = race(lambda number, name=f"{attempt}.json": files.write_once(name, str(number)))
        assert wins.count(True) == 1
        assert files.read(f"{attempt}.json") == str(wins.index(True))


def test_processes_that_make_one_lake_at_once_agree_on_its_identity(slow_puts):
    for attempt in range(2):
        lakes = race(lambda _, uri=f"{slow_puts}/lake{attempt}": Lake(uri), racers=4)
        assert len({lake.identity for lake in lakes} | {Lake(lakes[0].uri, create=False).identity}) == 1
        assert lakes[0].identity.split()[0]


def test_a_space_that_two_processes_make_at_once_is_that_of_one_of_them(slow_puts):
    lake = Lake(f"{slow_puts}/lake")
    offered = [describe_space(FakeEncoder(), "fake", 1.0 + number) for number in range(4)]

    def make(number: int) -> bool:
        try:
            return lake.spaces.make(offered[number]) == offered[number]
        except SpaceMismatch:
            return False

    wins = race(make, racers=4)
    assert wins.count(True) == 1
    assert lake.spaces.all() == [offered[wins.index(True)]]


def put_by_lance(uri: str, name: str, text: str) -> None:
    """Write a file as earlier releases did, through Lance's own client."""
    from lance.file import LanceFileSession

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "file").write_text(text)
        LanceFileSession(uri).upload_file(f"{folder}/file", name)


def test_files_that_earlier_releases_wrote_are_found_under_their_names(s3):
    lake = Lake(f"{s3}/lake")
    for name in ["a b.json", "é~.json", "a[0]{1}#?.json", "100%.json", "a&b=c+d.json"]:
        files = lake.files(f"runs/of {name}")
        put_by_lance(files.uri, name, "old")
        assert files.read(name) == "old" and files.names() == [name] and files.stamp(name)
        files.put_text(name, "new")
        assert files.read(name) == "new" and files.names() == [name]
        files.remove(name)
        assert files.names() == []


def test_a_large_file_is_sent_and_fetched_in_parts(s3, monkeypatch):
    monkeypatch.setattr("tonelake.store.object_blobs.PART_BYTES", 5 * 2**20)     # the smallest part that S3 takes
    content = bytes(range(256)) * (6 * 2**20 // 256) + b"end"
    files = Blobs(f"{s3}/lake/maps")
    files.put("a.bin", lambda path: path.write_bytes(content))
    with files.fetched("a.bin") as path:
        assert path is not None and path.read_bytes() == content


def test_a_file_that_cannot_be_prepared_is_not_sent(s3):
    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(LakeError, match=r"cannot be written \(No space left on device\)\. Free some space there"):
        Blobs(f"{s3}/lake").put("a.bin", fail)
    assert Blobs(f"{s3}/lake").names(".bin") == []


def test_a_lake_that_is_not_there_is_not_made_unless_that_is_wanted(s3):
    with pytest.raises(LakeError, match=r"lake: is not a lake\. Make one with `tonelake ingest`"):
        Lake(f"{s3}/lake", create=False)
    assert Blobs(s3).folders() == []
    Lake(f"{s3}/lake")
    assert Lake(f"{s3}/lake", create=False).clips.count() == 0


def test_a_scheme_without_files_is_refused_and_a_file_uri_is_a_path(tmp_path):
    with pytest.raises(LakeError, match=r"memory://lake: no lake can be there. Name a folder, or a URI such as s3://"):
        Lake("memory://lake")
    assert Lake(f"file://{tmp_path}/my%20lake").uri == str(tmp_path / "my lake")


def refusing(code: int, name: str) -> Callable[..., tuple[int, dict[str, str], str]]:
    return lambda self: (code, {}, f"<Error><Code>{name}</Code></Error>")


def test_errors_of_the_store_name_the_file_and_the_remedy(s3, monkeypatch):
    from moto.s3.responses import S3Response

    for fails in (lambda files: files.read("a.json"), lambda files: files.put_text("a.json", ""), lambda files: files.names()):
        with pytest.raises(LakeError, match=r"s3://absent/lake.*: the bucket 'absent' does not exist\. Create it, or choose"):
            fails(Blobs("s3://absent/lake"))
    with monkeypatch.context() as patch:
        patch.setattr(S3Response, "put_object", refusing(403, "SignatureDoesNotMatch"))
        with pytest.raises(LakeError, match=r"lake/a.json: access is denied \(SignatureDoesNotMatch\)\. Set AWS_ACCESS_KEY_ID"):
            Blobs(f"{s3}/lake").put_text("a.json", "")
        patch.setattr(S3Response, "put_object", refusing(400, "EntityTooLarge"))
        with pytest.raises(LakeError, match=r"lake/a.json: the object store gives an error \(EntityTooLarge\)\. Check the URI"):
            Blobs(f"{s3}/lake").put_text("a.json", "")
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(LakeError, match=r"not an https address\. Set AWS_ALLOW_HTTP=true"):
        Lake(f"{s3}/lake")


def test_a_wrong_endpoint_is_reported_within_seconds(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(LakeError, match=r"lake.json: http://127.0.0.1:9 cannot be reached\. Check the network"):
        Lake(f"{s3}/lake")
    assert time.monotonic() - started < 8


def test_missing_credentials_are_reported(s3, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(object_stores, "FIRST_RETRIES", 0)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
        with pytest.raises(LakeError, match=r"there are no credentials\. Set AWS_ACCESS_KEY_ID and AWS_SECRET"):
            Blobs(f"{s3}/lake").read("a.json")
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(LakeError, match=r"az://music: there are no credentials\. Set AZURE_STORAGE_ACCOUNT_NAME"):
        Blobs("az://music/lake").read("a.json")


def test_keys_and_region_come_from_a_profile_as_they_do_for_tables(s3, monkeypatch, tmp_path):
    from moto.s3.responses import S3Response

    put_object, signed = S3Response.put_object, []

    def put_seen(self):
        signed.append(self.headers["Authorization"])
        return put_object(self)

    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("[studio]\naws_access_key_id = KEYOFSTUDIO\naws_secret_access_key = %s\n")
    (tmp_path / ".aws/config").write_text("[profile studio]\nregion = eu-central-1\n")
    monkeypatch.setattr(S3Response, "put_object", put_seen)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_PROFILE", "studio")
    Blobs(f"{s3}/lake").put_text("a.json", "1")
    assert len(signed) == 1 and "KEYOFSTUDIO/" in signed[0] and "/eu-central-1/s3/" in signed[0]
    (tmp_path / ".aws/credentials").unlink()
    (tmp_path / ".aws/config").write_text("[profile studio]\nsso_session = studio\n")
    monkeypatch.setattr(object_stores, "find_spec", lambda name: None)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")         # other options, so it connects again
    with pytest.raises(LakeError, match=r"profile 'studio' of ~/.aws: has no keys of its own\. Install boto3"):
        Blobs(f"{s3}/lake").read("a.json")


def test_the_region_of_an_amazon_bucket_is_requested(s3, s3_server, monkeypatch):
    monkeypatch.setattr(object_stores, "REGION_HOST", s3_server)
    assert object_stores.s3_config(s3.removeprefix("s3://"), {}) == {"region": "us-east-1"}
    assert object_stores.s3_config("music--use1-az4--x-s3", {"AWS_REGION": "us-east-1"}) == {"s3_express": True}
    monkeypatch.setattr(object_stores, "REGION_HOST", "http://127.0.0.1:9")
    assert object_stores.bucket_region("unreachable") is None
