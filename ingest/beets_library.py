r"""Read a music library of beets: an SQLite file -> the paths, tags and attributes of its items.  Nothing is written to it.

beets (https://beets.io) keeps one row a song in the table `items`.  `path` holds bytes: absolute in libraries of older
releases; in those of 2.14 relative to beets' music folder, with `/` between folders, for files inside it.  A column of several
values is one text, joined by `\␀` (a backslash and U+2400), or by `; ` in `albumtypes`.  0 and the empty text mean that there
is no value.  Flexible attributes, the user's own, are rows of text in `item_attributes`; an item inherits those of its album.
Columns come and go with beets' releases: those that a library lacks count as empty.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tonelake.ingest.genres import genre_name
from tonelake.ingest.number_cells import number_series
from tonelake.ingest.tags import MAX_ARTISTS, clean
from tonelake.store import InputError, printable

SEVERAL = "\\␀"                          # between the values of a text
ALBUM_TYPES = "albumtypes"               # the one list that is joined by `; `
LISTS = frozenset({
    "albumartists", "albumartists_credit", "albumartists_sort", ALBUM_TYPES, "arrangers", "arrangers_ids", "artists",
    "artists_credit", "artists_ids", "artists_sort", "composers", "composers_ids", "genres", "lyricists", "lyricists_ids",
    "mb_albumartistids", "mb_artistids", "remixers", "remixers_ids",
})
ZERO_IS_A_VALUE = frozenset({"id", "comp", "r128_album_gain", "r128_track_gain", "rg_album_gain", "rg_track_gain"})
# Columns of items that become the columns that a file's tags fill.
TEXTS = {"title": "title", "artist": "artist", "album": "album", "albumartist": "album_artist"}
NUMBERS = {"year": "year", "track": "track_number"}
ALWAYS_READ = (*TEXTS, *NUMBERS, "artists", "genres", "genre")
TIMEOUT_S = 10.0                         # until a program that writes has to be finished
MOST_NAMES = 30                          # attributes that an error lists

Attribute = str | int | float | list[str] | None


@dataclass(frozen=True, kw_only=True)
class BeetsItem:
    """One song of a library of beets."""

    path: bytes                          # as stored: absolute, or relative to beets' music folder
    tags: dict[str, Any]                 # by column of clips; None where beets has no value
    attributes: dict[str, Attribute]     # by name of the column that they become


def read_beets_library(file: Path, attributes: Sequence[str] = (), known: Collection[str] = ()) -> list[BeetsItem]:
    """The items of a library, in the order of their ids.  `attributes`: columns of items and flexible attributes to read too.

    Raises InputError if the file is not such a library or cannot be read, or if it has no such attribute, unless the column
    that this becomes is among `known`.
    """
    columns = attribute_columns(attributes)
    if not file.is_file():
        raise InputError(f"{file}: is not a file. `tonelake ingest beets` takes beets' library; `beet config` names it")
    with _reading(file) as connection:
        present = _columns(connection, "items")
        if not {"id", "path"} <= set(present):
            raise InputError(f"{file.name}: is not a library of beets (no table `items` with paths). `beet config` names it")
        flexible = {
            name: _flexible(connection, file, name, must_exist=column not in known)
            for column, name in columns.items() if name not in present
        }
        stored = [name for name in dict.fromkeys([*ALWAYS_READ, *columns.values()]) if name in present]
        album = "album_id" if "album_id" in present else "NULL"
        wanted = ", ".join(["id", "path", album, *map(_quoted, stored)])
        rows = connection.execute(f"SELECT {wanted} FROM items ORDER BY id").fetchall()
    items = []
    raw: dict[str, list[Attribute]] = {column: [] for column in columns}
    for number, path, album_id, *values in rows:
        row = dict(zip(stored, values, strict=True))
        for column, name in columns.items():
            of_item, of_album = flexible.get(name, ({}, {}))
            own = row[name] if name in row else of_item.get(number, of_album.get(album_id))
            raw[column].append(_attribute(name, own))
        items.append((path if isinstance(path, bytes) else str(path or "").encode(), _tags(row)))
    typed = {column: _typed(values) if name not in present else values for (column, name), values in
             zip(columns.items(), raw.values(), strict=True)}
    return [
        BeetsItem(path=path, tags=tags, attributes={column: values[row] for column, values in typed.items()})
        for row, (path, tags) in enumerate(items)
    ]


def attribute_columns(attributes: Sequence[str]) -> dict[str, str]:
    """The name of the label column for each attribute -> the attribute's name in beets.

    >>> attribute_columns(["mood", "My-Rating"])
    {'mood': 'mood', 'my_rating': 'My-Rating'}
    """
    columns: dict[str, str] = {}
    for name in attributes:
        column = re.sub(r"\W+", "_", name.strip().lower()).strip("_")
        if name in ALWAYS_READ and name != "genres":
            raise InputError(f"attribute {name!r}: is read without being asked for. Leave it out of --attributes")
        if columns.setdefault(column, name) != name:
            raise InputError(f"attributes {columns[column]!r} and {name!r}: both become the column {column}. Leave one out")
    return columns


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """One consistent view of the library; texts come as bytes, because some libraries hold invalid UTF-8."""
    try:
        connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.text_factory = bytes
            connection.execute("BEGIN")
            yield connection
    except sqlite3.Error as error:
        if "locked" in str(error) or "busy" in str(error):
            problem = "is locked by a program that writes to it. Run it again when beets has finished"
        else:
            problem = f"cannot be read as a library of beets ({error}). `beet config` names the file"
        raise InputError(f"{file.name}: {problem}") from error


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name.decode() for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def _flexible(
    connection: sqlite3.Connection, file: Path, name: str, *, must_exist: bool
) -> tuple[dict[int, Any], dict[int, Any]]:
    """The values of a flexible attribute: by item, and by album.  Raises InputError if there are none and it must exist."""
    tables = [table for table in ("item_attributes", "album_attributes") if _columns(connection, table)]
    values = {
        table: dict(connection.execute(f"SELECT entity_id, value FROM {table} WHERE key = ?", (name,))) for table in tables
    }
    if must_exist and not any(values.values()):
        keys = [
            _text(key) for table in tables for (key,) in connection.execute(f"SELECT DISTINCT key FROM {table} ORDER BY key")
        ]
        shown = ", ".join(printable(key) for key in dict.fromkeys([*keys[:MOST_NAMES], "bpm", "label", "comments"]))
        raise InputError(f"{file.name}: no song has an attribute {name!r}. Choose from {shown}, or other fields of beets")
    return values.get("item_attributes", {}), values.get("album_attributes", {})


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: Any) -> str:
    """A stored value as text; bytes that are no UTF-8 are replaced."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else "" if value is None else str(value)


def _values(name: str, value: Any) -> list[str]:
    """The values of a column of lists, cleaned."""
    text = _text(value)
    separator = SEVERAL if SEVERAL in text or name != ALBUM_TYPES else "; "
    return list(dict.fromkeys(cleaned for part in text.split(separator) if (cleaned := clean(part))))


def _tags(row: dict[str, Any]) -> dict[str, Any]:
    """The columns that a file's tags fill, from a row of `items`; None where beets has no value."""
    tags: dict[str, Any] = {column: clean(_text(row.get(name))) or None for name, column in TEXTS.items()}
    for name, column in NUMBERS.items():
        number = row.get(name)
        tags[column] = number if isinstance(number, int) and 0 < number < 100_000 else None
    tags["artists"] = _values("artists", row.get("artists"))[:MAX_ARTISTS] or None
    genres = _values("genres", row.get("genres")) or [clean(_text(row.get("genre")))]
    tags["genre"] = next((name for genre in genres if (name := genre_name(genre))), None)
    return tags


def _attribute(name: str, value: Any) -> Attribute:
    """A value of an attribute as it is stored in a label column; None where beets has no value."""
    if name in LISTS:
        return _values(name, value) or None
    if isinstance(value, int | float):
        return value if value or name in ZERO_IS_A_VALUE else None
    return clean(_text(value).replace(SEVERAL, "; ")) or None


def _typed(values: list[Attribute]) -> list[Attribute]:
    """The values of a flexible attribute: numbers if every one of them is a number, as in a table of labels."""
    series = number_series([value if value is None else str(value) for value in values])
    return values if series is None else series.to_list()
