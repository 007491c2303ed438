"""Keep the table of names in step with the clips of a lake.

The table is correct at one version if it was derived from one version of clips; both numbers are written to `names/built.json`
after an update.  A reader compares them with the present ones: if either differs, it compares all names with the clips and
writes what changed, new titles included.  So an update that was killed, or another writer's, is noticed by the next reader,
on any kind of disk.
A lake that cannot be written to, or that a program only reads (`Lake.only_reads`), is answered from a temporary table.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

import polars as pl

from tonelake.index.names.folded import fold_song, shown_texts, song_grams, stored_shown, stored_text
from tonelake.index.names.grams import VERSION
from tonelake.index.names.songs import read_song_names
from tonelake.store import Lake, LakeError, Names, exclusive_lock, is_local

NEVER = (-1, -1)                         # versions that no table has
FOLDER, STAMP, LOCK = "names", "built.json", ".lock"
ROUNDS = 5                               # updates in a row, while other writers change clips or names
SHOWN_FROM = 5_000                       # names whose grams are worth a progress bar: about half a second

log = logging.getLogger("tonelake.index")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Current:
    """A table of names and the versions (clips, names) at which it was in step."""

    names: Names
    versions: tuple[int, int]


_current: WeakKeyDictionary[Lake, Current] = WeakKeyDictionary()
_updating = threading.Lock()


def search_names(lake: Lake, search: Callable[[Names], Result]) -> Result:
    """Return the result of a search in the current names.  A table that proves damaged is made again, once."""
    try:
        return search(current_names(lake))
    except LakeError as error:
        log.info("%s: making the names again", error)
        return search(current_names(lake, again=True))


def current_names(lake: Lake, *, again: bool = False) -> Names:
    """Return the names of a lake, brought up to date; `again`: made from nothing."""
    with _updating:
        known = _current.get(lake)
        if known is None or again or known.versions != versions(lake, known.names):
            try:
                known = find_current(lake, known, again) if lake.only_reads else update_stored(lake, again)
            except (LakeError, OSError) as error:
                if known is None or known.names.is_stored:
                    log.info("names: cannot be stored in the lake (%s). They are kept in a temporary folder", error)
                known = update(lake, temporary(known))
            _current[lake] = known
        return known.names


def find_current(lake: Lake, known: Current | None, again: bool) -> Current:
    """Return the table in the lake if its stamp says that it is up to date, else a temporary one that is."""
    names = Names.of(lake, VERSION)
    if not again and read_stamp(lake) == (present := versions(lake, names)) and not names.is_outdated():
        return Current(names, present)
    return update(lake, temporary(None if again else known))


def temporary(known: Current | None) -> Names:
    """Return the temporary table that is in use, or a new one."""
    return Names.temporary(VERSION) if known is None or known.names.is_stored else known.names


def versions(lake: Lake, names: Names) -> tuple[int, int]:
    """Return the present versions of clips and names; NEVER if the names cannot be opened."""
    try:
        return lake.clips.table.version, names.version
    except LakeError:
        return NEVER


def update_stored(lake: Lake, again: bool) -> Current:
    """Bring the table in the lake up to date, unless its stamp says that it is.  Raises LakeError if it cannot be written."""
    names = Names.of(lake, VERSION)
    if not again and read_stamp(lake) == (present := versions(lake, names)) and not names.is_outdated():
        return Current(names, present)
    with one_writer(lake):
        if again or names.is_outdated():
            names.drop()
        elif read_stamp(lake) == (present := versions(lake, names)):
            return Current(names, present)                  # another process has done it meanwhile
        write_stamp(lake, NEVER)         # fails at once where nothing can be written
        done = update(lake, names)
        write_stamp(lake, done.versions)
    return done


def update(lake: Lake, names: Names) -> Current:
    """Write the names that differ from the clips, until the table is known to equal one version of clips."""
    for _ in range(ROUNDS):
        clips, before = lake.clips.table.version, names.version
        changed, gone = compare_songs(read_song_names(lake), names.read())
        if not len(changed) and not gone and names.is_indexed():
            return Current(names, (clips, before))
        songs = changed.iter_rows(named=True)
        shown = lake.progress(songs, len(changed), "indexing names") if len(changed) >= SHOWN_FROM else songs
        folded = [fold_song(song) for song in shown]
        texts = [stored_text(song, text) for song, text in zip(folded, shown_texts(changed), strict=True)]
        columns = {"song": changed["song"], "text": texts, names.grams: [song_grams(song) for song in folded]}
        single = names.replace(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)), gone, before)
        if names.needs_care():
            names.care()
        elif single:
            return Current(names, (clips, before + 1))
    log.warning("names: other processes are changing the lake. Answers can lack their latest changes")
    return Current(names, NEVER)


def compare_songs(songs: pl.DataFrame, stored: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Return the songs that are new or changed, and the keys of those that are gone."""
    shown = stored.select("song", shown=stored_shown(stored["text"]))
    changed = songs.with_columns(shown=shown_texts(songs)).join(shown, on=["song", "shown"], how="anti", maintain_order="left")
    return changed.drop("shown"), stored.join(songs, on="song", how="anti")["song"].to_list()


def read_stamp(lake: Lake) -> tuple[int, int] | None:
    """Return the versions of clips and names at the last update; None without one."""
    try:
        found = json.loads(lake.files(FOLDER).read(STAMP) or "")
        return int(found["clips"]), int(found["names"])
    except (ValueError, KeyError, TypeError, LakeError):
        return None


def write_stamp(lake: Lake, at: tuple[int, int]) -> None:
    """Store the versions of clips and names at which they agree."""
    lake.files(FOLDER).put_text(STAMP, json.dumps({"clips": at[0], "names": at[1]}))


@contextmanager
def one_writer(lake: Lake) -> Iterator[None]:
    """Let one process of this machine update at a time, which spares the others the work; on object stores a no-op."""
    if not is_local(lake.uri):
        yield
        return
    folder = Path(lake.uri) / FOLDER
    folder.mkdir(exist_ok=True)
    with exclusive_lock(folder / LOCK):
        yield
