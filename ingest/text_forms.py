"""Text of rows in Unicode's normal form C."""

from __future__ import annotations

import polars as pl
import polars.selectors as cs

from tonelake.store import DTYPES


def normalized(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with text in Unicode's NFC, as `store.to_nfc` does; sources keep the spelling of their file."""
    lists = [name for name, kind in rows.schema.items() if kind == DTYPES["tags"]]
    return rows.with_columns(
        (cs.string() - cs.by_name("source", require_all=False)).str.normalize("NFC"),
        pl.col(lists).list.eval(pl.element().str.normalize("NFC")),
    )
