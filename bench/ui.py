"""The app's map in a real browser: from navigation to visible points, and from a click to its answer.

A lake of made-up clips, all cut from one minute of noise, with vectors of 64 numbers around 2,000 centres, an index where
a person would have built one, and a map of made-up points: what is timed is the app, not the layout.  Chromium without a
GPU draws by software, so frame rates on a real one are higher.  Every measurement is of a page opened anew; the first
one of each size, which reads the map from disk, is told apart.

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
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from bench.report import circumstances, table, write_results

DIM, CENTRES, ROUNDS, CLICKS = 64, 2_000, 3, 7
INDEXED = 50_000                         # clips from which the lake has an index, as `tonelake index build` advises
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--autoplay-policy=no-user-gesture-required"]
HOME = Path(__file__).resolve().parent.parent


def make_lake(folder: Path, count: int) -> None:
    """Clips, vectors, an index for many, and a map whose places follow the vectors' centres."""
    import soundfile

    from index import build_index
    from index.layout import Layout
    from index.maps import write
    from ingest.scan import file_digest
    from store import Lake, Space

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
    space = lake.spaces.make(Space("bench", "1", 24_000, ("0",), (DIM,), 5.0, 5.0, "float32"))
    ids, store = lake.clips.ids().to_list(), lake.vectors(space)
    centres, places = rng.standard_normal((CENTRES, DIM)), rng.standard_normal((CENTRES, 2)) * 10
    points = np.empty((count, 2), np.float32)
    for start in range(0, count, 50_000):
        rows = slice(start, min(start + 50_000, count))
        which = rng.integers(CENTRES, size=rows.stop - start)
        vectors = (centres[which] + 0.5 * rng.standard_normal((len(which), DIM))).astype(np.float32)
        points[rows] = places[which] + 0.5 * rng.standard_normal((len(which), 2))
        store.add(ids[rows], [vectors], [vectors], [1] * len(which))
    store.table.compact()
    if count >= INDEXED:
        build_index(lake, space, 0)
    kept = dict(zip(ids, points, strict=True))
    order = store.ids()
    near = rng.integers(count, size=(count, 15))
    layout = Layout(np.stack([kept[clip] for clip in order]), near, np.full(near.shape, 0.5, np.float32))
    write(lake, space, 0, order, layout, {
        "space": space.name, "fingerprint": space.fingerprint, "layer": 0, "stat": "mean", "method": "umap", "neighbours": 15,
        "min_dist": 0.1, "seed": 0,
    }, "made")


def served(lake: Path) -> tuple[subprocess.Popen, str]:
    """The app on a lake, started by its command, and its address once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tonelake.cli", "ui", "--lake", str(lake), "--port", "0", "--no-browser"],
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


def open_map(browser: Any, address: str, count: int) -> tuple[Any, float]:
    """A page on the map, and milliseconds from navigation to its points."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{address}/map", wait_until="commit")
    page.wait_for_function("performance.getEntriesByName('tonelake:points').length > 0", timeout=120_000)
    assert page.locator(f".map[data-points='{count}']").count() == 1
    return page, page.evaluate("performance.getEntriesByName('tonelake:points')[0].startTime")


def click(page: Any, row: int) -> dict[str, float]:
    """Milliseconds from a click on a point to the neighbours in the list, and to sound."""
    box = page.locator(".map canvas.points").bounding_box()
    x, y = page.locator(".map").evaluate("(map, row) => map.screenOf(row)", row)
    page.evaluate("['tonelake:click', 'tonelake:answer', 'tonelake:sound'].forEach(name => performance.clearMarks(name))")
    page.mouse.click(box["x"] + x, box["y"] + y)
    page.wait_for_function("['tonelake:answer', 'tonelake:sound'].every(n => performance.getEntriesByName(n).length)",
                           timeout=60_000)
    at = page.evaluate("['click', 'answer', 'sound'].map(n => performance.getEntriesByName('tonelake:' + n)[0].startTime)")
    return {"answer": at[1] - at[0], "sound": at[2] - at[0]}


def pan(page: Any) -> float:
    """Frames a second while the map is dragged for a second."""
    box = page.locator(".map canvas.points").bounding_box()
    page.evaluate("""() => { window.frames_seen = 0; const count = () => { window.frames_seen++; requestAnimationFrame(count); };
                     requestAnimationFrame(count); }""")
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


def payload(address: str) -> float:
    """Megabytes of points and colours."""
    place = f"{address}/tonelake/map/bench/0"
    return sum(len(urllib.request.urlopen(f"{place}/{part}").read()) for part in ("points", "colours?column=cluster")) / 1e6


def measure(count: int) -> dict[str, float]:
    """All figures of one size."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder:
        make_lake(Path(folder), count)
        process, address = served(Path(folder) / "lake")
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                page, cold = open_map(browser, address, count)
                page.close()
                opened = []
                for _ in range(ROUNDS):
                    page, milliseconds = open_map(browser, address, count)
                    opened.append(milliseconds)
                    if len(opened) < ROUNDS:
                        page.close()
                page.wait_for_timeout(1_500)             # names and colours have come
                first = click(page, 1)
                clicks = [click(page, 11 * (i + 1)) for i in range(CLICKS)]
                frames = pan(page)
                browser.close()
            return {
                "first_points_cold_s": cold / 1e3, "first_points_s": statistics.median(opened) / 1e3,
                "first_click_s": first["answer"] / 1e3, "click_s": statistics.median(c["answer"] for c in clicks) / 1e3,
                "sound_s": statistics.median(c["sound"] for c in clicks) / 1e3, "pan_fps": frames, "payload_mb": payload(address),
            }
        finally:
            process.terminate()
            process.wait(20)


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
        rows = [
            [f"{n:,}", f"{v['first_points_s']:.2f}", f"{v['first_points_cold_s']:.2f}", f"{1e3 * v['click_s']:.0f}",
             f"{1e3 * v['first_click_s']:.0f}", f"{1e3 * v['sound_s']:.0f}", f"{v['pan_fps']:.0f}", f"{v['payload_mb']:.2f}"]
            for n, v in found.items()
        ]
        header = ["points", "first points s", "… of a map not read before", "click to neighbours ms", "… the first click",
                  "click to sound ms", "frames a second dragging", "payload MB"]
        about = circumstances("vectors, places and noise, seed 0; Chromium's software rendering, headless, 1400 × 900")
        write_results("ui", "The map in a browser", table(header, rows), about, {}, **{
            name: {str(n): round(v[name], 4) for n, v in found.items()}
            for name in ("first_points_s", "click_s", "payload_mb", "first_points_cold_s", "first_click_s", "sound_s", "pan_fps")
        })


if __name__ == "__main__":
    main()
