"""Whether a lake is what it should be: rows, vectors, sources, and everything that is derived from them.

What is derived (indexes, maps, vocabularies) can be made again, so a damaged one is dropped; a row that stands twice loses its
copy, a vector that is no number goes and is embedded anew.  What only a person can put right is told with its remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tonelake import ingest
from tonelake.finetune import FinetuneRun
from tonelake.index import drop_indexes, index_folder, list_indexes, read_indexes, read_map, read_vocabulary
from tonelake.ingest import FileStamps
from tonelake.probes import Run
from tonelake.store import (
    FinishedRun,
    InputError,
    Lake,
    Space,
    Table,
    TonelakeError,
    chunks,
    format_of,
    in_list,
    is_local,
    newest_format,
    pending_upgrades,
    temporary_files,
    upgrade,
    write_format,
)

ROWS_A_READ = 4096                       # of vectors, 80 MB of MERT-v1-95M
SHOWN = 5                                # things that one finding names


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    what: str                            # clips, vectors, sources, index, map, vocabulary, run, space, file, format
    where: str
    problem: str
    remedy: str                          # what a person can do; what was done, where it was mended
    mended: bool = False


def verify(lake: Lake, *, repair: bool = False, sources: bool = True, digests: bool = False) -> pl.DataFrame:
    """Look at everything, and mend what can be mended without loss where `repair`: a row a finding.

    `sources`: whether files are still there; `digests`: whether their bytes are still the same, which reads every file.
    Columns: what, where, problem, remedy, mended.  Nothing is written unless `repair`.  A lake of an older format, opened with
    `older=True`, is brought up first; without `repair` that is all that is said of it.
    """
    found = list(of_format(lake, repair))
    if pending_upgrades(format_of(lake.files(""))):
        return as_frame(found)           # what else stands in an older lake may not be what this program takes it for
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("clips", lambda: of_rows(lake.clips.table, "clips", repair)),
    ]
    if sources or digests:
        checks.append(("sources", lambda: of_sources(lake, digests, repair)))
    spaces, broken = readable_spaces(lake)
    found += broken
    for space in spaces:
        checks += [
            (f"{name} of {space.name}", partial(check, lake, space, repair)) for name, check in OF_SPACE.items()
        ]
    checks += [("runs", lambda: of_runs(lake)), ("files", lambda: of_files(lake, repair))]
    for name, check in lake.progress(checks, len(checks), "verifying"):
        try:
            found += check()
        except TonelakeError as error:   # a table that cannot be read at all
            found.append(Finding(name, lake.uri, str(error), "restore it from a copy"))
    return as_frame(found)


def as_frame(found: list[Finding]) -> pl.DataFrame:
    schema = {"what": pl.String, "where": pl.String, "problem": pl.String, "remedy": pl.String, "mended": pl.Boolean}
    return pl.DataFrame([vars(one) for one in found], schema=schema)


def of_format(lake: Lake, repair: bool) -> Iterator[Finding]:
    files = lake.files("")
    version = format_of(files)
    if pending_upgrades(version):
        if repair:
            upgrade(lake)
        yield Finding("format", "lake.json", f"format {version}, this program writes {newest_format()}",
                      "brought up" if repair else "tonelake verify --repair: nothing else was looked at", repair)
    elif files.read("lake.json") is None:
        if repair:
            write_format(files)
        yield Finding("format", "lake.json", "is not there: the lake was made before formats were written",
                      "written" if repair else "tonelake verify --repair", repair)


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
            bad.append(Finding("space", name, str(error), "restore spaces/*.json from a copy, or embed into a new space"))
    return good, bad


def of_rows(table: Table, name: str, repair: bool) -> Iterator[Finding]:
    """Keys that stand twice."""
    if not table.version:
        return
    keys = pl.Series(table.read([table.key]).column(table.key).to_pylist(), dtype=pl.String)
    twice = keys.filter(keys.is_duplicated()).unique().sort()
    if len(twice):
        if repair:
            table.drop_duplicates(twice.to_list())
        yield Finding("rows", name, f"{len(twice)} keys stand twice: {named(twice)}",
                      "the copies were deleted" if repair else "tonelake verify --repair", repair)


def of_frames(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    yield from of_rows(lake.frames(space).table, f"frames_{space.name}", repair)
    yield from of_rows(lake.tokens(space).table, f"tokens_{space.name}", repair)


def of_sources(lake: Lake, digests: bool, repair: bool) -> Iterator[Finding]:
    """Files that are gone, and, asked for, those whose bytes are others by now; `repair` has the next ingest read them."""
    clips = lake.clips.read(["source", "digest", "flag"]).unique(["source", "digest"], maintain_order=True)
    clips = clips.filter((pl.col("flag") != "superseded").fill_null(True))
    gone = clips.filter(~clips["source"].map_elements(there, return_dtype=pl.Boolean))["source"].unique(maintain_order=True)
    if len(gone):
        yield Finding("sources", "clips", f"{len(gone)} files are gone: {named(gone)}",
                      "put them back, or ingest the folder they are in now: clips follow their audio")
    if not digests:
        return
    here = clips.filter(~clips["source"].is_in(gone.implode()) & ~clips["source"].str.starts_with("chorale:"))
    changed = []
    with ingest.DecoderPool() as pool:
        requests = [{"do": "digest", "source": source} for source in here["source"].unique(maintain_order=True)]
        now = {request["source"]: reply for request, reply in pool.map(requests)}
    for source, digest in here.select("source", "digest").iter_rows():
        reply = now[source]
        if isinstance(reply, Exception) or reply["digest"] != digest:
            changed.append(source)
    if changed:
        if repair:
            FileStamps(lake).forget(changed)
        yield Finding("sources", "clips", f"{len(changed)} files have changed: {named(pl.Series(changed))}",
                      "ingest them again, after --repair if their times are as they were: new clips are made, the old ones "
                      "keep their vectors until then")


def there(source: str) -> bool:
    from tonelake.store import source_exists

    try:
        return source_exists(source) if not source.startswith("file://") else ingest.to_path(source).exists()
    except OSError:
        return False


def of_vectors(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    """Rows that stand twice, that are of no clip, or that hold what is no number."""
    table = lake.vectors(space).table
    yield from of_rows(table, space.table_name, repair)
    if not table.version:
        return
    orphans = pl.Series(table.read([table.key]).column(table.key).to_pylist(), dtype=pl.String)
    orphans = orphans.filter(~orphans.is_in(lake.clips.ids().implode()))
    if len(orphans):
        if repair:
            forget(table, orphans.to_list())
        yield Finding("vectors", space.name, f"{len(orphans)} are of clips that are not in the lake: {named(orphans)}",
                      "deleted" if repair else "tonelake verify --repair", repair)
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
            forget(table, sorted(bad))
        yield Finding("vectors", space.name, f"{len(bad)} hold NaN or infinity: {named(pl.Series(sorted(bad)))}",
                      f"deleted; tonelake embed --space {space.name} makes them anew" if repair else "tonelake verify --repair",
                      repair)


def forget(table: Table, keys: list[str]) -> None:
    for some in chunks(keys, 1_000):
        table.delete(in_list(table.key, some))


def of_indexes(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    """Damaged indexes, those behind, and files that belong to none."""
    if not is_local(lake.uri):
        return
    own = list_indexes(lake).filter(pl.col("space") == space.name)
    for row in own.filter(pl.col("state") == "damaged").iter_rows(named=True):
        if repair:
            drop_indexes(lake, space=space.name, layer=row["layer"])
        yield Finding("index", f"{space.name}, layer {row['layer']}", "is damaged",
                      "dropped; `tonelake index build` makes it anew" if repair else "tonelake verify --repair", repair)
    for row in own.filter(pl.col("state") == "behind").iter_rows(named=True):
        yield Finding("index", f"{space.name}, layer {row['layer']}", f"lacks {row['behind']} clips, {row['gone']} are gone",
                      f"tonelake index build --space {space.name}: until then searches look at what it lacks beside it")
    folder = index_folder(lake, space)
    indexed = {file for saved in read_indexes(lake, space) for file in saved.files}
    files = [path for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
    strays = [path for path in files if path.suffix != ".json" and path.name not in indexed]
    if strays:
        if repair:
            for path in strays:
                path.unlink(missing_ok=True)
        names = named(pl.Series([path.name for path in strays]))
        yield Finding("file", str(folder), f"{len(strays)} files belong to no index: {names}",
                      "deleted" if repair else "tonelake verify --repair, while no index is being built", repair)


def of_maps(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    files = lake.files(f"maps/{space.name}")
    for file in files.names(".parquet"):
        stem = Path(file).stem
        try:
            if not stem.isdigit() or int(stem) >= len(space.layers):
                raise InputError(f"space {space.name!r} has no such layer")
            read_map(lake, space=space.name, layer=space.layers[int(stem)])
        except (TonelakeError, pl.exceptions.PolarsError) as error:
            problem = "cannot be read, or is of another space" if "has no map" in str(error) else str(error)
            if repair:
                files.remove(file)
            yield Finding("map", f"maps/{space.name}/{file}", problem,
                          "deleted; `tonelake map` makes it anew" if repair else "tonelake verify --repair", repair)


def of_vocabularies(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    files = lake.files(f"vocabularies/{space.name}")
    for file in files.names(".safetensors"):
        try:
            read_vocabulary(lake, file.removesuffix(".safetensors"), space=space.name)
        except TonelakeError as error:
            if repair:
                files.remove(file)
            yield Finding("vocabulary", f"vocabularies/{space.name}/{file}", str(error),
                          "deleted; `tonelake tokens fit` makes it anew" if repair else "tonelake verify --repair", repair)


def of_runs(lake: Lake) -> Iterator[Finding]:
    """Runs that were begun and not finished, and those whose figures cannot be read."""
    runs: type[FinishedRun[Any]]
    for runs, command in ((Run, "tonelake probe"), (FinetuneRun, "tonelake finetune")):
        for name in lake.files(runs.kind).folders():
            try:
                if runs.find(lake, name) is None:
                    yield Finding("run", f"{runs.kind}/{name}", "was begun and not finished",
                                  f"the same `{command}` goes on with it; or delete the folder")
            except TonelakeError as error:
                yield Finding("run", f"{runs.kind}/{name}", str(error), "delete the folder and run it again")


OF_SPACE: dict[str, Callable[[Lake, Space, bool], Iterator[Finding]]] = {
    "vectors": of_vectors, "frames": of_frames, "indexes": of_indexes, "maps": of_maps, "vocabularies": of_vocabularies,
}


def of_files(lake: Lake, repair: bool) -> Iterator[Finding]:
    left = temporary_files(lake)
    if left:
        if repair:
            for path in left:
                path.unlink(missing_ok=True)
        names = named(pl.Series([path.name for path in left]))
        yield Finding("file", lake.uri, f"{len(left)} half-written files of a day ago: {names}",
                      "deleted" if repair else "tonelake verify --repair", repair)


def named(things: pl.Series) -> str:
    """The first few."""
    shown = ", ".join(str(thing) for thing in things.head(SHOWN))
    return shown + (", …" if len(things) > SHOWN else "")

