"""The piano roll in Chromium, on rendered chorales."""

from __future__ import annotations

import polars as pl
import pytest
from app_server import served_lake

from tonelake.store import Lake

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chorales(tmp_path_factory) -> Lake:
    import tonelake

    lake = tonelake.open(tmp_path_factory.mktemp("browser") / "lake", progress=False)
    lake.ingest_chorales(limit=2)
    return lake


@pytest.fixture(scope="module")
def served(chorales):
    with served_lake(chorales.uri) as address:
        yield address


def test_the_piano_roll_plays_and_its_playhead_moves(view, served, chorales):
    import tonelake
    from tonelake.clip_events import clip_events

    clip = chorales.clips.ids()[1]
    notes = chorales.events.read(kinds=["note"]).with_columns(source=pl.lit("predicted:heads"))
    chorales.events.replace(notes.with_columns(pl.col("start_s", "end_s") + 0.01))
    view.goto(f"{served}/frames?clip={clip}")
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
