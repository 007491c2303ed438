"""Runs on disk: a folder each below `probes` or `adapters` of the lake, found by name; a run with metrics is finished."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import polars as pl

from tonelake.store.blobs import Blobs
from tonelake.store.errors import InputError, LakeError
from tonelake.store.manifest import MOST_SHOWN, PARTS, Manifest, enumerated, read_manifest
from tonelake.store.settings import Settings, parse_settings

if TYPE_CHECKING:
    from tonelake.store.lake import Lake

CONFIG_FILE = "config.yaml"                   # written first
METRICS_FILE = "metrics.json"                 # written last: its presence means that the run is finished
REPORT_FILE = "report.md"

Config = TypeVar("Config", bound=Settings)


@dataclass(frozen=True)
class FinishedRun(Generic[Config]):
    """A run that has metrics.  A subclass defines the folder, the names and the settings of its kind of run."""

    name: str
    files: Blobs
    config: Config
    metrics: dict[str, Any]

    kind: ClassVar[str]                  # folder in the lake
    noun: ClassVar[str]
    maker: ClassVar[str]                 # command that makes one
    settings: ClassVar[type[Settings]]
    types: ClassVar[dict[str, type]]     # required metrics, besides `summary` and `finished`

    @classmethod
    def folder(cls, lake: Lake, name: str) -> Blobs:
        """The files of a run.  Raises InputError for an invalid name."""
        return run_folder(lake, cls.kind, name)

    @classmethod
    def find(cls, lake: Lake, name: str) -> Self | None:
        """The finished run of exactly that name, or None."""
        files = cls.folder(lake, name)
        metrics = files.read(METRICS_FILE)
        if metrics is None:
            return None
        stored = read_config(files, name)
        if stored is None:
            raise LakeError(f"run {name!r}: has no {CONFIG_FILE}. Delete its folder")
        config = cls.settings.from_dict(stored[0], f"{CONFIG_FILE} of run {name!r}")
        return cls(name, files, config, cls.read_metrics(metrics, name))         # type: ignore[arg-type]

    @classmethod
    def read_metrics(cls, text: str, name: str) -> dict[str, Any]:
        """Parse a run's metrics.json.  Raises LakeError if it is damaged."""
        try:
            found = json.loads(text)
            for key, kind in {"summary": str, "finished": str, **cls.types}.items():
                if not isinstance(found[key], kind):
                    raise ValueError(f"{key} is {found[key]!r}")
            return found
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise LakeError(
                f"{METRICS_FILE} of run {name!r}: cannot be read ({reason}). Delete its folder and run it again"
            ) from error

    @classmethod
    def all(cls, lake: Lake) -> list[Self]:
        """All finished runs of a lake, oldest first."""
        found = [cls.find(lake, name) for name in lake.files(cls.kind).folders()]
        return sorted((run for run in found if run is not None), key=lambda run: (run.metrics.get("finished", ""), run.name))

    @classmethod
    def named(cls, lake: Lake, name: str) -> Self:
        """A finished run by its name or a part of it that only one run has.  Raises InputError if none or several match."""
        run = cls.find(lake, choose_run(lake, cls.kind, name, absent=f"no {cls.noun} {name!r} in this lake", maker=cls.maker))
        assert run is not None
        return run

    def table(self, name: str) -> pl.DataFrame:
        """One of the run's tables: layers, classes, predictions, split, ….  Raises InputError if it does not have it."""
        return read_run_table(self.files, self.name, name)

    def summary(self) -> str:
        """The result in a sentence."""
        return str(self.metrics["summary"])

    def report(self) -> str:
        """The report as Markdown; empty if there is none."""
        return self.files.read(REPORT_FILE) or ""


def read_config(files: Blobs, name: str) -> tuple[dict[str, Any], str | None] | None:
    """A run's stored settings, and the digest of settings and data; None if the run has not been started."""
    text = files.read(CONFIG_FILE)
    if text is None:
        return None
    try:
        return parse_settings(text, f"{CONFIG_FILE} of run {name!r}")
    except InputError as error:          # not the user's input: the lake is damaged
        raise LakeError(f"{error}. Delete its folder and run it again") from error


def check_same_run(
    files: Blobs, name: str, config: Settings, manifest: Manifest, noun: str, *, again: bool = False
) -> None:
    """Raise InputError, which names what differs, if the run of that name, started or finished, has another manifest.

    With `again` only other settings are refused: a run whose data or code has changed will be replaced.
    """
    stored = read_config(files, name)
    if stored is None or stored[1] == manifest.digest:
        return
    half = "" if files.read(METRICS_FILE) is not None else " (half finished)"
    differing = manifest.changed_settings(identity_of(type(config), stored[0], name))
    if differing:
        shown = "; ".join(differing[:MOST_SHOWN]) + (" …" if len(differing) > MOST_SHOWN else "")
        raise InputError(f"run {name!r}{half}: holds another {noun}, with {shown}. Choose another --name")
    if not again:
        changed = describe_change(manifest, read_manifest(files, stored[1]))
        raise InputError(f"run {name!r}{half}: {changed}. Choose another --name, or train it again with --again")


def describe_change(manifest: Manifest, earlier: Manifest | None) -> str:
    """Say in which parts an earlier run with the same settings differs from `manifest`; `earlier` is None if unrecorded."""
    if earlier is None:
        return "comes from an earlier release, which did not record its sets, class names and tracks"
    changed = manifest.changed_parts(earlier)
    if manifest.parts.get("code") == earlier.parts.get("code"):
        return f"was made from other data: {enumerated(changed)} changed"
    others = [part for part in changed if part != PARTS["code"]]
    also = f" and from other data: {enumerated(others)} changed" if others else ""
    return f"was computed by another version of the code{also}"


def notes_on_earlier_runs(lake: Lake, kind: type[FinishedRun[Any]], manifest: Manifest) -> list[str]:
    """Return a note on the newest finished run with these settings and another manifest: what has changed since.

    Empty if there is none.  Damaged runs are passed over.
    """
    found: list[tuple[str, str, Manifest | None]] = []
    for name in lake.files(kind.kind).folders():
        files = kind.folder(lake, name)
        try:
            earlier = read_manifest(files)
            stored = None if earlier else read_config(files, name)
            settings = earlier.settings if earlier else identity_of(kind.settings, stored[0], name) if stored else None
            if settings is None or manifest.changed_settings(settings) or (earlier and earlier.digest == manifest.digest):
                continue
            metrics = files.read(METRICS_FILE)
            if metrics is not None:
                found.append((kind.read_metrics(metrics, name)["finished"], name, earlier))
        except (InputError, LakeError):
            continue
    if not found:
        return []
    _, name, newest = max(found, key=lambda run: run[:2])
    return [f"run {name} has the same settings, but {describe_change(manifest, newest)}; this run is separate from it"]


def identity_of(settings: type[Settings], stored: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the settings in a run's config.yaml as a manifest has them.  Raises InputError for settings that do not exist."""
    return settings.from_dict(stored, f"{CONFIG_FILE} of run {name!r}").identity()


def run_folder(lake: Lake, kind: str, name: str) -> Blobs:
    """The files of a run.  Raises InputError for an invalid name."""
    if not name or name.startswith((".", "-")) or any(c in name for c in "/\\\0\n") or len(name) > 120:
        raise InputError(f"run {name!r}: not a valid name. Use letters, digits, '-' and '_'")
    return lake.files(f"{kind}/{name}")


def lock_run(files: Blobs, name: str) -> AbstractContextManager[None]:
    """Lock a run's folder while it is trained (`Blobs.locked`).  Raises InputError if another process holds it."""
    return files.locked(f"run {name!r}: is being trained by another process. Wait until it has finished")


def choose_run(lake: Lake, kind: str, name: str, *, absent: str, maker: str, holder: str = "it") -> str:
    """Name of the finished run `name`, or of the only one that contains it.

    Raises InputError if there is none (with the message `absent`) or several; `maker` is the command that makes one.
    """
    names = [n for n in lake.files(kind).folders() if run_folder(lake, kind, n).read(METRICS_FILE) is not None]
    near = [name] if name in names else [n for n in names if name in n]
    if len(near) != 1:
        problem = f"{len(near)} runs have {name!r} in their name" if near else absent
        raise InputError(f"{problem}: {holder} has {', '.join((near or names)[:8]) or f'none. Make one with `{maker}`'}")
    return near[0]


def read_run_table(files: Blobs, run: str, name: str) -> pl.DataFrame:
    """Read a table of a run by name.  Raises InputError if the run does not have it, LakeError if it is damaged."""
    with files.fetched(f"{name}.parquet") as path:
        if path is None:
            known = ", ".join(file.removesuffix(".parquet") for file in files.names(".parquet"))
            raise InputError(f"run {run!r}: has no table {name!r}. Choose one of {known}")
        try:
            return pl.read_parquet(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise LakeError(f"{name}.parquet of run {run!r}: cannot be read ({error}). Run it again with --again") from error
