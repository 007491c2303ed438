"""Processes that begin with the slow imports done, for tests that start and kill many: two seconds of work each, not ten.

They are forked from one that has loaded torch and transformers and nothing else: LanceDB's threads would not
survive a fork, and each loads it for itself.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess

LOADED = ["torch", "transformers.models.hubert.modeling_hubert"]


def start(function: Callable[..., object], *args: object) -> BaseProcess:
    """Run a function of a module that `sys.path` leads to in such a process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    process = context.Process(target=function, args=args)
    process.start()
    return process


def embed_in_small_commits(lake: str, encoder: str) -> None:
    """So that kills meet them."""
    import tonelake
    import tonelake.embed.writer
    from tonelake import embed

    embed.writer.COMMIT_SECONDS = 0.1
    tonelake.open(lake, progress=False).embed(encoder, precision="float32", device="cpu")
