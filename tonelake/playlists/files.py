"""Playlists as files: an M3U8 beside the music or anywhere else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from tonelake.ingest import to_path
from tonelake.playlists.entries import Entry
from tonelake.playlists.m3u import entry_name, m3u_text, written_path
from tonelake.playlists.names import safe_name, shown_name
from tonelake.store import InputError

SUFFIX = ".m3u8"


class FilePlayer:
    """Any player that opens a playlist on this machine: it plays files that are there."""

    lacks = "whose files are not on this disk"

    def may_play(self, files: pl.DataFrame) -> pl.Series:
        is_file = pl.col("source").str.starts_with("file:") | ~pl.col("source").str.contains(r"^[A-Za-z][A-Za-z0-9+.-]+:")
        return files.select(~pl.col("missing") & is_file).to_series()

    def place(self, source: str) -> str | None:
        try:
            return source if to_path(source).is_file() else None
        except (OSError, ValueError):
            return None


def playlist_file(name: str, out: Path | None = None) -> Path:
    """The file of a playlist: `out`, or its name in the current folder."""
    return Path(f"{safe_name(name)}{SUFFIX}") if out is None else out.expanduser()


def write_m3u(file: Path, name: str, entries: Sequence[Entry], *, relative: bool = False, replace: bool = False) -> None:
    """Write a playlist whole, or not at all.  `relative`: paths start at the playlist's folder.

    Raises InputError if the file exists, unless `replace`, or if it cannot be written.
    """
    folder = Path(os.path.abspath(file)).parent if relative else None                      # noqa: PTH100 - keeps links
    places = ((one, written_path(one.source, folder)) for one in entries)
    text = m3u_text(
        [(place, one.seconds, entry_name({"artist": one.artist, "title": one.title, "track": one.track}))
         for one, place in places if place is not None], shown_name(name),
    )
    beside = file.with_name(f".{secrets.token_hex(6)}.tmp")
    reserved = False
    try:
        if not replace:                  # of two programs that write a playlist of one name, one is refused
            file.open("x").close()
            reserved = True
        with beside.open("x", encoding="utf-8", newline="\n") as opened:
            opened.write(text)
        beside.replace(file)
        reserved = False
    except FileExistsError as error:
        raise InputError(f"{file}: exists. Replace it with --replace, or choose another name or --out") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file}: cannot be written ({getattr(error, 'strerror', None) or error}). Choose another file with --out"
        ) from error
    finally:
        with suppress(OSError, ValueError):
            beside.unlink(missing_ok=True)
            if reserved:
                file.unlink(missing_ok=True)
