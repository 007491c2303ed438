"""Continue many sequences of gestures from one oracle, as a live session does: it is read and built once.

    continuer = Continuer(lake, want=["consonance >= 0.6"])
    path = continuer.path([12, 7, 7], steps=4, previous_s=0.5)       # a table: one row an event of the answer
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tonelake.index.tokens.joined import read_joined_gestures
from tonelake.index.tokens.passages import allowed_runs
from tonelake.index.tokens.requested_path import request_of, requested_path
from tonelake.index.tokens.requests import check_steps, parse_condition
from tonelake.store import InputError, Lake

LONGEST_WORD = 64                        # tokens of a sequence that are compared: more context does not change the choice
HEARD = ("pitch", "loudness", "consonance", "ioi_s")                 # features of an event that the path has


class Continuer:
    """Answers to sequences, made of the gestures of the lake's clips (`compute_gestures`).

    `where`: only these clips.  `want` and `prefer`: conditions on each event, as of `continuation`.  `least` and `jump`: tokens
    that two places must share before a path may jump between them, and the probability that it does.
    Raises InputError for conditions that cannot be read, and if no clip that may be used has gestures.
    """

    def __init__(
        self, lake: Lake, name: str | None = None, *, want: Sequence[str] = (), prefer: Sequence[str] = (), least: int = 2,
        jump: float = 0.3, space: str | None = None, where: str | None = None, seed: int = 0,
    ) -> None:
        if least < 1 or not 0 <= jump <= 1:
            raise InputError(f"{least} tokens of context, probability {jump:g}: must be 1 or more, and 0 to 1")
        wanted = [parse_condition(text) for text in want]
        preferred = [parse_condition(text, weighted=True) for text in prefer]
        self.joined = read_joined_gestures(lake, name, space=space, where=where)
        self._least, self._jump = least, jump
        self._request = request_of(lake, self.joined, wanted, preferred)
        self._allowed = allowed_runs(lake, self.joined, where, [], False)
        self._rng = np.random.default_rng(seed)
        assert self.joined.features is not None
        self._features = self.joined.features.filter(self.joined.numbers >= 0).select("clip_id", "start_s", *HEARD)
        self._titles = lake.clips.take(self.joined.sequences.ids, ["title", "artist"])

    @property
    def counts(self) -> tuple[int, int]:
        """The number of gestures that may answer, and of their clips."""
        return int(self._allowed.sum()), len(np.unique(self.joined.clip[self._allowed]))

    def check_steps(self, steps: int) -> None:
        """Raise InputError for a condition on steps that an answer of `steps` events does not have."""
        check_steps((*self._request.want, *self._request.prefer), steps)

    def path(self, word: Sequence[int], *, steps: int = 4, previous_s: float = float("nan")) -> pl.DataFrame:
        """Return an answer to a sequence of tokens: `steps` events, with the columns of `continuation` and those of HEARD.

        `previous_s`: the last inter-onset interval of the sequence, to which a condition on `ratio` compares the first event.
        Conditions are relaxed in the order of `tokens.requests`, so there is always an answer.
        """
        if steps < 1:
            raise InputError(f"{steps} steps: must be 1 or more")
        path = requested_path(
            self.joined, self._allowed, [int(one) for one in word][-LONGEST_WORD:], self._request, token=None, steps=steps,
            least=self._least, jump=self._jump, previous_s=previous_s, rng=self._rng,
        )
        path = path.join(self._titles, on="clip_id", how="left", maintain_order="left")
        return path.join(self._features, on=["clip_id", "start_s"], how="left", maintain_order="left")
