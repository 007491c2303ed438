"""Labels of chorales from a table, matched by piece, BWV or name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tonelake.ingest import ingest_chorales, ingest_manifest
from tonelake.ingest.chorale_labels import ChoraleLabels
from tonelake.ingest.chorale_sources import ChoraleSource
from tonelake.store import Added, InputError

PIECE = "bwv66.6.mxl"


def table(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_of_a_table_are_joined_by_piece_bwv_or_name(organ, tmp_path):
    for key, cell in (
        ("Piece", "bwv66.6"), ("BWV", "66.6"), ("bwv", "BWV 66.6"), ("name", "bwv66.6.mxl"), ("source", "chorale:bwv66.6.mxl"),
        ("Stem", "bwv66.6"), ("file", "BWV66.6.MXL"),
    ):
        labels = ChoraleLabels(table(tmp_path, f"{key},mood\n{cell},calm\n6.66,loud\n"))
        assert labels.of_piece(ChoraleSource(PIECE)) == {"mood": "calm"} and labels.of_piece(ChoraleSource("bwv6.6.mxl")) == {}
    file = table(tmp_path, "bwv,mood,year,moods,key\n66.6,calm,1725,soft|slow,A major\nBWV 99,loud,1,x,y\n")
    report = ingest_chorales(organ, labels=file, multi=["moods"])
    assert report.notes[-1] == "labels.csv: 1 of 2 rows matched by bwv; without a piece: BWV 99"
    clips = organ.clips.read()
    assert {*clips.select("mood", "year", "key", "bwv").rows()} == {("calm", 1725, "A major", "66.6")}
    assert clips["moods"].to_list() == [["soft", "slow"]] * len(clips)
    ingest_chorales(organ, labels=table(tmp_path, "piece,mood,year,moods\nbwv66.6,,,\n"), multi=["moods"])
    assert {*organ.clips.read().select("mood", "year", "moods", "key").rows()} == {(None, None, None, "f# minor")}


def test_an_empty_cell_empties_a_label_and_a_missing_row_keeps_it(organ, tmp_path):
    ingest_chorales(organ, labels=table(tmp_path, "piece,album,mood\n66.6,First,calm\n"))
    count = organ.clips.count()
    assert ingest_chorales(organ).added == Added(known=count)                 # without the table, its labels stay
    assert {*organ.clips.read().select("album", "mood").rows()} == {("First", "calm")}
    report = ingest_chorales(organ, labels=table(tmp_path, "piece,album,mood,title\n66.6,,loud,\n"))
    assert report.added == Added(changed=count)
    clips = organ.clips.read()
    assert {*clips.select("album", "mood").rows()} == {(None, "loud")} and clips["title"].null_count() == 0
    report = ingest_chorales(organ, labels=table(tmp_path, "piece,mood\n66.6,\n"))
    assert report.added == Added(changed=count) and organ.clips.read()["mood"].null_count() == count


@pytest.mark.parametrize(("text", "message"), [
    ("song,mood\n66.6,calm\n", "needs a column named piece, bwv or name to match pieces by"),
    ("piece,mood\n1.1,calm\n", "none of its 1 rows matches any of 1 pieces by piece; the first is '1.1'. Nothing was ingested"),
    ("piece,mood\n66.6,calm\nBWV66.6,loud\n", "row 3: two different rows for piece '66.6'"),
    ("piece,clip_id\n66.6,1\n", "clip_id cannot be label columns"),
])
def test_a_table_that_cannot_be_joined_is_refused(organ, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        ingest_chorales(organ, labels=table(tmp_path, text))
    assert not organ.clips.count()


def test_a_manifest_of_chorales_names_the_command_for_them(lake, tmp_path):
    with pytest.raises(InputError, match=r"row 2: chorale:bwv66.6.mxl is rendered, not a file. Run `tonelake ingest chorales"):
        ingest_manifest(lake, table(tmp_path, "source,mood\nchorale:bwv66.6.mxl,calm\n"))
