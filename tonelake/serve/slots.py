"""Limits of what is computed at once, by all interfaces together: of answers, since more at once would only take longer, and of
sounds, whose files may have to be downloaded or decoded first and which therefore never hold up answers.

Requests wait without a thread, and those whose client left meanwhile are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import anyio
from anyio.lowlevel import RunVar
from starlette.requests import Request

from tonelake.store import cores

LEFT = 499                               # status of an answer that no client waits for
SOUNDS = 16                              # at once; further streams begin once these have begun

Result = TypeVar("Result")


class Slots(NamedTuple):
    """The limits of an event loop."""

    answers: anyio.CapacityLimiter
    sounds: anyio.CapacityLimiter
    threads: anyio.CapacityLimiter       # apart from those that send streams


_slots: RunVar[Slots] = RunVar("_slots")


async def in_slot(request: Request, compute: Callable[[], Result], *, sound: bool = False) -> Result | None:
    """Return what `compute` returns in a thread, once a slot is free; None if the client has left."""
    own = slots()
    async with own.sounds if sound else own.answers:
        return None if await request.is_disconnected() else await anyio.to_thread.run_sync(compute, limiter=own.threads)


def slots() -> Slots:
    """Return the limits of the running event loop."""
    try:
        return _slots.get()
    except LookupError:
        most = max(4, 2 * cores())
        made = Slots(*map(anyio.CapacityLimiter, (most, SOUNDS, most + SOUNDS)))
        _slots.set(made)
        return made
