"""The app's pages in Streamlit's test harness: their content, and their messages for empty or changing lakes."""

from __future__ import annotations

import shutil
import sys

import polars as pl
import pytest
from app_encoder import ENCODER, LAYER, OTHER
from app_pages import PAGES, page
from fakes import TagsEncoder, clip_rows, fill
from streamlit.testing.v1 import AppTest

from tonelake.ingest import ingest_folder
from tonelake.store import Failure, Lake
from tonelake.ui.serve import APP


@pytest.fixture(autouse=True)
def restore_main(monkeypatch):
    """Restore `__main__`: the harness replaces it with the page, which processes of later tests would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def text_of(test: AppTest) -> str:
    """Return all text of a page."""
    parts = (*test.text, *test.info, *test.caption, *test.markdown, *test.code, *test.subheader)
    return "\n".join(str(part.value) for part in parts)


@pytest.fixture(scope="module")
def audible(tmp_path_factory, music):
    """A lake of the test music, embedded by the app's encoder, with maps and a probe."""
    import tonelake

    lake = Lake(tmp_path_factory.mktemp("ui") / "lake")
    ingest_folder(lake, music, seconds=3.0)
    opened = tonelake.open(lake.uri, progress=False)
    opened.embed(ENCODER, precision="float32")
    for layer in (OTHER, LAYER):
        opened.map(layer, method="pca")
    opened.probe("artist", layers=(OTHER,), epochs=3, seeds=1, split="random", rates=(1e-2,), decays=(0.0,), name="artists")
    return lake


# -- each page


def test_the_library_shows_counts_and_the_next_command(lake, monkeypatch):
    lake.clips.add(clip_rows(3, 2))
    lake.failures.record([Failure("ingest", "<b>x.mp3</b>", "is empty")])
    test = page("library", lake, monkeypatch)
    shown = {metric.label: metric.value for metric in test.metric}
    assert shown == {"Clips": "6", "Tracks": "3", "Hours": "0.0", "Flagged": "0", "Failures": "1"}
    assert test.code[0].value == "tonelake embed"
    assert "Nothing is embedded yet" in test.info[0].value
    labels, failures, _ = (frame.value for frame in test.dataframe)
    assert labels["column"].to_list() == ["year", "tags"]
    assert failures["source"].to_list() == ["<b>x.mp3</b>"]
    fill(lake, 3, 2, seed=0)
    test.run()
    assert test.dataframe[0].value["name"].to_list() == ["fake"]


def test_the_library_names_stale_indexes_and_half_embedded_spaces(lake, monkeypatch):
    import tonelake

    fill(lake, 30, 40, seed=0)
    opened = tonelake.open(lake.uri, progress=False)
    opened.build_indexes(kind="hnsw")
    test = page("library", lake, monkeypatch)
    assert test.dataframe[1].value["state"].to_list() == ["up to date"]
    lake.clips.add(clip_rows(32, 2))
    assert "tonelake embed --space fake" in text_of(test.run())
    fill(lake, 32, 40, seed=3)
    text = text_of(test.run())
    assert "1 index is behind or damaged" in text and "tonelake index build --space fake" in text


def test_a_first_map_is_made_by_the_method_of_choice(lake, monkeypatch):
    from tonelake.index import METHODS, read_map

    fill(lake, 3, 3, seed=0)
    test = page("map", lake, monkeypatch)
    assert set(METHODS) == {"umap", "tsne", "pca"} and len(test.selectbox[-1].options) == 3
    test.selectbox[-1].select("tsne").run()
    assert "tonelake map --space fake --method tsne" in text_of(test)
    test.button[0].click().run()
    assert not test.exception and read_map(lake).settings["method"] == "tsne"


def test_the_map_page_keeps_the_picked_clip_and_the_selection(audible, monkeypatch):
    test = page("map", audible, monkeypatch, layer=LAYER)
    assert test.select_slider(key="layer").value == LAYER
    clip = audible.clips.ids()[3]
    test.session_state["map"] = {"pick": clip, "lasso": None}
    test.run()
    assert test.query_params["pick"] == clip
    everything = [[-99.0, -99.0], [99.0, -99.0], [99.0, 99.0], [-99.0, 99.0]]
    test.session_state["map"] = {"pick": clip, "lasso": everything}
    test.run()
    assert "Selected: 18 clips" in text_of(test)
    assert test.query_params["lasso"] == f"{ENCODER}~{LAYER}~-99_-99_99_-99_99_99_-99_99"
    # Another page, opened by the same address, offers the selection as a filter.
    small = f"{ENCODER}~{LAYER}~-99_-99_-98_-99_-98_-98"
    other = page("groups", audible, monkeypatch, lasso=test.query_params["lasso"])
    offered = "Only the 18 selected on the map"
    assert offered in [toggle.label for toggle in other.toggle]
    for others in (small, f"{ENCODER}~{LAYER}~nonsense"):
        assert not any("selected" in toggle.label for toggle in page("groups", audible, monkeypatch, lasso=others).toggle)


def test_the_similar_page_shows_the_hits_of_the_command(audible, monkeypatch):
    import tonelake

    opened = tonelake.open(audible.uri, progress=False)
    ids = audible.clips.ids()
    for layer, minus in ((OTHER, ""), (LAYER, ids[9])):
        shown = listed(monkeypatch)
        page("similar", audible, monkeypatch, clip=f"{ids[0]},{ids[4]}", minus=minus, layer=layer)
        expected = opened.similar(
            [ids[0], ids[4]], minus=[minus] if minus else [], layer=layer, k=12, not_same="track", explain=True
        )
        hits = shown["hits"]
        assert [row["clip_id"] for row in hits["clips"]] == expected["clip_id"].to_list()
        assert [row["score"] for row in hits["clips"]] == expected["score"].to_list()
        assert [row["profile"] for row in hits["clips"]] == [list(one.values()) for one in expected["by_layer"]]
        assert hits["usual"] == list(expected["usual"][0].values()) and hits["layer"] == layer


def listed(monkeypatch) -> dict[str, dict]:
    """Record the data passed to lists of clips from here on, by key."""
    from tonelake.ui import components

    shown: dict[str, dict] = {}
    real = components.CLIPS

    def watched(*, key, data, **settings):
        shown[key] = data
        return real(key=key, data=data, **settings)

    monkeypatch.setattr(components, "CLIPS", watched)
    return shown


def test_search_narrows_the_clips_and_is_text_not_a_filter(audible, monkeypatch):
    shown = listed(monkeypatch)
    page("similar", audible, monkeypatch, q="béla")
    assert [row["note"] for row in shown["matches"]["clips"]] == ["3 clips", "3 clips"]              # two songs
    assert "No song matches." in text_of(page("similar", audible, monkeypatch, q="' OR 1=1 --"))


def test_names_come_first_and_then_songs_that_sound_like_the_words(lake, monkeypatch):
    from fakes import WordsEncoder

    import tonelake

    fill(lake, 8, 2, 0, WordsEncoder)
    shown = listed(monkeypatch)
    test = page("similar", lake, monkeypatch, q="title 3", like="artist")
    assert shown["matches"]["clips"][0]["title"] == "Title 3"
    expected = tonelake.open(lake.uri, progress=False).similar(text="title 3", k=12)
    assert [row["clip_id"] for row in shown["hits"]["clips"]] == expected["clip_id"].to_list()
    assert [part.value for part in test.subheader] == ["Sounds like", "Similar songs"]


def test_hits_show_tags_and_two_spaces_are_mixed(lake, music, monkeypatch):
    import tonelake

    fill(lake, 8, 2, 0, TagsEncoder)
    fill(lake, 8, 2, 1)
    opened, clip, shown = tonelake.open(lake.uri, progress=False), lake.clips.ids()[3], listed(monkeypatch)
    page("similar", lake, monkeypatch, clip=clip, space="tags")
    heard = opened.similar(clip, space="tags", k=12, not_same="track", explain=True)["heard"].to_list()
    assert [row["tags"] for row in shown["hits"]["clips"]] == heard and any(heard)
    page("similar", lake, monkeypatch, q="piano", space="tags")
    assert "piano" in shown["hits"]["clips"][0]["tags"]
    page("similar", lake, monkeypatch, clip=clip, space="tags", tags="false")
    assert not any("tags" in row for row in shown["hits"]["clips"])
    test = page("similar", lake, monkeypatch, clip=clip, space="fake", layer="low", mix="tags", weight="30", like="artist")
    expected = opened.similar(clip, spaces={"fake/low": 0.7, "tags": 0.3}, k=12, not_same="track")
    hits = shown["hits"]["clips"]
    assert [row["clip_id"] for row in hits] == expected["clip_id"].to_list()
    assert [row["score"] for row in hits] == expected["score"].to_list() and all("tags" in row for row in hits)
    first = expected["cosine"][0]
    assert hits[0]["note"].endswith(f"fake {first['fake']:.3f}".rstrip("0") + f", tags {first['tags']:.3f}".rstrip("0"))
    assert "70% fake (layer low) and 30% tags (layer high)" in text_of(test)
    disabled = {box.label for box in (*test.selectbox, *test.text_input, *test.toggle) if box.disabled}
    assert disabled == {"Mixture of layers", "Compare only by", "Ignore differences by", "Correct hubs", "Layer profiles"}


def test_a_lake_of_one_space_says_how_to_add_another_and_which_encoder_names_tags(lake, monkeypatch):
    fill(lake, 4, 2, 0)
    test = page("similar", lake, monkeypatch, clip=lake.clips.ids()[0], mix="tags")
    helps = {box.label: box.help for box in (*test.selectbox, *test.toggle) if box.disabled}
    assert "`tonelake embed --encoder NAME` adds another" in helps["Mix with another space"]
    assert "musicnn does: `tonelake embed --encoder musicnn`" in helps["Tags"]


def test_a_filter_is_applied_and_an_invalid_one_is_reported(audible, monkeypatch):
    shown = listed(monkeypatch)
    clip = audible.clips.ids()[0]
    page("similar", audible, monkeypatch, clip=clip, where="artist = 'Cleo'")
    assert {row["artist"] for row in shown["hits"]["clips"]} == {"Cleo"}
    for wrong in ("artist = 'Cleo'; DROP TABLE clips", "nonsense = 3", "1 +"):
        assert "filter" in text_of(page("similar", audible, monkeypatch, clip=clip, where=wrong))
    assert audible.clips.count() == 18


def test_an_uploaded_file_is_searched_and_then_deleted(audible, music, monkeypatch, tmp_path):
    import tempfile

    shown = listed(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = music / "Ada" / "song0.wav"
    test = page("similar", audible, monkeypatch)
    test.file_uploader[0].upload("../../x<b>.wav", file.read_bytes(), "audio/wav").run()
    assert not test.exception
    # The file is a song of the lake, and hits are the other songs.
    assert len(shown["hits"]["clips"]) == 5
    assert "song0" not in {row["source"].rsplit("/")[-1].split(".")[0] for row in shown["hits"]["clips"]}
    assert not list(tmp_path.rglob("*.wav"))
    test.file_uploader[0].upload("noise.wav", b"no audio at all", "audio/wav").run()
    assert not test.exception and "is not audio that can be read" in text_of(test)


def test_groups_are_those_of_the_command(audible, monkeypatch):
    import tonelake

    lake = tonelake.open(audible.uri)
    test = page("groups", audible, monkeypatch, column="artist", layer=OTHER, fewest="2")
    plain = ["artist", "clips", "tracks", "cohesion", "similarity"]
    expected = lake.groups("artist", layer=OTHER, min_tracks=2).select(plain)
    assert pl.from_pandas(test.dataframe[0].value[plain]).equals(expected)
    test = page("groups", audible, monkeypatch, column="artist", layer=OTHER, group="Ada", fewest="2")
    assert test.dataframe[0].value["artist"].to_list() == lake.groups("artist", "Ada", layer=OTHER, min_tracks=2)[
        "artist"].to_list()
    assert page("groups", audible, monkeypatch, column="artist", tab="Matrix", fewest="2").get("plotly_chart")
    assert "Choose a smaller --min-tracks" in text_of(page("groups", audible, monkeypatch, column="artist"))
    shown = listed(monkeypatch)
    page("groups", audible, monkeypatch, column="artist", tab="Typical and unusual", layer=OTHER)
    expected = tonelake.open(audible.uri).typical("artist", k=10, layer=OTHER)
    shown_ids = [row["clip_id"] for kind in ("typical", "unusual") for row in shown[kind]["clips"]]
    assert shown_ids == expected["clip_id"].to_list()


def test_the_layer_report_is_that_of_the_command(audible, monkeypatch):
    import tonelake

    test = page("layers", audible, monkeypatch, column="artist")
    report = tonelake.open(audible.uri).layers("artist")
    assert report.summary() in text_of(test)
    assert test.dataframe[-1].value["map"].to_list() == report.table["map"].to_list()
    assert len(test.get("plotly_chart")) == 3


def test_a_selected_cell_of_the_confusion_matrix_lists_its_clips(audible, monkeypatch):
    from tonelake import probes

    run = probes.Run.named(audible, "artists")
    judged = run.table("predictions")
    truth, said = judged["target"][0], judged["predicted"][0]
    shown = listed(monkeypatch)
    test = page("runs", audible, monkeypatch, tab="Confusion", true=truth, said=said)
    expected = probes.review(audible, run, target=truth, predicted=said, k=None)
    assert [row["clip_id"] for row in shown["judged"]["clips"]] == expected["clip_id"].to_list()
    assert {row["note"] for row in shown["judged"]["clips"]} == {f"{truth} → {said}"}
    assert run.summary() in text_of(test)
    page("runs", audible, monkeypatch, tab="Clips", by="confidence")
    worst = probes.review(audible, run, by="confidence", k=None)
    assert [row["clip_id"] for row in shown["judged"]["clips"]] == worst["clip_id"].to_list()
    assert [row["score"] for row in shown["judged"]["clips"]] == sorted(worst["probability"])
    classes = page("runs", audible, monkeypatch, tab="Classes").dataframe
    assert any("f1" in frame.value.columns and "support" in frame.value.columns for frame in classes)


# -- empty, partial and changing lakes


@pytest.mark.parametrize("name", PAGES)
def test_every_page_of_an_empty_lake_names_a_command(name, lake, monkeypatch):
    lake.clips.add(clip_rows(1, 1))
    lake.clips.table.delete("true")
    assert "tonelake" in text_of(page(name, lake, monkeypatch))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_of_a_lake_with_one_clip_shows_text(name, lake, monkeypatch):
    fill(lake, 1, 1, seed=0)
    assert text_of(page(name, lake, monkeypatch)) or name == "map"


@pytest.mark.parametrize("name", PAGES)
def test_every_page_of_a_half_embedded_lake_works(name, lake, monkeypatch):
    import tonelake

    fill(lake, 6, 10, seed=0)
    tonelake.open(lake.uri, progress=False).map(method="pca")
    lake.clips.add(clip_rows(12, 3))
    page(name, lake, monkeypatch)


@pytest.mark.parametrize("name", PAGES)
def test_a_missing_lake_is_reported_in_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TONELAKE_LAKE", str(tmp_path / "nowhere"))
    test = AppTest.from_file(str(APP.parent / f"pages/{name}.py"), default_timeout=60).run()
    assert not test.exception and "is not a lake" in text_of(test)


def test_pages_follow_a_lake_that_is_being_written_to(lake, monkeypatch):
    import tonelake

    fill(lake, 6, 10, seed=0)
    tonelake.open(lake.uri, progress=False).map(method="pca")
    library, map_page = page("library", lake, monkeypatch), page("map", lake, monkeypatch)
    fill(lake, 9, 10, seed=3)
    assert {metric.label: metric.value for metric in library.run().metric}["Clips"] == "90"
    assert "30 clips embedded since" in text_of(map_page.run())


@pytest.mark.slow
def test_markup_in_a_tag_is_shown_as_text(lake, monkeypatch):
    rows = clip_rows(4, 3).with_columns(artist=pl.lit("<img src=x onerror=alert(1)> **bold** $x$"), title=pl.lit("# big"))
    lake.clips.add(rows)
    fill(lake, 4, 3, seed=0)
    for name in PAGES:
        test = page(name, lake, monkeypatch, q="big")
        marked = [part.value for part in (*test.markdown, *test.caption, *test.info, *test.subheader, *test.title)]
        assert not any("onerror" in text or "**bold**" in text for text in marked)


def test_a_clip_with_a_missing_file_keeps_its_neighbours(lake, tmp_path, music, monkeypatch):
    import tonelake

    shutil.copytree(music / "Ada", tmp_path / "m")
    ingest_folder(lake, tmp_path / "m", seconds=3.0)
    tonelake.open(lake.uri, progress=False).embed(ENCODER, precision="float32")
    shutil.rmtree(tmp_path / "m")
    shown = listed(monkeypatch)
    page("similar", lake, monkeypatch, clip=lake.clips.ids()[0], differ="anything")
    assert [hit["title"] for hit in shown["hits"]["clips"]] == ["Song 3"]        # the other of Ada's two songs


def test_a_fine_tune_is_shown_beside_its_frozen_baseline_with_its_seeds(lake, monkeypatch):
    import json

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
    for name, table in (("classes", classes), ("seeds", seeds), ("history", history)):
        files.put(f"{name}.parquet", table.write_parquet)
    test = page("runs", lake, monkeypatch)
    listed, figures, shown = (frame.value for frame in test.dataframe)
    assert (listed["frozen"][0], listed["difference"][0], listed["chance"][0], listed["seeds"][0]) == (0.5, 0.1, 0.3, 2)
    row = figures.iloc[0]
    assert (row["frozen"], row["difference"], row["from"], row["to"], row["chance"]) == (0.5, 0.1, 0.0, 0.2, 0.3)
    assert shown["kept"].to_list() == [False, True]
    assert "The mAP of the validation clips decides when training stops" in text_of(test)
    assert "over 4 tracks and 2 seeds" in text_of(test) and "seed 1, which is best on the validation clips" in text_of(test)
    tags = page("runs", lake, monkeypatch, tab="Classes")
    assert "frozen_primary_accuracy" in tags.dataframe[-1].value and "list the tag first" in text_of(tags)
