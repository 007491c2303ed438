"""Runs on disk: a folder each below `probes` or `adapters` of the lake, found by name, finished where it has metrics."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import polars as pl

from store.errors import InputError, LakeError
from store.files import LakeFiles

if TYPE_CHECKING:
    from store.lake import Lake

METRICS = "metrics.json"                 # of a run, written last: its presence means done


def run_folder(lake: Lake, kind: str, name: str) -> LakeFiles:
    """The files of a run.  Raises InputError for a name that is no name of a run."""
    if not name or name.startswith((".", "-")) or any(c in name for c in "/\\\0\n") or len(name) > 120:
        raise InputError(f"{name!r} cannot name a run: use letters, digits, '-' and '_'")
    return lake.files(f"{kind}/{name}")


def training(files: LakeFiles, name: str) -> AbstractContextManager[None]:
    """Keep other runs on this machine out of a run's folder while it is trained.  Raises InputError where one is in."""
    return files.held(f"run {name!r} is being trained by another process: wait until it is done")


def choose_run(lake: Lake, kind: str, name: str, *, absent: str, maker: str, holder: str = "it") -> str:
    """The finished run of that name, or the one that alone has it in its name.

    Raises InputError where there is none or there are several; `absent` says the former, `maker` is the command that makes one.
    """
    names = [n for n in lake.files(kind).folders() if run_folder(lake, kind, n).read(METRICS) is not None]
    near = [name] if name in names else [n for n in names if name in n]
    if len(near) != 1:
        which = f"{len(near)} runs have {name!r} in their name" if near else absent
        raise InputError(f"{which}: {holder} has {', '.join((near or names)[:8]) or f'none; `{maker}` makes one'}")
    return near[0]


def read_run_table(files: LakeFiles, run: str, name: str) -> pl.DataFrame:
    """A table of a run, as its file is called.  Raises InputError where it has no such one."""
    with files.fetched(f"{name}.parquet") as path:
        if path is None:
            known = ", ".join(file.removesuffix(".parquet") for file in files.names(".parquet"))
            raise InputError(f"run {run!r} has no table {name!r}: it has {known}")
        try:
            return pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise LakeError(f"{name}.parquet of run {run!r} cannot be read: {error}") from error
