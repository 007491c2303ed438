"""Scan a file in one pass: its length and format, whether it can be ingested, and its peak in each second.

Rejected: a file that does not decode, has NaN samples, a peak above 4, less than one second, only silence, many bad packets,
long gaps, or far less audio than its header promises.  Lesser problems become flags of its clips.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tonelake.ingest.containers import decoders
from tonelake.ingest.decode import DECODE_VERSION, Opened, opened
from tonelake.ingest.errors import AudioError
from tonelake.ingest.ogg_pages import ogg_links
from tonelake.ingest.readers import DecoderError

MIN_SECONDS = 1.0
SILENCE = 1e-4                           # a peak below this, -80 dB of full scale, is silence
MAX_PEAK = 4.0                           # audio is meant to stay below 1; above 4 the decoder has failed
MIN_DECODED = 0.9                        # of the promised duration; below it the file is rejected
CHANNELS_CANCEL = "channels cancel"
CANCELLED_SHARE = 0.5                    # of the seconds of a file, above which it is flagged
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
    cancelled: list[int] = field(default_factory=list)   # seconds whose channels cancel, so that the louder one was taken

    def cancels(self, start_s: float, duration_s: float) -> bool:
        """Whether the channels cancel in a second that a span touches."""
        return any(start_s - 1 < second < start_s + duration_s for second in self.cancelled)

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
    for decoder in range(len(decoders(path))):
        with suppress(DecoderError), opened(path, 0.0, decoder) as audio:
            return audio.promised_s
    return None


def clip_id(digest: str, start_s: float, duration_s: float) -> str:
    """Identity of a span of a source: 20 hex digits, a hash of content, start, length and decode version.

    >>> clip_id("ab" * 16, 0.0, 30.0) == clip_id("ab" * 16, 0.0, 30.0000001)
    True
    """
    text = f"{digest} {round(start_s * 1e6)} {round(duration_s * 1e6)} {DECODE_VERSION}"
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def scan_file(path: Path, skip: int = 0, shortest_s: float = MIN_SECONDS) -> Scan:
    """Decode a whole file once, without the first `skip` of its decoders.  A file shorter than `shortest_s` is rejected.

    Raises AudioError, with the reason, if it is rejected.
    """
    failure: AudioError | None = None
    for decoder in range(skip, len(decoders(path))):
        try:
            with opened(path, 0.0, decoder) as audio:
                samples, peaks = _measure(audio, path)
        except DecoderError as error:
            failure = failure or error
            continue
        duration_s = samples / audio.rate
        flags = _check(path.name, audio, duration_s, peaks, shortest_s)
        links = ogg_links(path)
        if links and not links[-1].ended and "truncated" not in flags:
            flags.append("truncated")    # Ogg pages do not state the full length
        return Scan(
            digest=file_digest(path), duration_s=duration_s, rate=audio.rate, channels=audio.channels, flags=flags, peaks=peaks,
            cancelled=sorted(set(audio.mix.cancelled)),
        )
    raise failure or AudioError(f"{path.name}: is not audio that can be read")


def _measure(audio: Opened, path: Path) -> tuple[int, list[float]]:
    """Number of samples, and the peak of each second, holding no more than one block in memory."""
    peaks: list[float] = []
    total = 0
    for block in audio.blocks():
        mono = np.abs(block)
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


def _check(name: str, audio: Opened, duration_s: float, peaks: list[float], shortest_s: float) -> list[str]:
    """Flags of a file by the policy above.  Raises AudioError if it is rejected."""
    if not peaks:
        raise AudioError(f"{name}: holds no audio frames")
    peak = max(peaks)
    if peak > MAX_PEAK:
        raise AudioError(f"{name}: decodes to a peak of {peak:.2f}, full scale is 1: the file is damaged")
    if duration_s < shortest_s:
        raise AudioError(f"{name}: is {duration_s:.2f} s long, clips need at least {shortest_s:g} s")
    if peak < SILENCE:
        raise AudioError(f"{name}: is silent throughout ({duration_s:.0f} s, peak {peak:.1e})")
    promised = audio.promised_s
    if not promised and audio.reader.here < 1:
        promised = duration_s / max(audio.reader.here, 1e-3)
    if promised and duration_s < MIN_DECODED * promised:
        raise AudioError(f"{name}: decodes to {duration_s:.1f} s of {promised:.1f} s promised: the file is truncated")
    reader = audio.reader
    if reader.gap_s > 0.02 * duration_s:
        raise AudioError(f"{name}: {reader.gap_s:.1f} s of {duration_s:.1f} s are missing inside: the file is damaged")
    if reader.bad_packets > 2:
        raise AudioError(f"{name}: {reader.bad_packets} packets do not decode: the file is damaged")
    flags = []
    if promised and duration_s < FLAG_DECODED * promised:
        flags.append("truncated")
    elif promised and reader.exact and round((promised - duration_s) * audio.rate) > 0:
        flags.append("damaged")          # libsndfile drops pages silently, so that later samples come too early
    stopped = reader.stopped and not (promised and duration_s >= FLAG_DECODED * promised)
    if (reader.bad_packets or reader.gap_s or stopped) and "damaged" not in flags:
        flags.append("damaged")
    if reader.extra:
        flags.append("extra data")
    if len(set(audio.mix.cancelled)) > CANCELLED_SHARE * len(peaks):
        flags.append(CHANNELS_CANCEL)
    return flags
