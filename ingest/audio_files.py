"""Find audio files below a folder, by suffix."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = frozenset({".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff"})
LAKE_FILE = "lake.json"


def audio_files(
    folder: Path, suffixes: frozenset[str] = SUFFIXES, passed_over: Counter[str] | None = None
) -> Iterator[Path]:
    """Audio files below a folder, sorted by name within each folder; hidden ones are skipped.

    Links are followed, and each folder is entered once.  A folder or a broken link with the name of an audio file is
    yielded too; ingest records it as a failure.  `passed_over` counts the other files by suffix (`ingest.passed_over`), without
    those of a lake.
    """
    entered: set[tuple[int, int]] = set()
    lakes: list[str] = []                # folders of lakes, whose own files are not counted
    for root, folders, files in os.walk(folder, followlinks=True):
        try:
            stat = Path(root).stat()
        except OSError:
            continue
        if (stat.st_dev, stat.st_ino) in entered:            # a link back to a folder above
            folders.clear()
            continue
        entered.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files + folders):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(root) / name
        if LAKE_FILE in files:
            lakes.append(root)
        if passed_over is not None and not any(Path(root).is_relative_to(lake) for lake in lakes):
            others = (Path(name).suffix.lower() for name in files if not name.startswith("."))
            passed_over.update(suffix for suffix in others if suffix not in suffixes)


def clean_name(text: str) -> str:
    """A path as text for a table column: bytes that are not UTF-8 become \\udcXX escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
