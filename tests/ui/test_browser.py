"""The app in Chromium on a lake of rendered chorales: clicking points, playing clips, selecting groups, reloading views."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import polars as pl
import pytest
from app_encoder import ENCODER, LAYER, OTHER, TAGGED

from tonelake.store import Lake

HOME = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--autoplay-policy=no-user-gesture-required"]
pytestmark = pytest.mark.slow
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def chorales(tmp_path_factory) -> Lake:
    """A lake of eight chorales, embedded by the app's encoder, with two mapped layers and a probe of their keys."""
    import tonelake

    lake = tonelake.open(tmp_path_factory.mktemp("browser") / "lake", progress=False)
    lake.ingest_chorales(limit=8)
    lake.embed(ENCODER, precision="float32")
    for layer in (LAYER, OTHER):
        lake.map(layer, method="pca")
    lake.probe("key", layers=(LAYER,), epochs=3, seeds=1, split="random", rates=(1e-2,), decays=(0.0,), name="keys")
    return lake


@pytest.fixture(scope="module")
def served(chorales):
    """Start the app with the command; return its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tonelake", "ui", "--lake", chorales.uri, "--port", "0", "--no-browser"],
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
            time.sleep(0.1)
    yield address[0]
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def view(browser, served):
    """A browser page.  The test fails on any JavaScript error, and on any request to a host other than the app."""
    context = browser.new_context(viewport={"width": 1400, "height": 950}, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(60_000)
    requested: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    assert page.locator("[data-testid=stException]").count() == 0
    context.close()
    assert not errors
    assert not [url for url in requested if not url.startswith((served, served.replace("http", "ws"), "data:", "blob:"))]


def ask(served: str, path: str, **headers: str):
    return urllib.request.urlopen(urllib.request.Request(served + path, headers=headers), timeout=60)


def open_map(view, served: str, state: str = ""):
    """Open the map page and return its map once the points are drawn."""
    view.goto(f"{served}/map{state}")
    view.locator(".map[data-points]").first.wait_for()
    view.locator(".map[data-colour]").first.wait_for()
    return view.locator(".map").first


def point_of(view, the_map, row: int) -> tuple[float, float]:
    """Return the screen position of a row's point."""
    box = the_map.locator("canvas.points").bounding_box()
    x, y = the_map.evaluate("(map, row) => map.screenOf(row)", row)
    return box["x"] + x, box["y"] + y


# -- the map


@needs_chromium
def test_a_click_on_a_point_plays_it_and_lists_the_hits_of_the_command(view, served, chorales):
    import tonelake

    the_map = open_map(view, served, f"?layer={LAYER}")
    assert the_map.get_attribute("data-points") == str(chorales.clips.count())
    view.mouse.click(*point_of(view, the_map, 3))
    side = the_map.locator(".side[data-answered]")
    side.wait_for()
    clip = side.get_attribute("data-answered")
    audio = side.locator("audio")
    assert audio.evaluate("audio => new URL(audio.src).pathname") == f"/tonelake/audio/{clip}"
    view.wait_for_function("() => performance.getEntriesByName('tonelake:sound').length > 0")
    expected = tonelake.open(chorales.uri).similar(clip, layer=LAYER, k=12)
    shown = side.locator("li")
    assert [shown.nth(i).get_attribute("data-clip") for i in range(shown.count())] == expected["clip_id"].to_list()
    scores = side.locator("li .score").all_inner_texts()
    assert scores == [f"{score:.3f}" for score in expected["score"]]
    # The address keeps the view: after a reload the same clip is picked, without playing.
    view.wait_for_url(f"**pick={clip}**")
    view.reload()
    again = view.locator(f".side[data-answered='{clip}']")
    again.wait_for()
    assert again.locator("audio").get_attribute("src") is None
    # Keys: down plays the nearest hit, Enter picks it.
    the_map = view.locator(".map").first
    the_map.focus()
    view.keyboard.press("ArrowDown")
    view.keyboard.press("Enter")
    view.locator(f".side[data-answered='{expected['clip_id'][0]}']").wait_for()
    view.wait_for_url(f"**pick={expected['clip_id'][0]}**")


@needs_chromium
def test_a_lasso_selection_can_be_saved_and_used_as_a_filter(view, served, chorales):
    the_map = open_map(view, served, f"?layer={LAYER}")
    box = the_map.locator("canvas.points").bounding_box()
    corners = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in
               ((0.3, 0.15), (0.75, 0.15), (0.75, 0.98), (0.3, 0.98))]
    view.keyboard.down("Shift")
    view.mouse.move(*corners[0])
    view.mouse.down()
    for corner in (*corners[1:], corners[0]):
        view.mouse.move(*corner, steps=5)
    view.mouse.up()
    view.keyboard.up("Shift")
    view.get_by_role("heading", name=re.compile("Selected: ")).wait_for()
    count = int(the_map.get_attribute("data-bright"))
    assert 0 < count < chorales.clips.count()
    assert f"Selected: {count}" in view.get_by_role("heading", name=re.compile("Selected: ")).inner_text()
    with view.expect_download() as waiting:
        view.get_by_role("button", name="clips.csv").click()
    saved = pl.read_csv(waiting.value.path())
    inside = the_map.evaluate(
        "map => Array.from({length: +map.dataset.points}, (_, row) => [row, ...map.screenOf(row)])"
    )
    within = {row for row, x, y in inside if corners[0][0] <= x + box["x"] <= corners[1][0]
              and corners[0][1] <= y + box["y"] <= corners[2][1]}
    ids = {json.load(ask(served, f"/tonelake/map/{ENCODER}/{LAYER}/point?row={row}"))["clip_id"] for row in within}
    assert set(saved["clip_id"]) == ids and len(saved) == count
    view.wait_for_url("**lasso=**")
    view.goto(view.url.replace("/map?", "/groups?column=key&"))
    view.get_by_text(f"Only the {count} selected on the map").wait_for()


@needs_chromium
def test_picked_clips_survive_a_change_of_layer_and_maps_side_by_side_are_linked(view, served):
    the_map = open_map(view, served, f"?layer={LAYER}&beside={OTHER}&colour=key")
    maps = view.locator(".map[data-points]")
    maps.nth(1).wait_for()
    assert [maps.nth(i).get_attribute("data-layer") for i in range(2)] == [LAYER, OTHER]
    view.mouse.click(*point_of(view, the_map, 5))
    view.locator(".side[data-answered]").nth(1).wait_for()
    clips = [view.locator(".side[data-answered]").nth(i).get_attribute("data-answered") for i in range(2)]
    assert clips[0] == clips[1]
    picked = the_map.evaluate("map => map.screenOf(5)")
    view.goto(f"{served}/map?layer={OTHER}&pick={clips[0]}")
    view.locator(f".map[data-layer='{OTHER}'] .side[data-answered='{clips[0]}']").wait_for()
    assert len(picked) == 2


@needs_chromium
def test_search_and_legend_highlight_the_matching_points(view, served, chorales):
    the_map = open_map(view, served, f"?layer={LAYER}&colour=key")
    names = the_map.locator(".legend .name").all_inner_texts()
    counts = chorales.clips.read(["key"])["key"].value_counts()
    assert set(names) == set(counts["key"])
    the_map.locator(".legend .value").first.dblclick()
    largest = counts["count"].max()
    the_map.locator(".legend .all").wait_for()
    assert int(the_map.get_attribute("data-bright")) == largest
    the_map.locator(".legend .all").click()
    title = chorales.clips.read(["title"])["title"][0]
    the_map.get_by_placeholder("Search").fill(title.upper())
    same = chorales.clips.read(["title"]).filter(pl.col("title") == title)
    the_map.locator(".found", has_text=f"{len(same)} found").wait_for()
    assert int(the_map.get_attribute("data-bright")) == len(same)


# -- the other pages


@needs_chromium
def test_every_page_opens_and_hits_can_be_played_by_keys(view, served, chorales):
    view.goto(served)
    view.get_by_role("heading", name="Library").wait_for()
    headings = {
        "Groups": "Groups", "Layers": "Layers", "Probes": "Probes and fine-tunes", "Notes": "Notes", "Similar": "Similar",
    }
    for link, heading in headings.items():
        view.get_by_role("link", name=link).click()
        view.get_by_role("heading", name=heading, exact=True).wait_for()
    view.goto(f"{served}/similar?clip={chorales.clips.ids()[2]}&layer={LAYER}")
    hits = view.locator(".clips[data-count='7']")        # of eight songs, all but the query's own
    hits.wait_for()
    assert hits.locator("svg polyline.own").count() == 7
    assert hits.locator(".words .tags").count() == (7 if TAGGED else 0)
    hits.focus()
    view.keyboard.press("ArrowDown")
    view.keyboard.press(" ")
    first = hits.locator(".row").first.get_attribute("data-clip")
    view.locator(f".clips[data-playing='{first}']").wait_for()
    view.keyboard.press("Enter")
    view.wait_for_url(f"**clip={first}**")


@needs_chromium
def test_the_piano_roll_plays_and_its_playhead_moves(view, served, chorales):
    import tonelake
    from tonelake.clip_events import clip_events

    clip = chorales.clips.ids()[1]
    notes = chorales.events.read(kinds=["note"]).with_columns(source=pl.lit("predicted:heads"))
    chorales.events.replace(notes.with_columns(pl.col("start_s", "end_s") + 0.01))
    view.goto(f"{served}/notes?clip={clip}")
    roll = view.locator(".roll[data-parts]")
    roll.wait_for()
    drawn = int(roll.get_attribute("data-notes"))
    roll.get_by_label("Labels (chorale)").uncheck()
    assert 0 < int(roll.get_attribute("data-notes")) < drawn
    expected = clip_events(tonelake.open(chorales.uri), clip, prediction="heads").scores["Note F1"]
    view.locator("[data-testid=stMetricValue]", has_text=f"{expected:.2f}").wait_for()
    box = roll.locator(".view").bounding_box()
    view.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    sought = float(roll.get_attribute("data-at"))
    assert sought > 0.5 and roll.get_attribute("data-playing") == "false"
    view.keyboard.press(" ")
    view.wait_for_function(
        "sought => [...document.querySelectorAll('*')].some(e => e.shadowRoot?.querySelector('.roll')?.dataset.at > sought)",
        arg=sought + 0.5,
    )
    moved = roll.locator(".head").bounding_box()["x"]
    assert moved > box["x"] + box["width"] / 2
    view.keyboard.press(" ")
    view.keyboard.press("Home")
    view.locator(".roll[data-at='0.000'][data-playing='false']").wait_for()


@needs_chromium
def test_an_uploaded_file_finds_itself_in_the_lake(view, served, chorales, tmp_path):
    import soundfile

    import tonelake

    clip = chorales.clips.ids()[7]
    samples = tonelake.open(chorales.uri).audio(clip, 24_000)
    soundfile.write(tmp_path / "mine.wav", samples, 24_000)
    view.goto(f"{served}/similar?layer={LAYER}")
    view.locator("input[type=file]").set_input_files(tmp_path / "mine.wav")
    hits = view.locator(".clips[data-count='8']")
    hits.wait_for()
    assert hits.locator(".row").first.get_attribute("data-clip") == clip
    assert float(hits.locator(".score").first.inner_text()) > 0.999


@needs_chromium
def test_an_upload_past_the_limit_is_refused_by_the_page_and_by_the_server(view, served, tmp_path):
    """The server enforces the limit as well, for clients that bypass the page."""
    huge = tmp_path / "huge.wav"
    with huge.open("wb") as file:
        file.truncate(201 << 20)
    (tmp_path / "small.wav").write_bytes(b"RIFF")
    view.goto(f"{served}/similar?layer={LAYER}")
    chooser = view.locator("input[type=file]")
    chooser.set_input_files(huge)
    view.get_by_text("200.0MB or smaller").wait_for()
    with view.expect_request(lambda request: request.method == "PUT") as sent:
        chooser.set_input_files(tmp_path / "small.wav")
    request = sent.value
    token = {name: text for name, text in request.headers.items() if "xsrf" in name.lower()}
    cookies = "; ".join(f"{cookie['name']}={cookie['value']}" for cookie in view.context.cookies())

    def put(size: int) -> int:
        head = b'--edge\r\nContent-Disposition: form-data; name="x.wav"; filename="x.wav"\r\n\r\n'
        body = head + bytes(size) + b"\r\n--edge--\r\n"
        headers = token | {"Cookie": cookies, "Content-Type": "multipart/form-data; boundary=edge"}
        try:
            with urllib.request.urlopen(urllib.request.Request(request.url, body, headers, method="PUT"), timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        except urllib.error.URLError:    # the server closed the connection early
            return 413

    assert put(4) in (200, 204)          # an accepted request, so the refusal below is due to the size
    assert put(201 << 20) == 413
    assert put(4) in (200, 204)          # the server still works


@needs_chromium
def test_a_click_on_a_cell_of_the_confusion_matrix_lists_its_clips(view, served, chorales):
    from tonelake import probes

    view.goto(f"{served}/probes?tab=Confusion")
    cells = view.locator(".plotly .scatterlayer .point")
    cells.first.wait_for()
    judged = probes.Run.named(chorales, "keys").table("predictions")
    assert cells.count() == len(judged.select("target", "predicted").unique())
    box = cells.first.bounding_box()
    view.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view.wait_for_url(re.compile("(?=.*true=)(?=.*said=)"))
    state = urllib.parse.parse_qs(urllib.parse.urlsplit(view.url).query)
    mine = judged.filter((pl.col("target") == state["true"][0]) & (pl.col("predicted") == state["said"][0]))
    listed = view.locator(f".clips[data-count='{len(mine)}']")
    listed.wait_for()
    assert {row.get_attribute("data-clip") for row in listed.locator(".row").all()} == set(mine["clip_id"])


# -- access


def test_the_app_listens_on_loopback_only_and_rejects_other_host_names(served):
    port = int(served.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    local = [line.split()[1].split(":") for line in listening.splitlines() if "local_address" not in line]
    assert {address for address, of_port in local if of_port == f"{port:04X}"} == {"0100007F"}       # 127.0.0.1 in hex
    for path in ("/", f"/tonelake/map/{ENCODER}/{LAYER}/points"):
        with pytest.raises(urllib.error.HTTPError) as info:
            ask(served, path, Host="evil.example")
        assert info.value.code == 400
        info.value.close()


@pytest.mark.parametrize("path", [
    "/tonelake/audio/..%2F..%2Fetc%2Fpasswd", "/tonelake/audio/etc-passwd", "/tonelake/audio/ffffffffffffffffffff",
    "/tonelake/spectrogram/x'%20OR%201=1", "/tonelake/map/nowhere/0/points", "/tonelake/static/../routes.py",
    "/tonelake/static/%2e%2e/routes.py",
])
def test_only_clips_of_the_lake_are_served(served, path):
    with pytest.raises(urllib.error.HTTPError) as info:
        ask(served, path)
    assert info.value.code in (400, 404)
    info.value.close()


def test_encoded_paths_do_not_reach_files(served):
    for path in ("/tonelake/audio/%2Fetc%2Fpasswd", "/tonelake/audio//etc/passwd", "/tonelake/static%2F..%2Froutes.py"):
        try:
            body = ask(served, path).read()
        except urllib.error.HTTPError as error:
            body = b""
            error.close()
        assert b"root:" not in body and b"import" not in body[:400]


def test_several_viewers_get_the_same_answers_at_once(served, chorales):
    from concurrent.futures import ThreadPoolExecutor

    ids = chorales.clips.ids().to_list()[:6]
    paths = [f"/tonelake/near/{ENCODER}/{layer}/{clip}?k=5" for clip in ids for layer in (LAYER, OTHER)]
    paths += [f"/tonelake/audio/{clip}" for clip in ids]
    alone = [ask(served, path).read() for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: ask(served, path).read(), paths))
    assert together == alone


def test_a_port_in_use_is_named_in_the_error(served):
    from tonelake.store import InputError
    from tonelake.ui.serve import free_port

    port = int(served.rsplit(":", 1)[1])
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}"):
        free_port("127.0.0.1", port)
