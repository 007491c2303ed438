"""Watch one recorded ingest in a thread: it reports when files changed and then stayed quiet, and when they cannot be reached.

    root = Root(ingest, "Jazz", timing, messages.put, lambda: listed_files(lake, ingest))
    root.start()
    messages.get()                       # Found: root, snapshot, leave_out; or Trouble: root, reason
    root.synced = found.snapshot.digest  # once the lake agrees with it

Where the file system reports changes, a change starts an interval, and each further change starts it again.  Elsewhere, and
once an hour everywhere, the files are looked at.  Files that change all the time hold up the others for `most_wait_s` at most.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tonelake.ingest import SUFFIXES
from tonelake.store import Ingest
from tonelake.watch.places import Identity, file_system_of, reach, reports_changes
from tonelake.watch.snapshot import Snapshot, take_snapshot

RESCAN_S = 3600.0                        # between two looks where changes are reported: a full queue of events loses some
SERVER_S = 3600.0                        # between two questions to a music server, at least: each lists its whole library
MOST_PAUSE_S = 60.0                      # between two tries to reach a folder
LIMIT = "fs.inotify.max_user_watches"    # of the system, in number of folders


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When files are looked at, in seconds."""

    quiet_s: float = 10.0                # without a further change before files are read
    every_s: float = 300.0               # between two looks where changes are not reported
    most_wait_s: float = 300.0           # for files that keep changing, before the others are read
    retry_s: float = 30.0                # before the first new try of what failed; each further one comes later
    tick_s: float = 2.0                  # at most between two looks at the folder itself, where changes are reported


@dataclass(frozen=True, kw_only=True)
class Found:
    """Files that differ from those that the lake was synced with, and that are quiet but for `leave_out`."""

    root: Root
    snapshot: Snapshot
    leave_out: frozenset[Path] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A folder or file that cannot be reached or listed."""

    root: Root
    reason: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A sentence about a root that is watched."""

    root: Root
    text: str


Message = Found | Trouble | Notice


class Root:
    """One watched ingest."""

    def __init__(
        self, ingest: Ingest, name: str, timing: Timing, post: Callable[[Message], None],
        list_files: Callable[[], Iterable[Path] | None], *, poll: bool = False, ignored: Path | None = None,
    ) -> None:
        """`list_files`: the audio files of the ingest, None for a server.  `poll`: look at the files, whatever reports changes.

        `ignored`: a folder whose changes say nothing: the lake.
        """
        self.ingest, self.name, self.timing = ingest, name, timing
        self.on_disk = "://" not in ingest.root
        self.path = Path(ingest.root)
        self.is_folder = ingest.kind == "folder"
        labels = ingest.options.get("labels")
        own = [] if self.is_folder or not self.on_disk else [self.path, Path(f"{ingest.root}-wal")]      # SQLite's log
        self.others = (*own, *([Path(labels)] if isinstance(labels, str) else []))
        self.file_system = file_system_of(self.path) if self.on_disk else ""
        self.polled = poll or not self.is_folder or not reports_changes(self.file_system)
        self.synced: str | None = None   # digest of the files that the lake agrees with
        self.look_at: float | None = None            # when to look again whatever happens, on time.monotonic's clock
        self._asked_at: float | None = None          # since when the drive has been asked whether the folder is there
        self._post, self._list, self._ignored = post, list_files, ignored
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)

    @property
    def step_s(self) -> float:
        """Seconds between two looks at the folder itself; a drive of the network is not asked more often than it has to be."""
        timing = self.timing
        return min(timing.every_s, timing.quiet_s) if self.polled else min(timing.tick_s, max(timing.quiet_s / 4, 0.02))

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; one that waits for a drive that does not answer is left behind."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def look_again(self, in_s: float) -> None:
        """Report the files once more after a while, even if nothing changed until then."""
        self.synced = None
        self.look_at = time.monotonic() + in_s

    def has_not_answered(self, seconds: float) -> bool:
        """Whether the drive has been asked for so long without an answer: system calls to a network drive can hang."""
        asked_at = self._asked_at
        return asked_at is not None and time.monotonic() > asked_at + seconds

    # -- in the thread

    def _run(self) -> None:
        pause_s = self.step_s
        while not self._stop.is_set():
            try:
                before = self._reach()
                with self._changes() as changes:
                    pause_s = self.step_s
                    self._follow(changes, before)
            except Exception as error:   # whatever it is: without this thread nothing would look at the folder any more
                self.synced = None
                reason = error.strerror if isinstance(error, OSError) else None
                self._post(Trouble(root=self, reason=reason or str(error)))
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, MOST_PAUSE_S)

    def _reach(self) -> Identity | None:
        """The identity of the folder; None for a server, and for a file, which programs replace when they write it."""
        if not self.on_disk:
            return None
        self._asked_at = time.monotonic()
        try:
            found = reach(self.path, folder=self.is_folder)
        finally:
            self._asked_at = None
        return found if self.is_folder else None

    def _follow(self, changes: Iterator[bool], identity: Identity | None) -> None:
        """Report files as they change, until the folder is another one.  Raises OSError if it cannot be reached any more."""
        timing = self.timing
        since = looked = time.monotonic()            # when the first change of a batch was noticed; the last look
        due: float | None = since        # when to look at the files; at first at once
        pending: Snapshot | None = None  # of the last look, if files may have been in the middle of being written
        others = take_snapshot((), self.others).others
        for changed in changes:
            now = time.monotonic()
            if self._reach() != identity:
                return
            found = take_snapshot((), self.others).others
            if changed or found != others:
                since, others = since if due is not None else now, found
                due = min(now + timing.quiet_s, since + timing.most_wait_s)
                if pending is not None:
                    due = max(due, looked + timing.quiet_s)
            elif due is None and (now >= looked + self.between_s or (self.look_at is not None and now >= self.look_at)):
                due = since = now
            if due is None or now < due:
                continue
            self.look_at, looked = None, now
            snapshot = take_snapshot(self._list() or (), self.others)
            if self.on_disk and snapshot.digest == self.synced:
                due = pending = None
                continue
            moving = self._moving(snapshot, pending)
            if not moving:
                self._post(Found(root=self, snapshot=snapshot))
                due = pending = None
                continue
            if now >= since + timing.most_wait_s and pending is not None and len(moving) < snapshot.here:
                self._post(Found(root=self, snapshot=snapshot, leave_out=moving))
                since = now
            due, pending = now + timing.quiet_s, snapshot

    @property
    def between_s(self) -> float:
        """Seconds between two looks at the files if no change is reported."""
        if not self.on_disk:
            return max(self.timing.every_s, SERVER_S)
        return self.timing.every_s if self.polled else RESCAN_S

    def _moving(self, snapshot: Snapshot, before: Snapshot | None) -> frozenset[Path]:
        """Files that may be in the middle of being written; all of them if a second look is needed to know."""
        if before is not None:
            return snapshot.unlike(before)
        recent_ns = time.time_ns() - int(self.timing.quiet_s * 1e9)
        # The clock of another machine is another one.
        is_sure = not self.on_disk or (reports_changes(self.file_system) and not snapshot.changed_since(recent_ns))
        return frozenset() if is_sure else frozenset(snapshot.files) | frozenset({self.path})

    @contextlib.contextmanager
    def _changes(self) -> Iterator[Iterator[bool]]:
        """An endless iterator that yields every `step_s`, whether a change was reported meanwhile."""
        changes = self._ticks() if self.polled else self._events()
        try:
            yield changes
        finally:
            changes.close()

    def _ticks(self) -> Generator[bool, None, None]:
        while True:
            yield False
            if self._stop.wait(self.step_s):
                return

    def _events(self) -> Generator[bool, None, None]:
        from watchfiles import watch

        try:                             # the first value comes after the tree is registered: no change is missed
            events = watch(
                self.path, watch_filter=None, stop_event=self._stop, debounce=round(1000 * self.step_s), step=20,
                rust_timeout=round(1000 * self.step_s), yield_on_timeout=True, raise_interrupt=False,
                ignore_permission_denied=True, force_polling=False,
            )
            for batch in events:
                yield any(self._matters(Path(path)) for _, path in batch)
        except (OSError, RuntimeError) as error:
            self._reach()                # raises the clearer error if the folder is away
            self.polled = True
            reason = str(error).split(" about ")[0].rstrip(".")
            remedy = f"Raise {LIMIT} with sysctl" if "limit" in reason else "Events are tried at the next start"
            self._post(Notice(root=self, text=(
                f"changes are not reported ({reason}), so it is looked at every {self.between_s / 60:g} min. {remedy}"
            )))
            yield from self._ticks()

    def _matters(self, path: Path) -> bool:
        """Whether a change of this path can be one of audio: other kinds of files, hidden ones and the lake's own are not."""
        if self._ignored is not None and path.is_relative_to(self._ignored):
            return False
        below = path.relative_to(self.path).parts if path.is_relative_to(self.path) else (path.name,)
        if any(part.startswith(".") for part in below):
            return False
        return path.suffix.lower() in SUFFIXES or not path.is_file()
