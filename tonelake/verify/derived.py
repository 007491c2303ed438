"""Checks of what is derived from a lake's vectors (indexes, maps, vocabularies), of runs, and of left-over files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tonelake.finetune import FinetuneRun
from tonelake.index import drop_indexes, index_folder, list_indexes, read_indexes, read_map, read_points, read_vocabulary
from tonelake.probes import Run
from tonelake.store import FinishedRun, Lake, Space, TonelakeError, is_local, temporary_files
from tonelake.verify.finding import REPAIR, Finding, first_few


def check_indexes(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    """Damaged indexes, those that are behind the lake, and files that belong to no index."""
    own = list_indexes(lake).filter(pl.col("space") == space.name)
    for row in own.filter(pl.col("state") == "damaged").iter_rows(named=True):
        if repair:
            drop_indexes(lake, space=space.name, layer=row["layer"])
        yield Finding(
            what="index", where=f"{space.name}, layer {row['layer']}", problem="damaged",
            remedy="dropped; `tonelake index build` builds it again" if repair else REPAIR, mended=repair,
        )
    for row in own.filter(pl.col("state") == "behind").iter_rows(named=True):
        problem = f"lacks {row['behind']} clips; {row['gone']} were deleted"
        yield Finding(
            what="index", where=f"{space.name}, layer {row['layer']}", problem=problem,
            remedy=f"`tonelake index build --space {space.name}`; until then searches compare the missing clips exactly",
        )
    if not is_local(lake.uri):
        return                           # an index there has no files
    folder = index_folder(lake, space)
    known = {file for stored in read_indexes(lake, space) for file in stored.files}
    files = [path for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
    strays = [path for path in files if path.suffix != ".json" and path.name not in known]
    yield from delete_files(strays, str(folder), "files belong to no index", f"{REPAIR}, while no index is being built", repair)


def check_maps(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    """Maps that cannot be read, or belong to another space."""
    files = lake.files(f"maps/{space.name}")
    for file in files.names(".parquet"):
        problem = problem_of_map(lake, space, Path(file).stem)
        if problem:
            if repair:
                files.remove(file)
            yield Finding(
                what="map", where=f"maps/{space.name}/{file}", problem=problem,
                remedy="deleted; `tonelake map` makes it again" if repair else REPAIR, mended=repair,
            )


def problem_of_map(lake: Lake, space: Space, stem: str) -> str | None:
    if not stem.isdigit() or int(stem) >= len(space.layers):
        return f"space {space.name!r} has no such layer"
    try:
        if read_points(lake, space, int(stem)) is None:
            return "cannot be read, or belongs to another space"
        read_map(lake, space=space.name, layer=space.layers[int(stem)])
    except (TonelakeError, pl.exceptions.PolarsError) as error:
        return str(error)
    return None


def check_vocabularies(lake: Lake, space: Space, repair: bool) -> Iterator[Finding]:
    """Vocabularies that cannot be read."""
    files = lake.files(f"vocabularies/{space.name}")
    for file in files.names(".safetensors"):
        try:
            read_vocabulary(lake, file.removesuffix(".safetensors"), space=space.name)
        except TonelakeError as error:
            if repair:
                files.remove(file)
            yield Finding(
                what="vocabulary", where=f"vocabularies/{space.name}/{file}", problem=str(error),
                remedy="deleted; `tonelake tokens fit` fits it again" if repair else REPAIR, mended=repair,
            )


def check_runs(lake: Lake) -> Iterator[Finding]:
    """Runs that were begun and not finished, and runs whose results cannot be read."""
    runs: type[FinishedRun[Any]]
    for runs, command in ((Run, "tonelake probe"), (FinetuneRun, "tonelake finetune")):
        for name in lake.files(runs.kind).folders():
            try:
                if runs.find(lake, name) is None:
                    yield Finding(
                        what="run", where=f"{runs.kind}/{name}", problem="begun and not finished",
                        remedy=f"run the same `{command}` again to resume it, or delete the folder",
                    )
            except TonelakeError as error:
                yield Finding(
                    what="run", where=f"{runs.kind}/{name}", problem=str(error), remedy="delete the folder and run it again",
                )


def check_files(lake: Lake, repair: bool) -> Iterator[Finding]:
    """Half-written files of writers that died."""
    yield from delete_files(temporary_files(lake), lake.uri, "half-written files, older than a day", REPAIR, repair)


def delete_files(files: list[Path], where: str, problem: str, remedy: str, repair: bool) -> Iterator[Finding]:
    """One finding for superfluous files, if there are any; `repair` deletes them, else `remedy` says how to."""
    if not files:
        return
    if repair:
        for path in files:
            path.unlink(missing_ok=True)
    names = first_few(pl.Series([path.name for path in files]))
    yield Finding(
        what="file", where=where, problem=f"{len(files)} {problem}: {names}", remedy="deleted" if repair else remedy,
        mended=repair,
    )
