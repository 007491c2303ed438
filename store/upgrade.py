"""Upgrade of a lake from an older format, one step for each format; run by `tonelake verify --repair`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from tonelake.store.columns import CLIP_SCHEMA, FIXED_COLUMNS, SUPERSEDED, TAG_COLUMNS
from tonelake.store.files import FILE_TAGS, STAMP, file_rows
from tonelake.store.format import format_of, write_format
from tonelake.store.lake import Lake
from tonelake.store.states import states_of
from tonelake.store.sync import sync_clips
from tonelake.store.table_reading import to_frame

# Yields (source, what is read from the file) for each source, in any order; None if the file cannot be read.
# Values read from a file: recording, digest, the stamp's three values and the tags.
Identify = Callable[[Sequence[str]], Iterator[tuple[str, dict[str, Any] | None]]]

ROWS_PER_WRITE = 500                     # files that are read again if the upgrade is interrupted
ADDED = ("recording", "state", "labelled")               # columns of clips in format 2
LAST = "labelled"                        # if clips have it, all of ADDED are ours and not a user's
OLD_STAMPS = "sources"                   # folder of format 1, which the table of files replaces


def recordings_and_states(lake: Lake, identify: Identify) -> None:
    """Upgrade to format 2: a table of files, and a recording and a state for each clip.

    A file that has the bytes of its clips gives their recording; clips of other files are identified by the digest of the bytes
    that they were read from, until an ingest finds these bytes.
    """
    if not lake.clips.table.version:
        return
    add_columns(lake)
    fill_files(lake, identify)
    names = lake.clips.table.schema.names
    clips = to_frame(lake.clips.table.read([
        "clip_id", "track", "source", "digest", "flag", "title", "artist", "album", "cut",
        *(name for name in TAG_COLUMNS if name in names and name not in FIXED_COLUMNS),
    ]))
    files = lake.paths.read()
    known = files.drop_nulls("digest").sort("source").unique("digest", keep="first").select("digest", found="recording")
    clips = clips.join(known, on="digest", how="left", maintain_order="left").with_columns(
        recording=pl.coalesce("found", pl.format("b:{}", pl.col("digest"))),
        state=pl.when(pl.col("flag") == SUPERSEDED).then(pl.lit(SUPERSEDED)),
    )
    put_names_and_cuts(lake, clips, files)
    clips = clips.with_columns(
        state=pl.when(pl.col("state").is_null()).then(states_of(clips, files)).otherwise("state"),
        flag=pl.when(pl.col("flag") != SUPERSEDED).then("flag"),
        labelled=labelled_columns(clips, files),
    )
    lake.clips.update(clips.select("clip_id", "recording", "state", "flag", "labelled"))
    lake.clips.has_states = True
    sync_clips(lake)                     # fills columns of tags that format 1 did not read
    lake.files(OLD_STAMPS).remove("looks.parquet")


def add_columns(lake: Lake) -> None:
    """Add the columns of format 2 to the clips.  Label columns of their names are renamed to `<name>_label`."""
    names = lake.clips.table.schema.names
    if LAST in names and pa.types.is_list(lake.clips.table.schema.field(LAST).type):
        return
    for name in ADDED:
        if name in names:
            lake.clips.table.rename_column(name, f"{name}_label")
    lake.clips.table.add_columns([CLIP_SCHEMA.field(name) for name in ADDED])       # one commit: all of them or none


def fill_files(lake: Lake, identify: Identify) -> None:
    """Add a row for each source of clips that has none, in batches, so that an interrupted upgrade resumes."""
    clips = to_frame(lake.clips.table.read(["source", "digest", "flag", "added_at"]))
    newest = clips.sort(pl.col("flag").ne_missing(SUPERSEDED), "added_at").unique("source", keep="last", maintain_order=True)
    due = newest.join(lake.paths.read(["source"]), on="source", how="anti", maintain_order="left")
    now = datetime.now(UTC)
    is_chorale = pl.col("source").str.starts_with("chorale:")        # identified by the digest of its notes
    rows: list[dict[str, Any]] = [
        {"source": source, "recording": digest, "digest": digest, "seen": now}
        for source, digest in due.filter(is_chorale).select("source", "digest").iter_rows()
    ]
    digests = dict(due.filter(~is_chorale).select("source", "digest").iter_rows())

    def put() -> None:
        lake.paths.put(file_rows(rows))
        rows.clear()

    try:
        for source, found in lake.progress(identify(list(digests)), len(digests), "identifying recordings"):
            if found is None or found["digest"] != digests[source]:
                # Its clips' bytes are not there.  Without a stamp the file is read by the next ingest.
                found = {"recording": f"b:{digests[source]}", "digest": digests[source], "missing": found is None}
            rows.append({
                "source": source, "recording": found["recording"], "digest": found["digest"], "seen": now,
                "missing_since": now if found.get("missing") else None,
                **{name: found.get(name) for name in (*STAMP, *FILE_TAGS)},
            })
            if len(rows) >= ROWS_PER_WRITE:
                put()
    finally:
        put()


def put_names_and_cuts(lake: Lake, clips: pl.DataFrame, files: pl.DataFrame) -> None:
    """Store the rules by which each recording was cut, and the name that its track has if that is a path's ending."""
    of_recording = clips.group_by("recording").agg(cuts=pl.col("cut").drop_nulls().unique().sort())
    live = clips.filter(pl.col("state").is_null()).unique("source", maintain_order=True)
    names = live.filter(pl.col("source").str.ends_with(pl.format("/{}", "track"))).select("source", name="track")
    rows = files.drop("cuts", "name").join(of_recording, on="recording", how="left").join(names, on="source", how="left")
    lake.paths.put(rows)


def labelled_columns(clips: pl.DataFrame, files: pl.DataFrame) -> pl.Series:
    """(clip,) list: the columns whose values differ from the tags of the clip's file, so that labels must have filled them."""
    tags = files.select(
        "source", "digest", title_tag="title", album_tag="album", artist_tag=pl.col("artists").list.first(),
    )
    both = clips.join(tags, on=["source", "digest"], how="left", maintain_order="left")
    ends = pl.col("source").str.ends_with(pl.format("/{}", "track"))
    parts = [
        pl.when(pl.col(name).is_not_null() & pl.col(name).ne_missing(pl.col(f"{name}_tag"))).then(pl.lit(name))
        for name in ("title", "artist", "album")
    ]
    parts.append(pl.when(~ends).then(pl.lit("track")))
    others = [name for name in TAG_COLUMNS if name in clips.columns and name not in FIXED_COLUMNS]     # labels of format 1
    parts += [pl.when(pl.col(name).is_not_null()).then(pl.lit(name)) for name in others]
    found = both.select(pl.concat_list(parts).list.drop_nulls().alias("labelled"))["labelled"]
    return pl.select(pl.when(found.list.len() > 0).then(found).alias("labelled"))["labelled"]


# By format: the step that upgrades a lake from the format before.  A change that an older program would misread needs a step
# here and the new number in `store.format`.
UPGRADES: dict[int, Callable[[Lake, Identify], None]] = {2: recordings_and_states}


def pending_upgrades(found: int) -> list[int]:
    """The formats that a lake of format `found` still has to be upgraded to, in order."""
    return sorted(version for version in UPGRADES if version > found)


def upgrade_lake(lake: Lake, identify: Identify) -> list[int]:
    """Upgrade a lake, opened with `older=True`, to the newest format and return the formats it went through.

    `identify` reads files.  Each format is written once its step is done.  If a step is interrupted, the next call repeats it,
    so a step must be safe to run twice.
    """
    files = lake.files("")
    steps = pending_upgrades(format_of(files))
    for version in steps:
        UPGRADES[version](lake, identify)
        write_format(files, version)
        lake.read_format()
    return steps
