"""Checks of what a lake stores: its format, its spaces, rows, sources and vectors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from tonelake.ingest import (
    DecoderPool,
    identify_files,
    is_available,
    is_file_source,
    soundfont_differs,
    soundfont_of,
    to_path,
)
from tonelake.store import (
    Lake,
    Space,
    Table,
    TonelakeError,
    chunks,
    format_of,
    in_list,
    newest_format,
    pending_upgrades,
    upgrade_lake,
    write_format,
)
from tonelake.verify.finding import REPAIR, Finding, first_few

ROWS_OF_EVENTS = 100_000
ROWS_A_READ = 4096                       # of vectors, 80 MB of MERT-v1-95M


def check_format(lake: Lake, repair: bool) -> Iterator[Finding]:
    """An older format, or a missing lake.json."""
    files = lake.files("")
    version = format_of(files)
    if pending_upgrades(version):
        if repair:
            upgrade_lake(lake, identify_files)
        yield Finding(
            what="format", where="lake.json", problem=f"format {version}; this program writes {newest_format()}",
            remedy="upgraded" if repair else f"{REPAIR}: nothing else was checked", mended=repair,
        )
    elif files.read("lake.json") is None:
        if repair:
            write_format(files)
        yield Finding(
            what="format", where="lake.json", problem="missing: the lake was made before formats were recorded",
            remedy="written" if repair else REPAIR, mended=repair,
        )


def readable_spaces(lake: Lake) -> tuple[list[Space], list[Finding]]:
    """Spaces that can be read, and findings for those that cannot."""
    good, bad = [], []
    for file in lake.files("spaces").names(".json"):
        name = file.removesuffix(".json")
        try:
            space = lake.spaces.get(name)
            lake.vectors(space)
            good.append(space)
        except (TonelakeError, ValueError) as error:
            bad.append(Finding(
                what="space", where=name, problem=str(error),
                remedy="restore spaces/*.json from a copy, or embed into a new space",
            ))
    return good, bad


def check_rows(table: Table, name: str, repair: bool) -> Iterator[Finding]:
    """Keys that occur more than once."""
    if not table.version:
        return
    keys = pl.Series(table.read([table.key]).column(table.key).to_pylist(), dtype=pl.String)
    repeated = keys.filter(keys.is_duplicated()).unique().sort()
    if len(repeated):
        if repair:
            table.drop_duplicates(repeated.to_list())
        yield Finding(
            what="rows", where=name, problem=f"{len(repeated)} keys occur more than once: {first_few(repeated)}",
            remedy="the copies were deleted" if repair else REPAIR, mended=repair,
        )


def check_frames(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    yield from check_rows(lake.frames(space).table, f"frames_{space.name}", repair)
    yield from check_rows(lake.tokens(space).table, f"tokens_{space.name}", repair)
    yield from check_rows(lake.gestures(space).table, f"gestures_{space.name}", repair)


def check_events(lake: Lake, repair: bool) -> Iterator[Finding]:
    """Repeated events, and events of recordings that have no clips."""
    table = lake.events.table
    if not table.version:
        return
    yield from check_rows(table, "events", repair)
    known = lake.clips.read(["recording"], superseded=True)["recording"].drop_nulls().unique()
    orphans: set[str] = set()
    for batch in table.batches(["recording"], rows=ROWS_OF_EVENTS):
        found = pl.Series(batch.column("recording").to_pylist(), dtype=pl.String).unique()
        orphans |= set(found.filter(~found.is_in(known.implode())))
    if orphans:
        if repair:
            lake.events.forget(sorted(orphans))
        yield Finding(
            what="events", where="events",
            problem=f"{len(orphans)} recordings with events have no clips: {first_few(pl.Series(sorted(orphans)))}",
            remedy="their events were deleted" if repair else REPAIR, mended=repair,
        )


def check_sources(lake: Lake, digests: bool, repair: bool) -> Iterator[Finding]:
    """Missing files and, with `digests`, files whose bytes have changed; `repair` makes the next ingest read them again."""
    clips = lake.clips.read(["source", "digest"]).unique(["source", "digest"], maintain_order=True)
    sources = clips["source"].unique(maintain_order=True)
    gone = sources.filter(~sources.map_elements(is_available, return_dtype=pl.Boolean))
    unplayed = gone.filter(~gone.map_elements(is_file_source, return_dtype=pl.Boolean))
    if len(unplayed):
        soundfonts = pl.Series(sorted({str(soundfont_of(source)) for source in unplayed}))
        yield Finding(
            what="sources", where="clips",
            problem=f"the soundfont of {len(unplayed)} chorales is missing: {first_few(soundfonts)}",
            remedy="put it back, or run `tonelake ingest chorales --soundfont` with its present place",
        )
    if len(gone) > len(unplayed):
        gone = gone.filter(~gone.is_in(unplayed.implode()))
        yield Finding(
            what="sources", where="clips", problem=f"{len(gone)} files are missing: {first_few(gone)}",
            remedy="put them back, ingest the folder they are in now (clips follow their audio), or `tonelake forget` them",
        )
    if not digests:
        return
    # A song of a server is compared if it is in the cache; nothing is downloaded.
    is_file = clips["source"].map_elements(
        lambda source: is_file_source(source) or to_path(source).exists(), return_dtype=pl.Boolean
    )
    here = clips.filter(~clips["source"].is_in(gone.implode()) & is_file)
    changed = [source for source, digest in clips.iter_rows() if soundfont_differs(source, digest)]
    with DecoderPool() as pool:
        requests = [{"do": "digest", "source": source} for source in here["source"].unique(maintain_order=True)]
        now = {request["source"]: reply for request, reply in pool.map(requests)}
    for source, digest in here.select("source", "digest").iter_rows():
        reply = now[source]
        if isinstance(reply, Exception) or reply["digest"] != digest:
            changed.append(source)
    if changed:
        if repair:
            lake.paths.forget_stamps(changed)
        yield Finding(
            what="sources", where="clips", problem=f"{len(changed)} files have changed: {first_few(pl.Series(changed))}",
            remedy="ingest them again, after --repair if their times are unchanged: new clips are made, and the old ones "
            "keep their vectors until then",
        )


def check_vectors(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    """Repeated rows, rows without a clip, and rows that hold NaN or infinity."""
    table = lake.vectors(space).table
    yield from check_rows(table, space.table_name, repair)
    if not table.version:
        return
    orphans = pl.Series(table.read([table.key]).column(table.key).to_pylist(), dtype=pl.String)
    orphans = orphans.filter(~orphans.is_in(lake.clips.ids(superseded=True).implode()))
    if len(orphans):
        if repair:
            delete_rows(table, orphans.to_list())
        yield Finding(
            what="vectors", where=space.name,
            problem=f"{len(orphans)} belong to clips that are not in the lake: {first_few(orphans)}",
            remedy="deleted" if repair else REPAIR, mended=repair,
        )
    columns = [name for name in table.schema.names if name not in (table.key, "n_frames")]
    bad: set[str] = set()
    for column in columns:               # one at a time: memory holds a few thousand vectors of one layer
        for batch in table.batches([table.key, column], rows=ROWS_A_READ):
            values = batch.column(column)
            flat = values.flatten().to_numpy(zero_copy_only=False) if not values.null_count else None
            keys = np.array(batch.column(table.key).to_pylist(), object)
            wrong = np.ones(len(keys), bool) if flat is None else ~np.isfinite(flat.reshape(len(keys), -1)).all(axis=1)
            bad |= set(keys[wrong])
    if bad:
        if repair:
            delete_rows(table, sorted(bad))
        yield Finding(
            what="vectors", where=space.name,
            problem=f"{len(bad)} hold NaN or infinity: {first_few(pl.Series(sorted(bad)))}",
            remedy=f"deleted; `tonelake embed --space {space.name}` embeds their clips again" if repair else REPAIR,
            mended=repair,
        )


def delete_rows(table: Table, keys: list[str]) -> None:
    for some in chunks(keys, 1_000):
        table.delete(in_list(table.key, some))
