"""Take pictures of every page of the app for the docs, light and dark, from a lake of rendered chorales.

    python -m bench.screenshots --lake /tmp/chorales          # the lake is made on the first run: five minutes
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.ui import ARGUMENTS, CHROMIUM, HOME, served

PICTURES = HOME / "docs" / "app"
SPACE, LAYER = "musicnn", "mtt.timbral"    # the layer that separates keys best
LAYERS = (LAYER, "mtt.max", "joined")    # with maps
CHORALES = 120


def make_lake(path: Path) -> None:
    """Make a lake of chorales in two spaces, with three mapped layers and a probe of their keys."""
    import tonelake

    lake = tonelake.open(path, progress=True)
    lake.ingest_chorales(limit=CHORALES)
    lake.embed(SPACE)
    lake.embed("spectral")
    for layer in LAYERS:
        lake.map(layer, space=SPACE)
    if not len(lake.compare_probes()):
        lake.probe("key", space="spectral")
        lake.probe("key", space=SPACE)   # the newest run is shown first


def wait_for_sound(page: Any) -> None:
    """Wait until the visible spectrograms have loaded."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('*')].filter(e => e.shadowRoot)"
        ".flatMap(e => [...e.shadowRoot.querySelectorAll('img')])"
        ".every(img => img.complete || img.getBoundingClientRect().top > innerHeight)", timeout=120_000,
    )


def pictures(page: Any, address: str, lake: Any) -> dict[str, Any]:
    """Return the actions that show each page, by the picture's name."""
    clip = lake.clips.read(["clip_id", "title"]).filter(title="Nun lob, mein Seel, den Herren")
    clip_id = (clip if len(clip) else lake.clips.read(["clip_id"]))["clip_id"][2]

    def at(path: str, text: str, pause: float = 2.5) -> None:
        page.goto(address + path)
        page.get_by_text(text).first.wait_for(timeout=120_000)
        page.get_by_test_id("stStatusWidget").wait_for(state="detached", timeout=120_000)       # the page has run to its end
        page.wait_for_timeout(1_000 * pause)

    def the_map() -> None:
        page.goto(f"{address}/map?space={SPACE}&layer={LAYER}&colour=key&pick={clip_id}")
        page.locator(".side[data-answered]").wait_for(timeout=120_000)
        page.locator(".map").first.evaluate("map => map.blur()")
        wait_for_sound(page)
        page.wait_for_timeout(2_500)

    def two_maps() -> None:
        page.goto(f"{address}/map?space={SPACE}&layer={LAYER}&beside=joined&colour=key&pick={clip_id}")
        page.locator(".side[data-answered]").nth(1).wait_for(timeout=120_000)
        page.wait_for_timeout(3_000)

    def similar() -> None:
        page.goto(f"{address}/similar?space={SPACE}&layer={LAYER}&clip={clip_id}")
        page.locator(".clips[data-count='12']").wait_for(timeout=120_000)
        page.wait_for_timeout(1_500)
        wait_for_sound(page)
        page.wait_for_timeout(1_500)

    return {
        "library": lambda: at("/", "Label columns"), "map": the_map, "layers-beside": two_maps, "similar": similar,
        "groups": lambda: at(f"/groups?space={SPACE}&column=key&tab=Matrix", "Ordered so that similar groups", 4),
        "layers": lambda: at(f"/layers?space={SPACE}&column=key&beside=spectral", "Cosines", 6),
        "probes": lambda: at("/probes?tab=Confusion", "Rows: label", 5),
    }


def main() -> None:
    from playwright.sync_api import sync_playwright

    from tonelake.store import Lake

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lake", type=Path, default=Path("/tmp/chorales"))
    path = parser.parse_args().lake
    make_lake(path)
    PICTURES.mkdir(parents=True, exist_ok=True)
    process, address = served(path)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            for scheme in ("light", "dark"):
                settings: Any = {"viewport": {"width": 1360, "height": 880}, "color_scheme": scheme}
                context = browser.new_context(**settings)
                page = context.new_page()
                for name, show in pictures(page, address, Lake(path)).items():
                    show()
                    page.screenshot(path=PICTURES / f"{name}-{scheme}.png")
                    print(f"{name}-{scheme}.png", flush=True)
                context.close()
            browser.close()
    finally:
        process.terminate()
        process.wait(20)


if __name__ == "__main__":
    main()
