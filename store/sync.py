"""Bring clips in step with the table of files: state, source, digest, tags and the name of the track.

A clip follows its file: the path that is stored with it while that file is present and has its recording, else the first
present path of the recording.  Values that labels filled (column `labelled`) stay.  Everything is derived, so a sync can be
repeated, and an interrupted one is completed by the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from tonelake.store.columns import MISSING, SEPARATED_FROM, SUPERSEDED, TAG_COLUMNS
from tonelake.store.lake import Lake
from tonelake.store.states import states_of
from tonelake.store.table_reading import to_frame

TRACK = "track"


@dataclass(frozen=True, kw_only=True)
class Synced:
    """Clips that a sync changed."""

    changed: pl.Series                   # clip ids
    superseded: int = 0                  # clips that became superseded
    missing: int = 0                     # clips that became missing
    back: int = 0                        # clips that were missing or superseded, and are live again


def sync_clips(lake: Lake) -> Synced:
    """Derive state, source, digest, tags and track of all clips from the files, and store what differs."""
    files = lake.paths.read()
    if files.is_empty():
        return Synced(changed=pl.Series("clip_id", [], pl.String))
    tags = usable_tags(lake, files)
    stored = set(lake.clips.table.schema.names)
    columns = ["clip_id", TRACK, "recording", "source", "digest", "state", "labelled"]
    clips = lake.clips.read([*columns, *(name for name in (*tags, SEPARATED_FROM) if name in stored)], superseded=True)
    clips = clips.with_columns(pl.lit(None, tags[name]).alias(name) for name in tags if name not in stored)
    joined = with_files(clips.with_columns(states_of(clips, files).alias("state")), files)
    wanted = joined.with_columns(
        pl.when("follows").then("file").otherwise("source").alias("source"),
        pl.when("follows").then("file digest").otherwise("digest").alias("digest"),
        *(
            pl.when(pl.col("follows") & ~pl.col("labelled").list.contains(name).fill_null(False))
            .then(pl.col(f"file {name}").cast(tags[name])).otherwise(name).alias(name)
            for name in tags
        ),
    )
    if "artists" in tags:                # a label of the artist holds for the list too
        has_label, has_list = (pl.col("labelled").list.contains(name).fill_null(False) for name in ("artist", "artists"))
        only = pl.when(pl.col("artist").is_not_null()).then(pl.concat_list("artist"))
        wanted = wanted.with_columns(
            pl.when(pl.col("follows") & has_label & ~has_list).then(only).otherwise("artists").alias("artists")
        )
    wanted = with_tracks(wanted).select(clips.columns)
    names = [name for name in clips.columns if name not in ("clip_id", "recording", "labelled", SEPARATED_FROM)]
    differs = [name for name in names if not wanted[name].equals(clips[name], null_equal=True)]
    if not differs:
        return Synced(changed=pl.Series("clip_id", [], pl.String))
    rows = pl.any_horizontal(wanted[name].ne_missing(clips[name]) for name in differs)
    changed = lake.clips.update(wanted.filter(pl.select(rows).to_series()).select("clip_id", *differs))
    before, after = clips["state"], wanted["state"]
    return Synced(
        changed=changed, superseded=int(((after == SUPERSEDED) & before.ne_missing(pl.Series([SUPERSEDED]))).sum()),
        missing=int(((after == MISSING) & before.ne_missing(pl.Series([MISSING]))).sum()),
        back=int((after.is_null() & before.is_not_null()).sum()),
    )


def usable_tags(lake: Lake, files: pl.DataFrame) -> dict[str, pl.DataType]:
    """The tag columns that can be filled, with their types: those that clips or files have.

    A column of another type was made by labels, and is left alone.
    """
    schema = to_frame(lake.clips.table.schema.empty_table()).schema
    types = to_frame(pa.schema(list(TAG_COLUMNS.items())).empty_table()).schema
    found: dict[str, pl.DataType] = {}
    for name, dtype in types.items():
        in_files = name in files.columns and files[name].null_count() < len(files)
        if schema.get(name, dtype) == dtype and (name in schema or in_files):
            found[name] = dtype
    return found


def with_files(clips: pl.DataFrame, files: pl.DataFrame) -> pl.DataFrame:
    """Clips with the file that each follows: `file`, its columns as `file <name>`, and `follows`, whether there is one."""
    known = files.drop_nulls("recording").with_columns(
        is_here=pl.col("missing_since").is_null(), artist=pl.col("artists").list.first(),
    )
    own = known.select("source", "recording", own_here="is_here")
    best = known.sort(~pl.col("is_here"), "source").unique("recording", keep="first").select(
        "recording", best="source", best_here="is_here",
    )
    joined = clips.join(own, on=["source", "recording"], how="left", maintain_order="left")
    joined = joined.join(best, on="recording", how="left", maintain_order="left")
    keeps = pl.col("own_here").fill_null(False) | (pl.col("own_here").is_not_null() & ~pl.col("best_here"))
    joined = joined.with_columns(file=pl.when(keeps).then("source").otherwise("best"))
    row = known.select(file="source", **{f"file {name}": name for name in ("digest", "name", *TAG_COLUMNS)})
    joined = joined.join(row, on="file", how="left", maintain_order="left")
    return joined.with_columns(follows=pl.col("file").is_not_null() & pl.col("state").ne_missing(SUPERSEDED))


def with_tracks(clips: pl.DataFrame) -> pl.DataFrame:
    """Give every recording whose track is named after its path a name that no other song has.

    Two recordings of one path below their folders (`01.wav` of two albums) keep apart by the names of the folders above.  Stems
    have the track of the clip that they were separated from.
    """
    by_path = pl.col("follows") & ~pl.col("labelled").list.contains(TRACK).fill_null(False) & pl.col("file name").is_not_null()
    shown = clips.filter(pl.col("state").ne_missing(SUPERSEDED))
    rows = shown.filter(by_path).unique("recording", keep="first", maintain_order=True)
    rows = rows.select("recording", "file", now=TRACK, name="file name")
    stems = clips[SEPARATED_FROM].is_not_null() if SEPARATED_FROM in clips.columns else pl.repeat(False, len(clips), eager=True)
    others = clips.filter(~stems & clips.select(~by_path | (pl.col("state") == SUPERSEDED).fill_null(False)).to_series())
    taken = set(others.filter(pl.col("state").ne_missing(SUPERSEDED))[TRACK])
    names = unique_names(rows, taken)
    clips = clips.join(names, on="recording", how="left", maintain_order="left").with_columns(
        pl.when(by_path).then(pl.coalesce("unique name", TRACK)).otherwise(TRACK).alias(TRACK)
    )
    if not stems.any():
        return clips
    mixes = clips.select(pl.col("clip_id").alias(SEPARATED_FROM), pl.col(TRACK).alias("mix track"))
    return clips.join(mixes, on=SEPARATED_FROM, how="left", maintain_order="left").with_columns(
        pl.coalesce("mix track", TRACK).alias(TRACK)
    )


def unique_names(rows: pl.DataFrame, taken: set[str]) -> pl.DataFrame:
    """(recording, `unique name`) for rows of recording, file, name (its path below its folder) and now, its present track.

    A name that is longer than the path, to keep recordings apart, is kept.
    """
    longer = pl.col("now").str.ends_with(pl.format("/{}", "name")) & pl.col("file").str.ends_with(pl.format("/{}", "now"))
    wanted = rows.select(pl.when(longer).then("now").otherwise("name")).to_series().to_list()
    counts = Counter(wanted)
    names: list[str | None] = [name if counts[name] == 1 and name not in taken else None for name in wanted]
    used = taken | {name for name in names if name is not None}
    now, files, recordings = rows["now"].to_list(), rows["file"].to_list(), rows["recording"].to_list()
    due = [row for row, name in enumerate(names) if name is None]
    for row in sorted(due, key=lambda row: (now[row] != wanted[row], files[row])):
        unique = next(name for name in longer_names(wanted[row], files[row], recordings[row]) if name not in used)
        names[row] = unique
        used.add(unique)
    return pl.DataFrame(
        {"recording": recordings, "unique name": names}, schema={"recording": pl.String, "unique name": pl.String}
    )


def longer_names(name: str, file: str, recording: str) -> Iterator[str]:
    """Yield the name, then with one folder more each time, and at last with the recording.

    >>> list(longer_names("01.wav", "/a/b/01.wav", "12cd"))
    ['01.wav', 'b/01.wav', 'a/b/01.wav', '/a/b/01.wav', '01.wav 12cd']
    """
    yield name
    parts = file.split("/") if not file.startswith("subsonic:") else []          # an address is not a folder
    for count in range(name.count("/") + 2, len(parts) + 1):
        yield "/".join(parts[-count:])
    yield f"{name} {recording}"

