"""Upgrade of a lake from an older format, one step for each format; run by `tonelake verify --repair`."""

from __future__ import annotations

from collections.abc import Callable

from tonelake.store.format import format_of, write_format
from tonelake.store.lake import Lake

# By format: the step that upgrades a lake from the format before.  A change that an older program would misread needs a step
# here and the new number in `store.format`.
UPGRADES: dict[int, Callable[[Lake], None]] = {}


def pending_upgrades(found: int) -> list[int]:
    """The formats that a lake of format `found` still has to be upgraded to, in order."""
    return sorted(version for version in UPGRADES if version > found)


def upgrade_lake(lake: Lake) -> list[int]:
    """Upgrade a lake to the newest format and return the formats it went through.

    Each format is written once its step is done.  If a step is interrupted, the next call repeats it, so a step must be safe to
    run twice.
    """
    files = lake.files("")
    steps = pending_upgrades(format_of(files))
    for version in steps:
        UPGRADES[version](lake)
        write_format(files, version)
    return steps
