"""Plain files of one to eight channels, and channels that cancel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from situations import FLAGGED, KINDS, Case, Outcome, Situation
from tunes import spread

CANCELLING = "cancel|phase"


def situations(seed: int) -> Iterator[Situation]:
    for kind in KINDS.values():
        for channels in kind.channels:
            yield _plain(Case(kind, f"{channels} channel{'s' * (channels > 1)}", seed), channels)
        yield _left_alone(Case(kind, "left side alone", seed))
        yield _cancelling(Case(kind, "channels that cancel", seed))


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
