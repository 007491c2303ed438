"""The Listen page in Chromium: a misspelt name to songs that sound, chips, uploads, keys alone; in a window and on a phone."""

from __future__ import annotations

import re
import urllib.error
import urllib.parse
import urllib.request

import pytest

pytestmark = pytest.mark.slow
SOUNDING = """clip => {
  const bar = document.querySelector("#tonelake-player")?.shadowRoot.querySelector(".bar");
  return bar?.dataset.clip === clip && bar.dataset.playing === "true";
}"""


def open_listen(page, served: str, state: str = ""):
    """Open the page and return its box, once that is ready."""
    page.goto(f"{served}/{state}")
    page.locator(".finder[data-ready]").wait_for()
    return page.get_by_role("combobox", name=re.compile("Song, artist, album or words"))


def hits_of(page, count: int):
    """Return the rows of the list of hits, once it has this many."""
    rows = page.locator(f".clips[data-count='{count}'] .row")
    rows.first.wait_for()
    return rows


def test_a_misspelt_name_finds_the_song_and_what_is_like_it_can_be_heard(either, served, songs):
    import tonelake
    from tonelake.index import song_of_clip

    box = open_listen(either, served)
    box.fill("sonng 3")
    first = either.get_by_role("option").first
    first.wait_for()
    assert "Song 3" in first.inner_text()
    box.press("Enter")
    song = songs.clips.ids("title = 'Song 3'")[0]
    either.wait_for_url(f"**song={song}**")
    rows = hits_of(either, 5)
    lake = tonelake.open(songs.uri, progress=False)
    best = lake.best_layer()             # where another test has made a layer report, the page starts from it
    layer = None if best is None else best.layer
    expected = lake.similar(song_of_clip(songs, song), k=12, not_same="track", layer=layer)
    assert [row.get_attribute("data-clip") for row in rows.all()] == expected["clip_id"].to_list()
    card = either.locator(f".song[data-song='{song}']")
    assert card.get_by_role("heading").inner_text() == "Song 3" and "/" not in card.inner_text()
    rows.first.get_by_role("button", name=re.compile("^Play ")).click()
    either.wait_for_function(SOUNDING, arg=expected["clip_id"][0])
    either.locator(f".song[data-pictured='{song}'] button.moment").first.click()
    either.wait_for_function(SOUNDING, arg=song)
    width = either.evaluate("document.documentElement.scrollWidth")
    assert width <= either.viewport_size["width"]        # nothing is beside the screen


def test_chips_narrow_the_hits_and_the_address_keeps_them(either, served, songs):
    song = songs.clips.ids("title = 'Song 0'")[0]
    open_listen(either, served, f"?song={song}")
    hits_of(either, 5)
    narrow = either.get_by_role("group", name="Narrow the list")
    narrow.get_by_role("button", name="Artist", exact=True).click()
    narrow.get_by_label("Cleo").check()
    rows = hits_of(either, 2)
    assert all("Cleo" in row.locator(".place").inner_text() for row in rows.all())
    either.wait_for_url("**artist=Cleo**")
    either.reload()
    hits_of(either, 2)
    either.get_by_role("button", name="Remove Artist Cleo").click()
    hits_of(either, 5)


def test_an_artist_of_the_shelf_opens_its_songs(view, served, songs):
    open_listen(view, served)
    artists = view.locator("section[data-column=artist][data-total='3']")
    artists.get_by_role("button", name=re.compile("Béla")).click()
    rows = hits_of(view, 2)
    assert sorted(row.locator(".title").inner_text() for row in rows.all()) == ["Song 1", "Song 4"]
    with view.expect_download() as waiting:
        view.get_by_role("button", name="M3U", exact=True).click()
    assert waiting.value.path().read_text().count("#EXTINF") == 2


def test_an_uploaded_file_finds_its_song_and_one_without_audio_is_explained(either, served, songs, noted, music, tmp_path):
    import soundfile

    samples, rate = soundfile.read(music / "Ada" / "song0.wav")
    soundfile.write(tmp_path / "mine <b>.wav", samples[: 4 * rate] * 0.5, rate)
    open_listen(either, served)
    chooser = either.locator(".finder input[type=file]")
    chooser.set_input_files(tmp_path / "mine <b>.wav")
    either.wait_for_url("**heard=**")
    either.get_by_role("heading", name="Like your file").wait_for()
    # Part of a file is not a recording of the lake, so all six songs are hits.  Rows of the shelf have no scores.
    first = either.locator(".clips[data-count='6'] .row", has=either.locator(".score .bar")).first
    first.wait_for()
    assert first.locator(".title").inner_text() == "Song 0"
    either.get_by_text("mine <b>.wav").wait_for()
    assert either.get_by_label("Your file mine <b>.wav").evaluate("audio => audio.src").startswith("blob:")
    (tmp_path / "notes.txt").write_text("no audio at all")
    chooser.set_input_files(tmp_path / "notes.txt")
    either.get_by_text("notes.txt: this file has no audio that can be read").wait_for()
    assert all("400" in error for error in noted.errors)
    noted.errors.clear()                                 # Chromium logs the refused request
    either.get_by_role("button", name="Start over").click()
    either.locator("section[data-total]").first.wait_for()


def test_uploads_are_refused_from_other_pages_and_past_the_limit(served, music):
    body = (music / "Ada" / "song0.wav").read_bytes()

    def post(body: bytes, **headers: str) -> int:
        request = urllib.request.Request(f"{served}/tonelake/heard?name=x.wav", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    own = {"Origin": served}
    assert post(body, **own) == 200
    assert post(body) == post(body, Origin="http://evil.example") == 403
    assert post(body, **own, **{"Sec-Fetch-Site": "cross-site"}) == post(body, Origin="null") == 403
    assert post(b"", **own) == 400
    assert post(bytes(201 << 20), **own) == 413
    assert post(body, **own, **{"Sec-Fetch-Site": "same-origin"}) == 200          # the server still works


def test_a_song_is_found_opened_and_played_by_keys_alone(either, served, songs):
    open_listen(either, served)
    either.keyboard.press("/")
    either.keyboard.type("Béla")
    either.get_by_role("option").first.wait_for()
    either.keyboard.press("ArrowDown")
    chosen = either.get_by_role("option", selected=True)
    assert "Béla" in chosen.inner_text()
    either.keyboard.press("Escape")
    assert either.get_by_role("option").count() == 0
    either.keyboard.press("ArrowDown")
    either.keyboard.press("Enter")
    either.wait_for_url("**artist=**")
    either.get_by_role("heading", name="2 songs").wait_for()
    hits_of(either, 2).first.locator("button.title").focus()
    either.keyboard.press("Enter")
    either.wait_for_url("**song=**")
    play = either.locator(".song button.play")
    play.wait_for()
    play.focus()
    either.keyboard.press("Enter")
    either.locator(".song[data-playing=yes]").wait_for()
