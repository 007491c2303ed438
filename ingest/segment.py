"""Cut a recording into clips: the whole of it, or a span of `seconds` every `hop` seconds."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tonelake.ingest.scan import MIN_SECONDS, SILENCE
from tonelake.store import InputError

MAX_WHOLE_S = 3600.0                     # a clip is decoded into memory at once: an hour is 346 MB at 24 kHz
MIN_TAIL_S = 5.0                         # a remainder of at least this length becomes a clip
NAME = re.compile(r"([\d.e+-]+)s(?:/([\d.e+-]+)s)?(?: x (\d+))?")          # of a rule, as `str` writes it


@dataclass(frozen=True)
class Cut:
    """A rule for cutting.  `seconds` None: one clip for each file."""

    seconds: float | None = 30.0
    hop_s: float | None = None           # from one start to the next; None: `seconds`, no overlap
    per_track: int | None = None         # at most as many clips of a recording, evenly spread; None: all

    def __post_init__(self) -> None:
        if self.per_track is not None and self.per_track < 1:
            raise InputError(f"--per-track {self.per_track}: must be at least 1")
        if self.seconds is None:
            if self.hop_s is not None or self.per_track is not None:
                option = "--per-track" if self.hop_s is None else "--hop"
                raise InputError(f"{option}: has no meaning for whole files. Use it with --seconds")
            return
        if not MIN_SECONDS <= self.seconds <= MAX_WHOLE_S:
            raise InputError(f"clips of {self.seconds:g} s: not supported. Choose {MIN_SECONDS:g} to {MAX_WHOLE_S:g} seconds")
        if self.hop_s is not None and not 0.1 <= self.hop_s <= MAX_WHOLE_S:
            raise InputError(f"a hop of {self.hop_s:g} s: not supported. Choose 0.1 to {MAX_WHOLE_S:g} seconds")

    def __str__(self) -> str:
        if self.seconds is None:
            return "whole"
        name = f"{self.seconds:g}s" + (f"/{self.hop_s:g}s" if self.hop_s not in (None, self.seconds) else "")
        return name + (f" x {self.per_track}" if self.per_track is not None else "")

    @classmethod
    def named(cls, name: str) -> Cut | None:
        """The rule that `str` writes as `name`; None for spans that no rule made, such as those of a manifest.

        >>> [Cut.named(name) for name in ("whole", "30s/15s x 2", "manifest")]
        [Cut(seconds=None, hop_s=None, per_track=None), Cut(seconds=30.0, hop_s=15.0, per_track=2), None]
        """
        if name == "whole":
            return cls(None)
        found = NAME.fullmatch(name)
        if found is None:
            return None
        seconds, hop_s, per_track = found.groups()
        return cls(float(seconds), float(hop_s) if hop_s else None, int(per_track) if per_track else None)

    def complete(self) -> Cut:
        """The rule without the limit on clips of a recording."""
        return replace(self, per_track=None)

    def spans(self, duration_s: float) -> list[tuple[float, float]]:
        """(start, length) in seconds of the clips of a recording.

        A recording shorter than `seconds` is one clip.  Audio that no full clip covers becomes a shorter last clip
        if it is at least 5 s or half a clip long.  With a hop above `seconds`, the audio between clips is in none of them.

        >>> Cut(30.0).spans(70.0)
        [(0.0, 30.0), (30.0, 30.0), (60.0, 10.0)]
        >>> Cut(10.0, 5.0).spans(21.0)
        [(0.0, 10.0), (5.0, 10.0), (10.0, 10.0)]
        >>> Cut(10.0, 20.0).spans(57.0)
        [(0.0, 10.0), (20.0, 10.0), (40.0, 10.0)]
        >>> Cut(10.0, per_track=2).spans(57.0)
        [(10.0, 10.0), (40.0, 10.0)]
        """
        if self.per_track is not None:
            spans = self.complete().spans(duration_s)
            count = min(self.per_track, len(spans))
            return [spans[(2 * i + 1) * len(spans) // (2 * count)] for i in range(count)]
        if self.seconds is None:
            return [(0.0, duration_s)]
        if duration_s <= self.seconds:
            return [(0.0, duration_s)]
        hop_s = self.hop_s or self.seconds
        count = int((duration_s - self.seconds) / hop_s + 1e-9) + 1
        spans = [(i * hop_s, self.seconds) for i in range(count)]
        uncovered_s = duration_s - max(count * hop_s, spans[-1][0] + self.seconds)
        if uncovered_s >= max(MIN_SECONDS, min(MIN_TAIL_S, self.seconds / 2)):
            spans.append((count * hop_s, duration_s - count * hop_s))
        return spans


DEFAULT_CUT = Cut()


def is_silent(peaks: list[float], start_s: float, duration_s: float) -> bool:
    """Whether a span is silent, judged by the peak of each second of the file."""
    inside = peaks[int(start_s) : max(int(start_s) + 1, int(-(-(start_s + duration_s) // 1)))]
    return not inside or max(inside) < SILENCE
