"""Answer a performer: gestures of a live session -> continuations in sounds of the lake, made by a thread of their own.

    duet = Duet(Continuer(lake, want=["consonance >= 0.6"]), outputs.send, every=4)
    duet.hear(at_s, rows, time_s, tokens)            # whatever the live encoder completed
    duet.close()

An answer is asked for after every `every` gestures, or, with `pause_s`, when the performer pauses.  The encoder never waits for
an answer: where they are asked for faster than they are made, the oldest questions are dropped, and the log says how many.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from queue import Empty, Full, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tonelake.live_outputs import Answer, LiveEvent, text_of
from tonelake.store import InputError
from tonelake.tally import Tally

if TYPE_CHECKING:
    import polars as pl

    from tonelake.index import Continuer

QUESTIONS = 2                            # that may wait
WORD = 64                                # tokens of what was played that an answer continues
QUIET_DB = 25.0                          # below the loudest piece since the last pause: silence, whatever the gain
LEVEL_S = 0.05                           # seconds over which a level is measured
FLOOR_DB = -60.0                         # below it, sound is silence
UNFINISHED = 1_200                       # frames of the gesture that has not ended: 16 s at 75 frames a second
SAID_S = 60.0                            # between two sentences about a condition that was relaxed

log = logging.getLogger(__name__)


class Question(NamedTuple):
    """The playing up to a time, which an answer continues."""

    at_s: float                          # seconds of the stream
    word: list[int]                      # tokens of gestures
    previous_s: float                    # the last inter-onset interval; NaN if unknown


class PauseFinder:
    """Find the pauses of a stream: `pause_s` seconds that are QUIET_DB below the loudest piece before them."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._loudest_db = -math.inf     # since the last pause
        self._quiet_s = 0.0

    def hear(self, samples: np.ndarray, rate: int) -> bool:
        """Take a piece, (samples,) or (samples, channel); return whether a pause became long enough in it."""
        step = max(1, round(LEVEL_S * rate))
        found = [self._hear(samples[i : i + step], rate) for i in range(0, len(samples), step)]      # all of them
        return any(found)

    def _hear(self, samples: np.ndarray, rate: int) -> bool:
        rms = float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
        level = 20 * math.log10(rms) if rms > 0 else -math.inf
        if level > FLOOR_DB and level > self._loudest_db - QUIET_DB:
            self._loudest_db, self._quiet_s = max(level, self._loudest_db), 0.0
            return False
        self._quiet_s += len(samples) / rate
        if self._loudest_db == -math.inf or self._quiet_s < self._pause_s:
            return False                 # nothing was played, or the pause is still short
        self._loudest_db = -math.inf
        return True


class Duet:
    """Asks for answers, and passes each on as an event `continue`.

    `send` is called by the thread that makes the answers.  `every`: gestures for each answer; `pause_s`: answer only when
    the performer pauses for as long.  `steps`: events of an answer.  `wait`: wait for each answer, where sound does
    not come in real time.  Raises InputError for numbers out of range.
    """

    def __init__(
        self, continuer: Continuer, send: Callable[[LiveEvent], None], *, every: int = 1, pause_s: float | None = None,
        steps: int = 4, wait: bool = False, vocabulary: str | None = None,
    ) -> None:
        if every < 1 or steps < 1 or (pause_s is not None and pause_s <= 0):
            pause = "" if pause_s is None else f", a pause of {pause_s:g} s"
            raise InputError(
                f"answers of {steps} events every {every} gestures{pause}: each must be positive. Give larger numbers"
            )
        self._continuer, self._send, self._steps, self._every, self._wait = continuer, send, steps, every, wait
        self._vocabulary = vocabulary
        self._pauses = PauseFinder(pause_s) if pause_s is not None else None
        self._word: deque[int] = deque(maxlen=WORD)
        self._unfinished: deque[tuple[float, int]] = deque(maxlen=UNFINISHED)
        self._previous_s = math.nan
        self._new = 0                    # gestures since the last question
        self._paused = False
        self._questions: Queue[Question | None] = Queue(maxsize=QUESTIONS)
        self._dropped = Tally(
            lambda n: f"duet: {n:.0f} answers left out, since gestures come faster than answers are made. Use a larger --every"
        )
        self._relaxed: Counter[str] = Counter()
        self._said: dict[str, float] = {}
        self._thread = Thread(target=self._answer, name="duet", daemon=True)
        self._thread.start()

    def listen(self, samples: np.ndarray, rate: int) -> None:
        """Take a piece of the sound, to find pauses."""
        if self._pauses is not None and self._pauses.hear(samples, rate):
            self._paused = True

    def hear(self, at_s: float, gestures: Sequence[dict[str, Any]], time_s: np.ndarray, tokens: np.ndarray) -> None:
        """Take the gestures and the frames that the live encoder completed up to `at_s`, and ask for an answer if it is due."""
        self._unfinished.extend(zip(time_s.tolist(), tokens.tolist(), strict=True))
        for row in gestures:
            if row["token"] is not None:
                self._word.append(row["token"])
                self._new += 1
            if row["ioi_s"] is not None:
                self._previous_s = row["ioi_s"]
            while self._unfinished and self._unfinished[0][0] < row["end_s"]:
                self._unfinished.popleft()
        if self._pauses is None:
            if self._new >= self._every:
                self._ask(at_s, list(self._word))
        elif self._paused:
            self._paused = False
            last = [token for _, token in self._unfinished]          # of the gesture that ends with the pause
            self._ask(at_s, [*self._word, *([Counter(last).most_common(1)[0][0]] if last else [])])

    def close(self) -> None:
        """End the thread, after the answer that it is making."""
        self._questions.put(None)
        self._thread.join()
        self._dropped.flush()
        for text, count in self._relaxed.items():
            log.info("duet: in total, %d events did not meet %r", count, text)

    def _ask(self, at_s: float, word: list[int]) -> None:
        if word:
            self._new = 0
            self._put(Question(at_s, word, self._previous_s))

    def _put(self, question: Question) -> None:
        """Add a question; drop the oldest if the queue is full."""
        while True:
            try:
                self._questions.put_nowait(question)
                break
            except Full:
                try:
                    self._questions.get_nowait()
                    self._questions.task_done()
                    self._dropped.add(1)
                except Empty:
                    continue
        if self._wait:
            self._questions.join()

    def _answer(self) -> None:
        """Make the answers, one after another."""
        failed = ""
        while True:
            question = self._questions.get()
            try:
                if question is None:
                    return
                path = self._continuer.path(question.word, steps=self._steps, previous_s=question.previous_s)
                self._send(LiveEvent("continue", question.at_s, Answer(path), self._vocabulary))
                self._note_relaxed(path)
            except Exception as error:   # the session must not end with an answer
                if text_of(error) != failed:
                    failed = text_of(error)
                    log.warning("duet: no answer (%s). The session continues", failed)
            finally:
                self._questions.task_done()

    def _note_relaxed(self, path: pl.DataFrame) -> None:
        """Log each condition that an answer relaxed, the first time and then at most every SAID_S seconds."""
        counts = Counter(text for texts in path["relaxed"].to_list() for text in texts)
        self._relaxed.update(counts)
        now = time.monotonic()
        for text, count in counts.items():
            if now - self._said.get(text, -math.inf) >= SAID_S:
                self._said[text] = now
                log.warning("duet: %d of %d events of this answer do not meet %r, so it was relaxed", count, len(path), text)
