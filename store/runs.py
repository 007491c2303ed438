"""Runs on disk: a folder each below `probes` or `adapters` of the lake, found by name, finished where it has metrics."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import polars as pl

from tonelake.store.blobs import Blobs
from tonelake.store.errors import InputError, LakeError
from tonelake.store.settings import Settings, parse_settings

if TYPE_CHECKING:
    from tonelake.store.lake import Lake

CONFIG_FILE = "config.yaml"                   # of a run, written first
METRICS_FILE = "metrics.json"                 # … and last: its presence means done
REPORT_FILE = "report.md"

Config = TypeVar("Config", bound=Settings)


@dataclass(frozen=True)
class FinishedRun(Generic[Config]):
    """A run that has its metrics.  What a subclass says of itself: where its runs lie, and what they are called."""

    name: str
    files: Blobs
    config: Config
    metrics: dict[str, Any]

    kind: ClassVar[str]                  # the folder of the lake
    noun: ClassVar[str]
    maker: ClassVar[str]                 # the command that makes one
    settings: ClassVar[type[Settings]]
    types: ClassVar[dict[str, type]]     # what its metrics have, at least, beside a summary and when it was finished

    @classmethod
    def folder(cls, lake: Lake, name: str) -> Blobs:
        """Raises InputError for a name that is no name of a run."""
        return run_folder(lake, cls.kind, name)

    @classmethod
    def find(cls, lake: Lake, name: str) -> Self | None:
        """The run of exactly that name, or None where there is none, or only a begun one."""
        files = cls.folder(lake, name)
        metrics = files.read(METRICS_FILE)
        if metrics is None:
            return None
        kept = read_kept(files, name)
        if kept is None:
            raise LakeError(f"run {name!r}: has no {CONFIG_FILE}. Delete its folder")
        config = cls.settings.from_dict(kept[0], f"{CONFIG_FILE} of run {name!r}")
        return cls(name, files, config, cls.read_metrics(metrics, name))         # type: ignore[arg-type]

    @classmethod
    def read_metrics(cls, text: str, name: str) -> dict[str, Any]:
        """What a run's metrics.json holds.  Raises LakeError where it is damaged."""
        try:
            found = json.loads(text)
            for key, kind in {"summary": str, "finished": str, **cls.types}.items():
                if not isinstance(found[key], kind):
                    raise ValueError(f"{key} is {found[key]!r}")
            return found
        except (KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise LakeError(f"{METRICS_FILE} of run {name!r} cannot be read ({what}): delete its folder and run it again") from error

    @classmethod
    def all(cls, lake: Lake) -> list[Self]:
        """The finished runs of a lake, oldest first."""
        found = [cls.find(lake, name) for name in lake.files(cls.kind).folders()]
        return sorted((run for run in found if run is not None), key=lambda run: (run.metrics.get("finished", ""), run.name))

    @classmethod
    def named(cls, lake: Lake, name: str) -> Self:
        """A run by its name, or by a part of it that only one run has.  Raises InputError where there is none."""
        run = cls.find(lake, choose_run(lake, cls.kind, name, absent=f"no {cls.noun} {name!r} in this lake", maker=cls.maker))
        assert run is not None
        return run

    def table(self, name: str) -> pl.DataFrame:
        """layers, classes, predictions, split, … as its files are called.  Raises InputError where it has no such one."""
        return read_run_table(self.files, self.name, name)

    def summary(self) -> str:
        return str(self.metrics["summary"])

    def report(self) -> str:
        return self.files.read(REPORT_FILE) or ""


def read_kept(files: Blobs, name: str) -> tuple[dict[str, Any], str | None] | None:
    """A run's settings as they stand in its folder, and the digest of settings and data; None where it has not begun."""
    text = files.read(CONFIG_FILE)
    if text is None:
        return None
    try:
        return parse_settings(text, f"{CONFIG_FILE} of run {name!r}")
    except InputError as error:          # nobody's input: the lake is damaged
        raise LakeError(f"{error}. Delete its folder and run it again") from error


def check_same_run(files: Blobs, name: str, digest: str, noun: str) -> None:
    """Raises InputError where the run of that name, begun or finished, is another than that of the digest."""
    kept = read_kept(files, name)
    if kept is not None and kept[1] != digest:
        raise InputError(f"run {name!r} holds another {noun} (other settings, clips or labels): choose another --name")


def run_folder(lake: Lake, kind: str, name: str) -> Blobs:
    """The files of a run.  Raises InputError for a name that is no name of a run."""
    if not name or name.startswith((".", "-")) or any(c in name for c in "/\\\0\n") or len(name) > 120:
        raise InputError(f"{name!r} cannot name a run: use letters, digits, '-' and '_'")
    return lake.files(f"{kind}/{name}")


def lock_run(files: Blobs, name: str) -> AbstractContextManager[None]:
    """Keep other runs on this machine out of a run's folder while it is trained.  Raises InputError where one is in."""
    return files.locked(f"run {name!r}: is being trained by another process. Wait until it has finished")


def choose_run(lake: Lake, kind: str, name: str, *, absent: str, maker: str, holder: str = "it") -> str:
    """The finished run of that name, or the one that alone has it in its name.

    Raises InputError where there is none or there are several; `absent` says the former, `maker` is the command that makes one.
    """
    names = [n for n in lake.files(kind).folders() if run_folder(lake, kind, n).read(METRICS_FILE) is not None]
    near = [name] if name in names else [n for n in names if name in n]
    if len(near) != 1:
        which = f"{len(near)} runs have {name!r} in their name" if near else absent
        raise InputError(f"{which}: {holder} has {', '.join((near or names)[:8]) or f'none; `{maker}` makes one'}")
    return near[0]


def read_run_table(files: Blobs, run: str, name: str) -> pl.DataFrame:
    """A table of a run, as its file is called.  Raises InputError where it has no such one."""
    with files.fetched(f"{name}.parquet") as path:
        if path is None:
            known = ", ".join(file.removesuffix(".parquet") for file in files.names(".parquet"))
            raise InputError(f"run {run!r} has no table {name!r}: it has {known}")
        try:
            return pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise LakeError(f"{name}.parquet of run {run!r} cannot be read: {error}") from error
