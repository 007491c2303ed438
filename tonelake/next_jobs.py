"""Commands that would bring a lake up to date: sync a known folder, embed missing clips, build indexes, lay out maps.

Each is a `Job`: the arguments of `tonelake` (without `--lake`), and why it is offered.  A folder is known if
`tonelake ingest folder` brought in files that are below it; the job cuts by the rule that most of them were cut by.
Labels that a file gave are kept by a sync; to give new songs theirs, run the command with `--labels` again.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePath
from typing import Literal

import polars as pl

from tonelake.index import mapped_layers, read_points
from tonelake.ingest import Cut
from tonelake.status import Status, read_status
from tonelake.store import InputError, Lake, Space, extend_arguments, is_derived, to_nfc

MAX_FOLDERS = 8                          # known folders that a sync is offered for, those with most files first
INDEXED = 100_000                        # clips from which an index is recommended
FEWEST_MAPPED = 3                        # clips that a map needs
INGEST, EMBED = "ingest", "embed:"       # stages of failures

Kind = Literal["sync", "embed", "index", "map"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command that can be run now."""

    kind: Kind
    title: str                           # of its button
    reason: str                          # a sentence: why it is offered
    arguments: tuple[str, ...]           # of `tonelake`
    retries: int = 0                     # recorded failures that it tries again

    def command(self, uri: str) -> str:
        """The command for a shell."""
        return shlex.join(("tonelake", *self.arguments, "--lake", uri))


@dataclass(frozen=True, kw_only=True)
class KnownFolder:
    """A folder that was ingested, and how."""

    path: str
    files: int
    missing: int                         # of these, files that were gone at the last sync
    failed: int                          # files below it that could not be ingested
    seen: datetime | None                # when one of its files was last read
    cut: Cut
    dataset: str | None

    def arguments(self) -> tuple[str, ...]:
        """The arguments of the command that brings the lake in step with the folder."""
        found = ["ingest", "folder", self.path]
        found += ["--whole"] if self.cut.seconds is None else ["--seconds", f"{self.cut.seconds:g}"]
        found += [] if self.cut.hop_s is None else ["--hop", f"{self.cut.hop_s:g}"]
        found += [] if self.cut.per_track is None else ["--per-track", str(self.cut.per_track)]
        found += [] if self.dataset is None else ["--dataset", self.dataset]
        return tuple(found)


def next_jobs(lake: Lake, status: Status | None = None) -> list[Job]:
    """Return the jobs that the lake's state suggests, the most useful first.  `status`: if it is known already."""
    status = status or read_status(lake)
    return [*embed_jobs(lake, status), *sync_jobs(lake), *index_jobs(lake), *map_jobs(lake)]


def sync_jobs(lake: Lake) -> Iterator[Job]:
    """Yield one job for each known folder."""
    for folder in known_folders(lake):
        notes = [f"{folder.failed:,} could not be read"] if folder.failed else []
        notes += [f"{folder.missing:,} were missing"] if folder.missing else []
        notes += ["the folder cannot be reached now"] if not Path(folder.path).is_dir() else []
        yield Job(
            kind="sync", title=f"Sync {PurePath(folder.path).name or folder.path}", arguments=folder.arguments(),
            retries=folder.failed,
            reason=f"Adds new files of {folder.path} and follows renamed, changed and missing ones. "
            f"{counted(folder.files, 'file')} known{''.join(f', {note}' for note in notes)}.",
        )


def embed_jobs(lake: Lake, status: Status) -> Iterator[Job]:
    """Yield a job for each space that lacks clips, or for a first space."""
    if not status.clips:
        return
    if not len(status.spaces):
        yield Job(kind="embed", title="Embed all songs", arguments=("embed",),
                  reason=f"Nothing is embedded yet: {counted(status.clips, 'clip')} cannot be compared.")
    stages = Counter(lake.failures.read()["stage"])
    gone = lake.clips.without_audio().implode()
    # Spaces that are made from others have to wait for these.
    for name in sorted(status.behind()["name"], key=lambda name: is_derived(lake.spaces.get(name))):
        due = lake.vectors(name).missing(["clip_id"]).filter(~pl.col("clip_id").is_in(gone))
        missing, failed = len(due), stages[EMBED + name]
        if not missing:
            continue
        yield Job(
            kind="embed", title=f"Embed {counted(missing, 'clip')} in {name}",
            arguments=tuple(extend_arguments(lake.spaces.get(name))),
            retries=failed, reason=f"{counted(missing, 'clip')} cannot be compared in {name} yet"
            + (f", {failed:,} of them failed before and will be tried again." if failed else "."),
        )


def index_jobs(lake: Lake) -> Iterator[Job]:
    """Yield a job for each index that is not up to date, and for each large space without one."""
    from tonelake.index import list_indexes

    indexes = list_indexes(lake)
    for row in indexes.filter(pl.col("state") != "up to date").iter_rows(named=True):
        metric = () if row["metric"] == "cosine" else ("--metric", row["metric"])
        reason = "is damaged" if row["state"] == "damaged" else f"lacks {counted(row['behind'], 'clip')}"
        reason += f", and {row['gone']:,} of its clips are gone" if row["gone"] else ""
        yield Job(
            kind="index", title=f"Refresh the index of {row['space']}, layer {row['layer']}",
            arguments=("index", "build", "--space", row["space"], "--layers", row["layer"], *metric),
            reason=f"The index {reason}; clips that it lacks are searched one by one.",
        )
    for space in lake.spaces.all():
        if space.name not in indexes["space"] and lake.vectors(space).count() >= INDEXED:
            yield Job(
                kind="index", title=f"Index {space.name}", arguments=("index", "build", "--space", space.name),
                reason=f"{space.name} has {lake.vectors(space).count():,} clips, and every search compares all of them.",
            )


def map_jobs(lake: Lake) -> Iterator[Job]:
    """Yield a job for each map that lacks clips, and for the default space if it has none."""
    spaces = lake.spaces.all()
    default = lake.spaces.default(spaces)[0] if spaces else None
    for space in spaces:
        embedded = lake.vectors(space).count()
        layers = [number for number in sorted(mapped_layers(lake, space)) if number < len(space.layers)]
        if not layers and space == default and embedded >= FEWEST_MAPPED:
            yield Job(kind="map", title=f"Make the map of {space.name}", arguments=("map", "--space", space.name),
                      reason=f"{space.name} has no map yet.")
        for number in layers:
            behind = embedded - mapped_clips(lake, space, number)
            if behind > 0:
                layer = space.layers[number]
                yield Job(
                    kind="map", title=f"Update the map of {space.name}, layer {layer}",
                    arguments=("map", "--space", space.name, "--layer", layer),
                    reason=f"The map lacks {counted(behind, 'clip')} embedded since it was made.",
                )


def mapped_clips(lake: Lake, space: Space, layer: int) -> int:
    """Return the number of clips on a map."""
    found = read_points(lake, space, layer, ["clip_id"], names=False)
    return 0 if found is None else len(found[0])


def known_folders(lake: Lake) -> list[KnownFolder]:
    """Return the folders that were ingested, those with most files first."""
    files = lake.paths.read(["source", "name", "cuts", "seen", "missing_since"], where="name IS NOT NULL")
    files = files.filter(pl.col("cuts").list.len() > 0)
    if not len(files):
        return []
    files = files.with_columns(root=roots(files), cut=pl.col("cuts").list.last())
    labelled = lake.clips.read(["source", "dataset"], where="dataset IS NOT NULL").unique("source")
    files = files.join(labelled, on="source", how="left")
    failed = lake.failures.read(INGEST)["source"]
    found = []
    for (root,), rows in files.filter(pl.col("root").is_not_null()).group_by("root", maintain_order=True):
        cuts = [cut for cut in (Cut.named(name) for name in rows["cut"].mode().sort()) if cut is not None]
        datasets = rows["dataset"].unique()
        if cuts:
            found.append(KnownFolder(
                path=str(root), files=len(rows), missing=len(rows) - rows["missing_since"].null_count(), cut=cuts[0],
                failed=int(failed.str.starts_with(f"{root}/").sum()), seen=rows["seen"].max(),      # type: ignore[arg-type]
                dataset=datasets[0] if len(datasets) == 1 else None,
            ))
    return sorted(found, key=lambda folder: -folder.files)[:MAX_FOLDERS]


def roots(files: pl.DataFrame) -> pl.Series:
    """The folder that each file was ingested from: its path without its name below that folder; null if that is not known."""
    source, name = pl.col("source"), pl.lit("/") + pl.col("name")
    root = source.str.head(source.str.len_chars().cast(pl.Int64) - name.str.len_chars().cast(pl.Int64))
    found = files.select(pl.when(source.str.ends_with(name)).then(root))["source"]
    for row in found.is_null().arg_true():           # a disk that decomposes letters: its path is longer than the name
        parts = files["source"][row].split("/")
        below = files["name"][row].count("/") + 1
        if not parts[0] and to_nfc("/".join(parts[-below:])) == files["name"][row]:
            found[row] = "/".join(parts[:-below])
    return found


def first_job(folder: str | Path) -> Job:
    """Return the job that ingests a folder for the first time.  Raises InputError if it is not a folder."""
    path = Path(folder).expanduser()
    if not str(folder).strip() or not path.is_dir():
        raise InputError(f"{str(folder)!r}: is not a folder of this computer. Type the path of a folder of music")
    where = str(path.absolute())
    return Job(kind="sync", title=f"Add {path.absolute().name or where}", arguments=("ingest", "folder", where),
               reason=f"Adds the music below {where}.")


def counted(number: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "clip"), counted(2_000, "clip")
    ('1 clip', '2,000 clips')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
