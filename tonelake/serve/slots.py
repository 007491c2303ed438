"""A limit of the answers that are computed at once, by all interfaces together.  More at once would only take longer.

Requests wait without a thread, and those whose client left meanwhile are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
from anyio.lowlevel import RunVar
from starlette.requests import Request

from tonelake.store import cores

LEFT = 499                               # status of an answer that no client waits for

Result = TypeVar("Result")
_slots: RunVar[anyio.CapacityLimiter] = RunVar("_slots")


async def in_slot(request: Request, compute: Callable[[], Result]) -> Result | None:
    """Return what `compute` returns in a thread, once a slot is free; None if the client has left."""
    async with slots():
        return None if await request.is_disconnected() else await anyio.to_thread.run_sync(compute)


def slots() -> anyio.CapacityLimiter:
    """Return the limit of the running event loop."""
    try:
        return _slots.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(max(4, 2 * cores()))
        _slots.set(limiter)
        return limiter
