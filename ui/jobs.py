"""Run the commands that the Library page offers, each as `tonelake …` in a process of its own, at most one a lake.

    start_job(lake, job) -> RunningJob         refused while a job of this lake runs, or while another process writes to it
    current_job(lake) -> RunningJob | None     the running or the last one, until it is dismissed

Jobs belong to the server's process: they survive reloads, changes of page and closed browsers, and end with the server.
A second server of the same lake and `tonelake watch` are refused by a lock; a command that somebody runs in a terminal is
noticed by what it writes (`tonelake.writers`).  Cancelling interrupts the command, which stores its finished work.
"""

from __future__ import annotations

import atexit
import contextlib
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from tonelake import Lake
from tonelake.command_process import INTERRUPTED, command_line, environment, interrupt
from tonelake.next_jobs import Job
from tonelake.store import AS_LINES, PROGRESS_VARIABLE, InputError, ProgressRecord, TonelakeError, read_record
from tonelake.writers import OTHERS_S, writing

LOOPBACK = ("127.0.0.1", "localhost", "::1")
LINES_KEPT = 200                         # of a command's output
RESULT_LINES = 4                         # of a report, shown as the result

RUNNING, DONE, FAILED, CANCELLED = "running", "done", "failed", "cancelled"


@dataclass
class RunningJob:
    """A job that was started; a thread keeps it up to date."""

    job: Job
    started: float = field(default_factory=time.time)        # seconds since the epoch
    ended: float | None = None
    progress: ProgressRecord | None = None
    code: int | None = None              # exit code, once it has ended
    cancelled: bool = False
    dismissed: bool = False
    _lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))
    _report: list[str] = field(default_factory=list)         # lines since the last record of progress
    _process: subprocess.Popen[str] | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _problem: Exception | None = None
    _stage: tuple[str, float] = ("", 0.0)                    # label of the progress, and when it was first seen

    @property
    def state(self) -> str:
        """One of RUNNING, DONE, FAILED and CANCELLED."""
        if self.ended is None:
            return RUNNING
        if self.code == 0:
            return DONE
        return CANCELLED if self.cancelled or self.code == INTERRUPTED else FAILED

    @property
    def lines(self) -> list[str]:
        """The end of the command's output, without records of progress."""
        return list(self._lines)

    def result(self) -> str:
        """The last sentence of the command: its report, or its error."""
        found = [line for line in self._report if line and not Path(line).is_absolute()]
        errors = [line for line in found if line.startswith("error: ")]
        if self.state == FAILED and errors:
            return "\n".join(found[found.index(errors[-1]):]).removeprefix("error: ")
        if self.state == FAILED:
            return "\n".join([f"The command ended with exit code {self.code}.", *found[-1:]])
        return "\n".join(found[-RESULT_LINES:])

    def seconds_left(self) -> float | None:
        """An estimate for the present stage, from its rate so far; None at its beginning."""
        record, (_, since) = self.progress, self._stage
        if self.ended is not None or record is None or record.done <= 0 or record.done >= record.total:
            return None
        return (time.monotonic() - since) / record.done * (record.total - record.done)

    def cancel(self) -> None:
        """Interrupt the command; returns at once."""
        if self.ended is None and not self.cancelled:
            self.cancelled = True
            threading.Thread(target=self._stop, daemon=True).start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the command has ended; returns whether it has."""
        until = None if seconds is None else time.monotonic() + seconds
        while self.ended is None and (until is None or time.monotonic() < until):
            time.sleep(0.02)
        return self.ended is not None

    def _stop(self) -> None:
        if self._process is not None:
            interrupt(self._process)

    def _run(self, lake: Lake) -> None:
        """Run the command to its end; a thread's work."""
        try:
            with writing(lake, OTHERS_S):
                self._process = process = subprocess.Popen(
                    command_line(self.job.arguments, lake.uri), env=environment(**{PROGRESS_VARIABLE: AS_LINES}),
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, encoding="utf-8",
                    errors="replace", start_new_session=True,
                )
                self._ready.set()
                assert process.stderr is not None
                with process.stderr:
                    for line in process.stderr:
                        self._read(line.rstrip("\n"))
                self.code = process.wait()
        except (OSError, TonelakeError) as error:
            self._problem = error
        finally:
            self.ended = time.time()
            self._ready.set()

    def _read(self, line: str) -> None:
        record = read_record(line)
        if record is None:
            self._lines.append(line)
            self._report.append(line)
            del self._report[:-LINES_KEPT]
            return
        if record.label != self._stage[0]:
            self._stage = record.label, time.monotonic()
        self.progress = record
        self._report.clear()


_jobs: dict[str, RunningJob] = {}        # by the lake's URI
_guard = threading.Lock()


def start_job(lake: Lake, job: Job) -> RunningJob:
    """Start a job.  Raises InputError while another one runs, or while another process writes to the lake."""
    with _guard:
        last = _jobs.get(lake.uri)
        if last is not None and last.state == RUNNING:
            raise InputError(f"{job.title}: another job is running ({last.job.title}). Wait until it ends, or cancel it")
        running = RunningJob(job)
        threading.Thread(target=running._run, args=(lake,), daemon=True).start()
        running._ready.wait()
        if running._problem is not None:
            raise InputError(f"{job.title}: cannot be started ({running._problem})")
        _jobs[lake.uri] = running
        return running


def current_job(lake: Lake) -> RunningJob | None:
    """Return the lake's running job, or the last one unless it was dismissed."""
    found = _jobs.get(lake.uri)
    return None if found is None or found.dismissed else found


def can_start(address: str | None) -> bool:
    """Whether a server at this address may start jobs: only one that no other machine reaches."""
    return address in LOOPBACK


@atexit.register
def stop_jobs() -> None:
    """End running commands with the server."""
    for running in _jobs.values():
        if running.state == RUNNING and running._process is not None:
            with contextlib.suppress(OSError):
                running._process.terminate()
