"""The app's pages in Streamlit's test harness: their content, and their messages for empty or changing lakes."""

from __future__ import annotations

import polars as pl
import pytest
from app_pages import PAGES, page, text_of
from fakes import clip_rows, fill
from streamlit.testing.v1 import AppTest

from tonelake.ui.serve import APP

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
