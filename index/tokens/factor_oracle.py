"""A factor oracle over a sequence of whole numbers: what comes again, and where else one could go on from here.

State i stands for the first i numbers.  Each has the transition to the next and, for what may follow elsewhere, forward ones
(Allauzen, Crochemore and Raffinot 1999); every factor of the sequence can be read along them from state 0.  Its suffix link
leads to where its longest suffix that occurred before ended first, and `repeated` is that suffix's length: exact, found by the
suffix automaton that is built along (Blumer et al. 1985), where the oracle's own bookkeeping gives lower bounds.

    sequence   a b c a b d
    repeated 0 0 0 0 1 2 0
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np


class FactorOracle:
    """Built once; about 3 microseconds and 1 KB a number."""

    def __init__(self, sequence: Sequence[int] | np.ndarray) -> None:
        self.sequence = np.asarray(sequence, np.int64)
        count = len(self.sequence)
        self.forward: list[dict[int, int]] = [{} for _ in range(count + 1)]
        self.link = np.full(count + 1, -1, np.int64)                 # where the longest repeated suffix ended first
        self.repeated = np.zeros(count + 1, np.int64)                # its length
        self._build(self.sequence.tolist())

    def _build(self, sequence: list[int]) -> None:
        own = [-1] * (len(sequence) + 1)                             # the oracle's own links, which place its transitions
        # The automaton: transitions, link, longest length and first end of each of its states.
        follow: list[dict[int, int]] = [{}]
        up, length, end = [-1], [0], [0]
        last = 0
        for i, number in enumerate(sequence):
            self.forward[i][number] = i + 1
            k = own[i]
            while k > -1 and number not in self.forward[k]:
                self.forward[k][number] = i + 1
                k = own[k]
            own[i + 1] = 0 if k == -1 else self.forward[k][number]

            new = len(length)
            follow.append({})
            up.append(0)
            length.append(length[last] + 1)
            end.append(i + 1)
            p = last
            while p != -1 and number not in follow[p]:
                follow[p][number] = new
                p = up[p]
            if p != -1:
                q = follow[p][number]
                if length[q] != length[p] + 1:
                    clone = len(length)
                    follow.append(dict(follow[q]))
                    up.append(up[q])
                    length.append(length[p] + 1)
                    end.append(end[q])
                    while p != -1 and follow[p].get(number) == q:
                        follow[p][number] = clone
                        p = up[p]
                    up[q] = clone
                    q = clone
                up[new] = q
            self.link[i + 1], self.repeated[i + 1] = end[up[new]], length[up[new]]
            last = new

    def __len__(self) -> int:
        return len(self.sequence)

    def reads(self, word: Sequence[int]) -> bool:
        """Whether a word can be read from the start: true of every factor, and of few other words."""
        state = 0
        for number in word:
            if number not in self.forward[state]:
                return False
            state = self.forward[state][number]
        return True

    def repeats(self, least: int) -> list[tuple[int, int, int]]:
        """(end, earlier end, length) of passages of at least so many numbers that came before, the longest of each kind.

        One that the next number carries on at the same distance is not told apart from it.
        """
        ends = np.flatnonzero(self.repeated >= least)
        carried = np.zeros(len(self.repeated) + 1, bool)
        carried[:-2] = (self.repeated[1:] == self.repeated[:-1] + 1) & (self.link[1:] == self.link[:-1] + 1)
        return [(int(i), int(self.link[i]), int(self.repeated[i])) for i in ends if not carried[i]]

    def contexts(self, word: Sequence[int]) -> np.ndarray:
        """(state,) how many of the word's last numbers end in each state: the length of the context that they share."""
        found = np.zeros(len(self.sequence) + 1, np.int64)
        alive = np.arange(1, len(self.sequence) + 1)
        for back, number in enumerate(reversed(list(word))):
            alive = alive[alive > back]
            alive = alive[self.sequence[alive - 1 - back] == number]
            if not len(alive):
                break
            found[alive] = back + 1
        return found

    @cached_property
    def _linked(self) -> dict[int, list[int]]:
        """The states whose link leads to each."""
        found: dict[int, list[int]] = {}
        for state, target in enumerate(self.link.tolist()):
            if target > 0:
                found.setdefault(target, []).append(state)
        return found

    def alike(self, state: int, least: int, most: int = 64) -> list[tuple[int, int]]:
        """(state, context) of others that share at least so many of the numbers before: reached along links, at most `most`."""
        found: dict[int, int] = {}
        waiting = [(state, len(self.sequence) + 1)]
        while waiting and len(found) < most:
            at, shared = waiting.pop(0)
            near = [(one, int(self.repeated[one])) for one in self._linked.get(at, ())]
            if self.link[at] > 0:
                near.append((int(self.link[at]), int(self.repeated[at])))
            for other, length in near:
                context = min(shared, length)
                if other != state and other not in found and context >= least:
                    found[other] = context
                    waiting.append((other, context))
        return sorted(found.items(), key=lambda one: (-one[1], one[0]))
