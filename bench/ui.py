"""The app in a real browser: time from navigation to the map's visible points, from a click to its answer, and from
navigation to a song's page with its similar songs.

The lake has synthetic clips, all cut from one minute of noise, with vectors of 64 numbers around 2,000 centres, an index from
the size at which one is recommended, and a map of synthetic points: the app is timed, not the layout.  Chromium without a GPU
renders in software, so frame rates with a GPU are higher.  "First points" are measured in a browser with an empty cache; the
first visit, which reads the map from disk, and later visits of one browser are listed separately.  Clicks are a second apart.
Every clip is a point of the map; a song has ten clips.  A song's page is opened by its address in a new tab, songs in turn.

    python -m bench.ui --points 1000 10000 100000 1000000
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.report import circumstances, table, write_results

DIM, CENTRES, ROUNDS, CLICKS, SONGS = 64, 2_000, 3, 7, 7
INDEXED = 50_000                         # number of clips from which the lake has an index, as the docs advise
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--autoplay-policy=no-user-gesture-required"]
WINDOW: Any = {"width": 1400, "height": 900}
SHOWN = {                                # figure: heading, factor, format
    "first_points_s": ("first points, s", 1, "{:.2f}"),
    "first_points_cold_s": ("… of a map not yet read from disk", 1, "{:.2f}"),
    "first_points_again_s": ("… on a later visit of the browser", 1, "{:.2f}"),
    "click_s": ("click to neighbours, ms", 1e3, "{:.0f}"), "first_click_s": ("… the first click", 1e3, "{:.0f}"),
    "sound_s": ("click to sound, ms", 1e3, "{:.0f}"), "pan_fps": ("frames a second, dragging", 1, "{:.0f}"),
    "payload_mb": ("payload, MB", 1, "{:.2f}"),
    "song_page_s": ("a song's page, s", 1, "{:.2f}"), "first_song_page_s": ("… the first one", 1, "{:.2f}"),
}
HOME = Path(__file__).resolve().parent.parent


def make_lake(folder: Path, count: int, *, dim: int = DIM) -> None:
    """Make clips, vectors, an index for large lakes, and a map whose points follow the centres of the vectors."""
    import soundfile

    from tonelake.index import build_index
    from tonelake.index.maps.layout import Layout
    from tonelake.index.maps.make import write_map
    from tonelake.ingest.scan import file_digest
    from tonelake.store import Lake, Space

    rng = np.random.default_rng(0)
    sound = folder / "noise.wav"
    sound.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(sound, 0.1 * rng.standard_normal(60 * 24_000), 24_000)
    lake = Lake(folder / "lake")
    number = pl.int_range(count, eager=True)
    lake.clips.add(pl.DataFrame({
        "clip_id": number.map_elements(lambda n: f"{n:020x}", pl.String), "track": "track " + (number // 10).cast(pl.String),
        "source": str(sound), "digest": file_digest(sound), "start_s": (number % 50).cast(pl.Float64), "duration_s": 5.0,
        "cut": "5s", "title": "Song " + (number // 10).cast(pl.String), "artist": "Artist " + (number // 997).cast(pl.String),
        "genre": pl.Series([f"genre {n}" for n in range(20)]).gather(number % 20),
    }, strict=False))
    space = lake.spaces.make(Space(
        name="bench", revision="1", sample_rate=24_000, layers=("0",), dims=(dim,), window_s=5.0, hop_s=5.0, precision="float32"
    ))
    ids, store = lake.clips.ids().to_list(), lake.vectors(space)
    centres, places = rng.standard_normal((CENTRES, dim)), rng.standard_normal((CENTRES, 2)) * 10
    points = np.empty((count, 2), np.float32)
    for start in range(0, count, 50_000):
        rows = slice(start, min(start + 50_000, count))
        which = rng.integers(CENTRES, size=rows.stop - start)
        vectors = (centres[which] + 0.5 * rng.standard_normal((len(which), dim))).astype(np.float32)
        points[rows] = places[which] + 0.5 * rng.standard_normal((len(which), 2))
        store.add(ids[rows], [vectors], [vectors], [1] * len(which))
    store.table.compact()
    if count >= INDEXED:
        build_index(lake, space, 0)
    kept = dict(zip(ids, points, strict=True))
    order = store.ids()
    near = rng.integers(count, size=(count, 15))
    layout = Layout(np.stack([kept[clip] for clip in order]), near, np.full(near.shape, 0.5, np.float32))
    write_map(lake, space, 0, order, layout, {
        "space": space.name, "fingerprint": space.fingerprint, "layer": 0, "stat": "mean", "method": "umap", "neighbours": 15,
        "min_dist": 0.1, "seed": 0,
    }, "made")


def served(lake: Path) -> tuple[subprocess.Popen, str]:
    """Start the app by its command; yield its address once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tonelake", "ui", "--lake", str(lake), "--port", "0", "--no-browser"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=HOME, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
    assert found is not None, "the app did not start"
    for _ in range(300):
        try:
            urllib.request.urlopen(found[0] + "/_stcore/health", timeout=1).read()
            return process, found[0]
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the app does not answer")


def open_map(visitor: Any, address: str, count: int) -> tuple[Any, float]:
    """Open the map; return the page, and the milliseconds from navigation to visible points."""
    page = visitor.new_page()
    page.goto(f"{address}/map?points=clips", wait_until="commit")
    page.wait_for_function("performance.getEntriesByName('tonelake:points').length > 0", timeout=120_000)
    assert page.locator(f".map[data-points='{count}']").count() == 1
    return page, page.evaluate("performance.getEntriesByName('tonelake:points')[0].startTime")


def click(page: Any, row: int) -> dict[str, float]:
    """Return the milliseconds from a click on a point to the list of neighbours, and to sound."""
    box = page.locator(".map canvas.points").bounding_box()
    page.wait_for_timeout(1_000)
    x, y = page.locator(".map").evaluate("(map, row) => map.screenOf(row)", row)
    page.evaluate("['tonelake:click', 'tonelake:answer', 'tonelake:sound'].forEach(name => performance.clearMarks(name))")
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.wait_for_function("['tonelake:answer', 'tonelake:sound'].every(n => performance.getEntriesByName(n).length)",
                           timeout=60_000)
    begun, answer, sound = page.evaluate(
        "['click', 'answer', 'sound'].map(n => performance.getEntriesByName('tonelake:' + n)[0].startTime)"
    )
    return {"answer": answer - begun, "sound": sound - begun}


def pan(page: Any) -> float:
    """Return the frames a second while the map is dragged for a second."""
    box = page.locator(".map canvas.points").bounding_box()
    page.evaluate("""() => {
        window.frames_seen = 0;
        const count = () => { window.frames_seen++; requestAnimationFrame(count); };
        requestAnimationFrame(count);
    }""")
    page.mouse.move(box["x"] + 600, box["y"] + 400)
    page.mouse.down()
    before, started = page.evaluate("window.frames_seen"), time.perf_counter()
    step = 0
    while time.perf_counter() - started < 1.5:
        step += 1
        page.mouse.move(box["x"] + 600 + 100 * np.sin(step / 9), box["y"] + 400 + 60 * np.cos(step / 9))
    seconds = time.perf_counter() - started
    frames = page.evaluate("window.frames_seen") - before
    page.mouse.up()
    return frames / seconds


def open_song(visitor: Any, address: str, clip: str) -> float:
    """Open the page of a clip's song; return the milliseconds from navigation to the drawn list of similar songs."""
    page = visitor.new_page()
    page.goto(f"{address}/?song={clip}", wait_until="commit")
    page.wait_for_function("performance.getEntriesByName('tonelake:list').length > 0", timeout=120_000)
    milliseconds = page.evaluate("performance.getEntriesByName('tonelake:list')[0].startTime")
    assert page.locator(".st-key-hits .row[data-clip]").count() > 1
    page.close()
    return milliseconds


def payload(address: str) -> float:
    """Return the megabytes of points and colours."""
    place = f"{address}/tonelake/map/bench/0"
    return sum(len(urllib.request.urlopen(f"{place}/{part}").read()) for part in ("points", "colours?column=cluster")) / 1e6


def measure(count: int) -> dict[str, float]:
    """Return all figures for one size."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        make_lake(Path(folder), count)
        process, address = served(Path(folder) / "lake")
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                cold, *opened = [opened_anew(browser, address, count) for _ in range(1 + ROUNDS)]
                visitor = browser.new_context(viewport=WINDOW)
                again = []
                for _ in range(1 + ROUNDS):
                    page, milliseconds = open_map(visitor, address, count)
                    again.append(milliseconds)
                page.wait_for_timeout(2_500)             # time for names and colours to arrive
                first, *clicks = [click(page, 1 + 11 * i) for i in range(1 + CLICKS)]
                frames = pan(page)
                page.close()
                songs = [open_song(visitor, address, f"{number * (count // (SONGS + 1)):020x}") for number in range(SONGS + 1)]
                browser.close()
            return {
                "first_points_s": middle(opened), "first_points_cold_s": cold / 1e3, "first_points_again_s": middle(again[1:]),
                "click_s": middle(c["answer"] for c in clicks), "first_click_s": first["answer"] / 1e3,
                "sound_s": middle(c["sound"] for c in clicks), "pan_fps": frames, "payload_mb": payload(address),
                "song_page_s": middle(songs[1:]), "first_song_page_s": songs[0] / 1e3,
            }
        finally:
            process.terminate()
            process.wait(20)


def opened_anew(browser: Any, address: str, count: int) -> float:
    """Return the milliseconds to visible points in a browser with an empty cache."""
    visitor = browser.new_context(viewport=WINDOW)
    _, milliseconds = open_map(visitor, address, count)
    visitor.close()
    return milliseconds


def middle(milliseconds: Iterable[float]) -> float:
    """Return the median in seconds."""
    return statistics.median(milliseconds) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    counts = parser.parse_args().points
    if CHROMIUM is None:
        raise SystemExit("bench.ui needs Chromium: apt-get install chromium")
    found: dict[int, dict[str, float]] = {}
    for count in counts:
        found[count] = measure(count)
        print(f"{count:,}: " + ", ".join(f"{name} {value:.3f}" for name, value in found[count].items()), flush=True)
        rows = [[f"{n:,}", *(form.format(values[name] * scale) for name, (_, scale, form) in SHOWN.items())]
                for n, values in found.items()]
        about = circumstances("vectors, places and noise, seed 0; Chromium's software rendering, headless, 1400 × 900")
        text = table(["points", *(words for words, _, _ in SHOWN.values())], rows)
        write_results("ui", "The app in a browser", text, about, {}, **{
            name: {str(n): round(values[name], 4) for n, values in found.items()} for name in SHOWN
        })


if __name__ == "__main__":
    main()
