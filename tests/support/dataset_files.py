"""Small folders in the layout of published data sets."""

from __future__ import annotations

from pathlib import Path

from sounds import encode, melody, write

DATA = Path(__file__).parents[1] / "data" / "datasets"


def sound(path, seed, seconds=2.0):
    """Write a short file that decodes."""
    (encode if path.suffix in (".mp3", ".m4a") else write)(path, melody(seconds, seed=seed))
    return path


def rows_of(lake, column="track"):
    """Rows of the lake's clips by the value of a column."""
    return {row[column]: row for row in lake.clips.read().to_dicts()}


def text(path, *lines):
    """Write lines to a file, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
