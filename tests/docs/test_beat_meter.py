"""The page docs/experiments/beat-meter.md from data to result, on tiny data served by this machine."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from experiment_pages import run_page
from sounds import encode, melody, write

import tonelake
from tonelake.ingest import download
from tonelake.ingest.datasets import wikimeter

PUBLIC = "93.184.216.34"
WORDS = {3: "three", 4: "four", 5: "five", 7: "seven"}


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; `/moved` redirects to a host of the local network, and `/page` embeds audio from there."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        inner = f"http://intranet.example:{self.server.server_address[1]}/secret.mp3"
        if self.path == "/moved.mp3":
            self.send_response(302)
            self.send_header("Location", inner)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/page.html":
            content = f"<html><body><audio src='{inner}'></audio></body></html>".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            with contextlib.suppress(ConnectionError):               # a client that has seen enough
                super().do_GET()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site whose name leads to a public address when it is checked, and to this machine when it is connected to."""
    folder = tmp_path / "site"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    known = socket.getaddrinfo

    def resolve(host, port, *args, **kwargs):
        if str(host).endswith(".example"):
            if port is not None:
                return known("127.0.0.1", port, *args, **kwargs)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1" if host.startswith("intranet") else PUBLIC, 0))]
        return known(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(wikimeter, "PAUSE_S", 0.0)
    yield folder, f"http://music.example:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def make_meter2800(folder):
    """Four clips of each of four meters in train, two in val and in test, as tables and audio."""
    number = 0
    for side, count in (("train", 4), ("val", 2), ("test", 2)):
        lines = ["filename,label,meter,alt_meter"]
        for meter, word in WORDS.items():
            for _ in range(count):
                write(folder / "audio" / "FMA" / f"{number:06d}.wav", melody(2, seed=number, rate=24_000), rate=24_000)
                lines.append(f"/FMA/{number:06d}.wav,{word},{meter},{2 * meter}")
                number += 1
        (folder / f"data_{side}_4_classes.csv").write_text("\n".join(lines) + "\n")


def make_catalogue(path, folder, address):
    """Eight songs of 6 s: most with an address, one to be searched for, one whose address does not exist."""
    entries = []
    songs = ({"9": 1}, {"11": 1}, {"3": 0.8, "4": 0.7}, {"5": 1}, {"9": 1, "13": 1}, {"11": 1}, {"7": 1})
    for number, meters in enumerate(songs):
        encode(folder / f"{number}.mp3", melody(6, seed=100 + number, rate=24_000), rate=24_000)
        entries.append({
            "artist": "Ada", "title": f"Song {number}", "meters": meters,
            "sources": [{"type": "wikimedia", "url": f"{address}/{number}.mp3"}],
        })
    entries[-1]["sources"] = []
    entries.append({
        "artist": "Ada", "title": "Gone", "meters": {"5": 1}, "sources": [{"type": "wikimedia", "url": f"{address}/gone.mp3"}],
    })
    path.write_text(json.dumps(entries))


@pytest.mark.slow
@pytest.mark.no_cover
def test_beat_meter_runs_from_data_to_result_by_the_commands_of_its_page(tmp_path, site, checkpoints, monkeypatch):
    folder, address = site
    make_meter2800(tmp_path / "METER2800")
    make_catalogue(tmp_path / "wikimeter.json", folder, address)
    monkeypatch.setattr(download, "first_hit", lambda loader, search: f"{address}/6.mp3")
    small = f"--encoder {checkpoints / '95M-tiny'} --precision float32 --device cpu"
    commands = run_page("beat-meter", tmp_path, {
        "--accept-terms": "--accept-terms --seconds 2 --min-seconds 1 --margin 0.5",
        "--window 5": f"--window 5 {small}",
        "--val-share 0.1": "--val-share 0.3",            # of 7 songs, so that one is enough
        "--recipe beatmeter": "--recipe beatmeter --epochs 2 --batch 4 --device cpu --precision float32",
    })
    printed = {command.text: command.done.stdout for command in commands}

    lake = tonelake.open(tmp_path / "lake", progress=False)
    clips = lake.clips.read(["track", "dataset", "split", "meters", "artist", "title", "url"])
    assert str(lake.clips.table.schema.field("meters").type) == "list<item: string>"
    assert clips.group_by("dataset", "split").len().sort("dataset", "split").rows() == [
        ("meter2800", "test", 8), ("meter2800", "train", 16), ("meter2800", "valid", 8), ("wikimeter", None, 21),
    ]
    assert set(clips.filter(track="ada_song_2")["meters"].to_list()[0]) == {"3", "4"}
    assert set(clips.filter(track="ada_song_6")["url"]) == {f"{address}/6.mp3"}
    assert [row["source"] for row in lake.failures.read().to_dicts()] == [f"{address}/gone.mp3"]

    run = lake.finetune_run("beatmeter")
    assert run.table("classes")["name"].to_list() == ["3", "4", "5", "7", "9", "11"]
    config = run.config
    assert (config.noise, config.shift_s, config.first_layer, config.val_share) == (0.01, 0.5, 1, 0.3)
    sides = run.table("split").join(lake.clips.read(["clip_id", "track", "dataset", "split"]), on="clip_id")
    assert sides.filter(dataset="meter2800", side="test").height == sides.filter(side="test").height == 8
    added = sides.filter(dataset="wikimeter").group_by("track").agg("side").rows()
    assert len(added) == 7 and all(len(set(side)) == 1 for _, side in added)
    assert {side for _, (side, *_) in added} == {"train", "valid"}
    assert run.table("history").height >= 2
    assert {"frozen", "tuned"} <= {space.name for space in lake.spaces.all()}
    assert "mAP" in printed["tonelake adapters beatmeter --report"]
    reviewed = [json.loads(line) for line in printed["tonelake review beatmeter --side all -k 20"].splitlines()]
    assert len(reviewed) == 20 and {row["track"] for row in reviewed} & set(sides.filter(side="train")["track"])
    assert len(next(out for text, out in printed.items() if text.startswith("tonelake compare")).splitlines()) == 4

    again = tmp_path / "again"                           # the short form, on the first page of the guide
    again.mkdir()
    (again / "METER2800").symlink_to(tmp_path / "METER2800")
    (again / "wikimeter.json").write_bytes((tmp_path / "wikimeter.json").read_bytes())
    commands = run_page("../finetuning", again, {
        "--accept-terms": "--accept-terms --search --seconds 2 --min-seconds 1 --margin 0.5",
        "--window 5": f"--window 5 {small}",
        "--val-share 0.1": "--val-share 0.3 --epochs 1 --batch 4 --device cpu --precision float32",
    }, blocks=1)
    assert len(commands) == 8 and "mAP" in commands[5].done.stdout


@pytest.mark.parametrize("name", ["moved.mp3", "page.html"])
def test_a_public_address_that_leads_to_the_local_network_is_not_followed(tmp_path, site, name):
    folder, address = site
    write(folder / "secret.wav", melody(1), rate=24_000)
    (folder / "secret.wav").rename(folder / "secret.mp3")
    with pytest.raises(download.FetchError, match=r"intranet\.example: is on this machine or a local network"):
        download.ytdlp()(f"{address}/{name}", tmp_path, "x")
    assert not list(tmp_path.glob("x.*"))
