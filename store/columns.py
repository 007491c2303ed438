"""Columns of clips: which are fixed, what each can be used for, and what a column's type means.

    kind      stored as       means
    class     text, boolean   one of several names: a group, a class to predict
    integer   int64           a number that can name a class (year, fold) or be predicted as a number
    decimal   float64         a measurement: predicted as a number, never a group
    tags      list of text    several values a clip: overlapping groups, tags to predict
    time      timestamp       a point in time

Label columns are the columns that a user brought.  Every room asks here instead of looking at types itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa

CLIP_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string()),        # opaque; a new one is a hash of recording, start, length, decode version
        pa.field("track", pa.string()),          # unique name of the song or piece that it belongs to
        pa.field("recording", pa.string()),      # hash of the encoded audio that it is a span of; null if that is not known
        pa.field("source", pa.string()),         # a path, a file: URI where the path is not valid UTF-8, or chorale:…
        pa.field("digest", pa.string()),         # blake2b of the source's bytes when it was ingested
        pa.field("start_s", pa.float64()),
        pa.field("duration_s", pa.float64()),
        pa.field("cut", pa.string()),            # how the source was cut: whole, 30s, 30s/15s, manifest, 4bars/2
        pa.field("title", pa.string()),
        pa.field("artist", pa.string()),
        pa.field("album", pa.string()),
        pa.field("dataset", pa.string()),
        pa.field("stem", pa.string()),
        pa.field("split", pa.string()),
        pa.field("flag", pa.string()),           # a problem with the audio: silent, truncated, damaged, …; null for none
        pa.field("state", pa.string()),          # null: live; missing: no file has it now; superseded: its files were replaced
        pa.field("labelled", pa.list_(pa.string())),         # fixed columns that labels filled, which tags do not replace
        pa.field("added_at", pa.timestamp("us", tz="UTC")),
    ]
)
SEPARATED_FROM = "separated_from"        # label column of stems: the clip that they were separated from
MISSING, SUPERSEDED = "missing", "superseded"
# Columns that tags fill, and labels may; those that are not fixed are added when a file first has the tag.
TAG_COLUMNS: dict[str, pa.DataType] = {
    "title": pa.string(), "artist": pa.string(), "artists": pa.list_(pa.string()), "album": pa.string(),
    "album_artist": pa.string(), "track_number": pa.int64(), "year": pa.int64(), "genre": pa.string(),
}
FIXED_COLUMNS = tuple(CLIP_SCHEMA.names)
SETTABLE_COLUMNS = ("track", "title", "artist", "album", "dataset", "stem", "split")     # fixed columns that labels may fill
FIXED_GROUP_COLUMNS = ("artist", "album", "track", "dataset", "stem", "split")           # fixed columns that group clips
UNDESCRIPTIVE = "track"                          # a group column, but its values are ids rather than descriptions

ColumnKind = Literal["class", "integer", "decimal", "tags", "time"]
DTYPES: dict[ColumnKind, Any] = {"class": pl.String, "integer": pl.Int64, "decimal": pl.Float64, "tags": pl.List(pl.String)}


def label_columns(names: Sequence[str]) -> list[str]:
    """The columns among `names` that a user brought.

    >>> label_columns(["clip_id", "artist", "mood"])
    ['mood']
    """
    return [name for name in names if name not in FIXED_COLUMNS]


def group_columns(names: Sequence[str]) -> list[str]:
    """The columns among `names` that may group clips: fixed ones first, then label columns.  `can_group` judges their types.

    >>> group_columns(["clip_id", "mood", "track", "artist"])
    ['artist', 'track', 'mood']
    """
    return [*(name for name in FIXED_GROUP_COLUMNS if name in names), *label_columns(names)]


def descriptive_columns(names: Sequence[str]) -> list[str]:
    """The columns among `names` whose values describe a set of clips: group columns but the track, which is an id.

    >>> descriptive_columns(["clip_id", "track", "artist", "mood"])
    ['artist', 'mood']
    """
    return [name for name in group_columns(names) if name != UNDESCRIPTIVE]


def kind_of(dtype: Any) -> ColumnKind:
    """The kind of a column with this polars type.

    >>> [kind_of(dtype) for dtype in (pl.String, pl.Boolean, pl.Int32, pl.Float32, pl.List(pl.String), pl.Date)]
    ['class', 'class', 'integer', 'decimal', 'tags', 'time']
    """
    if isinstance(dtype, pl.List):
        return "tags"
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "decimal"
    return "time" if dtype.is_temporal() else "class"


def is_number(dtype: Any) -> bool:
    """Whether a column holds one number a clip.

    >>> [is_number(dtype) for dtype in (pl.Int64, pl.Float64, pl.String, pl.Boolean, pl.List(pl.Int64))]
    [True, True, False, False, False]
    """
    return kind_of(dtype) in ("integer", "decimal")


def is_list(dtype: Any) -> bool:
    """Whether a column holds several values a clip.

    >>> is_list(pl.List(pl.String)), is_list(pl.String)
    (True, False)
    """
    return kind_of(dtype) == "tags"


def element_kind(dtype: Any) -> ColumnKind:
    """The kind of a single value: of a list's elements, else of the column.

    >>> element_kind(pl.List(pl.String)), element_kind(pl.List(pl.Float64)), element_kind(pl.Int64)
    ('class', 'decimal', 'integer')
    """
    return kind_of(dtype.inner if isinstance(dtype, pl.List) else dtype)


def can_group(dtype: Any) -> bool:
    """Whether equal values make clips belong together: all kinds but decimal numbers.

    >>> [can_group(dtype) for dtype in (pl.String, pl.Int64, pl.List(pl.String), pl.Float64, pl.List(pl.Float64))]
    [True, True, True, False, False]
    """
    return element_kind(dtype) != "decimal"


def value_rows(values: pl.Series) -> pl.DataFrame:
    """Columns row and value: one row for each value of each clip, without nulls; a list gives several, repeats included.

    >>> value_rows(pl.Series([["a", "b"], None, ["a"]])).rows()
    [(0, 'a'), (0, 'b'), (2, 'a')]
    >>> value_rows(pl.Series([1993, None])).rows()
    [(0, 1993)]
    """
    rows = pl.DataFrame({"row": np.arange(len(values)), "value": values})
    return (rows.explode("value") if is_list(values.dtype) else rows).drop_nulls("value")


def joined_lists(values: pl.Series, separator: str = ", ") -> pl.Series:
    """A list column as text, its values joined; any other column unchanged.

    >>> joined_lists(pl.Series([["calm", "slow"], None]), "|").to_list(), joined_lists(pl.Series([1])).to_list()
    (['calm|slow', None], [1])
    """
    return values.cast(DTYPES["tags"]).list.join(separator) if is_list(values.dtype) else values


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The Arrow type that a label column is stored in: polars' view and large types become Arrow's plain ones, 64 bits wide.

    >>> stored_type(pa.large_list(pa.large_string())), stored_type(pa.int16())
    (ListType(list<item: string>), DataType(int64))
    """
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(stored_type(kind.value_type))
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float64()
    return kind
