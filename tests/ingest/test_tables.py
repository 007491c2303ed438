"""Tables of people, pandas, R and Excel are read as they were meant, or refused with the row that is wrong."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tonelake.cli import main
from tonelake.ingest import ingest_folder, ingest_manifest
from tonelake.ingest.datasets.wikimeter import read_catalogue
from tonelake.ingest.tables import find_separators, list_separators, read_table
from tonelake.ingest.text_files import read_lines, read_rows
from tonelake.store import InputError, Lake

DATA = Path(__file__).parents[1] / "data" / "tables"


def table(tmp_path: Path, text: str, encoding: str = "utf-8", **options) -> pl.DataFrame:
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode(encoding))
    return read_table(path, **options)


@pytest.mark.parametrize(
    ("file", "columns", "values"),
    [
        ("pandas_index.csv", ["genre"], [("jazz",), ("rock",)]),
        ("empty_columns.csv", ["genre"], [("jazz",), ("rock",)]),
        ("sep_line.csv", ["genre"], [("jazz",), (None,)]),
        ("quoted_separators.csv", ["genre_style", "a_b_c"], [("jazz", 1), (None, None)]),
        ("mac_line_ends.csv", ["genre"], [("jazz, soul, funk",), ("rock, pop",)]),
    ],
)
def test_tables_of_pandas_and_excel_label_their_files(lake, file, columns, values):
    ingest_folder(lake, DATA / "music", seconds=None, labels=DATA / file)
    assert lake.clips.label_columns() == columns
    assert lake.clips.read(["track", *columns]).sort("track").select(columns).rows() == values


def test_a_long_cell_is_read(lake):
    ingest_folder(lake, DATA / "music", seconds=None, labels=DATA / "long_cell.csv")
    (lyrics,) = lake.clips.read(["lyrics"], where="lyrics IS NOT NULL")["lyrics"]
    assert len(lyrics) > 131_072 and set(lyrics.split()) == {"la"}


def test_an_invalid_quote_is_an_error_that_names_its_row(lake):
    with pytest.raises(InputError, match=r"bad_quote\.csv, row 2: is not CSV .*\. Put cells that contain quotes in quotes"):
        ingest_folder(lake, DATA / "music", seconds=None, labels=DATA / "bad_quote.csv")
    assert lake.clips.count() == 0


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_every_line_end_encoding_and_separator_is_recognised(tmp_path, end, encoding, separator):
    rows = [["path", '"genre, style; kind"'], ["é.wav", '"one\ttwo|three"'], ["b.wav", '"first\nsecond"']]
    found = table(tmp_path, end.join(separator.join(row) for row in rows) + end, encoding)
    assert found.rows() == [("é.wav", "one\ttwo|three"), ("b.wav", "first\nsecond")]
    assert found.columns == ["path", "genre_style_kind"]


@pytest.mark.parametrize("line", ["sep=;\r\n", '"sep=;"\n', "SEP=;\r", "\ufeffsep=;\n", "sep=;;\n"])
def test_a_first_line_that_names_the_separator_is_obeyed(tmp_path, line):
    assert table(tmp_path, f"{line}path;a,b,c\nx.wav;1\n").rows() == [("x.wav", 1)]
    with pytest.raises(InputError, match="row 3: has 1 cells"):
        table(tmp_path, f"{line}path;genre\nx.wav\n")


def test_a_named_separator_may_be_any_character(tmp_path):
    assert table(tmp_path, "sep=:\npath:genre\nx.wav:a,b;c\n").rows() == [("x.wav", "a,b;c")]
    assert table(tmp_path, "sep=\\t\npath\tgenre\nx.wav\ta,b\n").rows() == [("x.wav", "a,b")]


def test_the_separator_that_fits_every_row_is_taken(tmp_path):
    assert table(tmp_path, "path;genre, style, mood\nx.wav;jazz\n").columns == ["path", "genre_style_mood"]
    assert find_separators("path;a|b\nx;y,y,y") == [";", "|"]


def test_columns_without_a_name_are_left_out_and_said_if_they_hold_values(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "tonelake"):
        assert table(tmp_path, ",path,genre,,#\n0,a.wav,jazz,,\n1,b.wav,rock,,\n").columns == ["path", "genre"]
        assert table(tmp_path, "Unnamed: 0,Unnamed: 0.1,path\n0,0,a.wav\n5,1,b.wav\n").columns == ["path"]
        assert not caplog.records
        assert table(tmp_path, "path,genre,\na.wav,jazz,\nb.wav,rock,check this\n").columns == ["path", "genre"]
    assert "column 3 has no name and is left out, although row 3 has 'check this' there" in caplog.text


def test_rows_that_lack_only_nameless_cells_are_read(tmp_path):
    """Excel leaves out separators at the end of some rows."""
    assert table(tmp_path, "path,genre,,\na.wav,jazz,,\nb.wav,rock\nc.wav,folk,,,,\n").rows() == [
        ("a.wav", "jazz"), ("b.wav", "rock"), ("c.wav", "folk"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,genre\na,b\n\n\nc\n", "row 5: has 1 cells, the header 2"),
        ("path,genre\na,b\nc,d,e\n", "row 3: has 3 cells, the header 2"),
        ('path,genre\na,"b\nb"\nc\n', "row 3: has 1 cells"),
        ('path,genre\na,b\nc,"d\n', "row 3: is not CSV"),
        ('path,genre\na,b\nc,"d" e\n', "row 3: is not CSV"),
        ("path,Genre,genre \na,b,c\n", "row 1: two columns are named genre \\('Genre' and 'genre'\\)"),
        ("path,genre\na,b\nc,\0\n", "row 3: holds NUL"),
        ("", "has no rows below its header"),
    ],
)
def test_every_error_of_a_table_names_its_row(tmp_path, text, words):
    with pytest.raises(InputError, match=r"t\.csv(, |: )" + words):
        table(tmp_path, text)


def test_text_in_another_encoding_is_an_error_that_names_its_row(tmp_path):
    with pytest.raises(InputError, match=r"t\.csv, row 3: is not UTF-8 text \(byte 17\)"):
        table(tmp_path, "path,genre\na,b\nc,\xe9\n", "latin-1")
    (tmp_path / "u.csv").write_bytes("path,a\nb,c\n".encode("utf-16") + b"\n")
    with pytest.raises(InputError, match=r"u\.csv, row 3: is not UTF-16 text"):
        read_table(tmp_path / "u.csv")


def test_a_workbook_is_refused_as_one(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"PK\x03\x04\x14\0" + bytes(100))
    with pytest.raises(InputError, match=r"is a workbook, not a CSV file. Save it as 'CSV UTF-8'"):
        read_table(tmp_path / "t.csv")


# -- numbers


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["2.1", "2.10", "2.2", "2.20", "18.1", "18.10"], str),          # opus 2 no. 1, opus 2 no. 10
        (["2.10", "3.5"], str),
        (["2.10", "3.50", "4"], [2.1, 3.5, 4.0]),                        # a fixed number of decimals
        (["12345678901234567890", "12345678901234567891", "1"], str),    # ids of 64 bits
        (["9007199254740993", "9007199254740992"], [2**53 + 1, 2**53]),
        (["9223372036854775807", "1"], [2**63 - 1, 1]),
        (["9223372036854775808", "1"], str),
        (["9007199254740993", "0.5"], str),
        (["12e3", "1e5", "7e2", "10e4", "100e3", "12"], str),            # hashes
        (["1e5", "2.5"], str),
        (["1e-05", "2.5e-07", "0.5"], [1e-05, 2.5e-07, 0.5]),            # Python and R
        (["1.000000000000000056e-01", "2.500000000000000000e+02"], [0.1, 250.0]),      # numpy.savetxt
        (["1.50E+02", "1.5E+02"], str),
        (["120.5", "98.0", "nan", "101.2", "88", "131"], [120.5, 98.0, None, 101.2, 88.0, 131.0]),
        (["120.5", "N/A", "NA", "", "NULL", "<NA>"], [120.5, None, None, None, None, None]),
        ([".5", ".25", "0.7", ".1", ".9", "1"], [0.5, 0.25, 0.7, 0.1, 0.9, 1.0]),
        (["-.5", "0.5"], [-0.5, 0.5]),
        ([".5", "0.5"], str),
        (["3.0", "4.0", "", "3.0", "6.0"], [3, 4, None, 3, 6]),          # integers of pandas beside an empty cell
        (["3.0", "4.0"], [3.0, 4.0]),
        (["3.0", "3", "4"], str),
        (["-0", "0", "1"], str),
        (["+3", "-2", "0"], str),
        (["007", "012"], str),
        (["1,234.5", "99"], str),
        (["0x10", "1_000", "١", "1.", "inf"], str),
        (["1", "2", "nan"], [1, 2, None]),
        (["0.1", "0.30000000000000004"], [0.1, 0.1 + 0.2]),
        (["0.1", "0.10000000000000000001"], str),
        (["1e999", "1"], str),
        (["NA", "rock"], ["NA", "rock"]),                                # a name, not a missing number
        (["nan", "NA"], [None, None]),
        (["True", "False"], str),
    ],
)
def test_a_column_is_numeric_only_where_nothing_is_lost(tmp_path, cells, expected):
    found = table(tmp_path, "path,x\n" + "".join(f'a,"{cell}"\n' for cell in cells))["x"]
    assert found.to_list() == (cells if expected is str else expected)
    if expected is not str and None not in expected:
        assert all(type(value) is type(wanted) for value, wanted in zip(found, expected, strict=True))


def test_a_column_stored_as_text_stays_text_in_later_tables(lake):
    labels = DATA.parent / "opus.csv"
    for text in ("path,opus\none.mp3,2.1\ntwo.mp3,2.10\n", "path,opus\none.mp3,3.10\n"):
        path = Path(lake.uri).parent / labels.name
        path.write_text(text, encoding="utf-8")
        ingest_folder(lake, DATA / "music", seconds=None, labels=path)
    assert lake.clips.read(["track", "opus"]).sort("track")["opus"].to_list() == ["3.10", "2.10"]


def test_a_value_that_does_not_fit_its_stored_column_is_named_with_its_row(lake, tmp_path):
    labels = tmp_path / "l.csv"
    labels.write_text("path,year\none.mp3,1999\n", encoding="utf-8")
    ingest_folder(lake, DATA / "music", seconds=None, labels=labels)
    labels.write_text("path,year\none.mp3,2001\n\ntwo.mp3,about 1980\nthree.mp3,x\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"l\.csv, row 4: label column 'year': stored as Int64, but .*'about 1980'"):
        ingest_folder(lake, DATA / "music", seconds=None, labels=labels)
    labels.write_text("path,year\na.mp3,2001\nb.mp3,2001.5\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"l\.csv, row 3: label column 'year'"):
        ingest_manifest(lake, labels)


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)),
       st.sampled_from(["t.csv", "t.json", "t.jsonl"]))
@settings(
    max_examples=200, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
def test_any_bytes_are_a_table_or_a_clear_error(tmp_path_factory, data, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data)
    try:
        read_table(path, multi=["tags"] if b"tags" in data else ())
    except InputError as error:
        assert str(error).startswith(name)


# -- lists


@pytest.mark.parametrize(
    ("multi", "cell", "expected"),
    [
        (["tags"], "rock|pop; soul", ["rock", "pop", "soul"]),
        (["tags"], "rock, pop", ["rock, pop"]),
        (["tags=,"], "rock, pop,,soul", ["rock", "pop", "soul"]),
        (["tags= / "], "AC/DC / Ada", ["AC/DC", "Ada"]),
        (["tags=\\t"], "rock\tpop", ["rock", "pop"]),
        ({"tags": ";"}, "a|b;c", ["a|b", "c"]),
        ({"Tags": None}, "a|b", ["a", "b"]),
        ("tags", "a|b", ["a", "b"]),
        (["tags"], "['rock', \"r'n'b\"]", ["rock", "r'n'b"]),            # pandas
        (["tags"], '[""rock"", ""a;b""]', ["rock", "a;b"]),              # JSON
        (["tags"], "[live] a|b", ["[live] a", "b"]),
        (["tags"], "[x]", ["[x]"]),
        (["tags"], "2010|NA", ["2010", "NA"]),
    ],
)
def test_lists_are_split_at_the_chosen_separator(tmp_path, multi, cell, expected):
    cell = cell if '""' in cell else cell.replace('"', '""')
    assert table(tmp_path, f'path,tags\na,"{cell}"\nb,\n', multi=multi)["tags"].to_list() == [expected, None]


def test_the_command_splits_lists_at_the_chosen_separator(tmp_path, monkeypatch):
    (tmp_path / "l.csv").write_text('path,tags,moods\none.mp3,"rock, pop",calm|slow\n', encoding="utf-8")
    arguments = ["--labels", str(tmp_path / "l.csv"), "--multi", "tags=,", "--multi", "moods", "--lake", str(tmp_path / "lake")]
    monkeypatch.setattr(sys, "argv", ["tonelake", "ingest", "folder", str(DATA / "music"), "--whole", *arguments])
    try:
        main()
    except SystemExit as end:
        assert not end.code
    labelled = Lake(tmp_path / "lake").clips.read(["tags", "moods"], where="tags IS NOT NULL")
    assert labelled.rows() == [(["rock", "pop"], ["calm", "slow"])]


def test_list_columns_are_checked(tmp_path, caplog):
    with pytest.raises(InputError, match=r"has no column mood to split. Choose one of path, tags"):
        table(tmp_path, "path,tags\na,b\n", multi=["mood=,"])
    with pytest.raises(InputError, match="names no separator"):
        list_separators(["tags="])
    with caplog.at_level(logging.WARNING, "tonelake"):
        table(tmp_path, 'path,tags\na,"rock, pop"\n', multi=["tags"])
    assert 'If they separate values, use --multi "tags=,"' in caplog.text


# -- JSON


ROWS = [{"path": "one.mp3", "opus": "2.10", "year": 1999, "tags": ["a", "b"], "Tempo (BPM)": 92.5, "live": True},
        {"path": "two.mp3", "opus": "2.1", "year": None, "tags": [], "Tempo (BPM)": 120}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.json", json.dumps(ROWS)),
        ("l.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n"),
        ("l.ndjson", "\r\n\r\n".join(map(json.dumps, ROWS))),
        ("l.json", json.dumps({name: {"0": ROWS[0][name], "1": ROWS[1].get(name)} for name in ROWS[0]})),      # to_json()
    ],
)
def test_labels_in_json_are_read_like_those_in_csv(lake, tmp_path, name, text, encoding):
    (tmp_path / name).write_bytes(text.encode(encoding))
    ingest_folder(lake, DATA / "music", seconds=None, labels=tmp_path / name)
    clips = lake.clips.read(["track", "opus", "year", "tags", "tempo_bpm", "live"]).sort("track")
    assert clips.rows() == [("one.mp3", "2.10", 1999, ["a", "b"], 92.5, "True"), ("two.mp3", "2.1", None, [], 120.0, None)]


def test_numbers_in_json_keep_their_spelling(tmp_path):
    (tmp_path / "t.json").write_text('[{"path": "a", "x": 2.10, "y": 12345678901234567890, "z": NaN}, {"x": 2.1, "y": 1}]')
    assert read_table(tmp_path / "t.json").to_dict(as_series=False) == {
        "path": ["a", None], "x": ["2.10", "2.1"], "y": ["12345678901234567890", "1"], "z": [None, None],
    }


def test_text_in_a_json_column_of_lists_is_one_value_unless_it_is_to_be_split(tmp_path):
    (tmp_path / "t.json").write_text('[{"path": "a", "tags": ["x", 2]}, {"path": "b", "tags": "x|y"}]')
    assert read_table(tmp_path / "t.json")["tags"].to_list() == [["x", "2"], ["x|y"]]
    assert read_table(tmp_path / "t.json", multi=["tags"])["tags"].to_list() == [["x", "2"], ["x", "y"]]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.json", "{", "t.json: is not JSON"),
        ("t.json", '"x"', "t.json: is not a list of objects"),
        ("t.json", "[]", "t.json: has no rows"),
        ("t.json", '[{"path": "a"}, 3]', "t.json, row 2: is not an object"),
        ("t.json", '[{"path": "a", "x": {"y": 1}}]', "t.json, row 1: column 'x' holds an object"),
        ("t.json", '[{"path": "a", "x": [[1]]}]', "t.json, row 1: column 'x' holds a list of lists"),
        ("t.json", '[{"path": "a", "X": 1, "x": 2}]', "two columns are named x"),
        ("t.json", "[" * 100_000, "t.json: is not JSON"),
        ("t.jsonl", '{"path": "a"}\n\n{"path": \n', "t.jsonl, row 3: is not JSON"),
    ],
)
def test_an_error_in_json_names_its_row(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        read_table(tmp_path / name)


# -- other texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_catalogue_is_read_with_and_without_a_mark_of_its_encoding(tmp_path, encoding):
    song = {"artist": "Å", "title": "B", "meters": {"5": 1.0}, "sources": [{"type": "youtube", "video_id": "abcdefghijk"}]}
    (tmp_path / "songs.json").write_bytes(json.dumps([song], ensure_ascii=False).encode(encoding))
    (found,) = read_catalogue(tmp_path / "songs.json")
    assert (found.artist, found.title, found.meters) == ("Å", "B", {5: 1.0})


def test_a_catalogue_that_a_windows_program_saved_is_read():
    (song,) = read_catalogue(DATA.parent / "songs_with_bom.json")
    assert (song.artist, song.title, song.meters) == ("A", "B", {5: 1.0})


def test_lines_end_where_lines_end_only(tmp_path):
    (tmp_path / "l.tsv").write_bytes("a\u2028b\x0bc\rd\r\n\ne".encode())
    assert read_lines(tmp_path / "l.tsv") == ["a\u2028b\x0bc", "d", "", "e"]


def test_long_cells_and_wrong_rows_of_a_large_table_are_handled_too(tmp_path):
    (tmp_path / "t.csv").write_text(f"a,b\n{'x' * 200_000},1\n\n2\n", encoding="utf-8")
    rows = read_rows(tmp_path / "t.csv")
    assert [len(cell) for _ in range(2) for cell in next(rows)] == [1, 1, 200_000, 1]
    with pytest.raises(InputError, match="row 4: has 1 cells, the first 2"):
        next(rows)
