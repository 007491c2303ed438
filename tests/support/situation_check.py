"""Compare what ingest makes of a situation with what is right, with a decode from the start, and with ffmpeg."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from situations import FLAGGED, READ, REFUSED, Outcome, Situation
from tunes import CHECK_RATE, faults

from tonelake.ingest import AudioError, DecoderPool
from tonelake.ingest.decode import resample

RIGHT, REFUSED_WRONGLY, ACCEPTED_WRONGLY = "right", "refused wrongly", "accepted wrongly"
SLICE_S = 0.4
SLICE_ERROR = 1e-3                       # of a read from the middle, against a slice: a codec's state converges to this


@dataclass(frozen=True)
class Verdict:
    """`kind` is RIGHT, REFUSED_WRONGLY (also a flag that a sound file gets) or ACCEPTED_WRONGLY; `why` says what differs."""

    kind: str
    why: str = ""
    seconds: float | None = None


def check(situation: Situation, path: Path, pool: DecoderPool) -> Verdict:
    """Write the file, scan and read it in decoder processes as ingest does, and judge the outcome."""
    path.write_bytes(situation.data())
    try:
        reply = pool.ask({"do": "scan", "source": str(path)})
    except AudioError as error:
        return _judge_refusal(situation, str(error))
    scan = reply["scan"]
    try:
        whole = read(pool, path, 0.0, scan["duration_s"], CHECK_RATE)
        wrong = middle_faults(pool, path, scan)
    except AudioError as error:
        return Verdict(ACCEPTED_WRONGLY, f"scanned, but cannot be read: {error}")
    kind = FLAGGED if scan["flags"] else READ
    candidates = [outcome for outcome in situation.right if outcome.kind == kind and _says(outcome, scan["flags"])]
    wrong += title_faults(situation, reply["tags"])
    if not candidates:
        return _judge_kind(situation, kind, scan)
    least = min((content_faults(outcome, whole, scan["duration_s"]) for outcome in candidates), key=len)
    if least or wrong:
        return Verdict(ACCEPTED_WRONGLY, "; ".join([*least, *wrong]), scan["duration_s"])
    return Verdict(RIGHT, seconds=scan["duration_s"])


def _judge_refusal(situation: Situation, error: str) -> Verdict:
    allowed = [outcome for outcome in situation.right if outcome.kind == REFUSED and re.search(outcome.says, error)]
    if allowed and not re.search(r"crashed|Traceback|\b[A-Z]\w*Error\b", error):
        return Verdict(RIGHT)
    return Verdict(REFUSED_WRONGLY, error)


def _judge_kind(situation: Situation, kind: str, scan: dict[str, Any]) -> Verdict:
    """A verdict on a file that is flagged and should not be, or the reverse."""
    seconds = scan["duration_s"]
    if kind == FLAGGED and any(outcome.kind == READ for outcome in situation.right):
        return Verdict(REFUSED_WRONGLY, f"flagged {', '.join(scan['flags'])} ({seconds:.2f} s)", seconds)
    return Verdict(ACCEPTED_WRONGLY, f"accepted with flags {scan['flags']} ({seconds:.2f} s)", seconds)


def _says(outcome: Outcome, flags: list[str]) -> bool:
    return bool(re.search(outcome.says, " ".join(flags)))


def content_faults(outcome: Outcome, whole: np.ndarray, seconds: float) -> list[str]:
    """Differences in length, position, pitch and level.  `whole`: (samples,) float32 at CHECK_RATE."""
    low, high = outcome.seconds
    found = [] if low <= seconds <= high else [f"{seconds:.3f} s instead of {low:.3f} to {high:.3f} s"]
    if abs(len(whole) / CHECK_RATE - seconds) > 0.01:
        found.append(f"{len(whole) / CHECK_RATE:.3f} s are read, {seconds:.3f} s were scanned")
    if outcome.tune is not None:
        found += faults(whole, outcome.tune, lag_s=outcome.lag_s, level=outcome.level, purity=outcome.purity)
    return found


def title_faults(situation: Situation, tags: dict[str, str]) -> list[str]:
    title = tags.get("title")
    if situation.title is None or title == situation.title or (title is None and situation.title_may_be_absent):
        return []
    return [f"title {title!r} instead of {situation.title!r}"]


def read(pool: DecoderPool, path: Path, start_s: float, seconds: float, rate: int) -> np.ndarray:
    reply = pool.ask({"do": "read", "source": str(path), "start_s": start_s, "duration_s": seconds, "rate": rate})
    return reply["samples"]


def middle_faults(pool: DecoderPool, path: Path, scan: dict[str, Any]) -> list[str]:
    """Reads from the middle and at the end that differ from a slice of the decode from the start."""
    rate, seconds = scan["rate"], scan["duration_s"]
    whole = read(pool, path, 0.0, seconds, rate)
    found = []
    for start_s in (0.25, 0.37 * seconds, 0.71 * seconds, seconds - 0.6, seconds - SLICE_S):
        start_s = round(max(start_s, 0.0) * rate) / rate
        try:
            part = read(pool, path, start_s, SLICE_S, rate)
        except AudioError as error:
            found.append(f"read at {start_s:.2f} s: {error}")
            continue
        first = round(start_s * rate)
        expected = whole[first : first + round(SLICE_S * rate)]
        both = min(len(part), len(expected))
        difference = float(np.abs(part[:both] - expected[:both]).max(initial=0.0))
        if abs(len(part) - len(expected)) > 1:
            found.append(f"read at {start_s:.2f} s: {len(part)} samples instead of {len(expected)}")
        elif difference > SLICE_ERROR:
            found.append(f"read at {start_s:.2f} s differs from a slice by {difference:.3f}")
    return found


def ffmpeg_available() -> bool:
    return shutil.which("ffmpeg") is not None


def by_ffmpeg_binary(path: Path) -> tuple[np.ndarray, float]:
    """The mono mix by the `ffmpeg` program at CHECK_RATE, and its length in seconds; empty if it cannot decode the file."""
    quiet, target = ("-v", "quiet", "-nostdin"), ("-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-")
    command = ["ffmpeg", *quiet, "-i", f"file:{path}", *target]
    data = subprocess.run(command, capture_output=True, check=False, timeout=60).stdout
    at = data.find(b"fmt ")
    if at < 0:
        return np.zeros(0, np.float32), 0.0
    channels, rate = struct.unpack_from("<HI", data, at + 10)
    body = data[data.index(b"data", at) + 8 :]
    samples = np.frombuffer(body[: len(body) // (4 * channels) * 4 * channels], "<f4").reshape(-1, channels).mean(axis=1)
    if not len(samples):
        return np.zeros(0, np.float32), 0.0
    return resample(np.ascontiguousarray(samples, np.float32), rate, CHECK_RATE), len(samples) / rate


def ffmpeg_faults(situation: Situation, path: Path) -> list[str]:
    """Differences between what is right and ffmpeg's decode, which doubts the situation rather than ingest."""
    samples, seconds = by_ffmpeg_binary(path)
    heard = [outcome for outcome in situation.right if outcome.tune is not None]
    return min((content_faults(outcome, samples, seconds) for outcome in heard), key=len, default=[])
