"""A file with the stamp that it had when it was read is not read again; every change of its bytes is noticed."""

from __future__ import annotations

import os

import pytest
from sounds import melody, write

from tonelake import ingest
from tonelake.ingest import ingest_folder, ingest_manifest
from tonelake.ingest.decoder_pool import DecoderPool
from tonelake.store import Added, silent_progress
from tonelake.verify import verify

pytestmark = pytest.mark.usefixtures("old")


@pytest.fixture
def old(monkeypatch):
    """Trust the stamps of files that were just written."""
    monkeypatch.setattr(ingest.file_stamps, "COARSE_NS", 0)


@pytest.fixture
def asked(monkeypatch):
    """The tasks that decoder processes were given."""
    found, original = [], DecoderPool._ask
    monkeypatch.setattr(DecoderPool, "_ask", lambda self, request: found.append(request["do"]) or original(self, request))
    return found


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        write(tmp_path / "music" / f"{number}.wav", melody(5, seed=number))
    return tmp_path / "music"


def rerun(lake, folder, asked, **options):
    asked.clear()
    return ingest_folder(lake, folder, seconds=2.0, **options).added


def test_a_second_run_reads_no_file_and_updates_labels(lake, folder, asked, tmp_path):
    assert rerun(lake, folder, asked) == Added(new=9) and asked == ["scan"] * 3
    before = lake.clips.read()
    assert rerun(lake, folder, asked) == Added(known=9) and asked == []
    assert lake.clips.read().equals(before)
    (tmp_path / "l.csv").write_text("stem,mood\n1,calm\n")
    assert rerun(lake, folder, asked, labels=tmp_path / "l.csv") == Added(known=6, changed=3) and asked == []
    write(folder / "3.wav", melody(5, seed=3))
    assert rerun(lake, folder, asked) == Added(known=9, new=3) and asked == ["identify", "scan"]


def test_changed_bytes_are_noticed_although_size_and_time_are_set_back(lake, folder, asked):
    rerun(lake, folder, asked)
    path = folder / "1.wav"
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-1000:] = bytes(1000)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert rerun(lake, folder, asked) == Added(known=6, new=3) and asked == ["identify", "scan"]
    assert len(lake.clips.superseded()) == 3
    assert rerun(lake, folder, asked) == Added(known=9) and asked == []


def test_a_missing_file_is_a_failure_until_it_is_restored(lake, folder, asked, tmp_path):
    (tmp_path / "m.csv").write_text("path,start,seconds\nmusic/0.wav,0,2\nmusic/1.wav,1,2\n")
    assert ingest_manifest(lake, tmp_path / "m.csv").added == Added(new=2)
    (folder / "0.wav").rename(folder / "away.wav")
    assert ingest_manifest(lake, tmp_path / "m.csv").failed == 1
    (folder / "away.wav").rename(folder / "0.wav")
    report = ingest_manifest(lake, tmp_path / "m.csv")
    assert (report.failed, report.added) == (0, Added(known=1, changed=1)) and lake.failures.read().is_empty()


def test_a_file_that_changed_seconds_ago_is_read_once_more(lake, folder, asked, monkeypatch):
    monkeypatch.setattr(ingest.file_stamps, "COARSE_NS", 3_000_000_000)
    rerun(lake, folder, asked)
    assert rerun(lake, folder, asked) == Added(known=9) and asked == ["identify"] * 3
    monkeypatch.setattr(ingest.file_stamps, "COARSE_NS", 0)
    rerun(lake, folder, asked)
    assert rerun(lake, folder, asked) == Added(known=9) and asked == []


def test_a_file_whose_time_changed_is_read_and_not_decoded(lake, folder, asked):
    rerun(lake, folder, asked)
    os.utime(folder / "1.wav")
    assert rerun(lake, folder, asked) == Added(known=9) and asked == ["identify"]
    assert rerun(lake, folder, asked) == Added(known=9) and asked == []


def test_an_interrupted_run_keeps_the_files_that_it_read(lake, folder, asked):
    def stop(items, total, label):
        for number, item in enumerate(items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    lake.progress = stop
    with pytest.raises(KeyboardInterrupt):
        ingest_folder(lake, folder, seconds=2.0, workers=1)
    lake.progress = silent_progress
    added = rerun(lake, folder, asked)
    assert (added.known, added.new) == (6, 3) and asked.count("scan") == 1 and asked.count("identify") <= 1


def test_bytes_changed_by_a_failing_disk_are_read_again_after_verify_found_them(lake, folder, asked, monkeypatch):
    rerun(lake, folder, asked)
    changed, stamp = folder / "2.wav", ingest.file_stamps.stamp_of(str(folder / "2.wav"))
    changed.write_bytes(changed.read_bytes()[:-1000] + bytes(1000))
    real = ingest.file_stamps.stamp_of
    monkeypatch.setattr(ingest.file_stamps, "stamp_of", lambda source: stamp if source == str(changed) else real(source))
    monkeypatch.setattr(ingest.recordings, "stamp_of", ingest.file_stamps.stamp_of)
    assert rerun(lake, folder, asked) == Added(known=9) and asked == []
    assert verify(lake, digests=True)["what"].to_list() == ["sources"]
    assert rerun(lake, folder, asked) == Added(known=9) and asked == []
    verify(lake, digests=True, repair=True)
    assert rerun(lake, folder, asked) == Added(known=6, new=3)


def test_stamps_are_kept_on_an_object_store(s3, folder, asked):
    from tonelake.store import Lake

    lake = Lake(f"{s3}/lake")
    assert rerun(lake, folder, asked) == Added(new=9)
    assert rerun(Lake(f"{s3}/lake"), folder, asked) == Added(known=9) and asked == []
