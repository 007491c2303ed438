"""Find rows of an ingest that the lake stores under another file's path because the bytes are the same, and their labels.

A clip is identified by its audio, so a copy of a file adds nothing.  Its labels are not stored if they differ from those of the
file that came first: which of them is right cannot be known here, so they are reported.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl

from tonelake.store import FIXED_COLUMNS, SETTABLE_COLUMNS, Lake, to_nfc

NOT_LABELS = ({*FIXED_COLUMNS} - {*SETTABLE_COLUMNS}) | {"track", "dataset"}
SHOWN = 3                                # copies, and differing labels of each column, that a note names


class Copies:
    """Copies found during an ingest: by file, and the labels that were not stored."""

    def __init__(self) -> None:
        self._originals: dict[str, str] = {}                         # source of the copy: source of the stored clips
        self._examples: dict[str, list[str]] = {}                    # by column
        self._differing: Counter[str] = Counter()                    # number of clips by column

    def __len__(self) -> int:
        return len(self._originals)

    @property
    def sources(self) -> list[str]:
        """Sources of the copies."""
        return list(self._originals)

    def note(self, lake: Lake, rows: pl.DataFrame) -> None:
        """Compare rows that were just added with what the lake stores for their clips."""
        known = set(lake.clips.columns())
        columns = [name for name in rows.columns if name not in NOT_LABELS and name in known]
        stored = lake.clips.take(rows["clip_id"].unique(maintain_order=True).to_list(), ["source", *columns])
        both = rows.select("clip_id", "source", *columns).join(stored, on="clip_id", suffix=" stored", maintain_order="left")
        copies = both.filter(pl.col("source") != pl.col("source stored"))
        self._originals |= dict(copies.select("source", "source stored").iter_rows())
        for name in columns:
            values = both[name].cast(both[f"{name} stored"].dtype, strict=False)
            differ = both.filter(values.is_not_null() & values.ne_missing(both[f"{name} stored"]))
            self._differing[name] += len(differ)
            for row in differ.select("source", name, f"{name} stored").head(SHOWN).rows():
                examples = self._examples.setdefault(name, [])
                text = _difference(*row)
                if len(examples) < SHOWN and text not in examples:
                    examples.append(text)

    def notes(self) -> tuple[str, ...]:
        """Notes on the copies and on labels of theirs that were left out."""
        found = []
        if self._originals:
            pairs = [_pair(copy, original) for copy, original in list(self._originals.items())[:SHOWN]]
            rest = ", …" if len(self._originals) > SHOWN else ""
            found.append(f"{len(self._originals):,} files are copies, whose clips are stored once: {', '.join(pairs)}{rest}")
        parts = []
        for name, examples in self._examples.items():
            rest = "; …" if self._differing[name] > len(examples) else ""
            parts.append(f"{name} ({'; '.join(examples)}{rest})")
        if parts:
            found.append(f"labels of copies that differ from those of the stored file were left out: {', '.join(parts)}")
        return tuple(found)


def _pair(copy: str, original: str) -> str:
    """Names of two files, with their folders if the names are the same."""
    names = [source.rsplit("/", 1)[-1] for source in (copy, original)]
    if names[0] == names[1]:
        names = ["/".join(source.split("/")[-2:]) for source in (copy, original)]
    return to_nfc(" of ".join(names))


def _difference(source: str, value: Any, stored: Any) -> str:
    return f"{to_nfc(source.rsplit('/', 1)[-1])}: {_text(value)}, stored: {_text(stored)}"


def _text(value: Any) -> str:
    return "nothing" if value is None else "|".join(value) if isinstance(value, list) else str(value)
