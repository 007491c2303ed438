"""The map in Chromium: picking, search, legend, selections, linked layers, keys, and the layout of a window and of a phone."""

from __future__ import annotations

import re

import polars as pl
import pytest
from app_encoder import ENCODER, LAYER, OTHER

pytestmark = pytest.mark.slow
MAP_BOX = """[...document.querySelectorAll("*")].map((e) => e.shadowRoot?.querySelector(".map")).find(Boolean)
  .getBoundingClientRect()"""


def open_map(page, served: str, state: str = ""):
    """Open the map page and return its map once the points are drawn and coloured."""
    page.goto(f"{served}/map?layer={LAYER}{state}")
    page.locator(".map[data-points]").first.wait_for()
    page.locator(".map[data-colour]").first.wait_for()
    return page.locator(".map").first


def point_of(the_map, row: int) -> tuple[float, float]:
    """Return the screen position of a row's point."""
    box = the_map.locator("canvas.points").bounding_box()
    x, y = the_map.evaluate("(map, row) => map.screenOf(row)", row)
    return box["x"] + x, box["y"] + y


def clip_in_player(page) -> str | None:
    return page.locator("#tonelake-player .bar").get_attribute("data-clip")


def draw_around_everything(page, the_map) -> None:
    box = the_map.locator("canvas.points").bounding_box()
    left, top, right, low = box["x"] + 2, box["y"] + 2, box["x"] + box["width"] - 2, box["y"] + box["height"] - 2
    page.mouse.move(left, top)
    page.mouse.down()
    for corner in ((right, top), (right, low), (left, low), (left, top)):
        page.mouse.move(*corner, steps=3)
    page.mouse.up()


def test_a_click_plays_the_song_and_lists_the_hits_of_the_command(view, served, songs):
    import tonelake

    the_map = open_map(view, served, "&points=clips")
    assert the_map.get_attribute("data-points") == str(songs.clips.count())
    view.mouse.click(*point_of(the_map, 3))
    side = the_map.locator(".side[data-answered]")
    side.wait_for()
    clip = side.get_attribute("data-answered")
    assert clip_in_player(view) == clip
    view.wait_for_function("() => performance.getEntriesByName('tonelake:sound').length > 0")
    expected = tonelake.open(songs.uri).similar(clip, layer=LAYER, k=12)
    shown = side.locator("li")
    assert [shown.nth(i).get_attribute("data-clip") for i in range(shown.count())] == expected["clip_id"].to_list()
    assert side.locator("li .score").all_inner_texts() == [f"{score:.3f}" for score in expected["score"]]
    # Down plays the nearest hit, Enter picks it.
    view.keyboard.press("ArrowDown")
    assert clip_in_player(view) == expected["clip_id"][0]
    view.keyboard.press("Enter")
    view.wait_for_url(f"**pick={expected['clip_id'][0]}**")
    side.locator(".listen").click()
    view.wait_for_url(f"**song={expected['clip_id'][0]}**")
    # The address keeps the view: the song is picked, without playing.
    view.evaluate("sessionStorage.clear()")
    view.goto(f"{served}/map?layer={LAYER}&pick={clip}")
    view.locator(f".side[data-clip='{clip}'][data-answered]").wait_for()
    assert view.locator(".map").get_attribute("data-points") == "6"


def test_search_lists_songs_and_enter_plays_the_first_by_keys_alone(either, served):
    the_map = open_map(either, served)
    either.keyboard.press("/")
    either.keyboard.type("sonng 3")
    the_map.locator(".found[data-answered='sonng 3']").wait_for()
    first = the_map.locator(".found .songs li").first
    assert "Song 3" in first.inner_text()
    assert int(the_map.get_attribute("data-bright")) == the_map.locator(".found .songs li").count()
    either.keyboard.press("Enter")
    clip = first.get_attribute("data-clip")
    either.locator(f".side[data-answered='{clip}']").wait_for()
    assert clip_in_player(either) == clip and "sounds" in first.get_attribute("class")
    # Artists are listed too; the arrows lead into the list and back; Escape clears.
    the_map.locator(".tools input").fill("béla")
    the_map.locator(".found[data-answered='béla']").wait_for()
    either.keyboard.press("ArrowDown")
    assert the_map.locator(".found .artists button").evaluate("button => button === button.getRootNode().activeElement")
    assert "2 songs" in the_map.locator(".found .artists").inner_text()
    either.keyboard.press("Escape")
    the_map.locator(".found").wait_for(state="hidden")
    assert the_map.get_attribute("data-bright") == "6"
    # Keys on the map: zoom, move, and pick what is in the middle.
    zoomed = the_map.evaluate("map => map.screenOf(0)[0] - map.screenOf(1)[0]")
    either.keyboard.press("+")
    assert abs(the_map.evaluate("map => map.screenOf(0)[0] - map.screenOf(1)[0]")) > 1.3 * abs(zoomed)
    before = the_map.evaluate("map => map.screenOf(0)")
    either.keyboard.press("ArrowRight")
    assert the_map.evaluate("map => map.screenOf(0)")[0] == pytest.approx(before[0] - 60)
    either.keyboard.press("0")
    either.keyboard.press("Enter")
    box = the_map.locator(".stage").bounding_box()
    nearest = the_map.evaluate(
        "(map, [x, y]) => [0, 1, 2, 3, 4, 5].sort((a, b) => Math.hypot(map.screenOf(a)[0] - x, map.screenOf(a)[1] - y)"
        " - Math.hypot(map.screenOf(b)[0] - x, map.screenOf(b)[1] - y))[0]", [box["width"] / 2, box["height"] / 2]
    )
    row = either.request.get(f"{served}/tonelake/songs/{ENCODER}/{LAYER}/point?row={nearest}").json()
    either.locator(f".side[data-answered='{row['clip_id']}']").wait_for()


def test_the_legend_shows_hides_and_recolours_values(view, served):
    the_map = open_map(view, served, "&colour=artist")
    assert the_map.locator(".legend .name").all_inner_texts() == ["Ada", "Béla", "Cleo"]
    the_map.get_by_label("Show only Béla").click()
    assert the_map.get_attribute("data-bright") == "2"
    the_map.locator(".legend .value").first.click()
    assert the_map.get_attribute("data-bright") == "4"
    the_map.locator(".legend .all").click()
    assert the_map.get_attribute("data-bright") == "6"
    # Twelve values have a colour, the most frequent ones; a value that is chosen takes the colour of the least frequent.
    shown = view.evaluate("""async () => {
      const { Legend } = await import("/tonelake/static/legend.js"), place = document.createElement("div");
      const legend = new Legend(place, { recoloured() {}, changed() {} });
      const names = Array.from({ length: 30 }, (_, i) => `v${i + 1}`), counts = names.map(() => 10);
      legend.show({ column: "x", kind: "categories", codes: 30, values: 30, points: 300, missing: 0, names, counts }, "");
      const before = [...place.querySelectorAll(".entry .name")].map((name) => name.textContent);
      legend.swap({ code: 30, name: "v30", count: 10 });
      legend.hidden = new Set([-1, 30]);
      return [before, legend.slots, [...legend.hiddenCodes()]];
    }""")
    assert shown[0] == [*(f"v{n}" for n in range(1, 13)), "other (18 values)"]
    assert shown[1] == [*range(1, 12), 30]
    assert shown[2] == [0, *[0] * 11, *[1] * 18, 1]


def test_a_selection_is_queued_saved_and_offered_as_a_filter(either, served, songs):
    the_map = open_map(either, served)
    either.keyboard.down("Shift")
    draw_around_everything(either, the_map)
    either.keyboard.up("Shift")
    chosen = the_map.locator(".chosen[data-answered]")
    chosen.wait_for()
    assert chosen.locator("h2").inner_text() == "Selected: 6 songs, 18 clips"
    chosen.get_by_role("button", name="Add to queue").click()
    assert either.locator("#tonelake-player .bar").get_attribute("data-count") == "6"
    with either.expect_download() as waiting:
        chosen.get_by_role("link", name="M3U").click()
    saved = waiting.value.path().read_text(encoding="utf-8").splitlines()[2::2]
    assert sorted(saved) == sorted(songs.clips.read(["source"])["source"].unique())
    with either.expect_download() as waiting:
        chosen.get_by_role("link", name="CSV").click()
    assert sorted(pl.read_csv(waiting.value.path())["clip_id"]) == sorted(songs.clips.ids())
    either.wait_for_url(re.compile("lasso=[^&]*~songs"))
    lasso = re.search("lasso=[^&]*", either.url)[0]
    chosen.get_by_role("button", name="Play all").click()
    either.locator("#tonelake-player .bar[data-playing=true]").wait_for()
    chosen.get_by_label("Clear the selection").click()
    the_map.locator(".chosen").wait_for(state="hidden")
    either.goto(f"{served}/artists?{lasso}")
    either.get_by_text("Only the 18 selected on the map").wait_for(state="attached")


def test_a_layer_beside_is_linked(either, served):
    the_map = open_map(either, served, f"&beside={OTHER}&colour=artist")
    maps = either.locator(".map[data-colour]")
    maps.nth(1).wait_for()
    assert [maps.nth(i).get_attribute("data-layer") for i in range(2)] == [LAYER, OTHER]
    either.mouse.click(*point_of(the_map, 5))
    sides = either.locator(".side[data-answered]")
    sides.nth(1).wait_for()
    assert sides.nth(0).get_attribute("data-answered") == sides.nth(1).get_attribute("data-answered")
    maps.nth(1).get_by_label("Show only Cleo").click()
    either.locator(".map[data-bright='2']").nth(1).wait_for()
    maps.nth(1).locator(".legend .all").click()
    the_map.get_by_label("Select by drawing around points").click()
    draw_around_everything(either, the_map)
    the_map.locator(".chosen[data-answered]").wait_for()
    assert maps.nth(1).get_attribute("data-bright") == "6"


@pytest.mark.parametrize("size", ["window", "phone"])
def test_the_map_fills_the_window_and_nothing_covers_it(request, served, size):
    page = request.getfixturevalue("phone" if size == "phone" else "view")
    the_map = open_map(page, served)
    height = page.viewport_size["height"]
    box = the_map.bounding_box()
    assert height - 24 < box["y"] + box["height"] <= height
    press = page.touchscreen.tap if size == "phone" else page.mouse.click
    press(*point_of(the_map, 2))
    the_map.locator(".side[data-answered]").wait_for()
    page.wait_for_function(f"""() => {{
      const top = document.querySelector("#tonelake-player").shadowRoot.querySelector(".bar").getBoundingClientRect().top;
      const {{ bottom }} = {MAP_BOX};
      return top < innerHeight - 40 && bottom <= top && bottom > top - 24;
    }}""")
    stage, panel = (the_map.locator(part).bounding_box() for part in (".stage", ".panel"))
    if size == "phone":
        assert panel["y"] >= stage["y"] + stage["height"] - 1 and stage["height"] > 150
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    else:
        assert panel["x"] >= stage["x"] + stage["width"] - 1 and stage["width"] > 900
    for row in range(6):
        x, y = the_map.evaluate("(map, row) => map.screenOf(row)", row)
        assert 0 < x < stage["width"] and 0 < y < stage["height"]
    # Two fingers zoom around their middle.
    apart = the_map.evaluate("""map => {
      const canvas = map.querySelector("canvas.points"), box = canvas.getBoundingClientRect();
      const wide = () => Math.abs(map.screenOf(0)[0] - map.screenOf(1)[0]), before = wide();
      canvas.setPointerCapture = () => {};
      for (const [kind, id, x] of [["down", 7, 150], ["down", 8, 170], ["move", 8, 210], ["up", 8, 210], ["up", 7, 150]]) {
        canvas.dispatchEvent(new PointerEvent(`pointer${kind}`, {
          pointerId: id, pointerType: "touch", button: 0, bubbles: true, clientX: box.left + x, clientY: box.top + 100 }));
      }
      return wide() / before;
    }""")
    assert apart == pytest.approx(3, rel=0.01)
