"""All GPUs of a machine: one process each, every one with its share of the clips, all writing into the one lake.

Shares are made by source, so that a file is digested and decoded by one process alone, and are even in seconds of audio.
Each process commits what it has like a single one would; killed at any point, what is stored stays, and the next run
shares out the rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import polars as pl

from tonelake.embed.errors import EncoderError
from tonelake.embed.pipeline import EmbedReport
from tonelake.embed.work import ReadClips, find_work, qualified_name
from tonelake.store import Lake, Progress, Space, cores, silent_progress

HOME = Path(__file__).absolute().parents[2]           # the folder that holds `tonelake`; links are not followed


@dataclass(frozen=True)
class Share:
    """What one process is told."""

    lake: str
    space: str
    device: str
    read: str                            # module:function
    frames: tuple[int, ...]
    workers: int | None
    threads: int                         # of torch, where the device is the CPU
    clip_ids: tuple[str, ...]


def embed_on_devices(
    lake: Lake, space: Space, devices: Sequence[str], read: ReadClips, *, frames: Sequence[int] = (),
    workers: int | None = None, progress: Progress = silent_progress,
) -> EmbedReport:
    """The same as `embed_clips`, by one process for each device.

    `read` is found again by its module and name, and `workers` is of all processes together.
    Raises EncoderError where a process failed; what the others stored is kept.
    """
    work = find_work(lake, space, frames)
    due = work.due()
    each = max(1, (workers or cores() - 1) // len(devices))
    shares = [
        Share(
            lake.uri, space.name, device, qualified_name(read), tuple(frames), each,
            max(1, cores() // devices.count("cpu")) if device == "cpu" else 1, tuple(clip_ids),
        )
        for device, clip_ids in zip(devices, split_by_source(due, len(devices)), strict=True)
        if len(clip_ids)
    ]
    started = time.monotonic()
    reports: list[Any] = []
    problems: list[Any] = []

    def clips() -> Iterator[str]:
        for kind, what in run_shares(shares):
            if kind == "clip":
                yield what
            else:
                (reports if kind == "report" else problems).append(what)

    for _ in progress(clips(), len(due), f"embedding into {space.name} on {len(shares)} devices"):
        pass
    if problems:
        raise EncoderError("; ".join(problems) + ".  What the others embedded is stored: run it again to go on")

    def total(field: str) -> Any:
        return sum(report[field] for report in reports)

    return EmbedReport(
        space.name, total("new"), work.known + total("known"), total("failed"), total("framed"), total("seconds_of_audio"),
        time.monotonic() - started, space.precision_reason,
    )


def split_by_source(due: pl.DataFrame, count: int) -> list[list[str]]:
    """Clip ids in `count` shares, even in seconds; the clips of one source stay together, in order."""
    sources = due.group_by("source", maintain_order=True).agg("clip_id", pl.col("duration_s").sum())
    shares: list[list[str]] = [[] for _ in range(count)]
    load = [0.0] * count
    # The longest first, each to whom has least: never more than a third above the best that is possible (Graham 1969).
    for row in sources.sort("duration_s", descending=True, maintain_order=True).iter_rows(named=True):
        least = load.index(min(load))
        load[least] += row["duration_s"]
        shares[least] += row["clip_id"]
    return shares


def run_shares(shares: Sequence[Share]) -> Iterator[tuple[str, Any]]:
    """("clip", id) for each clip done by one of the processes, then ("report", …) or ("problem", …) for each process."""
    events: Queue[tuple[str, Any]] = Queue()
    children = [start(share) for share in shares]
    threads = [
        threading.Thread(target=follow, args=(child, share, events), daemon=True)
        for child, share in zip(children, shares, strict=True)
    ]
    for thread in threads:
        thread.start()
    try:
        left = len(children)
        while left:
            event = events.get()
            left -= event[0] in ("report", "problem")
            yield event
    finally:
        for child in children:           # interrupted: each stores what it has
            if child.poll() is None:
                child.terminate()
        for child in children:
            child.wait()


def start(share: Share) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "tonelake.embed.device_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": str(HOME)},
    )
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(asdict(share)) + "\n")
        child.stdin.close()
    except OSError:
        pass                             # it ended at once; `follow` tells why
    return child


def follow(child: subprocess.Popen[str], share: Share, events: Queue[tuple[str, Any]]) -> None:
    """Pass on what a process says, and how it ended."""
    assert child.stdout is not None and child.stderr is not None
    last_words: deque[str] = deque(maxlen=20)
    listener = threading.Thread(target=lambda: last_words.extend(child.stderr or ()), daemon=True)
    listener.start()
    report = problem = None
    for line in child.stdout:
        event = json.loads(line)
        if "clip" in event:
            events.put(("clip", event["clip"]))
        report, problem = event.get("report", report), event.get("problem", problem)
    code = child.wait()
    listener.join(timeout=5)
    if report is not None and code == 0:
        events.put(("report", report))
    else:
        reason = problem or f"its process ended with {code}: {(list(last_words) or ['it said nothing'])[-1].strip()}"
        events.put(("problem", f"{share.device}: {reason}"))
