"""Plain files of one to eight channels, and channels that cancel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from coded_files import by_sndfile
from situations import FLAGGED, KINDS, REFUSED, Case, Outcome, Situation
from tunes import spread

CANCELLING = "cancel|phase"


def situations(seed: int) -> Iterator[Situation]:
    for kind in KINDS.values():
        for channels in kind.channels:
            yield _plain(Case(kind, f"{channels} channel{'s' * (channels > 1)}", seed), channels)
        yield _left_alone(Case(kind, "left side alone", seed))
        yield _cancelling(Case(kind, "channels that cancel", seed))
    yield from _odd_counts(seed)


def _odd_counts(seed: int) -> Iterator[Situation]:
    for name in ("wav", "aiff", "flac", "ogg vorbis", "opus", "m4a aac", "caf", "w64"):
        for channels in (3, 4, 5, 7):
            if name == "m4a aac" and channels == 7:
                continue                 # FFmpeg's encoder has no such layout
            case = Case(KINDS[name], f"{channels} channels", seed)
            if name == "opus":
                yield case.situation(lambda case=case, channels=channels: _opus(case, channels))
            else:
                yield _plain(case, channels)
    for name in ("wav", "aiff", "w64"):
        for channels in (12, 64):
            case = Case(KINDS[name], f"{channels} channels", seed)
            yield case.situation(lambda case=case, channels=channels: case.encode(channels=channels),
                                 Outcome(kind=REFUSED, says=str(channels)), ffmpeg=False)


def _opus(case: Case, channels: int) -> bytes:
    return by_sndfile(spread(case.tune, case.rate, channels), case.rate, "OGG", "OPUS")


def _plain(case: Case, channels: int) -> Situation:
    return case.situation(lambda: case.encode(channels=channels))


def _left_alone(case: Case) -> Situation:
    def data() -> bytes:
        both = spread(case.tune.louder(2), case.rate, 2)
        both[:, 0], both[:, 1] = case.tune.louder(2).samples(case.rate), 0.0
        return case.kind.encode(both, case.rate)

    return case.situation(data)


def _cancelling(case: Case) -> Situation:
    """The right side is the left one with its sign changed: their mean is silent, each alone is not."""
    def data() -> bytes:
        left = case.tune.samples(case.rate)
        return case.kind.encode(np.stack([left, -left], axis=1), case.rate)

    right: Outcome = case.outcome(FLAGGED, says=CANCELLING)
    return case.situation(data, right, ffmpeg=False)
