"""Processes that start with slow imports done, for tests that start and kill many.

They are forked from a server that has loaded libraries without threads of their own: LanceDB's threads would not survive a
fork, so each process loads it for itself.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

PRELOADED = ["numpy", "pandas", "pyarrow.dataset", "pydantic"]


def start(function: Callable[..., object], *args: object) -> BaseProcess:
    """Run a function of a module on `sys.path` in such a process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=function, args=args)
    process.start()
    return process


def embed_in_small_commits(lake: str, encoder: str) -> None:
    """Embed with a commit every 0.1 s, so that kills hit commits."""
    from tonelake.store import prepare_process

    prepare_process()

    from tonelake.embed import EmbedSettings, embed_lake, writer
    from tonelake.ingest import read_clips
    from tonelake.store import Lake

    writer.COMMIT_SECONDS = 0.1
    embed_lake(Lake(lake, create=False), EmbedSettings(encoder, device="cpu"), read_clips)
