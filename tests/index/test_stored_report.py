"""The best layer that a layer report leaves in the lake."""

from __future__ import annotations

import logging

import pytest
from fakes import clip_rows, fill

from tonelake import index
from tonelake.index import best_layer
from tonelake.store import LakeError, SpaceNotFound


def test_the_best_layer_is_that_of_the_last_report_and_stale_once_the_clips_change(lake):
    fill(lake, 8, 3, seed=1)
    assert best_layer(lake) is None and best_layer(lake, "fake", "artist") is None
    report = index.layers(lake, "artist")
    row = report.table.filter("best").row(0, named=True)
    found = best_layer(lake, lake.spaces.get("fake"), "artist")
    assert found == report.best == best_layer(lake) and not found.stale
    assert (found.layer, found.figure, found.low, found.high, found.chance) == (
        report.recommended, row["map"], row["map_low"], row["map_high"], report.chance
    )
    assert str(found).startswith(f"Layer {found.layer} separates artist best: mAP {found.figure:.2f}".replace("0.", "."))
    lake.clips.add(clip_rows(9, 3))
    assert best_layer(lake, column="artist").stale
    index.layers(lake, "artist")
    assert not best_layer(lake, column="artist").stale


def test_reports_that_answer_another_question_are_not_kept(lake):
    fill(lake, 16, 3, seed=1)
    for other in ({"where": "year > 1961"}, {"prepare": "centred"}, {"across": "none"}, {"over": "artist"}):
        index.layers(lake, "artist", **other)
    assert best_layer(lake) is None
    index.layers(lake, "tags")
    assert best_layer(lake).column == "tags" and best_layer(lake, column="artist") is None
    index.layers(lake, "artist")
    assert best_layer(lake).column == "artist"


def test_a_damaged_file_is_skipped_and_a_lake_that_cannot_be_written_still_reports(lake, monkeypatch, caplog):
    fill(lake, 8, 3, seed=1)
    index.layers(lake, "artist")
    files = lake.files("layers/fake")
    for text in ("{", "[]", "3", '{"column": "artist"}', '{"column": 3}', files.read("artist.json").replace("0", '"x"', 1)):
        files.put_text("artist.json", text)
        assert best_layer(lake) is None and best_layer(lake, column="artist") is None

    def refuse(*arguments):
        raise LakeError("read-only")

    monkeypatch.setattr("tonelake.store.Blobs.put_text", refuse)
    caplog.set_level(logging.INFO)
    assert index.layers(lake, "artist").recommended and best_layer(lake) is None and "is not kept: read-only" in caplog.text
    with pytest.raises(SpaceNotFound):
        best_layer(lake, "nowhere")
