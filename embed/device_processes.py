"""Embed on all GPUs of a machine: one process per device, each with its share of the clips, all writing into one lake.

Clips of one source go to one process, so that a file is digested and decoded once; shares are even in seconds of audio.
Each process commits as a single one would; after a kill at any point, stored clips remain, and the next run divides the rest.
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
from tonelake.embed.work import ReadClips, find_work, import_path, qualified_name
from tonelake.store import Lake, Space, cores

HOME = Path(__file__).absolute().parents[2]           # the folder that holds `tonelake`; links are not followed


@dataclass(frozen=True, kw_only=True)
class Share:
    """The task of one process."""

    lake: str
    space: str
    device: str
    read: str                            # module:function
    frames: tuple[int, ...]
    workers: int | None
    threads: int                         # of torch, if the device is the CPU
    clip_ids: tuple[str, ...]


def embed_on_devices(
    lake: Lake, space: Space, devices: Sequence[str], read: ReadClips, *, frames: Sequence[int] = (),
    workers: int | None = None,
) -> EmbedReport:
    """Do the work of `embed_clips` in one process per device.

    The processes import `read` by its module and name; `workers` is their total over all processes.
    Raises EncoderError if a process failed; clips that the others stored are kept.
    """
    work = find_work(lake, space, frames)
    due = work.due()
    each = max(1, (workers or cores() - 1) // len(devices))
    shares = [
        Share(
            lake=lake.uri, space=space.name, device=device, read=qualified_name(read), frames=tuple(frames), workers=each,
            threads=max(1, cores() // devices.count("cpu")) if device == "cpu" else 1, clip_ids=tuple(clip_ids),
        )
        for device, clip_ids in zip(devices, split_by_source(due, len(devices)), strict=True)
        if len(clip_ids)
    ]
    started = time.monotonic()
    reports: list[Any] = []
    problems: list[Any] = []

    def clips() -> Iterator[str]:
        for kind, content in run_shares(shares):
            if kind == "clip":
                yield content
            else:
                (reports if kind == "report" else problems).append(content)

    for _ in lake.progress(clips(), len(due), f"embedding into {space.name} on {len(shares)} devices"):
        pass
    if problems:
        raise EncoderError("; ".join(problems) + ". Clips embedded by the others are stored. Run it again to resume")

    def total(field: str) -> Any:
        return sum(report[field] for report in reports)

    return EmbedReport(
        space=space.name, new=total("new"), known=work.known + total("known"), failed=total("failed"), framed=total("framed"),
        seconds_of_audio=total("seconds_of_audio"), seconds_taken=time.monotonic() - started, precision=space.precision_reason,
    )


def split_by_source(due: pl.DataFrame, count: int) -> list[list[str]]:
    """Divide clip ids into `count` shares of about equal seconds; clips of one source stay together, in order."""
    sources = due.group_by("source", maintain_order=True).agg("clip_id", pl.col("duration_s").sum())
    shares: list[list[str]] = [[] for _ in range(count)]
    load = [0.0] * count
    # The longest first, each to the smallest share: never more than a third above the optimum (Graham 1969).
    for row in sources.sort("duration_s", descending=True, maintain_order=True).iter_rows(named=True):
        least = load.index(min(load))
        load[least] += row["duration_s"]
        shares[least] += row["clip_id"]
    return shares


def run_shares(shares: Sequence[Share]) -> Iterator[tuple[str, Any]]:
    """Yield ("clip", id) for each clip done by one of the processes, and ("report", …) or ("problem", …) once per process."""
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
        for child in children:           # interrupted: each stores the clips it has encoded
            if child.poll() is None:
                child.terminate()
        for child, thread in zip(children, threads, strict=True):
            child.wait()
            thread.join(timeout=5)
            if not thread.is_alive() and child.stdout is not None and child.stderr is not None:
                child.stdout.close()
                child.stderr.close()


def start(share: Share) -> subprocess.Popen[str]:
    """Start a device process that can import everything this process can, and send it its share."""
    path = os.pathsep.join(dict.fromkeys([str(HOME), *import_path()]))
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "tonelake.embed.device_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": path},
    )
    assert child.stdin is not None
    try:
        child.stdin.write(json.dumps(asdict(share)) + "\n")
        child.stdin.close()
    except OSError:
        pass                             # it ended at once; `follow` reports why
    return child


def follow(child: subprocess.Popen[str], share: Share, events: Queue[tuple[str, Any]]) -> None:
    """Turn the output and the end of a process into events."""
    assert child.stdout is not None and child.stderr is not None
    errors: deque[str] = deque(maxlen=20)
    listener = threading.Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True)
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
        reason = problem or f"its process ended with {code}: {(list(errors) or ['it printed nothing'])[-1].strip()}"
        events.put(("problem", f"{share.device}: {reason}"))
