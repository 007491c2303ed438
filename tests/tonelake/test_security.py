"""Untrusted input is refused if it would run code or reach outside the lake; see SECURITY.md."""

from __future__ import annotations

import json
import pickle
import socket
from pathlib import Path

import numpy as np
import pytest
from fakes import clip_rows, fill

import tonelake
from tonelake.embed.errors import CheckpointError, EncoderError
from tonelake.ingest.download import FetchError, check_public, ytdlp
from tonelake.store import FilterError, InputError


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "caught"))


def test_a_pickled_checkpoint_runs_nothing(tmp_path, checkpoints, lake):
    import shutil

    folder = tmp_path / "evil"
    shutil.copytree(checkpoints / "95M-tiny", folder)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Trap(tmp_path / "caught")}))
    lake.clips.add(clip_rows(1, 1))
    with pytest.raises((CheckpointError, EncoderError)):
        tonelake.open(lake.uri, progress=False).embed(str(folder), device="cpu")
    assert not (tmp_path / "caught").exists()


def test_a_pickled_adapter_runs_nothing(tmp_path, checkpoints, lake):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"a": Trap(tmp_path / "caught")}))
    lake.clips.add(clip_rows(1, 1))
    with pytest.raises((CheckpointError, EncoderError, InputError)):
        tonelake.open(lake.uri, progress=False).embed(
            str(checkpoints / "95M-tiny"), precision="float32", device="cpu", adapter=str(folder)
        )
    assert not (tmp_path / "caught").exists()


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "a/b", "a\\b", "-x", "", "a\0b"])
def test_names_do_not_leave_the_lake(lake, name):
    fill(lake, 6, 10, seed=0)
    opened = tonelake.open(lake.uri, progress=False)
    before = sorted(path for path in Path(lake.uri).parent.rglob("*") if "_versions" not in str(path))
    for ask in (
        lambda: opened.probe_run(name), lambda: opened.similar(lake.clips.ids()[0], space=name or "../"),
        lambda: opened.fit_vocabulary(k=4, layer=1, name=name or "../"),
        lambda: opened.probe("artist", name=name or "../", epochs=1),
    ):
        with pytest.raises(InputError):
            ask()
    assert sorted(path for path in Path(lake.uri).parent.rglob("*") if "_versions" not in str(path)) == before


@pytest.mark.parametrize("where", [
    "1 = 1; DROP TABLE clips", "artist = 'x'; DELETE FROM clips", "(SELECT 1)", "artist IN (SELECT artist FROM clips)",
    "pg_read_file('/etc/passwd') = 'x'", "read_csv('/etc/passwd') IS NOT NULL", "artist = 'x' UNION SELECT 1", "", ";",
])
def test_a_filter_is_one_expression_over_clips(lake, where):
    lake.clips.add(clip_rows(3, 2))
    with pytest.raises(FilterError):
        lake.clips.read(where=where)
    assert lake.clips.count() == 6


@pytest.mark.parametrize("url", [
    "http://127.0.0.1/x.mp3", "http://localhost:8000/x", "http://[::1]/x", "http://10.1.2.3/x", "http://192.168.0.1/x",
    "http://169.254.169.254/latest/meta-data", "http://0.0.0.0/x", "https://[fe80::1]/x", "http://2130706433/x", "http:///x",
])
def test_nothing_is_downloaded_from_this_machine_or_a_local_network(url, tmp_path):
    with pytest.raises(FetchError, match=r"local network|has no address"):
        check_public(url)
    with pytest.raises(FetchError):
        ytdlp()(url, tmp_path, "x")


def test_a_host_name_of_a_local_address_is_refused(monkeypatch):
    def points(*where):
        return lambda host, port: [(socket.AF_INET, None, None, "", (place, 0)) for place in where]

    monkeypatch.setattr(socket, "getaddrinfo", points("93.184.216.34", "10.0.0.1"))
    with pytest.raises(FetchError, match=r"rebind\.example: is on this machine or a local network"):
        check_public("https://rebind.example/x")
    monkeypatch.setattr(socket, "getaddrinfo", points("93.184.216.34"))
    check_public("https://music.example/x")


def test_a_file_that_decompresses_to_a_huge_size_is_read_in_blocks(lake, tmp_path):
    """An hour and a half of silence in 130 KB is read to its end in blocks, and reported as silent."""
    import soundfile

    from tonelake.ingest import ingest_folder

    path = tmp_path / "m" / "bomb.flac"
    path.parent.mkdir()
    with soundfile.SoundFile(path, "w", 8_000, 1, format="FLAC") as file:
        for _ in range(90):
            file.write(np.zeros(60 * 8_000, np.int16))
    assert path.stat().st_size < 500_000
    report = ingest_folder(lake, path.parent, seconds=600.0)
    assert report.failed == 1 and "silent throughout (5400 s" in lake.failures.read()["error"][0]


def test_uploads_are_limited_and_the_app_sends_no_telemetry(monkeypatch, lake):
    import streamlit

    from tonelake.ui.serve import serve_app

    seen = {}

    class Caught:
        def __init__(self, script, *, routes, middleware):
            seen["middleware"] = middleware

        def run(self, *, config):
            seen.update(config)

    monkeypatch.setattr(streamlit, "App", Caught)
    serve_app(lake.uri, port=0, browser=False)
    assert seen["server.address"] == "127.0.0.1" and seen["server.maxUploadSize"] == 200
    assert seen["browser.gatherUsageStats"] is False and seen["client.showErrorDetails"] == "none"
    assert "localhost" in seen["middleware"][0].kwargs["allowed_hosts"]
