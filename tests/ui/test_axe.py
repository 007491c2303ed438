"""Accessibility of every page, light and dark, by axe-core: no violation that is serious or critical."""

from __future__ import annotations

from pathlib import Path

import pytest
from app_encoder import LAYER

pytestmark = pytest.mark.slow
PAGES = {                                # address: what is waited for
    "/": ".clips[data-count]", "/?song={clip}": ".clips[data-count='5']", f"/map?layer={LAYER}": ".map[data-colour]",
    "/artists?fewest=2": ".clips[data-count]", "/layers": ".js-plotly-plot", "/probes": "h1",
    "/probes?tab=Confusion": ".js-plotly-plot", "/frames": "h1", "/library": "[data-testid=stDataFrame]",
}
SETTLING = 8                             # most checks of a page; a violation counts if the last one still finds it
IDLE = "() => document.querySelector('.stApp')?.dataset.testScriptState === 'notRunning'"
THEME = "scheme => getComputedStyle(document.querySelector('.stApp')).colorScheme === scheme"
RUN = """() => axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations
  .filter(({ impact }) => ["serious", "critical"].includes(impact))
  .map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map(({ html, any }) =>
    html.slice(0, 160) + " " + any.map(({ message }) => message)).join("; ")}`))"""


@pytest.fixture(scope="module")
def axe() -> str:
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def violations(page, axe: str) -> list[str]:
    """Return the violations of a page in the light and in the dark theme."""
    found = []
    page.evaluate(axe)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.wait_for_function(THEME, arg=scheme)
        for _ in range(SETTLING):        # components follow the theme, late on a busy machine
            page.wait_for_timeout(300)
            some = page.evaluate(RUN)
            if not some:
                break
        found += [f"{scheme}: {one}" for one in some]
    return found


def test_no_page_has_a_serious_violation_light_or_dark(view, served, songs, axe):
    """In one test, because a page that has loaded Streamlit's scripts once loads in a fraction of the time."""
    found = {}
    for address, shown in PAGES.items():
        view.goto(served + address.format(clip=songs.clips.ids()[0]))
        view.locator(shown).first.wait_for()
        view.wait_for_function(IDLE)
        if "song=" in address:
            view.locator(shown).locator(".play").first.click()
            view.locator("#tonelake-player").get_by_role("button", name="Queue, 1 song").click()
        found[address] = violations(view, axe)
    assert not {address: some for address, some in found.items() if some}


def test_a_phone_page_with_an_open_menu_has_no_serious_violation(phone, served, songs, axe):
    phone.goto(f"{served}/?song={songs.clips.ids()[0]}")
    phone.locator(".clips[data-count='5'] .menu").first.tap()
    phone.locator(".actions.open").wait_for()
    assert violations(phone, axe) == []
