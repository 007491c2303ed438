"""A learned metric on disk, beside its projection: `manifest.json` (`store.manifest`) and `metric.json`, its results.

A space cannot be replaced, because its vectors are those of one projection.  So learning with equal settings and data returns
the stored metric, and after a change of the data it makes a space of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from tonelake.store import (
    Blobs,
    InputError,
    Lake,
    Manifest,
    check_name,
    describe_change,
    enumerated,
    is_projection,
    read_manifest,
    write_manifest,
)

RESULT_FILE = "metric.json"
MOST_SETTINGS = 3                        # in a message

Intervals = dict[str, tuple[float, float, float]]        # metric -> value, low, high


@dataclass(frozen=True, kw_only=True)
class LearnedMetric:
    """A projection stored as a space, with its retrieval metrics on test groups."""

    space: str
    parent: str
    layer: str
    column: str
    epochs: int
    groups: tuple[int, int, int]         # training, validation, test
    clips: int
    before: Intervals
    after: Intervals
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        results = "; ".join(
            f"{name} {self.before[name][0]:.3f} before, {self.after[name][0]:.3f} ({self.after[name][1]:.3f} to "
            f"{self.after[name][2]:.3f}) after" for name in self.after
        )
        return "; ".join([
            f"space {self.space}: layer {self.layer} of {self.parent} projected by {self.groups[0]} groups of {self.column} "
            f"({self.epochs} epochs); on {self.groups[2]} test groups: {results}", *self.notes,
        ])

    def table(self) -> pl.DataFrame:
        """Return a row a metric."""
        return pl.DataFrame([
            {"figure": name, "before": self.before[name][0], "value": value, "low": low, "high": high}
            for name, (value, low, high) in self.after.items()
        ])


@dataclass(frozen=True)
class MetricRun:
    """The name of a metric's space and the files of its projection; `stored`: whether the space exists already."""

    name: str
    files: Blobs
    stored: bool
    notes: tuple[str, ...] = ()

    def result(self) -> LearnedMetric | None:
        """Return the stored result, without figures if the run was interrupted; None if there is none or it is damaged."""
        try:
            values = json.loads(self.files.read(RESULT_FILE) or "null")
            figures = {key: {name: tuple(value) for name, value in values[key].items()} for key in ("before", "after")}
            return LearnedMetric(**{**values, **figures, "groups": tuple(values["groups"]), "notes": tuple(values["notes"])})
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def write(self, manifest: Manifest, result: LearnedMetric) -> None:
        """Store the manifest and the result."""
        write_manifest(self.files, manifest)
        self.files.put_text(RESULT_FILE, json.dumps(asdict(result), indent=2) + "\n")


def find_metric_run(lake: Lake, name: str | None, default: str, manifest: Manifest) -> MetricRun:
    """Return the run of this manifest: the stored one, or the name under which to store it.

    `name`: as given by the user.  Without it the name is `default` or, if a space of that name was learned from other data, the
    same with the first digits of the digest; a note then says what has changed.  Raises InputError if a space of that name
    exists that is not of these settings and this data.
    """
    wanted = name or default
    check_name(wanted)
    spaces = {space.name: space for space in lake.spaces.all()}
    files = lake.files(f"projections/{wanted}")
    if wanted not in spaces:
        return MetricRun(wanted, files, stored=False)
    if not is_projection(spaces[wanted]):
        raise InputError(f"space {wanted!r}: already exists. Choose another --name")
    earlier = read_manifest(files)
    if earlier is not None and earlier.digest == manifest.digest:
        return MetricRun(wanted, files, stored=True)
    remedy = "Choose another --name, or add new clips with --extend"
    if earlier is not None:
        check_settings(wanted, manifest, earlier.settings, remedy)
    changed = describe_change(manifest, earlier)
    if name is not None:
        raise InputError(f"space {wanted!r}: already exists, and {changed}. {remedy}")
    apart = f"{wanted[:57]}-{manifest.digest[:6]}"
    files = lake.files(f"projections/{apart}")
    stored = read_manifest(files, manifest.digest) is not None and apart in spaces
    if apart in spaces and not stored:
        raise InputError(f"space {apart!r}: already exists. Choose another --name")
    return MetricRun(apart, files, stored, notes=(f"space {wanted} {changed}; {apart} is separate from it",))


def check_settings(name: str, manifest: Manifest, earlier: Mapping[str, Any], remedy: str) -> None:
    """Raise InputError if the space of that name was learned with other settings."""
    differing = manifest.changed_settings(earlier)
    if differing:
        shown = enumerated(differing[:MOST_SETTINGS]) + (" …" if len(differing) > MOST_SETTINGS else "")
        raise InputError(f"space {name!r}: already exists with other settings ({shown}). {remedy}")
