"""The app: its pages by Streamlit's own test harness, and once in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from fakes import clip_rows, fill
from streamlit.testing.v1 import AppTest

from ingest import Cut, ingest_folder
from store import Failure, Lake
from ui import APP

HOME = Path(__file__).resolve().parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def page(name: str, lake: Lake, monkeypatch) -> AppTest:
    monkeypatch.setenv("TONELAKE_LAKE", lake.uri)
    test = AppTest.from_file(str(APP.parent / name), default_timeout=60).run()
    assert not test.exception, test.exception
    return test


@pytest.fixture(scope="module")
def audible(tmp_path_factory, music):
    """The music, embedded by `spectral`."""
    import tonelake

    lake = Lake(tmp_path_factory.mktemp("ui") / "lake")
    ingest_folder(lake, music, Cut(3.0))
    tonelake.open(lake.uri, progress=False).embed("spectral")
    return lake


def test_the_lake_page_shows_what_is_there_and_what_comes_next(lake, monkeypatch):
    lake.clips.add(clip_rows(3, 2))
    lake.failures.record([Failure("ingest", "<b>x.mp3</b>", "is empty")])
    test = page("page_lake.py", lake, monkeypatch)
    shown = {metric.label: metric.value for metric in test.metric}
    assert shown == {"Clips": "6", "Tracks": "3", "Hours": "0.0", "Flagged": "0", "Failures": "1"}
    assert test.code[0].value == "tonelake embed"
    assert "Nothing is embedded yet" in test.info[0].value
    labels, failures = (frame.value for frame in test.dataframe)
    assert labels["column"].to_list() == ["year", "tags"]
    assert failures["source"].to_list() == ["<b>x.mp3</b>"]
    fill(lake, 3, 2, seed=0)
    test.run()
    assert test.dataframe[0].value["name"].to_list() == ["fake"]


def test_the_listen_page_shows_the_same_neighbours_as_the_command(audible, monkeypatch):
    import tonelake

    test = page("page_listen.py", audible, monkeypatch)
    clip = test.selectbox(key="clip").value
    for layer in ("mfcc", "chroma"):
        test.select_slider(key="layer of spectral").set_value(layer).run()
        expected = tonelake.open(audible.uri, progress=False).similar(clip, layer=layer, k=10, not_same="track")
        shown = [text.value for text in test.text]
        for hit in expected.iter_rows(named=True):
            row = shown.index(f"{hit['rank']}.  {hit['title']}\n{hit['artist']} · 0:0{hit['start_s']:.1f}")
            assert shown[row + 1] == f"{hit['score']:.3f}"
        assert len(expected) == 10


def test_search_narrows_the_clips_and_says_where_there_are_none(audible, monkeypatch):
    test = page("page_listen.py", audible, monkeypatch)
    assert len(test.selectbox(key="clip").options) == 18
    test.text_input(key="search").set_value("béla").run()
    assert len(test.selectbox(key="clip").options) == 6
    test.text_input(key="search").set_value("' OR 1=1 --").run()
    assert test.info[0].value == "No clip matches."


def test_an_empty_lake_and_a_missing_one_say_what_to_do(lake, tmp_path, monkeypatch):
    lake.clips.add(clip_rows(1, 1))
    assert "tonelake embed" in page("page_listen.py", lake, monkeypatch).info[0].value
    monkeypatch.setenv("TONELAKE_LAKE", str(tmp_path / "nowhere"))
    test = AppTest.from_file(str(APP.parent / "page_lake.py"), default_timeout=60).run()
    assert any("there is no lake at" in text.value for text in test.text)


def test_a_clip_whose_file_is_gone_says_so(lake, tmp_path, music, monkeypatch):
    import tonelake

    shutil.copytree(music / "Ada", tmp_path / "m")
    ingest_folder(lake, tmp_path / "m", Cut(None))
    tonelake.open(lake.uri, progress=False).embed("spectral")
    shutil.rmtree(tmp_path / "m")
    test = page("page_listen.py", lake, monkeypatch)
    assert any("cannot be played" in text.value for text in test.text)


@pytest.fixture(scope="module")
def served(audible):
    """The app's address, started by the command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tonelake.cli", "ui", "--lake", audible.uri, "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=HOME, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    line = process.stdout.readline()
    address = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert address, line
    for _ in range(300):
        try:
            urllib.request.urlopen(address[0] + "/_stcore/health", timeout=1).read()
            break
        except OSError:
            import time

            time.sleep(0.1)
    yield address[0]
    process.terminate()
    process.wait(10)
    process.stdout.close()


def test_the_app_listens_on_loopback_alone_and_answers_no_other_name(served):
    port = int(served.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    local = [line.split()[1].split(":") for line in listening.splitlines() if "local_address" not in line]
    assert {address for address, of_port in local if of_port == f"{port:04X}"} == {"0100007F"}       # 127.0.0.1 in hex
    with pytest.raises(urllib.error.HTTPError) as info:
        urllib.request.urlopen(urllib.request.Request(served, headers={"Host": "evil.example"}), timeout=5)
    assert info.value.code == 400
    info.value.close()


def test_a_port_that_is_taken_is_named(served):
    from store import InputError
    from tonelake.serve import free_port

    port = int(served.rsplit(":", 1)[1])
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}"):
        free_port("127.0.0.1", port)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_person_hears_a_clip_and_its_neighbours(served):
    """In Chromium: the pages open without an error, and the clip and all its neighbours have sound in them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1400, "height": 900})
        asked = []
        view.on("request", lambda request: asked.append(request.url))
        view.goto(served)
        view.get_by_role("heading", name="Lake").wait_for(timeout=60_000)
        view.locator("[data-testid=stDataFrame] canvas").first.wait_for(timeout=60_000)
        view.get_by_role("link", name="Listen").click()
        view.get_by_role("heading", name="Nearest at layer mfcc, by cosine").wait_for(timeout=60_000)
        view.wait_for_function("document.querySelectorAll('audio').length == 11", timeout=60_000)
        view.wait_for_function("[...document.querySelectorAll('audio')].every(a => a.duration > 2.9)", timeout=60_000)
        assert view.locator("[data-testid=stException]").count() == 0
        browser.close()
    assert not [url for url in asked if not url.startswith((served, served.replace("http", "ws"), "data:", "blob:"))]
