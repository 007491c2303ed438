"""List the encoders that can be named: the built-in ones and those of installed packages, with or without their weights."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import polars as pl

from tonelake.embed.encoders.registry import ENTRY_POINTS, find_class
from tonelake.embed.encoders.table import ENTRIES, Entry
from tonelake.embed.errors import EncoderError

COLUMNS: dict[str, Any] = {
    "name": pl.String,                   # for --encoder
    "aliases": pl.List(pl.String),
    "location": pl.String,               # what a space records
    "sample_rate": pl.Int64,             # Hz
    "layers": pl.Int64,
    "width": pl.String,                  # of a layer, or the smallest and the largest
    "size": pl.String,                   # of the weights
    "licence": pl.String,                # of the weights
    "origin": pl.String,                 # where the weights come from
    "here": pl.Boolean,                  # whether the weights are on this machine
    "learned": pl.Boolean,
    "words": pl.Boolean,                 # whether it understands words
    "good_for": pl.String,
    "source": pl.String,                 # of the figures in `good_for`
}


def list_encoders() -> pl.DataFrame:
    """One row an encoder; `COLUMNS` describes the columns.

    Classes of other packages are imported; one that fails is listed with the problem in place of what it is good for.
    """
    rows = [entry_row(entry) for entry in ENTRIES]
    rows += [plugin_row(point.name, f"{point.module}:{point.attr}") for point in entry_points(group=ENTRY_POINTS)]
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def entry_row(entry: Entry) -> dict[str, Any]:
    """The row of a built-in encoder."""
    return {
        "name": entry.name, "aliases": list(entry.aliases), "location": entry.name, "sample_rate": entry.sample_rate,
        "layers": entry.layers, "width": entry.width, "size": entry.size, "licence": entry.licence,
        "origin": entry.weights.origin if entry.weights else "computed", "here": entry.present(), "learned": entry.learned,
        "words": entry.words, "good_for": entry.good_for, "source": entry.source or None,
    }


def plugin_row(name: str, location: str) -> dict[str, Any]:
    """The row of an encoder of another package, from the attributes of its class; those set by the constructor are null."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"name": name, "aliases": [], "location": location, "origin": "another package"}
    try:
        found = find_class(location)
    except EncoderError as error:
        return row | {"good_for": str(error)}
    declared = {attribute: vars_of(found).get(attribute) for attribute in ("sample_rate", "layers", "dims", "licence")}
    dims = declared["dims"] or ()
    return row | {
        "sample_rate": declared["sample_rate"], "layers": len(declared["layers"]) if declared["layers"] else None,
        "width": width_of(dims) if dims else None, "licence": declared["licence"] or None, "here": True,
        "learned": found.learned, "words": found.text_layer is not None,
    }


def vars_of(found: type) -> dict[str, Any]:
    """The attributes of a class and its bases, without those that only instances have."""
    return {name: value for base in reversed(found.__mro__) for name, value in vars(base).items()}


def width_of(dims: tuple[int, ...]) -> str:
    """The width of layers as text.

    >>> width_of((768, 768)), width_of((5, 128))
    ('768', '5–128')
    """
    return str(dims[0]) if len(set(dims)) == 1 else f"{min(dims)}–{max(dims)}"
