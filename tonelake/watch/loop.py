"""The batches of a watch: each syncs the roots that changed, embeds what is new, and says so in one line.

    14:03 Jazz: 3 added, 1 renamed, 2 missing; 5 clips embedded in 12 s

A root is not synced, and nothing of it is marked missing, while it cannot be reached, while it holds no audio files although
the lake knows some, and while more than a fifth of its files (and at least ten) are gone at once, unless that is allowed.  A
problem is said once and tried again, later each time.  Ended at any point, it resumes: syncs and embeddings can be repeated.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tonelake.ingest import listed_files, repeat_ingest
from tonelake.store import Ingest, InputError, Lake, LakeError, TonelakeError, exclusive_lock, is_local, printable
from tonelake.watch.changes import changes, new_failures, state_of
from tonelake.watch.embedding import Choice, Embedded, Run, embed_due, run_command
from tonelake.watch.root import Found, Message, Root, Timing, Trouble
from tonelake.watch.roots import chosen_ingests, short_names
from tonelake.watch.snapshot import is_alarming, lost_files
from tonelake.writers import OTHERS_S, lock_file, writing

RELOAD_S = 60.0                          # between two looks at the recorded ingests
MOST_RETRY_S = 900.0
WAIT_S = 5.0                             # between two looks at another writer
START_S = 30.0                           # for the first reports of all roots, before clips are embedded without them
SILENT_S = 5.0                           # without an answer of a drive, before a batch leaves its folder out
SHOWN = 5                                # errors of files that one batch lists
ERRORS = (TonelakeError, OSError, RuntimeError, ValueError)          # Lance raises the last two for damaged or absent files
AWAY = "is not reachable"
SILENT = f"{AWAY} (its drive does not answer). Nothing was marked as missing"
SECOND = "the lake: another `tonelake watch` of it is running. End that one first"


class Watch:
    """A lake that is kept in step with its folders."""

    def __init__(
        self, lake: Lake, folders: Sequence[str | Path] = (), *, choice: Choice | None = None, embed: bool = True,
        timing: Timing | None = None, poll: bool = False, allow_missing: bool = False, workers: int | None = None,
        say: Callable[[str], None] = print, others_s: float = OTHERS_S, run_embed: Run = run_command,
    ) -> None:
        """`folders`: recorded roots to watch, or folders to ingest first; none: every recorded root.

        `choice`: spaces to embed into; `embed` False: none.  `poll`: look at every folder each `timing.every_s`.
        `allow_missing`: sync although a large part of a root's files is gone.  `say` gets one line at a time.
        `others_s`: how long after another process's write this one waits.
        Raises InputError if there is nothing to watch, or for a choice that cannot be met.
        """
        self.lake, self.folders, self.choice, self.embed = lake, folders, choice or Choice(), embed
        self.timing, self.poll, self.allow_missing = timing or Timing(), poll, allow_missing
        self.workers, self.others_s, self.run_embed = workers, others_s, run_embed
        self.stop = threading.Event()
        self.is_syncing = False
        self._say = say
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._roots: dict[tuple[str, str], Root] = {}        # by kind and path
        self._ready: dict[Root, Found] = {}
        self._reported: set[Root] = set()
        self._away: set[Root] = set()
        self._said: dict[Any, str] = {}              # problems, by what has them
        self._tries: dict[Any, int] = {}
        self._embed_at = time.monotonic() + START_S if embed else None       # when clips are due to be embedded
        self._is_starting = True
        self._try_at = self._reload_at = 0.0
        self._end: LakeError | None = None           # ends the watch
        self._identity = lake.identity
        lake.check_writable()
        self.choice.check(lake)
        self._ingests = chosen_ingests(lake, folders)

    def run(self, *, once: bool = False) -> bool:
        """Watch until `stop` is set; `once`: sync and embed what is due, and return.  Returns whether nothing was left undone.

        Raises InputError if another watch of the lake runs, LakeError if another lake is at its place.
        """
        with exclusive_lock(lock_file(self.lake.uri, "watch"), SECOND):
            try:
                self._set_roots(self._ingests)
                while not self.stop.is_set() and not (once and self._is_done()):
                    self._take_messages()
                    self._reload()
                    self._try_batch()
            except KeyboardInterrupt:
                self.stop.set()
            finally:
                for root in self._roots.values():
                    root.stop()
                for root in self._roots.values():
                    root.join(1.0)       # one that waits for a drive is left behind
        if self._end is not None:
            raise self._end
        if self.stop.is_set():
            self._line("ended; finished work is stored")
        return not self._said

    def end(self) -> None:
        """Ask `run` to return; safe in a signal handler."""
        self.stop.set()
        self._messages.put(None)

    # -- messages and roots

    def _is_done(self) -> bool:
        """Whether each root was synced or has a problem, and clips are embedded or have one."""
        is_embedded = self._embed_at is None or "embed" in self._said
        return "lake" in self._said or (not self._is_starting and not self._ready and is_embedded)

    def _embed_is_due(self) -> bool:
        return self._embed_at is not None and time.monotonic() >= self._embed_at

    def _take_messages(self) -> None:
        """Wait for something to do, and take what the roots reported."""
        now = time.monotonic()
        due = [self._reload_at]
        if self._ready:
            due.append(self._try_at)
        elif self._embed_at is not None:
            due.append(max(self._try_at, self._embed_at))
        with contextlib.suppress(queue.Empty):
            message = self._messages.get(timeout=max(min(due) - now, 0.01))
            while True:
                if message is None or message.root not in self._roots.values():
                    pass                 # a wake-up, or a root that is not watched any more
                elif isinstance(message, Found):
                    if message.snapshot.digest != message.root.synced:
                        self._ready[message.root] = message
                elif isinstance(message, Trouble):
                    self._ready.pop(message.root, None)
                    self._leave(message.root, f"{AWAY} ({message.reason}). Nothing was marked as missing")
                else:
                    self._line(f"{message.root.name}: {message.text}")
                message = self._messages.get_nowait()
        if self._is_starting and self._reported | set(self._ready) >= set(self._roots.values()):
            self._is_starting = False
            self._embed_at = time.monotonic() if self.embed else None

    def _reload(self) -> None:
        """Follow changes of the recorded ingests, and notice drives that do not answer."""
        if time.monotonic() < self._reload_at:
            return
        for root in self._roots.values():
            if root.has_not_answered(RELOAD_S):
                self._leave(root, SILENT)
                root.look_again(0.0)
        self._reload_at = time.monotonic() + RELOAD_S
        try:
            self._set_roots(chosen_ingests(self.lake, self.folders))
            self._said.pop("ingests", None)
        except ERRORS as error:
            self._problem("ingests", str(error))

    def _set_roots(self, ingests: Sequence[Ingest]) -> None:
        """Watch these ingests, and no others."""
        wanted = {(ingest.kind, ingest.root): ingest for ingest in ingests}
        for key, root in list(self._roots.items()):
            if wanted.get(key) != root.ingest:
                root.stop()
                self._ready.pop(root, None)
                self._forget(root)
                del self._roots[key]
        names = short_names([ingest.root for ingest in ingests])
        for ingest, name in zip(ingests, names, strict=True):
            if (ingest.kind, ingest.root) not in self._roots:
                self._roots[ingest.kind, ingest.root] = self._start(ingest, name)

    def _start(self, ingest: Ingest, name: str) -> Root:
        root = Root(
            ingest, name, self.timing, self._messages.put, lambda: listed_files(self.lake, ingest), poll=self.poll,
            ignored=Path(self.lake.uri) if is_local(self.lake.uri) else None,
        )
        every = f", looked at every {root.between_s / 60:g} min" if root.polled else ""
        why = f" ({root.file_system} does not report changes)" if root.polled and root.is_folder and not self.poll else ""
        self._line(f"watching {name}: {ingest.root}{every}{why}")
        root.start()
        return root

    # -- batches

    def _try_batch(self) -> None:
        """Do what is due, unless another process writes."""
        now = time.monotonic()
        if now < self._try_at or self.stop.is_set() or not (self._ready or self._embed_is_due()):
            return
        try:
            self._check_lake()
            with writing(self.lake, self.others_s):
                self._forget("lake", "writer")
                self._batch()
        except InputError:               # of `writing`; its text changes with each look, and would be said each time
            self._problem("writer", "waiting until another process has finished writing to the lake")
            self._try_at = now + min(WAIT_S, self.timing.retry_s)
        except ERRORS as error:
            self._problem("lake", str(error))
            self._try_at = now + self._pause_s("lake")

    def _check_lake(self) -> None:
        """Raise LakeError if the lake is away, and end the watch if another lake is at its place."""
        if self.lake.files("").read("lake.json") is None:
            raise LakeError("the lake: is not reachable. Waiting until it is back")
        self.lake.read_format()
        found, self.lake.identity = self.lake.identity, self._identity
        if found == self._identity:
            return
        self._end = LakeError("the lake: was replaced by another one. Start the watch again")
        self.stop.set()
        raise self._end

    def _batch(self) -> None:
        parts: list[str] = []
        errors: list[str] = []
        for root in list(self._ready):
            if self.stop.is_set():
                break
            text, failures = self._sync(self._ready[root])
            del self._ready[root]        # not before: an error of the lake leaves it to the next try
            parts += [f"{root.name}: {text}"] if text else []
            errors += failures
            self._reported.add(root)
        if not self._ready and self._embed_is_due() and not self.stop.is_set():
            before, started = state_of(self.lake), time.monotonic()
            try:
                embedded = embed_due(self.lake, self.choice, self.stop, self.run_embed)
            except ERRORS as error:
                embedded = Embedded(errors=(str(error),))
            if embedded.clips:
                parts.append(f"{embedded.clips:,} clips embedded in {time.monotonic() - started:.0f} s")
            errors += new_failures(before, state_of(self.lake))
            self._after_embedding(embedded)
        if parts:
            self._line("; ".join(parts))
        for text in errors[:SHOWN]:
            self._line(f"failed: {text}")
        if len(errors) > SHOWN:
            self._line(f"failed: {len(errors) - SHOWN:,} more (see `tonelake failures`)")

    def _sync(self, found: Found) -> tuple[str, list[str]]:
        """Repeat the ingest of a root; returns what it changed, and new errors of its files."""
        root = found.root
        if reason := self._reason_to_wait(found):
            self._leave(root, reason)
            root.look_again(self._pause_s(root))
            return "", []
        before = state_of(self.lake)
        self.is_syncing = True
        try:
            report = repeat_ingest(self.lake, root.ingest, leave_out=found.leave_out, workers=self.workers)
        except ERRORS as error:
            self._reported.add(root)
            self._problem(root, f"{root.name}: {error}")
            root.look_again(self._pause_s(root))
            return "", []
        finally:
            self.is_syncing = False
        if root.on_disk and not found.leave_out:
            root.synced = found.snapshot.digest
        root.ingest = self.lake.ingests.find(root.ingest.kind, root.ingest.root) or root.ingest
        if root in self._away:
            self._line(f"{root.name}: is back")
        self._away.discard(root)
        self._forget(root)
        after = state_of(self.lake)
        text = str(changes(before, after, report))
        if text and self.embed:
            self._embed_at = time.monotonic()
        return text, new_failures(before, after)

    def _reason_to_wait(self, found: Found) -> str:
        """Why a root is not synced now; empty if it can be."""
        root = found.root
        if not root.on_disk:
            return ""
        if root.has_not_answered(SILENT_S):
            return SILENT
        lost, known = lost_files(self.lake, found.snapshot, root.path if root.is_folder else None)
        if not found.snapshot.here:
            if not known:
                return "holds no audio files. Copy some into it" if root.is_folder else ""
            return f"{AWAY}: none of its {known:,} files is there. Nothing was marked as missing"
        if is_alarming(lost, known) and not self.allow_missing:
            return (
                f"{lost:,} of {known:,} files are gone. If a drive is away, connect it; if they were deleted, end this watch "
                "and run `tonelake watch --once --allow-missing`. Nothing was marked as missing"
            )
        return ""

    def _after_embedding(self, embedded: Embedded) -> None:
        """Note whether clips are still due, and when to try again."""
        self._embed_at = None
        if not embedded.errors:
            self._forget("embed")
            return
        self._problem("embed", "; ".join(embedded.errors))
        self._embed_at = time.monotonic() + self._pause_s("embed")

    # -- what is said

    def _leave(self, root: Root, reason: str) -> None:
        self._reported.add(root)
        self._away.add(root)
        # A folder that is gone and then an empty mount point is away once.
        self._problem(root, f"{root.name}: {reason}", AWAY if reason.startswith(AWAY) else "")

    def _problem(self, what: Any, text: str, sort: str = "") -> None:
        """Say a problem, unless it is the one, or of the sort, that was said last of this."""
        if self._said.get(what) != (sort or text):
            self._said[what] = sort or text
            self._line(text)

    def _forget(self, *those: Any) -> None:
        """Note that these have no problem any more."""
        for what in those:
            self._said.pop(what, None)
            self._tries.pop(what, None)

    def _pause_s(self, what: Any) -> float:
        """Seconds before the next try: twice as many each time."""
        tries = self._tries[what] = self._tries.get(what, -1) + 1
        return min(self.timing.retry_s * 2**min(tries, 20), max(MOST_RETRY_S, self.timing.retry_s))

    def _line(self, text: str) -> None:
        self._say(f"{time.strftime('%H:%M')} {printable(text)}")


def watch_lake(lake: Lake, folders: Sequence[str | Path] = (), *, once: bool = False, **options: Any) -> bool:
    """Watch until SIGTERM or Ctrl-C; the options are those of `Watch`.  Returns whether nothing was left undone.

    A signal ends the present step early, and its finished work is stored.
    """
    watch = Watch(lake, folders, **options)

    def end(*_: object) -> None:
        again = watch.stop.is_set()
        watch.end()
        if watch.is_syncing or again:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return watch.run(once=once)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
