"""Take pictures of every page of the app for the docs, in a window and on a phone, light and dark.

The music is that of `bench.real`: freely licensed game music from Debian packages; pictures show titles, artists and
spectrograms.  The piano roll needs notes, so the page Frames shows a chorale.  Both lakes are made on the first run.

    python -m bench.screenshots                       # fetches 1.5 GB first, once; half an hour, later ten minutes
    python -m bench.screenshots --lake L --only song library
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.ui import ARGUMENTS, CHROMIUM, HOME, WINDOW, served

PICTURES = HOME / "docs" / "app"
PHONE = {"width": 390, "height": 844}
CLIP_S, CLIPS = 30.0, 3                  # of each song
SPACE, LAYER = "musicnn", "joined"       # the layer that finds artists best
LAYERS = (LAYER, "mtt.timbral", "mtt.max")       # with maps
COLUMN, PROBED = "artist", "game"
CHORALES = 12
COLOURS = 256                            # of a picture: a third of the bytes
SONG = "Battle Music"                    # the song that is chosen; another one if the music lacks it
PLAYED = 1                               # number of the hit that is heard
Show = Callable[[Any, str], None]        # brings a page of the app at an address to what is pictured


def make_lake(path: Path, music: Path) -> None:
    """Make a lake of game music in two spaces, with mapped layers, a probe of the games and a layer report."""
    import tonelake
    from bench.real import write_labels

    labels = path.parent / "labels.csv"
    write_labels(music, labels)
    lake = tonelake.open(path)
    lake.ingest_folder(music, seconds=CLIP_S, per_track=CLIPS, labels=labels)
    lake.embed(SPACE, tags=True)
    lake.embed("spectral")
    for layer in LAYERS:
        lake.map(layer, space=SPACE)
    if not len(lake.compare_probes()):
        lake.probe(PROBED, space=SPACE)
    lake.layers(COLUMN, space=SPACE)


def make_chorales(path: Path) -> None:
    """Make a lake of chorales with their notes."""
    import tonelake

    lake = tonelake.open(path)
    lake.ingest_chorales(limit=CHORALES)
    lake.embed("spectral")


def wait_for_page(page: Any, pause_s: float) -> None:
    """Wait until the page's script has run to its end and its visible pictures have loaded."""
    page.get_by_test_id("stApp").wait_for(timeout=120_000)
    page.wait_for_timeout(1_000)
    page.get_by_test_id("stStatusWidget").wait_for(state="detached", timeout=120_000)
    page.wait_for_load_state("networkidle", timeout=120_000)             # scripts and data of the components
    page.wait_for_function(
        "() => [...document.querySelectorAll('*')].filter(e => e.shadowRoot)"
        ".flatMap(e => [...e.shadowRoot.querySelectorAll('img')])"
        ".every(img => img.complete || !img.offsetHeight || img.getBoundingClientRect().top > innerHeight)", timeout=120_000,
    )
    page.wait_for_timeout(1_000 * pause_s)


def at(path: str, pause_s: float = 2.0) -> Show:
    """Return what opens an address."""
    def show(page: Any, address: str) -> None:
        page.goto(address + path)
        wait_for_page(page, pause_s)

    return show


def playing_song(path: str) -> Show:
    """Return what opens a song and plays one of its hits."""
    def show(page: Any, address: str) -> None:
        at(path)(page, address)
        page.locator(".st-key-hits .play").nth(PLAYED).click()
        page.wait_for_timeout(4_000)
        wait_for_page(page, 1.0)

    return show


def pages_of(clip_id: str) -> dict[str, Show]:
    """Return what shows each page, by the picture's name."""
    place = f"/map?space={SPACE}&layer={LAYER}"
    return {
        "listen": at("/"), "song": playing_song(f"/?song={clip_id}&space={SPACE}&layer={LAYER}"),
        "map": at(f"{place}&colour={PROBED}&pick={clip_id}", 4),
        "layers-beside": at(f"{place}&beside=mtt.timbral&colour={PROBED}&pick={clip_id}", 4),
        "artists": at(f"/artists?space={SPACE}&layer={LAYER}&column={COLUMN}", 4),
        "layers": at(f"/layers?space={SPACE}&column={COLUMN}", 5), "probes": at("/probes?tab=Confusion", 5),
        "library": at("/library"),
    }


def chosen_clip(lake: Any) -> str:
    """Return the first clip of SONG, or of the song with most clips."""
    clips = lake.clips.read(["clip_id", "title", "artist"], where="title IS NOT NULL AND artist IS NOT NULL")
    found = clips.filter(title=SONG)
    return (found if len(found) else clips)["clip_id"][0]


def save_picture(page: Any, file: Path) -> None:
    """Write a picture of the window with few colours."""
    from PIL import Image

    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.name}: {file.stat().st_size / 1e3:.0f} KB", flush=True)


def take(lake: Path, shows: dict[str, Show], only: list[str], into: Path) -> None:
    """Serve a lake and take its pictures, four of each page."""
    from playwright.sync_api import sync_playwright

    process, address = served(lake)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            for prefix, size in (("", WINDOW), ("phone-", PHONE)):
                for scheme in ("light", "dark"):
                    phone = bool(prefix)
                    settings: Any = {"viewport": size, "color_scheme": scheme, "has_touch": phone, "is_mobile": phone}
                    for name, show in shows.items():
                        if not only or name in only:
                            context = browser.new_context(**settings)        # a player without a song
                            page = context.new_page()
                            show(page, address)
                            save_picture(page, into / f"{prefix}{name}-{scheme}.png")
                            context.close()
            browser.close()
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    from bench.real_music.packages import fetch_music
    from tonelake.store import Lake, cache_folder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=cache_folder() / "real-music", help="where music and lakes are kept")
    parser.add_argument("--debs", type=Path, help="where packages are, or are downloaded to; default: FOLDER/debs")
    parser.add_argument("--lake", type=Path, help="a lake that was made before; default: made in FOLDER")
    parser.add_argument("--chorales", type=Path, help="a lake of chorales that was made before; default: made in FOLDER")
    parser.add_argument("--only", nargs="*", default=[], metavar="PAGE", help="names of pictures; default: all")
    parser.add_argument("--into", type=Path, default=PICTURES, help="folder of the pictures")
    options = parser.parse_args()
    lake, chorales = options.lake or options.folder / "pictures", options.chorales or options.folder / "chorales"
    if options.lake is None:
        fetch_music(options.folder / "music", options.debs or options.folder / "debs")
        make_lake(lake, options.folder / "music")
    options.into.mkdir(parents=True, exist_ok=True)
    clip_id = chosen_clip(Lake(lake))
    take(lake, pages_of(clip_id), options.only, options.into)
    if not options.only or "frames" in options.only:
        if options.chorales is None:
            make_chorales(chorales)
        take(chorales, {"frames": at("/frames", 6)}, options.only, options.into)


if __name__ == "__main__":
    main()
