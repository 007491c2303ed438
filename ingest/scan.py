"""Scan a file in one pass: its length and format, whether it can be ingested, and its peak in each second.

Rejected: a file that does not decode, has NaN samples, a peak above 4, less than one second, only silence, many bad packets,
long gaps, or far less audio than its header promises.  Lesser problems become flags of its clips.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tonelake.ingest.containers import ogg_lacks_end
from tonelake.ingest.decode import DECODE_VERSION, Blocks, opened, to_mono
from tonelake.ingest.errors import AudioError

MIN_SECONDS = 1.0
SILENCE = 1e-4                           # a peak below this, -80 dB of full scale, is silence
MAX_PEAK = 4.0                           # audio is meant to stay below 1; above 4 the decoder has failed
MIN_DECODED = 0.9                        # of the promised duration; below it the file is rejected
FLAG_DECODED = 0.99                      # below it its clips are flagged


@dataclass(kw_only=True)
class Scan:
    """Result of scanning one file."""

    digest: str                          # blake2b of the file's bytes
    duration_s: float
    rate: int                            # Hz
    channels: int
    flags: list[str] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)     # peak of the mono mix in each second

    def to_dict(self) -> dict:
        return asdict(self)


def file_digest(path: Path) -> str:
    """blake2b of the bytes, 32 hex digits.  Raises AudioError if they cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise AudioError(f"{path.name}: cannot be read: {error.strerror or error}") from error


def promised_length(path: Path) -> float | None:
    """Length in seconds by a file's header, without decoding it; None if the header has none.  Raises AudioError."""
    with opened(path) as audio:
        return audio.promised_s


def clip_id(digest: str, start_s: float, duration_s: float) -> str:
    """Identity of a span of a source: 20 hex digits, a hash of content, start, length and decode version.

    >>> clip_id("ab" * 16, 0.0, 30.0) == clip_id("ab" * 16, 0.0, 30.0000001)
    True
    """
    text = f"{digest} {round(start_s * 1e6)} {round(duration_s * 1e6)} {DECODE_VERSION}"
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def scan_file(path: Path) -> Scan:
    """Decode a whole file once.  Raises AudioError, with the reason, if it is rejected."""
    with opened(path) as audio:
        samples, peaks = _measure(audio, path)
    duration_s = samples / audio.rate
    flags = _check(path.name, audio, duration_s, peaks)
    if ogg_lacks_end(path) and "truncated" not in flags:
        flags.append("truncated")        # Ogg pages do not state the full length
    return Scan(
        digest=file_digest(path), duration_s=duration_s, rate=audio.rate, channels=audio.channels, flags=flags, peaks=peaks
    )


def _measure(audio: Blocks, path: Path) -> tuple[int, list[float]]:
    """Number of samples, and the peak of each second, holding no more than one block in memory."""
    peaks: list[float] = []
    total = 0
    for block in audio.blocks:
        mono = np.abs(to_mono(block))
        finite = np.isfinite(mono)
        if not finite.all():
            raise AudioError(f"{path.name}: {int((~finite).sum())} samples near {total / audio.rate:.1f} s are NaN or infinite")
        edges = np.arange(-(total % audio.rate), len(mono), audio.rate)
        for edge, peak in zip(edges, np.maximum.reduceat(mono, np.maximum(edges, 0)), strict=True):
            if edge < 0 and peaks:
                peaks[-1] = max(peaks[-1], float(peak))
            else:
                peaks.append(float(peak))
        total += len(mono)
    return total, peaks


def _check(name: str, audio: Blocks, duration_s: float, peaks: list[float]) -> list[str]:
    """Flags of a file by the policy above.  Raises AudioError if it is rejected."""
    if not peaks:
        raise AudioError(f"{name}: holds no audio frames")
    peak = max(peaks)
    if peak > MAX_PEAK:
        raise AudioError(f"{name}: decodes to a peak of {peak:.2f}, full scale is 1: the file is damaged")
    if duration_s < MIN_SECONDS:
        raise AudioError(f"{name}: is {duration_s:.2f} s long, clips need at least {MIN_SECONDS:.0f} s")
    if peak < SILENCE:
        raise AudioError(f"{name}: is silent throughout ({duration_s:.0f} s, peak {peak:.1e})")
    promised = audio.promised_s
    if promised and duration_s < MIN_DECODED * promised:
        raise AudioError(f"{name}: decodes to {duration_s:.1f} s of {promised:.1f} s promised: the file is truncated")
    if audio.gap_s > 0.02 * duration_s:
        raise AudioError(f"{name}: {audio.gap_s:.1f} s of {duration_s:.1f} s are missing inside: the file is damaged")
    if audio.bad_packets > 2:
        raise AudioError(f"{name}: {audio.bad_packets} packets do not decode: the file is damaged")
    flags = []
    if promised and duration_s < FLAG_DECODED * promised:
        flags.append("truncated")
    elif promised and audio.exact and round((promised - duration_s) * audio.rate) > 0:
        flags.append("damaged")          # libsndfile drops pages silently, so that later samples come too early
    if audio.bad_packets or audio.gap_s:
        flags.append("damaged")
    return flags
