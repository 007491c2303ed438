"""Delete clips for good, with their vectors, frames, tokens, gestures, events, files and failures.

What depends on clips is deleted before them, and files after them, so that a run that was killed can be repeated: the clips
that it was asked for are still there.  Indexes, maps and runs notice by the tables' versions that clips are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from tonelake.store.columns import MISSING, SUPERSEDED
from tonelake.store.errors import InputError
from tonelake.store.lake import Lake
from tonelake.store.sync import sync_clips
from tonelake.store.table import IDS_PER_FILTER, Table, chunks, in_list


@dataclass(frozen=True)
class ForgetReport:
    """Counts of what `forget` deletes, or would delete."""

    songs: int
    clips: int
    files: int

    def __str__(self) -> str:
        return f"{self.songs:,} songs with {self.clips:,} clips, and {self.files:,} paths of files"


def forget(
    lake: Lake, path: str | None = None, *, missing: bool = False, superseded: bool = False, where: str | None = None,
    confirm: Callable[[ForgetReport], bool] = lambda _: True,
) -> ForgetReport | None:
    """Delete clips and all that is stored of them; returns the counts, or None if `confirm` returned False.

    Exactly one choice: `path`, a file or a folder as the lake names it; `missing`, recordings whose files are gone;
    `superseded`, recordings whose files have other audio now; `where`, SQL over clip columns.
    Raises InputError without a choice, or if nothing matches.

    A file that is still in a folder comes back with the next ingest of that folder.  The record of an ingest of `path`, or of a
    folder below it, is deleted too.
    """
    chosen = [name for name, given in (
        ("PATH", path is not None), ("--missing", missing), ("--superseded", superseded), ("--where", where is not None),
    ) if given]
    if len(chosen) != 1:
        raise InputError("forget: needs exactly one of PATH, --missing, --superseded and --where")
    lake.check_writable()
    columns = ["clip_id", "track", "recording", "source", "state"]
    clips = lake.clips.read(columns, where=where, superseded=True)
    files = lake.paths.read(["source", "recording", "missing_since"])
    if missing:
        clips = clips.filter(pl.col("state") == MISSING)
        rows = files.filter(pl.col("missing_since").is_not_null())
    elif superseded:
        clips = clips.filter(pl.col("state") == SUPERSEDED)
        rows = files.clear()
    elif path is not None:
        is_below = (pl.col("source") == path) | pl.col("source").str.starts_with(path.rstrip("/") + "/")
        rows = files.filter(is_below)
        elsewhere = files.filter(~is_below)["recording"].drop_nulls()            # copies keep the clips
        in_rows = pl.col("recording").is_in(rows["recording"].implode()) | is_below
        clips = clips.filter(in_rows & ~pl.col("recording").is_in(elsewhere.implode()).fill_null(False))
    else:
        rows = files.clear()
    if not len(clips) and not len(rows):
        what = {"PATH": f"no clip or file of {path}", "--where": f"no clip where {where}"}
        raise InputError(f"forget: {what.get(chosen[0], f'nothing is {chosen[0][2:]}')}")
    rest = lake.clips.read(["clip_id", "recording"], superseded=True).join(clips, on="clip_id", how="anti")
    emptied = files.join(clips.drop_nulls("recording"), on="recording", how="semi").join(rest, on="recording", how="anti")
    rows = pl.concat([rows, emptied]).unique("source")
    partial = files.join(clips, on="recording", how="semi").join(rows, on="source", how="anti")
    report = ForgetReport(songs=clips["track"].n_unique(), clips=len(clips), files=len(rows))
    if not confirm(report):
        return None
    if path is not None:                 # a watch would bring its clips back
        for ingest in lake.ingests.all():
            if f"{ingest.root}/".startswith(f"{path.rstrip('/')}/"):
                lake.ingests.remove(ingest.kind, ingest.root)
    ids = clips["clip_id"].to_list()
    for table in tables_with_clips(lake):
        delete(table, "clip_id", ids)
    kept = rest["recording"].drop_nulls().implode()
    gone = clips.drop_nulls("recording").filter(~pl.col("recording").is_in(kept))["recording"].unique(maintain_order=True)
    lake.events.forget(gone.to_list())
    delete(lake.failures.table, "source", sorted({*rows["source"], *clips["source"]}))
    forget_cuts(lake, partial["source"].to_list())
    lake.clips.remove(ids)
    lake.paths.remove(rows["source"].to_list())
    sync_clips(lake)                     # clips whose path is forgotten follow another one
    return report


def tables_with_clips(lake: Lake) -> list[Table]:
    """Vectors, frames, tokens and gestures of every space."""
    tables: list[Table] = []
    for space in lake.spaces.all():
        tables += [lake.vectors(space).table, lake.frames(space).table, lake.tokens(space).table, lake.gestures(space).table]
    return [table for table in tables if table.version]


def delete(table: Table, column: str, values: list[str]) -> None:
    for part in chunks(values, IDS_PER_FILTER):
        table.delete(in_list(column, part))


def forget_cuts(lake: Lake, sources: list[str]) -> None:
    """Have these files cut again by the next ingest, since some of their clips are gone."""
    for part in chunks(sources, IDS_PER_FILTER):
        rows = lake.paths.read(where=in_list("source", part))
        lake.paths.put(rows.with_columns(cuts=pl.lit(None, pl.List(pl.String))))
