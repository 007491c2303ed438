"""Leases on folders of an object store: who holds one, how it ends, and what a holder that lost it is kept from."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tonelake.store import InputError, LakeError, lease
from tonelake.store.blobs import LOCK, Blobs
from tonelake.store.lease import Holder
from tonelake.store.object_blobs import ObjectBlobs

HOME = Path(__file__).resolve().parents[2]
HELD = Holder(owner="process 7 on studio", since="2026-03-01 12:00:00 UTC", token="of another", length_s=60.0)


@pytest.fixture
def files(s3) -> Blobs:
    return Blobs(f"{s3}/lake/runs/one")


def stored_holder(files: Blobs) -> Holder:
    return Holder(**json.loads(files.read(LOCK) or ""))


def later(monkeypatch, seconds: float) -> None:
    """Set the clock of the store forward."""
    clock = ObjectBlobs.clock
    monkeypatch.setattr(ObjectBlobs, "clock", lambda self, name: clock(self, name) + timedelta(seconds=seconds))


def test_one_run_at_a_time_holds_a_folder_and_the_next_one_follows_at_once(files):
    with files.locked("run 'one': is being trained"):
        held = rf"being trained\. Held by process {os.getpid()} on .* since 20.* UTC; if that process was killed, free from"
        with pytest.raises(InputError, match=held), Blobs(files.uri).locked("run 'one': is being trained"):
            pass
        with Blobs(f"{files.uri}-b").locked("busy"):
            pass
        assert files.names() == [] and files.folders() == []
    with Blobs(files.uri).locked("busy"):
        pass
    assert stored_holder(files).released and Blobs(files.uri).names("") == [LOCK]        # the store's clock left no file


def test_a_lease_that_was_not_renewed_is_taken_over(files, monkeypatch):
    assert ObjectBlobs(files.uri).create(LOCK, HELD.to_json())
    held = r"busy\. Held by process 7 on studio since 2026-03-01 12:00:00 UTC"
    with pytest.raises(InputError, match=held), files.locked("busy"):
        pass
    later(monkeypatch, 59)
    with pytest.raises(InputError, match="busy"), files.locked("busy"):
        pass
    later(monkeypatch, 3)
    with files.locked("busy"):
        assert stored_holder(files).token != HELD.token
    assert stored_holder(files).released


@pytest.mark.parametrize("content", ["[", "{}", '{"owner": "a", "since": "b", "token": "c", "length_s": 1e300}', "[1]"])
def test_a_damaged_lease_lapses_too(files, monkeypatch, content):
    files.put_text(LOCK, content)
    with pytest.raises(InputError, match=r"busy\. Held by an unknown process"), files.locked("busy"):
        pass
    later(monkeypatch, 62)
    with files.locked("busy"):
        pass


def test_a_lease_is_renewed_while_it_is_held(files, monkeypatch):
    monkeypatch.setattr(lease, "LENGTH_S", 0.2)
    with files.locked("busy"):
        deadline = time.monotonic() + 10
        while stored_holder(files).renewals < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert stored_holder(files).renewals >= 2
        files.put_text("a.json", "1")
    assert files.read("a.json") == "1"


def test_a_paused_run_whose_lease_was_taken_over_writes_nothing_more(files, monkeypatch, caplog):
    files.put_text("metrics.json", "before")
    with files.locked("busy"):
        files.put_text("config.yaml", "mine")
        Blobs(files.uri).put_text(LOCK, HELD.to_json().decode())         # as another process does after a long pause
        monkeypatch.setattr(lease, "elapsed_s", lambda since: 61.0)
        for write in (lambda: files.put_text("metrics.json", "mine"), lambda: files.write_once("b", "mine"),
                      lambda: files.remove("metrics.json")):
            with pytest.raises(LakeError, match="runs/one: another process took over its lease while this one was paused"):
                write()
    assert files.read("metrics.json") == "before" and stored_holder(files) == HELD
    assert "another process took over the lease" in caplog.text


def test_a_paused_run_that_no_other_process_took_over_continues(files, monkeypatch):
    with files.locked("busy"):
        monkeypatch.setattr(lease, "elapsed_s", lambda since: 61.0)
        files.put_text("metrics.json", "1")
        assert stored_holder(files).renewals == 1
        # A renewal that was written, but whose answer was lost.
        Blobs(files.uri).put_text(LOCK, dataclasses.replace(stored_holder(files), renewals=5).to_json().decode())
        files.put_text("metrics.json", "2")
        assert stored_holder(files).renewals == 6
    assert files.read("metrics.json") == "2" and stored_holder(files).released


@pytest.mark.parametrize("store", ["refuses", "ignores", "is configured without"])
def test_a_store_without_conditional_writes_works_with_a_warning(s3, files, monkeypatch, caplog, store):
    from moto.s3.responses import S3Response

    from tonelake.store import object_stores

    put_object = S3Response.put_object

    def put(self):
        conditions = [name for name in ("If-None-Match", "If-Match") if name in self.headers]
        if store == "refuses" and conditions:
            return 501, {}, "<Error><Code>NotImplemented</Code></Error>"
        self.headers = {name: value for name, value in self.headers.items() if name not in conditions}
        return put_object(self)

    monkeypatch.setattr(S3Response, "put_object", put)
    monkeypatch.setattr(object_stores, "FIRST_RETRIES", 0)
    if store == "is configured without":
        monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    for _ in range(2):
        with files.locked("busy"), Blobs(files.uri).locked("busy"):
            assert files.write_once("a.json", "1") or _
    assert not files.write_once("a.json", "2") and files.read("a.json") == "1"
    assert [record.message for record in caplog.records] == [
        f"{s3}: has no conditional writes, so two equal runs may work at once. Let one process write at a time"
    ]


@pytest.mark.slow
def test_the_lease_of_a_killed_process_lapses_by_itself(files):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import time\nfrom tonelake.store import Blobs, lease\nlease.LENGTH_S = 2.0\n"
         f"with Blobs({files.uri!r}).locked(''):\n    print('in', flush=True)\n    time.sleep(60)\n"],
        stdout=subprocess.PIPE, text=True, cwd=HOME,
    )
    try:
        assert holder.stdout.readline() == "in\n"
        time.sleep(4)                    # longer than the lease, which its holder renews
        with pytest.raises(InputError, match=rf"busy\. Held by process {holder.pid} on"), files.locked("busy"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    deadline = time.monotonic() + 6
    while True:
        try:
            with files.locked("busy"):
                break
        except InputError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
