"""The ids that music servers have for files and artists: `lake.paths.served`, `lake.servers`."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tonelake.store import Lake, LakeError, file_rows
from tonelake.store.files import FILE_SCHEMA, SERVED

HOME, NAS = "http://localhost:4533", "https://nas.example/music"


def triples(lake: Lake, server: str | None = None) -> list[tuple[str, str, str]]:
    return lake.paths.served(server).rows()


@pytest.fixture
def older(lake):
    """A lake whose table of files was made before it had the column."""
    lake.paths.table._initial_schema = pa.schema([
        field for field in lake.paths.table._initial_schema if field.name != SERVED
    ])
    lake.paths.table.upsert(file_rows([{"source": "/a.mp3", "title": "A"}, {"source": "/b.mp3"}]).drop(SERVED).to_arrow())
    return Lake(lake.uri)


def test_ids_of_several_servers_are_kept_apart(lake):
    lake.paths.put(file_rows([{"source": "/a.mp3"}, {"source": "/b.mp3"}]))
    assert lake.paths.set_served(HOME, {"/a.mp3": "id with spaces", "/unknown.mp3": "9"}) == 1
    assert lake.paths.set_served(NAS, {"/a.mp3": "7", "/b.mp3": "8"}) == 2
    assert triples(lake) == [
        ("/a.mp3", HOME, "id with spaces"), ("/a.mp3", NAS, "7"), ("/b.mp3", NAS, "8"),
    ]
    assert triples(lake, NAS) == [("/a.mp3", NAS, "7"), ("/b.mp3", NAS, "8")]


def test_ids_that_are_not_given_again_are_removed_and_unchanged_ones_are_not_written(lake):
    lake.paths.put(file_rows([{"source": "/a.mp3"}, {"source": "/b.mp3"}]))
    lake.paths.set_served(NAS, {"/a.mp3": "7"})
    lake.paths.set_served(HOME, {"/a.mp3": "1", "/b.mp3": "2"})
    version = lake.paths.table.version
    assert lake.paths.set_served(HOME, {"/a.mp3": "1", "/b.mp3": "2"}) == 0 and lake.paths.table.version == version
    assert lake.paths.set_served(HOME, {"/b.mp3": "1"}) == 2         # the server has numbered its songs again
    assert triples(lake) == [("/b.mp3", HOME, "1"), ("/a.mp3", NAS, "7")]


def test_a_server_whose_address_begins_like_another_is_another(lake):
    lake.paths.put(file_rows([{"source": "/a.mp3"}]))
    lake.paths.set_served("http://localhost:45", {"/a.mp3": "1"})
    lake.paths.set_served(HOME, {"/a.mp3": "2"})
    lake.paths.set_served("http://localhost:45", {})
    assert triples(lake) == [("/a.mp3", HOME, "2")]


def test_a_lake_without_the_column_opens_and_gets_it_with_the_first_write(older):
    assert triples(older) == [] and not older.paths.has_served
    rows = older.paths.read()
    assert rows.columns == FILE_SCHEMA.names and rows[SERVED].null_count() == 2
    assert older.paths.read(["source", SERVED], where="title = 'A'").rows() == [("/a.mp3", None)]
    older.paths.put(rows.head(1))
    assert older.paths.has_served
    older.paths.set_served(HOME, {"/b.mp3": "2"})
    assert triples(Lake(older.uri)) == [("/b.mp3", HOME, "2")] and older.paths.count() == 2


def test_artists_of_each_server_are_kept_in_order_and_written_when_they_change(lake):
    assert lake.servers.artists(HOME) == {} and lake.servers.stamp(HOME) is None
    lake.servers.set_artists(HOME, {"b": "Béla", "a": "Ada"})
    lake.servers.set_artists(NAS, {"a": "Another"})
    again = Lake(lake.uri)
    assert list(again.servers.artists(HOME).items()) == [("b", "Béla"), ("a", "Ada")]
    stamp = lake.servers.stamp(HOME)
    lake.servers.set_artists(HOME, {"b": "Béla", "a": "Ada"})
    assert lake.servers.stamp(HOME) == stamp
    lake.servers.set_artists(HOME, {})
    assert lake.servers.artists(HOME) == {} and again.servers.artists(NAS) == {"a": "Another"}


@pytest.mark.parametrize("text", ["{", "[]", '{"artists": [1]}', '{"artists": {"a": 3}}', "{}"])
def test_a_damaged_list_of_artists_is_named(lake, text):
    lake.servers.set_artists(HOME, {"a": "Ada"})
    (name,) = lake.files("servers").names()
    lake.files("servers").put_text(name, text)
    with pytest.raises(LakeError, match=r"is not a list of artists.*Delete it and ingest http://localhost:4533 again"):
        lake.servers.artists(HOME)
