"""Log something that may happen often: at once, then summed up, so that a long session is not flooded with sentences."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

QUIET_S = 60.0                           # between two sentences about the same thing

log = logging.getLogger(__name__)


class Tally:
    """The sum of what happened since it was last logged: at once, then at most every QUIET_S seconds."""

    def __init__(self, sentence: Callable[[float], str]) -> None:
        """`sentence`: text about the sum."""
        self._sentence, self._sum, self._said = sentence, 0.0, -math.inf

    def add(self, amount: float) -> None:
        """Add to the sum, and log it if that is due."""
        self._sum += amount
        if time.monotonic() - self._said >= QUIET_S:
            self.flush()

    def flush(self) -> None:
        """Log a sum that was not logged yet."""
        if self._sum:
            log.warning("%s", self._sentence(self._sum))
            self._sum, self._said = 0.0, time.monotonic()
