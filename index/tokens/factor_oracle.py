"""A factor oracle over a sequence of integers: find repeated passages, and states with a common context.

State i represents the first i numbers.  Each state has a transition to the next one and forward transitions for what follows
elsewhere (Allauzen, Crochemore and Raffinot 1999); every factor of the sequence can be read along them from state 0.  Its
suffix link leads to the state where its longest repeated suffix first ended, and `repeated` is that suffix's length: exact,
from a suffix automaton built alongside (Blumer et al. 1985), where the oracle's own bookkeeping gives lower bounds.  vmo, the
usual Python library, is GPL-3 and cannot be a dependency.

    sequence   a b c a b d
    repeated 0 0 0 0 1 2 0
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np


class FactorOracle:
    """A factor oracle; building takes about 3 microseconds and 1 KB per number."""

    def __init__(self, sequence: Sequence[int] | np.ndarray) -> None:
        self.sequence = np.asarray(sequence, np.int64)
        count = len(self.sequence)
        self.forward: list[dict[int, int]] = [{} for _ in range(count + 1)]
        self.link = np.full(count + 1, -1, np.int64)                 # state where the longest repeated suffix first ended
        self.repeated = np.zeros(count + 1, np.int64)                # its length
        self._build(self.sequence.tolist())

    def _build(self, sequence: list[int]) -> None:
        own = [-1] * (len(sequence) + 1)                             # the oracle's own links, which determine its transitions
        # The automaton: transitions, link, longest length and first end of each state.
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

    def accepts(self, word: Sequence[int]) -> bool:
        """Return whether a word can be read from state 0: true for every factor, and for few other words."""
        state = 0
        for number in word:
            if number not in self.forward[state]:
                return False
            state = self.forward[state][number]
        return True

    def repeats(self, least: int) -> list[tuple[int, int, int]]:
        """Return (end, earlier end, length) of maximal passages of at least `least` numbers that occurred before.

        A passage that the next number extends at the same distance is dropped in favour of the longer one.
        """
        ends = np.flatnonzero(self.repeated >= least)
        extended = np.zeros(len(self.repeated) + 1, bool)
        extended[:-2] = (self.repeated[1:] == self.repeated[:-1] + 1) & (self.link[1:] == self.link[:-1] + 1)
        return [(int(i), int(self.link[i]), int(self.repeated[i])) for i in ends if not extended[i]]

    def contexts(self, word: Sequence[int]) -> np.ndarray:
        """Return (state,) how many of the word's last numbers end in each state: the length of their common context."""
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
        """The states whose suffix link leads to each state."""
        found: dict[int, list[int]] = {}
        for state, target in enumerate(self.link.tolist()):
            if target > 0:
                found.setdefault(target, []).append(state)
        return found

    def similar_states(self, state: int, least: int, most: int = 64) -> list[tuple[int, int]]:
        """Return at most `most` (state, context) with at least `least` preceding numbers in common, found along links."""
        found: dict[int, int] = {}
        waiting = [(state, len(self.sequence) + 1)]
        while waiting and len(found) < most:
            at, shared = waiting.pop(0)
            linked = [(one, int(self.repeated[one])) for one in self._linked.get(at, ())]
            if self.link[at] > 0:
                linked.append((int(self.link[at]), int(self.repeated[at])))
            for other, length in linked:
                context = min(shared, length)
                if other != state and other not in found and context >= least:
                    found[other] = context
                    waiting.append((other, context))
        return sorted(found.items(), key=lambda one: (-one[1], one[0]))
