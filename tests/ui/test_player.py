"""The player at the foot of the window: it plays whole recordings, keeps its queue and place, and follows the keys."""

from __future__ import annotations

import re

import pytest

from tonelake.index import song_of_clip

pytestmark = pytest.mark.slow
BAR = "#tonelake-player .bar"
WAIT = """([selector, name, test]) => {
  const bar = document.querySelector("#tonelake-player")?.shadowRoot.querySelector(selector);
  return bar && new Function("value", `return ${test}`)(bar.dataset[name]);
}"""


def wait_for(view, name: str, test: str) -> None:
    """Wait until an attribute of the player fulfils a test, a JavaScript expression of `value`."""
    view.wait_for_function(WAIT, arg=[".bar", name, test])


def open_songs(view, served: str, songs) -> list[str]:
    """Open a page that lists songs; return the clip ids of the list."""
    view.goto(f"{served}/?song={songs.clips.ids()[0]}")
    rows = view.locator(".clips[data-count='5'] .row")           # the other songs of the lake
    rows.first.wait_for()
    return [row.get_attribute("data-clip") for row in rows.all()]


def test_a_song_plays_on_across_pages_and_waits_at_its_place_after_a_reload(view, served, songs):
    listed = open_songs(view, served, songs)
    row = view.locator(f".row[data-clip='{listed[0]}']")
    row.get_by_role("button", name=re.compile("^Play ")).click()
    wait_for(view, "playing", "value === 'true'")
    bar = view.locator(BAR)
    title = row.locator(".title").inner_text()
    assert bar.get_attribute("data-clip") == listed[0] and bar.locator(".title").inner_text() == title
    assert row.get_by_role("button", name=f"Pause {title}").count() == 1
    view.evaluate("window.unchanged = true")             # lost if the document is loaded again
    view.get_by_role("link", name="Library").click()
    view.get_by_role("heading", name="Library").wait_for()
    at = float(bar.get_attribute("data-at"))
    wait_for(view, "at", f"value > {at}")
    assert view.evaluate("window.unchanged") and view.locator("audio").count() == 1
    bar.get_by_role("button", name="Pause").click()
    wait_for(view, "playing", "value === 'false'")
    at = float(bar.get_attribute("data-at"))
    view.reload()
    wait_for(view, "clip", f"value === '{listed[0]}'")
    assert abs(float(bar.get_attribute("data-at")) - at) < 0.5 and bar.get_attribute("data-playing") == "false"
    bar.get_by_role("button", name="Play").click()
    wait_for(view, "at", f"value > {at}")


def test_space_plays_and_arrows_seek_also_after_a_click_on_a_button(view, served, songs):
    open_songs(view, served, songs)
    view.locator(".clips .play").last.click()
    wait_for(view, "playing", "value === 'true'")
    view.keyboard.press(" ")                             # the button that was clicked does not play the row again
    wait_for(view, "playing", "value === 'false'")
    view.evaluate("import('/tonelake/static/player.js').then((player) => player.seekTo(1))")
    view.get_by_role("heading").first.click()
    view.keyboard.press("ArrowRight")
    wait_for(view, "at", "Math.abs(value - 6) < 0.1")
    view.keyboard.press("ArrowLeft")
    wait_for(view, "at", "Math.abs(value - 1) < 0.1")
    view.keyboard.press(" ")
    wait_for(view, "playing", "value === 'true'")
    # In a text field, the keys write.
    view.keyboard.press(" ")
    field = view.locator("input[type=text], input[type=search], [role=combobox]").first
    field.click()
    view.keyboard.type("a b")
    view.keyboard.press("Escape")                        # closes suggestions
    assert view.locator(BAR).get_attribute("data-playing") == "false"
    # A button that was reached by the Tab key is pressed by Space.
    view.locator(BAR).get_by_role("button", name="Play").focus()
    view.keyboard.press("Tab")
    view.keyboard.press("Shift+Tab")
    view.keyboard.press(" ")
    wait_for(view, "playing", "value === 'true'")


def test_the_queue_is_ordered_saved_and_cleared(either, served, songs):
    listed = open_songs(either, served, songs)
    either.get_by_role("group", name=re.compile("^Play or queue")).get_by_role("button", name="Add to queue").click()
    wait_for(either, "count", "value === '5'")
    bar = either.locator(BAR)
    assert bar.get_attribute("data-playing") == "false"
    bar.get_by_role("button", name=re.compile("^Queue, 5 songs")).click()
    panel = bar.get_by_role("region", name="Queue")
    titles = panel.locator("li b").all_inner_texts()
    panel.get_by_role("button", name=f"Move {titles[0]} down").click()
    panel.get_by_role("button", name=f"Remove {titles[4]} from the queue").click()
    assert panel.locator("li b").all_inner_texts() == [titles[1], titles[0], *titles[2:4]]
    with either.expect_download() as saved:
        panel.get_by_role("button", name="Save the queue").click()
    lines = saved.value.path().read_text().splitlines()
    paths = dict(songs.clips.take(listed).select("clip_id", "source").iter_rows())
    assert lines[2::2] == [paths[listed[i]] for i in (1, 0, 2, 3)]
    panel.get_by_role("button", name=f"Play {titles[3]}").click()
    wait_for(either, "playing", "value === 'true'")
    assert bar.get_attribute("data-clip") == listed[3]
    either.keyboard.press("Escape")
    assert panel.count() == 0 and either.locator(BAR).get_by_role("button", name="Next song").is_disabled()
    bar.get_by_role("button", name=re.compile("^Queue, 4 songs")).click()
    panel.get_by_role("button", name="Clear the queue").click()
    either.locator(BAR).wait_for(state="hidden")


def test_hits_play_from_their_moment_and_songs_and_the_queue_from_the_beginning(view, served, songs):
    song = songs.clips.ids()[0]
    hits = songs.similar(song_of_clip(songs, song), k=12, not_same="track")
    late = next(row for row in hits.iter_rows(named=True) if row["start_s"] > 0)
    view.goto(f"{served}/?song={song}")
    row = view.locator(f".row[data-clip='{late['clip_id']}']")
    row.get_by_role("button", name=re.compile("^Play ")).click()
    wait_for(view, "at", f"value >= {late['start_s']}")
    view.locator(BAR).get_by_role("button", name="Pause").click()
    view.get_by_role("group", name=re.compile("^Play or queue")).get_by_role("button", name="Play all").click()
    wait_for(view, "at", "value < 1")
    starts = view.evaluate("JSON.parse(sessionStorage.getItem('tonelake.player')).songs.map((song) => song.start_s)")
    assert starts == [0] * 5
    view.goto(f"{served}/")
    row = view.locator(".clips .row").first              # songs to start from
    row.wait_for()
    assert ":" not in row.locator(".place").inner_text()


def test_a_file_that_is_gone_is_named_in_a_sentence(view, served, songs, noted):
    open_songs(view, served, songs)
    sentence = "one.mp3: the file is gone. Put it back, or ingest its folder again to mark it as missing"
    view.route("**/tonelake/recording/**", lambda route: route.fulfill(status=404, json={"error": sentence}))
    view.locator(".clips .play").first.click()
    view.locator(BAR).get_by_text(sentence).wait_for()
    noted.errors.clear()                                 # the browser reports the failed requests


def test_on_a_phone_the_player_covers_nothing_and_each_row_has_one_menu(phone, served, songs):
    listed = open_songs(phone, served, songs)
    phone.locator(".clips .play").last.tap()
    wait_for(phone, "playing", "value === 'true'")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    phone.locator("[data-testid=stMain]").evaluate("page => page.scrollTo(0, page.scrollHeight)")
    bar = phone.locator(BAR).bounding_box()
    last = phone.locator("[data-testid=stMainBlockContainer] > * > *").last.bounding_box()
    assert last["y"] + last["height"] <= bar["y"] and bar["y"] + bar["height"] == 844
    row = phone.locator(f".row[data-clip='{listed[0]}']")
    row.scroll_into_view_if_needed()
    visible = [button for button in row.get_by_role("button").all() if button.is_visible()]
    assert [button.get_attribute("class") for button in visible][::2] == ["play", "menu"]
    assert all(button.bounding_box()["height"] >= 44 for button in visible[::2])
    visible[-1].tap()
    row.get_by_role("button", name=re.compile("^Queue: ")).tap()
    wait_for(phone, "count", "value === '2'")
