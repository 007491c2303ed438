"""Join label columns of a table to chorales, by piece, BWV number or name in the corpus."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import polars as pl

from tonelake.ingest.chorale_sources import SCHEME, ChoraleSource
from tonelake.ingest.known_clips import FILLED_BY_LABELS
from tonelake.ingest.labels import KEY_NAMES, Labels
from tonelake.store import Lake, to_nfc

SCORE_FILLS = ("artist", "title", "track")               # columns that tags fill elsewhere, and the score here


class ChoraleLabels(Labels):
    """Rows of labels by piece: `bwv66.6`, `66.6`, `BWV 66.6`, `bwv66.6.mxl` and `chorale:bwv66.6.mxl` are the same key.

    A source with the settings of a soundfont is a key of that rendering alone.
    """

    keys = ("piece", "bwv", "name", *KEY_NAMES)
    keys_text = "piece, bwv or name"
    noun = "piece"

    def key_form(self, cell: str) -> str:
        """The BWV number, or the name without its suffix; a source with settings as it is.

        >>> labels = object.__new__(ChoraleLabels)
        >>> labels.key_form("BWV 66.6"), labels.key_form("bwv66.6.mxl"), labels.key_form("chorale:bwv66.6.mxl")
        ('66.6', '66.6', '66.6')
        """
        text = to_nfc(cell).strip()
        if text.startswith(SCHEME) and "?" in text:
            return text
        name = "".join(text.casefold().split()).removeprefix(SCHEME)
        for suffix in (".mxl", ".xml", ".krn", ".rntxt"):
            name = name.removesuffix(suffix)
        return name.removeprefix("bwv")

    def of_piece(self, source: ChoraleSource) -> dict[str, Any]:
        """The labels of one piece, None for an empty cell; {} if no row matches it."""
        return self.find([str(source), self.key_form(PurePath(source.name).name)])


def stored_marks(lake: Lake) -> dict[str, list[str]]:
    """Columns of tags that tables filled earlier, by clip: the column `labelled`, which a sync does not empty."""
    stored = lake.clips.read(["clip_id", "labelled"], where=f"source LIKE '{SCHEME}%'", superseded=True)
    return dict(stored.filter(pl.col("labelled").list.set_difference([*SCORE_FILLS]).list.len() > 0).iter_rows())


def labelled_row(row: dict[str, Any], labels: dict[str, Any], marks: Iterable[str] = ()) -> dict[str, Any]:
    """A clip's row with its labels.  An empty cell of a column that the score fills leaves the score's value.

    `marks`: columns that tables filled earlier.
    """
    given = {name: value for name, value in labels.items() if value is not None or name not in row}
    filled = {name for name, value in given.items() if value is not None and name in FILLED_BY_LABELS}
    kept = {*row["labelled"], *marks} - {name for name, value in given.items() if value is None}
    return row | given | {"labelled": sorted(kept | filled)}
