"""Check a lake: rows, vectors, sources, and everything that is derived from them.

Derived files (indexes, maps, vocabularies) can be made again, so a damaged one is dropped; a repeated row loses its copies, and
a vector with NaN or infinity is deleted, to be embedded again.  Any other finding names its remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import polars as pl

from tonelake.store import Lake, Space, TonelakeError, format_of, pending_upgrades
from tonelake.verify import derived, stored
from tonelake.verify.finding import Finding, as_frame

CHECKS_OF_A_SPACE: dict[str, Callable[[Lake, Space, bool], Iterator[Finding]]] = {
    "vectors": stored.check_vectors, "frames": stored.check_frames, "indexes": derived.check_indexes,
    "maps": derived.check_maps, "vocabularies": derived.check_vocabularies,
}


def verify(lake: Lake, *, repair: bool = False, sources: bool = True, digests: bool = False) -> pl.DataFrame:
    """Check everything, and with `repair` mend what can be mended without loss; returns a row a finding.

    `sources`: check that files exist; `digests`: check that their bytes are unchanged, which reads every file.
    Columns: what, where, problem, remedy, mended.  Nothing is written unless `repair`.  A lake of an older format, opened with
    `older=True`, is upgraded first; without `repair` its format is the only finding.
    """
    found = list(stored.check_format(lake, repair))
    if pending_upgrades(format_of(lake.files(""))):
        return as_frame(found)           # other files of an older format may not be readable by this program
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("clips", lambda: stored.check_rows(lake.clips.table, "clips", repair)),
        ("events", lambda: stored.check_events(lake, repair)),
    ]
    if sources or digests:
        checks.append(("sources", lambda: stored.check_sources(lake, digests, repair)))
    spaces, broken = stored.readable_spaces(lake)
    found += broken
    for space in spaces:
        checks += [
            (f"{name} of {space.name}", partial(check, lake, space, repair)) for name, check in CHECKS_OF_A_SPACE.items()
        ]
    checks += [("runs", lambda: derived.check_runs(lake)), ("files", lambda: derived.check_files(lake, repair))]
    for name, check in lake.progress(checks, len(checks), "verifying"):
        try:
            found += check()
        except TonelakeError as error:   # a table that cannot be read at all
            found.append(Finding(
                what=name, where=lake.uri, problem=str(error), remedy="restore it from a copy",
            ))
    return as_frame(found)
