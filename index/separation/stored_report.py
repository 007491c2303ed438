"""The best layer of each layer report, kept with the lake so that searches can start from it.

    layers/<space>/<column>.json    the layer with the highest mAP, its interval, and the table versions it was measured on

Only reports of default settings are kept: a filter, a preparation or other pairs answer another question.  A report of older
clips or vectors is stale: it is still returned, and marked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from tonelake.store import Blobs, Lake, LakeError, Space, check_types

FOLDER = "layers"
PLAIN_NAME = re.compile("[a-z0-9_]{1,60}")
PREFERRED = "artist"                     # the column whose report is taken if none is named

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BestLayer:
    """The layer that separates the groups of a column best, as last measured."""

    column: str
    layer: str                           # name
    figure: float                        # mAP
    low: float | None                    # its 95 % interval; None if it is not defined
    high: float | None
    chance: float                        # mAP of a random order
    stale: bool                          # whether clips or vectors have changed since

    def __str__(self) -> str:
        text = f"Layer {self.layer} separates {self.column} best: mAP {short(self.figure)}"
        if self.low is not None and self.high is not None:
            text += f" ({short(self.low)} to {short(self.high)})"
        return f"{text}, chance {short(self.chance)}"


@dataclass(frozen=True, kw_only=True)
class StoredBest:
    """The content of a stored file; its fields are the keys of the JSON object."""

    column: str
    fingerprint: str                     # of the space
    layer: str
    map: float
    low: float | None
    high: float | None
    chance: float
    clips_version: int
    vectors_version: int


def short(value: float) -> str:
    """Return a share with two digits and no zero before the point.

    >>> short(0.314), short(1.0), short(-0.02)
    ('.31', '1.00', '-.02')
    """
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.2f}"


def table_versions(lake: Lake, space: Space) -> tuple[int, int]:
    """Return the versions of the tables that a report is measured on: clips, and vectors of the space."""
    return lake.clips.table.version, lake.vectors(space).table.version


def store_best_layer(lake: Lake, space: Space, best: BestLayer, versions: tuple[int, int]) -> None:
    """Keep the best layer of a report of default settings, measured on tables of these versions.

    Only logged if it cannot be written: a lake may be read-only.
    """
    if lake.refusal or math.isnan(best.figure):
        return
    stored = StoredBest(
        column=best.column, fingerprint=space.fingerprint, layer=best.layer, map=best.figure, low=best.low, high=best.high,
        chance=best.chance, clips_version=versions[0], vectors_version=versions[1],
    )
    try:
        text = json.dumps(asdict(stored), ensure_ascii=False, indent=2) + "\n"
        stored_files(lake, space).put_text(file_name(best.column), text)
    except (LakeError, OSError, RuntimeError, ValueError) as error:
        log.info("the layer report of %s is not kept: %s", best.column, error)


def best_layer(lake: Lake, space: Space | str | None = None, column: str | None = None) -> BestLayer | None:
    """Return the best layer of the stored report of a column; None if `layers` has not measured it in this space.

    Without a column, the report of `artist` is taken if there is one, else the first by name.  Files that cannot be read are
    skipped.  Raises SpaceNotFound for an unknown space.
    """
    chosen = space if isinstance(space, Space) else lake.spaces.get(space)
    files = stored_files(lake, chosen)
    try:
        names = sorted(files.names(), key=lambda name: name != file_name(PREFERRED)) if column is None else [file_name(column)]
    except (OSError, RuntimeError, ValueError):
        return None
    for name in names:
        stored = read_best(files, name)
        if stored is None or (column is not None and stored.column != column):
            continue
        if stored.fingerprint == chosen.fingerprint and stored.layer in chosen.layers:
            return BestLayer(
                column=stored.column, layer=stored.layer, figure=stored.map, low=stored.low, high=stored.high,
                chance=stored.chance, stale=(stored.clips_version, stored.vectors_version) != table_versions(lake, chosen),
            )
    return None


def read_best(files: Blobs, name: str) -> StoredBest | None:
    """Return the content of a file, or None if it does not exist or is damaged."""
    try:
        text = files.read(name)
        values: dict[str, Any] = json.loads(text) if text is not None else {}
        check_types(StoredBest, values)
        return StoredBest(**values) if values else None
    except (LakeError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        log.info("%s/%s: is not used, because it cannot be read (%s)", files.uri, name, error)
        return None


def stored_files(lake: Lake, space: Space) -> Blobs:
    return lake.files(f"{FOLDER}/{space.name}")


def file_name(column: str) -> str:
    """Return the file of a column: its name where every system allows it, else a digest of it.

    >>> file_name("artist"), len(file_name("a/b")), len(file_name("x" * 1000))
    ('artist.json', 37, 37)
    """
    if not PLAIN_NAME.fullmatch(column):
        return f"{hashlib.blake2b(column.encode('utf-8', 'surrogatepass'), digest_size=16).hexdigest()}.json"
    return f"{column}.json"
