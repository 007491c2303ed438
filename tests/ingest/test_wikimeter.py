"""A catalogue of songs, downloaded by yt-dlp from a local server with the faults of real ones."""

from __future__ import annotations

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sounds import encode, melody
from typer.testing import CliRunner

from tonelake import ingest
from tonelake.cli import app
from tonelake.ingest import download
from tonelake.ingest.datasets import wikimeter
from tonelake.store import InputError

SONGS = ("good", "cut", "busy", "damaged", "second")


class Server(ThreadingHTTPServer):
    """Serves `files`, with ranges; the first word of a name selects a fault."""

    daemon_threads = True

    def __init__(self, files):
        self.files, self.asked, self.served = files, Counter(), Counter()
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, name):
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        name = self.path.lstrip("/")
        self.server.asked[name] += 1
        if name.startswith("missing"):
            return self.error(404)
        if name.startswith("busy") and self.server.asked[name] <= 2:
            return self.error(429)
        data = self.server.files.get(name)
        if data is None:
            return self.error(404)
        first = 0
        if "Range" in self.headers:
            first = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("Content-Type", "text/html" if name.startswith("page") else "audio/mpeg")
        self.send_header("Content-Length", str(len(data) - first))
        self.send_header("Accept-Ranges", "bytes")
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return None
        self.server.served[name] += 1
        if name.startswith("cut") and self.server.served[name] <= 2:
            self.wfile.write(data[first : first + 40_000])
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
            return None
        self.wfile.write(data[first:])
        return None

    def error(self, code):
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(autouse=True)
def allow_local_server(monkeypatch):
    """Allow the local server of these tests; otherwise only public addresses are allowed (tests/tonelake/test_security.py)."""
    monkeypatch.setattr(download, "check_public", lambda url: None)


def song_files(folder, *names):
    """The bytes of a song of 45 seconds for each name."""
    return {
        f"{name}.mp3": encode(
            folder / f"{name}.mp3", melody(45, seed=SONGS.index(name), rate=22_050), rate=22_050, bit_rate=64_000
        ).read_bytes()
        for name in names
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    made = song_files(folder, "good")
    made["short.mp3"] = encode(folder / "short.mp3", melody(25, seed=9, rate=22_050), rate=22_050).read_bytes()
    made["page.mp3"] = b"<html><body>Please log in</body></html>"
    made["noise.mp3"] = bytes(range(256)) * 400
    return made


@pytest.fixture
def server(files):
    served = Server(dict(files))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def song(title, *urls, meters=None, **more):
    sources = [{"type": "wikimedia", "url": url} for url in urls]
    return {"artist": "Ada", "title": title, "meters": meters or {"5": 1.0}, "sources": sources} | more


def listed(tmp_path, *songs):
    path = tmp_path / "wikimeter.json"
    path.write_text(json.dumps(list(songs)))
    return path


def run(lake, path, **how):
    waited = []
    report = ingest.ingest_catalogue(lake, path, accept_terms=True, workers=1, sleep=waited.append, **how)
    return report, waited


@pytest.mark.slow
def test_downloads_are_complete_failures_are_recorded_and_a_second_run_downloads_only_missing_songs(
    lake, tmp_path, server
):
    server.files |= song_files(tmp_path, *SONGS[1:])
    path = listed(
        tmp_path, song("Good", server.url("good.mp3"), meters={"3": 0.8, "4": 0.7}), song("Cut", server.url("cut.mp3")),
        song("Missing", server.url("missing.mp3")), song("Busy", server.url("busy.mp3")), song("Page", server.url("page.mp3")),
        song("Noise", server.url("noise.mp3")), song("Damaged", server.url("damaged.mp3")),
        song("Second", server.url("missing2.mp3"), server.url("second.mp3")), song("Short", server.url("short.mp3")),
    )
    folder = tmp_path / "wikimeter-audio"
    folder.mkdir()
    name = download.file_name(server.url("damaged.mp3"))
    (folder / f"{name}.mp3.part").write_bytes(b"\x00\x55" * 60_000)          # a damaged part of an earlier run
    report, waited = run(lake, path)
    clips = lake.clips.read()
    assert sorted(clips["track"].unique()) == ["ada_busy", "ada_cut", "ada_damaged", "ada_good", "ada_second"]
    assert report.recordings == 9 and report.failed == 4 and max(waited) >= download.FIRST_WAIT_S     # after status 429
    errors = {row["source"]: row["error"] for row in lake.failures.read().to_dicts()}
    assert set(errors) == {server.url(f"{n}.mp3") for n in ("missing", "page", "noise", "short")}
    assert "404" in errors[server.url("missing.mp3")] and "too short" in errors[server.url("short.mp3")]
    for stored, original in (("cut", "cut.mp3"), ("damaged", "damaged.mp3")):
        source = clips.filter(track=f"ada_{stored}")["source"][0]
        with open(source, "rb") as file:  # noqa: PTH123
            assert file.read() == server.files[original]
    good = clips.filter(track="ada_good").sort("start_s").to_dicts()
    assert [(row["start_s"], round(row["duration_s"])) for row in good] == [(10.0, 25)]
    labels = [good[0][name] for name in ("meters", "meter", "label", "alt_meter")]
    assert labels == [["3", "4"], "3:0.8,4:0.7", "three", "6"]
    table = (folder / "data_wikimeter.tab").read_text().splitlines()
    assert table[:2] == ["filename\tlabel\tmeter\talt_meter", '"/WIKIMETER/ada_good_seg00.mp3"\t"three"\t3:0.8,4:0.7\t6']
    assert len(table) == 6

    before = Counter(server.asked)
    server.files["missing.mp3"] = server.files["good.mp3"][:100]
    again, _ = run(lake, path)
    asked = {name for name in server.asked if server.asked[name] > before[name]}
    assert asked <= {"missing.mp3", "missing2.mp3", "page.mp3", "noise.mp3"}
    assert again.added.new == 0 and again.added.known == len(clips)


def test_the_failure_of_a_song_is_cleared_once_it_is_available(lake, tmp_path, server):
    path = listed(tmp_path, song("Later", server.url("later.mp3")))
    report, _ = run(lake, path)
    assert report.failed == 1 and len(lake.failures.read()) == 1
    server.files["later.mp3"] = server.files["good.mp3"]
    report, _ = run(lake, path)
    assert report.failed == 0 and len(lake.failures.read()) == 0 and report.added.new == 1


def test_a_deleted_file_is_downloaded_again_and_a_truncated_log_is_read(lake, tmp_path, server):
    path = listed(tmp_path, song("Good", server.url("good.mp3")))
    run(lake, path)
    folder = tmp_path / "wikimeter-audio"
    next(folder.glob("*.mp3")).unlink()
    with (folder / "ledger.jsonl").open("a") as log:
        log.write('{"url": "http://')                         # a power failure
    run(lake, path)
    assert len(list(folder.glob("*.mp3"))) == 1 and server.served["good.mp3"] >= 2


def test_nothing_is_downloaded_before_the_terms_are_accepted(tmp_path, server):
    path = listed(tmp_path, song("Good", server.url("good.mp3")))
    done = CliRunner().invoke(app, ["ingest", "catalogue", str(path), "--lake", str(tmp_path / "lake")])
    assert done.exit_code != 0 and "--accept-terms" in str(done.exception or done.output)
    assert not server.asked


@pytest.mark.parametrize(("entry", "complaint"), [
    ({"title": "x", "meters": {"3": 1}, "sources": [{"url": "http://a/b"}]}, "artist"),
    (song("x", "http://a/b", meters={"three": 1}), "three"),
    (song("x", "http://a/b", meters={"3": 0}), "weight"),
    (song("x", "file:///etc/passwd"), "not an http or https URL"),
    (song("x"), "no sources"),
    (song("x") | {"video_id": "../../etc"}, "video id"),
    ("x", "song 2"),
])
def test_an_invalid_entry_is_named_before_any_download(tmp_path, entry, complaint):
    with pytest.raises(InputError, match=complaint):
        wikimeter.read_catalogue(listed(tmp_path, song("first", "http://a/b"), entry))


def test_both_forms_of_a_source_are_read(tmp_path):
    old = {"artist": "A", "title": "B", "meters": {"7": 1}, "video_id": "abcdefghijk"}
    new = song("C") | {"sources": [{"type": "youtube", "video_id": "-_cdefghijk"}], "trim": {"start": 5, "end": 100}}
    songs = wikimeter.read_catalogue(listed(tmp_path, old, new))
    assert [s.urls for s in songs] == [
        ("https://www.youtube.com/watch?v=abcdefghijk",), ("https://www.youtube.com/watch?v=-_cdefghijk",),
    ]
    assert (songs[1].start_s, songs[1].end_s) == (5.0, 100.0)
    with pytest.raises(InputError, match="listed twice"):
        wikimeter.read_catalogue(listed(tmp_path, old, old))


def test_segments_follow_the_rule():
    """Ten seconds are left out at both ends; at most five segments of 35 s, the last one of 15 s or more."""
    for duration_s in range(20, 400, 7):
        found = wikimeter.segments(float(duration_s))
        assert len(found) <= 5 and all(15 <= length <= 35 for _, length in found)
        assert all(start >= 10 and start + length <= duration_s - 10 for start, length in found)
        assert bool(found) == (duration_s >= 35)
    assert wikimeter.segments(200.0, 20.0, 90.0) == [(30.0, 35.0), (65.0, 15.0)]
