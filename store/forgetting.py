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
from tonelake.store.ingests import Ingest
from tonelake.store.lake import Lake
from tonelake.store.sync import sync_clips
from tonelake.store.table import Table
from tonelake.store.table_reading import IDS_PER_FILTER, chunks, in_list


@dataclass(frozen=True)
class ForgetReport:
    """Counts of what `forget` deletes, or would delete."""

    songs: int
    clips: int
    files: int
    ids: int = 0                         # of a music server for files of this disk, which stay

    def __str__(self) -> str:
        if self.ids and not self.files:
            return f"{self.ids:,} ids of the server"
        text = f"{self.songs:,} songs with {self.clips:,} clips, and {self.files:,} paths of files"
        return f"{text}, and {self.ids:,} ids of the server" if self.ids else text


def forget(
    lake: Lake, path: str | None = None, *, missing: bool = False, superseded: bool = False, where: str | None = None,
    confirm: Callable[[ForgetReport], bool] = lambda _: True,
) -> ForgetReport | None:
    """Delete clips and all that is stored of them; returns the counts, or None if `confirm` returned False.

    Exactly one choice: `path`, a file or a folder as the lake names it, or `KIND:ADDRESS` of a music server; `missing`,
    recordings whose files are gone; `superseded`, recordings whose files have other audio now; `where`, SQL over clip columns.
    Raises InputError without a choice, or if nothing matches.

    A file that is still in a folder comes back with the next ingest of that folder.  The record of an ingest of `path`, or of a
    folder below it, is deleted too.  With a server go the ids that it has for songs and artists; files of this disk keep their
    clips.
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
    server = None if path is None else server_named(lake, path)
    if not len(clips) and not len(rows) and server is None:
        what = {"PATH": f"no clip or file of {path}", "--where": f"no clip where {where}"}
        raise InputError(f"forget: {what.get(chosen[0], f'nothing is {chosen[0][2:]}')}")
    rest = lake.clips.read(["clip_id", "recording"], superseded=True).join(clips, on="clip_id", how="anti")
    emptied = files.join(clips.drop_nulls("recording"), on="recording", how="semi").join(rest, on="recording", how="anti")
    rows = pl.concat([rows, emptied]).unique("source")
    partial = files.join(clips, on="recording", how="semi").join(rows, on="source", how="anti")
    report = ForgetReport(
        songs=clips["track"].n_unique(), clips=len(clips), files=len(rows),
        ids=0 if server is None else len(lake.paths.served(server.root).join(rows, on="source", how="anti")),
    )
    if not confirm(report):
        return None
    if server is not None:               # the record last, by which a forget that was killed finds the server again
        lake.paths.set_served(server.root, {})
        lake.servers.set_artists(server.root, {})
        lake.ingests.remove(server.kind, server.root)
    elif path is not None:               # a watch would bring its clips back
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


def server_named(lake: Lake, path: str) -> Ingest | None:
    """The recorded ingest of the music server that a path names as `KIND:ADDRESS`; None for any other path."""
    return next((one for one in lake.ingests.all() if f"{one.kind}:{one.root}" == path.rstrip("/") and "://" in one.root), None)


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
