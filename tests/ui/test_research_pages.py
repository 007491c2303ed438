"""The pages Artists, Layers, Probes and Frames in Streamlit's test harness: figures of the commands, songs, sentences."""

from __future__ import annotations

import json
import re
from urllib.parse import parse_qs, urlsplit

import polars as pl
import pytest
from app_encoder import OTHER
from app_pages import listed, page, text_of
from app_server import needs_chromium
from fakes import fill

import tonelake


@pytest.fixture(scope="module")
def audible(songs):
    """The lake of songs, as users open it."""
    return tonelake.open(songs.uri, progress=False)


# -- artists


def test_the_nearest_artists_are_those_of_the_command_with_songs_to_enter_by(audible, monkeypatch):
    shown = listed(monkeypatch)
    test = page("artists", audible, monkeypatch, column="artist", layer=OTHER, group="Ada", fewest="2")
    expected = audible.groups("artist", "Ada", layer=OTHER, min_tracks=2)
    assert test.dataframe[0].value["artist"].to_list() == expected["artist"].to_list()
    assert f"{expected['artist'][0]}" in text_of(test) and f"{expected['similarity'][0]:.2f}" in text_of(test)
    entries = audible.entry_songs("artist", "Ada", expected["artist"].to_list(), layer=OTHER, min_tracks=2)
    for number, name in enumerate(expected["artist"]):
        rows = shown[f"enter {number}"]["clips"]
        own = entries.filter(group=name)
        assert [row["clip_id"] for row in rows] == own["clip_id"].to_list() and {row["artist"] for row in rows} == {name}
        assert [row["why"] for row in rows] == [f"near {title}" for title in own["near_title"]]
    assert len(test.get("plotly_chart")) == 1


def test_the_matrix_has_sorted_pairs_beside_it_and_a_name_can_be_looked_up(lake, monkeypatch):
    fill(lake, 24, 2, seed=1)
    opened = tonelake.open(lake.uri, progress=False)
    test = page("artists", lake, monkeypatch, tab="Matrix and pairs")
    pairs = opened.group_pairs("artist")
    assert test.dataframe[0].value["other"].to_list() == pairs["other"].to_list() and test.get("plotly_chart")
    near = page("artists", lake, monkeypatch, tab="Matrix and pairs", find="Artist 2").dataframe[0].value
    assert len(near) == 5 and set(near["one"]) == {"Artist 2"}
    assert near["other"].to_list() == opened.groups("artist", "Artist 2")["artist"].to_list()


def test_typical_and_unusual_songs_and_all_groups_are_those_of_the_commands(audible, monkeypatch):
    shown = listed(monkeypatch)
    page("artists", audible, monkeypatch, column="artist", tab="Typical and unusual", layer=OTHER, fewest="2", of="all")
    expected = audible.typical("artist", k=10, layer=OTHER)
    assert [row["clip_id"] for kind in ("typical", "unusual") for row in shown[kind]["clips"]] == expected["clip_id"].to_list()
    test = page("artists", audible, monkeypatch, column="artist", tab="All", layer=OTHER, fewest="2")
    plain = ["artist", "clips", "tracks", "cohesion", "similarity"]
    groups = audible.groups("artist", layer=OTHER, min_tracks=2).select(plain)
    assert pl.from_pandas(test.dataframe[0].value[plain]).equals(groups)


def test_too_few_songs_are_said_with_the_next_step(audible, monkeypatch):
    text = text_of(page("artists", audible, monkeypatch, column="artist"))
    assert "0 groups of 3 in this column have 3 songs or more. Lower the minimum" in text
    one = text_of(page("artists", audible, monkeypatch, column="artist", fewest="1", where="artist = 'Ada'"))
    assert "1 group of 1 in this column has 1 song or more" in one


# -- layers


def test_the_layer_report_is_that_of_the_command_and_its_answer_is_a_sentence(audible, monkeypatch):
    test = page("layers", audible, monkeypatch, column="artist")
    report = audible.layers("artist")
    assert report.summary() in text_of(test) and str(report.best) in text_of(test)
    assert test.dataframe[-1].value["map"].to_list() == report.table["map"].to_list()
    assert len(test.get("plotly_chart")) == 3
    assert [button.label for button in test.button] == ["Use this layer"]
    started = page("artists", audible, monkeypatch, column="artist", fewest="2")
    assert started.select_slider(key="layer").value == audible.best_layer(column="artist").layer


# -- probes


def test_a_selected_confusion_lists_its_clips(audible, monkeypatch):
    from tonelake import probes

    run = probes.Run.named(audible, "artists")
    judged = run.table("predictions")
    truth, said = judged["target"][0], judged["predicted"][0]
    shown = listed(monkeypatch)
    test = page("probes", audible, monkeypatch, tab="Confusion", true=truth, said=said)
    expected = probes.review(audible, run, target=truth, predicted=said, k=None)
    assert [row["clip_id"] for row in shown["judged"]["clips"]] == expected["clip_id"].to_list()
    assert {row["note"] for row in shown["judged"]["clips"]} == {f"{truth} → {said}"}
    assert run.summary() in text_of(test) and probes.describe_precision(run.metrics, run.config.split) in text_of(test)
    ranked = probes.rank_confusions(run.table("confusion"))
    lists = [frame.value for frame in test.dataframe if "predicted" in frame.value.columns]
    assert len(ranked) == 0 or lists[0]["clips"].to_list() == ranked["clips"].to_list()
    page("probes", audible, monkeypatch, tab="Clips", by="confidence")
    worst = probes.review(audible, run, by="confidence", k=None)
    assert [row["clip_id"] for row in shown["judged"]["clips"]] == worst["clip_id"].to_list()
    assert [row["score"] for row in shown["judged"]["clips"]] == sorted(worst["probability"])
    classes = page("probes", audible, monkeypatch, tab="Classes").dataframe
    assert any("f1" in frame.value.columns and "support" in frame.value.columns for frame in classes)


def test_a_fine_tune_is_shown_beside_its_frozen_baseline_with_its_seeds(lake, monkeypatch):
    from tonelake.finetune import FinetuneRun

    fill(lake, 4, 1, seed=0)
    files = FinetuneRun.folder(lake, "tuned")
    files.put_text("config.yaml", "column: kind\ntask: multilabel\nspace: fake\ndigest: abc\n")
    figure = {name: {"map": {"value": value, "low": value - 0.1, "high": value + 0.1}} for name, value in (
        ("tuned", 0.6), ("frozen", 0.5), ("difference", 0.1)
    )}
    files.put_text("metrics.json", json.dumps({
        "main": "map", "space": "fake", "figures": figure["tuned"], "clips": 4, "trainable": 5, "epochs": 2,
        "task": "multilabel", "frozen": {"head": "same", "figures": figure["frozen"], "train": 0.7},
        "difference": figure["difference"], "over": "over 4 tracks and 2 seeds",
        "baselines": {"chance": {"map": {"value": 0.3, "low": None, "high": None}}},
        "seeds": [0, 1], "kept_seed": 1, "notes": [], "summary": "s", "finished": "2026-11-29",
    }))
    classes = pl.DataFrame({
        "name": ["x", "y"], "support": [2, 2], "recall": [0.5, 1.0], "primary_accuracy": [0.5, 0.5],
        "frozen_primary_accuracy": [0.0, 0.5],
    })
    seeds = pl.DataFrame({"seed": [0, 1], "kept": [False, True], "test": [0.5, 0.7]})
    history = pl.DataFrame({
        "epoch": [1, 2], "loss": [1.0, 0.5], "valid_loss": [1.0, 0.7], "valid": [0.2, 0.4], "valid_map": [0.2, 0.4],
        "valid_accuracy": [0.5, 0.5],
    })
    layers = pl.DataFrame({"layer": ["0", "high"], "share": [0.2, 0.8]})
    for name, table in (("classes", classes), ("seeds", seeds), ("history", history), ("layers", layers)):
        files.put(f"{name}.parquet", table.write_parquet)
    test = page("probes", lake, monkeypatch)
    runs, figures, shown = (frame.value for frame in test.dataframe)
    assert (runs["frozen"][0], runs["difference"][0], runs["chance"][0], runs["seeds"][0]) == (0.5, 0.1, 0.3, 2)
    row = figures.iloc[0]
    assert (row["frozen"], row["difference"], row["from"], row["to"], row["chance"]) == (0.5, 0.1, 0.0, 0.2, 0.3)
    assert shown["kept"].to_list() == [False, True] and "The head's share of each layer" in text_of(test)
    drawn = [json.loads(chart.proto.spec)["data"][0] for chart in test.get("plotly_chart")]
    assert [(bars["x"], bars["y"]) for bars in drawn if bars["type"] == "bar"] == [(["0", "high"], [0.2, 0.8])]
    assert "The mAP of the validation clips decides when training stops" in text_of(test)
    assert "over 4 tracks and 2 seeds" in text_of(test) and "seed 1, which is best on the validation clips" in text_of(test)
    tags = page("probes", lake, monkeypatch, tab="Classes")
    assert "frozen_primary_accuracy" in tags.dataframe[-1].value and "list the tag first" in text_of(tags)


# -- in the browser


def wait_until_heard(page, clip: str) -> None:
    """Wait until the player sounds a clip."""
    page.wait_for_function(
        "clip => { const bar = document.querySelector('#tonelake-player')?.shadowRoot.querySelector('.bar');"
        " return bar?.dataset.clip === clip && bar.dataset.playing === 'true'; }", arg=clip,
    )


def select_row(page, row: int) -> None:
    """Click the box of a row in the first table of the open tab."""
    table = page.locator("[role=tabpanel] [data-testid=stDataFrame]:visible").first
    table.wait_for()
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    page.mouse.click(box["x"] + 18, box["y"] + 35 * (row + 1) + 17)


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("size", ["view", "phone"])
def test_a_song_by_which_to_enter_the_nearest_artist_is_heard(size, request, served, audible):
    page = request.getfixturevalue(size)
    expected = audible.groups("artist", "Ada", layer=OTHER, min_tracks=2)["artist"][0]
    entry = audible.entry_songs("artist", "Ada", [expected], layer=OTHER, min_tracks=2)["clip_id"][0]
    page.goto(f"{served}/artists?column=artist&group=Ada&fewest=2&layer={OTHER}")
    page.get_by_text(f"1. {expected}, similarity").wait_for()
    row = page.locator(f".row[data-clip='{entry}']").first
    row.get_by_role("button", name=re.compile("^Play ")).click()
    wait_until_heard(page, entry)
    page.get_by_role("tab", name="Matrix and pairs").click()
    page.locator(".plotly .heatmaplayer").wait_for()
    page.wait_for_url("**tab=Matrix**")
    wait_until_heard(page, entry)                        # the player continues
    pair = audible.group_pairs("artist", layer=OTHER, min_tracks=2).row(0, named=True)
    select_row(page, 0)
    for group, of in ((pair["other"], pair["artist"]), (pair["artist"], pair["other"])):
        page.get_by_text(f"Songs of {group} near {of}, similarity").wait_for()


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("size", ["view", "phone"])
def test_a_confusion_is_selected_in_the_list_and_heard(size, request, served, audible):
    from tonelake import probes

    page = request.getfixturevalue(size)
    run = probes.Run.named(audible, "artists")
    ranked = probes.rank_confusions(run.table("confusion"))
    assert len(ranked), "the probe of three epochs confuses some artists"
    label, said = ranked.row(0)[:2]
    expected = probes.review(audible, run, target=label, predicted=said, k=None)["clip_id"].to_list()
    page.goto(f"{served}/probes?tab=Confusion")
    select_row(page, 0)
    rows = page.locator(f".clips[data-count='{len(expected)}'] .row")
    page.wait_for_url(re.compile("(?=.*true=)(?=.*said=)"))
    rows.first.wait_for()
    assert [row.get_attribute("data-clip") for row in rows.all()] == expected
    rows.first.get_by_role("button", name=re.compile("^Play ")).click()
    wait_until_heard(page, expected[0])


@pytest.mark.slow
@needs_chromium
def test_a_click_on_a_cell_of_the_confusion_matrix_lists_its_clips(view, served, audible):
    judged = audible.probe_run("artists").table("predictions")
    view.goto(f"{served}/probes?tab=Confusion")
    cells = view.locator(".plotly .scatterlayer .point")
    cells.first.wait_for()
    assert cells.count() == len(judged.select("target", "predicted").unique())
    box = cells.first.bounding_box()
    view.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    view.wait_for_url(re.compile("(?=.*true=)(?=.*said=)"))
    state = parse_qs(urlsplit(view.url).query)
    mine = judged.filter(target=state["true"][0], predicted=state["said"][0])
    rows = view.locator(f".clips[data-count='{len(mine)}'] .row")
    rows.first.wait_for()
    assert {row.get_attribute("data-clip") for row in rows.all()} == set(mine["clip_id"])


@pytest.mark.slow
@needs_chromium
def test_the_best_layer_is_used_on_the_page_listen(view, served, audible):
    best = audible.layers("artist").recommended
    view.goto(f"{served}/layers?column=artist")
    view.get_by_role("button", name="Use this layer").click()
    view.wait_for_url(re.compile(f"^{served}/\\?.*layer={re.escape(best)}"))
    view.get_by_role("heading", name="Listen").wait_for()
