"""Fixtures of the app's browser tests: a lake of songs, the app on it, and pages at the size of a window and of a phone."""

from __future__ import annotations

import sys

import pytest
from app_encoder import ENCODER, LAYER, OTHER
from app_server import ARGUMENTS, CHROMIUM, DESKTOP, PHONE, Noted, browser_page, served_lake

from tonelake.store import Lake


@pytest.fixture(autouse=True)
def _restored_main(monkeypatch):
    """Restore `__main__`: the harness of pages replaces it with the page, which processes of later tests would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session")
def songs(tmp_path_factory, music) -> Lake:
    """A lake of the test music: six songs by three artists in 18 clips, two maps, a probe of artists.  Do not change it."""
    import tonelake

    lake = tonelake.open(tmp_path_factory.mktemp("songs") / "lake", progress=False)
    lake.ingest_folder(music, seconds=3.0)
    lake.embed(ENCODER, precision="float32")
    for layer in (OTHER, LAYER):
        lake.map(layer, method="pca")
    lake.probe("artist", layers=(OTHER,), epochs=3, seeds=1, split="random", rates=(1e-2,), decays=(0.0,), name="artists")
    return lake


@pytest.fixture(scope="session")
def served(songs):
    """The address of the app on the lake of songs.  A module with a lake of its own overrides this fixture."""
    with served_lake(songs.uri) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    """Chromium.  Not for the session: Playwright's event loop must not run during tests that use one themselves."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture
def noted(served) -> Noted:
    """Errors and requests of the test's pages.  A test that provokes an error in the browser empties `noted.errors`."""
    return Noted(served)


@pytest.fixture
def view(browser, noted):
    """A page of 1400 × 900 that fails on errors and on requests to other hosts."""
    with browser_page(browser, noted, viewport=DESKTOP) as page:
        yield page


@pytest.fixture
def phone(browser, noted):
    """A page of 390 × 844 with touch, otherwise as `view`."""
    with browser_page(browser, noted, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        yield page


@pytest.fixture(params=["view", "phone"])
def either(request):
    """A page of a window, then of a phone."""
    return request.getfixturevalue(request.param)
