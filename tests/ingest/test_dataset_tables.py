"""Tables of data sets in other encodings, damaged ones, and folders that lack the set."""

from __future__ import annotations

import pytest
from dataset_files import sound, text

from tonelake import ingest
from tonelake.store import InputError

TABLES = {                               # sets with one audio file: its path, and the tables
    "gtzan": ("genres/pop/pop.00000.wav", {"train_filtered.txt": "pop/pop.00000.wav"}),
    "fma": ("000/000002.mp3", {
        "tracks.csv": ",album,artist,set,track,track,track\n,title,name,split,genre_top,genres_all,title\n"
                      "2,A,B,training,Rock,[4],C",
        "genres.csv": "genre_id,title\n4,Rock",
    }),
    "jamendo": ("48/948.mp3", {
        "autotagging.tsv": "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\nt1\ta1\tb1\t48/948.mp3\t9.0\tgenre---rock",
    }),
    "magnatagatune": ("0/ada-first-01-song-0-29.mp3", {
        "annotations_final.csv": "clip_id\trock\tmp3_path\n2\t1\t0/ada-first-01-song-0-29.mp3",
    }),
}


@pytest.fixture
def made(request, tmp_path):
    """Name, folder and tables of a set."""
    audio, tables = TABLES[request.param]
    sound(tmp_path / audio, 1)
    for name, rows in tables.items():
        text(tmp_path / name, rows)
    return request.param, tmp_path, [tmp_path / name for name in tables]


@pytest.mark.parametrize("made", TABLES, indirect=True)
def test_tables_are_read_in_any_unicode_encoding(made, lake):
    name, folder, tables = made
    for table in tables:
        table.write_text(table.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert ingest.ingest_dataset(lake, name, folder, workers=1).added.new == 1
    for table in tables:
        table.write_text(table.read_text(encoding="utf-8-sig"), encoding="utf-16")
    again = ingest.ingest_dataset(lake, name, folder, workers=1).added
    assert (again.new, again.known, again.changed) == (0, 1, 0) and "split" in lake.clips.read().columns


def latin(data):
    return data.replace(b"o", b"\xf3")


def short_row(data):
    return data.rstrip() + b"\n3\t,,\t,\t\n"


def long_field(data):
    return data.rstrip() + b"\n" + b"x" * 200_000


@pytest.mark.parametrize(("made", "damage", "message"), [
    *((name, latin, "is not UTF-8 text") for name in TABLES),
    *((name, bytes, "") for name in ("fma", "magnatagatune")),
    *((name, short_row, r"row \d: has 4 cells, the first \d") for name in ("fma", "magnatagatune")),
    *((name, long_field, r"row \d: has 1 cells, the first \d") for name in ("fma", "magnatagatune")),
], indirect=["made"])
def test_the_error_of_a_damaged_table_names_it_and_nothing_is_stored(made, damage, message, lake):
    name, folder, tables = made
    for table in tables:
        whole = table.read_bytes()
        table.write_bytes(b"" if damage is bytes else damage(whole))
        with pytest.raises(InputError, match=f"{table.name}.*{message}"):
            ingest.ingest_dataset(lake, name, folder)
        table.write_bytes(whole)
    assert lake.clips.count() == 0


def test_a_file_name_too_long_for_the_disk_is_a_missing_file(lake, tmp_path):
    long = f"0/{'x' * 300}.mp3"
    sound(tmp_path / "0" / "a-b-01-c-0-29.mp3", 1)
    text(tmp_path / "annotations_final.csv", "clip_id\trock\tmp3_path", "2\t1\t0/a-b-01-c-0-29.mp3", f"3\t1\t{long}")
    report = ingest.ingest_dataset(lake, "magnatagatune", tmp_path, workers=1)
    assert report.added.new == 1 and report.notes[0].startswith("1 of 2 listed files are missing: xxx")


def test_a_table_cannot_name_files_outside_its_folder(lake, tmp_path):
    secret = sound(tmp_path / "secret.mp3", 1)
    text(tmp_path / "mtt" / "annotations_final.csv", "clip_id\ttag\tmp3_path", "1\t1\t../secret.mp3", f"2\t1\t{secret}")
    with pytest.raises(InputError, match="secret"):
        ingest.ingest_dataset(lake, "magnatagatune", tmp_path / "mtt")
    assert lake.clips.count() == 0


@pytest.mark.parametrize("name", list(ingest.known_datasets()))
def test_a_folder_without_the_set_is_refused_and_nothing_is_written(lake, tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        ingest.ingest_dataset(lake, name, tmp_path / "empty")
    with pytest.raises(InputError, match="not a folder"):
        ingest.ingest_dataset(lake, name, tmp_path / "absent")
    assert lake.clips.count() == 0


def test_the_error_of_a_table_with_wrong_fields_names_it(lake, tmp_path):
    text(tmp_path / "nsynth" / "nsynth-train" / "examples.json", '{"a": {"pitch": 1}}')
    with pytest.raises(InputError, match=r"examples\.json"):
        ingest.ingest_dataset(lake, "nsynth", tmp_path / "nsynth")
    text(tmp_path / "slakh" / "train" / "T" / "metadata.yaml", "stems: [1, 2]")
    with pytest.raises(InputError, match=r"metadata\.yaml"):
        ingest.ingest_dataset(lake, "slakh", tmp_path / "slakh")
